"""Compiled loops on residues, called from Python: machine code that is made once on a machine, then kept in a file.

What they do is said in `words` and `halves`. Arrays must lie in memory without gaps. Python's lock is let go
meanwhile, and several threads share a loop where that is asked for.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hefw.backends.tenseal.abi import BLOCK, ENDS, PREFIX, SIGNATURES, description, machine
from hefw.backends.tenseal.threads import shared
from hefw.core.errors import line
from hefw.core.files import write_atomically

Words = NDArray[np.uint64]
Order = NDArray[np.int64]
Floats = NDArray[np.float64]

HERE = Path(__file__).parent
#: What the machine code is made from.
SOURCES = (
    "abi.py",
    "modular.py",
    "vectors.py",
    "lanes.py",
    "doubles.py",
    "ntt.py",
    "conversion.py",
    "products.py",
    "words.py",
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
        self.addresses = np.array([_address(array, np.uint64) for array in arrays], np.uint64)


@dataclass(frozen=True, eq=False)
class Division:
    """By the product of so many primes: half of it modulo each prime (primes,), and its inverse modulo those from the
    first on that stay, with quotients (..., 2)."""

    count: int
    halves: Words
    inverses: Words


@dataclass(frozen=True, eq=False)
class Basis:
    """How a polynomial (level + 1, N) is taken apart: into digits of the primes from each of `starts` to the next.

    `rows` are the primes modulo which they are wanted, its own and the special ones; `halves` (digits, primes) is what
    is added to a digit while it is made.
    """

    rows: Order
    starts: Order
    halves: Words


@dataclass(frozen=True, eq=False)
class Digits:
    """A polynomial (level + 1, N) and its digits (digits, rows, N): what a digit is modulo its own primes is the
    polynomial's, and not written again."""

    polynomial: Words
    digits: Words
    basis: Basis


#: Addresses of a key's residues and of its order; how many primes, digits and words a block it has.
KeyWords = tuple[int, int, int, int, int]


class Mark(Enum):
    """What differs among threads that share a loop: memory to write over, the first piece of work and the end."""

    ROOM, FIRST, LAST = range(3)


ROOM, PART = Mark.ROOM, (Mark.FIRST, Mark.LAST)
_room = Room()


def _columns() -> Words:
    """What the last layers of a transform write over."""
    return _room.array("columns", 4, ENDS)


def powers(base: int, quotient: int, constants: Words, out: Words) -> None:
    _call("powers", base, quotient, constants, out, len(out))


def quotients(values: Words, high: int, low: int, prime: int, out: Words) -> None:
    _call("quotients", values, high, low, prime, out, len(out))


def forward(a: Words, roots: Words, quotient: Words, ends: Words, prime: int) -> None:
    _call("forward", a, roots, quotient, ends, prime, _columns(), len(a))


def backward(a: Words, roots: Words, quotient: Words, ends: Words, constants: Words) -> None:
    _call("backward", a, roots, quotient, ends, constants, _columns(), len(a))


def decompose(part: Words, tables: Tables, basis: Basis, out: Words, threads: int) -> None:
    """`words.digits`, then `words.decompose`."""
    (level, size), (taken, count, _), columns = part.shape, out.shape, 4 * ENDS
    given, by, sizes = _room.array("given", level, size), tables.addresses, (len(tables.constants), taken, level)
    apart = basis.starts, basis.halves, ROOM
    _together("digits", threads, taken, columns, part, by, *apart, given, *PART, *sizes, size)
    _together(
        "decompose", threads, taken * count, columns, given, by, basis.rows, *apart, out, *PART, *sizes, count, size
    )


def switched(
    of: Digits,
    key: Words,
    tables: Tables,
    by: Division,
    given: Words,
    added: int,
    order: Order,
    more: bool,
    out: Words,
    threads: int,
) -> None:
    """`words.switch`, then `words.switched`."""
    taken, size = len(of.basis.rows), given.shape[2]
    product, sizes = _products(of, key, by.count, tables.constants, threads), (len(tables.constants), taken, size)
    divided = tables.addresses, by.count, by.halves, by.inverses
    arguments = product, of.basis.rows, *divided, given, added, order, more, ROOM, out
    _together("switched", threads, 2, taken * size + 4 * ENDS, *arguments, *PART, *sizes)


def accumulated(
    of: Digits,
    key: Words,
    special: int,
    constants: Words,
    given: Words,
    order: Order,
    total: Words,
    out: Words,
    threads: int,
) -> None:
    """`words.switch`, then `words.accumulated`."""
    product, taken = _products(of, key, special, constants, threads), len(of.basis.rows)
    arguments = product, of.basis.rows, constants, given, order, total, out
    _together("accumulated", threads, taken, 0, *arguments, *PART, special, len(constants), taken, given.shape[1])


