"""run.json and its schema."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from cli_fakes import fake_record, partial_ledger
from pydantic import ValidationError

from hefw.config import Config
from hefw.record import INSECURE, SCHEMA_PATH, SIMULATED, RunRecord, machine_info, schema_text, versions_info


def sample(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(fake_record(**changes).to_json())
    return values


def test_schema_is_current() -> None:
    assert SCHEMA_PATH.read_text(encoding="utf-8") == schema_text(), "run: python -m hefw.record > hefw/run.schema.json"


def test_sample_validates_and_round_trips() -> None:
    schema = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    for changes in (
        {},
        {"max_abs_error": None, "psnr_db": None},
        {"simulated": True, "insecure": True},
        {
            "config": Config(protocol="update-only", steps=4),
            "ledger": partial_ledger([7, 8, 9, 9], predictions="shown"),
        },
        {"config": Config(prompt=["a cat", "a dog"], steps=2), "trace": ()},
    ):
        record = fake_record(**changes)
        jsonschema.validate(json.loads(record.to_json()), schema)
        assert RunRecord.model_validate_json(record.to_json()) == record


def test_keys_are_those_promised() -> None:
    record = sample()
    assert set(record) == {
        "hefw_record_version",
        "started",
        "simulated",
        "insecure",
        "config",
        "model",
        "protocol",
        "labels",
        "prompts",
        "evaluations",
        "edit",
        "shape",
        "params",
        "seconds",
        "seconds_per_image_step",
        "max_abs_error",
        "psnr_db",
        "bytes",
        "counts",
        "server_threads",
        "peak_rss_bytes",
        "messages",
        "trace",
        "processes",
        "ledger",
        "versions",
        "machine",
    }
    assert set(record["params"]) >= {"ring_dimension", "log_qp", "security_bits", "depth", "scale_bits", "secret"}
    assert set(record["model"]) == {"name", "digest", "scheduler"}
    assert list(record["seconds"]) == [
        *("plan", "keygen", "encode_weights", "select", "encrypt", "evaluate", "transfer", "decrypt"),
        *("model", "twin", "total"),
    ]
    assert set(record["bytes"]) == {"evaluation_keys", "upload_per_step", "download_per_step", "encoded_weights"}
    assert record["messages"] == 3
    assert set(record["trace"][0]) == {"step", "operation", "level", "scale_bits", "seconds"}
    assert set(record["processes"][0]) == {"party", "did", "library", "version", "python", "process"}
    assert record["ledger"]["server_plaintext_fraction"] == 0
    assert record["started"] == "2031-05-17T09:30:00Z"
    assert Config(**record["config"]) == Config(labels="0-3", steps=3)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["seconds", "total"], -1),
        (["counts", "rotate"], 1.5),
        (["ledger", "server_plaintext_fraction"], 1.5),
        (["ledger", "entries", 0, "form"], "secret"),
        (["messages"], 0),
        (["trace", 0, "level"], -1),
        (["trace", 0, "seconds"], -0.5),
        (["processes", 0, "party"], "eavesdropper"),
        (["params", "fresh_level"], -1),
        (["hefw_record_version"], 2),
        (["labels"], [-1]),
        (["prompts"], [3]),
        (["protocol"], "auto"),
        (["evaluations"], 0),
        (["seconds", "model"], -1),
        (["seconds", "twin"], None),
        (["model", "scheduler"], None),
        (["shape"], [1, 8, 8]),
        (["surprise"], 1),
    ],
)
def test_schema_and_model_refuse_alike(path: list[Any], value: Any) -> None:
    record = sample()
    target = record
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    with pytest.raises(ValidationError):
        RunRecord.model_validate_json(json.dumps(record))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, json.loads(schema_text()))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_numbers_are_finite(value: float) -> None:
    with pytest.raises(ValidationError):
        fake_record(psnr_db=value)


@pytest.mark.parametrize(
    ("values", "count", "every", "captions"),
    [
        ({"labels": "3,1", "steps": 6}, 2, 1, ("3", "1")),
        ({"labels": "3,1", "steps": 6, "refresh": {"every": 3}}, 2, 3, ("3", "1")),
        ({"labels": "3,1", "steps": 6, "refresh": "none"}, 2, 6, ("3", "1")),
        ({"labels": "3", "steps": 6, "protocol": "update-only"}, 1, 1, ("3",)),
        ({"prompt": ["a cat", "a dog", "a cat"], "steps": 6}, 3, 1, ("a cat", "a dog", "a cat")),
    ],
)
def test_what_follows_from_the_record(
    values: dict[str, Any], count: int, every: int, captions: tuple[str, ...]
) -> None:
    record = fake_record(Config(**values))
    assert (record.count, record.every, record.captions) == (count, every, captions)


def test_evaluations_between_messages_are_of_the_network_not_of_the_steps() -> None:
    """PNDM evaluates the network 51 times in 50 steps, Heun's method 99 times."""
    config = Config(steps=50, protocol="update-only")
    assert fake_record(config, evaluations=51, messages=51).every == 1
    assert fake_record(config, evaluations=99, messages=33).every == 3


def test_banner() -> None:
    assert fake_record().banner is None
    assert fake_record(simulated=True).banner == SIMULATED
    assert fake_record(insecure=True).banner == INSECURE
    assert fake_record(simulated=True, insecure=True).banner == f"{SIMULATED}; {INSECURE}"


def test_machine_and_versions() -> None:
    machine = machine_info()
    assert machine.cores >= 1
    assert machine.memory_bytes > 2**20
    assert machine.cpu
    assert re.fullmatch(r"3\.\d+\.\d+.*", machine.python)
    versions = versions_info(["numpy", "no-such-distribution"])
    assert versions["no-such-distribution"] == "not installed"
    assert re.match(r"\d+\.\d+", versions["numpy"])
