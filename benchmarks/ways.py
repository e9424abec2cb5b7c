"""The ways of computing one update step that `benchmarks.update` compares, and what they compute."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from diffusers import PNDMScheduler

from hefw.bench.published import Array, Published, Step
from hefw.core.combination import shares
from hefw.core.lower import Request
from hefw.models.schedules import linear_updates
from hefw.models.update_graph import LATENT, PREDICTION, update_graph
from hefw.plugins import registry
from hefw.protocol import wire
from hefw.protocol.packing import Packing
from hefw.protocol.server import Server
from hefw.protocol.update_client import Tensor, UpdateClient, check_result
from hefw.protocol.updates import Update as Sent

#: Of the latent (channels, height, width).
SHAPE = (4, 64, 64)
STEPS = 50
#: Steps until PLMS is what it stays: a sum of x_t and the last four predictions.
WARM_UP = 5
#: Bound of the latents, a power of two.
LARGEST = 8.0
#: Stable Diffusion's scheduler.
SCHEDULER = PNDMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
)


@dataclass(frozen=True)
class Update:
    """One step, x_{t-1} = f x_t + a.

    Attributes:
        step: its number, from 0.
        latent: x_t.
        prediction: eps_t.
        factor: f.
        addend: a, the sum of what the scheduler adds: in the published system one plaintext tensor.
    """

    step: int
    latent: Array
    prediction: Array
    factor: float
    addend: Array

    @property
    def expected(self) -> Array:
        """x_{t-1}."""
        return self.factor * self.latent + self.addend


#: Does a step and times its parts.
Way = Callable[[Update], Step]


def updates(count: int) -> Iterator[Update]:
    """The first steps of PLMS. Latents and predictions are N(0, 1), each on its own: they are no trajectory."""
    rng = np.random.default_rng(0)
    predictions: list[Array] = []
    for step, linear in enumerate(linear_updates(SCHEDULER, STEPS)[:count]):
        predictions.insert(0, rng.normal(size=SHAPE))
        terms = zip(linear.predictions, predictions, strict=False)
        addend = np.sum([factor * prediction for factor, prediction in terms], axis=0)
        yield Update(step, rng.normal(size=SHAPE), predictions[0], linear.sample, addend)


def published(elements: int) -> dict[str, Way]:
    """The published ways; those with one ciphertext an entry are measured on `elements` entries."""
    system = Published()
    return {
        "published full": lambda u: system.full(u.latent, u.factor, u.addend, elements),
        "published partial": lambda u: system.partial(u.latent, u.factor, u.addend, elements),
        "published sparse": lambda u: system.sparse(u.latent, u.factor, u.addend),
    }


class Loop:
    """A transport to a server in this process: bytes in, bytes out."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._waiting: deque[bytes] = deque()
        self.last = b""

    def send(self, frame: bytes) -> None:
        """Hand a message to the server, and keep what it says."""
        self.last = frame
        self._waiting.append(self._server.handle(frame, self._waiting.append))

    def receive(self) -> bytes:
        """The next message of the server."""
        return self._waiting.popleft()


class Hefw:
    """A key holder and a server of the protocol `update-only`, in one process; `warm_up` are its first steps.

    Of the times, encrypt includes writing the message, update all that the server does, decrypt reading the answer and
    merging; merge is the rest: the ledger, and the comparison with the key holder's own arithmetic.
    """

    def __init__(self, strategy: str, noise_prediction: str, warm_up: Iterable[Update]) -> None:
        found = registry()
        backend = found.load("backend", "tenseal")(found.entry("backend", "tenseal").options())
        self._strategy = found.load("strategy", strategy)(found.entry("strategy", strategy).options())
        self._encrypts_predictions = noise_prediction == "encrypted"
        positions = Packing(1, backend.capabilities.complex_values).positions(int(np.prod(SHAPE)))
        graph = update_graph(linear_updates(SCHEDULER, STEPS), positions, LARGEST)
        self._shares = shares(graph)
        self._loop = Loop(Server(graph, backend))
        self._client = UpdateClient(self._loop, backend)
        self._client.open(graph.digest, Request())
        for update in warm_up:
            self(update)

    def __call__(self, update: Update) -> Step:
        figures, expected = self._client.figures.seconds, update.expected.ravel()
        before, started = dict(figures), time.perf_counter()
        mask = self._strategy.select(update.latent).ravel()
        selected = time.perf_counter()
        nowhere = np.zeros_like(mask)
        tensors = {
            LATENT: Tensor(update.latent.ravel(), mask),
            PREDICTION: Tensor(update.prediction.ravel(), mask if self._encrypts_predictions else nowhere),
        }
        factors = {name: float(share[update.step]) for name, share in self._shares.items()}
        found = self._client.step(update.step, tensors, factors, self._strategy.packed)
        check_result(found, expected, self._client.interface.forecast_db)
        total = time.perf_counter() - started
        seconds = {
            "select": selected - started,
            "encrypt": figures["encrypt"] - before["encrypt"],
            "update": figures["evaluate"] - before["evaluate"],
            "decrypt": figures["decrypt"] - before["decrypt"],
        }
        seconds["merge"] = total - sum(seconds.values())
        sent = Sent.unpack(wire.decode(self._loop.last), self._client.interface)
        ciphertexts = sum(len(part.ciphertexts) for part in sent.parts.values()) + sum(map(len, sent.again.values()))
        count = int(mask.sum())
        return Step(seconds, found.reshape(SHAPE), count, count, ciphertexts, extrapolated=False)


def hefw(warm_up: list[Update]) -> dict[str, Way]:
    """hefw's ways."""
    return {
        f"hefw {strategy}, eps {noise_prediction}": Hefw(strategy, noise_prediction, warm_up)
        for noise_prediction in ("plaintext", "encrypted")
        for strategy in ("full", "min_distortion", "sparse")
    }
