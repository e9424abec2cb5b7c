"""Loops over residues, for numba to compile: digits, products and sums modulo primes."""

from __future__ import annotations

import numpy as np
from numba import carray

from hefw.backends.tenseal.abi import LANES, PRIME
from hefw.backends.tenseal.conversion import divided, mixed, taken
from hefw.backends.tenseal.modular import THREE, TWO, ZERO, below, copy, inlined, pointer, whole
from hefw.backends.tenseal.ntt import backward, forward
from hefw.backends.tenseal.products import most, product, products, reduce, switch_fast


@inlined
def digits(part, tables, starts, halves, columns, out, first, last):  # type: ignore[no-untyped-def]
    """Some digits of a polynomial (level + 1, N), of the primes from `starts[j]` to `starts[j + 1]` each: out is alike.

    To each is added what `halves` (digits, primes) says, then it is written as `mixed`.
    """
    constants, inverse, inverse_, ends_ = tables[0], tables[4], tables[5], tables[6]
    for j in range(first, last):
        start, end = starts[j], starts[j + 1]
        for i in range(start, end):
            room = out[i]
            copy(part[i], room)
            backward(room, inverse[i], inverse_[i], ends_[i], constants[i], columns)
            p, half = constants[i, PRIME], halves[j, i]
            for n in range(room.shape[0]):
                room[n] = below(room[n] + half, p)
        mixed(out[start:end], start, tables)


@inlined
def decompose(given, tables, rows, starts, halves, columns, out, first, last):  # type: ignore[no-untyped-def]
    """What `digits` gave of one polynomial (level + 1, N), modulo the primes of `rows`: (digits, len(rows), N).

    Only some polynomials are written, counted over all digits, and none that is the given one itself: of a digit modulo
    its own primes. `halves` are taken away again: with half of a digit's primes it is between minus and plus that, with
    0 it is from 0 on, as SEAL has it: twice as large in the mean square's root, and with a mean. `tables` is
    (constants, roots, quotients, ends, inverse roots, their quotients and ends, pairs); the special primes are last.
    """
    constants, roots, quotient, ends = tables[0], tables[1], tables[2], tables[3]
    for at in range(first, last):
        j = at // rows.shape[0]
        k = at - j * rows.shape[0]
        row, start, end = rows[k], starts[j], starts[j + 1]
        if row < start or row >= end:
            q = constants[row, PRIME]
            taken(given[start:end], start, row, q - halves[j, row], tables, out[j, k])
            forward(out[j, k], roots[row], quotient[row], ends[row], q, columns)


@inlined
def switch(digits, own, key, rows, special, constants, held, out, first, last):  # type: ignore[no-untyped-def]
    """Digits (digits, rows, N) times a key of as many or more, as `switching.Key` has it, summed: (2, rows, N).

    Only some blocks are, row by row. Sums are below 4 primes. `rows` are their primes; the last ones, as many as are
    special, are those of the key's last rows. A digit of as many primes is, modulo those, what row of `own` they have.
    With blocks of LANES words all primes are small.
    """
    count, block = digits.shape[0], key.shape[4]
    blocks = digits.shape[2] // block
    if block == LANES:
        while first < last:
            k = first // blocks
            stop = min(last, (k + 1) * blocks)
            row = key[k if k < rows.shape[0] - special else key.shape[0] - rows.shape[0] + k]
            whose = k // special if k < own.shape[0] else count
            held_by = constants[rows[k]]
            switch_fast(
                digits, own, row, k, whose, first - k * blocks, stop - k * blocks, held_by, out[0, k], out[1, k]
            )
            first = stop
        return
    for at in range(first, last):
        k = at // blocks
        number = at - k * blocks
        start, end = number * block, (number + 1) * block
        some = key[k if k < rows.shape[0] - special else key.shape[0] - rows.shape[0] + k, number]
        q = constants[rows[k], PRIME]
        whose = k // special if k < own.shape[0] else count
        held[:] = ZERO
        for j in range(0, count - 1, 2):
            x = own[k, start:end] if j == whose else digits[j, k, start:end]
            u = own[k, start:end] if j + 1 == whose else digits[j + 1, k, start:end]
            products(x, some[j, 0], some[j, 1], u, some[j + 1, 0], some[j + 1, 1], held, q)
            if (j + 2) % most(q) == 0:
                reduce(held, constants[rows[k]])
        if count % 2:
            x = own[k, start:end] if count - 1 == whose else digits[count - 1, k, start:end]
            product(x, some[count - 1, 0], some[count - 1, 1], held, q)
        reduce(held, constants[rows[k]])
        for part in range(2):
            copy(held[3 * part], out[part, k, start:end])


