"""Every pass keeps the function; together they leave affine regions and exact squares."""

from __future__ import annotations

import numpy as np
import pytest
from core_graphs import denoiser, identity, random_graph, samples
from hypothesis import given, settings
from hypothesis import strategies as st

from hefw.core.errors import GraphError
from hefw.core.graph import Affine, Graph, Input, LinearTerm, Node, Output, Polynomial, sources
from hefw.core.normalise import drop_unused, fold_sums, merge_affines, normalise, squares_only

seeds = st.integers(0, 2**32 - 1)
PASSES = [
    fold_sums,
    lambda g: squares_only(fold_sums(g)),
    lambda g: merge_affines(fold_sums(g)),
    drop_unused,
    normalise,
]


def agree(before: Graph, after: Graph, inputs: dict) -> None:
    """Same outputs at every step, relative to the largest value on the way."""
    for step in range(before.steps):
        old, new = before.evaluate(step, inputs), after.evaluate(step, inputs)
        size = max(float(np.abs(v).max()) for v in [*old.values(), *new.values()])
        for name, output in before.outputs.items():
            found = new[after.outputs[name].node]
            assert found.shape == old[output.node].shape
            assert np.abs(found - old[output.node]).max() <= 1e-9 * max(1.0, size), (name, step)


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from(range(len(PASSES))))
def test_every_pass_keeps_the_function(seed, number) -> None:
    graph = random_graph(seed)
    rng = np.random.default_rng(seed)
    inputs = {"x": rng.uniform(-1, 1, size=(3, 8)), "y": rng.uniform(-1, 1, size=(3, 8))}
    agree(graph, PASSES[number](graph), inputs)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_only_affine_regions_and_exact_squares_remain(seed) -> None:
    flat = normalise(random_graph(seed))
    needed = {o.node for o in flat.outputs.values()}.union(*(sources(n) for n in flat.nodes.values()))
    for name, node in flat.nodes.items():
        assert isinstance(node, (Input, Affine)) or (isinstance(node, Polynomial) and node.is_square)
        assert isinstance(node, Input) or name in needed
    assert normalise(flat).nodes.keys() == flat.nodes.keys()


def test_a_denoiser_costs_one_square_an_activation_and_one_matrix_a_region() -> None:
    graph = denoiser()
    flat = normalise(graph)
    agree(graph, flat, samples())
    kinds = [type(node).__name__ for node in flat.nodes.values()]
    assert kinds == ["Input", "Input", "Affine", "Polynomial", "Affine", "Polynomial", "Affine"]


def chain(*curves: list[float], outputs: tuple[str, ...] = ()) -> Graph:
    """x -> z -> polynomial -> polynomial ..., with outputs by name (the last if none)."""
    nodes: dict[str, Node] = {
        "x": Input("x", (2,)),
        "z": Affine("z", (2,), (LinearTerm("x", identity(2)),), np.array([[0.1, 0.2]])),
    }
    source = "z"
    for k, curve in enumerate(curves):
        nodes[f"p{k}"] = Polynomial(f"p{k}", (2,), source, np.array(curve)[:, None] * np.ones(2))
        source = f"p{k}"
    return Graph(nodes, {name: Output(name, np.ones(1)) for name in (outputs or (source,))}, (0,))


X = {"x": np.random.default_rng(0).uniform(-1, 1, size=(4, 2))}


@pytest.mark.parametrize("degree", range(9))
def test_each_degree(degree) -> None:
    graph = chain(list(np.linspace(0.5, 1.0, degree + 1)))
    flat = normalise(graph)
    agree(graph, flat, X)
    squares = sum(isinstance(node, Polynomial) for node in flat.nodes.values())
    assert squares >= max(0, int(np.ceil(np.log2(max(1, degree)))))


@pytest.mark.parametrize("outputs", [("z",), ("p0",), ("p0", "z"), ("p1", "p0", "z"), ("x", "p1")])
def test_polynomials_of_polynomials_and_shared_sources(outputs) -> None:
    graph = chain([1, 2, 3], [0.5, 0.25, -1], outputs=outputs)
    agree(graph, normalise(graph), X)


def test_two_polynomials_of_one_region() -> None:
    graph = chain([1, 2, 3])
    other = Polynomial("q", (2,), "z", np.array([[1.0, 0], [0, 1], [-2, 1]]))
    nodes = {**graph.nodes, "q": other}
    both = Graph(nodes, {"a": Output("p0", np.ones(1)), "b": Output("q", np.ones(1))}, (0,))
    agree(both, normalise(both), X)


def test_a_line_and_a_quadratic_of_one_region() -> None:
    nodes: dict[str, Node] = {**chain([1, 2]).nodes}
    nodes["q"] = Polynomial("q", (2,), "z", np.array([[1.0, 0], [1, 1], [-2, 1]]))
    nodes["r"] = Polynomial("r", (2,), "z", np.array([[2.0, 0], [1, 3]]))
    graph = Graph(nodes, {n: Output(n, np.ones(1)) for n in ("p0", "q", "r")}, (0,))
    agree(graph, normalise(graph), X)


def test_names_that_the_passes_would_make_are_no_trap() -> None:
    nodes: dict[str, Node] = dict(chain([1, 2, 3]).nodes)
    for name in ("z.shifted", "z.shifted.square", "z.square", "p0.value"):
        nodes[name] = Affine(name, (2,), (LinearTerm("x", identity(2)),), np.array([[1.0, 2.0]]))
    nodes["q"] = Polynomial("q", (2,), "z.shifted", np.array([[1.0, 1], [1, 1], [2, 2]]))
    names = ["p0", "z.shifted", "z.shifted.square", "z.square", "p0.value", "q"]
    graph = Graph(nodes, {n: Output(n, np.ones(1)) for n in names}, (0,))
    agree(graph, normalise(graph), X)


def test_too_high_a_degree_is_refused_by_name() -> None:
    with pytest.raises(GraphError, match="'p0' has degree 17; at most 16"):
        normalise(chain([1.0] * 18))


def test_channels_of_different_degrees() -> None:
    nodes = {**chain([1, 1]).nodes}
    mixed = np.ones((5, 2))
    mixed[4, 0] = 0
    nodes["p0"] = Polynomial("p0", (2,), "z", mixed)
    graph = Graph(nodes, {"p0": Output("p0", np.ones(1))}, (0,))
    agree(graph, normalise(graph), X)


@pytest.mark.parametrize("degree", range(3, 17))
def test_a_small_leading_coefficient_makes_no_large_values(degree) -> None:
    """As polynomials fitted on [-1, 1] have: what is squared stays of their size, and the depth is the least."""
    graph = chain([0.5**k for k in range(degree)] + [1e-7])
    flat = normalise(graph)
    agree(graph, flat, X)
    values = flat.evaluate(0, X)
    assert max(np.abs(value).max() for value in values.values()) < 100
    depth: dict[str, int] = {}
    for name, node in flat.nodes.items():
        below = max((depth[source] for source in sources(node)), default=0)
        depth[name] = below + isinstance(node, Polynomial)
    assert depth[flat.outputs["p0"].node] == int(np.ceil(np.log2(degree)))


def test_unused_nodes_go_and_inputs_stay() -> None:
    graph = chain([1, 2, 3], [1, 1], outputs=("z",))
    assert list(drop_unused(graph).nodes) == ["x", "z"]
