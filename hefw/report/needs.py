"""What reports need: looked for before a run, and imported while its server works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hefw.core.errors import ConfigError, line
from hefw.core.progress import Progress, ProgressCallback
from hefw.plugins import importable
from hefw.report.result import RunResult

NEEDED = ("jinja2", "matplotlib", "PIL")
INSTALL = "run: pip install 'hefw[report]'"


def check() -> None:
    """ConfigError unless all of it is there. Nothing is imported."""
    for name in NEEDED:
        if not importable(name):
            raise ConfigError(f"reports need {name}, which is not installed; {INSTALL}")


def writer() -> Callable[[RunResult, Path], list[Path]]:
    """`hefw.report.write.write_run`, imported; ConfigError if that fails."""
    try:
        from hefw.report.write import write_run
    except ImportError as error:
        raise ConfigError(f"reports cannot be written: {line(error)}; {INSTALL}") from error
    return write_run


def meanwhile(progress: ProgressCallback) -> ProgressCallback:
    """`progress`, and the import when the server first evaluates: a third of a second in which this process waits.

    What is there but broken thus ends a run at its first step, and not when there are pictures to lose.
    """

    def told(event: Progress) -> None:
        progress(event)
        if event.stage == "evaluate":
            writer()

    return told
