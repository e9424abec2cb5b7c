"""Four residues at a time as float64, modulo primes below 2^50: for processors with AVX2 and fused multiply-add.

A product is what float64 keeps of it and the rest, which one more instruction finds: both are whole numbers. A multiple
of the prime is taken from the first, and the rest is added (van der Hoeven, Lecerf and Quintin 2016). Which multiple is
found by rounding, and may be another than the nearest; nothing else is rounded, for all that counts is below 2^53. A
residue is thus between minus and plus some primes. In memory residues are words as everywhere, but between the layers
of a transform.

Processors that multiply 52-bit numbers have `lanes`; names and arguments are the same here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from hefw.backends.rns.abi import LANES
from hefw.backends.rns.vectors import AHEAD, FAR, NEAR, WORD, Code, Join, Vectors, given

COUNT = 4
BYTES = 8 * COUNT
DOUBLE = ir.DoubleType()
WORDS, VECTOR = ir.VectorType(WORD, COUNT), ir.VectorType(DOUBLE, COUNT)
#: A word below it, in the place of its lower bits, makes it larger by so many.
START = float(1 << 52)
#: Adding it to a number below 2^51 in magnitude rounds that to a whole one, to one below 2^53 to a multiple of 4.
ROUND, ROUND_MORE = float(3 << 51), float(3 << 53)
#: More than a sum of 8 products. Added to it, each is rounded to a multiple of 2^51, which lacks at most 2^50.
UPPER = float(1 << 103)
#: Rows with the reduced sum and with the upper and lower parts of what was added since, out of those of `products`.
HELD = ((0, 1, 2), (3, 4, 5))


class Doubles(Vectors):
    """Instructions on vectors of four float64.

    `times` takes factors of at most half a prime, and numbers x below 2^52: it finds them less than 1/2 + x / 2^53
    primes from zero.
    """

    count = COUNT

    def __init__(self, builder: Any, prime: Any) -> None:
        super().__init__(builder)
        self.scalar = builder.sitofp(prime, DOUBLE)
        self._word, self.prime = self.spread(prime), self.spread(self.scalar)
        self._minus = self.spread(builder.fsub(ir.Constant(DOUBLE, 0.0), self.scalar))
        self._inverse = self.spread(builder.fdiv(ir.Constant(DOUBLE, 1.0), self.scalar))

    @property
    def _half(self) -> Any:
        return self._builder.fmul(self._builder.fsub(self.scalar, ir.Constant(DOUBLE, 1.0)), ir.Constant(DOUBLE, 0.5))

    def number(self, word: Any) -> Any:
        """A word below 2^52 in all places."""
        return self.spread(self._builder.sitofp(word, DOUBLE))

    def factor(self, word: Any) -> Any:
        """A residue in all places, between minus and plus half a prime."""
        x = self._builder.sitofp(word, DOUBLE)
        less = self._builder.fsub(x, self.scalar)
        return self.spread(self._builder.select(self._builder.fcmp_ordered(">", x, self._half), less, x))

    def root(self, bits: Any) -> Any:
        """A float64 in all places."""
        return self.spread(self._builder.bitcast(bits, DOUBLE))

    def load_words(self, address: Any, less: Any = None) -> Any:
        """Words below 2^52, minus a scalar."""
        return self.opened(self.load(address), less)

    def opened(self, words: Any, less: Any = None) -> Any:
        start = ir.Constant(DOUBLE, START)
        by = start if less is None else self._builder.fadd(start, less)
        found = self._builder.or_(words, self._bits(START))
        return self.sub(self._builder.bitcast(found, VECTOR), self.spread(by))

    def store_words(self, x: Any, address: Any) -> None:
        """x, from 0 to 2^52, as words."""
        found = self.add(x, self._spread(START))
        self.store(self._builder.xor(self._builder.bitcast(found, WORDS), self._bits(START)), address)

    def load_doubles(self, address: Any) -> Any:
        return self._builder.bitcast(self.load(address), VECTOR)

    def store_doubles(self, x: Any, address: Any) -> None:
        self.store(self._builder.bitcast(x, WORDS), address)

    def add(self, x: Any, y: Any) -> Any:
        return self._builder.fadd(x, y)

    def sub(self, x: Any, y: Any) -> Any:
        return self._builder.fsub(x, y)

    def times(self, x: Any, factor: Any) -> Any:
        """x times a factor."""
        return self.each_times([x], [factor])[0]

    def each_times(self, x: Sequence[Any], factors: Sequence[Any]) -> list[Any]:
        """Each x times its factor, step by step: a processor looks ahead too little to do them at once otherwise."""
        pairs = list(zip(x, factors, strict=True))
        upper = [self._builder.fmul(*pair) for pair in pairs]
        numbers = [self._multiple(each) for each in upper]
        lower = [self._fused(*pair, self._builder.fneg(each)) for pair, each in zip(pairs, upper, strict=True)]
        rest = [self._fused(number, self._minus, each) for number, each in zip(numbers, upper, strict=True)]
        return [self.add(*both) for both in zip(rest, lower, strict=True)]

    def each_modulo(self, x: Sequence[Any], by: float = ROUND) -> list[Any]:
        """Each x minus the nearest multiple of the prime, or one almost as near."""
        numbers = [self._multiple(each, by) for each in x]
        return [self._fused(number, self._minus, each) for number, each in zip(numbers, x, strict=True)]

    def modulo(self, x: Any) -> Any:
        return self.each_modulo([x])[0]

    def _multiple(self, x: Any, by: float = ROUND) -> Any:
        return self.sub(self._fused(x, self._inverse, self._spread(by)), self._spread(by))

    def residues(self, x: Sequence[Any]) -> list[Any]:
        """Each x between minus and plus a prime as words below it."""
        bits = [self._builder.bitcast(self.add(each, self._spread(ROUND)), WORDS) for each in x]
        low = [self._builder.sub(each, self._bits(ROUND)) for each in bits]
        return [self._positive(each, self._builder.add(each, self._word)) for each in low]

    def _positive(self, x: Any, other: Any) -> Any:
        """Words, or others where they are negative."""
        return self._builder.select(self._builder.icmp_signed("<", x, ir.Constant(WORDS, [0] * COUNT)), other, x)

    def store_residues(self, x: Any, address: Any) -> None:
        self.store(self.residues([x])[0], address)

    def below(self, words: Any, most: Any) -> Any:
        """Words modulo `most` for such below twice that."""
        less = self._builder.sub(words, most)
        return self._positive(less, words)

    def downs(self, x: Sequence[Any], roots: Sequence[Any]) -> list[Any]:
        """Two layers: what is below 2.75 primes gives such below 2.35, and nothing in between is above 4."""
        x = [self.modulo(x[0]), *x[1:]]
        for layer in (FAR, NEAR):
            x = self.down(x, layer, roots)
        return x

    def down(self, x: Sequence[Any], layer: Sequence[Join], roots: Sequence[Any]) -> list[Any]:
        """One plus and minus a root times another."""
        found = list(x)
        products = self.each_times([x[other] for _, other, _ in layer], [roots[root] for _, _, root in layer])
        for (one, other, _), y in zip(layer, products, strict=True):
            found[one], found[other] = self.add(x[one], y), self.sub(x[one], y)
        return found

    def ups(self, x: Sequence[Any], roots: Sequence[Any]) -> list[Any]:
        """Two layers of the inverse transform: what is at most 2 primes gives such."""
        return self.up(self.up_near(x, roots), FAR, roots)

    def up_near(self, x: Sequence[Any], roots: Sequence[Any]) -> list[Any]:
        """The first of `ups`: the difference of what two sums leave is at most one prime, of products two."""
        x = self.up(x, NEAR, roots)
        x[0], x[2] = self.each_modulo(x[::2])
        return x

    def up(self, x: Sequence[Any], layer: Sequence[Join], roots: Sequence[Any]) -> list[Any]:
        """One plus another, and their difference times a root."""
        found = list(x)
        differences = [self.sub(x[one], x[other]) for one, other, _ in layer]
        products = self.each_times(differences, [roots[root] for _, _, root in layer])
        for (one, other, _), y in zip(layer, products, strict=True):
            found[one], found[other] = self.add(x[one], x[other]), y
        return found

    def with_product(self, parts: tuple[Any, Any], x: Any, y: Any) -> tuple[Any, Any]:
        """A sum's upper part, from UPPER on, and lower part: with x times y."""
        upper, lower = parts
        more = self._fused(x, y, upper)
        return more, self.add(lower, self._fused(x, y, self._builder.fneg(self.sub(more, upper))))

    def sums(self, parts: Sequence[tuple[Any, Any]], more: Sequence[Any] = ()) -> list[Any]:
        """Sums of up to 8 products, given by their upper and lower parts, and of one number more: words below a prime.

        A lower part is at most 2^53 and an upper one leaves at most 3 primes: that both are rounded where they are
        added only to find a multiple does no harm.
        """
        rest = self.each_modulo([self.sub(upper, self._spread(UPPER)) for upper, _ in parts], ROUND_MORE)
        if more:
            rest = [self.add(*both) for both in zip(rest, more, strict=True)]
        lower = [each for _, each in parts]
        numbers = [self._multiple(self.add(*both)) for both in zip(lower, rest, strict=True)]
        found = [self._fused(number, self._minus, each) for number, each in zip(numbers, lower, strict=True)]
        return self.residues([self.add(*both) for both in zip(found, rest, strict=True)])

    def load_parts(self, upper: Any, lower: Any) -> tuple[Any, Any]:
        """Both parts of a sum from where zeros are nothing."""
        bits = self._builder.xor(self.load(upper), self._bits(UPPER))
        return self._builder.bitcast(bits, VECTOR), self.load_doubles(lower)

    def store_parts(self, parts: tuple[Any, Any], upper: Any, lower: Any) -> None:
        self.store(self._builder.xor(self._builder.bitcast(parts[0], WORDS), self._bits(UPPER)), upper)
        self.store_doubles(parts[1], lower)

    def transposed(self, rows: Sequence[Any]) -> list[Any]:
        """Four vectors as columns."""
        orders = (0, 4, 2, 6), (1, 5, 3, 7)
        pairs = [[self._mixed(rows[k], rows[k + 1], order) for k in (0, 2)] for order in orders]
        return [self._mixed(x, y, order) for order in ((0, 1, 4, 5), (2, 3, 6, 7)) for x, y in pairs]

    def _spread(self, number: float) -> Any:
        return ir.Constant(VECTOR, [number] * COUNT)

    def _bits(self, number: float) -> Any:
        return self._builder.bitcast(self._spread(number), WORDS)

    def _fused(self, x: Any, y: Any, z: Any) -> Any:
        """x y + z, rounded once."""
        module, name = self._builder.module, f"llvm.fma.v{COUNT}f64"
        function = module.globals.get(name) or ir.Function(module, ir.FunctionType(VECTOR, [VECTOR] * 3), name)
        return self._builder.call(function, [x, y, z])


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def forward_pair(_: Any, x: Any, y: Any, root: Any, prime: Any) -> Any:
    """The first layer of the transform on four words below 4 primes at x and four at y: float64 then."""

    def code(builder: Any, args: Any) -> None:
        doubles = Doubles(builder, args[3])
        twice = builder.fadd(doubles.scalar, doubles.scalar)
        found = doubles.down([doubles.load_words(at, twice) for at in args[:2]], [(0, 1, 0)], [doubles.root(args[2])])
        for vector, at in zip(found, args[:2], strict=True):
            doubles.store_doubles(vector, at)

    return given(4, code)


