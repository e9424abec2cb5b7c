"""Orion v2 (PyPI orion-v2-*), in an interpreter of its own: torch, numpy and Orion, nothing of hefw.

    PYTHON -m benchmarks.peers.orion SPECIAL_PRIMES NETWORK

It evaluates one image a ciphertext. Its server is this process; keys, ciphertexts and results are made by a key holder
in another one, through a private folder, as the server could not hold both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import orion_compiler.nn as on
import torch
from lattigo import ckks, rlwe
from orion_compiler import CKKSParams, Compiler
from orion_evaluator import Evaluator, Model

from benchmarks.peers.nets import STACKS, Array, Stack
from benchmarks.peers.regions import Regions
from benchmarks.peers.worker import errors, work

LOG_N = 14
#: A prime a level, of the bits of the scale; and the primes of key switching by their number. At most 438 bits in all,
#: 128-bit security at N = 2^14.
CHAINS = {
    "1": ([45, *[32] * 9], [45], 32),
    "2": ([45, *[32] * 9], [50, 50], 32),
    "3": ([40, *[30] * 9], [42, 42, 42], 30),
}
#: Of a secret key: two thirds of the coefficients, as of a uniform ternary one. Orion's default of 192 is less secure.
WEIGHT = 2 * 2**LOG_N // 3


class Convolutions(on.Module):
    """A stack in Orion's own layers."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.count = stack.convolutions
        for number, weight in enumerate(stack.weights()):
            layer = on.Conv2d(stack.channels, stack.channels, 3, padding=1, bias=False)
            layer.weight.data = torch.from_numpy(weight).float()
            setattr(self, f"layer{number}", layer)
            setattr(self, f"square{number}", on.Quad())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number in range(self.count):
            x = getattr(self, f"layer{number}")(x)
            if number + 1 < self.count:
                x = getattr(self, f"square{number}")(x)
        return x


class Matrices(on.Module):
    """Affine regions as matrices: what one step of a model is for a fixed label."""

    def __init__(self, regions: Regions) -> None:
        super().__init__()
        self.steps = {_name(name): step for name, step in regions.steps.items()}
        for name, step in self.steps.items():
            setattr(self, f"square_{name}", on.Quad())
            for number, (_, matrix) in enumerate(step.terms):
                layer = on.Linear(matrix.shape[1], matrix.shape[0], bias=number == 0)
                layer.weight.data = torch.from_numpy(matrix).float()
                if number == 0:
                    layer.bias.data = torch.from_numpy(step.bias).float()
                setattr(self, f"{name}_{number}", layer)
                setattr(self, f"{name}_add{number}", on.Add())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = {"latent": x}
        for name, step in self.steps.items():
            if step.square is not None:
                values[name] = getattr(self, f"square_{name}")(values[_name(step.square)])
                continue
            for number, (source, _) in enumerate(step.terms):
                part = getattr(self, f"{name}_{number}")(values[_name(source)])
                values[name] = getattr(self, f"{name}_add{number}")(values[name], part) if number else part
        return values[name]


def _name(value: str) -> str:
    """Torch's modules have no dots in their names."""
    return value.replace(".", "_")


class Problem:
    """A network, an image (1, *shape) and what the network makes of it."""

    def __init__(self, name: str) -> None:
        self.net: Any
        self.image: Array
        self.expected: Array
        if name in STACKS:
            stack = STACKS[name]
            self.net, self.image = Convolutions(stack), stack.images(1)
            self.expected, self.digest = stack.reference(self.image), stack.digest()
        else:
            regions = Regions.load(Path(name))
            self.net, self.image = Matrices(regions), regions.inputs[:1]
            self.expected, self.digest = regions.expected[:1], regions.digest()


