"""The engine does exactly what was counted, encodes each weight once, and takes nothing but what was planned."""

from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from core_graphs import denoiser, samples
from runs import BACKENDS, Session, difference, plain, psnr, small_program

from hefw.core.backend import Evaluator, KeyManifest
from hefw.core.errors import KeyMismatchError, LevelError, ProtocolError, ScaleError
from hefw.core.runner import Runner, Weights

both = pytest.mark.parametrize("backend", ["simulator", "tenseal"])


def session(backend: str, weights: Weights | None = None) -> Session:
    return Session(small_program(backend), BACKENDS[backend], weights)


@both
def test_three_steps_give_the_plaintext_result(backend) -> None:
    values = samples(5, seed=2)
    for found, expected in zip(session(backend).trajectory(values), plain(denoiser(), values), strict=True):
        assert psnr(found["latent"], expected["latent"]) > 80


@both
def test_exactly_the_counted_operations_are_done(backend) -> None:
    run = session(backend)
    program, values = run.program, samples(4)
    run.engine.weights.encode_all(run.evaluator)
    before = Counter(run.evaluator.counts)
    assert before == Counter(encode=program.weight_count)
    run.begin(values)
    assert difference(run.evaluator.counts, before) == program.prelude_counts()
    for step in range(program.interface.steps):
        before = Counter(run.evaluator.counts)
        run.step(step, values)
        assert difference(run.evaluator.counts, before) == program.counts(step)
    assert program.counts(0)["rotate"] > 0
    assert program.counts(0)["relinearise"] == program.counts(0)["mul"] == 2


@both
def test_values_are_given_up_as_soon_as_nothing_reads_them(backend) -> None:
    run, values = session(backend), samples(4)
    ops = run.program.step
    assert set().union(*run.program.spent) >= {op.name for op in ops} - set(run.program.outputs.values())
    run.begin(values)
    alive: dict[str, list[weakref.ref]] = {}

    def watch(step, name, value) -> None:
        number = [op.name for op in ops].index(name)
        gone = set().union(*run.program.spent[: number + 1]) & alive.keys()
        assert not [ref for other in gone for ref in alive[other] if ref() is not None]
        alive[name] = [weakref.ref(ct) for ct in value]

    ports = run.program.interface.inputs.items()
    run.engine.run(0, {name: run.encrypt(name, values[name]) for name, port in ports if not port.once}, watch=watch)
    assert alive.keys() == {op.name for op in ops}