def _forward_quad(first: bool) -> Code:
    def code(builder: Any, args: Any) -> None:
        doubles = Doubles(builder, args[5])
        places = [doubles.at(args[0], k, args[1]) for k in range(4)]
        twice = builder.fadd(doubles.scalar, doubles.scalar)
        x = [doubles.load_words(at, twice) if first else doubles.load_doubles(at) for at in places]
        for vector, at in zip(doubles.downs(x, [doubles.root(arg) for arg in args[2:5]]), places, strict=True):
            doubles.store_doubles(vector, at)

    return code


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def forward_first(_: Any, at: Any, apart: Any, r: Any, s: Any, t: Any, prime: Any) -> Any:
    """The first two layers on four times four words below 4 primes, so many bytes apart: float64 then."""
    return given(6, _forward_quad(True))


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def forward_quad(_: Any, at: Any, apart: Any, r: Any, s: Any, t: Any, prime: Any) -> Any:
    """Two layers on four times four float64, so many bytes apart: by the root r, then by s and t."""
    return given(6, _forward_quad(False))


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def forward_end(_: Any, at: Any, ends: Any, apart: Any, prime: Any) -> Any:
    """The last two layers on 16 float64. Roots are at `ends`, three rows so many bytes apart."""

    def code(builder: Any, args: Any) -> None:
        doubles, places, roots = _ends(builder, args)
        x = doubles.downs(doubles.transposed([doubles.load_doubles(at) for at in places]), roots)
        for row, at in zip(doubles.transposed(x), places, strict=True):
            doubles.store_doubles(row, at)

    return given(4, code)


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def forward_close(_: Any, at: Any, prime: Any) -> Any:
    """16 float64 of some primes as words below one."""

    def code(builder: Any, args: Any) -> None:
        doubles = Doubles(builder, args[1])
        places = _rows(doubles, args[0])
        found = doubles.residues(doubles.each_modulo([doubles.load_doubles(at) for at in places]))
        for row, at in zip(found, places, strict=True):
            doubles.store(row, at)

    return given(2, code)


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def backward_end(_: Any, at: Any, ends: Any, apart: Any, prime: Any) -> Any:
    """The first two layers of the inverse transform on 16 words below 4 primes: float64 then."""

    def code(builder: Any, args: Any) -> None:
        doubles, places, roots = _ends(builder, args)
        twice = builder.fadd(doubles.scalar, doubles.scalar)
        x = doubles.ups(doubles.transposed([doubles.load_words(at, twice) for at in places]), roots)
        for row, at in zip(doubles.transposed(x), places, strict=True):
            doubles.store_doubles(row, at)

    return given(4, code)


