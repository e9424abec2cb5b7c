"""A stored key set as the source of a session's keys."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from hefw.core.backend import Backend, KeyHolder, KeyManifest
from hefw.core.envelope import Envelope
from hefw.core.errors import EnvelopeError, KeyStoreError
from hefw.core.files import write_atomically
from hefw.core.params import Resolved
from hefw.core.program import Interface
from hefw.keys import sealing
from hefw.keys.count import ShownCount
from hefw.keys.folders import EVALUATION, SECRET, SHOWN, check_private, memory_folder
from hefw.keys.record import KeySetRecord
from hefw.protocol.keysource import KeySource

#: Rotations that an error names.
NAMED = 6

_log = logging.getLogger(__name__)


class StoredKeys(KeySource):
    """The secret key is checked at once, and used when a program was agreed on; evaluation keys are read as they are
    sent."""

    stage = "keys"
    kept = True

    def __init__(
        self,
        name: str,
        folder: Path,
        record: KeySetRecord,
        backend: Backend,
        passphrase: str | None = None,
        renew: str = "hefw keys new",
    ) -> None:
        """`renew` says how a key set which serves is made: a command, mostly.

        KeyStoreError if the set is damaged, or its secret key cannot be opened.
        """
        self.name = name
        self.record = record
        self.next_step = f"make new keys: {renew}"
        self._folder = folder
        self._backend = backend
        self._renew = renew
        self._count = ShownCount(folder / SHOWN, name)
        self._count.read()  # a set whose count is lost is of no use
        self._secret = self._opened(passphrase)

    def holder(self, interface: Interface) -> KeyHolder:
        """The stored secret key; KeyStoreError, with what lacks and what to do, if the set does not serve a program."""
        if missing := lacks(self.record, interface.params, interface.keys):
            raise KeyStoreError(
                f"key set {self.name!r} does not serve this run: {'; '.join(missing)}; make one that does: "
                f"{self._renew}"
            )
        params, manifest = self.record.resolved, self.record.manifest
        if self._secret is None:
            return self._backend.load_key_holder(params, manifest, self._folder / SECRET)
        with memory_folder(self._folder) as private:
            write_atomically(private / SECRET, self._secret, private=True)
            return self._backend.load_key_holder(params, manifest, private / SECRET)

    def evaluation_keys(self, interface: Interface, holder: KeyHolder) -> Iterator[tuple[str, bytes]]:
        """From their files; one that is damaged or gone is made again."""
        for name in interface.keys.names():
            path = self._folder / EVALUATION / name.replace("/", "-")
            blob = self._read(path, name)
            if blob is None:
                _log.warning("key set %r: the evaluation key %s is damaged or gone, and is made again", self.name, name)
                ((_, blob),) = holder.evaluation_keys([name])
                write_atomically(path, blob, private=True)
            yield name, blob

    @property
    def shown(self) -> int:
        """In all runs."""
        return self._count.read()

    def show(self, entries: int, limit: int) -> bool:
        """On the disk before this returns."""
        return self._count.add(entries, limit)

    def _read(self, path: Path, name: str) -> bytes | None:
        kind, _, step = name.partition("/")
        try:
            data = path.read_bytes()
            envelope = Envelope.unpack(data).expect(
                kind=f"{kind}-key",
                backend=self.record.backend,
                params_digest=self.record.resolved.digest,
                key_id=bytes.fromhex(self.record.key_id),
            )
        except (OSError, EnvelopeError):
            return None
        return data if envelope.item == int(step or 0) else None

    def _opened(self, passphrase: str | None) -> bytes | None:
        """The secret key's envelope, checked; None where its file has it as it is, for the backend to read."""
        path = self._folder / SECRET
        try:
            check_private(path)
            data = path.read_bytes()
            if self.record.sealed:
                if passphrase is None:
                    raise KeyStoreError("it has a passphrase; give it by HEFW_PASSPHRASE, or on a terminal when asked")
                data = sealing.unseal(data, passphrase, self.record.belonging)
            Envelope.unpack(data).expect(
                kind="secret-key",
                backend=self.record.backend,
                params_digest=self.record.resolved.digest,
                key_id=bytes.fromhex(self.record.key_id),
            )
        except OSError as error:
            reason = error.strerror or error
            raise KeyStoreError(f"key set {self.name!r}: the secret key cannot be read: {reason}; restore it") from None
        except KeyStoreError as error:
            raise KeyStoreError(f"key set {self.name!r}: {error}") from None
        except EnvelopeError as error:
            raise KeyStoreError(
                f"key set {self.name!r}: the secret key's file is damaged or of another key set ({error}); restore it"
            ) from None
        return data if self.record.sealed else None


def lacks(record: KeySetRecord, params: Resolved, keys: KeyManifest) -> list[str]:
    """What a program needs and a key set has not, in words; nothing if it serves."""
    own = record.resolved
    if own.backend != params.backend:
        return [f"its keys are of backend {own.backend!r}, the run's is {params.backend!r}"]
    if own.digest != params.digest:
        return [f"its parameters are {_described(own)}; the plan wants {_described(params)}"]
    missing = [
        f"it has no {name} key"
        for name in ("relinearisation", "conjugation", "bootstrap")
        if getattr(keys, name) and not getattr(record, name)
    ]
    absent = [step for step in sorted(keys.rotations) if step not in record.rotations]
    low = [
        step
        for step, level in sorted(keys.rotations.items())
        if step in record.rotations and record.rotations[step] < level
    ]
    if absent:
        missing.append(f"it lacks {_rotations(absent)}")
    if low:
        missing.append(f"its keys serve too low a level of {_rotations(low)}")
    return missing


def _rotations(steps: list[int]) -> str:
    shown = ", ".join(map(str, steps[:NAMED])) + (f" and {len(steps) - NAMED} more" if len(steps) > NAMED else "")
    return f"the rotation{'s' if len(steps) > 1 else ''} {shown}"


def _described(params: Resolved) -> str:
    asked = params.params
    text = f"N = {asked.ring_dimension}, primes of {list(asked.modulus_bits)} and {list(asked.special_bits)} bits"
    extra = f", {asked.packed_slots} slots" if asked.packed_slots else ""
    return text + extra + (f", bootstrapping {list(asked.bootstrap)}" if asked.bootstrap else "")
