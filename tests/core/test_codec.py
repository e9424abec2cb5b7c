"""Programs and other values of the core as bytes: the same afterwards, or refused."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import MappingProxyType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgpack
import numpy as np
import pytest
from core_graphs import samples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from runs import BACKENDS, SMALL, Session, small_program

from hefw.core import codec
from hefw.core.backend import KeyManifest
from hefw.core.errors import HefwError, LoweringError
from hefw.core.linear import Group, Transform
from hefw.core.params import CkksParams, Resolved
from hefw.core.program import Interface, LinearOp, Program

numbers = st.sampled_from(["<f8", ">f8", "<f4", "<i8", "<u8", "<i4", "|u1", "|b1", "<c16"]).map(np.dtype)
arrays = npst.arrays(numbers, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
plain: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**64 - 1),
    float: st.floats() | st.integers(-(2**53), 2**53),
    str: st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    bytes: st.binary(max_size=8),
    bool: st.booleans(),
    type(None): st.none(),
    Any: st.integers(-9, 9) | st.none() | arrays,
}
PARAMS = [SMALL, CkksParams(16384, (60, 40), (60,), 40.0, False, 64, (2, 3))]


@cache  # of a class that has itself, the same strategy again
def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of an annotated type, those of dataclasses built field by field: new fields are covered as they come."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is CkksParams:
        return st.sampled_from(PARAMS)
    if hint is Resolved:
        primes = st.tuples(*[st.integers(2, 2**60)] * 6)
        return st.builds(Resolved, st.just(SMALL), plain[str], primes, st.tuples(st.integers(2, 2**60)))
    if hint in plain:
        return plain[hint]
    if origin in (Union, UnionType):
        return st.one_of(*map(values, arguments))
    if origin is tuple and arguments[1:] == (...,):
        return st.lists(values(arguments[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    if origin is list:
        return st.lists(values(arguments[0]), max_size=2)
    if origin is Counter:
        return st.dictionaries(values(arguments[0]), st.integers(0, 9), max_size=2).map(Counter)
    if origin in (dict, Mapping):
        return st.dictionaries(*map(values, arguments), max_size=2)
    if origin is np.ndarray:
        return arrays
    hints = get_type_hints(hint)
    return st.builds(hint, **{field.name: st.deferred(lambda f=field: values(hints[f.name])) for field in fields(hint)})


def same(a: Any, b: Any) -> bool:
    """Equality of types, of numbers to the bit, of arrays, and of dataclasses that compare by identity."""
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and a.shape == b.shape
            and a.dtype == b.dtype.newbyteorder(a.dtype.byteorder)
            and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
        )
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or a.hex() == b.hex()
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    if type(a) in codec.CLASSES.values():
        return all(same(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))
    return bool(a == b)


def back(value: Any, kind: Any = None) -> Any:
    return codec.decode(codec.encode(value), kind or type(value))


# -- whatever the classes hold ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("long", [codec.LONG, 5])
@pytest.mark.parametrize("kind", codec.CLASSES.values(), ids=codec.CLASSES.keys())
def test_every_class_comes_back(kind, long, monkeypatch) -> None:
    """Also where a few bytes count as long, and stand behind the msgpack."""
    monkeypatch.setattr(codec, "LONG", long)

    @settings(max_examples=15, deadline=None)
    @given(values(kind))
    def comes_back(value: Any) -> None:
        data = codec.encode(value)
        found = codec.decode(data, kind)
        assert same(value, found)
        assert codec.encode(found) == data

    comes_back()


@settings(max_examples=100, deadline=None)
@given(st.recursive(st.one_of(*plain.values()), lambda v: st.lists(v, max_size=3) | st.lists(v, max_size=3).map(tuple)))
def test_plain_values_come_back(value) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        with pytest.raises(LoweringError, match="cannot be written as bytes"):
            codec.encode(value)
        return
    try:
        data = codec.encode(value)
    except LoweringError:  # a number within it is too large
        return
    assert same(value, codec.decode(data, Any))


def test_arrays_in_any_order_of_memory_come_back() -> None:
    array = np.arange(24.0).reshape(2, 3, 4)
    for view in (array.T, array[:, ::2], np.asfortranarray(array), array[0, 0, 0], array.astype(">i4"), array[:0]):
        found = back(np.asarray(view), np.ndarray)
        assert np.array_equal(found, view)
        assert found.shape == view.shape


def test_what_is_long_is_not_copied_on_the_way_out_and_is_aligned_on_the_way_in() -> None:
    array, blob = np.arange(10_000.0), bytes(range(256)) * 300
    value = (b"x", array, blob, array[::2], array, blob[: codec.LONG])
    found = codec.parts(value)
    assert any(part is blob for part in found)
    assert any(isinstance(part, memoryview) and part.obj is array for part in found)
    assert sum(map(len, found)) < array.nbytes + array[::2].nbytes + len(blob) + codec.LONG + 1000
    data = bytearray(codec.encode(value))
    decoded = codec.decode(data, tuple[bytes, np.ndarray, bytes, np.ndarray, np.ndarray, bytes])
    assert same(value, decoded)
    for item in (decoded[1], decoded[3]):
        assert item.ctypes.data % 16 == 0
        assert item.flags.aligned
        assert not item.flags.writeable


def test_numpy_scalars_become_numbers() -> None:
    manifest = back(KeyManifest({np.int64(3): np.int32(2)}, bool(np.bool_(True))))
    assert manifest == KeyManifest({3: 2})
    assert [type(n) for item in manifest.rotations.items() for n in item] == [int, int]
    assert type(back(MappingProxyType({"a": np.float64(0.1)}), dict[str, float])["a"]) is float


# -- programs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["simulator", "tenseal"])
def test_programs_come_back(backend) -> None:
    program = small_program(backend)
    found = back(program)
    assert same(program, found)
    assert found.counts(0) == program.counts(0)
    assert found.interface.pack() == program.interface.pack()


def test_a_program_that_came_back_runs() -> None:
    program, inputs = small_program("tenseal"), samples(5, seed=2)
    ours, theirs = (Session(p, BACKENDS["tenseal"]).trajectory(inputs) for p in (program, back(program)))
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(a["latent"] - b["latent"]).max() < 1e-4


def test_what_is_shared_is_stored_once_and_shared_again() -> None:
    weights = np.random.default_rng(0).normal(size=(100, 100))
    transform = Transform(((0,),), ((Group(0, ()),),), (), weights, (0,), 1)
    layout = small_program().interface.inputs["latent"].layout
    ops = [LinearOp(f"op{k}", 1, 2.0**30, 1, ("x",), (1.0,), transform, (), None, None, layout) for k in range(10)]
    data = codec.encode(tuple(ops))
    assert len(data) < 1.5 * weights.nbytes + layout.positions.nbytes
    found = codec.decode(data, tuple[LinearOp, ...])
    assert len({id(op.transform) for op in found}) == len({id(op.layout) for op in found}) == 1
    two = back((weights, weights, weights.copy()), tuple[np.ndarray, ...])
    assert two[0] is two[1]
    assert two[0] is not two[2]


# -- what is refused --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interfaces:
    """Of a name that is not known."""


class Program2(Program):
    """A subclass, which might hold more."""


Program2.__name__ = "Program"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Interfaces(), "Interfaces cannot be written"),
        (Program2(*[None] * len(fields(Program))), "Program cannot be written"),
        (object(), "object cannot be written"),
        (print, "cannot be written"),
        ({1, 2}, "set cannot be written"),
        (1 + 2j, "complex cannot be written"),
        ((2**64,), "tuple cannot be written"),
        ("\ud800", "str cannot be written"),
        (np.array(["a"]), "array of type <U1"),
        (np.array([object()]), "array of type object"),
        (np.zeros(2, "i4,f8"), "array of type"),
        (np.zeros(2, np.longdouble), "array of type"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isprintable() else type(value).__name__,
)
def test_unknown_kinds_are_not_written(value, words) -> None:
    with pytest.raises(LoweringError, match=words):
        codec.encode(value)


GOOD = codec.encode(small_program())


def framed(packed: Any, behind: bytes = b"") -> bytes:
    head = bytes(msgpack.packb(packed))
    return len(head).to_bytes(8, "big") + head + bytes(-(8 + len(head)) % 16) + behind


@pytest.mark.parametrize(
    ("packed", "behind"),
    [
        (None, b""),
        (7, b""),
        ([], b""),
        ([1], b""),
        ([1, [], None], b""),
        ([2, [], None, []], b""),
        ([1, [], None, [], 0], b""),
        ([1, 5, None, []], b""),
        ([1, {}, None, []], b""),
        ([1, [], None, 5], b""),
        ([1, [], None, [1]], b""),
        ([1, [], None, [-1]], b""),
        ([1, [], None, [True]], bytes(16)),
        ([1, [], None, [1.0]], bytes(16)),
        ([1, [], None, [2**63]], b""),
        ([1, [], None, [16]], bytes(15)),
        ([1, [], None, [16]], bytes(17)),
        ([1, [], [4, 0], [16]], bytes(16)),
        ([1, [], [4, 1], [16]], bytes(16)),
        ([1, [], [4, -1], [16]], bytes(16)),
        ([1, [["<f8", [2], [3, 0]]], [3, 0], [16]], bytes(16)),
        ([1, [["<f8", [2], [4, 1]]], [3, 0], [16]], bytes(16)),
        ([1, [["<f8", [3], [4, 0]]], [3, 0], [16]], bytes(16)),
        ([1, [["<f8", [2], [4, 0]]], [3, 0], [16]], bytes(16)),
        ([1, [], [3, 0], []], b""),
        ([1, [], [3, -1], []], b""),
        ([1, [[3, 0]], [3, 0], []], b""),
        ([1, [], [3, 0, 0], []], b""),
        ([1, [], [3], []], b""),
        ([1, [], [9], []], b""),
        ([1, [], [], []], b""),
        ([1, [], {"a": 1}, []], b""),
        ([1, [], [2, [1]], []], b""),
        ([1, [], [2, [[1, 1], 2]], []], b""),
        ([1, [["<f8", [2], b"short"]], [3, 0], []], b""),
        ([1, [["<f8", [-1], b"12345678"]], [3, 0], []], b""),
        ([1, [["|O", [1], b"12345678"]], [3, 0], []], b""),
        ([1, [["<M8[s]", [1], b"12345678"]], [3, 0], []], b""),
        ([1, [["<f8", "x", b""]], [3, 0], []], b""),
        ([1, [[1, 2, 3]], [3, 0], []], b""),
        ([1, ["abc"], [3, 0], []], b""),
        ([1, [["os.system", {"command": "true"}]], [3, 0], []], b""),
        ([1, [["Term", {"source": 1, "baby": 2}]], [3, 0], []], b""),
        ([1, [["Term", {"source": 1, "baby": 2, "weight": "x"}]], [3, 0], []], b""),
        ([1, [["Term", {"source": 1, "baby": 2, "weight": True}]], [3, 0], []], b""),
        ([1, [["Term", {"source": 1, "baby": 2, "weight": 1, "more": 1}]], [3, 0], []], b""),
        ([1, [["Term", {"source": 1, "baby": 2, "weight": 1}]], [3, 0], []], b""),
        ([1, [["Term", 3]], [3, 0], []], b""),
        ([1, [["CkksParams", {"ring_dimension": 3}]], [3, 0], []], b""),
    ],
    ids=str,
)
def test_nonsense_is_refused(packed, behind) -> None:
    with pytest.raises(LoweringError, match="bytes that are no Program"):
        codec.decode(framed(packed, behind), Program)


@pytest.mark.parametrize("depth", [400, 1000, 5000])
def test_deep_nesting_is_refused(depth) -> None:
    head = b"\x94\x01\x90" + b"\x92\x01" * depth + b"\xc0\x90"
    data = len(head).to_bytes(8, "big") + head
    with pytest.raises(LoweringError):
        codec.decode(data + bytes(-len(data) % 16), Program)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1.0, int),
        (True, int),
        (True, float),
        (1, bool),
        ("a", bytes),
        ((1, "a"), tuple[int, ...]),
        ((1,), tuple[int, int]),
        ([1], tuple[int, ...]),
        ({"a": b"x"}, dict[str, list[bytes]]),
        ({"a": [1]}, dict[str, list[bytes]]),
        ({1: [b""]}, dict[str, list[bytes]]),
        (None, int),
        (3, None | str),
        (KeyManifest({1: 1}), Interface),
        ([1.0], np.ndarray),
    ],
    ids=str,
)
def test_values_of_another_type_are_refused(value, kind) -> None:
    with pytest.raises(LoweringError, match=f"type {type(value).__name__}|where "):
        codec.decode(codec.encode(value), kind)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_bytes_give_a_program_or_one_error(data) -> None:
    content = bytearray(GOOD)
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(GOOD) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(GOOD) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert isinstance(codec.decode(bytes(content), Program), Program)
    except LoweringError as error:
        assert str(error)  # noqa: PT017


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_refused(data) -> None:
    with pytest.raises(HefwError, match="bytes that are no Program"):
        codec.decode(data, Program)
