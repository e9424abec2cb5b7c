"""HE-Diffusion's published ways on a latent of `digits`: the network runs in plaintext, only the update is encrypted.

python -m benchmarks.peers.paper full | sparse
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.peers.worker import errors, work
from hefw.bench.published import PRIME_BITS, Published

SHAPE = (1, 8, 8)
FACTOR = 0.9
#: Images of a run, one after the other: one is too short for the clock of processors.
IMAGES = 20


class Paper:
    """One process, which has the key: so it was published. A run is all parts of a step, image by image.

    The network itself is not run.
    """

    def __init__(self, way: str) -> None:
        self.way = way

    def prepare(self) -> dict[str, Any]:
        self.published = Published()
        rng = np.random.default_rng(1)
        self.latent, self.addend = rng.normal(size=SHAPE), rng.normal(size=SHAPE)
        return {"images": IMAGES, "keys_bytes": 0, "modulus_bits": list(PRIME_BITS)}

    def run(self) -> None:
        step = self.published.sparse if self.way == "sparse" else self.published.full
        for _ in range(IMAGES):
            self.step = step(self.latent, FACTOR, self.addend)

    def finish(self) -> dict[str, Any]:
        expected = FACTOR * self.latent + self.addend
        return {"encrypted_entries": self.step.encrypted_elements, **errors(self.step.latent, expected)}


if __name__ == "__main__":
    work(Paper)
