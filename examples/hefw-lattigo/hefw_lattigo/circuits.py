"""Circuits of one node, as orion-v2-evaluator loads them: its only way to reach Lattigo's evaluator from Python.

The format: a JSON header and binary blobs. The header's parameters are the server's: see `evaluator`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import orion_evaluator
from hefw.core.params import Resolved

from hefw_lattigo.context import AUXILIARY_BITS, NOMINAL_BITS

MAGIC = b"ORION\x00\x02\x00"


def parameters(params: Resolved) -> dict[str, Any]:
    """The server's parameters: the special prime is the last of the chain."""
    asked = params.params
    return {
        "logn": asked.ring_dimension.bit_length() - 1,
        "logq": [*asked.modulus_bits, *asked.special_bits],
        "logp": [AUXILIARY_BITS],
        "log_default_scale": NOMINAL_BITS,
        "h": 1,  # of a secret; there is none here, but 0 is refused
        "ring_type": "standard",
    }


def rotations(params: Resolved, steps: Sequence[int]) -> orion_evaluator.Model:
    """One ciphertext to its rotations by all `steps`, none of them 0; each is rescaled."""
    return _diagonals(params, steps, ratio=0.5)  # below 1: by a key for each diagonal, without baby and giant steps


def rescale(params: Resolved) -> orion_evaluator.Model:
    """One ciphertext, rescaled. It needs no key."""
    return _diagonals(params, [0], ratio=1.0)  # below 1, Lattigo adds an uninitialised buffer to a lone diagonal 0


def square(params: Resolved) -> orion_evaluator.Model:
    """The squares of any number of ciphertexts, relinearised and rescaled."""
    return _load(params, "quad", {}, [])


def _diagonals(params: Resolved, steps: Sequence[int], ratio: float) -> orion_evaluator.Model:
    # A matrix with one diagonal of ones rotates. Encoded at the scale of the special prime, 1 / prime is exactly 1.
    ones = np.full(params.slots, 1 / params.special_primes[0]).tobytes()
    blobs = [struct.pack("<Ii", 1, step) + ones for step in steps]
    config = {"bsgs_ratio": ratio, "num_input_cts": 1, "num_output_cts": len(steps)}
    return _load(params, "linear_transform", config, blobs)


def _load(params: Resolved, operation: str, config: dict[str, Any], blobs: list[bytes]) -> orion_evaluator.Model:
    node = {
        "name": "node",
        "op": operation,
        "level": params.max_level + 1,
        "depth": 1,
        "config": config,
        "blob_refs": {f"diag_{row}_0": row for row in range(len(blobs))},
    }
    header = json.dumps(
        {
            "version": 2,
            "params": parameters(params),
            "graph": {"input": "node", "output": "node", "nodes": [node], "edges": []},
            "blob_count": len(blobs),
        }
    ).encode()
    data = MAGIC + struct.pack("<I", len(header)) + header + struct.pack("<I", len(blobs))
    return orion_evaluator.Model.load(data + b"".join(struct.pack("<Q", len(blob)) + blob for blob in blobs))
