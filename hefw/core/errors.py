"""The one hierarchy of errors. Every message names the value given, what is allowed, and the next step."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HefwError(Exception):
    """Base of every error that hefw raises on purpose. `str(error)` is one line that a user can act on."""


class ParameterError(HefwError):
    """CKKS parameters that do not exist, do not fit, or are below 128-bit security."""


class CapabilityError(HefwError):
    """A backend was asked for an operation that it declares it lacks."""


class LevelError(HefwError):
    """An operation wants more levels than a ciphertext has left, or operands of different levels."""


class ScaleError(HefwError):
    """Scales of operands differ, or a scale does not fit the modulus."""


class KeyMismatchError(HefwError):
    """A ciphertext or key belongs to another key holder, or an evaluation key is missing."""


class KeyStoreError(HefwError):
    """A stored key set that does not exist, is damaged or unsafe, cannot be opened, or does not serve a program."""


class EncodingError(HefwError):
    """Values that cannot be encoded: wrong length, not finite, or too large for the modulus."""


class EnvelopeError(HefwError):
    """Bytes from outside that are truncated, changed, oversized, or made for something else."""


class GraphError(HefwError):
    """A graph that is malformed, or a graph file that cannot be read."""


class LoweringError(HefwError):
    """No program exists for a graph under the parameters asked for."""


class PluginError(HefwError):
    """A plugin is unknown, unavailable, or cannot be loaded."""


class ConfigError(HefwError):
    """A configuration key or value that is not allowed."""


class CompileError(GraphError):
    """A network that cannot become a graph: the message names the module, the operator and what can be done."""


class SchedulerError(HefwError):
    """A scheduler whose update is not linear, or not supported by the protocol."""


class ProtocolError(HefwError):
    """A message that is out of order, or a party that failed or went away."""


def error_class(name: object) -> type[HefwError]:
    """The class of that name, as another process told it; ProtocolError for any other name."""
    found = globals().get(name) if isinstance(name, str) else None
    return found if isinstance(found, type) and issubclass(found, HefwError) else ProtocolError


def line(text: object, length: int = 2000) -> str:
    """Text from another process as one printable line: no control character of it reaches a terminal."""
    return "".join(c if c.isprintable() else " " for c in str(text)[:length])


def suggest(given: str, known: Iterable[str]) -> str:
    """The tail of an 'unknown name' message: the nearest known name, and all of them.

    >>> suggest("tensela", ["simulator", "tenseal"])
    "did you mean 'tenseal'? Known: simulator, tenseal"
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known: {', '.join(names) or 'none'}"


def transparent() -> EncodingError:
    """The result of an operation has no secret in it."""
    return EncodingError(
        "the result is transparent, it hides nothing (a product with zeros, or a - a): leave the operation out"
    )
