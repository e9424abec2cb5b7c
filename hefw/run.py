"""`hefw.generate`: one private generation, from configuration to pictures and record."""

from __future__ import annotations

import datetime
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hefw import __version__
from hefw.backends.choose import make, with_capability
from hefw.config import Config, Resolved, check_labels, merge
from hefw.core.backend import Backend, Provenance
from hefw.core.errors import CapabilityError, ConfigError, ParameterError, ProtocolError
from hefw.core.graph import Graph
from hefw.core.ledger import LedgerEntry
from hefw.core.lower import Request
from hefw.core.memory import peak_rss_bytes
from hefw.core.params import MAXIMUM_PRIME_BITS, CkksParams
from hefw.core.program import Interface
from hefw.core.progress import Progress, ProgressCallback
from hefw.core.unroll import unroll
from hefw.models.base import Model
from hefw.plugins import registry
from hefw.protocol.client import Client, Figures
from hefw.protocol.process import ServerProcess
from hefw.record import (
    BytesRecord,
    LedgerEntryRecord,
    LedgerRecord,
    ModelRecord,
    ParamsRecord,
    ProcessRecord,
    RunRecord,
    SecondsRecord,
    TraceRecord,
    machine_info,
    versions_info,
)
from hefw.strategies.base import Strategy

Array = NDArray[np.float64]

DATA_RANGE = 2.0
#: Scale of fresh ciphertexts on a modulus chain that the user gives, in bits; the planner tries others from there.
GIVEN_CHAIN_SCALE = 30.0
Party = Literal["key holder", "server"]
OWN_WORK: dict[Party, str] = {
    "key holder": "noise, labels, messages, plaintext twin, report",
    "server": "model, plan, messages",
}
LIBRARY_WORK: dict[Party, str] = {"key holder": "keys, encryption, decryption", "server": "evaluation on ciphertext"}
VERSIONS = ("hefw", "numpy", "torch", "diffusers")


@dataclass(frozen=True)
class Result:
    """What a run gives its key holder. Images are float64, black -1 and white 1, not clipped."""

    images: Array  # (count, channels, height, width)
    plain: Array | None  # the plaintext twin's images of the same seed and labels
    labels: tuple[int, ...]
    trajectory: Array  # (messages + 1, count, channels, height, width): x_T, then what was decrypted of each message
    server_view: tuple[bytes, ...]  # the beginning of what the server was sent in each message
    record: RunRecord


def generate(
    config: Config | str | Path | None = None, *, progress: ProgressCallback | None = None, **overrides: Any
) -> Result:
    """Draw pictures on a server process that only ever sees ciphertext.

    Parameters
    ----------
    config : a Config, a file's path, or None for the defaults.
    progress : called with `Progress` as the run goes on.
    overrides : configuration keys that win over `config`, e.g. `labels="0-9", steps=10, backend="simulator"`.

    Raises HefwError, one clear line each: ConfigError and PluginError for bad input, ProtocolError for a failed server.
    """
    return _Run(merge(config, overrides), progress or (lambda _: None)).go()


