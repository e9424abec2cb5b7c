"""The debugging tool names the region at fault."""

from __future__ import annotations

from dataclasses import replace

import pytest
from core_graphs import denoiser, samples
from runs import BACKENDS, small_program

from hefw.core.divergence import compare
from hefw.core.program import LinearOp, Program


@pytest.mark.parametrize("backend", ["simulator", "tenseal"])
def test_a_right_program_does_not_diverge(backend: str) -> None:
    program = small_program(backend)
    library = BACKENDS[backend]
    keys = library.keygen(program.params, program.interface.keys)
    found = compare(denoiser(), program, library.evaluator(program.params), keys, samples(4), step=1)
    assert [region.name for region in found.regions] == program.regions
    assert found.first is None, str(found)
    assert all(region.max_error < 1e-3 for region in found.regions), str(found)
    levels = program.levels()
    assert all((r.level, pytest.approx(r.scale_bits)) == (levels[r.name][0], levels[r.name][1]) for r in found.regions)


def test_the_first_wrong_region_is_named() -> None:
    """Weights of the second affine region are spoilt: it, and none before it, is reported."""
    program = small_program("tenseal")
    linear = [op for op in program.step if isinstance(op, LinearOp) and op.transform]
    spoilt = linear[1]
    assert spoilt.transform is not None
    wrong = replace(spoilt, transform=replace(spoilt.transform, weights=spoilt.transform.weights * 1.5))
    step = tuple(wrong if op is spoilt else op for op in program.step)
    broken = Program(program.interface, program.prelude, step, program.kept, program.outputs)
    library = BACKENDS["tenseal"]
    keys = library.keygen(program.params, program.interface.keys)
    found = compare(denoiser(), broken, library.evaluator(program.params), keys, samples(4))
    assert found.first is not None
    assert found.first.name == spoilt.name
    assert f"{spoilt.name}" in str(found)
    assert str(found).count("first to diverge") == 1
