"""`hefw.generate`: from a configuration to pictures and a record."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import jsonschema
import numpy as np
import psutil
import pytest
import toy_model

import hefw
from hefw import plugins, run, running
from hefw.backends.openfhe import plugin as openfhe_plugin
from hefw.config import Config
from hefw.core.errors import (
    CapabilityError,
    ConfigError,
    HefwError,
    LoweringError,
    ParameterError,
    ProtocolError,
    SchedulerError,
)
from hefw.core.program import Interface
from hefw.protocol import client
from hefw.protocol.process import ServerProcess
from hefw.record import INSECURE, SCHEMA_PATH, SIMULATED

TOY = toy_model.CONFIG
GREY = 2 / 255


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> list[ServerProcess]:
    """The server processes that runs start."""
    started = []

    def start(*args: object, **options: object) -> ServerProcess:
        started.append(ServerProcess(*args, **options))
        return started[-1]

    monkeypatch.setattr(run, "ServerProcess", start)
    return started


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs make their temporary folders."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def valid(result: run.Result) -> None:
    jsonschema.validate(json.loads(result.record.to_json()), json.loads(SCHEMA_PATH.read_text()))


# -- the toy model on a small insecure ring ---------------------------------------------------------------------------


@pytest.fixture
def toy(toys: None) -> run.Result:
    return hefw.generate(**TOY)


def test_pictures_are_the_twins(toy) -> None:
    assert toy.images.shape == (3, 1, 4, 4)
    assert toy_model.psnr(toy.images, toy.plain) >= toy_model.PRECISION_DB
    assert toy.record.psnr_db == pytest.approx(toy_model.psnr(toy.images, toy.plain))
    assert toy.record.max_abs_error == pytest.approx(np.abs(toy.images - toy.plain).max())
    assert toy.trajectory.shape == (toy_model.STEPS + 1, 3, 1, 4, 4)
    assert np.array_equal(toy.trajectory[-1], toy.images)
    assert len(toy.server_view) == toy_model.STEPS
    valid(toy)


def test_versions_are_those_of_the_library_that_ran(toy) -> None:
    assert set(toy.record.versions) == {"hefw", "numpy", "torch", "diffusers", "tenseal"}


def test_an_insecure_run_says_so(toy) -> None:
    record = toy.record
    assert record.insecure
    assert record.params.insecure
    assert record.params.security_bits == 0
    assert not record.simulated
    assert record.banner == INSECURE


def test_insecure_parameters_are_refused_by_default(toys, servers) -> None:
    with pytest.raises(HefwError):
        hefw.generate(**{**TOY, "allow_insecure": False})
    assert not any(psutil.pid_exists(server.pid) for server in servers)


def test_a_simulated_run_says_so(toys) -> None:
    record = hefw.generate(**{**TOY, "backend": "simulator"}).record
    assert record.simulated
    assert record.params.secret == "none"
    assert record.banner.startswith(SIMULATED)
    assert set(record.versions) == {"hefw", "numpy", "torch", "diffusers"}  # and no HE library that was not used


def test_overrides_win_over_a_config_and_a_file(toys, tmp_path) -> None:
    config = Config(**{**TOY, "labels": "1", "seed": 5, "backend": "simulator"})
    assert hefw.generate(config).labels == (1,)
    result = hefw.generate(config, labels="2,0", seed=6)
    assert result.labels == (2, 0)
    assert (result.record.config["seed"], result.record.config["backend"]) == (6, "simulator")
    path = tmp_path / "run.json.yaml"
    path.write_text(json.dumps(config.to_dict()))
    assert hefw.generate(path, labels=[2]).labels == (2,)


@pytest.mark.parametrize(("labels", "batch", "batches"), [([0, 1, 2, 0, 1], 2, 3), ([0, 1] * 33, "auto", 1)])
def test_batches_give_the_pictures_of_one(toys, labels, batch, batches) -> None:
    """Five images in requests of two; and more images than fit beside each other in one ciphertext a tensor."""
    result = hefw.generate(**{**TOY, "labels": labels, "batch": batch})
    assert len(labels) > toy_model.BATCH or batch == 2
    assert toy_model.psnr(result.images, result.plain) >= toy_model.PRECISION_DB
    begun = [e for e in result.record.ledger.entries if e.item == "label"]
    assert len(begun) == batches
    assert sum(e.entries for e in begun) == len(labels) * toy_model.LABELS
    assert len(result.server_view) == toy_model.STEPS
    one = hefw.generate(**{**TOY, "labels": labels[:5]})
    assert np.abs(one.images - result.images[:5]).max() <= GREY


def test_a_batch_beyond_the_ciphertext_is_what_the_ciphertext_holds(toys) -> None:
    result = hefw.generate(**{**TOY, "batch": 10**6, "backend": "simulator"})
    assert toy_model.psnr(result.images, result.plain) >= toy_model.PRECISION_DB


def test_the_seed_fixes_the_noise_and_nothing_else(toys) -> None:
    first, again, other = (hefw.generate(**{**TOY, "seed": seed}) for seed in (3, 3, 4))
    more = hefw.generate(**{**TOY, "seed": 3, "labels": "0-2,0-2", "steps": 2})
    assert np.array_equal(first.trajectory[0], again.trajectory[0])
    assert np.array_equal(first.trajectory[0], more.trajectory[0][:3])
    assert not np.isclose(first.trajectory[0], other.trajectory[0]).any()
    assert np.abs(first.images - again.images).max() <= GREY
    assert not np.array_equal(first.images, again.images)  # other keys, other noise of encryption
    assert not set(first.server_view) & set(again.server_view)


def test_the_global_random_state_is_left_alone(toys) -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    hefw.generate(**{**TOY, "backend": "simulator"})
    assert np.array_equal(before, np.random.get_state()[1])


def test_progress_goes_through_the_stages(toys) -> None:
    told = []
    hefw.generate(**{**TOY, "batch": 2}, progress=told.append)
    stages = list(dict.fromkeys(p.stage for p in told))
    assert stages == ["plan", "keygen", "encode", "label", "evaluate", "twin"]
    assert all(0 <= p.done <= p.total for p in told)
    for stage in ("keygen", "evaluate", "twin"):
        done = [p.done for p in told if p.stage == stage]
        assert done == sorted(done)
        assert done[-1] == next(p.total for p in reversed(told) if p.stage == stage)


def test_the_record_counts_what_was_done(toys) -> None:
    one = hefw.generate(**{**TOY, "batch": 3}).record
    two, half = (hefw.generate(**{**TOY, "batch": 2, "labels": labels}).record for labels in ("0-2", "0,1"))
    for name in ("rotate", "mul", "rescale", "relinearise"):
        assert two.counts[name] == 2 * half.counts[name]
    assert one.ledger.server_plaintext_fraction == 0
    assert one.seconds_per_image_step == pytest.approx(one.seconds.evaluate / (3 * toy_model.STEPS))
    parts = one.seconds.model_dump()
    assert parts.pop("total") > parts["keygen"] + parts["encrypt"] + parts["evaluate"] + parts["decrypt"]
    keys = [e.bytes for e in one.ledger.entries if e.item.startswith("evaluation key")]
    assert one.bytes.evaluation_keys == sum(keys)
    assert {e.form for e in one.ledger.entries if e.party == "server"} == {"public", "ciphertext"}


def test_a_strategy_that_leaves_entries_in_plaintext(toys) -> None:
    """Half of each latent is shown, rounded to 8 bits; the ciphertext holds what that leaves of it."""
    full, half = (hefw.generate(**{**TOY, "strategy": name}) for name in ("full", "half"))
    assert np.abs(full.images - half.images).max() <= GREY
    assert toy_model.psnr(half.images, half.plain) >= toy_model.PRECISION_DB
    latents, label, steps = 3 * toy_model.PIXELS, 3 * toy_model.LABELS, toy_model.STEPS
    found = [(e.item, e.step, e.form, e.entries) for e in half.record.ledger.entries if e.form not in ("public",)]
    shown = [
        entry
        for step in range(steps)
        for entry in (
            ("latent", step, "ciphertext", latents // 2),
            ("latent", step, "plaintext", latents // 2),
            ("selection of latent", step, "derived", latents),
            ("unit of latent", step, "derived", 1),
        )
    ]
    assert [entry for entry in found if entry[1] is not None and entry not in shown] == [
        ("latent", step, "plaintext", latents) for step in range(steps)
    ], "what the key holder decrypts"
    assert sorted(entry for entry in found if entry in shown) == sorted(shown)
    assert half.record.ledger.server_plaintext_fraction == pytest.approx(
        steps * latents / 2 / (steps * latents + label)
    )
    assert full.record.ledger.server_plaintext_fraction == 0
    valid(half)


# -- refresh -----------------------------------------------------------------------------------------------------------

COARSE = {**TOY, "backend": "simulator", "params": {"ring_dimension": toy_model.RING, "precision_db": 60}}
#: What of 60 dB asked for is measured at least: the forecast is that of a usual run.
COARSE_DB = 55.0


@pytest.fixture
def toys_and_openfhe(toys, monkeypatch) -> None:
    """The toy model, and a backend that can bootstrap."""
    found = toy_model.toy_registry(("openfhe", openfhe_plugin))
    monkeypatch.setattr(plugins, "registry", lambda: found)
    monkeypatch.setattr(running, "registry", lambda: found)


def twins(result: run.Result, steps: int) -> list[np.ndarray]:
    """The plaintext twin's images after each step."""
    model, found = toy_model.ToyModel(None), []
    labels = np.array(result.labels)
    model.twin(result.trajectory[0], labels, None, steps, lambda step, latents: found.append(latents))
    return found


