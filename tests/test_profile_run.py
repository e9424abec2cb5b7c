"""`hefw profile`: regions, operations and noise of a run, its trace, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy_model

from hefw import cli
from hefw.config import Choice, Config
from hefw.core.errors import ProtocolError
from hefw.core.lower import lower
from hefw.profiling import timing
from hefw.profiling.record import Profile
from hefw.profiling.run import profile
from hefw.profiling.trace import to_trace

CONFIG = Config(**toy_model.CONFIG)
UPDATE = Config(model="digits-shallow", protocol="update-only", backend="tenseal", steps=4, labels="0-2")
REQUEST = replace(toy_model.REQUEST, images=3)


@pytest.fixture
def found(toys: None) -> Profile:
    return profile(CONFIG, messages=2)


def test_regions_are_those_of_the_program_with_its_levels(found) -> None:
    program = lower(toy_model.graph(), toy_model.backend(), REQUEST)
    assert [row.name for row in found.regions] == [op.name for op in (*program.prelude, *program.step)]
    levels = program.levels()
    for row in found.regions[len(program.prelude) :]:
        assert (row.level, round(row.scale_bits, 6)) == (levels[row.name][0], round(levels[row.name][1], 6))
        assert row.seconds > 0
    assert (found.images, found.messages, found.of_messages) == (3, 2, toy_model.STEPS)
    assert found.insecure
    assert not found.simulated


def test_counts_of_a_message_are_the_programs(found) -> None:
    program = lower(toy_model.graph(), toy_model.backend(), REQUEST)
    prelude = {op.name for op in program.prelude}
    counted: Counter[str] = Counter()
    for row in found.regions:
        if row.name not in prelude:
            counted.update(row.counts)
    wanted = program.counts()
    for name in ("rotate", "rescale", "mul", "relinearise"):
        assert counted[name] == wanted[name] > 0, name


def test_own_times_add_up(found) -> None:
    """What an operation calls is not counted twice: all own times together are the regions' times."""
    inside = [event for event in found.events if event.region]
    whole = sum(event.seconds for event in inside if event.name == "region")
    assert sum(event.own for event in inside) == pytest.approx(whole)
    assert all(0 <= event.own <= event.seconds for event in found.events)
    assert sum(row.seconds for row in found.operations) == pytest.approx(sum(event.own for event in found.events))
    assert found.overhead > 0


def test_noise_is_measured_and_forecast(found) -> None:
    """Both are there, small, and of one size; without an evaluation of the exact values they would be anything."""
    rows = [row for row in found.regions if not row.kind.endswith("once")]
    assert len(rows) >= 5
    for row in rows:
        assert row.noise is not None
        assert row.forecast is not None
        assert 0 < row.noise.rms <= row.noise.largest < 1e-3
        assert 0.05 < row.noise.rms / row.forecast.rms < 20
        assert row.largest > 0.01
    assert found.psnr_db is not None
    assert found.psnr_db > toy_model.PRECISION_DB


def test_a_wrong_result_shows_as_noise(toys, monkeypatch) -> None:
    from hefw.backends.tenseal.evaluator import TensealEvaluator

    original = TensealEvaluator.square
    monkeypatch.setattr(TensealEvaluator, "square", lambda self, a, **how: self.negate(original(self, a, **how)))
    rows = {row.name: row for row in profile(CONFIG).regions}
    squares = [row for row in rows.values() if row.kind == "square"]
    assert squares[0].noise.rms > 0.01
    assert squares[0].forecast.rms < 1e-3
    assert rows["z0"].noise.rms < 1e-3


def test_the_simulator_and_several_steps_a_message(toys) -> None:
    params = {"ring_dimension": 8192, "precision_db": 30.0}
    found = profile(Config(**{**toy_model.CONFIG, "backend": "simulator", "refresh": {"every": 3}, "params": params}))
    assert found.simulated
    assert (found.messages, found.of_messages) == (1, 1)
    assert found.psnr_db > 25
    assert any("@" in row.name for row in found.regions)
    assert all(row.noise is not None for row in found.regions if not row.kind.endswith("once"))


