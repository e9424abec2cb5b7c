"""The loops of `words` and `halves` as machine code that a C function calls: numba makes it, without numba it runs.

Loading numba takes longer than a server needs for all else before its first operation; what it compiles is kept
(`loops`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from numba import carray, cfunc, types

from hefw.backends.rns import abi, conversion, halves, modular, ntt, words
from hefw.backends.rns.abi import BLOCK, COLUMNS, ENDS, LANES, PAIRS, PREFIX, PRIME, SIGNATURES, machine
from hefw.backends.rns.atomics import seen, show, taken_from, wait_while_below
from hefw.backends.rns.modular import inlined, pointer, to_floats, to_integers

#: Where arrays end is not told: they are as long as the phases say.
MANY_PLACES = 1 << 30
#: What loops may call: the C library's.
PROVIDED = {"memset", "memcpy", "memmove", "sched_yield"}


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


@inlined
def opened(tables, count, size):  # type: ignore[no-untyped-def]
    """`Switching`'s tables of so many primes, from an array of their addresses."""
    t = some(tables, (8,))
    every, ends = (count, size), (count, 2 * size)
    return (
        some(t[0], (count, COLUMNS)),
        some(t[1], every),
        some(t[2], every),
        some(t[3], ends),
        some(t[4], every),
        some(t[5], every),
        some(t[6], ends),
        some(t[7], (count, count, PAIRS)),
    )


def powers(base, quotient, constants, out, n):  # type: ignore[no-untyped-def]
    modular.powers(base, quotient, some(constants, (COLUMNS,)), some(out, (n,)))


def quotients(values, high, low, prime, out, n):  # type: ignore[no-untyped-def]
    modular.quotients(some(values, (n,)), high, low, prime, some(out, (n,)))


def multiply(values, factors, quotient, prime, out, n):  # type: ignore[no-untyped-def]
    modular.multiply(some(values, (n,)), some(factors, (n,)), some(quotient, (n,)), prime, some(out, (n,)))


def forward(a, roots, quotient, ends, prime, room, n):  # type: ignore[no-untyped-def]
    ntt.forward(
        some(a, (n,)), some(roots, (n,)), some(quotient, (n,)), some(ends, (2 * n,)), prime, some(room, (4, ENDS))
    )


def backward(a, roots, quotient, ends, constants, room, n):  # type: ignore[no-untyped-def]
    row = some(constants, (COLUMNS,))
    ntt.backward(
        some(a, (n,)), some(roots, (n,)), some(quotient, (n,)), some(ends, (2 * n,)), row, some(room, (4, ENDS))
    )


@inlined
def keyed(keys, k, n):  # type: ignore[no-untyped-def]
    """Residues of key number k, of those that `Key.words` describe: in the order of `Key`."""
    kept, held, block = types.int64(keys[k, 2]), types.int64(keys[k, 3]), types.int64(keys[k, 4])
    blocks = n // block
    return some(keys[k, 0], (kept, held, blocks, 2, block) if block == LANES else (kept, blocks, held, 2, block))


