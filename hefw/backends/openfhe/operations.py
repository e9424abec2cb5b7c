"""What evaluators on OpenFHE have in common: bytes, sums, products, and levels by its own calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from hefw.backends.openfhe.context import LARGEST_INTEGER, context
from hefw.backends.openfhe.memory import Number
from hefw.core.backend import Capabilities, Ciphertext, Evaluator, Plaintext
from hefw.core.params import Resolved


class OpenfheOperations(Evaluator):
    """OpenFHE's, but for key switches. No secret key, nothing that decrypts."""

    def __init__(self, params: Resolved, capabilities: Capabilities) -> None:
        super().__init__(params, capabilities)
        self._context = context(params)
        self._openfhe = self._context.openfhe

    # -- bytes -------------------------------------------------------------------------------------------------------

    def _load(self, payload: bytes, level: int, scale: float) -> Any:
        return self._context.load(payload, level)

    def _dump(self, ciphertext: Ciphertext) -> bytes:
        return self._context.dump(ciphertext.handle, ciphertext.level, ciphertext.size)

    def _encode(self, values: NDArray[Any] | float, level: int, scale: float) -> Any:
        return self._context.encode(values, level, scale)

    # -- additions ---------------------------------------------------------------------------------------------------

    def _add(self, a: Ciphertext, b: Ciphertext) -> Any:
        out = a.handle.Clone()
        self._openfhe.EvalAddInPlaceNoCheck(out, b.handle)
        return out

    def _add_into(self, a: Ciphertext, b: Ciphertext) -> Any:
        self._openfhe.EvalAddInPlaceNoCheck(a.handle, b.handle)
        return a.handle

    def _sub(self, a: Ciphertext, b: Ciphertext) -> Any:
        return self._openfhe.EvalSub(a.handle, b.handle)

    def _negate(self, a: Ciphertext) -> Any:
        return self._openfhe.EvalNegate(a.handle)

    def _add_plain(self, a: Ciphertext, b: Plaintext) -> Any:
        if not isinstance(b.handle, Number):
            return self._openfhe.EvalAdd(a.handle, b.handle)
        added = self._openfhe.EvalAdd if b.handle.value >= 0 else self._openfhe.EvalSub
        return added(a.handle, abs(b.handle.value) / self._context.nominal)

    # -- products: OpenFHE's degree, its power of the nominal scale, is set back to 1 --------------------------------

    def _mul_plain(self, a: Ciphertext, b: Plaintext) -> Any:
        return nominal(self._product_with_plain(a.handle, b.handle))

    def _product_with_plain(self, a: Any, b: Any) -> Any:
        if not isinstance(b, Number):
            return self._openfhe.EvalMult(a, b)
        if abs(b.value) >= LARGEST_INTEGER:
            return self._openfhe.EvalMult(a, b.value / self._context.nominal)
        # OpenFHE's product with a float rounds negative ones to another integer; with an integer it is exact.
        out = self._openfhe.EvalMultNoCheck(a, abs(b.value))
        if b.value < 0:
            self._openfhe.EvalNegateInPlace(out)
        return out

    def _multiply_accumulate(self, pairs: Sequence[tuple[Ciphertext, Plaintext]]) -> Any:
        (first, weight), *rest = pairs
        total = self._product_with_plain(first.handle, weight.handle)
        for a, b in rest:
            self._openfhe.EvalAddInPlaceNoCheck(total, self._product_with_plain(a.handle, b.handle))
        return nominal(total)

    def _mul(self, a: Ciphertext, b: Ciphertext) -> Any:
        return nominal(self._openfhe.EvalMultNoRelin(a.handle, b.handle))

    # -- levels ------------------------------------------------------------------------------------------------------

    def _rescale(self, a: Ciphertext) -> Any:
        out = a.handle.Clone()  # a copy, as the degree must be 2 for a moment
        out.SetNoiseScaleDeg(2)
        self._openfhe.RescaleInPlace(out)
        return nominal(out)

    def _drop_level(self, a: Ciphertext, level: int) -> Any:
        return self._openfhe.LevelReduce(a.handle, None, a.level - level)

    def _drop_plain_level(self, a: Plaintext, level: int) -> Any:
        return a.handle  # OpenFHE takes one of a higher level, of which it uses what the ciphertext has


def nominal(handle: Any) -> Any:
    """A ciphertext of OpenFHE's degree 1."""
    handle.SetNoiseScaleDeg(1)
    return handle
