"""The library, loaded with one OpenMP thread: more make it slower, and a forked child could not use them."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import openfhe

__all__ = ["openfhe"]