def test_none_does_all_steps_from_one_message(toys) -> None:
    result = hefw.generate(**{**COARSE, "refresh": "none"})
    record = result.record
    assert record.messages == len(result.server_view) == 1
    assert result.trajectory.shape == (2, 3, 1, 4, 4)
    assert np.array_equal(result.trajectory[-1], result.images)
    assert toy_model.psnr(result.images, result.plain) >= COARSE_DB
    assert np.array_equal(result.plain, twins(result, toy_model.STEPS)[-1])
    decrypted = [e for e in record.ledger.entries if e.party == "key holder"]
    assert [(e.item, e.step, e.entries) for e in decrypted] == [("latent", 0, 3 * toy_model.PIXELS)]
    assert record.seconds_per_image_step == pytest.approx(record.seconds.evaluate / (3 * toy_model.STEPS))
    assert {item.step for item in record.trace} == {0}
    assert [item.operation for item in record.trace if item.operation.startswith("update")] == [
        "update@1",
        "update@2",
        "update@3",
    ]
    levels = [item.level for item in record.trace]
    assert record.params.fresh_level >= levels[0] > levels[-1] >= 0
    valid(result)


@pytest.mark.parametrize("backend", ["simulator", "tenseal"])
def test_every_second_step_is_a_message(toys, backend) -> None:
    """What is decrypted of each message is the twin's picture after two and after four steps, in both batches."""
    result = hefw.generate(
        **{**COARSE, "backend": backend, "refresh": {"name": "client", "every": 2}, "steps": 4, "batch": 2}
    )
    record = result.record
    assert record.messages == len(result.server_view) == 2
    assert result.trajectory.shape == (3, 3, 1, 4, 4)
    after = twins(result, 4)
    for found, expected in zip(result.trajectory[1:], (after[1], after[3]), strict=True):
        assert toy_model.psnr(found, expected) >= COARSE_DB
    assert [e.step for e in record.ledger.entries if e.item == "latent" and e.party == "server"] == [0, 1, 0, 1]
    assert [item.step for item in record.trace if item.operation == "update@2"] == [0, 1, 0, 1]
    valid(result)