@inlined
def sums(ciphertexts, plaintexts, starts, outs, primes, size, constants, held, begin, stop):  # type: ignore[no-untyped-def]
    """Sums of products of ciphertexts of two parts with plaintexts, all given by the addresses of their residues.

    Output k is that of the products `starts[k]` to `starts[k + 1]`; only some blocks of residues are written.
    """
    block, length = held.shape[1], primes * size
    for number in range(begin, stop):
        start, end = number * block, (number + 1) * block
        row = constants[start // size]
        q = row[PRIME]
        for k in range(outs.shape[0]):
            held[:] = ZERO
            first, last = starts[k], starts[k + 1]
            for t in range(first, last - 1, 2):
                x = carray(pointer(plaintexts[t]), (length,))[start:end]
                y = carray(pointer(ciphertexts[t]), (2, length))
                u = carray(pointer(plaintexts[t + 1]), (length,))[start:end]
                v = carray(pointer(ciphertexts[t + 1]), (2, length))
                products(x, y[0, start:end], y[1, start:end], u, v[0, start:end], v[1, start:end], held, q)
                if (t + 2 - first) % most(q) == 0:
                    reduce(held, row)
            if (last - first) % 2:
                x = carray(pointer(plaintexts[last - 1]), (length,))[start:end]
                y = carray(pointer(ciphertexts[last - 1]), (2, length))
                product(x, y[0, start:end], y[1, start:end], held, q)
            reduce(held, row)
            out = carray(pointer(outs[k]), (2, length))
            for part in range(2):
                total, found = held[3 * part], out[part, start:end]
                for n in range(block):
                    found[n] = whole(total[n], q)


@inlined
def divide(a, tables, rows, dropped, halves, inverses, room, columns, out):  # type: ignore[no-untyped-def]
    """Divide a polynomial (rows, N), below 8 primes, by the primes of the last rows, rounded: out (rows - dropped, N).

    `a` is overwritten. `halves` has half of those primes' product modulo every prime, `inverses` their inverse modulo
    those of the rows that stay, and its quotient: (rows - dropped, 2).
    """
    constants, roots, quotient, ends = tables[0], tables[1], tables[2], tables[3]
    inverse, inverse_, ends_ = tables[4], tables[5], tables[6]
    left = rows.shape[0] - dropped
    base = rows[left]
    for i in range(dropped):
        top, row = a[left + i], base + i
        p, half = constants[row, PRIME], halves[row]
        for n in range(top.shape[0]):
            top[n] = below(top[n], p << TWO)
        backward(top, inverse[row], inverse_[row], ends_[row], constants[row], columns)
        for n in range(top.shape[0]):
            top[n] = below(top[n] + half, p)
    mixed(a[left:], base, tables)
    for k in range(left):
        row = rows[k]
        q = constants[row, PRIME]
        taken(a[left:], base, row, q - halves[row], tables, room)
        forward(room, roots[row], quotient[row], ends[row], q, columns)
        divided(a[k], room, inverses[k, 0], inverses[k, 1], q, out[k])


@inlined
def permute(a, order, out):  # type: ignore[no-untyped-def]
    """out[..., n] = a[..., order[n]] for rows (rows, N)."""
    for k in range(a.shape[0]):
        x, y = a[k], out[k]
        for n in range(order.shape[0]):
            y[n] = x[order[n]]


@inlined
def add(a, b, rows, constants):  # type: ignore[no-untyped-def]
    """a += b, rows of residues modulo the primes of `rows`."""
    for k in range(a.shape[0]):
        x, y, q = a[k], b[k], constants[rows[k], PRIME]
        for n in range(x.shape[0]):
            x[n] = below(x[n] + y[n], q)


@inlined
def permute_more(a, order, rows, constants, out):  # type: ignore[no-untyped-def]
    """out[..., n] += a[..., order[n]], rows of residues modulo the primes of `rows`."""
    for k in range(a.shape[0]):
        x, y, q = a[k], out[k], constants[rows[k], PRIME]
        for n in range(order.shape[0]):
            y[n] = below(y[n] + x[order[n]], q)


@inlined
def add_permuted(a, b, order, rows, constants):  # type: ignore[no-untyped-def]
    """a[..., n] += b[..., order[n]], rows of residues below 8 primes of `rows`."""
    for k in range(a.shape[0]):
        x, y, q = a[k], b[k], constants[rows[k], PRIME]
        for n in range(x.shape[0]):
            x[n] = below(x[n] + y[order[n]], q << THREE)


@inlined
def lowered(a, rows, constants):  # type: ignore[no-untyped-def]
    """Rows of residues below 8 primes to below one."""
    for k in range(a.shape[0]):
        x, q = a[k], constants[rows[k], PRIME]
        for n in range(x.shape[0]):
            x[n] = whole(x[n], q)


@inlined
def square(a, constants, held, out, first, last):  # type: ignore[no-untyped-def]
    """A ciphertext (2, rows, N) times itself: some rows of (3, rows, N)."""
    block = held.shape[1]
    for k in range(first, last):
        row = constants[k]
        q = row[PRIME]
        for number in range(a.shape[2] // block):
            start, end = number * block, (number + 1) * block
            x, y = a[0, k, start:end], a[1, k, start:end]
            held[:] = ZERO
            product(x, x, y, held, q)
            reduce(held, row)
            first, second = out[0, k, start:end], out[1, k, start:end]
            for n in range(block):
                first[n] = whole(held[0, n], q)
                second[n] = below(whole(held[3, n], q) << np.uint64(1), q)
            held[:] = ZERO
            product(y, y, y, held, q)
            reduce(held, row)
            third = out[2, k, start:end]
            for n in range(block):
                third[n] = whole(held[0, n], q)


@inlined
def switched(  # type: ignore[no-untyped-def]
    product, rows, tables, special, halves, inverses, given, added, order, more, less, room, columns, out, first, last
):
    """Some parts of a product (2, rows, N), divided by the special primes, plus those of `given`, permuted.

    `given` (parts, rows - special, N) has `added` of them, out is (2, rows - special, N): it is added to if `more`.
    Product and `less`, of a part's size, are written over.
    """
    for part in range(first, last):
        divide(product[part], tables, rows, special, halves, inverses, room, columns, less)
        if part < added:
            add(less, given[part], rows, tables[0])
        if more:
            permute_more(less, order, rows, tables[0], out[part])
        else:
            permute(less, order, out[part])


@inlined
def accumulated(product, rows, constants, given, order, total, out, first, last):  # type: ignore[no-untyped-def]
    """Add a product, permuted, to total (2, rows, N), and `given` (rows - special, N), permuted, to out: some rows."""
    some = rows[first:last]
    for part in range(2):
        add_permuted(total[part, first:last], product[part, first:last], order, some, constants)
    add_permuted(out[first:last], given[first:last], order, some, constants)


@inlined
def folded(total, rows, tables, special, halves, inverses, less, room, columns, out, first, last):  # type: ignore[no-untyped-def]
    """Divide some parts of total (2, rows, N) by the special primes and add them to out, below 8 primes."""
    for part in range(first, last):
        divide(total[part], tables, rows, special, halves, inverses, room, columns, less)
        lowered(out[part], rows, tables[0])
        add(out[part], less, rows, tables[0])


@inlined
def rescaled(given, rows, tables, halves, inverses, given_up, room, columns, out, first, last):  # type: ignore[no-untyped-def]
    """Divide some parts of a ciphertext (parts, rows, N) by its last prime: out (parts, rows - 1, N)."""
    for part in range(first, last):
        for k in range(given_up.shape[0]):
            copy(given[part, k], given_up[k])
        divide(given_up, tables, rows, 1, halves, inverses, room, columns, out[part])
