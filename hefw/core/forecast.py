"""How precise a plan will be, before anything is encrypted: noise at each operation, carried to the final images.

Noise is small, so that errors add up linearly. What one unit of noise at one operation does to the outputs after the
whole schedule is measured once, by running the graph in the clear with that noise; a plan's forecast is then a weighted
sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hefw.core.factors import MaskedRounding
from hefw.core.graph import Affine, Graph, Input, Node, Polynomial, features
from hefw.core.layout import Layout
from hefw.core.noise import BIAS_SHARE, NoiseModel
from hefw.core.params import CkksParams

Array = NDArray[np.float64]
Small = NDArray[np.float32]  # errors: of a unit of noise, not beside the values, so that few digits are enough

DATA_RANGE = 2.0  # of images in -1..1
PEAK_OVER_RMS = 5.0  # the largest error tolerated, in root mean square errors of the precision wanted
IMAGES = 8

#: A source of noise: (node, kind, source). Kinds: 'random' is new at every step, 'bias' depends on keys alone, and
#: 'rounding' is that of the encoded weights on `source`; the last two are the same at every step. A square of two
#: images a slot also has 'random' and 'bias' of its `source`'s conjugation.
Origin = tuple[str, str, str]


@dataclass(frozen=True)
class Work:
    """Counted operations of one affine region, per step: what its cost and noise depend on.

    Of its products `constants` have one number for all slots, and `encoded` a vector that is encoded at every use;
    `matrix` more are those of a matrix of numbers (`Transform.numeric`), which reads and writes `matrix_cts`
    ciphertexts; where it reads masked ones, `masked` tells, per source, how weights round. `numbers` are, per source,
    products with such numbers that reach one entry, `diagonals` those with a vector; one that repeats counts as the
    part that does not: it has so many coefficients to round. `turns` are, per source, rotations in sequence that an
    input goes through before it is multiplied. Of the rotations, `folds` come after rescales, and add up
    `partial_sums`; `shared` and `shared_folds` are of a ciphertext that was taken apart for others before.
    """

    rotations: int
    products: int
    output_ciphertexts: int
    diagonals: Mapping[str, float]
    giants: float
    constants: int = 0
    encoded: int = 0
    matrix: int = 0
    matrix_cts: int = 0
    turns: Mapping[str, float] = field(default_factory=dict)
    folds: int = 0
    numbers: Mapping[str, float] = field(default_factory=dict)
    masked: Mapping[str, MaskedRounding] = field(default_factory=dict)
    partial_sums: int = 1
    shared: int = 0
    shared_folds: int = 0

    def mask_bits(self, weight_bits: float) -> int:
        """The masks' share of the bits of the weights' scale on the source of largest scale; 0 without masks."""
        return sum(self.masked.values(), MaskedRounding()).mask_bits(weight_bits) if self.masked else 0


NO_WORK = Work(0, 0, 0, {}, 0)


@dataclass(frozen=True)
class Choice:
    """A plan's decision for one node: the level it is computed at, its scale before rescaling (bits), its rescales."""

    level: int
    scale_bits: float
    rescales: int


