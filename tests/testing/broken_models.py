"""Models with one fault each, made of `digits`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from diffusers import DDIMScheduler

from hefw.core.graph import Affine
from hefw.models.digits.model import Digits
from hefw.models.plugin import DigitsOptions


class Sound(Digits):
    def __init__(self):
        super().__init__(DigitsOptions())


class OtherWeights(Sound):
    def graph(self, scheduler, steps):
        graph = super().graph(scheduler, steps)
        node = next(node for node in graph.nodes.values() if isinstance(node, Affine))
        return replace(graph, nodes={**graph.nodes, node.name: replace(node, bias=node.bias + 0.01)})


class ChangesLatents(Sound):
    def twin(self, latents, labels, scheduler, steps, watch):
        final = super().twin(latents, labels, scheduler, steps, watch)
        latents[:] = final
        return final


class Transposes(Sound):
    def latents(self, outputs):
        return super().latents(outputs).swapaxes(2, 3)


class LosesALabel(Sound):
    def inputs(self, latents, labels):
        found = super().inputs(latents, labels)
        found["label"][:, 0] = 0
        found["label"][:, 1] = 0
        return found


class AnyLabel(Sound):
    def inputs(self, latents, labels):
        return super().inputs(latents, np.clip(labels, 0, self.labels - 1))


class OneStepMore(Sound):
    def graph(self, scheduler, steps):
        return super().graph(scheduler, steps + 1)


class AnyScheduler(Sound):
    def graph(self, scheduler, steps):
        return super().graph(self.scheduler(DDIMScheduler, {}), steps)


class Uncalibrated(Sound):
    def graph(self, scheduler, steps):
        return replace(super().graph(scheduler, steps), calibration={})
