"""Strategies with one fault each."""

from __future__ import annotations

import numpy as np


class WrongShape:
    def select(self, latent):
        return np.ones(latent.size, dtype=bool)


class SaysNothing:
    def select(self, latent):
        return np.ones(latent.shape, dtype=bool)


class SaysOne(SaysNothing):
    packed = 1


class OnlyEvenSides:
    def select(self, latent):
        channels, height, width = latent.shape
        blocks = latent.reshape(channels, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
        return np.kron(blocks > 0, np.ones((2, 2), dtype=bool))


class OnlySquares:
    def select(self, latent):
        return (latent > 0).swapaxes(1, 2)


class ReusesItsMask:
    mask = np.zeros(0, dtype=bool)

    def select(self, latent):
        if self.mask.shape != latent.shape:
            self.mask = np.zeros(latent.shape, dtype=bool)
        return np.greater(latent, 0, out=self.mask)


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
        return (latent > 0) ^ bool(Remembers.calls % 2)


class Sorts:
    def select(self, latent):
        latent.sort()
        return latent > 0


class ReadsMemory:
    def select(self, latent):
        return latent.ravel(order="K").reshape(latent.shape) > 0