class Forecaster:
    """Forecasts for plans of one graph at one ring dimension.

    `feedback_noise` is the standard deviation that an output takes on before it is an input again: bootstrapping's.
    `symmetric` says how fresh ciphertexts are encrypted, `fine` whether real weights are rounded half as much, and
    `centred` whether the digits of key switches are centred.
    """

    def __init__(
        self,
        graph: Graph,
        ring_dimension: int,
        work: Mapping[str, Work],
        layouts: Mapping[str, Layout],
        feedback_noise: float = 0.0,
        symmetric: bool = True,
        fine: bool = False,
        centred: bool = False,
    ) -> None:
        self.graph = graph
        self.work = work
        self.layouts = layouts
        self._pairs = any(layout.pairs for layout in layouts.values())
        self._fed = {o.feedback: feedback_noise for o in graph.outputs.values() if o.feedback is not None}
        self.model = NoiseModel(ring_dimension)
        self._fresh = self.model.fresh if symmetric else self.model.fresh_public
        self._encode = self.model.encode_real if fine and not self._pairs else self.model.encode
        self._row_norms = {  # mean square norm of the rows of each matrix: how it amplifies independent noise
            (node.name, term.source): float(np.sum(term.matrix.values**2)) / term.matrix.shape[0]
            for node in graph.nodes.values()
            if isinstance(node, Affine)
            for term in node.terms
        }
        self._centred = centred
        self._bias_share = 0.0 if centred else BIAS_SHARE
        self._profile = self.model.key_switch_bias()
        self._gains = self._measure()

    def precision_db(self, params: CkksParams, choices: Mapping[str, Choice]) -> float:
        """PSNR in dB of the final images against plaintext; less if single entries would be off by more than usual."""
        noise = self._noise(params, choices)
        rms = math.sqrt(sum((noise[origin] * gain[0]) ** 2 for origin, gain in self._gains.items()))
        peak = math.sqrt(sum((noise[origin] * gain[1]) ** 2 for origin, gain in self._gains.items()))
        error = max(rms, peak / PEAK_OVER_RMS)
        return 20 * math.log10(DATA_RANGE / error) if error else math.inf

    def _noise(self, params: CkksParams, choices: Mapping[str, Choice]) -> dict[Origin, float]:
        """Standard deviation of the noise of each origin under a plan, in units of the node's value."""
        chain = params.modulus_bits
        switches = self._switches(params)
        scales = dict.fromkeys(self.graph.inputs, params.scale_bits)
        noise: dict[Origin, float] = {}
        for name, node in self.graph.nodes.items():
            if isinstance(node, Input):
                noise[name, "random", ""] = math.hypot(self._fresh / 2.0 ** scales[name], self._fed.get(name, 0.0))
                continue
            choice = choices[name]
            scales[name] = choice.scale_bits - sum(chain[choice.level + 1 - choice.rescales : choice.level + 1])
            switch = switches[choice.level]
            variance = (switch / 2.0**choice.scale_bits) ** 2
            if isinstance(node, Affine):
                work = self.work.get(name, NO_WORK)
                variance *= work.giants
                anchor = max((scales[term.source] for term in node.terms), default=0.0)
                mask_bits = work.mask_bits(choice.scale_bits - anchor)
                for term in node.terms:
                    # Its rotations add noise at the source's scale.
                    turned = work.turns.get(term.source, 0.0) * self._row_norms[name, term.source]
                    variance += turned * (switch / 2.0 ** scales[term.source]) ** 2
                    vectors = math.sqrt(work.diagonals.get(term.source, 0.0)) * self._encode
                    numbers = math.sqrt(work.numbers.get(term.source, 0.0)) * self.model.encode_constant
                    weight_scale = 2.0 ** (choice.scale_bits - scales[term.source])
                    noise[name, "rounding", term.source] = math.hypot(vectors, numbers) / weight_scale
                    if term.source in work.masked:
                        noise[name, "rounding", term.source] = work.masked[term.source].error(
                            weight_scale, 2.0**mask_bits, self._encode, self.model.encode_constant
                        )
            elif isinstance(node, Polynomial) and self._pairs:  # the conjugation adds noise at the source's scale
                before = switch / 2.0 ** scales[node.source]
                noise[name, "random", node.source] = before * math.sqrt(1 - self._bias_share)
                noise[name, "bias", node.source] = before * math.sqrt(self._bias_share)
            rescaling = choice.rescales * (self.model.rescale / 2.0 ** scales[name]) ** 2
            sums = self.work.get(name, NO_WORK).partial_sums if choice.rescales else 1
            if sums > 1:  # each sum is the next one's part
                rescaling *= sums
                variance += (sums - 1) * (switch / 2.0 ** scales[name]) ** 2
            noise[name, "random", ""] = math.sqrt(rescaling + variance * (1 - self._bias_share))
            noise[name, "bias", ""] = math.sqrt(variance * self._bias_share)
        return noise

    def _switches(self, params: CkksParams) -> list[float]:
        """The noise of a key switch at each level: a digit has as many primes as P."""
        chain, together, special = params.modulus_bits, len(params.special_bits), sum(params.special_bits)
        found = []
        for level in range(len(chain)):
            groups = [chain[k : min(k + together, level + 1)] for k in range(0, level + 1, together)]
            squares = sum(4.0 ** (sum(group) - special) for group in groups)
            found.append(self.model.key_switch(squares, centred=self._centred))
        return found

    def _bias(self, name: str, images: int) -> Array:
        """The profile of a key switch's bias at the slots of a node's value: (images, features)."""
        layout = self.layouts[name]
        _, places = layout.home
        place = np.arange(images) // 2 if layout.pairs else np.arange(images)
        return self._profile[layout.slot(places, np.minimum(place, layout.places - 1)[:, None])]

    def _measure(self) -> dict[Origin, tuple[float, float]]:
        """(root mean square, largest) error of the final outputs for a unit of noise of each origin.

        Of small noise only what is linear counts: derivatives are carried along the steps, of all origins side by side.
        """
        origins = self._origins()
        lanes: dict[str, list[tuple[int, Origin]]] = {name: [] for name in self.graph.nodes}
        for lane, origin in enumerate(origins):
            lanes[origin[0]].append((lane, origin))
        images = min([IMAGES, *(len(array) for array in self.graph.calibration.values())])
        history = self.graph.trajectory({name: array[:images] for name, array in self.graph.calibration.items()})
        unit = _UnitNoise(self, images)
        previous = {name: node.previous for name, node in self.graph.inputs.items()}
        shapes = {name: (features(node), len(origins), images) for name, node in self.graph.nodes.items()}
        current: dict[str, Small] = {name: np.zeros(shapes[name], np.float32) for name in self.graph.inputs}
        errors: dict[str, Small] = {}
        for step, values in enumerate(history):
            errors = {}
            for name, node in self.graph.nodes.items():
                error = _derivative(node, step, values, current, errors, shapes[name])
                for lane, origin in lanes[name]:
                    error[:, lane] += unit.of(origin, values).T
                errors[name] = error
            fed = {
                output.feedback: errors[output.node] * np.float32(output.factors[step])
                for output in self.graph.outputs.values()
                if output.feedback is not None
            }
            moved = {name: current[source] for name, source in previous.items() if source is not None}
            current = {**current, **moved, **fed}
        outputs = self.graph.outputs.values()
        final = np.concatenate([errors[o.node] * o.factors[-1] for o in outputs]).astype(np.float64)
        # Of the worst image: a key switch's bias falls on few of them, and the forecast holds for each.
        rms, largest = np.sqrt(np.mean(final**2, axis=0)).max(axis=1), np.abs(final).max(axis=(0, 2))
        return {origin: (float(rms[lane]), float(largest[lane])) for lane, origin in enumerate(origins)}

    def _origins(self) -> list[Origin]:
        found: list[Origin] = []
        kinds = ("random",) if self._centred else ("random", "bias")
        for name, node in self.graph.nodes.items():
            found += [(name, kind, "") for kind in (("random",) if isinstance(node, Input) else kinds)]
            if isinstance(node, Affine):
                found += [(name, "rounding", term.source) for term in node.terms]
            elif isinstance(node, Polynomial) and self._pairs:
                found += [(name, kind, node.source) for kind in kinds]
        return found