def _products(of: Digits, key: Words, special: int, constants: Words, threads: int) -> Words:
    """`words.switch`: valid in this thread until the next one."""
    (count, taken, size), block = of.digits.shape, key.shape[4]
    product = _room.array("product", 2 * taken * size)
    sizes = count, len(constants), taken, len(key), key.size // (len(key) * 2 * size), size, block
    arguments = of.digits, of.polynomial, key, of.basis.rows, special, constants, ROOM, product
    _together("products", threads, taken * size // block, 6 * block, *arguments, *PART, *sizes)
    return product


def turned(
    given: Words,
    polynomial: Words,
    tables: Tables,
    basis: Basis,
    keys: Sequence[KeyWords],
    outs: Sequence[Words],
    by: Division,
    added: int,
    more: bool,
) -> None:
    """`decompose`, then `switched` by each key: all at once, by one thread."""
    held, to = np.array(keys, np.uint64), np.array([address(out) for out in outs], np.uint64)
    room, sizes = _workspace(polynomial.shape, basis, keys[0][4], 0)
    apart = basis.rows, basis.starts, basis.halves
    arguments = held, to, by.count, by.halves, by.inverses, added, more, room
    _call(
        "turned",
        given,
        polynomial,
        tables.addresses,
        *apart,
        *arguments,
        len(keys),
        len(tables.constants),
        *sizes,
    )


def added(out: Words, tables: Tables, basis: Basis, keys: Sequence[KeyWords], by: Division) -> None:
    """`decompose`, `accumulated` by each key, `folded`: all at once, by one thread."""
    shape = out.shape[1:]
    room, sizes = _workspace(shape, basis, keys[0][4], 2 * (shape[0] + len(basis.rows)) * shape[1])
    apart = basis.rows, basis.starts, basis.halves
    arguments = np.array(keys, np.uint64), by.count, by.halves, by.inverses, room
    _call("added", out, tables.addresses, *apart, *arguments, len(keys), len(tables.constants), *sizes)


def _workspace(shape: tuple[int, ...], basis: Basis, block: int, more: int) -> tuple[Words, tuple[int, ...]]:
    """What `compiling.workspace` divides up, and the sizes by which it does."""
    (level, size), digits, taken = shape, len(basis.starts) - 1, len(basis.rows)
    room = _room.array("workspace", 4 * ENDS + 6 * block + (1 + 2 * level + 2 * taken + digits * taken) * size + more)
    return room, (level, digits, taken, size, block)


def folded(total: Words, rows: Order, tables: Tables, by: Division, out: Words, threads: int) -> None:
    taken, size = total.shape[1:]
    arguments = total, rows, tables.addresses, by.count, by.halves, by.inverses, ROOM, out
    _together("folded", threads, 2, taken * size + 4 * ENDS, *arguments, *PART, len(tables.constants), taken, size)


def rescaled(given: Words, rows: Order, tables: Tables, by: Division, out: Words, threads: int) -> None:
    parts, taken, size = given.shape
    arguments, sizes = (given, rows, tables.addresses, by.halves, by.inverses, ROOM, out), (taken, size)
    room = (taken + 1) * size + 4 * ENDS
    _together("rescaled", threads, parts, room, *arguments, *PART, parts, len(tables.constants), *sizes)


def sums(
    cts: Words, pts: Words, starts: Order, outs: Words, primes: int, size: int, constants: Words, threads: int
) -> None:
    block = min(BLOCK, size)
    arguments, sizes = (cts, pts, starts, outs, constants, ROOM), (len(cts), len(outs), primes, size, block)
    _together("sums", threads, primes * size // block, 6 * block, *arguments, *PART, *sizes)


def square(a: Words, constants: Words, out: Words, threads: int) -> None:
    block, count = min(BLOCK, a.shape[2]), a.shape[1]
    sizes = len(constants), *a.shape[1:], block
    _together("square", threads, count, 6 * block, a, constants, ROOM, out, *PART, *sizes)


def split(addresses: Words, start: int, low: Floats, high: Floats) -> None:
    _call("split", addresses, start, low, high, *low.shape)


def join(
    low: Floats, high: Floats, prime: int, over: int, shift: int, power: int, addresses: Words, start: int, more: bool
) -> None:
    quotient = (power << 64) // prime
    _call("join", low, high, prime, over, shift, power, quotient, addresses, start, more, *low.shape)


def _together(name: str, threads: int, count: int, words: int, *arguments: Any) -> None:
    """A loop over so many pieces of work by several threads, each with so many words of its own for `Mark.ROOM`."""

    def filled(given: Sequence[Any], first: int, last: int) -> list[Any]:
        own = {ROOM: _room.array("room", words), PART[0]: first, PART[1]: last}
        return [own[each] if isinstance(each, Mark) else each for each in given]

    if threads == 1:
        return _call(name, *filled(arguments, 0, count))
    casts = _loaded()[1][name][1]  # once for all: meanwhile threads would wait for Python's lock
    numbers = [each if isinstance(each, Mark) else cast(each) for cast, each in zip(casts, arguments, strict=True)]
    shared(threads, count, lambda first, last: _call(name, *filled(numbers, first, last)))


def _call(name: str, *arguments: Any) -> None:
    function, casts = _loaded()[1][name]
    function(*[cast(given) for cast, given in zip(casts, arguments, strict=True)])


def address(array: NDArray[Any]) -> int:
    """Where it begins; it must lie in memory without gaps."""
    return _address(array, array.dtype)


def _address(array: NDArray[Any] | int, kind: Any) -> int:
    if isinstance(array, int):
        return array
    if array.dtype != kind or not array.flags.c_contiguous:
        raise TypeError(f"an array of {array.dtype} that lies in memory with gaps, or is not of {np.dtype(kind)}")
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
    from hefw.backends.tenseal.compiling import compiled

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
