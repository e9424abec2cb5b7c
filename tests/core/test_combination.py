"""Graphs that add multiples of their inputs: lowered without a planner, on every library, to the precision asked."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from core_graphs import combination, denoiser, identity

from hefw import plugins
from hefw.backends import choose
from hefw.core.backend import Backend
from hefw.core.combination import is_combination, shares
from hefw.core.errors import HefwError, LoweringError, ParameterError, ProtocolError
from hefw.core.graph import Affine, Graph, Input, LinearTerm, Output, Sum
from hefw.core.lower import Request, lower
from hefw.core.params import CkksParams
from hefw.core.program import Program
from hefw.core.runner import Runner
from hefw.core.sparse import SparseMatrix

ENTRIES = 3000
SHARES = {"x": [1.02, 0.98, 0.5], "eps": [-0.3, 0.2, 0.0], "eps-1": [0.0, -0.5, 0.1]}
UPDATE = combination(SHARES, ENTRIES)
backends = pytest.mark.parametrize("name", ["simulator", "tenseal", "pyfhel", "openfhe"])


@cache
def backend(name: str) -> Backend:
    entry = plugins.registry().entry("backend", name)
    return choose.make(entry, entry.options())


@cache
def lowered(name: str, precision: float = 60.0) -> Program:
    return lower(UPDATE, backend(name), Request(precision))


class Session:
    """A key holder and a runner. Values are (entries,), and as many ciphertexts are sent as they take."""

    def __init__(self, program: Program, where: Backend) -> None:
        self.interface = program.interface
        self.holder = where.keygen(program.params, program.interface.keys)
        self.evaluator = where.evaluator(program.params)
        self.runner = Runner(program, self.evaluator)

    def encrypt(self, name: str, values: np.ndarray, ciphertexts: int | None = None) -> list:
        port = self.interface.inputs[name]
        packed = np.resize(values, (ciphertexts or port.layout.ciphertexts, self.interface.params.slots))
        return [self.evaluator.load(self.holder.encrypt_bytes(row, port.level, port.scale)) for row in packed]

    def run(self, step: int, inputs: dict, shown: dict | None = None) -> np.ndarray:
        ((name, port),) = self.interface.outputs.items()
        found = self.runner.run(step, inputs, shown=shown)[name]
        assert all((ct.level, ct.scale) == (port.level, port.scale) for ct in found)
        return np.concatenate([self.holder.decrypt_bytes(self.evaluator.dump(ct)) for ct in found])


def expected(step: int, values: dict[str, np.ndarray]) -> np.ndarray:
    return sum(np.multiply(SHARES[name][step], value) for name, value in values.items())


# -- which graphs are such ---------------------------------------------------------------------------------------------


def changed(**nodes: object) -> Graph:
    found = {name: nodes.get(name, node) for name, node in UPDATE.nodes.items()} | nodes
    return Graph(found, dict(UPDATE.outputs), UPDATE.timesteps, UPDATE.calibration)


def test_a_schedulers_update_is_one() -> None:
    assert is_combination(UPDATE)
    assert {name: list(found) for name, found in shares(UPDATE).items()} == SHARES


def test_shares_of_one_input_add_up_and_matrices_count() -> None:
    """An input that is read twice, once without factors and by a multiple of the identity."""
    half = SparseMatrix.diagonal(np.full(ENTRIES, 0.5))
    terms = (*UPDATE.nodes["sum"].terms, LinearTerm("x", half), LinearTerm("x", half, np.array([1.0, 2.0, 4.0])))
    graph = changed(sum=replace(UPDATE.nodes["sum"], terms=terms))
    assert is_combination(graph)
    assert shares(graph)["x"] == pytest.approx([1.02 + 0.5 + 0.5, 0.98 + 0.5 + 1, 0.5 + 0.5 + 2])


@pytest.mark.parametrize(
    "graph",
    [
        changed(sum=replace(UPDATE.nodes["sum"], bias=np.eye(1, ENTRIES))),
        changed(sum=replace(UPDATE.nodes["sum"], terms=(LinearTerm("x", SparseMatrix.diagonal(np.arange(3000.0))),))),
        changed(x=Input("x", (ENTRIES,), once=True)),
        changed(more=Affine("more", (ENTRIES,), (LinearTerm("sum", identity(ENTRIES)),), np.zeros((1, ENTRIES)))),
        changed(sum=Sum("sum", (ENTRIES,), ("x", "eps"))),
        denoiser(),
    ],
    ids=["bias", "diagonal", "once", "two regions", "sum", "network"],
)
def test_others_are_none(graph) -> None:
    assert not is_combination(graph)


# -- precision ---------------------------------------------------------------------------------------------------------


def values(seed: int = 0) -> dict[str, np.ndarray]:
    """As large as the graph's calibration."""
    rng = np.random.default_rng(seed)
    return {name: 8 * rng.choice([-1.0, 1.0], ENTRIES) for name in SHARES}


