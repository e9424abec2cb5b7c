"""A run whose updates the paper's own implementation computes (`hefw.bench.published`), to stand beside hefw's.

    python -m hefw.bench.paper full --model digits --steps 50 --labels 0

One process, key holder and server in one, as published: nothing is sent, and nobody sees anything. What is counted as
shown is what a server that did the published update would see: the entries that are not encrypted, and predictions.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hefw.bench import published
from hefw.bench.published import Published, Step
from hefw.config import Config
from hefw.core.errors import CapabilityError, ConfigError
from hefw.core.graph import Graph
from hefw.core.lower import Request
from hefw.core.memory import peak_rss_bytes
from hefw.core.progress import Progress, ProgressCallback
from hefw.models.encrypted import encrypted
from hefw.models.schedules import LinearUpdate
from hefw.models.seeded import seeded
from hefw.record import (
    BytesRecord,
    LedgerEntryRecord,
    LedgerRecord,
    ModelRecord,
    ParamsRecord,
    ProcessRecord,
    RunRecord,
    SecondsRecord,
    machine_info,
    versions_info,
)
from hefw.running import VERSIONS, Result, Run

Array = NDArray[np.float64]
WAYS = ("full", "partial", "sparse")
BYTES_A_NUMBER = 4  # single precision, as published


class Updater:
    """Every update of every latent by a published way."""

    def __init__(self, way: str) -> None:
        self.way = way
        started = time.perf_counter()
        self.system = Published()
        self.keygen = time.perf_counter() - started
        self.updates: Sequence[LinearUpdate] = ()
        self.steps: list[list[Step]] = []  # by step, then image
        self.trajectory: list[Array] = []

    def begin(self, updates: Sequence[LinearUpdate], shape: tuple[int, ...]) -> None:
        """A trajectory of these updates."""
        self.updates = updates

    def step(self, index: int, sample: Array, prediction: Array, noise: Array | None, own: Array) -> Array:
        """x_{t-1} = f x_t + a, with all but f x_t in the plaintext a, as published."""
        factor = float(self.updates[index].sample)
        addend = own - factor * sample
        done = [
            getattr(self.system, self.way)(latent, factor, added) for latent, added in zip(sample, addend, strict=True)
        ]
        found = np.stack([step.latent for step in done])
        self.steps.append(done)
        self.trajectory += [found] if index else [sample, found]
        return found

    def seconds(self, *parts: str) -> float:
        """Of some of a step's parts, over all steps and images."""
        return sum(step.seconds[part] for steps in self.steps for step in steps for part in parts)