class _Run:
    def __init__(self, config: Config, progress: ProgressCallback) -> None:
        self.config = config
        self.progress = progress
        self.started = datetime.datetime.now(datetime.timezone.utc)
        self.clock = time.perf_counter()
        chosen = config.resolve()
        self.chosen = chosen
        self.backend: Backend = make(chosen["backend"].entry, chosen["backend"].options)
        self.strategy: Strategy = _load(chosen["strategy"])
        self.model: Model = _load(chosen["model"])
        check_labels(config.labels, self.model.labels, self.model.name)
        self.labels = np.array(config.labels, dtype=np.int64)

    def go(self) -> Result:
        config, model = self.config, self.model
        graph = model.graph(self._scheduler(), config.steps)
        start = self._start()
        self._check_strategy(start)
        self._check_refresh()
        expected = unroll(graph, config.refresh.steps_a_message(config.steps))
        with tempfile.TemporaryDirectory(prefix="hefw-") as folder:
            path = Path(folder) / "model.hefw"
            graph.save(path)
            options = self.chosen["backend"].options.model_dump(mode="json")
            with ServerProcess(path, self.backend.name, options) as server:
                client = Client(server, self.backend, self.progress)
                interface = client.open(graph.digest, self._request(), lambda told: _check_manifest(told, expected))
                states = np.zeros((interface.messages + 1, *start.shape))
                states[0] = start
                size = interface.batch if config.batch == "auto" else min(config.batch, interface.batch)
                batches = [slice(k, k + size) for k in range(0, len(start), size)]
                for number, part in enumerate(batches):

                    def watch(message: int, outputs: Mapping[str, Array], part: slice = part) -> None:
                        states[message + 1, part] = model.latents(outputs)

                    client.generate(model.inputs(start[part], self.labels[part]), watch, (number, len(batches)))
                client.close()
        seconds = time.perf_counter() - self.clock
        images = model.decode(states[-1])
        plain = self._twin(start)
        record = self._record(client, server.pid, interface, graph.digest, images, plain, seconds)
        trajectory = np.stack([model.decode(state) for state in states])
        return Result(images, plain, config.labels, trajectory, tuple(client.view), record)

    def _scheduler(self) -> Any:
        chosen = self.chosen["scheduler"]
        kind = registry().load("scheduler", chosen.entry.name)
        return self.model.scheduler(kind, chosen.options.model_dump())

    def _start(self) -> Array:
        """x_T: fixed by the seed, which fixes nothing else; image i has the same noise in a run of any size."""
        shape = self.model.latent_shape
        noise = np.random.default_rng(self.config.seed).normal(size=(len(self.labels), *shape))
        return np.asarray(noise * float(self._scheduler().init_noise_sigma))

    def _check_strategy(self, latents: Array) -> None:
        shown = sum(int((~self.strategy.select(latent)).sum()) for latent in latents)
        if shown:
            raise ConfigError(
                f"strategy {self.config.strategy.name!r} leaves {shown} of {latents.size} entries in plaintext; "
                "protocol 'end-to-end' encrypts all of a latent; use strategy: full"
            )

    def _check_refresh(self) -> None:
        if self.config.refresh.name == "bootstrap" and not self.backend.capabilities.bootstrap:
            able = ", ".join(with_capability("bootstrap")) or "none"
            raise CapabilityError(
                f"backend {self.backend.name!r} cannot bootstrap; those that can: {able}. Choose one of them, or use "
                "refresh: client"
            )

    def _request(self) -> Request:
        wanted, refresh = self.config.params, self.config.refresh
        insecure = self.config.allow_insecure
        params = None
        if wanted.modulus_bits is None:
            if wanted.special_bits is not None:
                raise ParameterError("special_bits are given without modulus_bits; give both, or neither")
        elif wanted.ring_dimension is None:
            raise ParameterError("modulus_bits are given without ring_dimension; give both, or neither")
        else:
            special = wanted.special_bits or (MAXIMUM_PRIME_BITS,)
            params = CkksParams(wanted.ring_dimension, wanted.modulus_bits, special, GIVEN_CHAIN_SCALE, insecure)
        images = len(self.labels) if self.config.batch == "auto" else min(self.config.batch, len(self.labels))
        return Request(
            wanted.precision_db,
            wanted.ring_dimension,
            params,
            insecure,
            refresh.steps_a_message(self.config.steps),
            refresh.name == "bootstrap",
            images,
        )

    def _twin(self, start: Array) -> Array:
        steps = self.config.steps

        def watch(step: int, _: Array) -> None:
            self.progress(Progress("twin", step + 1, steps, f"step {step + 1} of {steps}"))

        return self.model.decode(self.model.twin(start, self.labels, self._scheduler(), steps, watch))

    def _record(
        self,
        client: Client,
        server: int,
        interface: Interface,
        digest: str,
        images: Array,
        plain: Array | None,
        total: float,
    ) -> RunRecord:
        figures, params = client.figures, interface.params.params
        error = None if plain is None else float(np.abs(images - plain).max())
        evaluations = len(images) * self.config.steps
        return RunRecord(
            started=self.started,
            simulated=self.backend.capabilities.simulated,
            insecure=params.insecure,
            config=self.config.to_dict(),
            model=ModelRecord(name=self.model.name, digest=digest),
            labels=self.config.labels,
            shape=tuple(images.shape),
            params=ParamsRecord(
                ring_dimension=params.ring_dimension,
                log_qp=params.log_qp,
                security_bits=params.security_bits,
                depth=interface.depth,
                fresh_level=max(port.level for port in interface.inputs.values()),
                scale_bits=params.scale_bits,
                secret=_secret(self.backend, params),
                modulus_bits=(*params.modulus_bits, *params.special_bits),
                insecure=params.insecure,
            ),
            seconds=SecondsRecord(**figures.seconds, total=total),
            seconds_per_image_step=figures.seconds["evaluate"] / evaluations,
            max_abs_error=error,
            psnr_db=_psnr(images, plain),
            bytes=BytesRecord(
                evaluation_keys=figures.evaluation_keys,
                upload_per_step=figures.upload_per_step,
                download_per_step=figures.download_per_step,
                encoded_weights=figures.encoded_weights,
            ),
            counts=figures.counts,
            peak_rss_bytes=peak_rss_bytes() + self.backend.worker_memory() + figures.server_peak_rss,
            messages=interface.messages,
            trace=tuple(TraceRecord(**vars(item)) for item in figures.trace),
            processes=_processes(figures, server),
            ledger=LedgerRecord(
                server_plaintext_fraction=client.ledger.plaintext_fraction("server"),
                entries=tuple(_entry(entry) for entry in client.ledger.entries),
            ),
            versions=versions_info(VERSIONS) | _library_versions(figures),
            machine=machine_info(),
        )