def _rows(doubles: Doubles, at: Any) -> list[Any]:
    """Where the vectors of 16 numbers are."""
    return [doubles.at(at, k, ir.Constant(WORD, BYTES)) for k in range(COUNT)]


def _ends(builder: Any, args: Any) -> tuple[Doubles, list[Any], list[Any]]:
    doubles = Doubles(builder, args[3])
    return doubles, _rows(doubles, args[0]), [doubles.load_doubles(doubles.at(args[1], k, args[2])) for k in range(3)]


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def backward_quad(_: Any, at: Any, apart: Any, r: Any, s: Any, t: Any, prime: Any) -> Any:
    """Two layers of the inverse transform on four times four float64: by the roots s and t, then by r."""

    def code(builder: Any, args: Any) -> None:
        doubles = Doubles(builder, args[5])
        places = [doubles.at(args[0], k, args[1]) for k in range(4)]
        x = doubles.ups([doubles.load_doubles(at) for at in places], [doubles.root(arg) for arg in args[2:5]])
        for vector, at in zip(x, places, strict=True):
            doubles.store_doubles(vector, at)

    return given(6, code)


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def backward_last(_: Any, at: Any, apart: Any, r: Any, s: Any, t: Any, scale: Any, prime: Any) -> Any:
    """The last two layers, and a factor: words below one prime then."""

    def code(builder: Any, args: Any) -> None:
        doubles = Doubles(builder, args[6])
        places = [doubles.at(args[0], k, args[1]) for k in range(4)]
        x = doubles.up_near([doubles.load_doubles(at) for at in places], [doubles.root(arg) for arg in args[2:5]])
        for one, other, _ in FAR:
            _write_last(doubles, (x[one], x[other]), args[2], args[5], (places[one], places[other]))

    return given(7, code)


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def backward_pair(_: Any, x: Any, y: Any, root: Any, scale: Any, prime: Any) -> Any:
    """The last layer, and a factor: words below one prime then."""

    def code(builder: Any, args: Any) -> None:
        doubles = Doubles(builder, args[4])
        pair = [doubles.load_doubles(at) for at in args[:2]]
        _write_last(doubles, pair, args[2], args[3], args[:2])

    return given(5, code)