def test_a_hosted_backend_is_profiled_operation_by_operation(toys) -> None:
    found = profile(Config(**{**toy_model.CONFIG, "backend": {"name": "tenseal", "hosted": True}}))
    assert found.psnr_db > toy_model.PRECISION_DB
    assert {"linear_transform", "square"} <= {row.name for row in found.operations}


# -- update-only -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def update() -> Profile:
    return profile(UPDATE, messages=2)


def test_an_update_is_one_region(update) -> None:
    (row,) = update.regions
    assert row.kind == "update"
    assert row.seconds > 0
    assert row.counts["mul_plain"] == 2  # the latent and the prediction
    assert (update.images, update.messages, update.of_messages) == (3, 2, 4)
    inside = [event for event in update.events if event.region]
    assert {event.step for event in inside} == {0, 1}
    assert sum(event.own for event in inside) == pytest.approx(sum(e.seconds for e in inside if e.name == "region"))
    assert row.level == min(event.level for event in inside if event.level is not None)


def test_what_the_parties_do_in_an_update_is_timed(update) -> None:
    """Two steps: the latent is encrypted once where it stays with the server, the prediction twice."""
    counts = Counter(span.name for span in update.spans)
    assert counts["network"] == counts["server"] == counts["decrypt"] == 2
    assert counts["select"] == 2 * 3
    assert counts["encrypt"] >= 3
    assert counts["make keys"] == 1
    assert set(update.seconds) == set(counts)
    assert all(seconds > 0 for seconds in update.seconds.values())
    assert all(span.start >= 0 for span in update.spans)
    servers = [span for span in update.spans if span.name == "server"]
    for event in update.events:
        if event.region:
            assert any(s.start <= event.start and event.start + event.seconds <= s.start + s.seconds for s in servers)


def test_noise_of_an_update_is_measured_and_forecast(update) -> None:
    (row,) = update.regions
    assert 0 < row.noise.rms <= row.noise.largest < 1e-3
    assert 0.05 < row.noise.rms / row.forecast.rms < 20
    assert row.largest > 0.01
    assert update.psnr_db > 50


def test_a_wrong_update_is_refused(monkeypatch) -> None:
    from hefw.backends.tenseal.evaluator import TensealEvaluator

    original = TensealEvaluator._add_into
    monkeypatch.setattr(
        TensealEvaluator, "_add_into", lambda self, a, b: self._negate(type(a)(original(self, a, b), 0, 1.0, 2))
    )
    with pytest.raises(ProtocolError, match="the server's result is off by"):
        profile(UPDATE)


def test_what_a_strategy_shows_is_added_in_plaintext() -> None:
    """The server then works on fewer ciphertexts, or none: a region without an operation has nothing to tell."""
    found = profile(
        UPDATE.model_copy(update={"strategy": Choice("random", {"fraction": 0.5}), "noise_prediction": "plaintext"})
    )
    (row,) = found.regions
    assert row.noise.rms < 1e-3
    assert found.messages == 1


def test_every_update_of_a_run_and_no_more() -> None:
    found = profile(UPDATE, messages=99)
    assert found.messages == found.of_messages == 4


@pytest.mark.parametrize("backend", ["simulator", {"name": "tenseal", "hosted": True}])
def test_updates_of_other_backends(backend) -> None:
    found = profile(Config(**{**UPDATE.to_dict(), "backend": backend}))
    assert found.psnr_db > 50
    assert found.simulated is (backend == "simulator")
    assert found.operations


def test_the_trace_of_updates(update) -> None:
    trace = json.loads(to_trace(update))
    names = {e["pid"]: e["args"]["name"] for e in trace["traceEvents"] if e["ph"] == "M"}
    where = {e["name"]: names[e["pid"]] for e in trace["traceEvents"] if e["ph"] == "X"}
    assert {where[name] for name in ("network", "select", "encrypt", "decrypt")} == {"key holder"}
    assert {where["server"], where[update.regions[0].name]} == {"server"}


