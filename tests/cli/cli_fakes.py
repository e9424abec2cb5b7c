"""A run made up without any model or encryption, and a registry that knows no real plugin."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hefw import plugins
from hefw.config import Config
from hefw.hookspecs import Entry, Options, hookimpl
from hefw.plugins import Registry
from hefw.record import RunRecord, machine_info, versions_info


class ThreadOptions(Options):
    threads: int = Field(1, ge=1, le=64)
    mode: str | int = "fast"


class WidthOptions(Options):
    width: int = 32


class FakePlugin:
    @hookimpl
    def hefw_backends(self) -> list[Entry]:
        return [Entry("tenseal", "json:loads", "fake", ThreadOptions), Entry("simulator", "json:loads", "fake")]

    @hookimpl
    def hefw_strategies(self) -> list[Entry]:
        return [Entry("full", "json:loads", "fake")]

    @hookimpl
    def hefw_models(self) -> list[Entry]:
        return [Entry("digits", "json:loads", "fake", WidthOptions)]

    @hookimpl
    def hefw_schedulers(self) -> list[Entry]:
        return [Entry("ddim", "json:loads", "fake"), Entry("euler", "json:loads", "fake")]


def fake_registry() -> Registry:
    return plugins.build([("fake", FakePlugin())])


@dataclass(frozen=True)
class FakeResult:
    images: NDArray[np.float64]
    plain: NDArray[np.float64] | None
    labels: tuple[int, ...]
    trajectory: NDArray[np.float64]
    server_view: tuple[bytes, ...]
    record: RunRecord


def ledger_entry(item: str, form: str, step: int | None, party: str = "server") -> dict[str, Any]:
    return {"party": party, "step": step, "item": item, "form": form, "entries": 1024, "bytes": 300_000}


def fake_messages(config: Config) -> int:
    """How often latents go to the server: once a refresh by the key holder."""
    name, steps = config.refresh.name, config.steps
    return 1 if name == "bootstrap" else steps // config.refresh.steps_a_message(steps)


def fake_trace(config: Config, batches: int = 1) -> list[dict[str, Any]]:
    """Three operations a step, each of which takes a level, and bootstrapping between steps where it is asked for."""
    every = config.refresh.steps_a_message(config.steps)
    program_steps = config.steps // every
    trace: list[dict[str, Any]] = []

    def add(step: int, operation: str, level: int, seconds: float) -> None:
        entry = {"step": step, "operation": operation, "level": level, "scale_bits": 40.5, "seconds": seconds}
        trace.append(entry)

    for _ in range(batches):
        for step in range(program_steps):
            for copy in range(every):
                suffix = f"@{copy + 1}" if every > 1 else ""
                for number, operation in enumerate((f"z0{suffix}", f"z0{suffix}.square", f"update{suffix}")):
                    add(step, operation, 3 * (every - copy) - number - 1, 0.25)
            if config.refresh.name == "bootstrap" and step < program_steps - 1:
                add(step, "bootstrap latent", 3 * every, 2.0)
    return trace


def fake_process(party: str, did: str, library: str, process: int) -> dict[str, Any]:
    return {
        "party": party,
        "did": did,
        "library": library,
        "version": "1.2.3",
        "python": "3.11.7",
        "process": process,
    }


def fake_record(config: Config | None = None, *, batches: int = 1, **changes: Any) -> RunRecord:
    config = config or Config(labels="0-3", steps=3)
    messages = range(fake_messages(config))
    every = config.refresh.steps_a_message(config.steps)
    values: dict[str, Any] = {
        "started": datetime.datetime(2031, 5, 17, 9, 30, tzinfo=datetime.timezone.utc),
        "simulated": False,
        "insecure": False,
        "config": config.to_dict(),
        "model": {"name": config.model.name, "digest": "ab" * 32},
        "labels": config.labels,
        "shape": (len(config.labels), 1, 8, 8),
        "params": {
            "ring_dimension": 16384,
            "log_qp": 409.5,
            "security_bits": 128,
            "depth": 3 * every,
            "fresh_level": 3 * every,
            "scale_bits": 40,
            "secret": "uniform ternary",
            "modulus_bits": (55, 55, 59, 59, 59, 59, 60),
            "insecure": False,
        },
        "seconds": {
            "keygen": 2.5,
            "encode_weights": 4.25,
            "encrypt": 0.5,
            "evaluate": 83.0,
            "decrypt": 0.125,
            "total": 91.0,
        },
        "seconds_per_image_step": 0.52,
        "max_abs_error": 1.5e-3,
        "psnr_db": 61.25,
        "bytes": {
            "evaluation_keys": 354_000_000,
            "upload_per_step": 600_000,
            "download_per_step": 110_000,
            "encoded_weights": 900_000_000,
        },
        "counts": {"rotate": 310, "mul_plain": 14_400, "mul": 40, "rescale": 50},
        "peak_rss_bytes": 2_800_000_000,
        "messages": len(messages),
        "trace": fake_trace(config, batches),
        "processes": [
            fake_process("key holder", "noise and labels", "hefw", 4242),
            fake_process("key holder", "keys, encryption, decryption", "seal", 4242),
            fake_process("server", "model, plan", "hefw", 4243),
            fake_process("server", "evaluation on ciphertext", "seal", 4243),
        ],
        "ledger": {
            "server_plaintext_fraction": 0.0,
            "entries": [
                *batches * [ledger_entry("latent x_t", "ciphertext", message) for message in messages],
                *batches * [ledger_entry("labels", "ciphertext", None)],
                ledger_entry("timesteps", "public", None),
                *batches * [ledger_entry("latent x_t", "plaintext", message, "key holder") for message in messages],
            ],
        },
        "versions": versions_info(["hefw", "numpy", "no-such-distribution"]),
        "machine": machine_info(),
    }
    return RunRecord(**(values | changes))


def fake_result(config: Config | None = None, *, twin: bool = True, **changes: Any) -> FakeResult:
    config = config or Config(labels="0-3", steps=3)
    random = np.random.default_rng(1)
    count = len(config.labels)
    messages = fake_messages(config)
    trajectory = random.normal(size=(messages + 1, count, 1, 8, 8))
    return FakeResult(
        images=trajectory[-1],
        plain=trajectory[-1] + 1e-3 if twin else None,
        labels=config.labels,
        trajectory=trajectory,
        server_view=tuple(random.bytes(20_000) for _ in range(messages)),
        record=fake_record(config, **changes),
    )


def fake_run_module(generate: Any) -> Any:
    """What stands for `hefw.run`."""
    return SimpleNamespace(generate=generate)
