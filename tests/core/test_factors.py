"""A channel a ciphertext: other images in each block of slots, weights as masks and numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from core_graphs import matrix, run_transform
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import BACKENDS, Session, difference, plain, psnr

from hefw.backends.tenseal.backend import TensealBackend
from hefw.core import codec
from hefw.core.diagonals import LinearCost, build, cheapest
from hefw.core.encoded import prepare
from hefw.core.factors import MaskedRounding, factored
from hefw.core.graph import Affine, Graph, Input, LinearTerm, Node, Output, Polynomial
from hefw.core.layout import Layout, grid_order, periodic
from hefw.core.lower import Request, lower
from hefw.core.plan import Costs
from hefw.core.program import Interface, LinearOp, Program
from hefw.core.runner import Weights
from hefw.core.sparse import SparseMatrix

SLOTS = 1024
PLACES = SLOTS // 16
CHANNELS = 16
CHEAP_NUMBERS = LinearCost(rotate=12.0, mul_plain=0.7, mul_constant=0.7, mul_number=0.001)
#: Numbers cost next to nothing, so that a small graph is masked, too.
COSTS = Costs(mul_number_linear=0.0001)
DECIBELS = 45.0


@pytest.fixture(autouse=True)
def cheap_numbers(monkeypatch) -> None:
    """On a library that multiplies them by residues."""
    able = TensealBackend.capabilities
    costs = dict(able.costs) | {"mul_number_linear": 0.0001, "number_ct_linear": 0.0}
    monkeypatch.setattr(TensealBackend, "capabilities", replace(able, costs=tuple(costs.items())))


def convolution(rng: np.random.Generator, outputs: int, inputs: int, size: int, stride: int = 1) -> SparseMatrix:
    """3 x 3, zero padding, (outputs, size / stride, size / stride) of (inputs, size, size)."""
    small = size // stride
    dense = np.zeros((outputs, small, small, inputs, size, size))
    for dy, dx in np.ndindex(3, 3):
        weights = rng.normal(size=(outputs, inputs)) / np.sqrt(9 * inputs)
        for y, x in np.ndindex(small, small):
            v, u = stride * y + dy - 1, stride * x + dx - 1
            if 0 <= v < size and 0 <= u < size:
                dense[:, y, x, :, v, u] = weights
    return SparseMatrix.from_dense(dense.reshape(outputs * small**2, -1))


def per_channel(rng: np.random.Generator, channels: int, labels: int) -> SparseMatrix:
    """A number a channel and label."""
    return SparseMatrix.from_dense(np.repeat(rng.normal(size=(channels, labels)) * 0.2, 16, axis=0))


def unet(steps: int = 2) -> Graph:
    """Convolutions on 4 x 4, one down to 2 x 2 and back, squares, a label, the latent itself a step."""
    rng = np.random.default_rng(0)
    shapes = {"latent": (1, 4, 4), "a": (CHANNELS, 4, 4), "b": (2 * CHANNELS, 2, 2), "c": (CHANNELS, 4, 4)}
    size = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    down, up = (convolution(rng, 2 * CHANNELS, CHANNELS, 4, stride=2) for _ in range(2))
    up = SparseMatrix.from_entries((up.shape[1], up.shape[0]), up.column, up.row, up.values)
    regions = {
        "a": (
            LinearTerm("latent", convolution(rng, CHANNELS, 1, 4)),
            LinearTerm("label", per_channel(rng, CHANNELS, 3)),
        ),
        "b": (LinearTerm("a2", down),),
        "c": (LinearTerm("b2", up), LinearTerm("a2", convolution(rng, CHANNELS, CHANNELS, 4))),
    }
    nodes: dict[str, Node] = {"latent": Input("latent", (1, 4, 4)), "label": Input("label", (3,), once=True)}
    for name, terms in regions.items():
        n = size[name]
        nodes[name] = Affine(name, shapes[name], terms, rng.normal(size=(steps, n)) * 0.1)
        curve = np.stack([np.zeros(n), np.ones(n), rng.uniform(0.1, 0.3, n)])
        nodes[f"{name}2"] = Polynomial(f"{name}2", shapes[name], name, curve)
    last = (
        LinearTerm("c2", convolution(rng, 1, CHANNELS, 4)),
        LinearTerm("latent", SparseMatrix.diagonal(np.ones(16)), rng.uniform(-2, -1, steps)),
    )
    nodes["update"] = Affine("update", (1, 4, 4), last, np.zeros((1, 16)))
    outputs = {"latent": Output("update", np.full(steps, -0.4), "latent")}
    return Graph(nodes, outputs, tuple(range(steps, 0, -1)), samples(8), {"k": 1})


def samples(images: int, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"latent": rng.normal(size=(images, 16)), "label": np.eye(3)[np.arange(images) % 3]}


GRAPH = unet()


def program_for(backend: str, *, pairs: bool) -> Program:
    ring, images = 2 * SLOTS, PLACES * (1 + pairs)
    request = Request(DECIBELS, ring_dimension=ring, allow_insecure=True, images=images, pairs=pairs, places=PLACES)
    return lower(GRAPH, BACKENDS[backend], request, COSTS)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.sampled_from([(1, 4), (2, 2), (4, 8)]), st.booleans(), st.integers(0, 2**32 - 1))
def test_blocks_of_other_images_come_back(features, shape, pairs, seed) -> None:
    batch, blocks = shape
    rng = np.random.default_rng(seed)
    layout = periodic(rng.permutation(features), batch, 256, blocks)
    if pairs:
        layout = layout.paired(alternating=batch % 2 == 0)
    assert layout.slots == 256
    assert layout.images == batch * blocks * (1 + pairs)
    images = int(rng.integers(1, layout.images + 1))
    values = rng.normal(size=(images, features))
    slots = layout.pack(values)
    assert np.allclose(layout.unpack(slots, images), values)
    spread = np.tile(rng.normal(size=features), (layout.images, 1))
    assert np.allclose(layout.spread(spread[0]), layout.pack(spread))


def test_a_place_is_where_it_is_said_to_be() -> None:
    layout = periodic(np.array([1, 0]), 2, 16, 4)
    slots = layout.pack(np.arange(16.0).reshape(8, 2))
    assert slots[0].tolist() == [1, 3, 0, 2, 5, 7, 4, 6, 9, 11, 8, 10, 13, 15, 12, 14]
    for image, feature in np.ndindex(8, 2):
        assert slots[0, layout.slot(layout.home[1][feature], np.int64(image))] == 2 * image + feature


def check(matrices: list[tuple[SparseMatrix, Layout]], out: Layout, cost: LinearCost) -> None:
    """The transforms' result is the dense product, by as many operations as they say, which are those counted."""
    rng = np.random.default_rng(0)
    method = cheapest(matrices, out, cost)
    stages = build(matrices, out, method)
    values = [rng.normal(size=(layout.images, layout.features)) for _, layout in matrices]
    slots = [ct for (_, layout), v in zip(matrices, values, strict=True) for ct in layout.pack(v)]
    done: Counter[str] = Counter()
    for stage in (stages.masks, stages.transform):
        if stage is not None:
            slots, counts = run_transform(stage, slots)
            done += counts
            assert counts["rotate"] == len(stage.rotations)
            assert counts["mul_plain"] == stage.products
    assert done["rotate"] == method.rotations
    assert done["mul_plain"] == method.vectors + method.constants
    assert {step for stage in (stages.masks, stages.transform) if stage for step in stage.rotations} <= method.steps
    expected = sum(v @ m.dense().T for (m, _), v in zip(matrices, values, strict=True))
    assert np.allclose(out.unpack(np.stack(slots), out.images), expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0]), st.booleans())
