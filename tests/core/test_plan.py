"""Plans: every value fits its modulus with room to spare, and cost, depth and precision pull as they should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from core_graphs import denoiser
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import BACKENDS, SMALL, Session, plain, psnr

from hefw.core.backend import Capabilities
from hefw.core.graph import Affine
from hefw.core.lower import Request, _Lowering, lower
from hefw.core.normalise import centre_squares, normalise
from hefw.core.plan import FRESH, HEADROOM_BITS, SMALLEST_GAIN_DB, Costs, Plan, Planner
from hefw.core.program import LinearOp, Program

SIMULATOR = BACKENDS["simulator"]


def check(program: Program, activations: int, seed: int = 0) -> None:
    """Headroom at every operation, before and after its rescales."""
    flat = normalise(denoiser(seed=seed, activations=activations))
    history = flat.trajectory(flat.calibration)
    primes = program.params.primes
    for op in program.step:
        peak = np.log2(max(np.abs(values[op.name]).max() for values in history))
        assert 0 <= op.rescales <= op.level <= program.params.max_level
        before = np.log2(op.scale)
        after = before - sum(np.log2(primes[op.level - k]) for k in range(op.rescales))
        slack = 0.5  # planned in whole bits, run on primes slightly smaller
        assert before + peak + HEADROOM_BITS <= program.params.log_modulus(op.level) + slack, op.name
        assert after + peak + HEADROOM_BITS <= program.params.log_modulus(op.level - op.rescales) + slack, op.name
    for op in (*program.prelude, *program.step):
        if isinstance(op, LinearOp):
            assert min([*op.weight_scales, *(s.scale for s in op.scalars)]) > 2**8, op.name


@pytest.mark.parametrize("activations", [1, 2, 3])
@pytest.mark.parametrize("decibels", [30, 60])
def test_every_value_fits_its_modulus(activations, decibels) -> None:
    request = Request(precision_db=decibels, ring_dimension=2048, allow_insecure=True)
    check(lower(denoiser(activations=activations), SIMULATOR, request), activations)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(40, 60), min_size=6, max_size=8))
def test_any_chain_that_is_long_enough_leaves_headroom(seed, bits) -> None:
    params = replace(SMALL, modulus_bits=tuple(bits))
    check(lower(denoiser(seed=seed), SIMULATOR, Request(params=params)), 2, seed)


@pytest.mark.parametrize(
    ("seed", "activations", "bits"),
    [
        (0, 1, (60, 50, 40)),
        (1, 2, (41, 57, 41, 55, 37, 44, 40)),
        (2, 2, (46, 37, 54, 32, 42)),
        (3, 2, (59, 39, 54, 35, 41, 50)),
        (4, 3, (49, 56, 60, 37, 47, 34, 33, 50)),
        (5, 3, (35, 51, 42, 58, 31, 51, 52)),
    ],
)
def test_the_forecast_is_near_what_is_measured_on_any_chain(seed, activations, bits) -> None:
    graph = denoiser(seed=seed, activations=activations)
    program = lower(graph, SIMULATOR, Request(params=replace(SMALL, modulus_bits=bits), precision_db=40))
    found = Session(program, BACKENDS["simulator"]).trajectory(graph.calibration)[-1]["latent"]
    measured = psnr(found, plain(graph, graph.calibration)[-1]["latent"])
    assert -12 < measured - program.interface.forecast_db < 20


def test_a_tuned_plan_is_where_no_scale_alone_makes_it_more_precise() -> None:
    flat = centre_squares(normalise(denoiser(activations=3)))
    planner = Planner(flat, Costs(), replace(SIMULATOR.capabilities, centred_digits=True))
    found = list(planner._plans(2048, (60,) * 5, (60,), True))
    coarse = max(found, key=lambda plan: plan.forecast_db)
    tuned = planner._tune(coarse)
    assert tuned.forecast_db > coarse.forecast_db
    assert [(c.level, c.rescales) for c in tuned.choices.values()] == [
        (c.level, c.rescales) for c in coarse.choices.values()
    ]
    scales = {node.name: tuned.choices[node.name].scale_bits for node in planner.order if isinstance(node, Affine)}
    scales[FRESH] = tuned.params.scale_bits
    for name in scales:
        for by in (1, -1):
            moved = planner._with_scales(tuned, scales | {name: scales[name] + by})
            assert moved is None or moved.forecast_db < tuned.forecast_db + SMALLEST_GAIN_DB
    assert planner._tune(tuned).forecast_db < tuned.forecast_db + SMALLEST_GAIN_DB


def test_fixed_parameters_are_kept_but_for_the_scale() -> None:
    params = lower(denoiser(), SIMULATOR, Request(params=SMALL)).params.params
    assert replace(params, scale_bits=SMALL.scale_bits) == SMALL


def test_planning_is_deterministic() -> None:
    request = Request(precision_db=50, ring_dimension=2048, allow_insecure=True)
    first, second = (lower(denoiser(), SIMULATOR, request) for _ in range(2))
    assert first.params == second.params
    assert first.levels() == second.levels()
    assert first.interface.pack() == second.interface.pack()


def test_deeper_graphs_need_more_primes() -> None:
    def primes(activations: int) -> int:
        request = Request(precision_db=40, ring_dimension=2048, allow_insecure=True)
        return len(lower(denoiser(activations=activations), SIMULATOR, request).params.primes)

    assert primes(1) < primes(2) < primes(3)


def test_fits_knows_the_rings_that_are_too_small() -> None:
    planner = Planner(normalise(denoiser()), Costs(), SIMULATOR.capabilities)
    assert not planner.fits(4096)
    assert planner.fits(16384)
    assert planner.fits(4096, allow_insecure=True)


def test_costs_grow_with_the_number_of_primes() -> None:
    costs = Costs()
    for cost in (costs.key_switch, costs.mul_plain, costs.rescale):
        assert 0 < cost(1) < cost(4) < cost(8)
    assert costs.key_switch(8) > 2 * costs.key_switch(4)


FAST = replace(SIMULATOR.capabilities, fast_prime_bits=50, special_primes=3)


def planned(capabilities: Capabilities, precision_db: float = 50) -> Plan:
    graph = denoiser(activations=2)
    flat = centre_squares(normalise(graph))
    lowering = _Lowering(graph, flat, SIMULATOR, Request(), Costs())
    lowering.layouts(8192)
    planner = Planner(flat, Costs(), capabilities)
    planner.work, planner.layouts = lowering.planner.work, lowering.planner.layouts
    return planner.search(16384, precision_db)


def test_small_primes_are_chosen_where_they_cost_less() -> None:
    usual = planned(SIMULATOR.capabilities)
    same = planned(FAST)
    cheap = replace(FAST, fast_costs=(("key_switch_square", 0.05), ("key_switch_linear", 0.1), ("square_linear", 0.1)))
    fast = planned(cheap)
    assert max(usual.params.modulus_bits) > 50
    assert same.cost <= usual.cost
    assert max(fast.params.modulus_bits + fast.params.special_bits) <= 50
    assert fast.cost < 0.7 * usual.cost
    assert min(usual.forecast_db, fast.forecast_db) >= 50
    assert fast.params.security_bits >= 128


def test_large_primes_are_chosen_where_as_much_modulus_of_small_ones_costs_more() -> None:
    found = planned(replace(FAST, fast_prime_bits=40, fast_costs=(("key_switch_square", 0.25),)))
    assert found.forecast_db >= 50
    assert max(found.params.modulus_bits) > 40


def test_room_is_made_for_more_special_primes_where_digits_are_exact() -> None:
    exact = replace(SIMULATOR.capabilities, special_primes=3, centred_digits=True)
    found = planned(exact)
    assert len(found.params.special_bits) > 1
    assert found.cost < planned(replace(exact, special_primes=1)).cost
    assert found.params.security_bits >= 128
