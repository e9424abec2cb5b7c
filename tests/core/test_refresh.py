"""Levels given back by nobody, or by the server: what is planned, what is asked of the key holder, what is kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from core_graphs import denoiser, samples
from runs import BACKENDS, SMALL, Session, plain, psnr

from hefw.core.backend import Bootstrapping, Capabilities
from hefw.core.errors import CapabilityError, LoweringError, ParameterError
from hefw.core.lower import Request, lower
from hefw.core.params import RING_DIMENSIONS, CkksParams
from hefw.core.program import Interface, LinearOp, Program
from hefw.core.runner import Weights

SIMULATOR = BACKENDS["simulator"]
LONG = CkksParams(2048, (50, *([40] * 20)), (60,), 30.0, allow_insecure=True)
STEPS = 4


@cache
def unrolled(every: int, backend: str = "simulator") -> Program:
    return lower(denoiser(STEPS), BACKENDS[backend], Request(precision_db=50, params=LONG, every=every))


@pytest.mark.parametrize("backend", ["simulator", "tenseal"])
@pytest.mark.parametrize("every", [2, 4])
def test_fewer_messages_give_the_same_result(every, backend) -> None:
    program, values = unrolled(every, backend), samples(4, seed=2)
    assert program.interface.messages == program.interface.steps == STEPS // every
    expected = plain(denoiser(STEPS), values)[every - 1 :: every]
    for found, wanted in zip(Session(program, BACKENDS[backend]).trajectory(values), expected, strict=True):
        assert psnr(found["latent"], wanted["latent"]) > 50


def test_the_manifest_says_how_many_messages_there_are() -> None:
    for every in (1, 2, 4):
        interface = unrolled(every).interface
        told = Interface.unpack(interface.pack())
        assert told.messages == interface.messages == STEPS // every
        assert [told.last_step(k) for k in range(told.messages)] == list(range(told.messages))


def test_the_digest_is_that_of_the_model_whatever_is_unrolled() -> None:
    assert {unrolled(every).interface.graph_digest for every in (1, 2, 4)} == {denoiser(STEPS).digest}


def test_inner_results_have_the_scale_of_fresh_ciphertexts_within_tuning() -> None:
    program = unrolled(4)
    levels = program.levels()
    for k in (1, 2, 3):
        assert abs(levels[f"update@{k}"][1] - levels["latent"][1]) < 8


def test_steps_that_do_not_fit_name_what_to_do() -> None:
    with pytest.raises(LoweringError, match=r"4 steps a message, .*ring dimension 8192.*fewer steps a message"):
        lower(denoiser(STEPS, activations=3), SIMULATOR, Request(ring_dimension=8192, every=4))


def test_a_long_program_takes_the_larger_ring_where_that_is_cheaper() -> None:
    """With many special primes a longer chain has fewer digits; with one, only a smaller ring is cheaper."""
    few = replace(SIMULATOR.capabilities, ring_dimensions=(16384, 32768, 65536))
    many = replace(few, special_primes=8)
    chosen = {}
    for able in (few, many):
        backend = type(SIMULATOR)()
        backend.capabilities = able
        params = lower(denoiser(8, activations=2), backend, Request(precision_db=30, every=8)).params.params
        chosen[able.special_primes] = params
    assert len(chosen[1].special_bits) == 1
    assert chosen[1].ring_dimension <= chosen[8].ring_dimension


# -- weights -----------------------------------------------------------------------------------------------------------


def kept_and_encoded(program: Program, budget: float, backend: str) -> tuple[int, Counter[str], float]:
    """Bytes kept, operations counted in one message, and the PSNR against the twin."""
    session = Session(program, BACKENDS[backend], Weights(program, budget))
    session.engine.weights.encode_all(session.evaluator)
    kept = session.engine.weights.kept_bytes
    values = samples(3, seed=4)
    session.begin(values)
    session.evaluator.counts.clear()
    found = session.step(0, values)
    expected = plain(denoiser(STEPS), values)[-1]["latent"]
    factor = program.interface.outputs["latent"].factors[0]
    return kept, session.evaluator.counts, psnr(found["latent"] * factor, expected)


@pytest.mark.parametrize("backend", ["simulator", "tenseal"])
def test_weights_are_kept_as_far_as_memory_goes(backend) -> None:
    program = unrolled(4, backend)
    whole = program.weight_bytes
    results = {share: kept_and_encoded(program, share * whole, backend) for share in (1, 0.5, 0)}
    assert results[1][0] == whole
    assert 0 < results[0.5][0] <= 0.5 * whole
    assert results[0][0] == 0
    assert results[1][1]["encode"] < results[0.5][1]["encode"] < results[0][1]["encode"]
    assert all(decibels > 50 for _, _, decibels in results.values())


def test_weights_of_one_matrix_are_made_from_those_of_a_higher_level() -> None:
    """With less memory than all take: what does not fit is taken from what does, and only the rest is encoded."""
    program = unrolled(4)

    def encodings(able: Capabilities) -> int:
        backend = type(SIMULATOR)()
        backend.capabilities = able
        session = Session(program, backend, Weights(program, 0.8 * program.weight_bytes))
        session.engine.weights.encode_all(session.evaluator)
        session.begin(samples(3))
        session.evaluator.counts.clear()
        session.step(0, samples(3))
        return session.evaluator.counts["encode"]

    able = SIMULATOR.capabilities
    assert encodings(able) < encodings(replace(able, plaintext_levels=False))


def test_weights_of_a_higher_level_are_taken_down_when_they_are_read() -> None:
    """All at once would take as much memory as if they were kept."""
    program, taken = unrolled(4), []

    class Watched(type(SIMULATOR.evaluator(program.params))):
        def drop_plain_level(self, a, level):
            taken.append(level)
            return super().drop_plain_level(a, level)

    evaluator = Watched(program.params, SIMULATOR.capabilities)
    weights = Weights(program, 0.8 * program.weight_bytes)
    weights.encode_all(evaluator)
    ops = [op for op in program.step if isinstance(op, LinearOp) and op.transform and not weights.keeps(op)]
    found = [weights.get(evaluator, op) for op in ops]
    assert not taken
    levels = [[weight.level for weight in vectors] for vectors in found]
    assert levels == [[op.level] * len(op.transform.weight_sources) for op in ops]
    assert 0 < len(taken) <= sum(map(len, levels))


# -- bootstrapping -------------------------------------------------------------------------------------------------


def test_a_backend_that_cannot_bootstrap_refuses_by_name() -> None:
    for name, backend in BACKENDS.items():
        with pytest.raises(CapabilityError, match=f"{name}.*no bootstrap"):
            lower(denoiser(), backend, Request(bootstrap=True))


class Bootstrappable(type(SIMULATOR)):  # type: ignore[misc]
    """The simulator with bootstrapping's parameters, for planning: nothing is run on it."""

    capabilities = Capabilities(
        RING_DIMENSIONS, largest_prime_bits=59, special_primes=8, packed_slots=True, bootstrap=True, simulated=True
    )
    depth = 4

    def bootstrap_params(self, slots: int, levels: int, *, allow_insecure: bool = False) -> CkksParams:
        chain = (60, *([59] * (levels + self.depth)))
        return CkksParams(65536, chain, (60, 60), 57.0, allow_insecure, packed_slots=slots, bootstrap=(2, 2))

    def bootstrapping(self, params) -> Bootstrapping:
        level = params.max_level - self.depth
        return Bootstrapping(1, level, 2.0**57, 4.0, 1e-5, (1, 2, params.slots))


