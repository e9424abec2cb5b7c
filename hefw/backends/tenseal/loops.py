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
    "lanes.py",
    "ntt.py",
    "conversion.py",
    "products.py",
    "words.py",
    "halves.py",
    "compiling.py",
)
DIGEST = hashlib.sha256
_TYPES = {"u": ctypes.c_uint64, "n": ctypes.c_int64}


class Room(local):
    """Memory of one thread that is written over and over: new one each time would take a tenth of the work."""

    def __init__(self) -> None:
        self._held: dict[str, Words] = {}

    def array(self, name: str, *shape: int) -> Words:
        """What was there under a name before, or new."""
        size = math.prod(shape)
        if name not in self._held or len(self._held[name]) < size:
            self._held[name] = np.empty(size, np.uint64)
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
    (level, size), (taken, count, _) = part.shape, out.shape
    given, by, sizes = _room.array("given", level, size), tables.addresses, (len(tables.constants), taken, level)
    rows, starts, halves = basis.rows, basis.starts, basis.halves

    def digits(first: int, last: int) -> None:
        _call("digits", part, by, starts, halves, _columns(), given, first, last, *sizes, size)

    def some(first: int, last: int) -> None:
        _call("decompose", given, by, rows, starts, halves, _columns(), out, first, last, *sizes, count, size)

    shared(threads, taken, digits)
    shared(threads, taken * count, some)


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
    rows, size = of.basis.rows, given.shape[2]
    product = _products(of, key, by.count, tables.constants, threads)

    def some(first: int, last: int) -> None:
        room = _room.array("room", len(rows) * size + 4 * ENDS)
        arguments = tables.addresses, by.count, by.halves, by.inverses, given, added, order, more, room, out
        _call("switched", product, rows, *arguments, first, last, len(tables.constants), len(rows), size)

    shared(threads, 2, some)


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
    rows, product = of.basis.rows, _products(of, key, special, constants, threads)
    sizes = special, len(constants), len(rows), given.shape[1]

    def some(first: int, last: int) -> None:
        _call("accumulated", product, rows, constants, given, order, total, out, first, last, *sizes)

    shared(threads, len(rows), some)


def _products(of: Digits, key: Words, special: int, constants: Words, threads: int) -> Words:
    """`words.switch`: valid in this thread until the next one."""
    (count, taken, size), block = of.digits.shape, key.shape[4]
    product = _room.array("product", 2 * taken * size)
    given = of.digits, of.polynomial, key, of.basis.rows, special, constants
    sizes = count, len(constants), taken, len(key), key.size // (len(key) * 2 * size), size, block

    def some(first: int, last: int) -> None:
        _call("products", *given, _room.array("held", 6 * block), product, first, last, *sizes)

    shared(threads, taken * size // block, some)
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
    sizes = len(tables.constants), taken, size

    def some(first: int, last: int) -> None:
        room = _room.array("room", taken * size + 4 * ENDS)
        arguments = tables.addresses, by.count, by.halves, by.inverses, room, out, first, last
        _call("folded", total, rows, *arguments, *sizes)

    shared(threads, 2, some)


def rescaled(given: Words, rows: Order, tables: Tables, by: Division, out: Words, threads: int) -> None:
    parts, taken, size = given.shape

    def some(first: int, last: int) -> None:
        room = _room.array("room", (taken + 1) * size + 4 * ENDS)
        arguments = tables.addresses, by.halves, by.inverses, room, out, first, last
        _call("rescaled", given, rows, *arguments, parts, len(tables.constants), taken, size)

    shared(threads, parts, some)


def sums(
    cts: Words, pts: Words, starts: Order, outs: Words, primes: int, size: int, constants: Words, threads: int
) -> None:
    block = min(BLOCK, size)
    sizes = len(cts), len(outs), primes, size, block

    def some(first: int, last: int) -> None:
        room = _room.array("room", 6 * block)
        _call("sums", cts, pts, starts, outs, constants, room, first, last, *sizes)

    shared(threads, primes * size // block, some)


def square(a: Words, constants: Words, out: Words, threads: int) -> None:
    block = min(BLOCK, a.shape[2])
    sizes = len(constants), *a.shape[1:], block

    def some(first: int, last: int) -> None:
        _call("square", a, constants, _room.array("room", 6 * block), out, first, last, *sizes)

    shared(threads, a.shape[1], some)


def split(addresses: Words, start: int, low: Floats, high: Floats) -> None:
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


def _address(array: NDArray[Any], kind: Any) -> int:
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
