"""What compiled loops take, and the machine that they are compiled for."""

from __future__ import annotations

from functools import cache
from typing import Any

#: Largest size of a prime, in bits: values up to 16 times the prime are 64-bit numbers.
MOST_BITS = 60
#: Products by halves that are added before the sum is reduced.
AT_ONCE = 8
#: Primes below 2^50 have loops of their own on some processors (`fast`).
FAST_BITS = 50
#: What such a processor has: products of eight 52-bit numbers at once, or float64's with all their digits.
IFMA, FMA = "avx512ifma", "fma"
#: Products that those loops add before a sum is reduced.
FAST_AT_ONCE = {IFMA: 14, FMA: 8, None: 0}
#: Words of a key that they read at once.
LANES = 8
#: Residues of one polynomial that are worked on at a time.
BLOCK = 512
#: Fours of residues that the last layers of a transform work on at a time.
ENDS = 64
#: Words that a thread writes over, besides two rows: for the last layers of a transform, and for sums of products.
ROOM = 4 * ENDS + 6 * BLOCK
#: Columns of a table of one prime's constants: the prime, 2^64 // prime, then numbers modulo it with their quotients
#: (factor * 2^64 // prime): 2^60, 1 / N and 2^52.
PRIME, ONE, WORD, WORD_, SIZE, SIZE_, NEAR, NEAR_, COLUMNS = range(9)
#: And of a table of one prime modulo another: itself and its inverse, with their quotients.
MODULO, MODULO_, INVERSE, INVERSE_, PAIRS = range(5)

#: Of a phase of work (`tape`): what is done and in how many pieces; places of what is read, added and written, and of
#: what is kept meanwhile; which part is read and how many are added; the first of some keys, and how many; whether the
#: result is added to what is there; the first of some sums, and the one after the last; in whose memory it works; and
#: which phases must be done before, by their numbers on the tape, or NONE.
KIND, PIECES, SOURCE, GIVEN, OUT, KEPT, PART, ADDED, KEY, MANY, MORE, FIRST, LAST, TRACK, NEEDS, ALSO, PHASE = range(17)
NONE = -1
#: Its kinds (`compiling.run`).
STRAIGHT, TOPS, MIXED, MIXED_TOPS, APART, TURNED, FOLDED, RESCALED = range(8)
PRODUCTS, ADDED_UP, BEGUN, SUMMED, SQUARED = range(8, 13)
#: Words of a job: addresses of arrays, then sizes: how many phases, from which one of the tape on, and so on; last, by
#: how many polynomials the memory of one track is after that of another.
JOB = 26
TABLES, ROWS, HALVES, DOWN, INVERSES, PHASES, TERMS, STARTS, SUMS, STRAIGHTS, APARTS, DIVIDED = range(12)
PLACES, KEYS, WEIGHTS, HIDES, MEETING, COUNT, BEGIN, THREADS, PRIMES, LEFT, DROPPED, DIGITS, RING, APART_BY = range(
    12, JOB
)
#: Parts of a ciphertext that is squared and not relinearised yet: the most that there are.
MOST_PARTS = 3
#: What describes a key: addresses of its residues and of its order; how many primes, digits and words a block.
KEY_WORDS = 5

#: What each loop takes: arrays of 64-bit words, integers and floats (w, i, f), a word (u), an integer (n).
SIGNATURES = {
    "powers": "uuwwn",
    "quotients": "wuuuwn",
    "multiply": "wwwuwn",
    "forward": "wwwwuwn",
    "backward": "wwwwwwn",
    "run": "wnw",
    "split": "wnffnn",
    "join": "ffnnnuuwnnnn",
}
#: Names of the loops in an object file begin so.
PREFIX = "hefw_"


def machine() -> Any:
    """The processor at hand, as LLVM describes it, for code that goes into the memory of a process."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    return llvm.Target.from_default_triple().create_target_machine(llvm.get_host_cpu_name(), features, 3, jit=True)


@cache
def fast() -> str | None:
    """By what this processor is fast modulo primes below 2^FAST_BITS: IFMA, else FMA, or by nothing."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    if features.get("avx512ifma") and features.get("avx512f"):
        return IFMA
    return FMA if features.get("avx2") and features.get("fma") else None


def description() -> str:
    """Names what machine code depends on: LLVM's version, the processor, what it can do and what of that is used."""
    import llvmlite
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    return " ".join([str(fast()), llvmlite.__version__, llvm.get_default_triple(), llvm.get_host_cpu_name(), features])
