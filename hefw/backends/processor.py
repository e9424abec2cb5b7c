"""What this machine's processor can do, without loading a compiler."""

from __future__ import annotations

from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


@cache
def has(feature: str) -> bool:
    """Whether Linux names a feature of the processor, as `avx512ifma`; False on other systems."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return feature in flags.split()