def test_every_must_divide_the_steps(toys, servers) -> None:
    with pytest.raises(LoweringError) as caught:
        hefw.generate(**{**TOY, "steps": 6, "refresh": {"name": "client", "every": 4}})
    assert str(caught.value) == "every 4 does not divide 6 steps; choose one of 1, 2, 3, 6"
    assert not servers


def test_too_many_steps_for_one_message(toys) -> None:
    """The toy's ring has room for three steps."""
    with pytest.raises(LoweringError, match=r"^12 steps a message, .* ask for fewer steps") as caught:
        hefw.generate(**{**COARSE, "refresh": "none", "steps": 12})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reason", "able"),
    [(None, "openfhe"), ("openfhe not installed", "openfhe (run: hefw backends install openfhe)")],
)
def test_a_backend_that_cannot_bootstrap(toys_and_openfhe, servers, monkeypatch, reason, able) -> None:
    monkeypatch.setattr(plugins, "unavailable", lambda entry: reason if entry.name == "openfhe" else None)
    with pytest.raises(CapabilityError) as caught:
        hefw.generate(**{**COARSE, "refresh": "bootstrap"})
    assert str(caught.value) == (
        f"backend 'simulator' cannot bootstrap; those that can: {able}. Choose one of them, or use refresh: client"
    )
    assert not servers


