"""Measuring on one core: of the libraries too, which count the cores when they are loaded."""

from __future__ import annotations

import os
import sys


def on_one_core() -> None:
    """Start this program again with one core, unless it has only one."""
    cores = os.sched_getaffinity(0)
    if len(cores) > 1:
        os.sched_setaffinity(0, {max(cores)})
        os.execv(sys.executable, sys.orig_argv)