def test_a_bootstrapped_program_begins_and_ends_where_bootstrapping_does() -> None:
    backend, graph = Bootstrappable(), denoiser(STEPS)
    program = lower(graph, backend, Request(precision_db=40, bootstrap=True, images=5))
    interface, params = program.interface, program.params
    assert interface.messages == 1
    assert interface.last_step(0) == STEPS - 1
    assert params.slots == params.params.packed_slots
    assert interface.batch >= 5
    promised = backend.bootstrapping(params)
    (refresh,) = program.refreshes
    latent, output = interface.inputs["latent"], interface.outputs["latent"]
    assert latent.level == promised.level_out
    assert latent.scale == promised.scale / refresh.magnitude
    assert output.level >= promised.level_in == refresh.level
    assert output.scale < promised.scale / 2**10
    keys = interface.keys
    assert keys.bootstrap
    assert keys.conjugation
    assert set(promised.rotations) <= set(keys.rotations)
    told = Interface.unpack(interface.pack())
    assert (told.messages, told.keys.names()) == (1, keys.names())
    # Whatever is fed back is below bootstrapping's bound, with room.
    values = graph.trajectory(graph.calibration)
    largest = max(np.abs(v["update"] * refresh.factors[k]).max() for k, v in enumerate(values))
    assert largest * 2 <= promised.magnitude * refresh.magnitude


def test_bootstrapped_programs_are_planned_by_what_then_holds(monkeypatch) -> None:
    """A library that joins rotations only where it switches keys itself: by its own calls they are not chained."""
    own = replace(Bootstrappable.capabilities, joined_rotations=True)
    for able, chained in ((Bootstrappable.capabilities, True), (replace(own, own_calls=None), False)):
        loops = replace(own, joined_rotations=False, largest_special_bits=59, own_calls=able)
        monkeypatch.setattr(Bootstrappable, "capabilities", loops)
        program = lower(denoiser(STEPS), Bootstrappable(), Request(precision_db=40, bootstrap=True, images=5))
        transforms = [stage.transform for op in program.step if isinstance(op, LinearOp) for stage in op.stages]
        assert transforms
        assert {made.chained for made in transforms} == {chained}
    assert loops.under(None) is loops
    asked = CkksParams(8192, (40, 40), (59, 60), 30.0)
    assert loops.under(asked) is loops
    assert loops.under(replace(asked, special_bits=(60, 60))) is loops.own_calls
    assert own.under(replace(asked, special_bits=(60, 60)), bootstrap=True) is own


def test_more_images_than_a_ciphertext_holds_are_sent_in_several_requests() -> None:
    program = lower(denoiser(STEPS), Bootstrappable(), Request(precision_db=40, bootstrap=True, images=5000))
    assert program.params.slots == 32768
    assert program.interface.batch < 5000


def test_parameters_of_bootstrapping_are_its_own() -> None:
    for wrong in ({"ring_dimension": 65536}, {"params": SMALL}):
        with pytest.raises(ParameterError, match="cannot be chosen where the server bootstraps"):
            lower(denoiser(), Bootstrappable(), replace(Request(bootstrap=True), **wrong))


def test_more_precision_than_bootstrapping_has_is_refused() -> None:
    with pytest.raises(LoweringError, match="between bootstraps reaches 150 dB"):
        lower(denoiser(), Bootstrappable(), Request(precision_db=150, bootstrap=True))