def test_no_backend_can_bootstrap(toys) -> None:
    with pytest.raises(CapabilityError, match="those that can: none"):
        hefw.generate(**{**COARSE, "refresh": "bootstrap"})


@pytest.mark.parametrize("params", [{"ring_dimension": 4096, "modulus_bits": [60, 60]}, {"ring_dimension": 4096}])
def test_bootstrapping_decides_its_parameters_itself(toys_and_openfhe, servers, params) -> None:
    changes = {"backend": "openfhe", "refresh": "bootstrap", "params": params}
    with pytest.raises(ParameterError, match=r"cannot be chosen where the server bootstraps.*leave them out") as caught:
        hefw.generate(**{**COARSE, **changes})
    assert "\n" not in str(caught.value)
    assert not any(psutil.pid_exists(server.pid) for server in servers)


@pytest.mark.parametrize(("every", "bootstraps"), [(1, 3), (2, 1)])
def test_the_server_bootstraps(toys_and_openfhe, every, bootstraps) -> None:
    refresh = {"name": "bootstrap", "every": every}
    changes = {"backend": "openfhe", "refresh": refresh, "steps": 4, "params": {"precision_db": 60}}
    result = hefw.generate(**{**COARSE, **changes})
    record = result.record
    assert record.messages == len(result.server_view) == 1
    assert result.trajectory.shape == (2, 3, 1, 4, 4)
    assert toy_model.psnr(result.images, result.plain) >= COARSE_DB
    assert record.counts["bootstrap"] == bootstraps
    given_back = [item.level for item in record.trace if item.operation == "bootstrap latent"]
    assert given_back == [record.params.fresh_level] * bootstraps
    assert record.params.secret == "sparse ternary, encapsulated"
    assert [e.step for e in record.ledger.entries if e.party == "key holder"] == [4 // every - 1]
    assert {item.library for item in record.processes} == {"hefw", "openfhe"}
    valid(result)


def test_the_record_says_which_process_did_what(toys, servers) -> None:
    record = hefw.generate(**COARSE).record
    assert [(item.party, item.library, item.process) for item in record.processes] == [
        ("key holder", "hefw", os.getpid()),
        ("key holder", "numpy", os.getpid()),
        ("server", "hefw", servers[0].pid),
        ("server", "numpy", servers[0].pid),
    ]


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"labels": "0-3"}, ConfigError, "label 3 is not one of model 'toy'; allowed 0-2"),
        ({"labels": "x"}, ConfigError, "'x' is not a label"),
        ({"steps": 0}, ConfigError, "steps: 0 is not allowed"),
        ({"backend": "tensela"}, ConfigError, "unknown backend 'tensela'; did you mean 'tenseal'"),
        ({"params": {"modulus_bits": [60, 60]}}, ParameterError, "modulus_bits are given without ring_dimension"),
        ({"params": {"special_bits": [60]}}, ParameterError, "special_bits are given without modulus_bits"),
        (
            {"params": {"ring_dimension": 4096, "special_bits": [60]}},
            ParameterError,
            "special_bits are given without modulus_bits",
        ),
        (
            {"params": {"ring_dimension": 4096, "modulus_bits": [60]}},
            LoweringError,
            "the modulus chain .60. is too short",
        ),
        ({"params": {"ring_dimension": 4096, "modulus_bits": [10, 10]}}, ConfigError, "params.modulus_bits: 10 is not"),
        (
            {"params": {"ring_dimension": 4096, "modulus_bits": [60, 60]}, "allow_insecure": False},
            ParameterError,
            "below 128-bit security",
        ),
        ({"params": {"ring_dimension": 131072}}, HefwError, "no ring dimension 131072"),
    ],
)
def test_bad_input(toys, servers, changes, error, words) -> None:
    with pytest.raises(error, match=words) as caught:
        hefw.generate(**{**TOY, **changes})
    assert "\n" not in str(caught.value)
    assert not any(psutil.pid_exists(server.pid) for server in servers)


