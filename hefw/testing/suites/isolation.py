"""An evaluator cannot decrypt: nothing that could is reachable from it, or imported by it."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hefw.core.backend import KeyHolder
from hefw.core.envelope import Envelope
from hefw.testing.parties import Parties
from hefw.testing.process import prepare, run_child

#: Attributes of Python objects, and types of a library's objects, that have no place on a server.
SECRET_NAME = re.compile(r"decrypt|secret|private_?key", re.I)
SECRET_TYPE = re.compile(r"decryptor|secret_?key|private_?key|key_?pair|key_?generator|key_?holder", re.I)
_LEAVES = (str, bytes, int, float, complex, np.ndarray, types.ModuleType, type, type(None))


def reachable(root: object) -> Iterator[tuple[str, object]]:
    """Everything that attributes and containers lead to, with the way there. Not modules, classes or arrays."""
    seen: set[int] = set()
    kept, waiting = [], [("evaluator", root)]
    while waiting:
        path, item = waiting.pop()
        if id(item) in seen or isinstance(item, _LEAVES):
            continue
        seen.add(id(item))
        kept.append(item)  # so that no id is used twice
        yield path, item
        if isinstance(item, dict):
            waiting += [(f"{path}[{key!r}]", value) for key, value in item.items()]
        elif isinstance(item, (list, tuple, set, frozenset)):
            waiting += [(f"{path}[...]", value) for value in item]
        elif isinstance(item, types.MethodType):
            waiting.append((f"{path}.__self__", item.__self__))
        elif isinstance(item, types.FunctionType):
            cells = [cell.cell_contents for cell in item.__closure__ or () if cell != types.CellType()]
            waiting += [(f"{path} (closure)", value) for value in cells]
        else:
            waiting += [(f"{path}.{name}", value) for name, value in _attributes(item).items()]


def _attributes(item: object) -> dict[str, Any]:
    found = dict(getattr(item, "__dict__", {}))
    for kind in type(item).__mro__:
        names = kind.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if hasattr(item, name):
                found[name] = getattr(item, name)
    return found


def _is_python(item: object) -> bool:
    """Whether the class was written in Python: its methods are the plugin's own, not a library's."""
    return bool(type(item).__flags__ & (1 << 9)) and any(
        isinstance(value, types.FunctionType) for value in vars(type(item)).values()
    )


class Isolation:
    """What a server has in hand."""

    def test_nothing_reachable_from_an_evaluator_can_decrypt(self, parties: Parties) -> None:
        for path, item in reachable(parties.evaluator):
            assert not isinstance(item, KeyHolder), f"{path} is a key holder"
            kind = type(item).__name__
            assert not SECRET_TYPE.search(kind), f"{path} is a {kind}"
            names = set(_attributes(item))
            if _is_python(item):
                names |= {name for base in type(item).__mro__[:-1] for name in vars(base)}
            found = sorted(name for name in names if SECRET_NAME.search(name))
            assert not found, f"{path} has {', '.join(found)}"

    def test_a_server_imports_no_key_holder(self, parties: Parties, target: str, tmp_path: Path) -> None:
        """It loads keys, computes and dumps; then its modules are looked at."""
        prepare(tmp_path, target, parties)
        for name, blob in parties.holder.evaluation_keys():
            (tmp_path / f"{name.replace('/', '-')}.key").write_bytes(blob)
        (tmp_path / "sent").write_bytes(parties.send(parties.x))
        modules = set(run_child("serve", tmp_path))
        assert type(parties.evaluator).__module__ in modules
        homes = {kind.__module__ for kind in type(parties.holder).__mro__ if kind not in KeyHolder.__mro__}
        assert homes, "the key holder's class is the abstract one"
        found = sorted(homes & modules)
        assert not found, f"the server imported {', '.join(found)}, where the key holder lives"
        heavy = sorted({"torch", "diffusers", "pytest"} & modules)
        assert not heavy, f"the server imported {', '.join(heavy)}"

    def test_only_the_right_secret_reads_a_ciphertext_unless_simulated(self, parties: Parties) -> None:
        """Past the check of key ids: a stranger who puts his id on the envelope."""
        stranger = parties.backend.keygen(parties.params, parties.manifest)
        envelope = Envelope.unpack(parties.evaluator.dump(parties.encrypt(parties.x)))
        forged = Envelope(**{**vars(envelope), "key_id": stranger.key_id}).pack()
        error = float(np.abs(stranger.decrypt_bytes(forged) - parties.x).max())
        if parties.backend.capabilities.simulated:
            assert error < parties.precision.worst, "a backend that hides values must not be declared simulated"
        else:
            assert error > 1, "another key holder's secret reads this ciphertext"
        plain = parties.x.astype("<f8").tobytes()[:64]
        assert plain not in envelope.payload or parties.backend.capabilities.simulated

    def test_modules_stay_apart_in_this_process_too(self, parties: Parties) -> None:
        """The evaluator's module has no key holder among its names."""
        module = sys.modules[type(parties.evaluator).__module__]
        found = [
            name
            for name, value in vars(module).items()
            if isinstance(value, type)
            and not isinstance(value, types.GenericAlias)  # a class to Python 3.10
            and issubclass(value, KeyHolder)
            and value is not KeyHolder
        ]
        assert not found, f"{module.__name__} has {', '.join(found)}"
