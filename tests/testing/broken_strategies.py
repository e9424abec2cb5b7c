"""Strategies with one fault each."""

from __future__ import annotations

import numpy as np


class WrongShape:
    def select(self, latent):
        return np.ones(latent.size, dtype=bool)


class Integers:
    def select(self, latent):
        return np.ones(latent.shape, dtype=int)


class Random:
    def select(self, latent):
        return np.random.default_rng().random(latent.shape) < 0.5


class Remembers:
    calls = 0

    def select(self, latent):
        Remembers.calls += 1
        return latent > Remembers.calls


class Sorts:
    def select(self, latent):
        latent.sort()
        return latent > 0


class ReadsMemory:
    def select(self, latent):
        return latent.ravel(order="K").reshape(latent.shape) > 0
