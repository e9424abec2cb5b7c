"""The compiler's passes, each on its own: matrices, the clear part, tables of labels, polynomials."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn
from torch.nn import functional

import hefw
from hefw.core.errors import CompileError
from hefw.core.graph import Graph, Polynomial
from hefw.models.compiler import matrices, verify
from hefw.models.compiler import values as v
from hefw.models.compiler.advice import advice
from hefw.models.compiler.clear import evaluate
from hefw.models.compiler.labels import split
from hefw.models.compiler.trace import Network, float64, path_of, trace
from hefw.models.compiler.values import Clear, Table
from hefw.models.schedules import linear_updates

pytestmark = pytest.mark.filterwarnings("ignore")


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(clip_sample=False, prediction_type="v_prediction")


# -- matrices --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    groups=st.sampled_from([1, 2]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 1)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    transposed=st.booleans(),
)
def test_the_matrix_of_a_convolution_is_the_convolution(groups, kernel, stride, padding, dilation, transposed) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 6, 7, generator=generator, dtype=torch.float64)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if transposed:
        weight = torch.randn(4, 6 // groups, *kernel, generator=generator, dtype=torch.float64)
        wanted = functional.conv_transpose2d(x, weight, **options) if min(_transposed(kernel, options)) > 0 else None
        if wanted is None:
            return
        matrix = matrices.transposed_convolution(weight, tuple(wanted.shape[1:]), stride, padding, dilation, groups)
    else:
        weight = torch.randn(6, 4 // groups, *kernel, generator=generator, dtype=torch.float64)
        wanted = functional.conv2d(x, weight, **options)
        matrix = matrices.convolution(weight, (4, 6, 7), stride, padding, dilation, groups)
    assert np.allclose(matrix @ x.reshape(-1).numpy(), wanted.reshape(-1).numpy())


def _transposed(kernel, options) -> list[int]:
    return [
        (size - 1) * s - 2 * p + d * (k - 1) + 1
        for size, k, s, p, d in zip(
            (6, 7), kernel, options["stride"], options["padding"], options["dilation"], strict=True
        )
    ]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.permute(0, 2, 3, 1),
        lambda x: functional.pixel_unshuffle(x, 2),
        lambda x: functional.pad(x, (1, 0, 2, 1), value=3.0),
        lambda x: functional.interpolate(x, scale_factor=2),
        lambda x: torch.cat([x[:, 1:], torch.full((1, 1, 4, 6), 7.0), x[:, :1]], 1),
    ],
)
def test_a_selection_copies_entries_and_puts_in_constants(function) -> None:
    x = torch.randn(1, 3, 4, 6, dtype=torch.float64)
    (matrix,) = matrices.selection(lambda tensors: function(tensors[0]), [(1, 3, 4, 6)])
    constant = function(torch.zeros_like(x)).reshape(-1)
    assert np.allclose(matrix @ x.reshape(-1).numpy() + constant.numpy(), function(x).reshape(-1).numpy())
    assert set(matrix.values) <= {1.0}


def test_a_probed_matrix_is_the_operators_whatever_the_chunk(monkeypatch) -> None:
    def function(tensors):
        return functional.interpolate(tensors[0], scale_factor=2, mode="bilinear") + 1

    whole = matrices.probed(function, (1, 2, 3, 3))
    monkeypatch.setattr(matrices, "CHUNK_ENTRIES", 100)
    assert np.array_equal(matrices.probed(function, (1, 2, 3, 3)).dense(), whole.dense())
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    assert np.allclose(whole @ x.reshape(-1).numpy() + 1, function([x]).reshape(-1).numpy())


# -- what is known in the clear ----------------------------------------------------------------------------------------


class Embedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.time, self.labels = nn.Linear(1, 3), nn.Embedding(4, 3)

    def forward(self, x, t, y):
        return x + functional.silu(self.time(t[:, None] / 10) + self.labels(y)).sum()


def test_timestep_and_label_are_evaluated_for_all_steps_and_labels() -> None:
    torch.manual_seed(0)
    network = Network(Embedding(), {}, labelled=True)
    traced = trace(network, (2,), 3)
    values = {name: Clear((tensor,)) for name, tensor in traced.constants.items()}
    names = {what: name for name, what in traced.inputs.items()}
    values[names["t"]] = Clear(tuple(torch.tensor([t]) for t in (3, 7)))
    values[names["y"]] = Table((torch.arange(4).reshape(-1, 1),))
    found: dict[fx.Node, object] = {}
    last = None
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            found[node] = values.get(node.name)
        elif node.op == "call_function" and all(found.get(n) is not None for n in node.all_input_nodes):
            with float64():
                found[node] = last = evaluate(node, found.__getitem__, 2)
    assert isinstance(last, Table)
    for step, t in enumerate((3, 7)):
        for label in range(4):
            zero = torch.zeros(1, 2, dtype=torch.float64)
            with torch.no_grad():
                wanted = network(zero, torch.tensor([t]), torch.tensor([label]))[0, 0]
            assert torch.isclose(last.at(step)[label], wanted)


def test_a_node_knows_its_module() -> None:

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([nn.Linear(2, 2)])

        def forward(self, x, t):
            return self.parts[0](x)

    traced = trace(Network(Outer(), {}), (2,), 1)
    assert [path_of(node) for node in traced.graph.nodes if node.op == "call_function"] == ["parts.0"]


# -- labels ------------------------------------------------------------------------------------------------------------


def whole_table(parts) -> np.ndarray:
    varying = np.einsum("rs,rce->sce", parts.factors, parts.tables)
    return parts.bias[:, None] + parts.fixed + varying


def test_an_additive_table_is_one_matrix() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(6, 1, 5)) + rng.normal(size=(1, 4, 5))
    parts = split(table)
    assert len(parts.factors) == 0
    assert np.allclose(whole_table(parts), table)


def test_any_other_table_takes_as_many_matrices_as_its_rank() -> None:
    rng = np.random.default_rng(1)
    table = np.einsum("sr,rce->sce", rng.normal(size=(6, 2)), rng.normal(size=(2, 4, 5)))
    parts = split(table)
    assert len(parts.factors) <= 2
    assert np.allclose(whole_table(parts), table, atol=1e-6)
    assert np.allclose(np.abs(parts.tables).max(axis=(1, 2)), 1)


# -- polynomials, products, numbers: whole graphs of one function ----------------------------------------------------


class Function(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, t):
        return self.function(self.conv(x), x, t.to(x.dtype).reshape(-1, 1, 1, 1) / 1000)


def degrees(graph: Graph) -> list[int]:
    return [len(node.coefficients) - 1 for node in graph.nodes.values() if isinstance(node, Polynomial)]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda h, x, t: h * h, [2]),
        (lambda h, x, t: 0.3 * h**2 + h - 1, [2]),
        (lambda h, x, t: ((0.1 * h + 0.2) * h + 1) * h + 0.5, [3]),
        (lambda h, x, t: torch.square(torch.square(h)), [4]),
        (lambda h, x, t: torch.addcmul(h, h, h, value=0.5), [2]),
        (lambda h, x, t: (h + t) ** 2, [2]),
        (lambda h, x, t: h * x, [2, 2]),
        (lambda h, x, t: (h - x) * (h + x), [2, 2]),
        (lambda h, x, t: h * torch.exp(-t), []),
        (lambda h, x, t: torch.exp(-t) * h + torch.sin(t) * x, []),
        (lambda h, x, t: (1 - h) / 3 - torch.rsub(x, 2), []),
    ],
)
def test_a_function_of_entries_becomes_polynomials_of_least_degree(function, expected) -> None:
    torch.manual_seed(0)
    graph = hefw.compile(Function(function).eval(), (1, 4, 4), scheduler=scheduler(), steps=3)
    assert degrees(graph) == expected


def test_a_label_that_multiplies_is_a_product_of_two() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.labels = nn.Embedding(3, 1)

        def forward(self, x, t, y):
            return x * (1 + self.labels(y))[:, :, None, None]

    torch.manual_seed(0)
    graph = hefw.compile(Gate(), (1, 2, 2), scheduler=scheduler(), steps=2, classes=3)
    assert degrees(graph) == [2, 2]


def test_two_linear_maps_in_a_row_stay_sparse_in_the_file() -> None:
    torch.manual_seed(0)
    net = Function(lambda h, x, t: functional.conv2d(h, torch.ones(1, 1, 3, 3, dtype=h.dtype), padding=1))
    graph = hefw.compile(net.eval(), (1, 8, 8), scheduler=scheduler(), steps=2)
    assert "conv" in graph.nodes
    most = max(len(term.matrix.values) for node in graph.nodes.values() for term in getattr(node, "terms", ()))
    assert most <= 64 * 9


# -- the last pass -----------------------------------------------------------------------------------------------------


def test_a_graph_that_is_not_its_module_is_refused() -> None:
    torch.manual_seed(0)
    net = Function(lambda h, x, t: h).eval()
    graph = hefw.compile(net, (1, 4, 4), scheduler=scheduler(), steps=2)
    updates = linear_updates(scheduler(), 2)
    predict = verify.by_module(Network(net, {}), None)
    assert verify.verify(graph, predict, updates, (1, 4, 4)) < 1e-12
    with torch.no_grad():
        net.conv.bias += 0.01
    with pytest.raises(CompileError, match="off the module's by"):
        verify.verify(graph, verify.by_module(Network(net, {}), None), updates, (1, 4, 4))


def test_advice_fits_the_operator() -> None:
    assert "polynomial" in advice("silu")
    assert "no rule" in advice("unheard_of")


def test_polynomials_multiply_and_add_entry_by_entry() -> None:
    a, b = np.array([[1.0, 2], [3, 4]]), np.array([[5.0, 6], [7, 8], [9, 10]])
    x = np.array([0.3, -0.7])
    value = lambda c: sum(row * x**k for k, row in enumerate(c))  # noqa: E731
    assert np.allclose(value(v.multiply(a, b)), value(a) * value(b))
    assert np.allclose(value(v.plus(a, b)), value(a) + value(b))
