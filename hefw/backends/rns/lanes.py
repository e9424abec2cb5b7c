"""Eight residues at a time, modulo primes below 2^50: where the processor multiplies 52-bit numbers (AVX-512 IFMA).

A product's lower and upper 52 bits are one instruction each, where other processors take a dozen for 64 bits. Numbers
are at addresses; each function below is instructions for numba to put in place, and compiles on such processors only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from hefw.backends.rns.abi import LANES
from hefw.backends.rns.vectors import AHEAD, FAR, NEAR, WORD, Code, Join, Vectors, given

COUNT = LANES
BYTES = 8 * COUNT
VECTOR = ir.VectorType(WORD, COUNT)
LOW = (1 << 52) - 1


class Lanes(Vectors):
    """Instructions on vectors of eight words."""

    count = COUNT

    def __init__(self, builder: Any, prime: Any) -> None:
        super().__init__(builder)
        self.prime = self.spread(prime)
        self.twice = builder.add(self.prime, self.prime)
        self.zero = ir.Constant(VECTOR, [0] * COUNT)
        self._low = ir.Constant(VECTOR, [LOW] * COUNT)

    def add(self, x: Any, y: Any) -> Any:
        return self._builder.add(x, y)

    def below(self, x: Any, most: Any) -> Any:
        """x modulo `most` for x below twice that."""
        less = self._builder.sub(x, most)
        return self._builder.select(self._builder.icmp_unsigned("<", less, x), less, x)

    def low(self, total: Any, x: Any, y: Any) -> Any:
        """The total plus the lower 52 bits of x y, of numbers below 2^52."""
        return self._multiplied("l", total, x, y)

    def high(self, total: Any, x: Any, y: Any) -> Any:
        """The total plus what x y has above 52 bits."""
        return self._multiplied("h", total, x, y)

    def times(self, x: Any, factor: Any, quotient: Any) -> Any:
        """x below 2^52 times a factor, below two primes; `quotient` is factor * 2^64 // prime (`words.times`)."""
        by = self._above(quotient, 12)
        found = self.high(self.zero, x, by)
        rest = self._builder.sub(self.low(self.zero, x, factor), self.low(self.zero, found, self.prime))
        return self._builder.and_(rest, self._low)

    def modulo(self, x: Any, one: Any) -> Any:
        """x below 2^52, below two primes; `one` is 2^64 // prime."""
        found = self.high(self.zero, x, self._above(one, 12))
        rest = self._builder.sub(x, self.low(self.zero, found, self.prime))
        return self._builder.and_(rest, self._low)

    def sum(self, low: Any, high: Any, near: tuple[Any, Any], one: Any) -> Any:
        """Sums of lower and of upper bits of products as one number below 4 primes."""
        high = self.add(high, self._above(low, 52))
        return self.add(self.times(high, *near), self.modulo(self._builder.and_(low, self._low), one))

    def _above(self, x: Any, bits: int) -> Any:
        return self._builder.lshr(x, ir.Constant(VECTOR, [bits] * COUNT))

    def down(self, x: Any, y: Any, factor: Any, quotient: Any) -> tuple[Any, Any]:
        """x plus and minus a factor times y: below 4 primes, of such."""
        x, y = self.below(x, self.twice), self.times(y, factor, quotient)
        return self.add(x, y), self.minus(x, y)

    def up(self, x: Any, y: Any, factor: Any, quotient: Any) -> tuple[Any, Any]:
        """x plus y, and their difference times a factor: below 2 primes, of such."""
        return self.below(self.add(x, y), self.twice), self.times(self.minus(x, y), factor, quotient)

    def minus(self, x: Any, y: Any) -> Any:
        """x - y for y of at most two primes, plus those."""
        return self._builder.sub(self._builder.add(x, self.twice), y)

    def whole(self, x: Any) -> Any:
        """x below 4 primes -> below one."""
        return self.below(self.below(x, self.twice), self.prime)

    def transposed(self, rows: Sequence[Any]) -> list[Any]:
        """Eight vectors as columns."""
        even, odd = [0, 8, 2, 10, 4, 12, 6, 14], [1, 9, 3, 11, 5, 13, 7, 15]
        front, back = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
        pairs = [[self._mixed(rows[k], rows[k + 1], which) for k in range(0, 8, 2)] for which in (even, odd)]
        found: list[Any] = [None] * COUNT
        for parity, some in enumerate(pairs):
            for half, which in enumerate((front, back)):
                upper, lower = (self._mixed(some[k], some[k + 1], which) for k in (0, 2))
                column = parity + 2 * half
                found[column] = self._mixed(upper, lower, [0, 1, 2, 3, 8, 9, 10, 11])
                found[column + 4] = self._mixed(upper, lower, [4, 5, 6, 7, 12, 13, 14, 15])
        return found

    def _multiplied(self, part: str, total: Any, x: Any, y: Any) -> Any:
        kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
        name = f"llvm.x86.avx512.vpmadd52{part}.uq.512"
        module = self._builder.module
        function = module.globals.get(name) or ir.Function(module, kind, name)
        return self._builder.call(function, [total, x, y])


