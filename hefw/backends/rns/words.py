"""Loops over residues, for numba to compile: what phases of a tape are made of."""

from __future__ import annotations

import numpy as np
from numba import carray

from hefw.backends.rns.abi import LANES, PRIME
from hefw.backends.rns.conversion import taken
from hefw.backends.rns.modular import THREE, TWO, ZERO, below, copy, inlined, pointer, whole
from hefw.backends.rns.ntt import backward, forward
from hefw.backends.rns.products import most, product, products, reduce, switch_fast


@inlined
def coefficients(a, row, half, tables, columns, out):  # type: ignore[no-untyped-def]
    """Residues (N,) below 8 primes, in the transform's order, as coefficients below one prime, plus `half`.

    `tables` is (constants, roots, quotients, ends, inverse roots, their quotients and ends, pairs); the special primes
    are last, and `row` is the number of the prime.
    """
    constants, inverse, inverse_, ends_ = tables[0], tables[4], tables[5], tables[6]
    p = constants[row, PRIME]
    for n in range(out.shape[0]):
        out[n] = below(a[n], p << TWO)
    backward(out, inverse[row], inverse_[row], ends_[row], constants[row], columns)
    for n in range(out.shape[0]):
        out[n] = below(out[n] + half, p)


@inlined
def modulo(digit, start, row, half, tables, columns, out):  # type: ignore[no-untyped-def]
    """What `mixed` made of coefficients modulo the primes from number `start` on, less `half`, modulo another prime and
    in the transform's order.

    With half of its primes' product a digit is between minus and plus that; with 0 it is from 0 on, as SEAL has it:
    twice as large in the mean square's root, and with a mean.
    """
    constants, roots, quotient, ends = tables[0], tables[1], tables[2], tables[3]
    q = constants[row, PRIME]
    taken(digit, start, row, q - half, tables, out)
    forward(out, roots[row], quotient[row], ends[row], q, columns)


@inlined
def switch(digits, own, key, k, rows, special, constants, held, first, last, out, out_):  # type: ignore[no-untyped-def]
    """Row k of digits (digits, rows, N) times that of a key of as many or more, as `switching.Key` has it, summed: two
    of (N,), below 4 primes.

    Only some blocks are. `rows` are the digits' primes; the last ones, as many as are special, are those of the key's
    last rows. A digit of as many primes is, modulo those, what is taken apart: `own` (N,) is row k of that. With blocks
    of LANES words all primes are small.
    """
    count, block, left = digits.shape[0], key.shape[4], rows.shape[0] - special
    constant = constants[rows[k]]
    row = key[k if k < left else key.shape[0] - rows.shape[0] + k]
    whose = k // special if k < left else count
    if block == LANES:
        switch_fast(digits, own, row, k, whose, first, last, constant, out, out_)
        return
    q = constant[PRIME]
    for number in range(first, last):
        start, end = number * block, (number + 1) * block
        some = row[number]
        held[:] = ZERO
        for j in range(0, count - 1, 2):
            x = own[start:end] if j == whose else digits[j, k, start:end]
            u = own[start:end] if j + 1 == whose else digits[j + 1, k, start:end]
            products(x, some[j, 0], some[j, 1], u, some[j + 1, 0], some[j + 1, 1], held, q)
            if (j + 2) % most(q) == 0:
                reduce(held, constant)
        if count % 2:
            x = own[start:end] if count - 1 == whose else digits[count - 1, k, start:end]
            product(x, some[count - 1, 0], some[count - 1, 1], held, q)
        reduce(held, constant)
        copy(held[0], out[start:end])
        copy(held[3], out_[start:end])


@inlined
def sums(places, terms, weights, starts, outs, hides, first, last, size, constants, held, number):  # type: ignore[no-untyped-def]
    """Block `number` of sums of products of ciphertexts of two parts with plaintexts.

    Sum k is that of the products `starts[k]` to `starts[k + 1]`: of the ciphertext at place `terms[t]` and the
    plaintext with rows at `weights[t]`. It is written to place `outs[k]`; `hides[k]` becomes 1 if its second part is
    not zero in this block.
    """
    block = held.shape[1]
    i, start = number * block // size, number * block % size
    row = constants[i]
    q = row[PRIME]
    for k in range(first, last):
        held[:] = ZERO
        begin, stop = starts[k], starts[k + 1]
        for t in range(begin, stop - 1, 2):
            y, v = places[terms[t]], places[terms[t + 1]]
            products(
                _words(weights[t, i], start, block),
                _words(y[0, i], start, block),
                _words(y[1, i], start, block),
                _words(weights[t + 1, i], start, block),
                _words(v[0, i], start, block),
                _words(v[1, i], start, block),
                held,
                q,
            )
            if (t + 2 - begin) % most(q) == 0:
                reduce(held, row)
        if (stop - begin) % 2:
            y = places[terms[stop - 1]]
            x = _words(weights[stop - 1, i], start, block)
            product(x, _words(y[0, i], start, block), _words(y[1, i], start, block), held, q)
        reduce(held, row)
        for part in range(2):
            total, found = held[3 * part], _words(places[outs[k], part, i], start, block)
            for n in range(block):
                found[n] = whole(total[n], q)
        found, n = _words(places[outs[k], 1, i], start, block), 0
        while n < block and found[n] == ZERO:
            n += 1
        if n < block:
            hides[k] = np.uint64(1)


@inlined
def _words(address, start, count):  # type: ignore[no-untyped-def]
    """So many words of a row, from one on."""
    return carray(pointer(address + np.uint64(8 * start)), (count,))


@inlined
def permute(a, order, out):  # type: ignore[no-untyped-def]
    """out[n] = a[order[n]]"""
    for n in range(order.shape[0]):
        out[n] = a[order[n]]


@inlined
def permute_more(a, order, q, out):  # type: ignore[no-untyped-def]
    """out[n] += a[order[n]] modulo q"""
    for n in range(order.shape[0]):
        out[n] = below(out[n] + a[order[n]], q)


@inlined
def permute_much(a, order, q, out):  # type: ignore[no-untyped-def]
    """out[n] += a[order[n]], of residues below 8 q."""
    for n in range(order.shape[0]):
        out[n] = below(out[n] + a[order[n]], q << THREE)


@inlined
def add(a, b, q):  # type: ignore[no-untyped-def]
    """a += b modulo q, of residues below it."""
    for n in range(a.shape[0]):
        a[n] = below(a[n] + b[n], q)


@inlined
def add_whole(a, b, q):  # type: ignore[no-untyped-def]
    """a += b modulo q, for a below 8 q and b below q."""
    for n in range(a.shape[0]):
        a[n] = below(whole(a[n], q) + b[n], q)


@inlined
def square(a, b, row, held, first, second, third):  # type: ignore[no-untyped-def]
    """Rows (N,) of a ciphertext's two parts times themselves: those of three parts. `row` has the prime's constants."""
    block = held.shape[1]
    q = row[PRIME]
    for number in range(a.shape[0] // block):
        start, end = number * block, (number + 1) * block
        x, y = a[start:end], b[start:end]
        held[:] = ZERO
        product(x, x, y, held, q)
        reduce(held, row)
        some, more = first[start:end], second[start:end]
        for n in range(block):
            some[n] = whole(held[0, n], q)
            more[n] = below(whole(held[3, n], q) << np.uint64(1), q)
        held[:] = ZERO
        product(y, y, y, held, q)
        reduce(held, row)
        some = third[start:end]
        for n in range(block):
            some[n] = whole(held[0, n], q)
