"""One step of a model as matrices and squares, for libraries that know nothing of hefw. Numpy only."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """Either a square of the value `square`, or the sum of matrices (features, features) times values, plus `bias`."""

    terms: tuple[tuple[str, Array], ...]
    bias: Array
    square: str | None = None


@dataclass(frozen=True)
class Regions:
    """Steps by name in their order, from `latent`; sample `inputs` (images, features), and what they give."""

    steps: Mapping[str, Step]
    inputs: Array
    expected: Array

    def save(self, path: Path) -> None:
        """As an npz file."""
        table = {
            name: {"terms": [source for source, _ in step.terms], "square": step.square}
            for name, step in self.steps.items()
        }
        arrays = {"inputs": self.inputs, "expected": self.expected, "table": np.array(json.dumps(table))}
        for name, step in self.steps.items():
            arrays[f"bias/{name}"] = step.bias
            for number, (_, matrix) in enumerate(step.terms):
                arrays[f"matrix/{name}/{number}"] = matrix
        np.savez(path, **arrays)

    @staticmethod
    def load(path: Path) -> Regions:
        """What `save` wrote."""
        with np.load(path) as arrays:
            table = json.loads(str(arrays["table"]))
            steps = {
                name: Step(
                    tuple((source, arrays[f"matrix/{name}/{k}"]) for k, source in enumerate(row["terms"])),
                    arrays[f"bias/{name}"],
                    row["square"],
                )
                for name, row in table.items()
            }
            return Regions(steps, arrays["inputs"], arrays["expected"])

    def digest(self) -> str:
        """Of all matrices and biases."""
        data = io.BytesIO()
        for step in self.steps.values():
            data.write(step.bias.tobytes())
            for _, matrix in step.terms:
                data.write(matrix.tobytes())
        return hashlib.sha256(data.getvalue()).hexdigest()[:16]