#: Of the last three layers: columns, and roots among those of `ends`.
LAYERS = (
    ((0, 4, 0), (1, 5, 0), (2, 6, 0), (3, 7, 0)),
    ((0, 2, 1), (1, 3, 1), (4, 6, 2), (5, 7, 2)),
    ((0, 1, 3), (2, 3, 4), (4, 5, 5), (6, 7, 6)),
)
ROOTS = 7
#: Rows with sums of products, out of those that `words` has for any prime.
HELD = (0, 1, 3, 4)


Way = Callable[[Lanes, Any, Any, Any, Any], tuple[Any, Any]]


def _pair(way: Way) -> Code:
    """One layer on eight words at each of two places."""

    def code(builder: Any, args: Any) -> None:
        lanes = Lanes(builder, args[4])
        found = way(lanes, *map(lanes.load, args[:2]), *map(lanes.spread, args[2:4]))
        for vector, address in zip(found, args[:2], strict=True):
            lanes.store(vector, address)

    return code


def _quad(way: Way, first: Sequence[Join], second: Sequence[Join]) -> Code:
    """Two layers on four times eight words, each of pairs of them with the number of their root."""

    def code(builder: Any, args: Any) -> None:
        lanes = Lanes(builder, args[8])
        spread = [lanes.spread(arg) for arg in args[2:8]]
        places = [lanes.at(args[0], k, args[1]) for k in range(4)]
        words = [lanes.load(place) for place in places]
        for x, y, root in (*first, *second):
            words[x], words[y] = way(lanes, words[x], words[y], *spread[2 * root : 2 * root + 2])
        for vector, place in zip(words, places, strict=True):
            lanes.store(vector, place)

    return code


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def forward_pair(_: Any, x: Any, y: Any, root: Any, quotient: Any, prime: Any) -> Any:
    """One layer of the transform on eight words at x and eight at y."""
    return given(5, _pair(Lanes.down))


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def backward_pair(_: Any, x: Any, y: Any, root: Any, quotient: Any, prime: Any) -> Any:
    """One layer of the inverse transform."""
    return given(5, _pair(Lanes.up))


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def forward_quad(_: Any, at: Any, apart: Any, r: Any, r_: Any, s: Any, s_: Any, t: Any, t_: Any, prime: Any) -> Any:
    """Two layers on four times eight words, so many bytes apart: by the root r, then by s and t."""
    return given(9, _quad(Lanes.down, FAR, NEAR))


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def backward_quad(_: Any, at: Any, apart: Any, r: Any, r_: Any, s: Any, s_: Any, t: Any, t_: Any, prime: Any) -> Any:
    """Two layers of the inverse transform: by the roots s and t, then by r."""
    return given(9, _quad(Lanes.up, NEAR, FAR))


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def forward_end(_: Any, at: Any, ends: Any, apart: Any, prime: Any) -> Any:
    """The last three layers on 64 words, then below one prime. Roots are at `ends`, ROOTS rows so many bytes apart,
    then their quotients."""

    def code(builder: Any, args: Any) -> None:
        lanes, columns, roots = _ends(builder, args)
        for layer in LAYERS:
            for x, y, root in layer:
                columns[x], columns[y] = lanes.down(columns[x], columns[y], *roots[root])
        _write_rows(lanes, args[0], [lanes.whole(column) for column in columns])

    return given(4, code)


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def backward_end(_: Any, at: Any, ends: Any, apart: Any, prime: Any) -> Any:
    """The first three layers of the inverse transform on 64 words below 4 primes: below 2 primes then."""

    def code(builder: Any, args: Any) -> None:
        lanes, columns, roots = _ends(builder, args)
        columns = [lanes.below(column, lanes.twice) for column in columns]
        for layer in LAYERS[::-1]:
            for x, y, root in layer:
                columns[x], columns[y] = lanes.up(columns[x], columns[y], *roots[root])
        _write_rows(lanes, args[0], columns)

    return given(4, code)


