"""Graphs become programs that compute them: layouts, levels, scales, keys, precision, and clear refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from core_graphs import denoiser, identity, matrix, samples
from runs import BACKENDS, SMALL, Session, plain, psnr, small_program

from hefw.core.errors import LoweringError, ParameterError
from hefw.core.graph import Affine, Graph, Input, LinearTerm, Node, Output, Polynomial
from hefw.core.lower import Request, lower
from hefw.core.params import CkksParams
from hefw.core.program import LinearOp, SquareOp

SIMULATOR = BACKENDS["simulator"]


def check(graph: Graph, request: Request, decibels: float = 80) -> Session:
    """The program's trajectory is the graph's."""
    program = lower(graph, SIMULATOR, request)
    session = Session(program, SIMULATOR)
    rng = np.random.default_rng(7)
    images = min(3, program.interface.batch)
    values = {n: a[rng.permutation(len(a))][:images] for n, a in graph.calibration.items()}
    for found, expected in zip(session.trajectory(values), plain(graph, values), strict=True):
        assert found.keys() == expected.keys()
        for name in found:
            assert found[name].shape == expected[name].shape
            assert psnr(found[name], expected[name]) > decibels, name
    return session


@pytest.mark.parametrize("activations", [1, 2, 3])
def test_a_denoiser_runs_to_its_plaintext_result(activations) -> None:
    session = check(denoiser(activations=activations), Request(params=SMALL if activations < 3 else deeper()))
    assert session.program.interface.depth == 2 * activations + 1
    assert session.program.regions[-1] == "update"


def deeper() -> CkksParams:
    return replace(SMALL, modulus_bits=(60,) * 7)


def affine_graph(nodes: list[Node], outputs: list[str], seed: int = 3, scale: float = 1.0) -> Graph:
    rng = np.random.default_rng(seed)
    found = {node.name: node for node in nodes}
    inputs = {n: node for n, node in found.items() if isinstance(node, Input)}
    calibration = {n: scale * rng.uniform(-1, 1, (5, int(np.prod(node.shape)))) for n, node in inputs.items()}
    return Graph(found, {n: Output(n, np.ones(1)) for n in outputs}, (0,), calibration)


def test_several_ciphertexts_a_tensor_and_sizes_that_are_no_power_of_two() -> None:
    rng = np.random.default_rng(0)
    nodes = [
        Input("x", (700,)),
        Affine("z", (600,), (LinearTerm("x", matrix(rng, 600, 700, 0.02)),), rng.normal(size=(1, 600))),
        Polynomial("p", (600,), "z", np.ones((3, 600)) * 0.3),
        Affine(
            "w", (5,), (LinearTerm("p", matrix(rng, 5, 600)), LinearTerm("x", matrix(rng, 5, 700))), np.ones((1, 5))
        ),
    ]
    session = check(affine_graph(nodes, ["w", "p"]), Request(params=replace(SMALL, ring_dimension=1024)), 60)
    assert session.program.interface.inputs["x"].layout.ciphertexts == 2
    assert session.program.interface.outputs["p"].layout.ciphertexts == 2


def test_a_vector_in_the_middle_of_a_picture_graph() -> None:
    rng = np.random.default_rng(1)
    nodes = [
        Input("x", (1, 4, 4)),
        Affine("pool", (3,), (LinearTerm("x", matrix(rng, 3, 16)),), rng.normal(size=(1, 3))),
        Polynomial("p", (3,), "pool", np.ones((3, 3)) * 0.3),
        Affine("y", (1, 4, 4), (LinearTerm("p", matrix(rng, 16, 3)), LinearTerm("x", identity(16))), np.zeros((1, 16))),
    ]
    check(affine_graph(nodes, ["y", "pool"]), Request(params=SMALL))


def test_an_exact_square_two_outputs_and_a_region_of_once_inputs_only() -> None:
    rng = np.random.default_rng(2)
    nodes = [
        Input("x", (8,)),
        Input("y", (4,), once=True),
        Affine("v", (8,), (LinearTerm("y", matrix(rng, 8, 4)),), rng.normal(size=(1, 8))),
        Polynomial("square", (8,), "x", np.stack([np.zeros(8), np.zeros(8), np.ones(8)])),
        Polynomial("q", (8,), "v", np.ones((4, 8)) * 0.2),
        Affine("z", (8,), (LinearTerm("square", identity(8)), LinearTerm("q", matrix(rng, 8, 8))), np.zeros((1, 8))),
    ]
    check(affine_graph(nodes, ["z", "square"]), Request(params=deeper()), 50)


def test_names_with_the_ending_that_lowering_uses() -> None:
    rng = np.random.default_rng(2)
    nodes = [
        Input("x", (4,)),
        Input("y", (4,), once=True),
        Affine("z.once", (4,), (LinearTerm("x", matrix(rng, 4, 4)),), np.ones((1, 4))),
        Polynomial("p", (4,), "z.once", np.ones((3, 4))),
        Affine("z", (4,), (LinearTerm("p", identity(4)), LinearTerm("y", matrix(rng, 4, 4))), np.zeros((1, 4))),
    ]
    check(affine_graph(nodes, ["z", "z.once"]), Request(params=SMALL))


@pytest.mark.parametrize("decibels", [30, 60, 90])
def test_precision_is_honoured_where_it_is_forecast(decibels) -> None:
    graph = denoiser()
    request = Request(precision_db=decibels, ring_dimension=2048, allow_insecure=True, images=20)
    program = lower(graph, SIMULATOR, request)
    assert program.interface.forecast_db >= decibels
    values = samples(20, seed=11)
    found = Session(program, SIMULATOR).trajectory(values)[-1]["latent"]
    measured = psnr(found, plain(graph, values)[-1]["latent"])
    assert measured >= decibels
    assert abs(measured - program.interface.forecast_db) < 15


def test_more_precision_costs_more_modulus() -> None:
    def bits(decibels: float) -> int:
        request = Request(precision_db=decibels, ring_dimension=2048, allow_insecure=True)
        return lower(denoiser(), SIMULATOR, request).params.params.log_qp

    assert bits(20) < bits(120)


def test_the_smallest_secure_ring_that_works_is_planned() -> None:
    program = lower(denoiser(activations=1), SIMULATOR, Request(precision_db=30))
    params = program.params.params
    assert params.security_bits >= 128
    assert params.ring_dimension == 8192
    assert program.interface.batch == 4096 // 64


def test_levels_and_scales_are_consistent() -> None:
    program = small_program()
    params = program.params
    for name, (level, scale_bits) in program.levels().items():
        assert 0 <= level <= params.max_level, name
        assert scale_bits < params.log_modulus(level), name
    for op in program.step:
        if isinstance(op, LinearOp):
            assert op.level >= op.rescales
            assert all(weight > 2**10 for weight in op.weight_scales)
    assert sum(isinstance(op, SquareOp) for op in program.step) == 2


def test_keys_are_exactly_the_rotations_used() -> None:
    program = small_program()
    used: dict[int, int] = {}
    for op in (*program.prelude, *program.step):
        if isinstance(op, LinearOp) and op.transform:
            for step in op.transform.rotations:
                used[step] = max(used.get(step, 0), op.level)
    assert dict(program.interface.keys.rotations) == used
    assert program.interface.keys.relinearisation
    assert not program.interface.keys.conjugation
    rng = np.random.default_rng(0)
    linear = affine_graph(
        [Input("x", (4,)), Affine("z", (4,), (LinearTerm("x", matrix(rng, 4, 4)),), np.zeros((1, 4)))], ["z"]
    )
    assert not lower(linear, SIMULATOR, Request(params=SMALL)).interface.keys.relinearisation


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (
            Request(precision_db=200, ring_dimension=8192),
            LoweringError,
            "no plan reaches 200 dB at ring dimension 8192.*best forecast is .* dB: ask for less precision_db",
        ),
        (Request(ring_dimension=4096), LoweringError, "5 operations in sequence do not fit.*4096"),
        (Request(ring_dimension=3000), ParameterError, "3000"),
        (
            Request(params=replace(SMALL, modulus_bits=(60, 50))),
            LoweringError,
            r"\[60, 50\] is too short for 5 operations",
        ),
    ],
)
def test_impossible_requests_say_what_to_change(request_, error, message) -> None:
    with pytest.raises(error, match=message):
        lower(denoiser(activations=1 if request_.ring_dimension == 8192 else 2), SIMULATOR, request_)


@pytest.mark.parametrize("decibels", [float("nan"), float("inf"), -1, 500])
def test_precisions_that_do_not_exist_are_refused_at_once(decibels) -> None:
    with pytest.raises(LoweringError, match=r"precision_db .* cannot be reached; ask for 0 to 200 dB"):
        Request(precision_db=decibels)


def test_insecure_parameters_are_refused_unless_allowed() -> None:
    with pytest.raises(ParameterError, match="allow_insecure"):
        replace(SMALL, allow_insecure=False)
    with pytest.raises((LoweringError, ParameterError), match="2048"):
        lower(denoiser(), SIMULATOR, Request(ring_dimension=2048))
    allowed = lower(denoiser(), SIMULATOR, Request(ring_dimension=2048, allow_insecure=True))
    assert allowed.params.params.insecure


def test_graphs_that_cannot_be_lowered_are_named() -> None:
    graph = denoiser()
    with pytest.raises(LoweringError, match="no calibration"):
        lower(replace(graph, calibration={}), SIMULATOR, Request(params=SMALL))
    with pytest.raises(LoweringError, match=r"calibration.*label"):
        lower(replace(graph, calibration={"latent": samples()["latent"]}), SIMULATOR, Request(params=SMALL))
    constant = affine_graph([Input("x", (4,)), Affine("zero", (4,), (), np.ones((1, 4)))], ["zero"])
    with pytest.raises(LoweringError, match=r"'zero'.*constant"):
        lower(constant, SIMULATOR, Request(params=SMALL))
    empty = LinearTerm("x", matrix(np.random.default_rng(0), 4, 4).scale_columns(np.zeros(4)))
    with pytest.raises(LoweringError, match="no nonzero weight"):
        lower(
            affine_graph([Input("x", (4,)), Affine("zero", (4,), (empty,), np.ones((1, 4)))], ["zero"]),
            SIMULATOR,
            Request(params=SMALL),
        )


def test_values_that_explode_are_refused_not_wrapped() -> None:
    nodes = [Input("x", (4,)), Affine("z", (4,), (LinearTerm("x", identity(4)),), np.zeros((1, 4)))]
    nodes.append(Polynomial("p", (4,), "z", np.ones((9, 4))))
    with pytest.raises(LoweringError, match="too short"):
        lower(affine_graph(nodes, ["p"], scale=1e9), SIMULATOR, Request(params=SMALL))