def run(job, me, room):  # type: ignore[no-untyped-def]
    """All phases of a job (`tape`), as one of its threads: number 0 leads, others come when they can.

    A phase's pieces are dealt out in as many ranges as there are threads, each of which begins with its own and goes on
    with what others have left. The leader goes to the next phase when all are done, and does not wait for threads that
    have not come. Whoever comes after the end finds no piece left, and touches nothing but the job's own arrays.
    """
    j = some(job, (abi.JOB,))
    count, threads, primes = types.int64(j[abi.COUNT]), types.int64(j[abi.THREADS]), types.int64(j[abi.PRIMES])
    left, dropped, n, digits = (
        types.int64(j[abi.LEFT]),
        types.int64(j[abi.DROPPED]),
        types.int64(j[abi.RING]),
        types.int64(j[abi.DIGITS]),
    )
    taken, block = left + dropped, min(BLOCK, n)
    t = opened(j[abi.TABLES], primes, n)
    constants = t[0]
    phases, rows = integers(j[abi.PHASES], (count, abi.PHASE)), integers(j[abi.ROWS], (taken,))
    places = some(j[abi.PLACES], (MANY_PLACES, abi.MOST_PARTS, taken))
    keys = some(j[abi.KEYS], (MANY_PLACES, abi.KEY_WORDS))
    halves, down, inverses = (
        some(j[abi.HALVES], (digits, primes)),
        some(j[abi.DOWN], (primes,)),
        some(j[abi.INVERSES], (left, 2)),
    )
    straight, aparts, divided = j[abi.STRAIGHTS], j[abi.APARTS], j[abi.DIVIDED]
    terms, weights = integers(j[abi.TERMS], (MANY_PLACES,)), some(j[abi.WEIGHTS], (MANY_PLACES, left))
    starts, outs, hides = (
        integers(j[abi.STARTS], (MANY_PLACES,)),
        integers(j[abi.SUMS], (MANY_PLACES,)),
        some(j[abi.HIDES], (MANY_PLACES,)),
    )
    columns, held = some(room, (4, ENDS)), some(after(room, 4 * ENDS), (6, block))
    row, less = after(room, 4 * ENDS + 6 * block), after(room, 4 * ENDS + 6 * block + n)
    meeting = j[abi.MEETING]
    at = types.int64(seen(meeting))
    while at < count:
        p, ready = phases[at], 0
        kind, pieces, many = p[abi.KIND], p[abi.PIECES], p[abi.MANY]
        tickets = after(meeting, 1 + at * (threads + 1))
        for other in range(threads):
            whose = (me + other) % threads
            begin, end = pieces * whose // threads, pieces * (whose + 1) // threads
            i = begin + types.int64(taken_from(after(tickets, whose), types.uint64(1)))
            while i < end:
                if kind <= abi.TOPS:
                    if kind == abi.STRAIGHT:
                        prime, half = i, halves[i // dropped, i]
                        given = places[p[abi.SOURCE], p[abi.PART], i]
                        to = after(straight, i * n)
                    else:
                        top, b, part = i // (2 * many), i // 2 % many, i % 2
                        prime = rows[left] + top
                        half = down[prime]
                        given = places[p[abi.SOURCE] + b, part, left + top]
                        to = after(divided, ((2 * b + part) * dropped + top) * n)
                    words.coefficients(some(given, (n,)), prime, half, t, columns, some(to, (n,)))
                elif kind <= abi.MIXED_TOPS:
                    if kind == abi.MIXED:
                        first = i * dropped
                        many_primes, digit = min(dropped, left - first), after(straight, first * n)
                    else:
                        first, many_primes, digit = rows[left], dropped, after(divided, i * dropped * n)
                    conversion.mixed(some(digit, (many_primes, n)), first, t)
                elif kind <= abi.RESCALED:
                    if kind == abi.APART:
                        number, k, b, part = i // taken, i % taken, 0, 0
                        first = number * dropped
                        many_primes, half = min(dropped, left - first), halves[number, rows[k]]
                        digit, to = after(straight, first * n), after(aparts, i * n)
                    else:
                        k, b, part = i // (2 * many), i // 2 % many, i % 2
                        first, many_primes, half = rows[left], dropped, down[rows[k]]
                        digit, to = after(divided, (2 * b + part) * dropped * n), row
                    prime = rows[k]
                    if prime < first or prime >= first + many_primes:
                        words.modulo(some(digit, (many_primes, n)), first, prime, half, t, columns, some(to, (n,)))
                    if kind != abi.APART:
                        q = constants[prime, PRIME]
                        given = some(places[p[abi.SOURCE] + b, part, k], (n,))
                        out = places[p[abi.OUT] + b, part, k]
                        to = out if kind == abi.RESCALED else less
                        conversion.divided(given, some(row, (n,)), inverses[k, 0], inverses[k, 1], q, some(to, (n,)))
                        if kind == abi.FOLDED:
                            words.add_whole(some(out, (n,)), some(less, (n,)), q)
                        elif kind == abi.TURNED:
                            if part < p[abi.ADDED]:
                                words.add(some(less, (n,)), some(places[p[abi.GIVEN], part, k], (n,)), q)
                            order = integers(keys[p[abi.KEY] + b, 1], (n,))
                            if p[abi.MORE]:
                                words.permute_more(some(less, (n,)), order, q, some(out, (n,)))
                            else:
                                words.permute(some(less, (n,)), order, some(out, (n,)))
                elif kind <= abi.ADDED_UP:
                    parts = pieces // (taken * many)
                    k, b, number = i // (parts * many), i // parts % many, i % parts
                    key = keyed(keys, p[abi.KEY] + b, n)
                    own = some(places[p[abi.SOURCE], p[abi.PART], k % left], (n,))  # not read if k is not below `left`
                    first, second = (
                        some(places[p[abi.KEPT] + b, 0, k], (n,)),
                        some(places[p[abi.KEPT] + b, 1, k], (n,)),
                    )
                    blocks = n // key.shape[4]
                    begun, ended = blocks * number // parts, blocks * (number + 1) // parts
                    every = some(aparts, (digits, taken, n))
                    words.switch(every, own, key, k, rows, dropped, constants, held, begun, ended, first, second)
                    if kind == abi.ADDED_UP:
                        q, order = constants[rows[k], PRIME], integers(keys[p[abi.KEY], 1], (n,))
                        words.permute_much(first, order, q, some(places[p[abi.GIVEN], 0, k], (n,)))
                        words.permute_much(second, order, q, some(places[p[abi.GIVEN], 1, k], (n,)))
                        if k < left:
                            given = some(places[p[abi.SOURCE], 0, k], (n,))
                            words.permute_much(given, order, q, some(places[p[abi.OUT], 0, k], (n,)))
                elif kind == abi.BEGUN:
                    for part in range(2):
                        some(places[p[abi.GIVEN], part, i], (n,))[:] = types.uint64(0)
                        if i < left:
                            given = some(places[p[abi.OUT], part, i], (n,))
                            modular.copy(given, some(places[p[abi.SOURCE], part, i], (n,)))
                elif kind == abi.SUMMED:
                    words.sums(
                        places,
                        terms,
                        weights,
                        starts,
                        outs,
                        hides,
                        p[abi.FIRST],
                        p[abi.LAST],
                        n,
                        constants,
                        held,
                        i,
                    )
                else:
                    given, out = places[p[abi.SOURCE]], places[p[abi.OUT]]
                    words.square(
                        some(given[0, i], (n,)),
                        some(given[1, i], (n,)),
                        constants[i],
                        held,
                        some(out[0, i], (n,)),
                        some(out[1, i], (n,)),
                        some(out[2, i], (n,)),
                    )
                ready += 1
                i = begin + types.int64(taken_from(after(tickets, whose), types.uint64(1)))
        if ready:
            taken_from(after(tickets, threads), types.uint64(ready))
        if me == 0:
            wait_while_below(after(tickets, threads), types.uint64(pieces))
            at += 1
            show(meeting, types.uint64(at))
        else:
            wait_while_below(meeting, types.uint64(at + 1))
            at = types.int64(seen(meeting))


def split(addresses, start, low, high, count, n):  # type: ignore[no-untyped-def]
    halves.split(some(addresses, (count,)), start, floats(low, (count, n)), floats(high, (count, n)))


def join(low, high, prime, over, shift, power, quotient, addresses, start, more, count, n):  # type: ignore[no-untyped-def]
    given = floats(low, (count, n)), floats(high, (count, n))
    halves.join(given[0], given[1], prime, over, shift, power, quotient, some(addresses, (count,)), start, more)


def compiled() -> bytes:
    """An object file with all loops, for this machine.

    RuntimeError where they would need numba or Python to run.
    """
    target = machine()
    whole = llvm.parse_assembly("")
    whole.triple, whole.data_layout = target.triple, str(target.target_data)
    for name, signature in SIGNATURES.items():
        whole.link_in(_module(name, signature, globals()[name]))
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(whole, llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options()))
    needed = {f.name for f in whole.functions if f.is_declaration and not f.name.startswith("llvm.")} - PROVIDED
    if needed:
        raise RuntimeError(f"compiled loops need {', '.join(sorted(needed))}")
    found: bytes = target.emit_object(whole)
    return found


def _module(name: str, signature: str, loop: Callable[..., None]) -> Any:
    kinds = [types.int64 if code == "n" else types.uint64 for code in signature]
    made = cfunc(types.void(*kinds), boundscheck=False, error_model="numpy", forceinline=True)(loop)
    module = llvm.parse_assembly(made.inspect_llvm())
    for function in module.functions:
        if function.name == made.native_name:
            function.name = PREFIX + name
        elif not function.is_declaration:
            function.linkage = "internal"
    return module
