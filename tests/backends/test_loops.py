"""Machine code of the loops: made once, kept whole, and run without numba."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hefw.backends.rns import compiling, loops


@pytest.fixture
def folders(monkeypatch, tmp_path) -> list[Path]:
    found = [tmp_path / "first", tmp_path / "second"]
    monkeypatch.setattr(loops, "_folders", lambda: iter(found))
    return found


@pytest.fixture
def made(monkeypatch) -> list[bytes]:
    """What was compiled, each time something else."""
    found: list[bytes] = []

    def compiled() -> bytes:
        found.append(b"code %d" % len(found))
        return found[-1]

    monkeypatch.setattr(compiling, "compiled", compiled)
    return found


def test_code_is_made_once_and_kept(folders, made) -> None:
    assert loops._code() == loops._code() == b"code 0"
    assert [path.suffix for path in folders[0].iterdir()] == [".o"]
    assert not folders[1].exists()


def test_what_is_damaged_is_made_again(folders, made) -> None:
    loops._code()
    (path,) = folders[0].iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert loops._code() == b"code 1"
    assert loops._code() == b"code 1"


def test_where_the_first_folder_cannot_be_written_the_second_is_used(folders, made) -> None:
    folders[0].write_text("a file")
    assert loops._code() == loops._code() == b"code 0"
    assert len(list(folders[1].iterdir())) == 1


def test_where_nothing_can_be_kept_loops_are_missing(folders, made) -> None:
    for folder in folders:
        folder.write_text("a file")
    loops._loaded.cache_clear()
    loops.missing.cache_clear()
    try:
        assert loops.missing() == f"RuntimeError: compiled loops cannot be written to {folders[0]} or {folders[1]}"
    finally:
        loops.missing.cache_clear()
    assert loops.missing() is not None
    loops.missing.cache_clear()


def test_without_kept_code_and_numba_loops_are_missing(folders, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "hefw.backends.rns.compiling", None)
    loops._loaded.cache_clear()
    loops.missing.cache_clear()
    try:
        assert "hefw.backends.rns.compiling" in str(loops.missing())
    finally:
        loops.missing.cache_clear()


def test_other_loops_or_another_processor_are_other_code(monkeypatch, tmp_path) -> None:
    own = loops._stamp()
    monkeypatch.setattr(loops, "description", lambda: "another processor")
    other = loops._stamp()
    for name in loops.SOURCES:
        (tmp_path / name).write_bytes((loops.HERE / name).read_bytes() + b"\n")
    monkeypatch.setattr(loops, "HERE", tmp_path)
    assert len({own, other, loops._stamp()}) == 3


def test_kept_loops_run_without_numba() -> None:
    assert loops.missing() is None  # they are kept now
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import numpy as np; from hefw.backends.rns import loops\n"
        "low, high, word = np.zeros((1, 2)), np.zeros((1, 2)), np.array([5, 3 << 30], np.uint64)\n"
        "loops.split(np.array([word.ctypes.data], np.uint64), 0, low, high); print(*low[0], *high[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), timeout=60
    )
    assert (done.stdout, done.stderr) == ("5.0 0.0 0.0 3.0\n", "")


def test_processors_that_multiply_no_52_bit_numbers_get_the_same_results(tmp_path) -> None:
    code = (
        "import sys; from hefw.backends.rns import abi\n"
        "abi.fast = lambda: None\n"
        "import numpy as np; from hefw.core.params import CkksParams; from hefw.core.backend import KeyManifest\n"
        "from hefw.backends.tenseal.backend import TensealBackend\n"
        "from hefw.backends.rns.ntt import forward\n"
        "assert forward.__name__ == '_forward', forward\n"
        "backend = TensealBackend()\n"
        "params = backend.resolve(CkksParams(2048, (48, 40, 45), (50, 50), 30.0, allow_insecure=True))\n"
        "holder, evaluator = backend.keygen(params, KeyManifest({1: 2})), backend.evaluator(params)\n"
        "evaluator.load_keys(dict(holder.evaluation_keys()))\n"
        "values = np.random.default_rng(0).normal(size=1024)\n"
        "ct = holder.encrypt(values, 2, 2.0**40)\n"
        "turned = holder.decrypt(evaluator.rotate(ct, 1)).real - np.roll(values, -1)\n"
        "square = holder.decrypt(evaluator.rescale(evaluator.square(ct))).real - values**2\n"
        "print(np.abs(turned).max() < 1e-4, np.abs(square).max() < 1e-3, end='')"
    )
    environment = dict(os.environ) | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert (done.stdout, done.stderr) == ("True True", "")


@pytest.mark.parametrize("array", [np.zeros((2, 3)).T, np.zeros((3, 2), np.float32)])
def test_arrays_that_c_would_read_wrongly_are_refused(array) -> None:
    with pytest.raises(TypeError, match="in memory with gaps, or is not of float64"):
        loops.split(np.zeros(3, np.uint64), 0, array, np.zeros((3, 2)))


def test_loops_that_need_python_are_not_made(monkeypatch) -> None:
    def raising(base, quotient, constants, out, n):  # type: ignore[no-untyped-def]
        for _ in range(0, 5, n):  # of step 0 it is an error
            compiling.modular.powers(base, quotient, compiling.some(constants, (9,)), compiling.some(out, (n,)))

    monkeypatch.setattr(compiling, "SIGNATURES", {"powers": loops.SIGNATURES["powers"]})
    monkeypatch.setattr(compiling, "powers", raising)
    with pytest.raises(RuntimeError, match=r"compiled loops need .*PyErr"):
        compiling.compiled()
