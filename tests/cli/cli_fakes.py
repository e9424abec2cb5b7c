"""A run made up without any model or encryption, and a registry that knows no real plugin."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
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
        return [Entry(name, "json:loads", "fake") for name in ("auto", "ddim", "euler")]


def fake_registry() -> Registry:
    return plugins.build([("fake", FakePlugin())])


@dataclass(frozen=True)
class FakeResult:
    images: NDArray[np.float64]
    plain: NDArray[np.float64] | None
    trajectory: NDArray[np.float64]
    after: tuple[int, ...]
    server_view: tuple[bytes, ...]
    record: RunRecord
    source: NDArray[np.float64] | None = None
    mask: NDArray[np.bool_] | None = None


def ledger_entry(
    item: str, form: str, step: int | None, party: str = "server", entries: int = 1024, size: int = 300_000
) -> dict[str, Any]:
    return {"party": party, "step": step, "item": item, "form": form, "entries": entries, "bytes": size}


def fake_protocol(config: Config) -> str:
    return "update-only" if config.prompt or config.protocol == "update-only" else "end-to-end"


def fake_steps(config: Config) -> int:
    return 10 if config.steps is None else config.steps


def fake_messages(config: Config) -> int:
    """How often latents go to the server: once a refresh by the key holder, or once an update."""
    name, steps = config.refresh.name, fake_steps(config)
    if fake_protocol(config) == "update-only":
        return steps
    return 1 if name == "bootstrap" else steps // config.refresh.steps_a_message(steps)


def fake_trace(config: Config, batches: int = 1) -> list[dict[str, Any]]:
    """Three operations a step, each of which takes a level, and bootstrapping between steps where it is asked for.

    In update-only one operation a step, which takes none.
    """
    steps = fake_steps(config)
    every = config.refresh.steps_a_message(steps)
    program_steps = steps // every
    trace: list[dict[str, Any]] = []

    def add(step: int, operation: str, level: int, seconds: float) -> None:
        entry = {"step": step, "operation": operation, "level": level, "scale_bits": 40.5, "seconds": seconds}
        trace.append(entry)

    if fake_protocol(config) == "update-only":
        for step in range(steps):
            add(step, "update", 0, 0.001)
        return trace
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


def fake_ledger(config: Config, batches: int = 1) -> dict[str, Any]:
    """Everything encrypted: latents, labels where the server evaluates the network, else noise predictions."""
    messages = range(fake_messages(config))
    sent = [ledger_entry("latent", "ciphertext", message) for message in messages]
    if fake_protocol(config) == "update-only":
        predictions = [ledger_entry("prediction", "ciphertext", message) for message in messages]
        entries = [entry for pair in zip(sent, predictions, strict=True) for entry in pair]
        entries += [ledger_entry("result", "plaintext", message, "key holder") for message in messages]
    else:
        batch = [ledger_entry("label", "ciphertext", None, entries=160), *sent]
        entries = batches * (
            batch + [ledger_entry("latent", "plaintext", message, "key holder") for message in messages]
        )
    setup = ledger_entry("parameters, schedule, shapes, counts and precision wanted", "public", None, entries=0, size=0)
    return {"server_plaintext_fraction": 0.0, "entries": [setup, *entries]}


def partial_ledger(
    shown: Sequence[int], of: int = 640, *, predictions: str | None = None, form: str = "derived"
) -> dict[str, Any]:
    """A strategy that shows some entries of every latent, and as many of every noise prediction, or `predictions` all
    in plaintext; of end-to-end where that is None."""
    entries = []
    plain = 0
    for message, count in enumerate(shown):
        told = [("latent", count)]
        if predictions is not None:
            told.append(("prediction", of if predictions == "plaintext" else count))
        for item, clear in told:
            plain += clear
            if clear < of:
                entries.append(ledger_entry(item, "ciphertext", message, entries=of - clear))
            if clear:
                entries.append(ledger_entry(item, "plaintext", message, entries=clear, size=4 * clear))
                entries.append(ledger_entry(f"selection of {item}", form, message, entries=of, size=of // 8))
    private = of * len(shown) * (1 if predictions is None else 2)
    return {"server_plaintext_fraction": plain / private, "entries": entries}


def fake_record(config: Config | None = None, *, batches: int = 1, **changes: Any) -> RunRecord:
    config = config or Config(labels="0-3", steps=3)
    protocol = fake_protocol(config)
    messages = fake_messages(config)
    steps = fake_steps(config)
    every = config.refresh.steps_a_message(steps)
    labels = () if config.prompt else config.labels
    alone = protocol == "update-only"
    values: dict[str, Any] = {
        "started": datetime.datetime(2031, 5, 17, 9, 30, tzinfo=datetime.timezone.utc),
        "simulated": False,
        "insecure": False,
        "config": config.to_dict() | {"steps": steps},
        "protocol": protocol,
        "model": {"name": config.model.name, "digest": "ab" * 32, "scheduler": "DDIMScheduler"},
        "labels": labels,
        "prompts": config.prompt,
        "evaluations": steps,
        "shape": (len(labels) or len(config.prompt), 1, 8, 8),
        "params": {
            "ring_dimension": 16384,
            "log_qp": 409.5,
            "security_bits": 128,
            "depth": 1 if alone else 3 * every,
            "fresh_level": 0 if alone else 3 * every,
            "scale_bits": 40,
            "secret": "uniform ternary",
            "modulus_bits": (55, 55, 59, 59, 59, 59, 60),
            "insecure": False,
        },
        "seconds": {
            "plan": 1.75,
            "keygen": 2.5,
            "encode_weights": 4.25,
            "select": 0.0625,
            "encrypt": 0.5,
            "evaluate": 83.0,
            "transfer": 0.5,
            "decrypt": 0.125,
            "model": 30.0 if alone else 0.0,
            "twin": 31.0,
            "total": 121.0 if alone else 91.0,
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
        "messages": messages,
        "trace": fake_trace(config, batches),
        "processes": [
            fake_process("key holder", "noise and labels", "hefw", 4242),
            fake_process("key holder", "keys, encryption, decryption", "seal", 4242),
            fake_process("server", "model, plan", "hefw", 4243),
            fake_process("server", "evaluation on ciphertext", "seal", 4243),
        ],
        "ledger": fake_ledger(config, batches),
        "versions": versions_info(["hefw", "numpy", "no-such-distribution"]),
        "machine": machine_info(),
    }
    return RunRecord(**(values | changes))


def fake_result(config: Config | None = None, *, twin: bool = True, **changes: Any) -> FakeResult:
    config = config or Config(labels="0-3", steps=3)
    record = fake_record(config, **changes)
    random = np.random.default_rng(1)
    moments = range(record.messages + 1)
    trajectory = random.normal(size=(len(moments), *record.shape))
    return FakeResult(
        images=trajectory[-1],
        plain=trajectory[-1] + 1e-3 if twin else None,
        trajectory=trajectory,
        after=tuple(record.every * moment for moment in moments),
        server_view=tuple(random.bytes(20_000) for _ in range(record.messages)),
        record=record,
    )


def fake_run_module(generate: Any) -> Any:
    """What stands for `hefw.run`."""
    return SimpleNamespace(generate=generate)
