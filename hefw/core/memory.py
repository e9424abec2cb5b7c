"""Memory of this process."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

#: Share of the machine's memory that encoded weights may take: keys and ciphertexts need the rest, in two processes.
WEIGHTS_SHARE = 1 / 12
#: Share that the ciphertexts of one request may take.
CIPHERTEXTS_SHARE = 1 / 4


def peak_rss_bytes() -> int:
    """The most resident memory that this process has had so far, in bytes.

    A child's own count begins at what its parent had, so it is read where Linux tells that of the program alone.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass  # not Linux
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def weights_budget() -> float:
    """Memory for encoded weights, in bytes."""
    return WEIGHTS_SHARE * _memory()


def ciphertexts_budget() -> float:
    """Memory for the ciphertexts of one request, in bytes."""
    return CIPHERTEXTS_SHARE * _memory()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
