"""For developers of models and backends: run a program beside its plaintext twin, and name the region that diverges.

It needs the key holder, so that nothing that a server imports may import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hefw.core.backend import Ciphertext, Evaluator, KeyHolder
from hefw.core.graph import Graph
from hefw.core.normalise import centre_squares, normalise
from hefw.core.program import Program
from hefw.core.runner import Runner

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """One operation of a step: what it gave on ciphertext beside what the graph says.

    Errors are absolute; `largest` is the largest plaintext value. Level and scale are those after the operation.
    """

    name: str
    level: int
    scale_bits: float
    largest: float
    max_error: float
    rms_error: float


@dataclass(frozen=True)
class Divergence:
    """All regions of a step in order; `first` is the first beyond the tolerance, None if there is none."""

    regions: tuple[Region, ...]
    tolerance: float

    @property
    def first(self) -> Region | None:
        return next((r for r in self.regions if not r.max_error <= self.tolerance * max(1.0, r.largest)), None)

    def __str__(self) -> str:
        rows = [f"{'region':24} {'level':>5} {'scale':>6} {'largest':>9} {'max error':>9} {'rms error':>9}"]
        for r in self.regions:
            mark = "  <- first to diverge" if r is self.first else ""
            errors = f"{r.largest:9.3g} {r.max_error:9.2e} {r.rms_error:9.2e}"
            rows.append(f"{r.name:24} {r.level:5d} {r.scale_bits:6.1f} {errors}{mark}")
        return "\n".join(rows)


def compare(
    graph: Graph,
    program: Program,
    evaluator: Evaluator,
    keys: KeyHolder,
    inputs: Mapping[str, Array],
    *,
    step: int = 0,
    tolerance: float = 1e-2,
) -> Divergence:
    """Encrypt `inputs` (images, features), run one step, and decrypt every region's value.

    `program` must be `lower(graph, ...)`; the evaluator needs no keys yet. A region diverges where its largest error
    exceeds `tolerance` times its largest plaintext value (at least 1). Overflow shows as an enormous error, or NaN.
    """
    evaluator.load_keys(dict(keys.evaluation_keys()))
    runner = Runner(program, evaluator)
    encrypted = {
        name: [keys.encrypt(row, port.level, port.scale) for row in port.layout.pack(inputs[name])]
        for name, port in program.interface.inputs.items()
    }
    expected = centre_squares(normalise(graph)).evaluate(step, inputs)
    layouts = {op.name: op.layout for op in program.step}
    images = len(next(iter(inputs.values())))
    regions: list[Region] = []

    def watch(_: int, name: str, value: list[Ciphertext]) -> None:
        slots = np.stack([keys.decrypt(ct) for ct in value])
        error = np.abs(layouts[name].unpack(slots, images) - expected[name])
        regions.append(
            Region(
                name,
                value[0].level,
                float(np.log2(value[0].scale)),
                float(np.abs(expected[name]).max()),
                float(error.max()),
                float(np.sqrt(np.mean(error**2))),
            )
        )

    runner.begin({name: encrypted[name] for name, port in program.interface.inputs.items() if port.once})
    runner.run(step, {n: encrypted[n] for n, port in program.interface.inputs.items() if not port.once}, watch=watch)
    return Divergence(tuple(regions), tolerance)
