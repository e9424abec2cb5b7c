"""Stored keys of a wrapped pipeline: made for the updates of a call, used again, refused where they do not serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import hefw
from hefw.core.errors import ConfigError, KeyStoreError
from hefw.keys import sealing, store
from hefw.testing.pipelines import tiny_pipeline

pytestmark = pytest.mark.usefixtures("one_thread")

WORD = "correct horse"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty key store, and scrypt in less time than an attacker should be given."""
    monkeypatch.setenv("HEFW_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HEFW_PASSPHRASE", raising=False)
    monkeypatch.setattr(sealing, "LOG_N", 10)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_pipeline("v1")


def draw(pipe: Any, steps: int = 3) -> Any:
    generator = torch.Generator("cpu").manual_seed(3)
    return pipe(["a red cat"], num_inference_steps=steps, generator=generator, output_type="pt").images


@pytest.mark.parametrize("backend", ["simulator", "tenseal"])
def test_keys_of_one_call_serve_the_next_ones(pipe, backend) -> None:
    plain = draw(pipe)
    with hefw.wrap(pipe, backend=backend) as first:
        draw(first)
        made = first.hefw.make_keys("alice")
    assert made.record.made_for == "a wrapped pipeline, update-only"
    assert made.record.backend == backend
    used = []
    for _ in range(2):
        with hefw.wrap(pipe, backend=backend, keys="alice") as again:
            images = draw(again)
            used.append(again.hefw._updating.client._keys.key_id.hex())
        assert float(((images - plain) ** 2).mean()) < 1e-5
    assert used == [made.record.key_id] * 2


def test_keys_are_made_after_a_session_was_closed_too(pipe) -> None:
    with hefw.wrap(pipe, backend="simulator") as wrapped:
        draw(wrapped)
    assert wrapped.hefw.make_keys("alice").name == "alice"
    with pytest.raises(KeyStoreError, match="key set 'alice' is there already"):
        wrapped.hefw.make_keys("alice")


def test_a_passphrase(pipe, monkeypatch) -> None:
    with hefw.wrap(pipe, backend="simulator") as wrapped:
        draw(wrapped)
        assert wrapped.hefw.make_keys("alice", WORD).record.sealed
    with pytest.raises(KeyStoreError, match="key set 'alice': it has a passphrase"):
        hefw.wrap(pipe, backend="simulator", keys="alice")
    with pytest.raises(KeyStoreError, match="wrong passphrase"):
        hefw.wrap(pipe, backend="simulator", keys="alice", passphrase="wrong")
    with hefw.wrap(pipe, backend="simulator", keys="alice", passphrase=WORD) as again:
        draw(again)
    monkeypatch.setenv("HEFW_PASSPHRASE", WORD)
    with hefw.wrap(pipe, backend="simulator", keys="alice") as again:
        draw(again)


def test_keys_that_do_not_serve(pipe) -> None:
    with hefw.wrap(pipe, backend="simulator") as wrapped:
        draw(wrapped)
        wrapped.hefw.make_keys("alice")
    other = hefw.wrap(pipe, backend="simulator", keys="alice", params={"ring_dimension": 32768})
    with pytest.raises(
        KeyStoreError,
        match=r"^key set 'alice' does not serve this run: its parameters are N = .*; make one that does: call the "
        r"pipeline that was wrapped without keys, then its hefw\.make_keys\('alice-2'\)$",
    ):
        draw(other)
    other.hefw.close()
    with pytest.raises(KeyStoreError, match="its keys are of backend 'simulator', the run's is 'tenseal'"):
        draw(hefw.wrap(pipe, backend="tenseal", keys="alice"))


def test_no_such_set_and_no_call_yet(pipe) -> None:
    with pytest.raises(KeyStoreError, match="unknown key set 'bob'"):
        hefw.wrap(pipe, backend="simulator", keys="bob")
    with pytest.raises(ConfigError, match="keys"):
        hefw.wrap(pipe, backend="simulator", keys="../bob")
    with pytest.raises(ConfigError, match="call the pipeline once, then make_keys"):
        hefw.wrap(pipe, backend="simulator").hefw.make_keys("alice")
    assert store.names() == []
