"""One configuration and seed on every library at 128 bits: the same pictures, by changing one word.

Servers and keys of `end-to-end` are shared by the runs of one library: a run opens a session of its own on a server
that has planned and encoded its weights before, with evaluation keys that were made before.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hefw
from hefw import run, running
from hefw.core.backend import Backend, KeyHolder
from hefw.models.digits.model import Digits
from hefw.models.plugin import DigitsOptions
from hefw.models.schedules import Own
from hefw.plugins import registry
from hefw.protocol.process import ServerProcess
from hefw.run import Result

pytestmark = [pytest.mark.secure, pytest.mark.timeout(900)]

BACKENDS = {
    "tenseal": "tenseal",
    "openfhe": "openfhe",
    "pyfhel": "pyfhel",
    "tenseal hosted": {"name": "tenseal", "hosted": True},
}
STRATEGIES: dict[str, Any] = {
    "full": "full",
    "min_distortion": "min_distortion",
    "sparse": "sparse",
    "random": "random",
    "roi": {"name": "roi", "box": [0.25, 0.25, 0.75, 0.75]},
}
LIBRARIES = ("tenseal", "openfhe", "pyfhel")
PROTOCOLS = ("end-to-end", "update-only")
LABELS, STEPS = (0, 1, 2, 3), 2
PIXELS = 64


# -- servers and keys that several runs share --------------------------------------------------------------------------


class Held:
    """A server that outlives a run. The next run's session is a new one: its 'open' makes a new engine."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process

    def __enter__(self) -> ServerProcess:
        return self.process

    def __exit__(self, *_: object) -> None: ...


class Shared:
    """The server and the key holder's library of one backend at a time: several would take much memory."""

    def __init__(self) -> None:
        self.backend_of, self.backend = "", None
        self.server_of, self.server = "", None

    def start(self, model: Path, name: str, options: Any, threads: int = 1) -> Held:
        wanted = f"{name} {options} {threads}"
        if wanted != self.server_of:
            self.stop()
            self.server_of, self.server = wanted, ServerProcess(model, name, options, threads=threads)
        return Held(self.server)

    def make(self, entry: Any, options: Any) -> Backend:
        wanted = f"{entry.name} {options}"
        if wanted != self.backend_of:
            self.backend_of, self.backend = wanted, make(entry, options)
            self.backend.keygen = keeping(self.backend.keygen)
        return self.backend

    def stop(self) -> None:
        if self.server is not None:
            self.server.__exit__(None, None, None)
        self.server_of, self.server = "", None


make = running.make


def keeping(keygen: Callable[[Any, Any], KeyHolder]) -> Callable[[Any, Any], KeyHolder]:
    """Makes the keys of the same parameters and manifest once."""
    made: dict[str, KeyHolder] = {}

    def kept(params: Any, manifest: Any) -> KeyHolder:
        if repr((params, manifest)) not in made:
            made[repr((params, manifest))] = holder = keygen(params, manifest)
            blobs = list(holder.evaluation_keys())
            holder.evaluation_keys = lambda: iter(blobs)
        return made[repr((params, manifest))]

    return kept


@pytest.fixture(scope="module", autouse=True)
def shared() -> Iterator[None]:
    found = Shared()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "ServerProcess", found.start)
        patch.setattr(running, "make", found.make)
        yield
    found.stop()
    once.cache_clear()


def drawn(backend: str, protocol: str = "end-to-end", strategy: str = "full", refresh: str = "client") -> Result:
    return once(backend, protocol, strategy, refresh)


@cache
def once(backend: str, protocol: str, strategy: str, refresh: str) -> Result:
    precision = {"client": 60.0, "none": 40.0}[refresh]
    return hefw.generate(
        backend=BACKENDS[backend],
        strategy=STRATEGIES[strategy],
        protocol=protocol,
        refresh=refresh,
        labels=LABELS,
        steps=STEPS,
        params={"precision_db": precision},
    )


def grey(result: Result) -> np.ndarray:
    return np.clip(np.rint((result.images + 1) * 127.5), 0, 255)


# -- every strategy, library and protocol ------------------------------------------------------------------------------

CELLS = list(itertools.product(LIBRARIES, PROTOCOLS, STRATEGIES))


