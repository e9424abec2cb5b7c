"""The library, loaded with one OpenMP thread: more make it slower, and a forked child could not use them."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import openfhe

__all__ = ["openfhe", "reason"]


def reason(error: RuntimeError) -> str:
    """OpenFHE's message without the place in its source."""
    return str(error).strip().rpartition("(): ")[2].rstrip(". ").splitlines()[0]