def _ends(builder: Any, args: Any) -> tuple[Lanes, list[Any], list[tuple[Any, Any]]]:
    lanes, bytes_a_row = Lanes(builder, args[3]), ir.Constant(WORD, BYTES)
    columns = lanes.transposed([lanes.load(lanes.at(args[0], k, bytes_a_row)) for k in range(COUNT)])
    rows = [lanes.load(lanes.at(args[1], k, args[2])) for k in range(2 * ROOTS)]
    return lanes, columns, list(zip(rows[:ROOTS], rows[ROOTS:], strict=True))


def _write_rows(lanes: Lanes, at: Any, columns: Sequence[Any]) -> None:
    for k, row in enumerate(lanes.transposed(columns)):
        lanes.store(row, lanes.at(at, k, ir.Constant(WORD, BYTES)))


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def scale(_: Any, at: Any, factor: Any, quotient: Any, prime: Any) -> Any:
    """Eight words below 4 primes times a factor, below one prime."""

    def code(builder: Any, args: Any) -> None:
        lanes = Lanes(builder, args[3])
        found = lanes.times(lanes.load(args[0]), *map(lanes.spread, args[1:3]))
        lanes.store(lanes.below(found, lanes.prime), args[0])

    return given(4, code)


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def product(_: Any, x: Any, y: Any, z: Any, held: Any, apart: Any, prime: Any) -> Any:
    """Add x times y and z, of eight words each, to HELD of some vectors at `held`, so many bytes apart: lower and upper
    bits of the one, and of the other."""

    def code(builder: Any, args: Any) -> None:
        lanes = Lanes(builder, args[5])
        x, places = lanes.load(args[0]), [lanes.at(args[3], k, args[4]) for k in HELD]
        totals = [lanes.load(place) for place in places]
        for number, total in enumerate(_with_products(lanes, totals, x, args[1:3])):
            lanes.store(total, places[number])

    return given(6, code)


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def products(_: Any, x: Any, y: Any, z: Any, u: Any, v: Any, w: Any, held: Any, apart: Any, prime: Any) -> Any:
    """`product` of x, y and z, and of u, v and w."""

    def code(builder: Any, args: Any) -> None:
        lanes = Lanes(builder, args[8])
        places = [lanes.at(args[6], k, args[7]) for k in HELD]
        totals = [lanes.load(place) for place in places]
        totals = _with_products(lanes, totals, lanes.load(args[0]), args[1:3])
        totals = _with_products(lanes, totals, lanes.load(args[3]), args[4:6])
        for total, place in zip(totals, places, strict=True):
            lanes.store(total, place)

    return given(9, code)


