"""What a server announces: the same after a trip over the wire, and refused when it makes no sense."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import small_program

from hefw.core.errors import LoweringError, ParameterError
from hefw.core.program import Interface

GOOD = small_program().interface
DATA = GOOD.pack()


def test_roundtrip() -> None:
    found = Interface.unpack(DATA)
    assert found.params == GOOD.params
    assert found.params.digest == GOOD.params.digest
    assert dict(found.keys.rotations) == dict(GOOD.keys.rotations)
    assert found.keys.names() == GOOD.keys.names()
    scalars = ("batch", "timesteps", "graph_digest", "regions", "depth", "forecast_db", "steps", "elementwise")
    assert all(getattr(found, field) == getattr(GOOD, field) for field in scalars)
    for ports, others in ((found.inputs, GOOD.inputs), (found.outputs, GOOD.outputs)):
        assert ports.keys() == others.keys()
        for name, port in ports.items():
            other = others[name]
            fields = ("level", "scale", "shape", "once", "factors", "feedback", "previous")
            assert all(getattr(port, f) == getattr(other, f) for f in fields)
            assert np.array_equal(port.layout.positions, other.layout.positions)
            assert (port.layout.features, port.layout.batch) == (other.layout.features, other.layout.batch)
    assert found.pack() == DATA


def edited(*path: str, value: Any) -> bytes:
    fields = msgpack.unpackb(DATA)
    place = fields
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return bytes(msgpack.packb(fields))


def positions(change: Any) -> bytes:
    return np.ascontiguousarray(change(GOOD.inputs["latent"].layout.positions.copy()), dtype="<i4").tobytes()


def swap(array: np.ndarray) -> np.ndarray:
    array[array == 0] = 1  # feature 0 sits nowhere
    return array


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("params",), None),
        (("params", "ring_dimension"), 4095),
        (("params", "modulus_bits"), [60] * 65),
        (("params", "modulus_bits"), [60]),
        (("params", "allow_insecure"), False),
        (("primes",), [3] * 6),
        (("primes",), [2**62] * 6),
        (("special_primes",), []),
        (("special_primes",), [2**20 + 7]),
        (("batch",), 0),
        (("batch",), -1),
        (("batch",), 10**9),
        (("batch",), float("inf")),
        (("batch",), "many"),
        (("rotations",), {"0": 1}),
        (("rotations",), {"1024": 1}),
        (("rotations",), {"x": 1}),
        (("rotations",), {"1": 99}),
        (("rotations",), [1, 2]),
        (("timesteps",), []),
        (("timesteps",), [1.5, float("nan"), 3]),
        (("timesteps",), [True, 2, 3]),
        (("timesteps",), [3, 2]),
        (("forecast_db",), None),
        (("inputs",), {}),
        (("inputs",), []),
        (("outputs",), {}),
        (("inputs", "latent"), None),
        (("inputs", "latent", "level"), 6),
        (("inputs", "latent", "level"), -1),
        (("inputs", "latent", "scale"), float("nan")),
        (("inputs", "latent", "scale"), 0.0),
        (("inputs", "latent", "scale"), 2.0**900),
        (("inputs", "latent", "shape"), [-4, -4]),
        (("inputs", "latent", "shape"), [4, 5]),
        (("inputs", "latent", "features"), 17),
        (("inputs", "latent", "batch"), 3),
        (("inputs", "latent", "period"), 0),
        (("inputs", "latent", "period"), 10**9),
        (("inputs", "latent", "ciphertexts"), 0),
        (("inputs", "latent", "ciphertexts"), 5),
        (("inputs", "latent", "positions"), b""),
        (("inputs", "latent", "positions"), b"abc"),
        (("inputs", "latent", "positions"), positions(swap)),
        (("inputs", "latent", "positions"), positions(lambda p: p - 2)),
        (("outputs", "latent", "factors"), [1.0]),
        (("outputs", "latent", "factors"), [1.0, float("inf"), 1.0]),
        (("outputs", "latent", "feedback"), "nothing"),
        (("outputs", "latent", "feedback"), "label"),
    ],
    ids=str,
)
def test_nonsense_is_refused(path, value) -> None:
    with pytest.raises((LoweringError, ParameterError)):
        Interface.unpack(edited(*path, value=value))


@pytest.mark.parametrize("field", sorted(msgpack.unpackb(DATA)))
def test_missing_fields_are_refused(field) -> None:
    fields = msgpack.unpackb(DATA)
    del fields[field]
    with pytest.raises((LoweringError, ParameterError), match=field):
        Interface.unpack(bytes(msgpack.packb(fields)))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_give_an_interface_or_one_error(data) -> None:
    content = bytearray(DATA)
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(DATA) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(DATA) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        Interface.unpack(bytes(content))
    except (LoweringError, ParameterError) as error:
        assert str(error)  # noqa: PT017


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_refused(data) -> None:
    with pytest.raises(LoweringError):
        Interface.unpack(data)
