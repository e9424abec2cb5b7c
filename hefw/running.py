"""What runs of both protocols have in common: from a configuration to what is recorded."""

from __future__ import annotations

import datetime
import os
import platform
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hefw import __version__
from hefw.backends.choose import make
from hefw.config import Config, Resolved
from hefw.core.backend import Backend, Provenance
from hefw.core.errors import SchedulerError
from hefw.core.graph import Graph
from hefw.core.ledger import LedgerEntry
from hefw.core.lower import Request
from hefw.core.memory import peak_rss_bytes
from hefw.core.params import CkksParams
from hefw.core.progress import ProgressCallback
from hefw.editing import difference, prepare
from hefw.models.base import OwnSteps, PromptModel
from hefw.outlines import Outlined
from hefw.plugins import registry
from hefw.protocol.client import Client, Figures
from hefw.protocol.keysource import KeySource
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
Protocol = Literal["end-to-end", "update-only"]
Party = Literal["key holder", "server"]

DATA_RANGE = 2.0
#: The environment variable that has the passphrase of a key set. It is not passed on to any other process.
PASSPHRASE = "HEFW_PASSPHRASE"
DEFAULT_STEPS = 10
OWN_WORK: dict[Protocol, dict[Party, str]] = {
    "end-to-end": {
        "key holder": "noise, labels, messages, plaintext twin, report",
        "server": "model, plan, messages",
    },
    "update-only": {
        "key holder": "noise, labels or prompts, network, selection, messages, plaintext twin, report",
        "server": "update, plan, messages",
    },
}
LIBRARY_WORK: dict[Party, str] = {"key holder": "keys, encryption, decryption", "server": "evaluation on ciphertext"}
VERSIONS = ("hefw", "numpy", "torch", "diffusers")


@dataclass(frozen=True)
class Result:
    """What a run gives its key holder. Images are float64, black -1 and white 1, not clipped."""

    images: Array  # (count, channels, height, width)
    plain: Array | None  # the plaintext twin's images of the same seed and labels or prompts
    labels: tuple[int, ...]  # none for a model that takes prompts
    trajectory: Array  # (moments, count, channels, height, width): x_T, then what was decrypted, decoded
    after: tuple[int, ...]  # evaluations of the network before each moment of the trajectory; 0 is x_T
    server_view: tuple[bytes, ...]  # the beginning of what the server was sent in each message
    record: RunRecord
    source: Array | None = None  # (channels, height, width): the picture that the run started from, as it was taken
    mask: NDArray[np.bool_] | None = None  # (height, width): what of it was drawn anew, where a mask was given


@dataclass(frozen=True)
class Drawn:
    """What a protocol has drawn, and how."""

    client: Client
    server: int  # process id
    digest: str  # of the graph that the server evaluated
    scheduler: str
    images: Array
    trajectory: Array
    after: tuple[int, ...]
    evaluations: int
    model_seconds: float  # of the network in plaintext at the key holder
    seconds: float  # in all


