"""Weights of a linear transform, checked and found in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hefw.backends.rns.memory import Memory
from hefw.backends.rns.tape import Rows, Section
from hefw.backends.rns.transforms import Written
from hefw.core.backend import SCALE_TOLERANCE, Ciphertext, Plaintext
from hefw.core.errors import ScaleError

#: The scale of a sum of products; ScaleError or LevelError if there is none.
CommonScale = Callable[[str, Sequence[tuple[Ciphertext, Plaintext]]], float]


class Reading:
    """Of all products of a tape: `rows` (products, primes) of their weights, and the `scales` of what comes out.

    Weights are read section by section (`fill`), and are alive until those of the next section are asked for.
    """

    def __init__(
        self,
        written: Written,
        inputs: Sequence[Ciphertext],
        weights: Sequence[Plaintext],
        memory: Memory,
        common_scale: CommonScale,
    ) -> None:
        tape = written.tape
        self.rows: Rows = np.zeros((tape.whole.products[1], tape.shape.left), np.uint64)
        self._level = tape.shape.left - 1
        self.scales: dict[int, float] = {}  # by output: of sources of several scales they differ
        self._written = written
        self._inputs = inputs
        self._weights = weights
        self._memory = memory
        self._common_scale = common_scale
        self._sums = iter(written.sums)
        self._held: list[Plaintext] = []

    def fill(self, section: Section) -> None:
        """Write the rows of a section, in turn. ScaleError or LevelError for weights that do not agree."""
        at, end = section.products
        self._held = held = []
        while at < end:
            each = next(self._sums)
            pairs = [(self._inputs[self._written.source[place]], self._weights[k]) for place, k in each.terms]
            scale = self._common_scale("linear_transform", pairs)
            wanted = self.scales.setdefault(each.output, scale)
            if abs(scale - wanted) > SCALE_TOLERANCE * wanted:
                raise ScaleError(f"linear_transform: scale {scale:g} differs from {wanted:g}")
            held += [weight for _, weight in pairs]
            self.rows[at : at + len(pairs)] = [self._memory.plain_rows(pt.handle, self._level) for _, pt in pairs]
            at += len(pairs)

    def all(self) -> tuple[Rows, dict[int, float]]:
        """Rows and scales, at once: for weights that stay where they are."""
        for section in self._written.tape.sections:
            self.fill(section)
        return self.rows, self.scales
