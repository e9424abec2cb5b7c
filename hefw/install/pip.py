"""What pip is given, and what it said when it failed."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hefw.core.errors import PluginError

ARGUMENTS = ("-m", "pip", "install", "--verbose", "--no-input", "--disable-pip-version-check", "--progress-bar=off")
#: The line with which pip begins to change an environment; before it, it only downloads and compiles.
CHANGES_FROM = "Installing collected packages"
#: Variables and pip settings that would lead another environment's packages in, or this one's elsewhere.
MISLEADING = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON")

_ERROR = re.compile(r"^(?:.*: )?(?:fatal )?error:? +(.*)", re.I)
#: Errors of pip that only say that there was one.
_EMPTY = re.compile(
    r"subprocess-exited-with-error|metadata-generation-failed|failed-wheel-build-for-install|failed building wheel|"
    r"could not build wheels|failed to build",
    re.I,
)


def environment(extra: Mapping[str, str], temporary: Path, *, managed: bool) -> dict[str, str]:
    """The variables of pip's process: those of this one, a way's own, and where temporary files go."""
    variables = dict(os.environ)
    if managed:
        for name in MISLEADING:
            variables.pop(name, None)
        variables["PIP_USER"] = "0"
    variables.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(len(os.sched_getaffinity(0))))
    variables["TMPDIR"] = str(temporary)
    return variables | {name: _value(name, value) for name, value in extra.items()}


def failure(lines: Sequence[str]) -> str:
    """The line of pip's output that tells most about why it failed."""
    errors = [line for line in lines if _ERROR.match(line)]
    telling = [line for line in errors if not _EMPTY.search(line)]
    line = (telling or errors or lines or ["it said nothing"])[-1]
    return re.sub(r"^ERROR: ", "", line)


def _value(name: str, value: str) -> str:
    """A value as it is, or the path of a package's file where it is written as "package:file"."""
    match = re.fullmatch(r"([A-Za-z_][\w.]*):([\w.][\w./-]*)", value)
    if not match:
        return value
    try:
        spec = importlib.util.find_spec(match[1])
    except ImportError:
        spec = None
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / match[2]
        if path.is_file():
            return str(path)
    raise PluginError(f"{name}={value}: there is no file {match[2]!r} in a package {match[1]!r}; ask its author")
