"""What depends on a label alone is computed once a request, and binds no level or scale of the steps."""

from __future__ import annotations

import numpy as np
import pytest
from core_graphs import identity, matrix, samples
from runs import BACKENDS, SMALL, Session, plain, psnr

from hefw.core.graph import Affine, Graph, Input, LinearTerm, Node, Output, Polynomial
from hefw.core.lower import Request, lower
from hefw.core.normalise import normalise
from hefw.core.once import TableReader, once_nodes, place_table, tables
from hefw.core.plan import Costs, Planner

STEPS = 3
SIMULATOR = BACKENDS["simulator"]


def with_tables(count: int) -> Graph:
    """A latent through two layers, to each of which `count` tables times the label times a number a step are added."""
    rng = np.random.default_rng(0)
    nodes: dict[str, Node] = {"latent": Input("latent", (1, 4, 4)), "label": Input("label", (3,), once=True)}
    source = "latent"
    for layer in range(2):
        terms = [LinearTerm(source, matrix(rng, 16, 16)), LinearTerm("label", matrix(rng, 16, 3))]
        for k in range(count):
            name = f"table{layer}.{k}"
            nodes[name] = Affine(name, (1, 4, 4), (LinearTerm("label", matrix(rng, 16, 3)),), np.zeros((1, 16)))
            terms.append(LinearTerm(name, identity(16), rng.normal(size=STEPS)))
        nodes[f"z{layer}"] = Affine(f"z{layer}", (1, 4, 4), tuple(terms), rng.normal(size=(STEPS, 16)) * 0.2)
        curve = np.stack([np.zeros(16), np.ones(16), np.full(16, 0.2)])
        nodes[f"a{layer}"] = Polynomial(f"a{layer}", (1, 4, 4), f"z{layer}", curve)
        source = f"a{layer}"
    nodes["out"] = Affine("out", (1, 4, 4), (LinearTerm(source, matrix(rng, 16, 16)),), np.zeros((1, 16)))
    outputs = {"latent": Output("out", np.full(STEPS, 0.5), "latent")}
    return Graph(nodes, outputs, tuple(range(STEPS, 0, -1)), samples())


def run(graph: Graph, request: Request, decibels: float) -> Session:
    session = Session(lower(graph, SIMULATOR, request), SIMULATOR)
    found = session.trajectory(graph.calibration)[-1]["latent"]
    assert psnr(found, plain(graph, graph.calibration)[-1]["latent"]) > decibels
    return session


@pytest.mark.parametrize("decibels", [40, 70])
def test_tables_are_computed_before_the_steps(decibels) -> None:
    request = Request(precision_db=decibels, ring_dimension=2048, allow_insecure=True)
    program = run(with_tables(2), request, decibels).program
    names = {op.name for op in program.prelude}
    assert {"table0.0", "table0.1", "table1.0", "table1.1"} <= names
    assert not names & {op.name for op in program.step}
    assert program.interface.forecast_db >= decibels


def test_a_plan_has_no_states_for_tables() -> None:
    few, many = (Planner(normalise(with_tables(count)), Costs(), SIMULATOR.capabilities) for count in (0, 5))
    assert many.live == few.live
    assert len(many.tables) == 10


def test_tables_cost_a_step_one_product_each() -> None:
    none, several = (lower(with_tables(count), SIMULATOR, Request(params=SMALL)) for count in (0, 3))
    more = several.counts()
    more.subtract(none.counts())
    assert more["rotate"] == 0
    assert more["mul_plain"] == 6


def test_polynomials_of_a_label_are_computed_once_too() -> None:
    rng = np.random.default_rng(1)
    nodes: dict[str, Node] = {"latent": Input("latent", (1, 4, 4)), "label": Input("label", (3,), once=True)}
    nodes["hidden"] = Affine("hidden", (8,), (LinearTerm("label", matrix(rng, 8, 3)),), rng.normal(size=(1, 8)))
    nodes["curve"] = Polynomial("curve", (8,), "hidden", np.full((3, 8), 0.3))
    terms = (LinearTerm("latent", matrix(rng, 16, 16)), LinearTerm("curve", matrix(rng, 16, 8)))
    nodes["z"] = Affine("z", (1, 4, 4), terms, np.zeros((1, 16)))
    nodes["square"] = Polynomial("square", (1, 4, 4), "z", np.full((3, 16), 0.3))
    outputs = {"latent": Output("square", np.full(STEPS, 0.5), "latent"), "hidden": Output("curve", np.ones(STEPS))}
    session = run(Graph(nodes, outputs, (3, 2, 1), samples()), Request(params=SMALL), 60)
    assert [op.name for op in session.program.step][:1] == ["z"]
    assert not {"hidden", "hidden.square"} & {op.name for op in session.program.step}


def test_what_changes_with_the_step_is_not_computed_once() -> None:
    graph = with_tables(1)
    nodes = dict(graph.nodes)
    nodes["table0.0"] = Affine("table0.0", (1, 4, 4), graph.nodes["table0.0"].terms, np.ones((STEPS, 16)))
    once = once_nodes(Graph(nodes, graph.outputs, graph.timesteps))
    assert once == {"label", "table1.0"}
    assert tables(graph, once) == {"table1.0"}


CAPACITY = (50, 100, 150)


@pytest.mark.parametrize("scale", [60, 80])
def test_a_table_is_rescaled_where_that_loses_less(scale) -> None:
    """Its reader's scale leaves few bits for both products: a rescale in between gives each as many as it wants."""
    read_by = [TableReader(1, scale, True)]
    with_room, without = (place_table(read_by, 4, top, 40, CAPACITY, 2048) for top in (2, 1))
    assert with_room is not None
    assert without is not None
    assert with_room.rescales == 1
    assert (with_room.level, without.level, without.rescales) == (2, 1, 0)
    assert 40 < without.scale_bits < scale


def test_a_table_that_fits_no_modulus_has_no_place() -> None:
    assert place_table([TableReader(0, 49, True)], 40, 0, 40, CAPACITY, 2048) is None
