"""Parameters: what exists, what is secure, and what untrusted data may say."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hefw.core.errors import ParameterError
from hefw.core.params import RING_DIMENSIONS, CkksParams, Resolved, choose, max_log_qp, security_bits

SECURE = CkksParams(8192, (60, 40, 40), (60,), 40.0)


@pytest.mark.parametrize(
    ("ring_dimension", "limit"), [(4096, 109), (8192, 218), (16384, 438), (32768, 881), (65536, 1747)]
)
def test_the_security_table_is_sharp(ring_dimension, limit) -> None:
    assert max_log_qp(ring_dimension) == limit
    assert security_bits(ring_dimension, limit) == 128
    assert security_bits(ring_dimension, limit + 1) == 0


def test_security_is_graded() -> None:
    assert security_bits(8192, 118) == 256
    assert security_bits(8192, 119) == 192
    assert security_bits(8192, 153) == 128


def test_special_primes_count_towards_security() -> None:
    assert SECURE.log_qp == 200
    assert CkksParams(8192, (60, 60, 38), (60,), 40.0).security_bits == 128
    with pytest.raises(ParameterError, match=r"log2\(QP\) = 219 .*at most 218.*allow_insecure"):
        CkksParams(8192, (60, 60, 39), (60,), 40.0)


def test_insecure_parameters_say_so() -> None:
    params = CkksParams(4096, (40, 30, 30, 30), (60,), 30.0, allow_insecure=True)
    assert params.insecure
    assert params.security_bits == 0
    assert not SECURE.insecure
    assert not replace(SECURE, allow_insecure=True).insecure


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ring_dimension": 5000}, "ring dimension 5000 is not allowed.*1024 to 131072"),
        ({"modulus_bits": ()}, "at least one prime"),
        ({"special_bits": ()}, "at least one prime"),
        ({"modulus_bits": (61,)}, "61 bits is not allowed.*20 to 60"),
        ({"special_bits": (19,)}, "19 bits"),
        ({"scale_bits": 140.0}, "does not fit a modulus of 2.140"),
        ({"scale_bits": 0.5}, "does not fit"),
        ({"scale_bits": math.nan}, "does not fit"),
    ],
)
def test_impossible_parameters_are_refused(changes, message) -> None:
    with pytest.raises(ParameterError, match=message):
        replace(SECURE, **changes)


def test_levels_and_slots() -> None:
    assert (SECURE.slots, SECURE.max_level) == (4096, 2)
    resolved = Resolved(SECURE, "b", (2**60 - 93, 2**40 - 87, 2**40 - 167), (2**60 - 1,))
    assert resolved.log_modulus(0) == pytest.approx(60)
    assert resolved.log_modulus(2) == pytest.approx(140)


def test_a_backend_must_resolve_every_prime() -> None:
    with pytest.raises(ParameterError, match="resolved 2 primes for 3"):
        Resolved(SECURE, "b", (3, 5), (7,))


def test_the_digest_tells_primes_ring_and_backend_apart() -> None:
    base = Resolved(SECURE, "b", (11, 13, 17), (19,))
    others = [
        Resolved(SECURE, "c", (11, 13, 17), (19,)),
        Resolved(SECURE, "b", (11, 17, 13), (19,)),
        Resolved(SECURE, "b", (11, 13, 17), (23,)),
        Resolved(replace(SECURE, ring_dimension=16384), "b", (11, 13, 17), (19,)),
    ]
    digests = {r.digest for r in (base, *others)}
    assert len(digests) == 5
    assert {len(d) for d in digests} == {16}
    assert Resolved(replace(SECURE, scale_bits=30.0), "b", (11, 13, 17), (19,)).digest == base.digest


valid = st.builds(
    lambda n, bits, special, scale: CkksParams(n, tuple(bits), tuple(special), scale, True),
    st.sampled_from(RING_DIMENSIONS),
    st.lists(st.integers(20, 60), min_size=1, max_size=12),
    st.lists(st.integers(20, 60), min_size=1, max_size=3),
    st.floats(1, 19.5),
)


@settings(max_examples=50, deadline=None)
@given(valid)
def test_dict_roundtrip(params) -> None:
    assert CkksParams.from_dict(params.to_dict()) == params


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["ring_dimension", "modulus_bits", "special_bits", "scale_bits", "allow_insecure"]),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(max_size=5),
            st.lists(st.integers() | st.none()),
        ),
    )
)
def test_untrusted_dicts_give_parameters_or_one_error(data) -> None:
    whole = {**SECURE.to_dict(), **data}
    try:
        params = CkksParams.from_dict(whole)
    except ParameterError as error:
        assert str(error)  # noqa: PT017
    else:
        assert CkksParams.from_dict(params.to_dict()) == params


@pytest.mark.parametrize("missing", [key for key in SECURE.to_dict() if key not in ("packed_slots", "bootstrap")])
def test_a_missing_field_is_named(missing) -> None:
    data = {k: v for k, v in SECURE.to_dict().items() if k != missing}
    with pytest.raises(ParameterError, match=missing):
        CkksParams.from_dict(data)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 20), st.integers(25, 45), st.sampled_from([1, 1000, 4096, 20000]))
def test_choose_takes_the_smallest_secure_ring(depth, scale_bits, slots) -> None:
    params = choose(depth, scale_bits, slots)
    assert params.slots >= slots
    assert params.max_level == depth
    assert params.security_bits >= 128
    smaller = params.ring_dimension // 2
    assert smaller // 2 < slots or params.log_qp > max_log_qp(smaller)


def test_choose_says_what_to_change_when_nothing_is_secure() -> None:
    with pytest.raises(ParameterError, match="Lower the depth or the scale"):
        choose(100, 45, 10)
    with pytest.raises(ParameterError, match="at least 0 and 1"):
        choose(-1, 40, 10)
