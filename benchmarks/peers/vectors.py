"""TenSEAL's own classes: one convolution of the stack as a dense matrix, by `CKKSVector.matmul`.

    python -m benchmarks.peers.vectors NETWORK

TenSEAL multiplies an encrypted vector with a plaintext matrix, diagonal by diagonal, each with a rotation that is made
of rotations by powers of two. The first of the network's convolutions is measured; the others are no cheaper but for
the level.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import tenseal as ts
import torch
from torch.nn.functional import conv2d

from benchmarks.peers.nets import STACKS, Array
from benchmarks.peers.worker import errors, work

RING_DIMENSION = 16384
#: A prime a level, so that the whole network would fit.
PRIME_BITS = (45, *[32] * 9, 45)
SCALE = 2.0**32


class Vector:
    """A context without its secret key multiplies; the key holder's is kept for the end."""

    def __init__(self, network: str) -> None:
        self.stack = STACKS[network]

    def prepare(self) -> dict[str, Any]:
        started = time.perf_counter()
        self.context = ts.context(
            ts.SCHEME_TYPE.CKKS, RING_DIMENSION, coeff_mod_bit_sizes=list(PRIME_BITS), n_threads=1
        )
        self.context.global_scale = SCALE
        self.context.generate_galois_keys()
        keys = self.context.serialize(
            save_public_key=False, save_secret_key=False, save_galois_keys=True, save_relin_keys=True
        )
        made = time.perf_counter()
        matrix, image = self.matrix(), self.stack.images(1).reshape(-1)
        self.matrix_rows = matrix.T.tolist()
        self.expected = matrix @ image
        self.input = ts.ckks_vector(self.context, image.tolist()).serialize()
        return {
            "images": 1,
            "keys_bytes": len(keys),
            "upload_bytes": len(self.input),
            "modulus_bits": list(PRIME_BITS),
            "keygen_seconds": made - started,
            "digest": self.stack.digest(),
        }

    def matrix(self) -> Array:
        """The first convolution as (features, features)."""
        size = int(np.prod(self.stack.shape))
        basis = torch.eye(size, dtype=torch.float64).reshape(size, *self.stack.shape)
        columns = conv2d(basis, torch.from_numpy(self.stack.weights()[0]), padding=1)
        found: Array = columns.reshape(size, size).numpy().T
        return found

    def run(self) -> None:
        vector = ts.ckks_vector_from(self.context, self.input)
        self.result = vector.matmul(self.matrix_rows).serialize()

    def finish(self) -> dict[str, Any]:
        found = np.array(ts.ckks_vector_from(self.context, self.result).decrypt())
        return {"download_bytes": len(self.result), **errors(found, self.expected)}


if __name__ == "__main__":
    work(Vector)
