"""A scheduler's updates on a server process: what the network goes on with, and servers that do something else."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import toy_model
from processes import gone, imported_by
from update_session import schedule

import hefw
from hefw import updating
from hefw.core.errors import ProtocolError
from hefw.protocol import wire
from hefw.protocol.process import ServerProcess
from hefw.updating import BOUND, Updating

SHAPE = (2, 1, 4, 4)
STEPS = 4


class Choosing:
    """A strategy whose selections are given, one for each step; of both images alike."""

    packed = False

    def __init__(self, *shares: float) -> None:
        self.shares, self.asked = shares, 0

    def select(self, latent: np.ndarray) -> np.ndarray:
        share = self.shares[self.asked // SHAPE[0] % len(self.shares)]
        self.asked += 1
        return np.arange(latent.size).reshape(latent.shape) < share * latent.size


def run(updates: Updating, requests: int = 1, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What came back after each step of the last request, and what the key holder's own arithmetic was."""
    rng = np.random.default_rng(seed)
    plan = schedule(STEPS)
    for _ in range(requests):
        given, own = [], []
        updates.begin(plan, SHAPE)
        latent = rng.normal(size=SHAPE)
        for step, update in enumerate(plan):
            prediction = rng.normal(size=SHAPE)
            own.append(update.sample * latent + update.predictions[0] * prediction)
            latent = updates.step(step, latent, prediction, None, own[-1])
            given.append(latent)
    return given, own


def make(strategy: object, noise_prediction: str = "encrypted") -> Updating:
    return Updating(toy_model.backend(), {}, strategy, noise_prediction)


def exact(given: list[np.ndarray], own: list[np.ndarray]) -> list[bool]:
    assert all(np.abs(a - b).max() < 1e-3 for a, b in zip(given, own, strict=True))
    return [np.array_equal(a, b) for a, b in zip(given, own, strict=True)]


@pytest.mark.parametrize(
    ("shares", "noise_prediction", "wanted"),
    [
        ((1.0,), "encrypted", [False] * 4),
        ((1.0,), "plaintext", [True, True, True, False]),
        ((0.5,), "encrypted", [True, True, True, False]),
        ((0.0,), "encrypted", [True, True, True, False]),
    ],
)
def test_what_the_network_goes_on_with(shares, noise_prediction, wanted) -> None:
    """Its own latent where anything is shown, else the decrypted one; the last result is always decrypted."""
    updates = make(Choosing(*shares), noise_prediction)
    assert exact(*run(updates)) == wanted
    updates.close()
    assert len(updates.trajectory) == STEPS + 1


def test_what_was_decrypted_is_never_shown_later() -> None:
    """A strategy that encrypts everything at one step and not at the next: from there on all is encrypted."""
    strategy = Choosing(0.5, 1.0, 0.5, 0.0)
    updates = make(strategy)
    assert exact(*run(updates, requests=2)) == [True, False, False, False]
    updates.close()
    assert strategy.asked == 2 * STEPS * SHAPE[0]
    entries = [(e.step, e.entries) for e in updates.client.ledger.of("server") if e.form == "plaintext"]
    assert entries == [(0, 16), (0, 16)] * 2, "of the first step alone, in both requests"


def test_a_request_after_a_decrypted_result_begins_anew() -> None:
    updates = make(Choosing(0.5))
    for _ in range(2):
        assert exact(*run(updates)) == [True, True, True, False]
    updates.close()


# -- the server --------------------------------------------------------------------------------------------------------


def test_one_server_for_requests_of_one_schedule_and_bound() -> None:
    updates = make(Choosing(1.0))
    run(updates, requests=2)
    first = updates.server
    updates.begin(schedule(2), SHAPE)
    updates.step(0, np.full(SHAPE, 3.0), np.zeros(SHAPE), None, schedule(2)[0].sample * np.full(SHAPE, 3.0))
    second = updates.server
    assert second != first
    assert gone(first)
    updates.begin(schedule(2), SHAPE)
    large = np.full(SHAPE, 70.0)
    updates.step(0, large, np.zeros(SHAPE), None, schedule(2)[0].sample * large)
    assert updates.server != second, "values of that size take another modulus, or room in it"
    assert [(e.item, e.form) for e in updates.client.ledger.of("server") if e.item == BOUND] == [(BOUND, "derived")]
    updates.close()
    assert gone(updates.server)


class Lying(ServerProcess):
    """A server whose results are those of another schedule: what it is sent is not what it adds up."""

    wrong = staticmethod(lambda fields: fields)

    def receive(self) -> bytes:
        frame = super().receive()
        message = wire.decode(frame)
        return wire.encode("updated", **self.wrong(dict(message.fields))) if message.kind == "updated" else frame


def scaled(fields: dict) -> dict:
    return {**fields, "values": (1.1 * np.frombuffer(fields["values"], "<f8")).tobytes()}


class Replaying:
    """Answers every step with the ciphertexts of the first."""

    def __init__(self) -> None:
        self.first: list[bytes] | None = None

    def __call__(self, fields: dict) -> dict:
        self.first = self.first or fields["ciphertexts"]
        return {**fields, "ciphertexts": self.first}


@pytest.mark.parametrize(("wrong", "share"), [(scaled, 0.5), (Replaying(), 1.0)], ids=["plaintext", "ciphertext"])
def test_a_server_that_computes_something_else_is_found(monkeypatch, wrong, share) -> None:
    monkeypatch.setattr(Lying, "wrong", staticmethod(wrong))
    monkeypatch.setattr(updating, "ServerProcess", Lying)
    updates = make(Choosing(share))
    with pytest.raises(ProtocolError, match="it computed something else, or values left the range"):
        run(updates)
    updates.close()
    assert gone(updates.server)


def test_a_run_with_such_a_server_is_one_clear_error(monkeypatch) -> None:
    monkeypatch.setattr(Lying, "wrong", staticmethod(scaled))
    monkeypatch.setattr(updating, "ServerProcess", Lying)
    with pytest.raises(ProtocolError, match="the server's result is off by") as caught:
        hefw.generate(protocol="update-only", strategy="random", labels="3", steps=2, backend="tenseal")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", ["tenseal", "simulator"])
def test_modules_of_the_servers_process(monkeypatch, backend) -> None:
    """Neither torch nor what a key holder needs: over a whole run with all that update-only has."""
    said = []

    class Told(ServerProcess):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments, python=(sys.executable, "-X", "importtime"))

        def close(self) -> None:
            said.append(self.stderr())
            super().close()

    monkeypatch.setattr(updating, "ServerProcess", Told)
    config = {"strategy": "sparse", "scheduler": "dpm-solver++", "steps": 3, "labels": "3,1"}
    hefw.generate(protocol="update-only", backend=backend, **config)
    names = imported_by(said[0])
    assert len(names) == len(said[0].splitlines()), "and it says nothing else"
    assert f"hefw.backends.{backend}.evaluator" in names
    assert "hefw.protocol.updates" in names
    forbidden = ("torch", "diffusers", "sklearn", "scipy", "transformers", "pydantic_settings")
    assert not [name for name in names if name.split(".")[0] in forbidden]
    ours = [name for name in names if name.split(".")[0] == "hefw"]
    assert not [n for n in ours if any(word in n for word in ("client", "keyholder", "updating", "models."))]
    assert not {"hefw.run", "hefw.running", "hefw.run_update", "hefw.config"} & set(ours)