def test_a_chain_of_the_users(toys) -> None:
    params = {"ring_dimension": 2048, "modulus_bits": [60, 60, 60, 60]}
    record = hefw.generate(**{**TOY, "params": params}).record
    assert record.params.modulus_bits == (60, 60, 60, 60, 60)
    assert record.params.log_qp == 300


# -- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["plan", "keygen", "label", "evaluate", "twin"])
def test_an_interrupt_leaves_nothing_behind(toys, servers, temporary, stage) -> None:
    def interrupt(progress) -> None:
        if progress.stage == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hefw.generate(**TOY, progress=interrupt)
    assert len(servers) == 1
    assert not psutil.pid_exists(servers[0].pid)
    assert list(temporary.iterdir()) == []


def test_a_run_leaves_nothing_behind(toys, servers, temporary) -> None:
    hefw.generate(**TOY)
    assert not psutil.pid_exists(servers[0].pid)
    assert list(temporary.iterdir()) == []


def test_showing_more_than_the_limit_is_one_clear_error(toys, servers, temporary, monkeypatch) -> None:
    monkeypatch.setattr(client, "SHOWN_LIMIT", 30)
    with pytest.raises(ProtocolError, match="step 1 would show more than 30 decrypted entries") as caught:
        hefw.generate(**{**TOY, "strategy": "half"})
    assert "\n" not in str(caught.value)
    assert not psutil.pid_exists(servers[0].pid)
    assert list(temporary.iterdir()) == []


def test_a_server_that_dies_is_one_clear_error(toys, servers, temporary) -> None:
    def kill(progress) -> None:
        if progress.stage == "evaluate" and progress.done == 2:
            psutil.Process(servers[0].pid).kill()

    with pytest.raises(ProtocolError, match=r"^the server process ended by signal 9$"):
        hefw.generate(**TOY, progress=kill)
    assert not psutil.pid_exists(servers[0].pid)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("change", [{"timesteps": (3, 2, 1)}, {"inputs": {}}, {"outputs": {}}])
def test_a_manifest_of_another_schedule_or_shape(toys, servers, monkeypatch, change) -> None:
    """Its digest is the right one, but a server may say anything."""
    unpack = Interface.unpack
    monkeypatch.setattr(Interface, "unpack", lambda data: Interface(**{**vars(unpack(data)), **change}))
    with pytest.raises(ProtocolError, match="the server's manifest is not that of this model"):
        hefw.generate(**TOY)
    assert not psutil.pid_exists(servers[0].pid)


def test_a_number_of_steps_that_a_scheduler_refuses(servers) -> None:
    for protocol in ("update-only", "end-to-end"):
        with pytest.raises(SchedulerError, match=r"^PNDMScheduler refuses .*2.*broadcast") as caught:
            hefw.generate(protocol=protocol, scheduler="pndm", steps=2, labels="3")
        assert "\n" not in str(caught.value)
    assert not servers


# -- digits -----------------------------------------------------------------------------------------------------------


@pytest.mark.secure
def test_digits_at_128_bits(servers) -> None:
    """The bundled model on the real backend at default parameters; nothing is made smaller but steps and labels."""
    result = hefw.generate(labels="3,1,4", steps=2, backend="tenseal", seed=1)
    record = result.record
    valid(result)
    assert record.max_abs_error <= 1e-2
    assert record.psnr_db >= 50
    assert record.ledger.server_plaintext_fraction == 0
    assert record.bytes.evaluation_keys <= 0.5e9
    assert record.params.security_bits >= 128
    assert record.params.depth <= 10
    assert record.params.secret == "uniform ternary"
    assert not record.insecure
    assert not record.simulated
    assert record.banner is None
    assert result.images.shape == (3, 1, 8, 8)
    assert len(servers) == 1