def measured(program: Program, where: Backend) -> float:
    """The PSNR of the worst step, in dB."""
    session, given = Session(program, where), values()
    found = []
    for step in range(3):
        inputs = {name: session.encrypt(name, value) for name, value in given.items()}
        error = session.run(step, inputs).real[:ENTRIES] - expected(step, given)
        found.append(20 * np.log10(2 / np.sqrt(np.mean(error**2))))
    return min(found)


@backends
def test_the_precision_asked_for_is_reached_at_128_bits(name) -> None:
    program = lowered(name)
    interface = program.interface
    assert interface.params.params.security_bits >= 128
    assert interface.elementwise
    assert interface.keys.names() == []
    assert len(interface.params.primes) == 1, "one prime is enough, since nothing is rescaled"
    assert interface.forecast_db >= 60
    assert measured(program, backend(name)) >= 60


@backends
def test_the_forecast_is_kept_and_is_not_idle(name) -> None:
    """It bounds the rounding of constants, so that it may be off by some dB, but to one side only."""
    program = lowered(name)
    found = measured(program, backend(name))
    assert program.interface.forecast_db - 1 <= found <= program.interface.forecast_db + 14


def test_more_precision_takes_more_primes() -> None:
    programs = [lowered("simulator", precision) for precision in (60.0, 150.0)]
    counts = [len(program.interface.params.primes) for program in programs]
    assert counts[0] < counts[1]
    assert measured(programs[1], backend("simulator")) >= 150


def test_values_beyond_the_calibration_have_room() -> None:
    """Eight bits of it: a latent that grows is no wrong result."""
    session = Session(lowered("simulator"), backend("simulator"))
    given = {name: 16 * value for name, value in values().items()}
    inputs = {name: session.encrypt(name, value) for name, value in given.items()}
    assert np.abs(session.run(0, inputs).real[:ENTRIES] - expected(0, given)).max() < 1e-2


# -- parameters --------------------------------------------------------------------------------------------------------


@backends
def test_a_modulus_chain_that_is_given_is_used(name) -> None:
    params = CkksParams(8192, (50, 50), (60,), 30.0)
    program = lower(UPDATE, backend(name), Request(params=params))
    found = program.interface.params.params
    assert (found.ring_dimension, found.modulus_bits, found.special_bits) == (8192, (50, 50), (60,))
    assert measured(program, backend(name)) >= program.interface.forecast_db - 1


@backends
def test_a_ring_dimension_that_is_given_is_used(name) -> None:
    program = lower(UPDATE, backend(name), Request(60.0, ring_dimension=16384))
    assert program.interface.params.params.ring_dimension == 16384
    assert program.interface.params.params.security_bits >= 128


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (
            Request(200.0, params=CkksParams(4096, (50,), (54,), 30.0)),
            LoweringError,
            r"reaches \d+ dB with the modulus chain that was given, not 200 dB.*: ask for less precision_db$",
        ),
        (
            Request(60.0, params=CkksParams(4096, (20,), (54,), 15.0)),
            LoweringError,
            r"reaches 0 dB with the modulus chain",
        ),
        (
            Request(200.0, ring_dimension=4096),
            LoweringError,
            r"at ring dimension 4096 with any modulus, not 200 dB.*, or fix no ring dimension$",
        ),
        (Request(60.0, ring_dimension=1024), LoweringError, r"reaches 0 dB at ring dimension 1024"),
        (Request(60.0, ring_dimension=2**20), ParameterError, r"has no ring dimension 1048576; allowed: "),
    ],
)
def test_no_parameters_is_one_clear_error(request_, error, words) -> None:
    with pytest.raises(error, match=words) as caught:
        lower(UPDATE, backend("tenseal"), request_)
    assert "\n" not in str(caught.value)


def test_a_library_that_refuses_the_given_parameters_says_why() -> None:
    params = CkksParams(4096, (50,), (40,), 30.0)
    with pytest.raises(ParameterError) as refused:
        backend("tenseal").resolve(params)
    with pytest.raises(ParameterError) as caught:
        lower(UPDATE, backend("tenseal"), Request(20.0, params=params))
    assert str(caught.value) == str(refused.value)


# -- elementwise: any ciphertexts from the first on --------------------------------------------------------------------


MANY = combination(SHARES, 10_000)


