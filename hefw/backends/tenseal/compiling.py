"""The loops of `words` and `halves` as machine code that a C function calls: numba makes it, without numba it runs.

Loading numba takes longer than a server needs for all else before its first operation; what it compiles is kept
(`loops`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from numba import carray, cfunc, types

from hefw.backends.tenseal import halves, modular, ntt, words
from hefw.backends.tenseal.abi import COLUMNS, ENDS, LANES, PAIRS, PREFIX, SIGNATURES, machine
from hefw.backends.tenseal.modular import inlined, pointer, to_floats, to_integers


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
def keys_of(address, kept, held, n, block):  # type: ignore[no-untyped-def]
    """Residues of a key in the order of `Key`."""
    blocks = n // block
    return some(address, (kept, held, blocks, 2, block) if block == LANES else (kept, blocks, held, 2, block))


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


def forward(a, roots, quotient, ends, prime, room, n):  # type: ignore[no-untyped-def]
    ntt.forward(
        some(a, (n,)), some(roots, (n,)), some(quotient, (n,)), some(ends, (2 * n,)), prime, some(room, (4, ENDS))
    )


def backward(a, roots, quotient, ends, constants, room, n):  # type: ignore[no-untyped-def]
    row = some(constants, (COLUMNS,))
    ntt.backward(
        some(a, (n,)), some(roots, (n,)), some(quotient, (n,)), some(ends, (2 * n,)), row, some(room, (4, ENDS))
    )


def digits(part, tables, starts, halves, room, out, first, last, primes, taken, level, n):  # type: ignore[no-untyped-def]
    words.digits(
        some(part, (level, n)),
        opened(tables, primes, n),
        integers(starts, (taken + 1,)),
        some(halves, (taken, primes)),
        some(room, (4, ENDS)),
        some(out, (level, n)),
        first,
        last,
    )


def decompose(given, tables, rows, starts, halves, room, out, first, last, primes, taken, level, count, n):  # type: ignore[no-untyped-def]
    words.decompose(
        some(given, (level, n)),
        opened(tables, primes, n),
        integers(rows, (count,)),
        integers(starts, (taken + 1,)),
        some(halves, (taken, primes)),
        some(room, (4, ENDS)),
        some(out, (taken, count, n)),
        first,
        last,
    )


def products(  # type: ignore[no-untyped-def]
    digits, own, key, rows, special, constants, room, out, first, last, count, primes, taken, kept, held, n, block
):
    words.switch(
        some(digits, (count, taken, n)),
        some(own, (taken - special, n)),
        keys_of(key, kept, held, n, block),
        integers(rows, (taken,)),
        special,
        some(constants, (primes, COLUMNS)),
        some(room, (6, block)),
        some(out, (2, taken, n)),
        first,
        last,
    )


def switched(  # type: ignore[no-untyped-def]
    product,
    rows,
    tables,
    special,
    halves,
    inverses,
    given,
    added,
    order,
    more,
    room,
    out,
    first,
    last,
    primes,
    taken,
    n,
):
    left = taken - special
    words.switched(
        some(product, (2, taken, n)),
        integers(rows, (taken,)),
        opened(tables, primes, n),
        special,
        some(halves, (primes,)),
        some(inverses, (left, 2)),
        some(given, (2, left, n)),
        added,
        integers(order, (n,)),
        more,
        some(after(room, n + 4 * ENDS), (left, n)),
        some(room, (n,)),
        some(after(room, n), (4, ENDS)),
        some(out, (2, left, n)),
        first,
        last,
    )


def accumulated(product, rows, constants, given, order, total, out, first, last, special, primes, taken, n):  # type: ignore[no-untyped-def]
    words.accumulated(
        some(product, (2, taken, n)),
        integers(rows, (taken,)),
        some(constants, (primes, COLUMNS)),
        some(given, (taken - special, n)),
        integers(order, (n,)),
        some(total, (2, taken, n)),
        some(out, (taken - special, n)),
        first,
        last,
    )


def folded(total, rows, tables, special, halves, inverses, room, out, first, last, primes, taken, n):  # type: ignore[no-untyped-def]
    left = taken - special
    words.folded(
        some(total, (2, taken, n)),
        integers(rows, (taken,)),
        opened(tables, primes, n),
        special,
        some(halves, (primes,)),
        some(inverses, (left, 2)),
        some(after(room, n + 4 * ENDS), (left, n)),
        some(room, (n,)),
        some(after(room, n), (4, ENDS)),
        some(out, (2, left, n)),
        first,
        last,
    )


def rescaled(given, rows, tables, halves, inverses, room, out, first, last, parts, primes, taken, n):  # type: ignore[no-untyped-def]
    words.rescaled(
        some(given, (parts, taken, n)),
        integers(rows, (taken,)),
        opened(tables, primes, n),
        some(halves, (primes,)),
        some(inverses, (taken - 1, 2)),
        some(after(room, n + 4 * ENDS), (taken, n)),
        some(room, (n,)),
        some(after(room, n), (4, ENDS)),
        some(out, (parts, taken - 1, n)),
        first,
        last,
    )


@inlined
def keyed(keys, k, n, block):  # type: ignore[no-untyped-def]
    """Residues and order of key number k, of those that `Key.words` describe."""
    address, order, kept, held = keys[k, 0], keys[k, 1], types.int64(keys[k, 2]), types.int64(keys[k, 3])
    return keys_of(address, kept, held, n, block), integers(order, (n,))


@inlined
def workspace(room, level, digits, taken, n, block):  # type: ignore[no-untyped-def]
    """What a key switch writes over: columns, held blocks, one row, a polynomial twice, a product and digits."""
    columns, held = some(room, (4, ENDS)), some(after(room, 4 * ENDS), (6, block))
    rows = after(room, 4 * ENDS + 6 * block)
    row, straight = some(rows, (n,)), some(after(rows, n), (level, n))
    less, product = some(after(rows, n * (1 + level)), (level, n)), after(rows, n * (1 + 2 * level))
    apart = after(product, 2 * taken * n)
    return columns, held, row, straight, less, some(product, (2, taken, n)), some(apart, (digits, taken, n))


def turned(  # type: ignore[no-untyped-def]
    given,
    own,
    tables,
    rows,
    starts,
    halves,
    keys,
    outs,
    special,
    down,
    inverses,
    added,
    more,
    room,
    many,
    primes,
    level,
    digits,
    taken,
    n,
    block,
):
    t, basis, begins = opened(tables, primes, n), integers(rows, (taken,)), integers(starts, (digits + 1,))
    columns, held, row, straight, less, product, apart = workspace(room, level, digits, taken, n, block)
    part, both, by = some(own, (level, n)), some(given, (2, level, n)), some(inverses, (level, 2))
    added_before, half = some(halves, (digits, primes)), some(down, (primes,))
    words.digits(part, t, begins, added_before, columns, straight, 0, digits)
    words.decompose(straight, t, basis, begins, added_before, columns, apart, 0, digits * taken)
    for k in range(many):
        key, order = keyed(some(keys, (many, 5)), k, n, block)
        out = some(some(outs, (many,))[k], (2, level, n))
        words.switch(apart, part, key, basis, special, t[0], held, product, 0, taken * (n // block))
        words.switched(product, basis, t, special, half, by, both, added, order, more, less, row, columns, out, 0, 2)


def added(  # type: ignore[no-untyped-def]
    out,
    tables,
    rows,
    starts,
    halves,
    keys,
    special,
    down,
    inverses,
    room,
    many,
    primes,
    level,
    digits,
    taken,
    n,
    block,
):
    t, basis, begins = opened(tables, primes, n), integers(rows, (taken,)), integers(starts, (digits + 1,))
    given, total = some(room, (2, level, n)), some(after(room, 2 * level * n), (2, taken, n))
    rest = after(room, 2 * (level + taken) * n)
    columns, held, row, straight, less, product, apart = workspace(rest, level, digits, taken, n, block)
    both, added_before, half = some(out, (2, level, n)), some(halves, (digits, primes)), some(down, (primes,))
    for part in range(2):
        for k in range(level):
            modular.copy(both[part, k], given[part, k])
    total[:] = types.uint64(0)
    words.digits(given[1], t, begins, added_before, columns, straight, 0, digits)
    words.decompose(straight, t, basis, begins, added_before, columns, apart, 0, digits * taken)
    for k in range(many):
        key, order = keyed(some(keys, (many, 5)), k, n, block)
        words.switch(apart, given[1], key, basis, special, t[0], held, product, 0, taken * (n // block))
        words.accumulated(product, basis, t[0], given[0], order, total, both[0], 0, taken)
    words.folded(total, basis, t, special, half, some(inverses, (level, 2)), less, row, columns, both, 0, 2)


def sums(cts, pts, starts, outs, constants, room, begin, stop, products, count, primes, n, block):  # type: ignore[no-untyped-def]
    words.sums(
        some(cts, (products,)),
        some(pts, (products,)),
        integers(starts, (count + 1,)),
        some(outs, (count,)),
        primes,
        n,
        some(constants, (primes, COLUMNS)),
        some(room, (6, block)),
        begin,
        stop,
    )


def square(a, constants, room, out, first, last, primes, count, n, block):  # type: ignore[no-untyped-def]
    table = some(constants, (primes, COLUMNS))
    words.square(some(a, (2, count, n)), table, some(room, (6, block)), some(out, (3, count, n)), first, last)


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
    needed = {f.name for f in whole.functions if f.is_declaration and not f.name.startswith("llvm.")}
    if needed - {"memset", "memcpy", "memmove"}:
        raise RuntimeError(f"compiled loops need {', '.join(sorted(needed))}")
    found: bytes = target.emit_object(whole)
    return found


def _module(name: str, signature: str, loop: Callable[..., None]) -> Any:
    kinds = [types.int64 if code == "n" else types.uint64 for code in signature]
    made = cfunc(types.void(*kinds), boundscheck=False, error_model="numpy")(loop)
    module = llvm.parse_assembly(made.inspect_llvm())
    for function in module.functions:
        if function.name == made.native_name:
            function.name = PREFIX + name
        elif not function.is_declaration:
            function.linkage = "internal"
    return module
