"""Memory of this process."""

from __future__ import annotations

import os
import resource
import sys

#: Share of the machine's memory that encoded weights may take: keys and ciphertexts need the rest, in two processes.
WEIGHTS_SHARE = 1 / 12


def peak_rss_bytes() -> int:
    """The most resident memory that this process has had so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def weights_budget() -> float:
    """Memory for encoded weights, in bytes."""
    return WEIGHTS_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
