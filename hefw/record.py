"""`run.json`: what a run was, what it cost, and who saw what. `hefw/run.schema.json` is its JSON schema.

The record stays with the key holder: labels and seed are in it. `python -m hefw.record` prints the schema.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt

from hefw.backends.processor import has
from hefw.core.ledger import Form

RECORD_VERSION = 1
SCHEMA_PATH = Path(__file__).with_name("run.schema.json")
SIMULATED = "SIMULATED: no encryption took place, nothing here is private"
INSECURE = "INSECURE: the parameters are below 128-bit security"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ParamsRecord(_Part):
    """The CKKS parameters that were used."""

    ring_dimension: int = Field(ge=2, description="N; a ciphertext has N/2 slots")
    log_qp: float = Field(gt=0, description="bits of the whole modulus, special primes included")
    security_bits: NonNegativeInt = Field(description="classical bits that the table promises; 0 if below 128")
    depth: NonNegativeInt = Field(description="multiplications in sequence, squares and products with weights alike")
    fresh_level: NonNegativeInt = Field(description="level of a fresh ciphertext: rescales that it can take")
    scale_bits: float = Field(gt=0, description="bits of the scale of a fresh ciphertext")
    secret: str = Field(description="distribution of the secret key, e.g. 'uniform ternary'")
    modulus_bits: tuple[float, ...] = Field(description="bits of every prime of the modulus, in the chain's order")
    insecure: bool = Field(description="below 128 bits, allowed by allow_insecure")
    images_per_slot: Literal[1, 2] = Field(1, description="two share a slot as its real and imaginary part")


class SecondsRecord(_Part):
    """Wall time by stage, in seconds."""

    plan: float = Field(ge=0, description="start of the server process, and its plan")
    keygen: float = Field(ge=0)
    encode_weights: float = Field(ge=0)
    select: float = Field(ge=0, description="the strategy's selection, by the key holder")
    encrypt: float = Field(ge=0)
    evaluate: float = Field(ge=0, description="the server's work on messages of requests, by its own clock")
    transfer: float | None = Field(
        None, ge=0, description="sending keys, and the way of messages and answers; null where there are no two parties"
    )
    decrypt: float = Field(ge=0, description="merging with entries in plaintext included")
    model: float = Field(
        ge=0, description="the network in plaintext at the key holder; 0 where the server evaluates it"
    )
    twin: float = Field(ge=0, description="the plaintext run to compare with; 0 if there was none")
    total: float = Field(ge=0, description="of the private run, the plaintext twin not included")


class BytesRecord(_Part):
    """Sizes, in bytes."""

    evaluation_keys: NonNegativeInt = Field(description="all evaluation keys, as sent")
    upload_per_step: NonNegativeInt = Field(description="key holder to server, a message")
    download_per_step: NonNegativeInt = Field(description="server to key holder, a message")
    encoded_weights: NonNegativeInt = Field(description="memory of the encoded weights at the server")


class LedgerEntryRecord(_Part):
    """One thing that one party could see, and in which form."""

    party: str = Field(description="'server' or 'key holder'")
    step: NonNegativeInt | None = Field(description="of the program, from 0; null if it is not of one step")
    item: str = Field(description="what it is, e.g. 'latent x_t'")
    form: Form = Field(description="'derived' depends on private data without being it: which entries were selected")
    entries: NonNegativeInt = Field(description="numbers in it")
    bytes: NonNegativeInt = Field(description="its size, in bytes")


class LedgerRecord(_Part):
    """What each party could see."""

    server_plaintext_fraction: float = Field(
        ge=0,
        le=1,
        description="private numbers that the server saw in plaintext, of all that it was sent (latents, noise "
        "predictions, labels), step by step",
    )
    shown_under_key: NonNegativeInt = Field(
        default=0, description="decrypted entries that a server was shown under this run's key: so far, if it is stored"
    )
    entries: tuple[LedgerEntryRecord, ...]


class MachineRecord(_Part):
    """Where the run took place; no host or user name."""

    cpu: str
    cores: int = Field(ge=1, description="cores that the process may use")
    memory_bytes: NonNegativeInt
    platform: str
    python: str


class ModelRecord(_Part):
    """The model that drew the images."""

    name: str
    digest: str = Field(description="of the graph that the server evaluated, hexadecimal")
    scheduler: str = Field(description="class of the scheduler, in diffusers' words")


class TraceRecord(_Part):
    """One operation on the server, in the order in which they were run."""

    step: NonNegativeInt = Field(description="of the program, from 0; several steps of the schedule where unrolled")
    operation: str = Field(description="an affine region or a square, NAME@K in the K-th step of a message")
    level: NonNegativeInt = Field(description="rescales that remain after it")
    scale_bits: float = Field(description="bits of the scale after it")
    seconds: float = Field(ge=0)


class ProcessRecord(_Part):
    """What was done in which process, by which library under which interpreter."""

    party: Literal["key holder", "server"]
    did: str
    library: str
    version: str
    python: str = Field(description="version of the interpreter")
    process: NonNegativeInt = Field(description="process id; equal ids are one process")


class EditRecord(_Part):
    """The picture that a run started from. Of it the server saw what it sees of any latent, and where it began."""

    picture: tuple[int, int] = Field(description="(width, height) of the file, in pixels")
    resized: bool = Field(description="scaled to the height and width of the model's images")
    strength: float = Field(ge=0, le=1, description="share of the steps that was done")
    begin: NonNegativeInt = Field(description="evaluations of the schedule that were left out at its beginning")
    drawn: float = Field(ge=0, le=1, description="share of the pixels that was drawn anew: the white part of the mask")


class RunRecord(_Part):
    """One run, as `run.json` holds it.

    Errors compare the final images with those of the plaintext twin (same seed): the largest absolute difference, and
    the PSNR in dB for a data range of 2, of the pixels that were drawn. They are null where there is no twin; the PSNR
    also where nothing differs.
    """

    hefw_record_version: Literal[1] = 1
    started: AwareDatetime = Field(description="ISO 8601, UTC")
    simulated: bool = Field(description="the backend does not encrypt")
    insecure: bool = Field(description="the parameters are below 128-bit security")
    config: dict[str, Any]
    model: ModelRecord
    protocol: Literal["end-to-end", "update-only"]
    labels: tuple[NonNegativeInt, ...] = Field(description="one an image; none for a model that takes prompts")
    prompts: tuple[str, ...] = Field(description="one an image; none for a model that takes labels")
    evaluations: int = Field(ge=1, description="of the network, an image: the scheduler decides how many for its steps")
    edit: EditRecord | None = Field(default=None, description="null where images were drawn from noise alone")
    shape: tuple[int, int, int, int] = Field(description="(count, channels, height, width) of the images")
    params: ParamsRecord
    seconds: SecondsRecord
    seconds_per_image_step: float = Field(ge=0, description="evaluate / (images * evaluations)")
    max_abs_error: float | None = Field(ge=0)
    psnr_db: float | None
    bytes: BytesRecord
    counts: dict[str, NonNegativeInt] = Field(description="operations on ciphertexts, by name, over all steps")
    server_threads: int = Field(1, ge=1, description="threads of the server that shared the work of operations")
    peak_rss_bytes: NonNegativeInt = Field(description="peak resident memory of all processes of the run")
    messages: int = Field(ge=1, description="how often latents went to the server and came back, a batch")
    trace: tuple[TraceRecord, ...]
    processes: tuple[ProcessRecord, ...]
    ledger: LedgerRecord
    versions: dict[str, str]
    machine: MachineRecord

    @property
    def count(self) -> int:
        """Images."""
        return self.shape[0]

    @property
    def every(self) -> int:
        """Evaluations of the network between two messages."""
        return self.evaluations // self.messages

    @property
    def captions(self) -> tuple[str, ...]:
        """What each image was asked for."""
        return self.prompts or tuple(str(label) for label in self.labels)

    @property
    def banner(self) -> str | None:
        """What every output must say first: SIMULATED or INSECURE (or both) with the reason, or None."""
        parts = [text for text, wanted in ((SIMULATED, self.simulated), (INSECURE, self.insecure)) if wanted]
        return "; ".join(parts) or None

    @property
    def batches(self) -> int:
        """Requests that the images were split into: each of them begins with the first operation of the trace."""
        first = self.trace[0].operation if self.trace else None
        return sum(item.step == 0 and item.operation == first for item in self.trace)

    def to_json(self) -> str:
        """The text of run.json, indented, with a final newline."""
        return self.model_dump_json(indent=2) + "\n"


def schema_of(record: type[BaseModel]) -> str:
    """The JSON schema of what a record writes, as text to commit."""
    schema = record.model_json_schema(mode="serialization")
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def schema_text() -> str:
    """The JSON schema of run.json, as committed in `hefw/run.schema.json`."""
    return schema_of(RunRecord)


#: What of vectors makes loops fast, the fastest first.
VECTORS = ("avx512ifma", "avx512f", "avx2")


def machine_info() -> MachineRecord:
    """This machine: processor, cores this process may use, memory in bytes, platform, Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return MachineRecord(
        cpu=_cpu(),
        cores=cores,
        memory_bytes=psutil.virtual_memory().total,
        platform=platform.platform(),
        python=platform.python_version(),
    )


def versions_info(names: Iterable[str]) -> dict[str, str]:
    """Installed versions of distributions by name; 'not installed' where there is none."""
    return {name: _version(name) for name in names}


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                vectors = next((name for name in VECTORS if has(name)), None)
                return line.partition(":")[2].strip() + (f" ({vectors})" if vectors else "")
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine() or "unknown"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    print(schema_text(), end="")
