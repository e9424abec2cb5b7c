"""Sessions of the protocol `update-only` in one process, on a ring that is small and insecure, with a numpy twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from protocol_loop import Loop

from hefw.core.backend import Backend
from hefw.core.combination import shares
from hefw.core.lower import Request
from hefw.core.params import CkksParams
from hefw.models.schedules import LinearUpdate
from hefw.models.update_graph import update_graph
from hefw.protocol.packing import Packing
from hefw.protocol.server import Server
from hefw.protocol.update_client import Tensor, UpdateClient

#: 512 slots: a thousand entries of a library with complex numbers fill a ciphertext.
REQUEST = Request(60.0, params=CkksParams(1024, (60,), (60,), 30.0, allow_insecure=True), allow_insecure=True)
SLOTS = 512
MAGNITUDE = 8.0
#: Of 60 dB, for values up to MAGNITUDE.
PRECISION = 1e-3


class UpdateSession:
    """A key holder with a server in this process, and what its updates should give."""

    def __init__(self, updates: Sequence[LinearUpdate], entries: int, backend: Backend) -> None:
        self.updates, self.entries = list(updates), entries
        positions = Packing(1, backend.capabilities.complex_values).positions(entries)
        self.graph = update_graph(updates, positions, MAGNITUDE)
        self.loop = Loop(Server(self.graph, backend))
        self.client = UpdateClient(self.loop, backend)
        self.client.open(self.graph.digest, REQUEST)
        self.shares = shares(self.graph)
        self.history: list[Mapping[str, Tensor]] = []

    def step(self, step: int, tensors: Mapping[str, Tensor], listed: bool = False) -> np.ndarray:
        """What the server's result is, merged."""
        if step == 0:
            self.history = []
        self.history.insert(0, tensors)
        factors = {name: float(share[step]) for name, share in self.shares.items()}
        return self.client.step(step, tensors, factors, listed)

    def expected(self) -> np.ndarray:
        """What the last step's should be, from all that was given since step 0."""
        update = self.updates[len(self.history) - 1]
        samples = [given["latent"].values for given in self.history]
        predictions = [given["prediction"].values for given in self.history]
        total = sum(update.terms(samples, predictions))
        return total + self.history[0]["noise"].values if update.noise else total

    def check(self, step: int, tensors: Mapping[str, Tensor], listed: bool = False) -> np.ndarray:
        """One step, compared."""
        found = self.step(step, tensors, listed)
        error = np.abs(found - self.expected()).max()
        assert error < PRECISION, f"step {step} is off by {error:.2g}"
        return found


def schedule(
    steps: int, latents: int = 0, predictions: int = 0, noise: bool = False, seed: int = 0, gaps: bool = True
) -> list[LinearUpdate]:
    """Random updates that go back so many steps; some factors are 0, as in the first steps of multistep methods."""
    rng = np.random.default_rng(seed)

    def factors(step: int, back: int) -> tuple[float, ...]:
        found = rng.uniform(-1, 1, min(step, back))
        return tuple(np.where(rng.random(len(found)) < 0.3 * gaps, 0.0, found))

    return [
        LinearUpdate(
            timestep=float(10 * (steps - step)),
            model_input_scale=1.0,
            sample=rng.uniform(0.5, 1.2),
            predictions=(rng.uniform(-1, 1), *factors(step, predictions)),
            noise=noise and step + 1 < steps,
            earlier_samples=factors(step, latents),
        )
        for step in range(steps)
    ]


def draw(
    rng: np.random.Generator, masks: Mapping[str, np.ndarray], noise: bool = False, spread: float = 1.0
) -> dict[str, Tensor]:
    """New values for each tensor of a step; what is shown of them has 32 bits anyhow."""
    names = ("latent", "prediction", *(("noise",) if noise else ()))
    return {
        name: Tensor(spread * rng.normal(size=len(masks[name])).astype(np.float32).astype(np.float64), masks[name])
        for name in names
    }
