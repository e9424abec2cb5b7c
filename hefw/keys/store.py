"""Making, finding and removing key sets. A set is there whole or not at all."""

from __future__ import annotations

import datetime
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from hefw.core.backend import Backend
from hefw.core.errors import KeyStoreError, suggest
from hefw.core.files import write_atomically
from hefw.core.program import Interface
from hefw.core.progress import Progress, ProgressCallback
from hefw.keys import sealing
from hefw.keys.count import ShownCount
from hefw.keys.folders import EVALUATION, RECORD, SECRET, SHOWN, check_private, folder, make_root, memory_folder, root
from hefw.keys.record import KeySetRecord, read
from hefw.keys.stored import StoredKeys


@dataclass(frozen=True)
class KeySet:
    """A key set that is there. `shown` is None where the count is lost, and the set of no use."""

    name: str
    folder: Path
    record: KeySetRecord
    shown: int | None
    bytes: int  # of all its files

    def source(self, backend: Backend, passphrase: str | None = None, renew: str = "hefw keys new") -> StoredKeys:
        """Its keys for a session; `renew` is what an error advises."""
        return StoredKeys(self.name, self.folder, self.record, backend, passphrase, renew)


def names() -> list[str]:
    """The key sets that are there, sorted."""
    try:
        found = sorted(path.name for path in root().iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise KeyStoreError(f"key sets cannot be listed in {str(root())!r}: {error.strerror}") from None
    return found


def find(name: str) -> KeySet:
    """A key set by name; KeyStoreError if it is not there, damaged, or open to others."""
    place = folder(name)
    try:
        for path in (root(), place, place / RECORD):
            check_private(path)
        record = read(place / RECORD, name)
    except FileNotFoundError:
        if place.is_dir():
            raise KeyStoreError(f"key set {name!r} has no {RECORD}: it is damaged; run: hefw keys remove {name}") from (
                None
            )
        raise KeyStoreError(
            f"unknown key set {name!r}; {suggest(name, names())}; make it: hefw keys new {name}"
        ) from None
    except OSError as error:
        raise KeyStoreError(f"key set {name!r} cannot be read: {error.strerror}") from None
    try:
        shown: int | None = ShownCount(place / SHOWN, name).read()
    except KeyStoreError:
        shown = None
    size = sum(path.lstat().st_size for path in place.rglob("*") if path.is_file())
    return KeySet(name, place, record, shown, size)


def create(
    name: str,
    backend: Backend,
    interface: Interface,
    made_for: str,
    passphrase: str | None = None,
    progress: ProgressCallback | None = None,
) -> KeySet:
    """New keys for a program, kept under a name. KeyStoreError if there is such a set, or it cannot be kept."""
    check_new(name)
    if passphrase is not None:
        sealing.check_installed()
    place = make_root()
    made = place / f".{name}.{secrets.token_hex(4)}"
    try:
        made.mkdir(mode=0o700)
        (made / EVALUATION).mkdir(mode=0o700)
        record = _write(made, backend, interface, made_for, passphrase, progress or (lambda _: None))
        ShownCount(made / SHOWN, name).begin()
        write_atomically(made / RECORD, record.to_json().encode(), private=True)
        os.rename(made, place / name)  # refused where a set of this name was made meanwhile: it is not empty
    except OSError as error:
        raise KeyStoreError(f"key set {name!r} cannot be kept in {str(place)!r}: {error.strerror}") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return find(name)


def check_new(name: str) -> None:
    """KeyStoreError if a key set of this name is there, or cannot be."""
    if folder(name).exists():
        raise KeyStoreError(
            f"key set {name!r} is there already; choose another name, for example {free_name(name)}, or remove it: "
            f"hefw keys remove {name}"
        )


def free_name(name: str) -> str:
    """A name like this one that no key set has."""
    number = 2
    while folder(candidate := f"{name[:60]}-{number}").exists():
        number += 1
    return candidate


def remove(name: str) -> None:
    """Remove a key set, whatever state it is in. It is gone at once, even if removing its files is interrupted."""
    place = folder(name)
    aside = root() / f".{name}.{secrets.token_hex(4)}"
    try:
        os.rename(place, aside)
        # with what was interrupted, such a set among it, while it was made or removed
        for path in root().iterdir():
            if re.fullmatch(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}", path.name):
                (path / SECRET).unlink(missing_ok=True)  # first of all
                shutil.rmtree(path)
    except FileNotFoundError:
        raise KeyStoreError(f"unknown key set {name!r}; {suggest(name, names())}") from None
    except OSError as error:
        raise KeyStoreError(f"key set {name!r} cannot be removed: {error.strerror}") from None


def _write(
    made: Path,
    backend: Backend,
    interface: Interface,
    made_for: str,
    passphrase: str | None,
    progress: ProgressCallback,
) -> KeySetRecord:
    params, manifest = interface.params, interface.keys
    holder = backend.keygen(params, manifest)
    provenance = backend.provenance()
    record = KeySetRecord(
        created=datetime.datetime.now(datetime.timezone.utc),
        backend=params.backend,
        library=f"{provenance.library} {provenance.version}",
        key_id=holder.key_id.hex(),
        sealed=passphrase is not None,
        params=params.params.to_dict(),
        primes=params.primes,
        special_primes=params.special_primes,
        rotations=dict(manifest.rotations),
        relinearisation=manifest.relinearisation,
        conjugation=manifest.conjugation,
        bootstrap=manifest.bootstrap,
        made_for=made_for,
        simulated=backend.capabilities.simulated,
    )
    if passphrase is None:
        holder.save(made / SECRET)
    else:
        with memory_folder(made) as private:
            holder.save(private / SECRET)
            sealed = sealing.seal((private / SECRET).read_bytes(), passphrase, record.belonging)
        write_atomically(made / SECRET, sealed, private=True)
    total = len(manifest.names())
    for done, (name, blob) in enumerate(holder.evaluation_keys(), 1):
        write_atomically(made / EVALUATION / name.replace("/", "-"), blob, private=True)
        progress(Progress("keygen", done, total, name))
    return record
