"""Memory of this process."""

from __future__ import annotations

import resource
import sys


def peak_rss_bytes() -> int:
    """The most resident memory that this process has had so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
