"""run.json and its schema."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from cli_fakes import fake_record
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
    for changes in ({}, {"max_abs_error": None, "psnr_db": None}, {"simulated": True, "insecure": True}):
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
        "labels",
        "shape",
        "params",
        "seconds",
        "seconds_per_image_step",
        "max_abs_error",
        "psnr_db",
        "bytes",
        "counts",
        "peak_rss_bytes",
        "messages",
        "trace",
        "processes",
        "ledger",
        "versions",
        "machine",
    }
    assert set(record["params"]) >= {"ring_dimension", "log_qp", "security_bits", "depth", "scale_bits", "secret"}
    assert set(record["seconds"]) == {"keygen", "encode_weights", "encrypt", "evaluate", "decrypt", "total"}
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
        (["labels"], []),
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
