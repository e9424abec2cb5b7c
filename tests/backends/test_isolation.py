"""The core brings no backend and no heavy library, the kit no key holder to a server. Backends: the kit's own tests."""

from __future__ import annotations

import subprocess
import sys


def imported(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_the_core_brings_neither_torch_nor_a_backend() -> None:
    names = ("lower", "engine", "graph", "normalise", "plan", "program", "ledger", "envelope")
    modules = imported("\n".join(f"import hefw.core.{name}" for name in names))
    assert not {m for m in modules if m.split(".")[0] in ("torch", "diffusers", "tenseal", "_sealapi_cpp", "sklearn")}
    assert not {m for m in modules if m.startswith("hefw.backends")}


def test_the_kit_is_imported_by_who_asks_for_it_only() -> None:
    assert not {m for m in imported("import hefw, hefw.testing, hefw.testing.child") if m.split(".")[0] == "pytest"}
    assert not {m for m in imported("import hefw, hefw.cli") if m.startswith("hefw.testing")}
    modules = imported("from hefw.testing import BackendConformance, ModelConformance, StrategyConformance")
    assert not {
        m for m in modules if m.split(".")[0] in ("torch", "diffusers") or m.startswith("hefw.backends.tenseal")
    }