class Run(ABC):
    """One run of a configuration. A protocol's own class has `go`."""

    protocol: Protocol

    def __init__(
        self,
        config: Config,
        chosen: dict[Any, Resolved],
        model: Any,
        progress: ProgressCallback,
        passphrase: str | None = None,
    ) -> None:
        self.given = config
        self.steps = steps_of(config, model)
        self.config = config.model_copy(update={"steps": self.steps})  # a record says how many they were
        self.chosen = chosen
        self.model = model
        self.progress = progress
        self.started = datetime.datetime.now(datetime.timezone.utc)
        self.clock = time.perf_counter()
        self.backend: Backend = make(chosen["backend"].entry, chosen["backend"].options)
        self.keys = None if config.keys is None else _stored(config, self.backend, passphrase)
        self.strategy: Strategy = load(chosen["strategy"])
        self.strategy.select(np.zeros(model.latent_shape))  # a mask of another shape is refused before anything is done
        self.labels = np.array(config.labels if not config.prompt else (), dtype=np.int64)
        self.edit = None if isinstance(model, PromptModel) else prepare(config, model, self.scheduler, self.steps)

    @abstractmethod
    def go(self) -> Result:
        """Draw, compare, record."""

    @abstractmethod
    def asking(self) -> tuple[Graph, Request]:
        """What the server evaluates, and how it is to be lowered."""

    def scheduler(self) -> Any:
        """A new scheduler of the model's."""
        if isinstance(self.model, Outlined):
            self.model.load()  # first: two threads must not import a library at the same time
        chosen = self.chosen["scheduler"]
        kind = registry().load("scheduler", chosen.entry.name)
        return self.model.scheduler(kind, chosen.options.model_dump())

    @property
    def asked(self) -> NDArray[Any]:
        """What each image is to show: its label (images,), or its prompt."""
        return np.array(self.config.prompt) if self.config.prompt else self.labels

    @cached_property
    def noise(self) -> Array:
        """N(0, 1), fixed by the seed, which fixes nothing else; image i has the same noise in a run of any size."""
        return np.random.default_rng(self.config.seed).normal(size=(len(self.asked), *self.model.latent_shape))

    def start(self) -> Array:
        """The first latents: x_T, or those of a picture with noise."""
        return self.noise * self.initial if self.edit is None else self.edit.start(self.noise, self.initial)

    @cached_property
    def initial(self) -> float:
        """Deviation of x_T."""
        if isinstance(self.model, Outlined):
            return self.model.initial
        scheduler = self.scheduler()
        if hasattr(scheduler, "set_timesteps"):  # some know the magnitude only then
            try:
                scheduler.set_timesteps(self.steps)
            except Exception as error:  # a scheduler may be anyone's, and raise anything
                raise SchedulerError(
                    f"{type(scheduler).__name__} refuses {self.steps} steps: {error}; choose another number of steps"
                ) from error
        return float(getattr(scheduler, "init_noise_sigma", 1.0))

    @property
    def begun(self) -> dict[str, int]:
        """Where the model is to begin, for `graph` and `twin` of one that can start from a picture."""
        return {} if self.edit is None else {"begin": self.edit.noising.begin}

    def decode(self, latents: Array) -> Array:
        """Final images (images, channels, height, width), with the picture's own pixels where a mask keeps them."""
        images = np.asarray(self.model.decode(latents))
        return images if self.edit is None else self.edit.paste(images)

    def kept(self, step: int, latents: Array, images: slice = slice(None)) -> Array:
        """The latents of some of the images after a step, with what a mask keeps put back."""
        return latents if self.edit is None else self.edit.keep(step, latents, self.noise[images])

    def result(self, drawn: Drawn, plain: Array | None, twin_seconds: float) -> Result:
        """With the record of it all."""
        config, client, images = self.config, drawn.client, drawn.images
        figures, interface = client.figures, client.interface
        params = interface.params.params
        record = RunRecord(
            started=self.started,
            simulated=self.backend.capabilities.simulated,
            insecure=params.insecure,
            config=config.to_dict(),
            protocol=self.protocol,
            model=ModelRecord(name=self.model.name, digest=drawn.digest, scheduler=drawn.scheduler),
            labels=tuple(int(label) for label in self.labels),
            prompts=config.prompt,
            evaluations=drawn.evaluations,
            edit=None if self.edit is None else self.edit.record,
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
                images_per_slot=2 if interface.pairs else 1,
            ),
            seconds=SecondsRecord(**figures.seconds, model=drawn.model_seconds, twin=twin_seconds, total=drawn.seconds),
            seconds_per_image_step=figures.seconds["evaluate"] / (len(images) * drawn.evaluations),
            max_abs_error=None if plain is None else float(np.abs(images - plain).max()),
            psnr_db=None if plain is None else _psnr(difference(images, plain, self.edit)),
            bytes=BytesRecord(
                evaluation_keys=figures.evaluation_keys,
                upload_per_step=figures.upload_per_step,
                download_per_step=figures.download_per_step,
                encoded_weights=figures.encoded_weights,
            ),
            counts=figures.counts,
            peak_rss_bytes=peak_rss_bytes() + self.backend.worker_memory() + figures.server_peak_rss,
            server_threads=figures.server_threads,
            messages=interface.messages,
            trace=tuple(TraceRecord(**vars(item)) for item in figures.trace),
            processes=_processes(self.protocol, figures, drawn.server),
            ledger=LedgerRecord(
                server_plaintext_fraction=client.ledger.plaintext_fraction("server"),
                shown_under_key=client.shown,
                entries=tuple(_entry(entry) for entry in client.ledger.entries),
            ),
            versions=versions_info(VERSIONS) | _library_versions(figures),
            machine=machine_info(),
        )
        return Result(
            images,
            plain,
            record.labels,
            drawn.trajectory,
            drawn.after,
            tuple(client.view),
            record,
            None if self.edit is None else self.edit.image,
            None if self.edit is None else self.edit.mask,
        )


def stored(name: str, backend: Backend, passphrase: str | None, renew: str) -> KeySource:
    """A stored key set. `renew` is what an error advises, to make one that serves."""
    from hefw.keys import store  # most runs make new keys

    given = os.environ.get(PASSPHRASE) if passphrase is None else passphrase
    return store.find(name).source(backend, given, renew)


def _stored(config: Config, backend: Backend, passphrase: str | None) -> KeySource:
    """The key set that a configuration names."""
    from hefw.keys import store

    assert config.keys is not None
    renew = config.model_copy(update={"keys": None}).command("keys", "new", store.free_name(config.keys))
    return stored(config.keys, backend, passphrase, renew)


def steps_of(config: Config, model: object) -> int:
    """The steps of a run: those asked for, else those that the model was made for, else 10."""
    if config.steps is not None:
        return config.steps
    return model.steps if isinstance(model, OwnSteps) else DEFAULT_STEPS


def load(chosen: Resolved) -> Any:
    """The object of a chosen plugin."""
    return registry().load(chosen.kind, chosen.entry.name)(chosen.options)


def _secret(backend: Backend, params: CkksParams) -> str:
    if backend.capabilities.simulated:
        return "none"
    return "uniform ternary" if params.bootstrap is None else "sparse ternary, encapsulated"


def _processes(protocol: Protocol, figures: Figures, server: int) -> tuple[ProcessRecord, ...]:
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
            did=OWN_WORK[protocol][party],
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


def _entry(entry: LedgerEntry) -> LedgerEntryRecord:
    return LedgerEntryRecord(**asdict(entry))


def _psnr(off: Array) -> float | None:
    """Peak signal-to-noise ratio in dB of a difference, data range 2; None where nothing differs."""
    if not (mean := float(np.mean(off**2))):
        return None
    return float(10 * np.log10(DATA_RANGE**2 / mean))
