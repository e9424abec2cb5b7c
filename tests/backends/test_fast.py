"""Loops modulo primes below 2^50, by what the processor at hand has for them: exact at the edges of their ranges."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from numba import njit

from hefw.backends.processor import CPUINFO
from hefw.backends.rns import abi, conversion, costs, loops, products
from hefw.backends.rns.abi import INVERSE, PRIME
from hefw.backends.rns.switching import tables

WORDS = 64
ROUNDS = 20
SIZE = 1024
#: Bits of primes.
SIZES = [(50, 50, 50, 50), (50, 30, 49, 20), (20, 50, 40, 50)]


def primes(sizes: tuple[int, ...], size: int = SIZE) -> tuple[int, ...]:
    """The largest of so many bits each by which a polynomial of a size is transformed."""
    found: list[int] = []
    for bits in sizes:
        candidates = ((1 << bits) + 1 - 2 * size * k for k in itertools.count(1))
        found.append(next(q for q in candidates if q not in found and all(pow(a, q - 1, q) == 1 for a in (2, 3, 5, 7))))
    return tuple(found)


def words(rng: np.random.Generator, prime: int, times: int = 1, size: int = WORDS) -> np.ndarray:
    """Below so many primes: at random, at the edges, or all the largest."""
    most = times * prime
    edges = [0, 1, prime // 2, prime // 2 + 1, prime - 1, most - 1]
    kinds = rng.integers(0, most, size), rng.choice(edges, size), np.full(size, most - 1)
    return kinds[rng.integers(3)].astype(np.uint64)


def whole(found: np.ndarray) -> list[int]:
    return [int(word) for word in found]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("size", [256, 512, 1024])
@pytest.mark.parametrize("bits", [50, 49, 30, 20])
def test_transforms(rng, size, bits) -> None:
    (prime,) = primes((bits,), size)
    arrays = [array[0] for array in tables((prime,), size).arrays[:7]]
    constants, roots = arrays[:2]
    for _ in range(ROUNDS // 4):
        given = words(rng, prime, 4, size)
        there, back = given.copy(), given.copy()
        loops.forward(there, *arrays[1:4], prime)
        assert whole(there) == transformed(whole(given), whole(roots), prime)
        loops.backward(back, *arrays[4:7], constants)
        assert back.max() < prime
        loops.forward(back, *arrays[1:4], prime)
        assert np.array_equal(back, given % np.uint64(prime))


def transformed(a: list[int], roots: list[int], prime: int) -> list[int]:
    blocks, half = 1, len(a) // 2
    while half:
        for block in range(blocks):
            for k in range(2 * block * half, 2 * block * half + half):
                other = a[k + half] * roots[blocks + block]
                a[k], a[k + half] = (a[k] + other) % prime, (a[k] - other) % prime
        blocks, half = 2 * blocks, half // 2
    return a


@njit
def two_products(x, y, z, u, v, w, held, q):
    products.products(x, y, z, u, v, w, held, q)


@njit
def one_product(x, y, z, held, q):
    products.product(x, y, z, held, q)


@njit
def reduced(held, constants):
    products.reduce(held, constants)


@njit
def switched(digits, own, key, k, whose, constants, first, second):
    products.switch_fast(digits, own, key, k, whose, 0, first.shape[0] // abi.LANES, constants, first, second)


@njit
def mixed(parts, base, arrays):
    conversion.mixed(parts, base, arrays)


@njit
def taken(parts, base, row, less, arrays, out):
    conversion.taken(parts, base, row, less, arrays, out)


@njit
def divided(x, y, by, by_, q, out):
    conversion.divided(x, y, by, by_, q, out)


@pytest.mark.parametrize("sizes", SIZES)
def test_sums_of_products_blockwise(rng, sizes) -> None:
    most = abi.FAST_AT_ONCE[abi.fast()] or abi.AT_ONCE
    for constants in tables(primes(sizes), SIZE).constants:
        prime = int(constants[PRIME])
        for _ in range(ROUNDS):
            held, wanted = np.zeros((6, WORDS), np.uint64), np.zeros((2, WORDS), object)
            for pairs in (most // 2, 0, most // 2):  # what is reduced is kept
                given = [words(rng, prime) for _ in range(6 * pairs + 3)]
                for k in range(0, 6 * pairs, 6):
                    two_products(*given[k : k + 6], held, np.uint64(prime))
                if not pairs:
                    one_product(*given, held, np.uint64(prime))
                reduced(held, constants)
                for k in range(0, len(given) - 3 * bool(pairs), 3):
                    x, *others = (each.astype(object) for each in given[k : k + 3])
                    wanted += [x * other for other in others]
            for row, total in zip(held[::3], wanted, strict=True):
                assert int(row.max()) < 4 * prime
                assert whole(row % np.uint64(prime)) == [word % prime for word in total]


@pytest.mark.skipif(not abi.fast(), reason="keys have no such order here")
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("count", [1, 2, abi.FAST_AT_ONCE[abi.fast()]])
def test_digits_times_keys(rng, sizes, count) -> None:
    all_constants = tables(primes(sizes), SIZE).constants
    for k, constants in enumerate(all_constants):
        prime = int(constants[PRIME])
        for whose in (0, count - 1, count):
            digits = np.stack([np.stack([words(rng, prime) for _ in sizes]) for _ in range(count)])
            own, key = words(rng, prime), words(rng, prime, 1, 2 * count * WORDS)
            key = key.reshape(count, WORDS // abi.LANES, 2, abi.LANES)
            outs = np.empty((2, WORDS), np.uint64)
            switched(digits, own, key, k, whose, constants, *outs)
            given = digits[:, k].astype(object)
            if whose < count:
                given[whose] = own
            for part, out in enumerate(outs):
                total = sum(
                    x * y.astype(object) for x, y in zip(given, key[:, :, part].reshape(count, -1), strict=True)
                )
                assert int(out.max()) < 4 * prime
                assert whole(out % np.uint64(prime)) == [word % prime for word in total]


@pytest.mark.parametrize("sizes", SIZES)
def test_residues_modulo_other_primes(rng, sizes) -> None:
    every = primes(sizes)
    arrays = tables(every, SIZE).arrays
    for base, width in itertools.product(range(3), (1, 2, 3)):
        if base + width >= len(every):
            continue
        own = every[base : base + width]
        for _ in range(ROUNDS // 2):
            parts = np.stack([words(rng, own[0]), *(words(rng, prime, 2) for prime in own[1:])])
            given = parts.copy()
            mixed(parts, base, arrays)
            number, product = np.zeros(WORDS, object), 1
            for part, prime in zip(parts, own, strict=True):
                assert int(part.max()) < prime
                number, product = number + part.astype(object) * product, product * prime
            for part, prime in zip(given, own, strict=True):
                assert [word % prime for word in number] == whole(part % np.uint64(prime))
            for row in (row for row in range(len(every)) if not base <= row < base + width):
                prime, out = every[row], np.empty(WORDS, np.uint64)
                less = int(rng.choice([0, 1, prime // 2, prime]))
                taken(parts, base, row, np.uint64(less), arrays, out)
                assert int(out.max()) < 4 * prime
                assert whole(out % np.uint64(prime)) == [(word + less) % prime for word in number]


@pytest.mark.parametrize("sizes", SIZES)
def test_differences_times_a_factor(rng, sizes) -> None:
    every = primes(sizes)
    pairs = tables(every, SIZE).arrays[7]
    for row, prime in enumerate(every):
        for by in (0, 1, prime // 2, prime // 2 + 1, prime - 1, int(pairs[row - 1, row, INVERSE])):
            x, y, out = words(rng, prime, 8), words(rng, prime), np.empty(WORDS, np.uint64)
            divided(x, y, np.uint64(by), np.uint64((by << 64) // prime), np.uint64(prime), out)
            assert whole(out) == [(a - b) * by % prime for a, b in zip(whole(x), whole(y), strict=True)]


@pytest.mark.parametrize(
    ("features", "way"),
    [
        ({"avx512f", "avx512ifma", "avx2", "fma"}, abi.IFMA),
        ({"avx512f", "avx2", "fma"}, abi.FMA),
        ({"avx2"}, None),
        (set(), None),
    ],
)
def test_the_planner_counts_with_what_the_processor_has(features, way, monkeypatch) -> None:
    monkeypatch.setattr(costs, "has", lambda feature: feature in features)
    assert costs.fast() == way
    assert costs.FAST_COSTS.keys() == abi.FAST_AT_ONCE.keys()


def test_the_planner_and_the_loops_agree_about_the_processor() -> None:
    if CPUINFO.exists():
        assert costs.fast() == abi.fast()


#: Digest of all that `Switching` does with some numbers.
OPERATIONS = """
import hashlib, numpy as np
from hefw.backends.tenseal.backend import TensealBackend
from hefw.backends.rns.loops import rows
from hefw.backends.rns.switching import Switching
from hefw.core.params import CkksParams
found = hashlib.sha256()
chains = (1024, (50,) * 4, (50, 50)), (2048, (50, 40, 30, 50, 50), (50,)), (1024, (40,) * 10, (50,))
for size, chain, special in chains:
    params = TensealBackend().resolve(CkksParams(size, chain, special, 30.0, allow_insecure=True))
    switching, primes = Switching(params), (*params.primes, *params.special_primes)
    rng, level = np.random.default_rng(0), len(chain) - 1

    def words(*shape, of):
        edges = rng.random((*shape, len(of), size))
        each = np.array(of, np.uint64)[:, None]
        return np.where(edges < 0.5, each - np.uint64(1), rng.integers(0, each, edges.shape, np.uint64))

    digits = -(-(level + 1) // len(special))
    keys = [switching.key(words(digits, 2, of=primes), range(len(primes)), element) for element in (1, 3, 9)]
    ct = words(2, of=primes[: level + 1])
    out, three, fewer = np.zeros_like(ct), np.zeros((3, *ct.shape[1:]), np.uint64), np.zeros_like(ct)[:, 1:].copy()
    others = ct.copy(), ct.copy()
    switching.rotations(rows(ct), keys, [rows(out), *map(rows, others)])
    found.update(out)
    switching.fold([keys, keys[1:]], rows(out))
    found.update(out)
    switching.squared(rows(ct), keys[0], rows(others[0]))
    found.update(others[0])
    switching.square(rows(out), rows(three))
    found.update(three)
    switching.relinearise(rows(three), keys[0], rows(out))
    found.update(out)
    switching.rescale(rows(out), rows(fewer))
    found.update(fewer)
    plains = words(11, of=primes[: level + 1])
    switching.sums([rows(ct)] * 11, rows(plains), [0, 11], [rows(out)])
    found.update(out)
print(found.hexdigest(), end="")
"""


def test_operations_are_those_of_any_processor_bit_by_bit(tmp_path) -> None:
    slow = "from hefw.backends.rns import abi\nabi.fast = lambda: None\n"
    environment = dict(os.environ) | {"XDG_CACHE_HOME": str(tmp_path)}
    found = [
        subprocess.run(
            [sys.executable, "-c", before + OPERATIONS], capture_output=True, text=True, env=environment, timeout=300
        )
        for before in ("", slow)
    ]
    assert [each.stderr for each in found] == ["", ""]
    assert found[0].stdout == found[1].stdout != ""


#: What a processor has that multiplies 52-bit numbers, for a compiler on another.
WITH_IFMA = ",".join(f"+avx{name}" for name in ("", "2", "512f", "512dq", "512bw", "512vl", "512ifma")) + ",+fma,+bmi2"
COMPILED = f"""
import llvmlite.binding as llvm
from hefw.backends.rns import abi
llvm.initialize_native_target(); llvm.initialize_native_asmprinter()
abi.fast = lambda: abi.IFMA
abi.machine = lambda: llvm.Target.from_default_triple().create_target_machine(
    "icelake-server", "{WITH_IFMA}", 3, jit=True)
from hefw.backends.rns import compiling
some = "forward", "backward", "run"
compiling.SIGNATURES = {{name: abi.SIGNATURES[name] for name in some}}
code = compiling.compiled()
print(len(code) > 0, end="")
"""


@pytest.mark.skipif(not abi.fast(), reason="a compiler for another kind of processor")
def test_loops_for_52_bit_numbers_compile_on_processors_without() -> None:
    environment = dict(os.environ) | {"NUMBA_CPU_NAME": "icelake-server", "NUMBA_CPU_FEATURES": WITH_IFMA}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, env=environment, timeout=300
    )
    assert (done.stdout, done.stderr) == ("True", "")
