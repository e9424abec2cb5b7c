"""The server's side on SEAL: no secret key, no decryptor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import _sealapi_cpp as seal
import numpy as np
from numpy.typing import NDArray

from hefw.backends.seal import galois_element, opaque
from hefw.backends.tenseal.context import Context, dump, padded_length, parse
from hefw.backends.tenseal.residues import Residues
from hefw.core.backend import Capabilities, Ciphertext, Evaluator, Plaintext
from hefw.core.errors import EnvelopeError
from hefw.core.params import Resolved


class TensealEvaluator(Evaluator):
    """SEAL's evaluator. hefw keeps the scales and writes them into SEAL's objects, whose own checks compare exactly."""

    def __init__(self, params: Resolved, capabilities: Capabilities) -> None:
        super().__init__(params, capabilities)
        self._context = Context(params)
        self._evaluator = seal.Evaluator(self._context.seal)
        self._relinearisation: Any = None
        self._galois: dict[str, Any] = {}
        self._residues = Residues(self._context)

    def _load_key(self, name: str, payload: bytes) -> None:
        key: Any = seal.RelinKeys() if name == "relinearisation" else seal.GaloisKeys()
        parse(f"{name} key", lambda path: key.load(self._context.seal, path), payload)
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
