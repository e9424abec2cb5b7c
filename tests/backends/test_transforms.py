"""Whole linear transforms on residues: bytes and counts of the default, which is used where they cannot be."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hefw.backends.rns import evaluator as evaluators
from hefw.backends.rns import loops
from hefw.backends.rns.places import Plan
from hefw.backends.tenseal.backend import TensealBackend
from hefw.backends.tenseal.native import Native
from hefw.core.backend import Evaluator, Kept, KeyManifest
from hefw.core.errors import EncodingError, KeyMismatchError, LevelError, ScaleError
from hefw.core.linear import Group, Term, Transform
from hefw.core.params import CkksParams

BACKEND = TensealBackend()
PARAMS = BACKEND.resolve(CkksParams(1024, (60, 50, 55), (60,), 30.0, allow_insecure=True))
SLOTS = 512
LEVEL, SCALE, WEIGHT_SCALE = 1, 2.0**30, 2.0**20


def transform(babies, giants, folds=(), outputs=1, chained=True, radix=None) -> Transform:
    """Each output is all giants of all babies of all inputs, with weights that repeat nowhere."""
    terms = [(source, step) for source, steps in enumerate(babies) for step in steps]
    numbers = iter(range(outputs * len(giants) * len(terms)))
    groups = tuple(
        tuple(Group(giant, tuple(Term(source, step, next(numbers)) for source, step in terms)) for giant in giants)
        for _ in range(outputs)
    )
    count = outputs * len(giants) * len(terms)
    values = np.random.default_rng(0).normal(size=(count, SLOTS))
    return Transform(babies, groups, folds, values, (0,) * count, 1, chained, radix)


CASES = {
    "tree": transform((tuple(range(12)),), (0, 12, 24, 36, 500), radix=4),
    "chains": transform(((0, 1, 2, 511), (0, 3)), (0, 8, 16, 24, 504, 496, 488)),
    "direct": transform(((0, 1, 2), (5,)), (0, 7, 9), chained=False),
    "folds": transform(((0, 1),), (4, 8), folds=(64, 128, 192, 256)),
    "outputs": transform(((0, 1, 2),), (0, 4, 8, 508), folds=(256,), outputs=3),
    "no rotation": transform(((0,), (0,)), (0,), outputs=2),
    "one giant step": transform(((0,),), (3,)),
}


@pytest.fixture(scope="module")
def holder():
    steps = {step % SLOTS for made in CASES.values() for step in made.rotations}
    return BACKEND.keygen(PARAMS, KeyManifest(dict.fromkeys(steps, LEVEL)))


@pytest.fixture(scope="module")
def keys(holder) -> dict[str, bytes]:
    return dict(holder.evaluation_keys())


@pytest.fixture
def evaluator(keys) -> Evaluator:
    made = BACKEND.evaluator(PARAMS)
    made.load_keys(keys)
    return made


@pytest.fixture
def transformed(monkeypatch) -> list[Plan]:
    """Plans that are carried out without ciphertexts in between."""
    found: list[Plan] = []
    own = Native.transform

    def noted(self, plan, *arguments):
        found.append(plan)
        return own(self, plan, *arguments)

    monkeypatch.setattr(Native, "transform", noted)
    return found


def given(made: Transform, evaluator: Evaluator, holder, weight_scale: float = WEIGHT_SCALE):
    rng = np.random.default_rng(1)
    values = [rng.normal(size=SLOTS) for _ in made.babies]
    cts = [evaluator.load(holder.encrypt_bytes(x, LEVEL, SCALE)) for x in values]
    return cts, [evaluator.encode(made.weight(k), LEVEL, weight_scale) for k in range(len(made.weights))]


def done(make, evaluator: Evaluator) -> tuple[list[bytes], Counter[str]]:
    evaluator.counts.clear()
    found = [evaluator.dump(ct) for ct in make()]
    return found, Counter(evaluator.counts)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("name", CASES)
def test_bytes_and_counts_of_the_default(holder, evaluator, transformed, name, threads) -> None:
    made = CASES[name]
    cts, weights = given(made, evaluator, holder)
    wanted = done(lambda: Evaluator.linear_transform(evaluator, cts, made, weights), evaluator)
    evaluator.threads = threads
    for _ in range(2):  # in memory that was written before
        assert done(lambda: evaluator.linear_transform(cts, made, weights), evaluator) == wanted
    assert len(transformed) == 2
    assert wanted[1]["rotate"] == len(made.rotations)


@pytest.mark.parametrize("late", [False, True], ids=["never", "late"])
def test_threads_that_come_late_or_never(holder, evaluator, monkeypatch, late) -> None:
    made = CASES["chains"]
    cts, weights = given(made, evaluator, holder)
    wanted = done(lambda: evaluator.linear_transform(cts, made, weights), evaluator)
    waiting = []
    monkeypatch.setattr(loops, "helped", waiting.extend)
    evaluator.threads = 3
    first = evaluator.linear_transform(cts, made, weights)
    assert waiting
    other = evaluator.linear_transform(cts[::-1], made, weights)  # in the same memory
    for work in waiting if late else ():
        work()
    found = [evaluator.dump(ct) for ct in (*first, *other)]
    evaluator.threads = 1
    assert found == wanted[0] + [evaluator.dump(ct) for ct in evaluator.linear_transform(cts[::-1], made, weights)]


class Counted(Kept):
    """How many weights were read."""

    read = 0

    def __getitem__(self, index):
        self.read += 1
        return super().__getitem__(index)


def test_weights_that_stay_are_read_once(holder, evaluator) -> None:
    made = CASES["outputs"]
    cts, weights = given(made, evaluator, holder)
    wanted = done(lambda: evaluator.linear_transform(cts, made, weights), evaluator)
    kept = Counted(weights)
    for _ in range(2):
        assert done(lambda: evaluator.linear_transform(cts, made, kept), evaluator) == wanted
        assert kept.read == len(weights)
    finer = [evaluator.load(holder.encrypt_bytes(np.ones(SLOTS), LEVEL, 2 * SCALE))]
    (ct, *_) = evaluator.linear_transform(finer, made, kept)
    assert ct.scale == 2 * SCALE * WEIGHT_SCALE


@pytest.mark.parametrize(
    ("change", "value"), [("MOST_HELD", 0), ("MOST_PRODUCTS", 3)], ids=["much memory", "long sums"]
)
def test_what_takes_more_is_done_by_the_default(holder, evaluator, transformed, monkeypatch, change, value) -> None:
    monkeypatch.setattr("hefw.backends.rns.places.MOST_PRODUCTS", 64 if change == "MOST_HELD" else value)
    if change == "MOST_HELD":
        monkeypatch.setattr(evaluators, change, value)
    made = CASES["chains"]
    cts, weights = given(made, evaluator, holder)
    wanted = done(lambda: Evaluator.linear_transform(evaluator, cts, made, weights), evaluator)
    assert done(lambda: evaluator.linear_transform(cts, made, weights), evaluator) == wanted
    assert not transformed


def test_without_loops_the_default_gives_the_same_values(holder, keys, evaluator, monkeypatch) -> None:
    made = CASES["outputs"]
    cts, weights = given(made, evaluator, holder)
    wanted = [holder.decrypt(ct) for ct in evaluator.linear_transform(cts, made, weights)]
    monkeypatch.setattr(loops, "missing", lambda: "no module named numba")
    slow = BACKEND.evaluator(PARAMS)
    slow.load_keys(keys)
    with pytest.warns(RuntimeWarning, match="compiled loops cannot be used"):
        found = slow.linear_transform(*given(made, slow, holder)[:1], made, weights)
    assert slow.counts["rotate"] == len(made.rotations)
    assert all(np.abs(holder.decrypt(a) - b).max() < 1e-3 for a, b in zip(found, wanted, strict=True))


def test_a_key_that_was_not_sent_or_serves_lower_levels_only(holder, keys, transformed) -> None:
    made = CASES["folds"]
    some = {name: key for name, key in keys.items() if name != "rotation/192"}
    evaluator = BACKEND.evaluator(PARAMS)
    evaluator.load_keys(some)
    with pytest.raises(KeyMismatchError, match="missing evaluation keys: rotation/192"):
        evaluator.linear_transform(*_in_order(given(made, evaluator, holder), made))
    evaluator.load_keys(keys)
    high = [evaluator.load(holder.encrypt_bytes(np.ones(SLOTS), LEVEL + 1, SCALE))]
    weights = [evaluator.encode(made.weight(k), LEVEL + 1, WEIGHT_SCALE) for k in range(len(made.weights))]
    with pytest.raises(KeyMismatchError, match=r"rotation/\d+ serves levels up to 1"):
        evaluator.linear_transform(high, made, weights)
    assert not transformed


def _in_order(pair, made):
    return pair[0], made, pair[1]


def test_weights_that_do_not_agree(holder, evaluator) -> None:
    made = CASES["tree"]
    cts, weights = given(made, evaluator, holder)
    for number in (1, 30):  # in the first pass, and in a later one
        other = list(weights)
        other[number] = evaluator.encode(made.weight(number), LEVEL, 2 * WEIGHT_SCALE)
        with pytest.raises(ScaleError, match="differs from"):
            evaluator.linear_transform(cts, made, other)
        other[number] = evaluator.encode(made.weight(number), 0, WEIGHT_SCALE)
        with pytest.raises(LevelError, match="differ"):
            evaluator.linear_transform(cts, made, other)
    with pytest.raises(ScaleError, match="does not fit"):
        evaluator.linear_transform(*_in_order(given(made, evaluator, holder, 2.0**81), made))


def test_a_sum_that_hides_nothing_is_refused(holder, evaluator) -> None:
    made = CASES["no rotation"]
    (ct, _), weights = given(made, evaluator, holder)
    opposite = [evaluator.encode((-1.0) ** k, LEVEL, WEIGHT_SCALE) for k in range(len(weights))]
    with pytest.raises(EncodingError, match="transparent"):
        evaluator.linear_transform([ct, ct], made, opposite)
