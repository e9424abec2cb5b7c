"""Random numbers of a sampling loop, fixed by a seed and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it, torch's own generator begins at the seed; afterwards it is as it was.

    A scheduler that adds noise draws from it where a model's loop gives it no other generator.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