def _check_manifest(interface: Interface, graph: Graph) -> None:
    """The server's program must take and give what the key holder's own copy of the graph does, at every step."""
    inputs = {name: (node.shape, node.once) for name, node in graph.inputs.items()}
    outputs = {
        name: (graph.nodes[output.node].shape, output.feedback, tuple(map(float, output.factors)))
        for name, output in graph.outputs.items()
    }
    told_inputs = {name: (port.shape, port.once) for name, port in interface.inputs.items()}
    told_outputs = {name: (port.shape, port.feedback, port.factors) for name, port in interface.outputs.items()}
    if (inputs, outputs, graph.timesteps) != (told_inputs, told_outputs, interface.timesteps):
        raise ProtocolError("the server's manifest is not that of this model: inputs, outputs or timesteps differ")


def _secret(backend: Backend, params: CkksParams) -> str:
    if backend.capabilities.simulated:
        return "none"
    return "uniform ternary" if params.bootstrap is None else "sparse ternary, encapsulated"


def _processes(figures: Figures, server: int) -> tuple[ProcessRecord, ...]:
    """Who did what: the parties' own processes, and those that a library lives in."""
    parties: dict[Party, tuple[Provenance | None, int]] = {
        "key holder": (figures.key_holder, os.getpid()),
        "server": (figures.evaluator, server),
    }
    found = []
    for party, (provenance, process) in parties.items():
        assert provenance is not None  # the session was closed
        own = ProcessRecord(
            party=party,
            did=OWN_WORK[party],
            library="hefw",
            version=__version__,
            python=platform.python_version(),
            process=process,
        )
        found += [own, ProcessRecord(party=party, did=LIBRARY_WORK[party], **vars(provenance))]
    return tuple(found)


def _library_versions(figures: Figures) -> dict[str, str]:
    """The HE library of the run as both parties had it, wherever it was installed."""
    return {found.library: found.version for found in (figures.key_holder, figures.evaluator) if found is not None}


def _load(chosen: Resolved) -> Any:
    return registry().load(chosen.kind, chosen.entry.name)(chosen.options)


def _entry(entry: LedgerEntry) -> LedgerEntryRecord:
    return LedgerEntryRecord(**asdict(entry))


def _psnr(images: Array, plain: Array | None) -> float | None:
    """Peak signal-to-noise ratio in dB, data range 2; None where there is no twin or nothing differs."""
    if plain is None or not (mean := float(np.mean((images - plain) ** 2))):
        return None
    return float(10 * np.log10(DATA_RANGE**2 / mean))