@backends
def test_fewer_ciphertexts_are_a_program_by_themselves(name) -> None:
    """Of a tensor in several ciphertexts; what is shown is added to the slots that are there."""
    where = backend(name)
    program = lower(MANY, where, Request(60.0))
    session = Session(program, where)
    most = program.interface.inputs["x"].layout.ciphertexts
    assert most > 1
    rng = np.random.default_rng(1)
    shown = np.zeros((1, 10_000))
    shown[0, ::7] = rng.uniform(-2, 2, shown[0, ::7].shape)
    slots = program.params.slots
    for count in (1, most):
        given = {name: rng.uniform(-8, 8, count * slots) for name in SHARES}
        inputs = {name: session.encrypt(name, value, count) for name, value in given.items()}
        wanted = expected(1, given)
        assert np.abs(session.run(1, inputs).real - wanted).max() < 1e-2
        wanted[: shown.size] += shown[0, : wanted.size]
        assert np.abs(session.run(1, inputs, {"result": shown}).real - wanted).max() < 1e-2


@backends
def test_two_numbers_lie_in_a_slot(name) -> None:
    """Real factors treat real and imaginary parts alike; plaintext may be complex, too."""
    where, rng = backend(name), np.random.default_rng(2)
    session = Session(lowered(name), where)
    parts = {name: rng.uniform(-8, 8, (2, ENTRIES)) for name in SHARES}
    given = {name: real + 1j * imaginary for name, (real, imaginary) in parts.items()}
    shown = rng.uniform(-2, 2, (1, ENTRIES)) + 1j * rng.uniform(-2, 2, (1, ENTRIES))
    inputs = {name: session.encrypt(name, value) for name, value in given.items()}
    found = session.run(1, inputs, {"result": shown})[:ENTRIES]
    assert np.abs(found - expected(1, given) - shown[0]).max() < 1e-2


def test_what_has_no_share_in_a_step_may_be_left_out() -> None:
    session, given = Session(lowered("tenseal"), backend("tenseal")), values()
    inputs = {name: session.encrypt(name, given[name]) for name in ("x", "eps")}
    wanted = expected(0, {name: given[name] for name in inputs})
    assert np.abs(session.run(0, inputs).real[:ENTRIES] - wanted).max() < 1e-2
    with pytest.raises(HefwError, match="region 'sum' is zero at step 0"):
        session.run(0, {"eps-1": session.encrypt("eps-1", given["eps-1"])})


@backends
def test_a_share_that_rounds_to_nothing_is_left_out(name) -> None:
    """A library refuses a product with zero: multistep schedulers have factors of 1e-6 beside those of 1."""
    where = backend(name)
    program = lower(combination({"x": [0.9, 1e-9], "eps": [1e-9, 0.5]}, ENTRIES), where, Request(60.0))
    session, given = Session(program, where), values()
    for step, (source, factor) in enumerate([("x", 0.9), ("eps", 0.5)]):
        counts = session.evaluator.counts.copy()
        inputs = {name: session.encrypt(name, given[name]) for name in ("x", "eps")}
        found = session.run(step, inputs).real[:ENTRIES]
        assert np.abs(found - factor * given[source]).max() < 1e-3
        assert session.evaluator.counts - counts == program.counts(step)
        assert program.counts(step)["mul_plain"] == program.interface.inputs["x"].layout.ciphertexts


def test_wrong_inputs_are_refused() -> None:
    where = backend("simulator")
    program = lower(MANY, where, Request(60.0))
    session = Session(program, where)
    most = program.interface.inputs["x"].layout.ciphertexts
    x, eps = (session.encrypt(name, np.ones(8), most) for name in ("x", "eps"))
    for inputs, words in [
        ({}, "one number of ciphertexts, at least one"),
        ({"x": x, "eps": eps[:1]}, "one number of ciphertexts"),
        ({"x": x * 2}, f"'x' has {2 * most} ciphertexts; 1 to {most} are expected"),
        ({"x": []}, f"'x' has 0 ciphertexts; 1 to {most} are expected"),
    ]:
        with pytest.raises(ProtocolError, match=words):
            session.run(0, inputs)
    with pytest.raises(ProtocolError, match="plaintext for more, which this program does not have"):
        session.run(0, {"x": x}, {"more": np.zeros((1, 10_000))})


def test_the_graph_outlives_a_file(tmp_path) -> None:
    graph = Graph(
        {**UPDATE.nodes, "eps-1": Input("eps-1", (ENTRIES,), previous="eps")},
        {"result": Output("sum", np.ones(3))},
        UPDATE.timesteps,
        UPDATE.calibration,
    )
    graph.save(tmp_path / "update.hefw")
    loaded = Graph.load(tmp_path / "update.hefw")
    assert loaded.digest == graph.digest != UPDATE.digest
    program = lower(loaded, backend("simulator"), Request(60.0))
    assert {name: port.previous for name, port in program.interface.inputs.items()} == {
        "x": None,
        "eps": None,
        "eps-1": "eps",
    }