class PublishedRun(Run):
    """The network in plaintext, every update by a published way."""

    protocol = "update-only"

    def draw(self, way: str) -> Result:
        """Draw, compare, record."""
        updater = Updater(way)
        scheduler = encrypted(self.scheduler(), updater)
        started = time.perf_counter()
        latents = self._latents(scheduler, "network")
        drawing = time.perf_counter() - started
        images, total = self.decode(latents), time.perf_counter() - self.clock
        states = [*updater.trajectory[:-1], latents]
        twinned = time.perf_counter()
        plain = self.decode(self._latents(self.scheduler(), "twin"))
        record = self._record(updater, images, plain, drawing, total, time.perf_counter() - twinned)
        after = tuple(range(len(states)))
        decoded = np.stack([self.model.decode(state) for state in states])
        return Result(images, plain, record.labels, decoded, after, (), record)

    def go(self) -> Result:
        """By one ciphertext an entry."""
        return self.draw("full")

    def asking(self) -> tuple[Graph, Request]:
        """There is no server to ask."""
        raise CapabilityError("the published implementation has no server: nothing is planned for it")

    def _latents(self, scheduler: object, stage: str) -> Array:
        def watch(step: int, latents: Array) -> Array:
            self.progress(Progress(stage, step + 1, self.steps, f"step {step + 1}"))
            return latents

        with seeded(self.config.seed):
            return np.asarray(self.model.twin(self.start(), self.asked, scheduler, self.steps, watch))

    def _record(
        self, updater: Updater, images: Array, plain: Array, drawing: float, total: float, twin: float
    ) -> RunRecord:
        steps = len(updater.steps)
        parts = {
            "select": updater.seconds("select"),
            "encrypt": updater.seconds("encrypt"),
            "evaluate": updater.seconds("update"),
            "decrypt": updater.seconds("decrypt", "merge"),
        }
        off = images - plain
        entries = self._ledger(updater)
        shown = sum(entry.entries for entry in entries if entry.form == "plaintext")
        bits = tuple(float(size) for size in published.PRIME_BITS)
        return RunRecord(
            started=self.started,
            simulated=False,
            insecure=False,
            config=self.config.to_dict(),
            model=ModelRecord(name=self.model.name, digest="", scheduler=type(self.scheduler()).__name__),
            protocol="update-only",
            labels=tuple(int(label) for label in self.labels),
            prompts=(),
            evaluations=steps,
            shape=tuple(images.shape),
            params=ParamsRecord(
                ring_dimension=published.RING_DIMENSION,
                log_qp=sum(bits),
                security_bits=128,
                depth=1,
                fresh_level=len(bits) - 2,
                scale_bits=float(np.log2(published.SCALE)),
                secret="uniform ternary",
                modulus_bits=bits,
                insecure=False,
                images_per_slot=1,
            ),
            seconds=SecondsRecord(
                plan=0.0,
                keygen=updater.keygen,
                encode_weights=0.0,
                **parts,
                model=max(0.0, drawing - sum(parts.values())),
                twin=twin,
                total=total,
            ),
            seconds_per_image_step=parts["evaluate"] / (len(images) * steps),
            max_abs_error=float(np.abs(off).max()),
            psnr_db=float(10 * np.log10(4 / np.mean(off**2))) if off.any() else None,
            bytes=BytesRecord(evaluation_keys=0, upload_per_step=0, download_per_step=0, encoded_weights=0),
            counts={},
            server_threads=1,
            peak_rss_bytes=peak_rss_bytes(),
            messages=steps,
            trace=(),
            processes=(
                ProcessRecord(
                    party="key holder",
                    did="network, selection, encryption, update, decryption: all, as published",
                    library="tenseal",
                    version=versions_info(("tenseal",))["tenseal"],
                    python=platform.python_version(),
                    process=os.getpid(),
                ),
            ),
            ledger=LedgerRecord(
                server_plaintext_fraction=shown / sum(entry.entries for entry in entries), entries=entries
            ),
            versions=versions_info((*VERSIONS, "tenseal")),
            machine=machine_info(),
        )

    @staticmethod
    def _ledger(updater: Updater) -> tuple[LedgerEntryRecord, ...]:
        """What a server that did the published update would be given."""
        found = []
        for number, done in enumerate(updater.steps):
            total = sum(step.latent.size for step in done)
            hidden = sum(step.encrypted_elements for step in done)
            for item, form, count in (
                ("latent", "ciphertext", hidden),
                ("latent", "plaintext", total - hidden),
                ("prediction", "plaintext", total),
            ):
                found.append(
                    LedgerEntryRecord(
                        party="server",
                        step=number,
                        item=item,
                        form=form,  # type: ignore[arg-type]
                        entries=count,
                        bytes=0 if form == "ciphertext" else BYTES_A_NUMBER * count,
                    )
                )
        return tuple(found)


def draw(config: Config, way: str, told: ProgressCallback) -> Result:
    """A run by 'published full', 'published partial' or 'published sparse'."""
    from hefw.running import load

    name = way.removeprefix("published ")
    if name not in WAYS:
        raise ConfigError(f"published way {name!r} is not known; allowed: {', '.join(WAYS)}")
    chosen = config.resolve()
    return PublishedRun(config, chosen, load(chosen["model"]), told).draw(name)


def main() -> None:
    """Draw, and print the record."""
    parser = argparse.ArgumentParser(prog="hefw.bench.paper", description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--model", default="digits")
    parser.add_argument("--scheduler", default="auto")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--labels", default="0")
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args())
    way = given.pop("way")
    result = draw(Config(**given, protocol="update-only"), way, lambda _: None)
    sys.stdout.write(result.record.to_json())


if __name__ == "__main__":
    main()
