"""Numbers modulo primes below 2^60, for numba to compile: what all loops are made of.

They are written so that LLVM makes vector instructions of them. Those have no high half of a 64-bit product, so it is
put together from 32-bit parts without its lowest carry: a quotient may be 2 too small, and a remainder is then below
four times the prime instead of two. Nothing in them can raise or takes memory, so that they need neither numba nor
Python when they run (`compiling`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from hefw.backends.rns.abi import PRIME

LOW = np.uint64(0xFFFFFFFF)
THIRTY = np.uint64((1 << 30) - 1)
U30, U32, ZERO, TWO, THREE = (np.uint64(k) for k in (30, 32, 0, 2, 3))
inlined = njit(forceinline=True, boundscheck=False, error_model="numpy")


def _pointer(kind: Any) -> Any:
    @intrinsic  # type: ignore[untyped-decorator,unused-ignore]
    def pointer(_: Any, address: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.uint64), code

    return pointer


#: Addresses of words, integers and floats as pointers.
pointer, to_integers, to_floats = (_pointer(kind) for kind in (types.uint64, types.int64, types.float64))


@inlined
def address(a):  # type: ignore[no-untyped-def]
    return np.uint64(a.ctypes.data)


@inlined
def copy(a, out):  # type: ignore[no-untyped-def]
    for n in range(out.shape[0]):
        out[n] = a[n]


@inlined
def below(x, most):  # type: ignore[no-untyped-def]
    """x modulo `most` for x below twice that; x is below 2^63."""
    less = x - most
    return x if np.int64(less) < 0 else less


@inlined
def times(x, factor, quotient, prime):  # type: ignore[no-untyped-def]
    """x times a factor modulo a prime, below 4 primes; `quotient` is factor * 2^64 // prime, x any 64-bit number."""
    x0, x1, q0, q1 = x & LOW, x >> U32, quotient & LOW, quotient >> U32
    return x * factor - (x1 * q1 + ((x1 * q0) >> U32) + ((x0 * q1) >> U32)) * prime


@inlined
def whole(x, prime):  # type: ignore[no-untyped-def]
    """x below 8 primes -> below one."""
    return below(below(below(x, prime << TWO), prime + prime), prime)


@inlined
def powers(base, quotient, constants, out):  # type: ignore[no-untyped-def]
    """Write the powers of a number from 0 on."""
    q, value = constants[PRIME], np.uint64(1)
    for k in range(out.shape[0]):
        out[k] = value
        value = whole(times(value, base, quotient, q), q)


@inlined
def multiply(values, factors, quotients, prime, out):  # type: ignore[no-untyped-def]
    """Values below 8 primes times factors, which have these quotients (`times`)."""
    for k in range(values.shape[0]):
        out[k] = whole(times(values[k], factors[k], quotients[k], prime), prime)


@inlined
def quotients(values, high, low, prime, out):  # type: ignore[no-untyped-def]
    """value * 2^64 // prime for each; `high` and `low` are the two words of 2^128 // prime."""
    for k in range(values.shape[0]):
        x = values[k]
        x0, x1, l0, l1 = x & LOW, x >> U32, low & LOW, low >> U32
        middle = x1 * l0 + ((x0 * l0) >> U32)
        top = x1 * l1 + (middle >> U32) + ((x0 * l1 + (middle & LOW)) >> U32)
        found = x * high + top
        rest = ZERO - found * prime  # of value * 2^64, modulo 2^64
        out[k] = found + np.uint64(1) if rest >= prime else found