class Orion:
    """The server's side."""

    def __init__(self, chain: str, name: str) -> None:
        self.chain, self.problem, self.name = chain, Problem(name), name
        self.folder = tempfile.TemporaryDirectory(prefix="peer-")  # only this user can read it
        self.result = b""

    def prepare(self) -> dict[str, Any]:
        q, p, scale = CHAINS[self.chain]
        started = time.perf_counter()
        compiler = Compiler(
            self.problem.net,
            CKKSParams(logn=LOG_N, logq=q, logp=p, log_default_scale=scale, h=WEIGHT, ring_type="standard"),
        )
        compiler.fit(torch.from_numpy(self.problem.image).float())
        data = compiler.compile().to_bytes()
        compiled = time.perf_counter()
        self.model = Model.load(data)
        loaded = time.perf_counter()
        params, manifest, level = self.model.client_params()
        told = json.dumps({"params": params, "manifest": manifest, "level": level})
        (self.path("told")).write_text(told, encoding="utf-8")
        self._key_holder("keys")
        keys = self.path("keys").read_bytes()
        self.input = self.path("input").read_bytes()
        made = time.perf_counter()
        self.evaluator = Evaluator(params, keys)
        return {
            "images": 1,
            "keys_bytes": len(keys),
            "rotation_keys": len(manifest["galois_elements"]),
            "upload_bytes": len(self.input),
            "modulus_bits": [*q, *p],
            "compile_seconds": compiled - started,
            "encode_seconds": loaded - compiled,
            "keygen_seconds": made - loaded,
            "digest": self.problem.digest,
            "versions": {
                name: version(name) for name in ("orion-v2-compiler", "orion-v2-evaluator", "orion-v2-lattigo", "torch")
            },
        }

    def run(self) -> None:
        (self.result,) = self.evaluator.forward(self.model, [self.input])

    def finish(self) -> dict[str, Any]:
        self.path("result").write_bytes(self.result)
        self._key_holder("decrypt")
        found = np.load(self.path("found.npy"))
        expected = self.problem.expected.reshape(-1)
        self.folder.cleanup()
        return {"download_bytes": len(self.result), **errors(found[: expected.size], expected)}

    def path(self, name: str) -> Path:
        return Path(self.folder.name) / name

    def _key_holder(self, task: str) -> None:
        command = [sys.executable, "-m", "benchmarks.peers.orion", self.chain, self.name, task, self.folder.name]
        subprocess.run(command, check=True, env=os.environ)


def key_holder(task: str, problem: Problem, folder: Path) -> None:
    """Make keys and encrypt, or decrypt what the server computed."""
    told = json.loads((folder / "told").read_text(encoding="utf-8"))
    params = ckks.Parameters.from_dict(told["params"])
    encoder = ckks.Encoder(params)
    if task == "decrypt":
        secret = rlwe.SecretKey.unmarshal_binary((folder / "secret").read_bytes())
        result = rlwe.Ciphertext.unmarshal_binary((folder / "result").read_bytes())
        plain = rlwe.Decryptor(params, secret).decrypt_new(result)
        np.save(folder / "found.npy", np.array(encoder.decode(plain, params.max_slots())))
        return
    generator = rlwe.KeyGenerator(params)
    secret = generator.gen_secret_key()
    (folder / "secret").write_bytes(secret.marshal_binary())
    public = generator.gen_public_key(secret)
    plain = encoder.encode(problem.image.reshape(-1).tolist(), told["level"], params.default_scale())
    encrypted = rlwe.Encryptor(params, public).encrypt_new(plain)
    (folder / "input").write_bytes(encrypted.marshal_binary())
    rotations = [generator.gen_galois_key(secret, element) for element in told["manifest"]["galois_elements"]]
    keys = rlwe.MemEvaluationKeySet(generator.gen_relin_key(secret), rotations)
    (folder / "keys").write_bytes(keys.marshal_binary())


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 3:
        key_holder(sys.argv[3], Problem(sys.argv[2]), Path(sys.argv[4]))
    else:
        work(Orion)
