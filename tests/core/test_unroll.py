"""Unrolled graphs compute what their steps compute one after the other, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from core_graphs import denoiser, identity, random_graph, samples
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hefw.core.errors import LoweringError
from hefw.core.graph import Affine, Graph, Input, LinearTerm, Output, Polynomial, Sum
from hefw.core.normalise import centre_squares, normalise
from hefw.core.unroll import boundaries, unroll

STEPS = 6


def results(graph: Graph, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The output `latent` of every step, public factors applied."""
    output = graph.outputs["latent"]
    return [v[output.node] * output.factors[k] for k, v in enumerate(graph.trajectory(inputs))]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 3, 6]), st.integers(1, 3))
def test_every_message_brings_back_what_the_steps_do(seed, every, activations) -> None:
    inputs = {name: values / 4 for name, values in samples(4, seed).items()}  # squares of more would diverge
    graph = replace(denoiser(STEPS, seed, activations), calibration=inputs)
    several = unroll(graph, every)
    assert several.steps == STEPS // every
    assert several.timesteps == graph.timesteps[::every]
    found, expected = results(several, inputs), results(graph, inputs)[every - 1 :: every]
    assume(np.abs(expected).max() < 100)
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-12)
    flat = centre_squares(normalise(several))  # what a program is made of
    assert np.allclose(results(flat, inputs), expected, rtol=1e-6, atol=1e-9)
    assert boundaries(graph, every) <= set(flat.nodes)


def test_one_step_a_message_is_the_graph_itself() -> None:
    graph = denoiser(STEPS)
    assert unroll(graph, 1) is graph
    assert boundaries(graph, 1) == frozenset()


def test_inputs_are_sent_once_a_message_whatever_their_kind() -> None:
    graph = denoiser(STEPS)
    assert unroll(graph, 3).inputs == graph.inputs
    assert unroll(graph, 3).calibration is graph.calibration


def test_weights_are_the_same_objects_in_all_steps() -> None:
    """But for those that read the step before, which take up its public factor."""
    nodes = unroll(denoiser(STEPS), STEPS).nodes
    for k in range(2, STEPS + 1):
        first, other = nodes["z1@1"], nodes[f"z1@{k}"]
        assert isinstance(first, Affine)
        assert isinstance(other, Affine)
        assert first.terms[0].matrix is other.terms[0].matrix


@pytest.mark.parametrize("every", [4, 5, 7, 0, -1])
def test_steps_that_are_not_divided_are_refused_with_those_that_are(every) -> None:
    with pytest.raises(LoweringError, match=rf"every {every} does not divide 6 steps.*1, 2, 3, 6"):
        unroll(denoiser(STEPS), every)


@pytest.mark.parametrize("every", [2, 4])
def test_polynomials_and_sums_may_read_what_is_fed_back(every) -> None:
    rng = np.random.default_rng(0)
    curve = np.stack([np.zeros(4), np.ones(4), np.full(4, 0.2)])
    nodes = {
        "latent": Input("latent", (4,)),
        "p": Polynomial("p", (4,), "latent", curve),
        "s": Sum("s", (4,), ("latent", "p")),
        "update": Affine("update", (4,), (LinearTerm("s", identity(4)),), rng.normal(size=(4, 4)) * 0.1),
    }
    output = Output("update", rng.uniform(0.2, 0.4, 4), "latent")
    inputs = {"latent": rng.normal(size=(5, 4))}
    graph = Graph(nodes, {"latent": output}, (4, 3, 2, 1), inputs)
    expected = results(graph, inputs)[every - 1 :: every]
    assert np.allclose(results(unroll(graph, every), inputs), expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_graphs_without_feedback_have_independent_copies(seed) -> None:
    """Nothing is fed back: the last copy's outputs are those of the last step."""
    graph = random_graph(seed)
    several = unroll(graph, graph.steps)
    rng = np.random.default_rng(seed)
    inputs = {name: rng.normal(size=(2, 8)) for name in graph.inputs}
    values, last = several.evaluate(0, inputs), graph.evaluate(graph.steps - 1, inputs)
    for key, output in several.outputs.items():
        assert np.allclose(values[output.node], last[graph.outputs[key].node])
        assert output == replace(graph.outputs[key], node=output.node, factors=output.factors)
