"""The server's side on SEAL: no secret key, no decryptor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import _sealapi_cpp as seal
import numpy as np
from numpy.typing import NDArray

from hefw.backends.seal import galois_element, memory_file, opaque, path_of
from hefw.backends.tenseal import wide
from hefw.backends.tenseal.context import Context, PublicFile, dump, padded_length, parse
from hefw.backends.tenseal.residues import Residues
from hefw.core.backend import Capabilities, Ciphertext, Evaluator, Plaintext, check_scale
from hefw.core.errors import EnvelopeError
from hefw.core.linear import Transform
from hefw.core.params import Resolved

#: Products of a matrix of numbers from which on it is multiplied with residues.
MANY_PRODUCTS = 256


class TensealEvaluator(Evaluator):
    """SEAL's evaluator. hefw keeps the scales and writes them into SEAL's objects, whose own checks compare exactly."""

    def __init__(self, params: Resolved, capabilities: Capabilities) -> None:
        super().__init__(params, capabilities)
        self._context = Context(params)
        self._evaluator = seal.Evaluator(self._context.seal)
        self._relinearisation: Any = None
        self._galois: dict[str, Any] = {}
        self._file = PublicFile()
        self._residues = Residues(self._context)

    def _load_key(self, name: str, payload: bytes) -> None:
        key: Any = seal.RelinKeys() if name == "relinearisation" else seal.GaloisKeys()
        parse(f"{name} key", lambda path: key.load(self._context.seal, path), payload, self._file)
        wanted = 2 if name == "relinearisation" else galois_element(name, self.params.params.ring_dimension)
        if not key.has_key(wanted):  # 2: the power of the secret that relinearisation replaces
            raise EnvelopeError(f"the bytes sent as {name!r} hold another key")
        if name == "relinearisation":
            self._relinearisation = key
        else:
            self._galois[name] = key

    def _load(self, payload: bytes, level: int, scale: float) -> Any:
        return self._context.ciphertext(payload, level, scale)

    def _dump(self, ciphertext: Ciphertext) -> bytes:
        primes = self.params.primes[: ciphertext.level + 1]
        return dump(ciphertext.handle.save, padded_length(primes, self.params.params.ring_dimension, ciphertext.size))

    def _encode(self, values: NDArray[Any] | float, level: int, scale: float) -> Any:
        return self._context.encode(values, level, scale)

    def dump_plaintext(self, a: Plaintext) -> bytes:
        """As SEAL saves it, compressed: three times faster to load than to encode (N = 16384)."""
        with memory_file() as file:
            a.handle.save(path_of(file))
            file.seek(0)
            return file.read()

    def load_plaintext(self, data: bytes | memoryview, level: int, scale: float) -> Plaintext:
        """By SEAL's loader, which checks it against the context."""
        plaintext = seal.Plaintext()
        self._file.load("plaintext", lambda path: plaintext.load(self._context.seal, path), data)
        if plaintext.parms_id() != self._context.level_ids[level] or plaintext.scale != scale:
            raise EnvelopeError(f"a plaintext that is not of level {level} and scale {scale:g}")
        return Plaintext(plaintext, level, scale)

    def _add(self, a: Ciphertext, b: Ciphertext) -> Any:
        out = seal.Ciphertext()
        a.handle.scale = b.handle.scale = a.scale
        with opaque():
            self._evaluator.add(a.handle, b.handle, out)
        return out

    def _add_into(self, a: Ciphertext, b: Ciphertext) -> Any:
        a.handle.scale = b.handle.scale = a.scale
        with opaque():
            self._evaluator.add_inplace(a.handle, b.handle)
        return a.handle

    def _sub(self, a: Ciphertext, b: Ciphertext) -> Any:
        out = seal.Ciphertext()
        a.handle.scale = b.handle.scale = a.scale
        with opaque():
            self._evaluator.sub(a.handle, b.handle, out)
        return out

    def _negate(self, a: Ciphertext) -> Any:
        out = seal.Ciphertext()
        self._evaluator.negate(a.handle, out)
        return out

    def _add_plain(self, a: Ciphertext, b: Plaintext) -> Any:
        out = seal.Ciphertext()
        a.handle.scale = b.handle.scale = a.scale
        self._evaluator.add_plain(a.handle, b.handle, out)
        return out

    def _mul_plain(self, a: Ciphertext, b: Plaintext) -> Any:
        out = seal.Ciphertext()
        with opaque():
            self._evaluator.multiply_plain(a.handle, b.handle, out)
        return out

    def _multiply_accumulate(self, pairs: Sequence[tuple[Ciphertext, Plaintext]]) -> Any:
        evaluator = self._evaluator
        first, weight = pairs[0]
        total = seal.Ciphertext()
        product = seal.Ciphertext()  # reused: an allocation a product costs as much as its addition
        with opaque():
            evaluator.multiply_plain(first.handle, weight.handle, total)
            for a, b in pairs[1:]:
                evaluator.multiply_plain(a.handle, b.handle, product)
                product.scale = total.scale
                evaluator.add_inplace(total, product)
        return total

    def _mul(self, a: Ciphertext, b: Ciphertext) -> Any:
        out = seal.Ciphertext()
        self._evaluator.multiply(a.handle, b.handle, out)
        return out

    def _square(self, a: Ciphertext) -> Any:
        out = seal.Ciphertext()
        self._evaluator.square(a.handle, out)
        return out

    def _relinearise(self, a: Ciphertext) -> Any:
        out = seal.Ciphertext()
        self._evaluator.relinearize(a.handle, self._relinearisation, out)
        return out

    def _rescale(self, a: Ciphertext) -> Any:
        out = seal.Ciphertext()
        self._evaluator.rescale_to_next(a.handle, out)
        return out

    def _drop_level(self, a: Ciphertext, level: int) -> Any:
        out = seal.Ciphertext()
        self._evaluator.mod_switch_to(a.handle, self._context.level_ids[level], out)
        return out

    def _drop_plain_level(self, a: Plaintext, level: int) -> Any:
        out = seal.Plaintext()
        self._evaluator.mod_switch_to(a.handle, self._context.level_ids[level], out)
        return out

    def _rotate(self, a: Ciphertext, step: int) -> Any:
        out = seal.Ciphertext()
        self._evaluator.rotate_vector(a.handle, step, self._galois[f"rotation/{step}"], out)
        return out

    def _conjugate(self, a: Ciphertext) -> Any:
        out = seal.Ciphertext()
        self._evaluator.complex_conjugate(a.handle, self._galois["conjugation"], out)
        return out

    def linear_transform(
        self, inputs: Sequence[Ciphertext], transform: Transform, weights: Sequence[Plaintext]
    ) -> list[Ciphertext]:
        """As the default does it; a matrix of numbers is multiplied with residues, where that is many products."""
        if transform.scalar and transform.products >= MANY_PRODUCTS and self._wide(inputs):
            scales = {transform.weight_sources[k]: k for k in range(len(transform.weight_sources))}
            found = self._times(inputs, transform, {source: weights[k].scale for source, k in scales.items()})
            if found is not None:
                return found
        return super().linear_transform(inputs, transform, weights)

    def _wide(self, inputs: Sequence[Ciphertext]) -> bool:
        primes = self.params.primes[: inputs[0].level + 1]
        return all(map(wide.suits, primes)) and self.reaches_residues(inputs[0])

    def _times(
        self, inputs: Sequence[Ciphertext], transform: Transform, scales: Mapping[int, float]
    ) -> list[Ciphertext] | None:
        """The product with a matrix of numbers at the scale of each source; None if they are too large."""
        matrix = np.zeros((len(transform.outputs), len(inputs)), dtype=np.int64)
        for row, groups in enumerate(transform.outputs):
            for term in (term for group in groups for term in group.terms):
                value = float(transform.weights[term.weight, 0]) * scales[transform.weight_sources[term.weight]]
                if abs(value) >= wide.MOST_WEIGHT:
                    return None
                matrix[row, term.source] += round(value) or (1 if value > 0 else -1)
        first = transform.outputs[0][0].terms[0]
        level = inputs[0].level
        scale = inputs[first.source].scale * scales[transform.weight_sources[first.weight]]
        if not matrix.any(axis=1).all():
            return None  # SEAL would refuse such a result
        try:
            pieces = wide.Matrix(matrix)
        except OverflowError:
            return None
        check_scale(self.params, level, scale)
        blanks = [self._residues.blank(level) for _ in transform.outputs]
        for handle in blanks:
            handle.scale = scale
        primes = self.params.primes[: level + 1]
        views = [self._residues.view(handle) for handle in blanks]
        wide.multiply(pieces, [self.residues(ct) for ct in inputs], views, primes, self.threads)
        self.counts["encode"] += transform.products - len(scales)
        self.counts["mul_plain"] += transform.products
        self.counts["add"] += transform.products - len(blanks)
        return [Ciphertext(handle, level, scale) for handle in blanks]

    # -- residues ------------------------------------------------------------------------------------------------

    def reaches_residues(self, example: Ciphertext) -> bool:
        """Whether this build of TenSEAL keeps them where they are looked for."""
        return self._residues.usable(example.handle)

    def residues(self, a: Ciphertext) -> NDArray[np.uint64]:
        """(parts, primes, N), in SEAL's own memory."""
        return self._residues.view(a.handle)

    def of_residues(self, residues: NDArray[np.uint64], level: int, scale: float) -> Ciphertext:
        """A new ciphertext of these numbers."""
        handle = self._residues.blank(level)
        view = self._residues.view(handle)
        view[...] = residues.reshape(view.shape)
        handle.scale = scale
        return Ciphertext(handle, level, scale)