def _write_last(doubles: Doubles, pair: Sequence[Any], root: Any, scale: Any, places: Sequence[Any]) -> None:
    scaled = doubles.factor(scale)
    both = doubles.modulo(doubles.times(doubles.root(root), scaled))
    x, y = pair
    for vector, factor, at in zip((doubles.add(x, y), doubles.sub(x, y)), (scaled, both), places, strict=True):
        doubles.store_residues(doubles.times(vector, factor), at)


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def product(_: Any, x: Any, y: Any, z: Any, held: Any, apart: Any, prime: Any) -> Any:
    """Add x times y and z, of four words below one prime each, to HELD of some vectors at `held`, so many bytes apart:
    to upper and lower parts of the one, and of the other."""
    return given(6, _products(1))


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def products(_: Any, x: Any, y: Any, z: Any, u: Any, v: Any, w: Any, held: Any, apart: Any, prime: Any) -> Any:
    """`product` of x, y and z, and of u, v and w."""
    return given(9, _products(2))


def _products(count: int) -> Code:
    def code(builder: Any, args: Any) -> None:
        held, apart, prime = args[3 * count :]
        doubles = Doubles(builder, prime)
        words = [doubles.load_words(at) for at in args[: 3 * count]]
        for number, (_, upper, lower) in enumerate(HELD):
            upper, lower = doubles.at(held, upper, apart), doubles.at(held, lower, apart)
            total = doubles.load_parts(upper, lower)
            for k in range(0, 3 * count, 3):
                total = doubles.with_product(total, words[k], words[k + 1 + number])
            doubles.store_parts(total, upper, lower)

    return code


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def reduce(_: Any, held: Any, apart: Any, near: Any, near_: Any, one: Any, prime: Any) -> Any:
    """The sums of up to 8 `product`s at `held` as words below one prime, with those that were there."""

    def code(builder: Any, args: Any) -> None:
        doubles = Doubles(builder, args[5])
        rows = [[doubles.at(args[0], row, args[1]) for row in each] for each in HELD]
        parts = [doubles.load_parts(*each[1:]) for each in rows]
        found = doubles.sums(parts, [doubles.load_words(each[0]) for each in rows])
        for each, total in zip(rows, found, strict=True):
            doubles.store(total, each[0])
            for place in each[1:]:
                doubles.store(ir.Constant(WORDS, [0] * COUNT), place)

    return given(6, code)


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
    """Eight words of each of up to 8 digits, so many bytes apart, times two of a key's: the sums, below one prime.

    The key's words are first ones, then second ones, `between` bytes from one digit's to the next. Those of digit
    number `whose` are at `own`.
    """

    def code(builder: Any, args: Any) -> None:
        digits, apart, own, whose, key, between, count = args[:7]
        doubles, row, vectors = Doubles(builder, args[12]), ir.Constant(WORD, 8 * LANES), LANES // COUNT
        starts = ir.Constant(VECTOR, [UPPER] * COUNT), ir.Constant(VECTOR, [0.0] * COUNT)
        totals = [[cgutils.alloca_once_value(builder, start) for start in starts] for _ in range(2 * vectors)]
        with cgutils.for_range(builder, count) as loop:
            at = builder.add(digits, builder.mul(apart, loop.index))
            at = builder.select(builder.icmp_unsigned("==", loop.index, whose), own, at)
            x = [doubles.load_words(place) for place in _places(doubles, at)]
            pair = builder.add(key, builder.mul(between, loop.index))
            for part in range(2):  # a key is read once, from far away
                other = doubles.at(pair, part, row)
                doubles.expect(builder.add(other, ir.Constant(WORD, AHEAD)))
                for k, place in enumerate(_places(doubles, other)):
                    total = totals[part * vectors + k]
                    y = doubles.load_words(place)
                    upper, lower = map(builder.load, total)
                    for value, to in zip(doubles.with_product((upper, lower), x[k], y), total, strict=True):
                        builder.store(value, to)
        found = doubles.sums([(builder.load(upper), builder.load(lower)) for upper, lower in totals])
        for total, place in zip(found, [*_places(doubles, args[10]), *_places(doubles, args[11])], strict=True):
            doubles.store(total, place)

    return given(13, code)