class Recorder:
    """Counts the encodings of each (values, level, scale) of vectors and constants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: Counter[tuple[bytes, int, float]] = Counter()
        plain_encode = Evaluator.encode

        def encode(evaluator, values, level, scale, *, real=False):
            self.seen[np.asarray(values).tobytes(), level, scale] += 1
            return plain_encode(evaluator, values, level, scale, real=real)

        monkeypatch.setattr(Evaluator, "encode", encode)


@both
def test_weights_are_encoded_once_for_all_steps_requests_and_sessions(backend, monkeypatch) -> None:
    recorder = Recorder(monkeypatch)
    weights = Weights(small_program(backend))
    first, second = session(backend, weights), session(backend, weights)
    program = first.program
    first.trajectory(samples(3))
    after_first = Counter(recorder.seen)
    first.trajectory(samples(3, seed=5))
    second.trajectory(samples(3, seed=6))
    steps = program.interface.steps
    per_request = sum(program.counts(step)["encode"] for step in range(steps)) + program.prelude_counts()["encode"]
    assert sum(after_first.values()) == program.weight_count + per_request
    assert sum(recorder.seen.values()) == program.weight_count + 3 * per_request
    total = first.evaluator.counts["encode"] + second.evaluator.counts["encode"]
    assert total == program.weight_count + 3 * per_request


def test_no_weight_is_encoded_twice_at_one_level_and_scale(monkeypatch) -> None:
    recorder = Recorder(monkeypatch)
    program = small_program()
    evaluator = BACKENDS["simulator"].evaluator(program.params)
    weights = Weights(program)
    weights.encode_all(evaluator)
    weights.encode_all(evaluator)
    assert sum(recorder.seen.values()) == program.weight_count
    assert set(recorder.seen.values()) == {1}


def test_progress_and_watch_see_every_region() -> None:
    run = session("simulator")
    run.begin(samples(2))
    progress, watched = [], []
    latent = run.encrypt("latent", samples(2)["latent"])
    run.engine.run(0, {"latent": latent}, progress.append, lambda _, name, cts: watched.append((name, len(cts))))
    assert [p.detail for p in progress] == run.program.regions == [name for name, _ in watched]
    assert [p.done for p in progress] == list(range(1, len(progress) + 1))
    assert {p.total for p in progress} == {len(progress)}


def test_inputs_are_not_changed_by_a_run() -> None:
    for backend in BACKENDS:
        run = session(backend)
        run.begin(samples(2))
        latent = run.encrypt("latent", samples(2)["latent"])
        before = run.holder.decrypt(latent[0])
        once = run.engine.run(0, {"latent": latent})["latent"][0]
        first = run.holder.decrypt(once)
        assert np.abs(run.holder.decrypt(latent[0]) - before).max() < 1e-9
        again = run.engine.run(0, {"latent": latent})["latent"][0]
        assert np.abs(run.holder.decrypt(again) - first).max() < 1e-3


def test_wrong_inputs_are_refused() -> None:
    run = session("simulator")
    values = samples(2)
    latent = run.encrypt("latent", values["latent"])
    with pytest.raises(ProtocolError, match=r"has not begun: label.*call begin first"):
        run.engine.run(0, {"latent": latent})
    with pytest.raises(ProtocolError, match="'label' is missing; sent: latent"):
        run.engine.begin({"latent": latent})
    run.begin(values)
    for step in (-1, 3):
        with pytest.raises(ProtocolError, match=f"step {step} does not exist.*0 to 2"):
            run.engine.run(step, {"latent": latent})
    with pytest.raises(ProtocolError, match="'latent' is missing; sent: none"):
        run.engine.run(0, {})
    with pytest.raises(ProtocolError, match="2 ciphertexts; 1 are expected"):
        run.engine.run(0, {"latent": latent * 2})
    low = run.evaluator.drop_level(latent[0], latent[0].level - 1)
    with pytest.raises(LevelError, match="'latent' has level 4; the program takes level 5"):
        run.engine.run(0, {"latent": [low]})
    with pytest.raises(ScaleError, match="'latent' has scale"):
        run.engine.run(0, {"latent": [replace(latent[0], scale=latent[0].scale * 2)]})
    run.engine.run(0, {"latent": latent})


def test_a_failed_begin_ends_the_request_before_it() -> None:
    run = session("simulator")
    run.begin(samples(2))
    with pytest.raises(ProtocolError, match="missing"):
        run.engine.begin({})
    with pytest.raises(ProtocolError, match="has not begun"):
        run.engine.run(0, {"latent": run.encrypt("latent", samples(2)["latent"])})


def test_missing_keys_are_named_before_anything_runs() -> None:
    program = small_program()
    backend = BACKENDS["simulator"]
    engine = Runner(program, backend.evaluator(program.params))
    listed = r"missing evaluation keys: relinearisation, (rotation/\d+, )+rotation/\d+; the key holder"
    with pytest.raises(KeyMismatchError, match=listed):
        engine.begin({})
    rotations = dict(list(program.interface.keys.rotations.items())[1:])
    holder = backend.keygen(program.params, KeyManifest(rotations))
    engine.load_keys(dict(holder.evaluation_keys()))
    with pytest.raises(KeyMismatchError, match="missing evaluation keys: rotation/"):
        engine.begin({})
