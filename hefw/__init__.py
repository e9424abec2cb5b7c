"""hefw: diffusion models on a server that never sees the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hefw.hookspecs import hookimpl
    from hefw.models.compiler.compile import compile
    from hefw.run import Result, generate
    from hefw.wrapping import wrap

__all__ = ["Result", "__version__", "compile", "generate", "hookimpl", "wrap"]


def __getattr__(name: str) -> Any:
    # Lazy, so that a server or `hefw --help` does not import what it does not use.
    if name in ("generate", "Result"):
        import hefw.run as module

        return getattr(module, name)
    if name == "wrap":
        from hefw.wrapping import wrap

        return wrap
    if name == "compile":
        from hefw.models.compiler.compile import compile

        return compile
    if name == "hookimpl":
        from hefw.hookspecs import hookimpl

        return hookimpl
    raise AttributeError(f"module 'hefw' has no attribute {name!r}")
