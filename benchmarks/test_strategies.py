"""Selection of every strategy on Stable Diffusion's latents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hefw.plugins import registry

OPTIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "min_distortion": {},
    "sparse": {},
    "random": {"fraction": 0.5},
    "roi": {"box": [0.25, 0.25, 0.75, 0.75]},
}


@pytest.mark.parametrize("side", [64, 128])
@pytest.mark.parametrize("name", OPTIONS)
def test_select(benchmark: Any, name: str, side: int) -> None:
    found = registry()
    kind = found.load("strategy", name)
    entry = found.entry("strategy", name)
    strategy = kind(entry.options(**OPTIONS[name]))
    benchmark(strategy.select, np.random.default_rng(0).normal(size=(4, side, side)))
