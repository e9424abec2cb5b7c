"""What compiled loops take, and the machine that they are compiled for."""

from __future__ import annotations

from typing import Any

#: Largest size of a prime, in bits: values up to 16 times the prime are 64-bit numbers.
MOST_BITS = 60
#: Products by halves that are added before the sum is reduced.
AT_ONCE = 8
#: Residues of one polynomial that are worked on at a time.
BLOCK = 512
#: Fours of residues that the last layers of a transform work on at a time.
ENDS = 64
#: Columns of a table of one prime's constants: the prime, its half, 2^64 // prime, then numbers modulo it with their
#: quotients (factor * 2^64 // prime): 2^60 and 1 / N.
PRIME, HALF, ONE, WORD, WORD_, SIZE, SIZE_, COLUMNS = range(8)

#: What each loop takes: arrays of 64-bit words, integers and floats (w, i, f), a word (u), an integer (n).
SIGNATURES = {
    "powers": "uuwwn",
    "quotients": "wuuuwn",
    "forward": "wwwwuwn",
    "backward": "wwwwwwn",
    "coefficients": "wwnwwnnnnn",
    "decompose": "wwinwwnnnnnn",
    "products": "wwwiwwwnnnnnnnnn",
    "switched": "wiwwwninwwnnnnn",
    "accumulated": "wiwwiwwnnnnn",
    "folded": "wiwwwwnnnnn",
    "rescaled": "wiwwwwnnnnnn",
    "turned": "wwwinwwwnnwnnnnnn",
    "added": "wwinwwwnnnnnn",
    "sums": "wwiwwwnnnnnnn",
    "square": "wwwwnnnnnn",
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


def description() -> str:
    """Names what machine code depends on: LLVM's version, the processor and what it can do."""
    import llvmlite
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    return " ".join([llvmlite.__version__, llvm.get_default_triple(), llvm.get_host_cpu_name(), features])