def _with_products(lanes: Lanes, totals: Sequence[Any], x: Any, others: Sequence[Any]) -> list[Any]:
    found = []
    for number, other in enumerate(others):
        y = lanes.load(other)
        found += [lanes.low(totals[2 * number], x, y), lanes.high(totals[2 * number + 1], x, y)]
    return found


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def dot(
    _: Any,
    digits: Any,
    apart: Any,
    own: Any,
    whose: Any,
    key: Any,
    between: Any,
    count: Any,
    near: Any,
    near_: Any,
    one: Any,
    first: Any,
    second: Any,
    prime: Any,
) -> Any:
    """Eight words of each of up to 14 digits, so many bytes apart, times two of a key's: the sums, below 4 primes.

    The key's words are first ones, then second ones, `between` bytes from one digit's to the next. Those of digit
    number `whose` are at `own`. `near` is 2^52 modulo the prime, `one` 2^64 // prime.
    """

    def code(builder: Any, args: Any) -> None:
        digits, apart, own, whose, key, between, count = args[:7]
        lanes = Lanes(builder, args[12])
        totals = [cgutils.alloca_once_value(builder, lanes.zero) for _ in range(4)]
        with cgutils.for_range(builder, count) as loop:
            at = builder.add(digits, builder.mul(apart, loop.index))
            x = lanes.load(builder.select(builder.icmp_unsigned("==", loop.index, whose), own, at))
            pair = builder.add(key, builder.mul(between, loop.index))
            others = [lanes.at(pair, k, ir.Constant(WORD, BYTES)) for k in range(2)]
            for other in others:  # a key is read once, from far away
                lanes.expect(builder.add(other, ir.Constant(WORD, AHEAD)))
            found = _with_products(lanes, [builder.load(total) for total in totals], x, others)
            for total, value in zip(totals, found, strict=True):
                builder.store(value, total)
        near, near_, one = map(lanes.spread, args[7:10])
        for k in range(2):
            low, high = (builder.load(total) for total in totals[2 * k : 2 * k + 2])
            lanes.store(lanes.sum(low, high, (near, near_), one), args[10 + k])

    return given(13, code)


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def reduce(_: Any, held: Any, apart: Any, near: Any, near_: Any, one: Any, prime: Any) -> Any:
    """The sums of up to 14 `product`s at `held` as numbers below 4 primes, in the place of their lower bits: upper ones
    are 0 then. `near` is 2^52 modulo the prime, `one` 2^64 // prime."""

    def code(builder: Any, args: Any) -> None:
        lanes = Lanes(builder, args[5])
        near, near_, one = map(lanes.spread, args[2:5])
        places = [lanes.at(args[0], k, args[1]) for k in HELD]
        for low, high in (places[:2], places[2:]):
            lanes.store(lanes.sum(lanes.load(low), lanes.load(high), (near, near_), one), low)
            lanes.store(lanes.zero, high)

    return given(6, code)


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def taken(_: Any, x: Any, less: Any, one: Any, out: Any, prime: Any) -> Any:
    """Eight words of another prime's modulo this one, plus `less`, which is at most that: below 3 primes."""

    def code(builder: Any, args: Any) -> None:
        lanes = Lanes(builder, args[4])
        found = lanes.modulo(lanes.load(args[0]), lanes.spread(args[2]))
        lanes.store(lanes.add(found, lanes.spread(args[1])), args[3])

    return given(5, code)


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def joined(_: Any, x: Any, by: Any, by_: Any, y: Any, less: Any, one: Any, out: Any, prime: Any) -> Any:
    """x times a factor, plus y, another prime's, plus `less`, as `taken`."""

    def code(builder: Any, args: Any) -> None:
        lanes = Lanes(builder, args[7])
        by, by_, less, one = map(lanes.spread, (args[1], args[2], args[4], args[5]))
        found = lanes.add(lanes.times(lanes.load(args[0]), by, by_), lanes.modulo(lanes.load(args[3]), one))
        lanes.store(lanes.add(lanes.below(found, lanes.twice), less), args[6])

    return given(8, code)


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def parted(_: Any, x: Any, y: Any, by: Any, by_: Any, one: Any, prime: Any) -> Any:
    """x, below 2 primes, minus y, another prime's, times a factor: written to x, below one prime."""

    def code(builder: Any, args: Any) -> None:
        lanes = Lanes(builder, args[5])
        by, by_, one = map(lanes.spread, args[2:5])
        rest = lanes.minus(lanes.load(args[0]), lanes.modulo(lanes.load(args[1]), one))
        lanes.store(lanes.below(lanes.times(rest, by, by_), lanes.prime), args[0])

    return given(6, code)


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def divided(_: Any, x: Any, y: Any, by: Any, by_: Any, out: Any, prime: Any) -> Any:
    """x, below 8 primes, minus y, below one, times a factor: below one prime."""

    def code(builder: Any, args: Any) -> None:
        lanes = Lanes(builder, args[5])
        by, by_ = map(lanes.spread, args[2:4])
        x = lanes.below(lanes.below(lanes.load(args[0]), lanes.add(lanes.twice, lanes.twice)), lanes.twice)
        found = lanes.times(lanes.minus(x, lanes.load(args[1])), by, by_)
        lanes.store(lanes.below(found, lanes.prime), args[4])

    return given(6, code)
