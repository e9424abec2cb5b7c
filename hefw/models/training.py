"""Training of bundled models: reproducible by seed and number of iterations, on one core, for `hefw train NAME`."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import nn
from torch.nn import functional

Network = TypeVar("Network", bound=nn.Module)
#: (iterations done, iterations in all, what is being trained and how it goes)
Progress = Callable[[int, int, str], None]
#: The loss of one random batch: the network, the number of the iteration, and where its randomness comes from.
Loss = Callable[[Any, int, torch.Generator], torch.Tensor]

SAFE_RANGE = 3.0
REPORT_EVERY = 100


class Training(Protocol):
    """How a model's weights are made. `data` is a folder with its training data, for models that need one."""

    def __call__(
        self, out: Path, *, seed: int, iterations: int | None, data: Path | None, progress: Progress | None
    ) -> None:
        """Train and write the model's folder `out`, whole or not at all. `iterations` None: the model's own number.

        ConfigError for a missing or wrong `data`, or one that this model does not take.
        """
        ...


@dataclass(frozen=True)
class Recipe:
    """An optimiser's settings: AdamW, a linear warm-up, then a cosine to a hundredth; a moving average of weights."""

    iterations: int
    learning_rate: float
    warm_up: int = 300
    average_decay: float = 0.998
    weight_decay: float = 1e-4
    gradient_norm: float = 1.0

    def rate(self, iteration: int) -> float:
        """The learning rate of an iteration."""
        warm = min(1.0, (iteration + 1) / min(self.warm_up, max(1, self.iterations // 10)))
        cosine = 0.5 * (1 + math.cos(math.pi * iteration / self.iterations))
        return self.learning_rate * warm * (0.01 + 0.99 * cosine)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """With several threads the order of sums, and so the result, would depend on the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def seeded(seed: int, make: Callable[[], Network]) -> Network:
    """A network with the random weights of a seed, whatever was drawn before; nothing else is changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def fit(
    network: Network,
    loss: Loss,
    recipe: Recipe,
    *,
    seed: int,
    progress: Progress | None = None,
    what: str = "loss",
    go_on: Callable[[], bool] = lambda: True,
) -> Network:
    """Train `network` in place; returns the moving average of its weights, in eval mode.

    `go_on` is asked before every iteration; a training that it ends does not reproduce.
    """
    generator = torch.Generator().manual_seed(seed)
    average: Network = copy.deepcopy(network).requires_grad_(False)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay, fused=True
    )
    losses: list[float] = []
    network.train()
    for iteration in range(recipe.iterations):
        if not go_on():
            break
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(iteration)
        value = loss(network, iteration, generator)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.gradient_norm)
        optimizer.step()
        with torch.no_grad():
            weight = max(1 - recipe.average_decay, 9 / (10 + iteration))
            torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), weight)
        losses.append(value.item())
        done = iteration + 1
        if progress is not None and (done % REPORT_EVERY == 0 or done == recipe.iterations):
            progress(done, recipe.iterations, f"{what} {sum(losses) / len(losses):.4f}")
            losses.clear()
    average.eval()
    return average


def range_penalty(preactivations: list[torch.Tensor], limit: float = SAFE_RANGE) -> torch.Tensor:
    """Penalty on pre-activations outside [-limit, limit]: mean square excess plus each sample's largest square excess.

    Squares have no saturation: once a pre-activation passes about 5, sampling explodes within a few steps. That is
    rare (a few samples in thousands), so the mean alone does not see it and the largest excess counts too.

    Args:
        preactivations: tensors (batch, channels, height, width).
        limit: half-width of the free range.

    Returns:
        a scalar, 0 when all are inside.
    """
    total = preactivations[0].new_zeros(())
    for z in preactivations:
        excess = functional.relu(z.abs() - limit).square()
        total = total + excess.mean() + 0.1 * excess.flatten(1).amax(1).mean()
    return total


def save(folder: Path, *parts: Any) -> None:
    """Write what `save_pretrained` of each part (network, scheduler) writes into one folder.

    Each file is written aside and renamed into place, so an interrupted call never leaves half a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as aside:
        for part in parts:
            part.save_pretrained(aside)
        for path in sorted(Path(aside).iterdir()):
            path.chmod(0o644)
            os.replace(path, folder / path.name)


def existing(folder: str | Path) -> str:
    """The folder's name, for `from_pretrained`, which would look for a missing one on the internet.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r}: expected what `hefw train` wrote")
    return str(folder)


def load_network(kind: type[Network], folder: str | Path) -> Network:
    """A network (float32, eval mode) from the folder that it was saved in; FileNotFoundError if there is none."""
    made: Any = kind
    network: Network = made.from_pretrained(existing(folder), use_safetensors=True, torch_dtype=torch.float32).eval()
    return network
