"""Pieces of a tape's phases, for numba to compile: a job's words `j`, a phase `p`, which piece, and a thread's room."""

from __future__ import annotations

from numba import types

from hefw.backends.rns import abi, conversion, modular, views, words
from hefw.backends.rns.modular import inlined
from hefw.backends.rns.views import number, row


@inlined
def done(j, p, i, room):  # type: ignore[no-untyped-def]
    """Do piece i, of whatever kind."""
    kind = p[abi.KIND]
    if kind == abi.STRAIGHT:
        straight(j, p, i, room)
    elif kind == abi.TOPS:
        tops(j, p, i, room)
    elif kind == abi.MIXED:
        mixed(j, p, i)
    elif kind == abi.MIXED_TOPS:
        mixed_tops(j, p, i)
    elif kind == abi.APART:
        apart(j, p, i, room)
    elif kind <= abi.RESCALED:
        divided(j, p, i, room)
    elif kind <= abi.ADDED_UP:
        switched(j, p, i, room)
    elif kind == abi.BEGUN:
        begun(j, p, i)
    elif kind == abi.SUMMED:
        summed(j, p, i, room)
    else:
        squared(j, p, i, room)


@inlined
def straight(j, p, i, room):  # type: ignore[no-untyped-def]
    """Row i of the part that is taken apart, as coefficients."""
    add = views.half(j, i // number(j, abi.DROPPED), i)
    out = views.kept(j, p, abi.STRAIGHTS, i, 1)[0]
    words.coefficients(row(j, p[abi.SOURCE], p[abi.PART], i), i, add, views.tables(j), views.columns(room), out)


@inlined
def tops(j, p, i, room):  # type: ignore[no-untyped-def]
    """A row of those that are divided by, as coefficients."""
    many, left, dropped = p[abi.MANY], number(j, abi.LEFT), number(j, abi.DROPPED)
    top, b, part = i // (2 * many), i // 2 % many, i % 2
    prime = views.primes(j)[left] + top
    out = views.kept(j, p, abi.DIVIDED, (2 * b + part) * dropped + top, 1)[0]
    given = row(j, p[abi.SOURCE] + b, part, left + top)
    words.coefficients(given, prime, views.half_down(j, prime), views.tables(j), views.columns(room), out)


@inlined
def mixed(j, p, i):  # type: ignore[no-untyped-def]
    """Digit i of its residues."""
    dropped = number(j, abi.DROPPED)
    first = i * dropped
    count = min(dropped, number(j, abi.LEFT) - first)
    conversion.mixed(views.kept(j, p, abi.STRAIGHTS, first, count), first, views.tables(j))


@inlined
def mixed_tops(j, p, i):  # type: ignore[no-untyped-def]
    """What is divided by of its residues."""
    dropped = number(j, abi.DROPPED)
    digit = views.kept(j, p, abi.DIVIDED, i * dropped, dropped)
    conversion.mixed(digit, views.primes(j)[number(j, abi.LEFT)], views.tables(j))


@inlined
def apart(j, p, i, room):  # type: ignore[no-untyped-def]
    """A digit modulo a prime that is not its own."""
    left, dropped = number(j, abi.LEFT), number(j, abi.DROPPED)
    digit, k = i // (left + dropped), i % (left + dropped)
    first, prime = digit * dropped, views.primes(j)[k]
    count = min(dropped, left - first)
    if prime < first or prime >= first + count:
        given, out = views.kept(j, p, abi.STRAIGHTS, first, count), views.kept(j, p, abi.APARTS, i, 1)[0]
        less = views.half(j, digit, prime)
        words.modulo(given, first, prime, less, views.tables(j), views.columns(room), out)


@inlined
def divided(j, p, i, room):  # type: ignore[no-untyped-def]
    """A row of a division by some primes: written, added, or turned and then written or added."""
    many, left, dropped = p[abi.MANY], number(j, abi.LEFT), number(j, abi.DROPPED)
    k, b, part = i // (2 * many), i // 2 % many, i % 2
    every = views.primes(j)
    first, prime = every[left], every[k]
    rest, found = views.spare(j, room, 0), views.spare(j, room, 1)
    top = views.kept(j, p, abi.DIVIDED, (2 * b + part) * dropped, dropped)
    words.modulo(top, first, prime, views.half_down(j, prime), views.tables(j), views.columns(room), rest)
    q, by = views.constants(j, prime)[abi.PRIME], some_inverse(j, k)
    given, out = row(j, p[abi.SOURCE] + b, part, k), row(j, p[abi.OUT] + b, part, k)
    if p[abi.KIND] == abi.RESCALED:
        conversion.divided(given, rest, by[0], by[1], q, out)
        return
    conversion.divided(given, rest, by[0], by[1], q, found)
    if p[abi.KIND] == abi.FOLDED:
        words.add_whole(out, found, q)
        return
    if part < p[abi.ADDED]:
        words.add(found, row(j, p[abi.GIVEN], part, k), q)
    if p[abi.MORE]:
        words.permute_more(found, views.order(j, p[abi.KEY] + b), q, out)
    else:
        words.permute(found, views.order(j, p[abi.KEY] + b), out)


@inlined
def some_inverse(j, k):  # type: ignore[no-untyped-def]
    """Of what is divided by, modulo prime k of those that stay, and its quotient."""
    inverses = views.some(j[abi.INVERSES], (number(j, abi.LEFT), 2))
    return inverses[k, 0], inverses[k, 1]


@inlined
def switched(j, p, i, room):  # type: ignore[no-untyped-def]
    """Some blocks of a row of digits times a key; with ADDED_UP also turned, and added to a total."""
    left, dropped, size = number(j, abi.LEFT), number(j, abi.DROPPED), number(j, abi.RING)
    taken, many = left + dropped, p[abi.MANY]
    parts = p[abi.PIECES] // (taken * many)
    k, b, part = i // (parts * many), i // parts % many, i % parts
    key, own = views.key(j, p[abi.KEY] + b), row(j, p[abi.SOURCE], p[abi.PART], k % left)  # that is read for k < left
    first, second = row(j, p[abi.KEPT] + b, 0, k), row(j, p[abi.KEPT] + b, 1, k)
    blocks = size // key.shape[4]
    begin, end = blocks * part // parts, blocks * (part + 1) // parts
    begin_apart = views.after(j[abi.APARTS], p[abi.TRACK] * number(j, abi.APART_BY) * size)
    digits = views.some(begin_apart, (number(j, abi.DIGITS), taken, size))
    every, held = views.primes(j), views.sums(j, room)
    words.switch(digits, own, key, k, every, dropped, views.tables(j)[0], held, begin, end, first, second)
    if p[abi.KIND] == abi.ADDED_UP:
        q, order = views.constants(j, every[k])[abi.PRIME], views.order(j, p[abi.KEY])
        words.permute_much(first, order, q, row(j, p[abi.GIVEN], 0, k))
        words.permute_much(second, order, q, row(j, p[abi.GIVEN], 1, k))
        if k < left:
            words.permute_much(row(j, p[abi.SOURCE], 0, k), order, q, row(j, p[abi.OUT], 0, k))


@inlined
def begun(j, p, i):  # type: ignore[no-untyped-def]
    """Row i of a total, which is nothing yet, and of a copy of what is turned and added."""
    for part in range(2):
        row(j, p[abi.GIVEN], part, i)[:] = types.uint64(0)
        if i < number(j, abi.LEFT):
            modular.copy(row(j, p[abi.OUT], part, i), row(j, p[abi.SOURCE], part, i))


@inlined
def summed(j, p, i, room):  # type: ignore[no-untyped-def]
    """Block i of some sums of products."""
    words.sums(
        views.places(j),
        views.integers(j[abi.TERMS], (views.MANY,)),
        views.some(j[abi.WEIGHTS], (views.MANY, number(j, abi.LEFT))),
        views.integers(j[abi.STARTS], (views.MANY,)),
        views.integers(j[abi.SUMS], (views.MANY,)),
        views.some(j[abi.HIDES], (views.MANY,)),
        p[abi.FIRST],
        p[abi.LAST],
        number(j, abi.RING),
        views.tables(j)[0],
        views.sums(j, room),
        i,
    )


@inlined
def squared(j, p, i, room):  # type: ignore[no-untyped-def]
    """Row i of three parts."""
    given, out = p[abi.SOURCE], p[abi.OUT]
    words.square(
        row(j, given, 0, i),
        row(j, given, 1, i),
        views.constants(j, i),
        views.sums(j, room),
        row(j, out, 0, i),
        row(j, out, 1, i),
        row(j, out, 2, i),
    )
