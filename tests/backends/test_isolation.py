"""A server's modules bring no key holder, and no heavy library, into its process."""

from __future__ import annotations

import subprocess
import sys

import pytest


def imported(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


@pytest.mark.parametrize("backend", ["tenseal", "simulator"])
def test_an_evaluator_imports_no_key_holder(backend) -> None:
    name = backend.capitalize()
    modules = imported(f"import hefw.backends.{backend}.evaluator")
    assert f"hefw.backends.{backend}.evaluator" in modules
    assert not {m for m in modules if "keyholder" in m}
    made = imported(
        "from hefw.core.params import CkksParams\n"
        f"from hefw.backends.{backend}.backend import {name}Backend\n"
        f"b = {name}Backend()\n"
        "b.evaluator(b.resolve(CkksParams(4096, (40, 30), (60,), 30.0, allow_insecure=True)))"
    )
    assert f"hefw.backends.{backend}.evaluator" in made
    assert not {m for m in made if "keyholder" in m}


def test_the_core_brings_neither_torch_nor_a_backend() -> None:
    names = ("lower", "engine", "graph", "normalise", "plan", "program", "ledger", "envelope")
    modules = imported("\n".join(f"import hefw.core.{name}" for name in names))
    assert not {m for m in modules if m.split(".")[0] in ("torch", "diffusers", "tenseal", "_sealapi_cpp", "sklearn")}
    assert not {m for m in modules if m.startswith("hefw.backends")}