def _places(doubles: Doubles, at: Any) -> list[Any]:
    """Of the vectors of LANES words."""
    return [doubles.at(at, k, ir.Constant(WORD, BYTES)) for k in range(LANES // COUNT)]


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def taken(_: Any, x: Any, less: Any, one: Any, out: Any, prime: Any) -> Any:
    """Four words of another prime's modulo this one, plus `less`, which is at most that: below 3 primes."""

    def code(builder: Any, args: Any) -> None:
        doubles = Doubles(builder, args[4])
        _write_less(doubles, doubles.modulo(doubles.load_words(args[0])), args[1], args[3])

    return given(5, code)


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def joined(_: Any, x: Any, by: Any, by_: Any, y: Any, less: Any, one: Any, out: Any, prime: Any) -> Any:
    """x below 3 primes, or another's, times a factor, plus y, another prime's, plus `less`, as `taken`."""

    def code(builder: Any, args: Any) -> None:
        doubles = Doubles(builder, args[7])
        found = doubles.times(doubles.load_words(args[0]), doubles.factor(args[1]))
        found = doubles.modulo(doubles.add(found, doubles.load_words(args[3])))
        _write_less(doubles, found, args[4], args[6])

    return given(8, code)


def _write_less(doubles: Doubles, x: Any, less: Any, out: Any) -> None:
    """x of about half a prime at most, plus `less` and a prime."""
    doubles.store_words(doubles.add(x, doubles.add(doubles.number(less), doubles.prime)), out)


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def parted(_: Any, x: Any, y: Any, by: Any, by_: Any, one: Any, prime: Any) -> Any:
    """x, below 2 primes, minus y, another prime's, times a factor: written to x, below one prime."""

    def code(builder: Any, args: Any) -> None:
        doubles = Doubles(builder, args[5])
        rest = doubles.sub(*map(doubles.load_words, args[:2]))
        doubles.store_residues(doubles.times(rest, doubles.factor(args[2])), args[0])

    return given(6, code)


@intrinsic  # type: ignore[untyped-decorator,unused-ignore]
def divided(_: Any, x: Any, y: Any, by: Any, by_: Any, out: Any, prime: Any) -> Any:
    """x, below 8 primes, minus y, below one, times a factor: below one prime."""

    def code(builder: Any, args: Any) -> None:
        doubles = Doubles(builder, args[5])
        twice = builder.fadd(doubles.scalar, doubles.scalar)
        four = doubles.spread(builder.shl(args[5], ir.Constant(WORD, 2)))
        x = doubles.opened(doubles.below(doubles.load(args[0]), four), twice)
        found = doubles.times(doubles.sub(x, doubles.load_words(args[1])), doubles.factor(args[2]))
        doubles.store_residues(found, args[4])

    return given(6, code)