@pytest.mark.parametrize(("backend", "protocol", "strategy"), CELLS)
def test_the_same_picture(backend, protocol, strategy) -> None:
    record = drawn(backend, protocol, strategy).record
    assert (record.protocol, record.params.security_bits >= 128, record.simulated) == (protocol, True, False)
    assert record.max_abs_error <= 1e-2
    assert record.psnr_db >= 50


@pytest.mark.parametrize(("backend", "protocol", "strategy"), CELLS)
def test_the_fraction_in_plaintext_is_that_of_the_selections(backend, protocol, strategy) -> None:
    """Recomputed from the latents that the strategy saw: those decrypted in end-to-end, else the key holder's own."""
    result = drawn(backend, protocol, strategy)
    latents = list(result.trajectory[:STEPS]) if protocol == "end-to-end" else own_latents(result.trajectory[0])
    shown = sum(int((~select(strategy, image)).sum()) for latent in latents for image in latent)
    sent = STEPS * len(LABELS) * PIXELS
    expected = shown / (sent + len(LABELS) * 10) if protocol == "end-to-end" else 2 * shown / (2 * sent)
    assert result.record.ledger.server_plaintext_fraction == pytest.approx(expected, abs=1e-12)
    known = {"full": 0, "random": PIXELS // 2, "roi": PIXELS - 16}  # an image and step
    if strategy in known:
        assert shown == known[strategy] * STEPS * len(LABELS)
    else:
        assert 0 < shown < sent


def select(strategy: str, image: np.ndarray) -> np.ndarray:
    choice = STRATEGIES[strategy]
    options = {} if isinstance(choice, str) else {key: value for key, value in choice.items() if key != "name"}
    entry = registry().entry("strategy", strategy)
    return registry().load("strategy", strategy)(entry.options.model_validate(options)).select(image)


def own_latents(start: np.ndarray) -> list[np.ndarray]:
    """The plaintext twin's latents before each step."""
    model, found = Digits(DigitsOptions()), [start]
    scheduler = model.scheduler(Own, {})
    model.twin(start, np.array(LABELS), scheduler, STEPS, lambda _, latent: found.append(latent.copy()))
    return found[:STEPS]


def test_one_word_of_a_configuration_is_all_that_changes(tmp_path) -> None:
    """From a file, in which one word is another one: strategy, backend or protocol."""
    text = "protocol: update-only\nbackend: pyfhel\nstrategy: min_distortion\nlabels: 0-3\nsteps: 2\n"
    pictures = []
    for old, new in [("", ""), ("min_distortion", "random"), ("update-only", "end-to-end"), ("pyfhel", "tenseal")]:
        path = tmp_path / "run.yaml"
        path.write_text(text.replace(old, new))
        pictures.append(grey(hefw.generate(path)))
    assert np.ptp(np.stack(pictures), axis=0).max() <= 2


def test_all_pictures_differ_by_two_grey_levels_at_most() -> None:
    """Of all strategies, libraries and protocols: there is one picture for a seed and a label."""
    pictures = [grey(drawn(*cell)) for cell in [*CELLS, ("tenseal hosted", "end-to-end", "full")]]
    assert np.ptp(np.stack(pictures), axis=0).max() <= 2


# -- end-to-end in more ways -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["tenseal", "openfhe"])
def test_all_steps_from_one_message(backend) -> None:
    record = drawn(backend, refresh="none").record
    assert record.messages == 1
    assert record.params.security_bits == 128
    assert record.psnr_db >= 40
    assert {item.operation.partition("@")[2] for item in record.trace} >= {str(k + 1) for k in range(STEPS)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_record_says_who_did_what(protocol) -> None:
    own, hosted = (drawn(backend, protocol).record.processes for backend in ("tenseal", "openfhe"))
    assert len({process.process for process in own}) == 2, "two parties, a process each"
    assert len({process.process for process in hosted}) == 4, "and a worker each where the library lives elsewhere"
    for processes in (own, hosted):
        assert [p.party for p in processes] == ["key holder", "key holder", "server", "server"]
    assert {p.library for p in hosted} == {"hefw", "openfhe"}
    assert {p.python.rpartition(".")[0] for p in hosted if p.library == "openfhe"} <= {"3.10", "3.12"}
