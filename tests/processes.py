"""Whether processes that should end do, and what they import."""

from __future__ import annotations

import time

import psutil

PATIENCE = 20.0  # seconds, for what happens within one: a failed test, not a hang


def gone(pid: int) -> bool:
    """Whether a process has ended within PATIENCE; one that nobody has waited for counts as ended."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def imported_by(said: str) -> list[str]:
    """The modules that a process says it imported, in order, on a standard error made with `-X importtime`."""
    return [line.rpartition("|")[2].strip() for line in said.splitlines() if line.startswith("import time:")]