class _UnitNoise:
    """Noise of standard deviation 1 of each origin: (images, features) at a step, some of it the same at all steps."""

    def __init__(self, forecaster: Forecaster, images: int) -> None:
        self._forecaster = forecaster
        self._random = np.random.default_rng(0)
        self._fixed: dict[Origin, Array] = {}
        self._partners = np.minimum(np.arange(images) ^ 1, images - 1)  # the other image in each one's slots

    def of(self, origin: Origin, values: Mapping[str, Array]) -> Array:
        """At a step with these values."""
        name, kind, source = origin
        shape = values[name].shape
        if kind == "rounding":
            x = values[source]
            if origin not in self._fixed:
                self._fixed[origin] = self._random.normal(size=(x.shape[1], shape[1])) / math.sqrt(x.shape[1])
            return np.asarray(x @ self._fixed[origin])
        if kind == "bias" and origin not in self._fixed:
            self._fixed[origin] = self._random.normal(size=shape) * self._forecaster._bias(name, shape[0])
        found = self._fixed[origin] if kind == "bias" else self._random.normal(size=shape)
        if not source:
            return found
        x = values[source]  # an error e of the conjugation of x + i y becomes (x - y) e in both parts
        return np.asarray(found * (x - x[self._partners]))


def _derivative(
    node: Node,
    step: int,
    values: Mapping[str, Array],
    inputs: Mapping[str, Small],
    errors: Mapping[str, Small],
    shape: tuple[int, int, int],
) -> Small:
    """The errors (features, lanes, images) of a node for small ones of what it reads, as a new array."""
    if isinstance(node, Input):
        return inputs[node.name].copy()
    total = np.zeros(shape, np.float32)
    if isinstance(node, Affine):
        for term in node.terms:
            product = (term.matrix @ errors[term.source].reshape(-1, shape[1] * shape[2])).reshape(shape)
            total += product if term.factors is None else product * np.float32(term.factors[step])
    elif isinstance(node, Polynomial):
        x, slope = values[node.source], np.zeros_like(values[node.source])
        for power in range(len(node.coefficients) - 1, 0, -1):
            slope = slope * x + power * node.coefficients[power]
        total += errors[node.source] * slope.T.astype(np.float32)[:, None, :]
    else:
        for source in node.sources:
            total += errors[source]
    return total
