"""The conformance kit: pytest classes that the author of a plugin subclasses with one fixture.

    from hefw.testing import BackendConformance

    class TestMine(BackendConformance):
        @pytest.fixture
        def backend(self):
            return MyBackend()

Needs pytest: ``pip install 'hefw[testing]'``. hefw itself never imports this package.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hefw.testing.backend import BackendConformance
    from hefw.testing.model import ModelConformance
    from hefw.testing.strategy import StrategyConformance

__all__ = ["BackendConformance", "ModelConformance", "StrategyConformance"]

_MODULES = {
    "BackendConformance": "hefw.testing.backend",
    "ModelConformance": "hefw.testing.model",
    "StrategyConformance": "hefw.testing.strategy",
}
_REWRITTEN = ("hefw.testing.parties", "hefw.testing.suites", *_MODULES.values())


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'hefw.testing' has no attribute {name!r}")
    import pytest

    # So that a failed assert in the kit shows its values, as one in a test file does.
    pytest.register_assert_rewrite(*(module for module in _REWRITTEN if module not in sys.modules))
    return getattr(import_module(_MODULES[name]), name)
