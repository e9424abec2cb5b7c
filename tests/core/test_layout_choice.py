"""Layouts are chosen by counted cost for as many images as are wanted, and all of them give the same pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from core_graphs import denoiser, samples
from runs import BACKENDS, Session, plain, psnr

from hefw.core import layouts
from hefw.core.errors import LoweringError
from hefw.core.graph import Affine, Graph, Input, LinearTerm, Node, Output, Polynomial
from hefw.core.layouts import MESSAGE_BYTES, build_regions, choose
from hefw.core.linear import Term, Transform
from hefw.core.lower import Request, lower
from hefw.core.normalise import centre_squares, normalise
from hefw.core.plan import Costs
from hefw.core.program import LinearOp, Program
from hefw.core.sparse import SparseMatrix
from hefw.protocol import wire

SIMULATOR = BACKENDS["simulator"]
SLOTS = 1024
DECIBELS = 60.0
KEYS_DIFFER = 5.0  # dB: part of the noise is one key's own
FLAT = centre_squares(normalise(denoiser()))


def program_for(images: int, graph: Graph | None = None) -> Program:
    request = Request(precision_db=DECIBELS, ring_dimension=2 * SLOTS, allow_insecure=True, images=images, pairs=False)
    return lower(graph or denoiser(), SIMULATOR, request)


@pytest.mark.parametrize("images", [1, 20, 100, SLOTS])
def test_all_layouts_draw_the_same(images) -> None:
    program, graph = program_for(images), denoiser()
    few = samples(min(images, program.interface.images, 30), seed=5)
    session = Session(program, SIMULATOR)
    before = session.evaluator.counts.copy()
    found, expected = session.trajectory(few)[-1]["latent"], plain(graph, few)[-1]["latent"]
    assert psnr(found, expected) > DECIBELS - KEYS_DIFFER
    assert (
        session.evaluator.counts["rotate"] - before["rotate"]
        == sum(program.counts(step)["rotate"] for step in range(program.interface.steps))
        + program.prelude_counts()["rotate"]
    )


def test_the_more_images_the_wider_the_layout() -> None:
    batches = [choose(FLAT, SLOTS, Costs(), images).batch for images in (1, 40, 200, SLOTS)]
    assert batches == sorted(batches)
    assert batches[0] < batches[-1] == SLOTS


@pytest.mark.parametrize("images", [1, 3, 48, 300, 900, SLOTS, 5000])
def test_no_other_layout_is_counted_cheaper(images) -> None:
    chosen = choose(FLAT, SLOTS, Costs(), images)
    others = [
        layouts._count(FLAT, layouts._laid_out(FLAT, grid, batch, SLOTS), Costs(), frozenset(), SLOTS, False)
        for grid, batch in layouts._options(FLAT, SLOTS, SLOTS)
    ]
    assert chosen.cost_of(images, 1, FLAT.steps) <= min(other.cost_of(images, 1, FLAT.steps) for other in others)


def test_what_is_counted_is_what_is_built() -> None:
    for images in (1, 100, SLOTS):
        counted = choose(FLAT, SLOTS, Costs(), images)
        for name, built in build_regions(counted).items():
            for method, found in (
                (counted.regions[name].method, built.stages),
                (counted.regions[name].once_method, built.once_stages),
            ):
                assert (method is None) == (found is None)
                if method is not None and found is not None:
                    stages = [t for t in (found.masks, found.transform) if t is not None]
                    rotations = [step for stage in stages for step in stage.rotations]
                    assert method.rotations == len(rotations)
                    assert set(rotations) <= method.steps
                    varied = [not stage.constant[t.weight] for stage in stages for t in _terms(stage)]
                    assert method.vectors == sum(varied)
                    assert method.constants + method.vectors == len(varied)


def _terms(transform: Transform) -> list[Term]:
    return [term for groups in transform.outputs for group in groups for term in group.terms]


def test_a_feature_a_ciphertext_takes_no_rotations_and_keeps_no_weights() -> None:
    program = program_for(SLOTS)
    assert program.interface.batch == SLOTS
    assert not program.interface.keys.rotations
    assert program.interface.keys.names() == ["relinearisation"]
    entries = sum(term.matrix.count for n in FLAT.nodes.values() if isinstance(n, Affine) for term in n.terms)
    linear = [op for op in (*program.prelude, *program.step) if isinstance(op, LinearOp) and op.transform]
    assert sum(op.transform.weights.size for op in linear if op.transform) < entries
    assert all(program.op_weight_count(op) == 0 for op in linear)
    assert program.counts()["encode"] > program.counts()["mul_plain"]  # biases, too


def test_a_weight_that_rounds_to_nothing_still_hides() -> None:
    """Libraries refuse a product with zero."""
    graph = denoiser()
    region = graph.nodes["z0"]
    assert isinstance(region, Affine)
    matrix = region.terms[0].matrix
    values = matrix.values.copy()
    values[::3] = 1e-30
    small = SparseMatrix.from_entries(matrix.shape, matrix.row, matrix.column, values)
    terms = (LinearTerm("latent", small), *region.terms[1:])
    nodes = {**graph.nodes, "z0": Affine("z0", region.shape, terms, region.bias)}
    changed = Graph(nodes, graph.outputs, graph.timesteps, graph.calibration)
    session = Session(program_for(SLOTS, changed), SIMULATOR)
    few = samples(9, seed=3)
    found = session.trajectory(few)[-1]["latent"]
    assert psnr(found, plain(changed, few)[-1]["latent"]) > DECIBELS - 10


def test_ciphertexts_of_a_request_are_bounded_by_memory(monkeypatch) -> None:
    wide = choose(FLAT, SLOTS, Costs(), SLOTS).batch
    monkeypatch.setattr(layouts, "ciphertexts_budget", lambda: 0)
    least = choose(FLAT, SLOTS, Costs(), SLOTS)
    assert least.batch < wide
    assert {layout.ciphertexts for layout in least.layouts.values()} == {1}


def test_ciphertexts_of_a_message_are_bounded_by_the_wire(monkeypatch) -> None:
    assert {wire.KINDS[kind] for kind in ("begin", "step", "result")} == {MESSAGE_BYTES}
    monkeypatch.setattr(layouts, "MESSAGE_BYTES", 4 * 2 * 5 * 2 * SLOTS * 8)
    assert choose(FLAT, SLOTS, Costs(), SLOTS).layouts["latent"].ciphertexts <= 4


def test_weights_that_find_no_room_count_their_encoding(monkeypatch) -> None:
    roomy = choose(FLAT, SLOTS, Costs(), 1)
    monkeypatch.setattr(layouts, "weights_budget", lambda: 0)
    tight = choose(FLAT, SLOTS, Costs(), 1)
    assert not any(roomy.encoded.values())
    assert sum(tight.encoded.values()) > 0
    assert tight.step > roomy.step


def convolution(rng: np.random.Generator, outputs: int, inputs: int, size: int) -> SparseMatrix:
    """3 x 3, zero padding, on a picture of size x size."""
    y, x = np.divmod(np.arange(size * size), size)
    rows, columns, values = [], [], []
    weights = rng.normal(size=(outputs, inputs, 3, 3)) / np.sqrt(9 * inputs)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            inside = (y + dy >= 0) & (y + dy < size) & (x + dx >= 0) & (x + dx < size)
            place = np.flatnonzero(inside)
            for o in range(outputs):
                for i in range(inputs):
                    rows.append(o * size**2 + place)
                    columns.append(i * size**2 + place + dy * size + dx)
                    values.append(np.full(len(place), weights[o, i, dy + 1, dx + 1]))
    shape = (outputs * size**2, inputs * size**2)
    return SparseMatrix.from_entries(shape, np.concatenate(rows), np.concatenate(columns), np.concatenate(values))


def pictures(channels: int, size: int) -> Graph:
    """A picture through a convolution to more channels, squares, and a convolution back."""
    rng = np.random.default_rng(0)
    wide, narrow = (channels, size, size), (1, size, size)
    entries = channels * size**2
    nodes: dict[str, Node] = {
        "x": Input("x", narrow),
        "z": Affine("z", wide, (LinearTerm("x", convolution(rng, channels, 1, size)),), np.full((1, entries), 0.1)),
        "a": Polynomial("a", wide, "z", np.stack([np.zeros(entries), np.ones(entries), np.full(entries, 0.2)])),
        "y": Affine("y", narrow, (LinearTerm("a", convolution(rng, 1, channels, size)),), np.zeros((1, size**2))),
    }
    return Graph(nodes, {"y": Output("y", np.ones(1))}, (0,), {"x": rng.uniform(-1, 1, (1, size**2))})


def test_feature_maps_larger_than_a_ciphertext_are_split() -> None:
    graph = pictures(16, 32)
    program = lower(graph, SIMULATOR, Request(precision_db=40, ring_dimension=8192))
    assert program.params.params.security_bits >= 128
    sizes = {op.name: op.layout.ciphertexts for op in program.step}
    assert sizes["z"] == 16 * 32 * 32 * program.interface.batch / 4096 > 1
    found = Session(program, SIMULATOR).trajectory(graph.calibration)[-1]["y"]
    assert psnr(found, plain(graph, graph.calibration)[-1]["y"]) > 40


@pytest.mark.parametrize("size", [3, 6])
def test_grids_that_are_no_powers_of_two_widen_to_a_feature_a_ciphertext(size) -> None:
    flat = normalise(pictures(2, size))
    batches = [batch for _, batch in layouts._options(flat, SLOTS, SLOTS)]
    assert all(SLOTS % batch == 0 for batch in batches)
    assert max(batches) == SLOTS
    assert choose(flat, SLOTS, Costs(), SLOTS).batch == SLOTS


@pytest.mark.parametrize("images", [1, 5000])
def test_a_shallow_graph_takes_the_ring_that_costs_least_for_as_many(images) -> None:
    graph = denoiser(activations=1)
    chosen = lower(graph, SIMULATOR, Request(precision_db=30, images=images, pairs=False))
    assert chosen.params.params.security_bits >= 128
    assert chosen.params.params.ring_dimension == 8192
    assert -(-images // chosen.interface.images) <= 3
    larger = Request(precision_db=30, images=images, pairs=False, ring_dimension=16384)
    assert _operations(chosen, images) < 2 * _operations(lower(graph, SIMULATOR, larger), images)


def _operations(program: Program, images: int) -> int:
    """Of all requests, in a step."""
    counts = program.counts()
    return (counts["rotate"] + counts["mul_plain"] + counts["mul"]) * -(-images // program.interface.images)


def test_places_that_do_not_go_are_refused_with_those_that_do() -> None:
    graph, insecure = denoiser(), Request(ring_dimension=2 * SLOTS, allow_insecure=True, precision_db=DECIBELS)
    assert lower(graph, SIMULATOR, replace(insecure, places=256)).interface.batch == 256
    with pytest.raises(LoweringError, match=r"1024 slots cannot have 7 places .* choose one of .*64, 128, .*1024$"):
        lower(graph, SIMULATOR, replace(insecure, places=7))
