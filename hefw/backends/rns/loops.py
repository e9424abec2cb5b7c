"""Compiled loops on residues, called from Python: machine code that is made once on a machine, then kept in a file.

What they do is said in `words` and `halves`. Arrays must lie in memory without gaps. Python's lock is let go
meanwhile, and several threads share a loop where that is asked for.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.backends.rns import abi
from hefw.backends.rns.abi import ENDS, PREFIX, SIGNATURES, description, machine
from hefw.backends.rns.tape import AT_ONCE, EACH, Rows, Section, Tape
from hefw.backends.rns.threads import helped
from hefw.core.errors import line
from hefw.core.files import write_atomically

Words = NDArray[np.uint64]
Order = NDArray[np.int64]
Floats = NDArray[np.float64]

HERE = Path(__file__).parent
#: What the machine code is made from.
SOURCES = (
    "abi.py",
    "atomics.py",
    "modular.py",
    "vectors.py",
    "lanes.py",
    "doubles.py",
    "ntt.py",
    "conversion.py",
    "products.py",
    "words.py",
    "views.py",
    "pieces.py",
    "halves.py",
    "compiling.py",
)
DIGEST = hashlib.sha256
#: Bytes that a processor reads from memory at once: a vector that lies across two takes twice as long.
LINE = 64
_TYPES = {"u": ctypes.c_uint64, "n": ctypes.c_int64}


def empty(*shape: int) -> Words:
    """New memory, from the beginning of a LINE."""
    size = math.prod(shape)
    found = np.empty(size + LINE // 8 - 1, np.uint64)
    start = -found.ctypes.data % LINE // 8
    return found[start : start + size].reshape(shape)


class Room(local):
    """Memory of one thread that is written over and over: new one each time would take a tenth of the work."""

    def __init__(self) -> None:
        self._held: dict[str, Words] = {}

    def array(self, name: str, *shape: int) -> Words:
        """What was there under a name before, or new."""
        size = math.prod(shape)
        if name not in self._held or len(self._held[name]) < size:
            self._held[name] = empty(size)
        return self._held[name][:size].reshape(shape)


class Tables:
    """Constants; roots, quotients and `ends`; inverse roots, quotients and ends: by prime, the special ones last; pairs
    of primes."""

    def __init__(self, arrays: Sequence[Words]) -> None:
        self.arrays = tuple(arrays)
        self.constants = arrays[0]
        self._addresses = np.array([_address(array, np.uint64) for array in arrays], np.uint64)
        self.address = address(self._addresses)


@dataclass(frozen=True, eq=False)
class Division:
    """By a product of primes: half of it modulo every prime (primes,), and its inverse modulo those that stay, with
    quotients (left, 2)."""

    halves: Words
    inverses: Words


@dataclass(frozen=True, eq=False)
class Basis:
    """How a polynomial (level + 1, N) is taken apart: `rows` are the primes modulo which its digits are wanted, its own
    and those that are divided by; `halves` (digits, primes) is what is added to a digit while it is made."""

    rows: Order
    halves: Words


@dataclass(frozen=True, eq=False)
class Constants:
    """What operations on ciphertexts of a level need besides these."""

    tables: Tables
    basis: Basis
    by: Division

    @cached_property
    def addresses(self) -> tuple[int, ...]:
        """Of all."""
        basis, by = self.basis, self.by
        return self.tables.address, *map(address, (basis.rows, basis.halves, by.halves, by.inverses))


_room = Room()


def _columns() -> Words:
    """What the last layers of a transform write over."""
    return _room.array("columns", 4, ENDS)


def powers(base: int, quotient: int, constants: Words, out: Words) -> None:
    _call("powers", base, quotient, constants, out, len(out))


def quotients(values: Words, high: int, low: int, prime: int, out: Words) -> None:
    _call("quotients", values, high, low, prime, out, len(out))


def multiply(values: Words, factors: Words, quotient: Words, prime: int, out: Words) -> None:
    _call("multiply", values, factors, quotient, prime, out, len(out))


def forward(a: Words, roots: Words, quotient: Words, ends: Words, prime: int) -> None:
    _call("forward", a, roots, quotient, ends, prime, _columns(), len(a))


def backward(a: Words, roots: Words, quotient: Words, ends: Words, constants: Words) -> None:
    _call("backward", a, roots, quotient, ends, constants, _columns(), len(a))


def copy(given: Rows, out: Rows, size: int) -> None:
    """Write rows of so many residues to others."""
    for source, to in zip(given.ravel().tolist(), out.ravel().tolist(), strict=True):
        ctypes.memmove(to, source, 8 * size)


class Job:
    """A section of a tape with all that it works on, for several threads.

    `places` are the rows of ciphertexts (`Shape.table`), `keys` (uses, abi.KEY_WORDS) describe those that the tape
    uses, `weights` (products, left) are the rows of what all its products take. `hides` (sums,) becomes 1 for each sum
    whose second part is not zero.
    Everything is held: a thread may come when the others are done, and looks where they are.
    """

    def __init__(
        self,
        tape: Tape,
        section: Section,
        constants: Constants,
        places: Rows,
        keys: Words,
        weights: Rows,
        hides: Words,
        threads: int,
    ) -> None:
        shape, (first, last) = tape.shape, section.phases
        phases, terms, starts, outs = tape.addresses
        left, taken = shape.left, shape.taken
        # What is kept meanwhile: ciphertexts modulo all primes, then polynomials of each track.
        whole, sizes = 2 * tape.tracks * EACH * taken, (left, shape.digits * taken, 2 * shape.dropped * AT_ONCE)
        room = _room.array("tape", whole + tape.tracks * sum(sizes), shape.size)
        straight, aparts, divided = (
            address(room) + 8 * shape.size * begin for begin in itertools.accumulate(sizes[:-1], initial=whole)
        )
        places = np.concatenate([places, tape.kept(address(room))])
        self.meeting = np.zeros((last - first) * (threads + 1), np.uint64)
        self.threads = threads
        self._size = shape.size
        self._words = np.empty(abi.JOB, np.uint64)
        self._words[: abi.COUNT] = (
            *constants.addresses,
            phases + 8 * abi.PHASE * first,
            terms,
            starts,
            outs,
            straight,
            aparts,
            divided,
            address(places),
            address(keys),
            address(weights),
            address(hides),
            address(self.meeting),
        )
        self._words[abi.COUNT :] = (
            last - first,
            first,
            threads,
            len(constants.tables.constants),
            left,
            shape.dropped,
            shape.digits,
            shape.size,
            sum(sizes),
        )
        self._held = tape, constants, places, keys, weights, hides

    def numbers(self, thread: int) -> tuple[int, int, int]:
        """What the loop is called with by one of the threads."""
        return address(self._words), thread, address(_room.array("thread", abi.ROOM + 2 * self._size))


def run(job: Job) -> None:
    """Do a job: other threads that are asked come as soon as they can."""
    if job.threads > 1:
        helped([functools.partial(_take_part, number, job) for number in range(1, job.threads)])
    _take_part(0, job)


def _take_part(number: int, job: Job) -> None:
    function, _ = _loaded()[1]["run"]
    function(*job.numbers(number))


def split(addresses: Rows, start: int, low: Floats, high: Floats) -> None:
    _call("split", addresses, start, low, high, *low.shape)


def join(
    low: Floats, high: Floats, prime: int, over: int, shift: int, power: int, addresses: Words, start: int, more: bool
) -> None:
    quotient = (power << 64) // prime
    _call("join", low, high, prime, over, shift, power, quotient, addresses, start, more, *low.shape)


def _call(name: str, *arguments: Any) -> None:
    function, casts = _loaded()[1][name]
    function(*[cast(given) for cast, given in zip(casts, arguments, strict=True)])


def address(array: NDArray[Any]) -> int:
    """Where it begins; it must lie in memory without gaps."""
    return _address(array, array.dtype)


def rows(array: Words) -> Rows:
    """Where the rows (..., N) of an array begin."""
    *shape, size = array.shape
    begins = np.arange(math.prod(shape), dtype=np.uint64) * np.uint64(8 * size)
    return (begins + np.uint64(address(array))).reshape(shape)


def _address(array: NDArray[Any] | int, kind: Any) -> int:
    if isinstance(array, int):
        return array
    if array.dtype != kind or not array.flags.c_contiguous:
        raise TypeError(f"an array of {array.dtype} that lies in memory with gaps, or is not of {np.dtype(kind)}")
    if array.flags.writeable and array.size:
        buffer: Any = array
        return ctypes.addressof(ctypes.c_char.from_buffer(buffer))  # in a fifth of the time
    return int(array.ctypes.data)


_CASTS: dict[str, Callable[[Any], int]] = {
    "w": lambda given: _address(given, np.uint64),
    "i": lambda given: _address(given, np.int64),
    "f": lambda given: _address(given, np.float64),
    "u": int,
    "n": int,
}


@cache
def missing() -> str | None:
    """Why loops cannot be used here, None where they can: tried once, which takes seconds where none are kept yet."""
    try:
        _loaded()
    except Exception as error:  # a compiler may raise anything; SEAL's own calls do what loops would have done
        return line(f"{type(error).__name__}: {error}")
    return None


@cache
def _loaded() -> tuple[Any, dict[str, Any]]:
    """What owns the code, and each loop as a C function with what makes numbers of its arguments."""
    import llvmlite.binding as llvm

    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(_code()))
    engine.finalize_object()
    found = {}
    for name, codes in SIGNATURES.items():
        kind = ctypes.CFUNCTYPE(None, *(_TYPES.get(code, ctypes.c_uint64) for code in codes))
        found[name] = kind(engine.get_function_address(PREFIX + name)), [_CASTS[code] for code in codes]
    return engine, found


def _code() -> bytes:
    """The object file with all loops: from a file, or made now and kept in one."""
    name = f"loops-{_stamp()}.o"
    for folder in _folders():
        found = _read(folder / name)
        if found is not None:
            return found
    from hefw.backends.rns.compiling import compiled

    code = compiled()
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / name, [DIGEST(code).digest(), code])
            return code
        except OSError:
            continue
    raise RuntimeError(f"compiled loops cannot be written to {' or '.join(map(str, _folders()))}")


def _folders() -> Iterator[Path]:
    """Where machine code is kept: beside Python's own, else in the user's cache."""
    yield HERE / "__pycache__"
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hefw-loops"


def _read(path: Path) -> bytes | None:
    """What was written, whole; None if it is not there, or damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    size = DIGEST().digest_size
    return data[size:] if DIGEST(data[size:]).digest() == data[:size] else None


def _stamp() -> str:
    """Of the loops, of LLVM and of the processor."""
    found = DIGEST()
    for name in SOURCES:
        found.update((HERE / name).read_bytes())
    found.update(description().encode())
    return found.hexdigest()[:16]
