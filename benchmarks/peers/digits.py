"""A step of `digits` for every peer: hefw's own graph, and the same as matrices for a label that is public."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.peers.regions import Array, Regions, Step
from hefw.core.graph import Affine, Graph, Input, Polynomial, features
from hefw.core.normalise import centre_squares, normalise
from hefw.models.digits.model import Digits
from hefw.models.plugin import DigitsOptions
from hefw.plugins import registry

STEPS = 10
LABEL = 3


def graph() -> Graph:
    """Of ten DDIM steps."""
    model = Digits(DigitsOptions())
    return model.graph(model.scheduler(registry().load("scheduler", "ddim"), {}), STEPS)


def inputs(images: int) -> dict[str, Array]:
    """Noise, and one label for all images."""
    model = Digits(DigitsOptions())
    return model.inputs(np.random.default_rng(1).normal(size=(images, 1, 8, 8)), np.full(images, LABEL))


def regions(images: int) -> Regions:
    """Its first step as matrices; what a square adds, and the label's part, are in the biases that follow.

    The latent's own term in the scheduler's update is left out: Orion takes an input to one place only.
    """
    flat = centre_squares(normalise(graph()))
    given = inputs(images)
    steps: dict[str, Step] = {}
    constants: dict[str, Array] = {}  # what is left out of a value, and belongs into the biases of its readers
    values = flat.evaluate(0, given)
    expected = values[flat.outputs["latent"].node].copy()
    for name, node in flat.nodes.items():
        if isinstance(node, Input):
            continue
        if isinstance(node, Polynomial):
            assert node.is_square
            steps[name] = Step((), np.zeros(0), node.source)
            constants[name] = node.coefficients[0]
            continue
        assert isinstance(node, Affine)
        bias, terms = node.bias[0].copy(), []
        for term in node.terms:
            matrix = term.matrix.dense()
            if term.factors is not None:
                assert (term.source, name) == ("latent", flat.outputs["latent"].node)
                expected -= term.factors[0] * values[term.source]
            elif term.source == "label":
                bias += matrix @ given["label"][0]
            else:
                bias += matrix @ constants.get(term.source, np.zeros(features(flat.nodes[term.source])))
                terms.append((term.source, matrix))
        steps[name] = Step(tuple(terms), bias)
    return Regions(steps, given["latent"], expected)


def write(path: Path, images: int = 1) -> None:
    """For interpreters without hefw."""
    regions(images).save(path)
