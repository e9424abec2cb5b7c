"""Baselines on SEAL's own calls, without hefw's engine: what a careful script would do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import _sealapi_cpp as seal
import numpy as np
from numpy.typing import NDArray

from hefw.core.engine import Engine, spread
from hefw.core.program import LinearOp, Program, SquareOp

Array = NDArray[np.float64]


class Replay:
    """The very library calls that an engine made for one step, in a flat loop."""

    def __init__(self, engine: Engine, run: Callable[[], Any]) -> None:
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...], bool]] = []
        evaluator: Any = engine.evaluator
        real, encoder = evaluator._evaluator, evaluator._context.encoder
        evaluator._evaluator, evaluator._context.encoder = _Recorder(real, self._calls), _Recorder(encoder, self._calls)
        try:
            run()
        finally:
            evaluator._evaluator, evaluator._context.encoder = real, encoder

    def __call__(self) -> float:
        """Seconds for all calls."""
        started = time.perf_counter()
        for method, arguments, adds in self._calls:
            if adds:  # SEAL compares scales exactly; a script would set them as well
                arguments[1].scale = arguments[0].scale
            method(*arguments)
        return time.perf_counter() - started


class _Recorder:
    def __init__(self, real: Any, calls: list[Any]) -> None:
        self._real, self._calls = real, calls

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._real, name)

        def call(*arguments: Any) -> Any:
            self._calls.append((method, arguments, name.startswith("add")))
            return method(*arguments)

        return call


class PlainChain:
    """The same matrices and rotations with a rescale after every layer: one prime of 32 bits a level.

    Keys are made and weights encoded beforehand, as for the engine. Labels enter as in the program's prelude, here as a
    plaintext bias, which only makes this baseline faster.
    """

    SCALE = 2.0**32

    def __init__(self, program: Program, latents: Array, label_bias: dict[str, Array]) -> None:
        self.program = program
        n = program.params.params.ring_dimension
        depth = len(program.step)
        parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(n)
        parameters.set_coeff_modulus(seal.CoeffModulus.Create(n, [45, *([32] * depth), 45]))
        self.context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
        assert self.context.parameters_set(), "the baseline must run at 128 bits too"
        generator = seal.KeyGenerator(self.context)
        self.relinearisation, self.galois = seal.RelinKeys(), seal.GaloisKeys()
        generator.create_relin_keys(self.relinearisation)
        steps = sorted(program.interface.keys.rotations)
        generator.create_galois_keys([pow(3, step, 2 * n) for step in steps], self.galois)
        self.encryptor = seal.Encryptor(self.context, generator.secret_key())
        self.decryptor = seal.Decryptor(self.context, generator.secret_key())
        self.evaluator, self.encoder = seal.Evaluator(self.context), seal.CKKSEncoder(self.context)
        self.ids = []
        data = self.context.first_context_data()
        for _ in range(depth + 1):
            self.ids.append(data.parms_id())
            data = data.next_context_data()
        self.levels = {name: 0 for name in program.interface.inputs}
        self.weights: dict[str, list[Any]] = {}
        self.biases: dict[str, list[Any]] = {}
        for number, op in enumerate(program.step):
            if isinstance(op, LinearOp):
                level = max(self.levels[name] for name in [*op.sources, *(s.value for s in op.scalars)])
                assert op.transform is not None
                self.weights[op.name] = [
                    self._encode(op.transform.weight(k), level) for k in range(len(op.transform.weights))
                ]
                bias = np.zeros((op.layout.ciphertexts, self.encoder.slot_count()))
                if op.bias is not None:
                    bias = bias + spread(op, op.bias[0])
                self.biases[op.name] = [self._encode(row, level, self.SCALE**2) for row in bias + label_bias.get(op.name, 0.0)]
                self.levels[op.name] = level + 1
            else:
                level = self.levels[op.source]
                rows = spread(op, np.zeros(op.layout.features) if op.shift is None else op.shift)
                self.biases[op.name] = [self._encode(row, level, self.SCALE**2) for row in rows]
                self.levels[op.name] = level + 1
        layout = program.interface.inputs["latent"].layout
        self.latent = [self._encrypt(row) for row in layout.pack(latents)]

    def __call__(self) -> tuple[float, Array]:
        """(seconds of one step, decrypted output slots)."""
        evaluator = self.evaluator
        started = time.perf_counter()
        values: dict[str, list[Any]] = {"latent": self.latent}
        for op in self.program.step:
            if isinstance(op, SquareOp):
                out = []
                for ct, shift in zip(values[op.source], self.biases[op.name], strict=True):
                    squared = seal.Ciphertext()
                    evaluator.square(ct, squared)
                    evaluator.relinearize_inplace(squared, self.relinearisation)
                    evaluator.add_plain_inplace(squared, shift)
                    out.append(self._rescaled(squared))
            else:
                out = [self._rescaled(ct) for ct in self._linear(op, values)]
            values[op.name] = out
        seconds = time.perf_counter() - started
        return seconds, np.stack([self._decrypt(ct) for ct in values[self.program.step[-1].name]])

    def _linear(self, op: LinearOp, values: dict[str, list[Any]]) -> list[Any]:
        evaluator, transform = self.evaluator, op.transform
        assert transform is not None
        level = self.levels[op.name] - 1
        inputs = [self._at(ct, level) for name in op.sources for ct in values[name]]
        rotated = [{step: self._rotate(ct, step) for step in steps} for ct, steps in zip(inputs, transform.babies, strict=True)]
        weights = self.weights[op.name]
        totals = []
        for groups, bias in zip(transform.outputs, self.biases[op.name], strict=True):
            total = None
            for group in groups:
                inner, product = seal.Ciphertext(), seal.Ciphertext()
                for k, term in enumerate(group.terms):
                    target = product if k else inner
                    evaluator.multiply_plain(rotated[term.source][term.baby], weights[term.weight], target)
                    if k:
                        evaluator.add_inplace(inner, product)
                inner = self._rotate(inner, group.giant)
                if total is None:
                    total = inner
                else:
                    evaluator.add_inplace(total, inner)
            for step in transform.folds:
                evaluator.add_inplace(total, self._rotate(total, step))
            for scalar in op.scalars:
                source = self._at(values[scalar.value][0], level)
                plain, product = seal.Plaintext(), seal.Ciphertext()
                self.encoder.encode(float(scalar.factors[0]), self.ids[level], self.SCALE, plain)
                evaluator.multiply_plain(source, plain, product)
                evaluator.add_inplace(total, product)
            evaluator.add_plain_inplace(total, bias)
            totals.append(total)
        return totals

    def _rotate(self, ct: Any, step: int) -> Any:
        if step == 0:
            return ct
        out = seal.Ciphertext()
        self.evaluator.rotate_vector(ct, step, self.galois, out)
        return out

    def _at(self, ct: Any, level: int) -> Any:
        out = seal.Ciphertext()
        self.evaluator.mod_switch_to(ct, self.ids[level], out)
        return out

    def _rescaled(self, ct: Any) -> Any:
        self.evaluator.rescale_to_next_inplace(ct)
        ct.scale = self.SCALE  # primes differ from 2^32 by a millionth: the usual shortcut
        return ct

    def _encode(self, values: Any, level: int, scale: float = SCALE) -> Any:
        plain = seal.Plaintext()
        self.encoder.encode(values.tolist() if isinstance(values, np.ndarray) else values, self.ids[level], scale, plain)
        return plain

    def _encrypt(self, slots: Array) -> Any:
        out = seal.Ciphertext()
        self.encryptor.encrypt_symmetric(self._encode(slots, 0), out)
        return out

    def _decrypt(self, ct: Any) -> Array:
        plain = seal.Plaintext()
        self.decryptor.decrypt(ct, plain)
        return np.array(self.encoder.decode_double(plain))
