"""A scheduler's updates on a server process: the protocol `update-only` behind `Updater`'s two calls."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hefw.core.backend import Backend
from hefw.core.combination import shares
from hefw.core.errors import SchedulerError
from hefw.core.graph import Graph
from hefw.core.lower import Request
from hefw.core.progress import ProgressCallback
from hefw.models.schedules import LinearUpdate
from hefw.models.update_graph import LATENT, NOISE, PREDICTION, update_graph
from hefw.protocol.client import Transport
from hefw.protocol.keysource import KeySource
from hefw.protocol.packing import Packing
from hefw.protocol.process import ServerProcess
from hefw.protocol.update_client import Tensor, UpdateClient, check_result
from hefw.strategies.base import Strategy

Array = NDArray[np.float64]
#: Beyond it latents are no picture's. Variance-exploding schedulers begin at some thousands.
LARGEST_LATENT = 1e6
NoisePrediction = Literal["encrypted", "plaintext"]

#: Latents are allowed to be this large at least: the noise of any seed is less, and needs no server of its own.
LEAST_MAGNITUDE = 8.0
#: What the graph tells of them, in the ledger's words.
BOUND = "bound of latents, a power of two"


class Connection(Transport, Protocol):
    """A server that can be reached, until the context ends."""

    @property
    def pid(self) -> int:
        """Of the server's process."""
        ...

    def __enter__(self) -> Connection: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Updating:
    """An `Updater` (hefw.models.encrypted): every update is computed by a server process, on what a strategy encrypts.

    The process is started at the first step, and kept while schedule and shape stay the same. What is shown to it
    (entries that the strategy leaves out, predictions sent in plaintext) comes from the key holder's own plaintext
    arithmetic, never from a decryption: where something is shown, the network goes on with the key holder's own latent,
    else with the decrypted one, and then all entries of the trajectory's later latents are encrypted, whatever the
    strategy says. Both are compared after every step. The last result is the decrypted one.

    Attributes:
        trajectory: x_T and, as decrypted and merged, every latent after it (images, channels, height, width), of the
            last request.
        server: the id of the last session's server process; 0 before there was one.
        largest_difference: between these and the key holder's own arithmetic, over all requests.
    """

    def __init__(
        self,
        backend: Backend,
        options: Mapping[str, Any],
        strategy: Strategy,
        noise_prediction: NoisePrediction = "encrypted",
        request: Request | None = None,
        progress: ProgressCallback | None = None,
        keys: KeySource | None = None,
    ) -> None:
        self.backend = backend
        self.keys = keys
        self.options = dict(options)
        self.strategy = strategy
        self.noise_prediction = noise_prediction
        self.request = request or Request()
        self.progress = progress
        self.trajectory: list[Array] = []
        self.server = 0
        self.largest_difference = 0.0
        self._magnitude = LEAST_MAGNITUDE
        self._decrypted = False  # whether the network went on with a decrypted latent
        self._updates: Sequence[LinearUpdate] = ()
        self._graph: Graph | None = None
        self._shares: dict[str, Array] = {}
        self._session: ExitStack | None = None
        self._client: UpdateClient | None = None

    @property
    def client(self) -> UpdateClient | None:
        """The session with its ledger and figures; None before the first step. The last one after `close`."""
        return self._client

    @property
    def graph(self) -> Graph | None:
        """What the server computes; None before the first step."""
        return self._graph

    @property
    def evaluations(self) -> int:
        """Of the network, in a request: each is followed by an update."""
        return len(self._updates)

    def begin(self, updates: Sequence[LinearUpdate], shape: tuple[int, ...]) -> None:
        """A new request of these updates, of latents (images, channels, height, width)."""
        self._updates = tuple(updates)
        self._decrypted = False
        self.trajectory = []

    def step(self, index: int, sample: Array, prediction: Array, noise: Array | None, own: Array) -> Array:
        """x_{t-1} from x_t and the prediction; `own` is the same by the key holder's arithmetic."""
        if index == 0:
            self._ready(sample)
        client = self._client
        assert client is not None
        started = time.perf_counter()
        mask = np.stack([self.strategy.select(latent) for latent in sample]).ravel() | self._decrypted
        client.figures.seconds["select"] += time.perf_counter() - started
        nowhere = np.zeros_like(mask)
        tensors = {
            LATENT: Tensor(sample.ravel(), mask),
            PREDICTION: Tensor(prediction.ravel(), mask if self.noise_prediction == "encrypted" else nowhere),
        }
        if noise is not None:
            tensors[NOISE] = Tensor(noise.ravel(), mask)
        if not float(np.abs(own).max()) < LARGEST_LATENT:  # nan is not, either
            raise SchedulerError(
                f"the latents grow to {float(np.abs(own).max()):.3g} at step {index}, in plaintext, too: this model "
                "diverges with this scheduler; choose another scheduler or number of steps"
            )
        factors = {name: float(share[index]) for name, share in self._shares.items()}
        try:
            found = client.step(index, tensors, factors, self.strategy.packed).reshape(sample.shape)
        except BaseException:
            self._drop()
            raise
        difference = check_result(found, own, client.interface.forecast_db)
        self.largest_difference = max(self.largest_difference, difference)
        self.trajectory += [found] if index else [sample, found]
        shows = not mask.all() or self.noise_prediction == "plaintext"
        self._decrypted = not shows
        return own if shows and index + 1 < len(self._updates) else found

    def close(self) -> None:
        """End the session and the server process; figures and ledger stay."""
        session, self._session = self._session, None
        if session is not None:
            with session:
                assert self._client is not None
                self._client.close()

    def _drop(self) -> None:
        """End the server process without a word: a message to or from it may be incomplete. Another one may follow."""
        session, self._session = self._session, None
        if session is not None:
            session.__exit__(*sys.exc_info())

    def _ready(self, sample: Array) -> None:
        """A session for this schedule and these latents: the one that is open, if it is of the same."""
        self._magnitude = max(self._magnitude, magnitude(sample))
        graph = graph_of(self._updates, sample.size, self._magnitude, self.backend)
        if self._session is not None and self._graph is not None and self._graph.digest == graph.digest:
            return
        self.close()
        with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="hefw-") as folder:
            path = Path(folder) / "update.hefw"
            graph.save(path)
            process = stack.enter_context(self._server(path, graph))
            client = self._client_of(process)
            client.open(graph.digest, self.request)
            client.ledger.add("server", None, BOUND, "derived", 1, 0)
            self._session = stack.pop_all()
        self._graph, self._shares = graph, shares(graph)
        self.server, self._client = process.pid, client

    def _server(self, path: Path, graph: Graph) -> Connection:
        """A server for a graph, which is in a file, too."""
        return ServerProcess(path, self.backend.name, self.options)

    def _client_of(self, connection: Connection) -> UpdateClient:
        """The key holder's party."""
        return UpdateClient(connection, self.backend, self.progress, self.keys)


def magnitude(sample: Array) -> float:
    """A bound of latents, from the first ones: a power of two."""
    return float(2.0 ** np.ceil(np.log2(max(LEAST_MAGNITUDE, float(np.abs(sample).max())))))


def graph_of(updates: Sequence[LinearUpdate], entries: int, magnitude: float, backend: Backend) -> Graph:
    """What a server computes for latents of so many entries in all: two lie in a slot where the library can."""
    positions = Packing(1, backend.capabilities.complex_values).positions(entries)
    return update_graph(updates, positions, magnitude)
