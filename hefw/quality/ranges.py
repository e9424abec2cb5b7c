"""How large the inputs of a graph's polynomials become, over samples and steps.

A polynomial has no saturation: once its input leaves the range that it was made for, sampling may explode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hefw.core.graph import Graph, Polynomial, Values, advance, features

Array = NDArray[np.float64]

#: Samples whose values are held at once.
BATCH = 100


@dataclass(frozen=True, eq=False)
class Ranges:
    """What was met on the way.

    Attributes:
        largest: (samples,) the largest |input of a polynomial| of each sample; infinite or nan if it diverged.
        nodes: the largest of all, by the polynomial's name.
        outputs: (samples, features) of each output after the last step, as the key holder has it.
    """

    largest: Array
    nodes: Mapping[str, float]
    outputs: Mapping[str, Array]


def ranges(graph: Graph, inputs: Mapping[str, Array], tell: Callable[[int], None] = lambda _: None) -> Ranges:
    """Run the graph in plaintext on inputs (samples, features) by name; `tell(samples done)` after each batch."""
    samples = len(next(iter(inputs.values())))
    parts = []
    for start in range(0, samples, BATCH):
        parts.append(_batch(graph, {name: value[start : start + BATCH] for name, value in inputs.items()}))
        tell(min(samples, start + BATCH))
    with np.errstate(invalid="ignore"):
        nodes = {name: float(np.max([part.nodes[name] for part in parts])) for name in parts[0].nodes}
    return Ranges(
        np.concatenate([part.largest for part in parts]),
        nodes,
        {name: np.concatenate([part.outputs[name] for part in parts]) for name in graph.outputs},
    )


def _batch(graph: Graph, inputs: Mapping[str, Array]) -> Ranges:
    samples = len(next(iter(inputs.values())))
    empty = {name: np.zeros((samples, features(node))) for name, node in graph.inputs.items()}
    current: Values = {**empty, **inputs}  # a multistep scheduler has no history at first
    previous = {name: node.previous for name, node in graph.inputs.items()}
    polynomials = {name: node.source for name, node in graph.nodes.items() if isinstance(node, Polynomial)}
    largest = {name: np.zeros(samples) for name in polynomials}
    outputs: Values = {}
    with np.errstate(all="ignore"):  # one that diverges is counted, not warned of
        for step in range(graph.steps):
            values = graph.evaluate(step, current)
            for name, source in polynomials.items():
                largest[name] = np.maximum(largest[name], np.abs(values[source]).max(1))
            outputs = {name: values[out.node] * out.factors[step] for name, out in graph.outputs.items()}
            fed = {out.feedback: outputs[name] for name, out in graph.outputs.items() if out.feedback is not None}
            current = advance(current, previous, fed)
        whole = np.max([np.zeros(samples), *largest.values()], axis=0)
        return Ranges(whole, {name: float(np.max(value)) for name, value in largest.items()}, outputs)