def test_the_command_profiles_updates(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--model", "digits-shallow", "--steps", "3", "--labels", "0-2", "--protocol", "update-only"]
    assert cli.run(["profile", *options, "--messages", "3"]) == 0
    out, err = capsys.readouterr()
    assert "wrote hefw-profile/profile.json" in err
    assert "3 of 3 messages" in out
    for name in ("network", "select", "encrypt", "server", "decrypt"):
        assert f"{name} 0." in out
    assert "…" not in out


# -- timing ------------------------------------------------------------------------------------------------------------


def test_every_operation_of_the_interface_is_timed() -> None:
    from hefw.core.backend import Evaluator

    found = set(timing.operations(Evaluator))
    assert {"rotate", "rotate_many", "mul", "square", "rescale", "encode", "load", "load_keys", "bootstrap"} <= found
    assert not found & timing.NOT_TIMED


def test_a_timed_evaluator_computes_the_same() -> None:
    backend = toy_model.backend("simulator")
    params = lower(toy_model.graph(), backend, REQUEST).params
    evaluator, recorder = backend.evaluator(params), timing.Recorder()
    timing.timed(evaluator, recorder)
    assert type(evaluator).__name__ == "SimulatorEvaluator"
    recorder.region = "here"
    plaintext = evaluator.encode(np.ones(params.slots), 1, 2.0**30)
    assert np.allclose(plaintext.handle, 1, atol=1e-3)
    (event,) = recorder.events
    assert (event.name, event.region, event.level) == ("encode", "here", None)
    with pytest.raises(Exception, match="level 99"):
        evaluator.encode(1.0, 99, 2.0**30)
    assert len(recorder.events) == 1  # what failed is not noted
    evaluator.encode(1.0, 1, 2.0**30)
    assert recorder.events[1].own == recorder.events[1].seconds


# -- what is written ---------------------------------------------------------------------------------------------------


def test_the_trace_is_in_the_trace_event_format(found) -> None:
    """Complete events with the fields that the format wants, which nest: a slice ends before the one around it."""
    trace = json.loads(to_trace(found))
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    names = {e["pid"]: e["args"]["name"] for e in trace["traceEvents"] if e["ph"] == "M"}
    assert set(names.values()) == {"key holder", "server"}
    assert {names[event["pid"]] for event in events if event["name"] == "encrypt"} == {"key holder"}
    assert {names[event["pid"]] for event in events if event["name"] == "z0"} == {"server"}
    for event in events:
        assert {"name", "cat", "ph", "ts", "dur", "pid", "tid", "args"} == event.keys()
        assert event["ts"] >= 0
        assert event["dur"] >= 0
    for pid in names:
        ends: list[float] = []
        for event in (event for event in events if event["pid"] == pid):
            while ends and ends[-1] <= event["ts"] + 1:
                ends.pop()
            end = event["ts"] + event["dur"]
            assert not ends or end <= ends[-1] + 1, event
            ends.append(end)
    regions = [event for event in events if event["cat"] == "region"]
    assert {event["args"]["step"] for event in regions} == {0, 1}
    assert all({"level", "scale_bits"} <= event["args"].keys() for event in regions)


def test_the_command_writes_trace_record_and_table(toys, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--model", "toy", "--scheduler", "toy", "--steps", "3", "--labels", "0-2", "--allow-insecure"]
    options += ["--param", f"ring_dimension={toy_model.RING}", "--precision-db", "100"]
    assert cli.run(["profile", *options]) == 0
    out, err = capsys.readouterr()
    assert "wrote hefw-profile/trace.json" in err
    assert "toy on tenseal 0." in out
    assert "INSECURE" in out
    assert "nothing is private" in out
    assert "z0" in out
    assert "…" not in out
    assert "operations took about" in out
    record = json.loads((tmp_path / "hefw-profile" / "profile.json").read_text())
    assert record["regions"][0]["name"]
    json.loads((tmp_path / "hefw-profile" / "trace.json").read_text())
    assert cli.run(["profile", *options, "--backend", "simulator", "--messages", "9", "--out", "other", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["messages"] == shown["of_messages"] == 3
    assert shown == json.loads((tmp_path / "other" / "profile.json").read_text())
    assert cli.run(["profile", *options, "--messages", "0"]) == 2
    assert capsys.readouterr().err == "error: --messages 0 is not allowed; allowed: an integer from 1\n"


def test_no_server_imports_it(tmp_path: Path) -> None:
    script = "import sys, hefw.protocol.serve; print([m for m in sys.modules if 'profiling' in m or 'hefw.keys' in m])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
