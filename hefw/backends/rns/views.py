"""Arrays by their addresses, for numba to compile: nobody counts who refers to them."""

from __future__ import annotations

from numba import carray, types

from hefw.backends.rns import abi
from hefw.backends.rns.modular import inlined, pointer, to_floats, to_integers

#: Where arrays end is not told: they are as long as the phases say.
MANY = 1 << 30


@inlined
def some(address, shape):  # type: ignore[no-untyped-def]
    return carray(pointer(address), shape)


@inlined
def integers(address, shape):  # type: ignore[no-untyped-def]
    return carray(to_integers(address), shape)


@inlined
def floats(address, shape):  # type: ignore[no-untyped-def]
    return carray(to_floats(address), shape)


@inlined
def after(address, words):  # type: ignore[no-untyped-def]
    return address + types.uint64(8 * words)


# -- what a job has (`loops.Job`): its words are `j` ------------------------------------------------------------------


@inlined
def number(j, which):  # type: ignore[no-untyped-def]
    """One of a job's sizes."""
    return types.int64(j[which])


@inlined
def tables(j):  # type: ignore[no-untyped-def]
    """`Switching`'s, from an array of their addresses."""
    t, count, size = some(j[abi.TABLES], (8,)), number(j, abi.PRIMES), number(j, abi.RING)
    every, ends = (count, size), (count, 2 * size)
    return (
        some(t[0], (count, abi.COLUMNS)),
        some(t[1], every),
        some(t[2], every),
        some(t[3], ends),
        some(t[4], every),
        some(t[5], every),
        some(t[6], ends),
        some(t[7], (count, count, abi.PAIRS)),
    )


@inlined
def constants(j, prime):  # type: ignore[no-untyped-def]
    """Those of one prime: (abi.COLUMNS,)."""
    return tables(j)[0][prime]


@inlined
def primes(j):  # type: ignore[no-untyped-def]
    """Numbers of the primes of a digit: those that stay, and those that are divided by."""
    return integers(j[abi.ROWS], (number(j, abi.LEFT) + number(j, abi.DROPPED),))


@inlined
def places(j):  # type: ignore[no-untyped-def]
    """Addresses of rows, by place, part and prime (`Shape.table`)."""
    return some(j[abi.PLACES], (MANY, abi.MOST_PARTS, number(j, abi.LEFT) + number(j, abi.DROPPED)))


@inlined
def row(j, place, part, k):  # type: ignore[no-untyped-def]
    """A row (N,) of what is at a place."""
    return some(places(j)[place, part, k], (number(j, abi.RING),))


@inlined
def half(j, digit, prime):  # type: ignore[no-untyped-def]
    """What is added to a digit, modulo a prime."""
    return some(j[abi.HALVES], (number(j, abi.DIGITS), number(j, abi.PRIMES)))[digit, prime]


@inlined
def half_down(j, prime):  # type: ignore[no-untyped-def]
    """What is added before a division, modulo a prime."""
    return some(j[abi.DOWN], (number(j, abi.PRIMES),))[prime]


@inlined
def kept(j, p, which, first, count):  # type: ignore[no-untyped-def]
    """Polynomials (count, N) that are kept meanwhile by the track of a phase, from one on."""
    size = number(j, abi.RING)
    return some(after(j[which], (p[abi.TRACK] * number(j, abi.APART_BY) + first) * size), (count, size))


@inlined
def key(j, k):  # type: ignore[no-untyped-def]
    """Residues of key number k, of those that `Key.words` describe: in the order of `Key`."""
    told, n = some(j[abi.KEYS], (MANY, abi.KEY_WORDS))[k], number(j, abi.RING)
    count, held, block = types.int64(told[2]), types.int64(told[3]), types.int64(told[4])
    blocks = n // block
    shape = (count, held, blocks, 2, block) if block == abi.LANES else (count, blocks, held, 2, block)
    return some(told[0], shape)


@inlined
def order(j, k):  # type: ignore[no-untyped-def]
    """By which what key number k gives is turned: (N,)."""
    return integers(some(j[abi.KEYS], (MANY, abi.KEY_WORDS))[k, 1], (number(j, abi.RING),))


# -- what a thread writes over ----------------------------------------------------------------------------------------


@inlined
def columns(room):  # type: ignore[no-untyped-def]
    """What the last layers of a transform need."""
    return some(room, (4, abi.ENDS))


@inlined
def sums(j, room):  # type: ignore[no-untyped-def]
    """What was added so far (`products`)."""
    return some(after(room, 4 * abi.ENDS), (6, min(abi.BLOCK, number(j, abi.RING))))


@inlined
def spare(j, room, which):  # type: ignore[no-untyped-def]
    """One of two rows."""
    size = number(j, abi.RING)
    return some(after(room, abi.ROOM + which * size), (size,))