def test_shifts_between_blocks_bring_nothing_of_other_images(outputs, inputs, seed, density, numbers) -> None:
    rng = np.random.default_rng(seed)
    source, out = periodic(rng.permutation(inputs), 2, 128, 8), periodic(rng.permutation(outputs), 2, 128, 8)
    dense = matrix(rng, outputs, inputs, density)
    if numbers:  # few distinct ones
        dense = SparseMatrix.from_entries(dense.shape, dense.row, dense.column, np.sign(dense.values))
    check([(dense, source)], out, CHEAP_NUMBERS if numbers else replace(CHEAP_NUMBERS, mul_number=None))


def test_a_convolution_is_nine_masks_an_input_and_its_numbers() -> None:
    rng = np.random.default_rng(0)
    layout = periodic(np.arange(8 * 16), 2, SLOTS, SLOTS // 32)
    assert layout.ciphertexts == 8
    conv = convolution(rng, 8, 8, 4)
    method = cheapest([(conv, layout)], layout, CHEAP_NUMBERS)
    assert method.factors is not None
    assert (method.vectors, method.encodings) == (8 * 8, 8)  # the tap in the middle needs none
    assert len(method.factors.values) == 8 * 8 * 9
    assert method.rotations == 4 * 8
    check([(conv, layout)], layout, CHEAP_NUMBERS)
    direct = cheapest([(conv, layout)], layout, replace(CHEAP_NUMBERS, mul_number=1.0, mul_constant=1.0))
    assert direct.factors is None
    assert direct.vectors == 8 * 8 * 8


@pytest.mark.parametrize(("shape", "stride"), [((4, 4), 2), ((2, 2), 1)])
def test_channels_that_share_a_grid_are_masked_apart(shape, stride) -> None:
    rng = np.random.default_rng(1)
    size = shape[0]
    given_order = grid_order((8, *shape), (4, 4))
    taken_order = grid_order((64, size // stride, size // stride), (4, 4))
    assert given_order is not None
    assert taken_order is not None
    source, out = (periodic(order, 2, 256, 8) for order in (given_order, taken_order))
    conv = convolution(rng, 64, 8, size, stride)
    assert cheapest([(conv, source)], out, CHEAP_NUMBERS).factors is not None
    check([(conv, source)], out, CHEAP_NUMBERS)


def test_positions_of_one_number_have_one_mask() -> None:
    vectors = np.array([[1.0, 2, 2, 0], [3.0, 4, 4, 0], [1.0, 1, 1, 1]])
    found = factored(np.array([0, 1, 0]), np.array([5, 5, 6]), np.array([0, 0, 3]), vectors)
    assert sorted(map(tuple, found.masks.tolist())) == [(0, 1, 1, 0), (1, 0, 0, 0), (1, 1, 1, 1)]
    assert len(found.of) == 3
    assert (found.vectors, found.encodings) == (2, 2)
    again = np.zeros((2, 8, 4, 4))  # output, input, shift, position
    masks = found.masks[found.of[found.reads]]
    np.add.at(
        again,
        (found.outputs, found.numbers[found.reads], found.shifts[found.reads]),
        found.values[:, None] * masks,
    )
    assert np.array_equal(again[[0, 1, 0], [5, 5, 6], [0, 0, 3]], vectors)


@given(st.floats(1e-3, 1e3), st.floats(1e-6, 1.0), st.integers(12, 34))
def test_bits_are_shared_so_that_rounding_is_least(numbers, masks, bits) -> None:
    rounding = MaskedRounding(numbers, masks)
    encode, constant = np.sqrt(2.0**14 / 12), np.sqrt(1 / 12)

    def error(mask_bits: int) -> float:
        return rounding.error(2.0**bits, 2.0**mask_bits, encode, constant)

    chosen = rounding.mask_bits(bits)
    allowed = range(max(4, bits - 18), bits - 3)
    assert chosen in allowed
    assert error(chosen) <= 1.5 * min(map(error, allowed))


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("backend", ["simulator", "tenseal"])
def test_images_in_blocks_are_drawn_as_precisely_as_was_forecast(backend, pairs) -> None:
    program = program_for(backend, pairs=pairs)
    interface = program.interface
    assert interface.batch == PLACES
    assert {port.layout.blocks for port in interface.inputs.values()} == {PLACES // (1 + pairs)}
    masked = [op for op in program.step if isinstance(op, LinearOp) and op.masks is not None]
    assert len(masked) >= 3
    values = samples(interface.images, seed=5)
    session = Session(program, BACKENDS[backend])
    session.engine.weights.encode_all(session.evaluator)
    before = session.evaluator.counts.copy()
    session.begin(values)
    found = session.step(0, values)["latent"]
    assert difference(session.evaluator.counts, before) == program.prelude_counts() + program.counts(0)
    expected = plain(GRAPH, values)
    assert psnr(found * -0.4, expected[0]["latent"]) > DECIBELS
    decibels = psnr(session.trajectory(values)[-1]["latent"], expected[-1]["latent"])
    assert interface.forecast_db - 3 < decibels < interface.forecast_db + 9


def test_key_holders_learn_of_blocks() -> None:
    interface = program_for("simulator", pairs=True).interface
    told = Interface.unpack(interface.pack())
    assert told.images == interface.images == 2 * PLACES
    values = samples(interface.images)["latent"]
    for port, other in zip(told.inputs.values(), interface.inputs.values(), strict=True):
        assert port.layout.blocks == other.layout.blocks > 1
    packed = told.inputs["latent"].layout.pack(values)
    assert np.array_equal(packed, interface.inputs["latent"].layout.pack(values))


def test_masks_are_kept_with_the_other_weights() -> None:
    """A program and its encoded weights from files do what they did."""
    program = program_for("tenseal", pairs=False)
    backend = BACKENDS["tenseal"]
    kept: list[bytes] = []

    class Store:
        def load(self):
            return kept[0] if kept else None

        def save(self, parts) -> None:
            kept.append(b"".join(parts))

        def damaged(self) -> None:
            raise AssertionError

    first = Weights(program)
    prepare(first, backend.evaluator(program.params), Store())
    again: Program = codec.decode(codec.encode(program), Program)
    weights = Weights(again)
    session = Session(again, backend, weights)
    prepare(weights, session.evaluator, Store())
    assert session.evaluator.counts["encode"] == 0
    assert {n: len(v) for n, v in weights.encoded.items()} == {n: len(v) for n, v in first.encoded.items()}
    values = samples(5)
    session.begin(values)
    assert psnr(session.step(0, values)["latent"] * -0.4, plain(GRAPH, values)[0]["latent"]) > DECIBELS


def test_processes_mask_together(monkeypatch) -> None:
    """Bit by bit what one process gives."""
    program = program_for("tenseal", pairs=False)
    backend = BACKENDS["tenseal"]
    holder = backend.keygen(program.params, program.interface.keys)
    keys = dict(holder.evaluation_keys())
    values = samples(7)
    sent = {
        name: [holder.encrypt_bytes(row, port.level, port.scale) for row in port.layout.pack(values[name])]
        for name, port in program.interface.inputs.items()
    }
    answers = []
    for threads in (1, 2):
        engine = backend.engine(program, threads=threads)
        try:
            engine.load_keys(keys)
            engine.prepare()
            engine.begin({"label": sent["label"]})
            answers.append(engine.run(0, {"latent": sent["latent"]}))
            assert engine.figures().threads == threads
        finally:
            engine.close()
    assert answers[0] == answers[1]
