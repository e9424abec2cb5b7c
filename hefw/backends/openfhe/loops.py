"""The server's side on OpenFHE by hefw's key switches, on residues in OpenFHE's own memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hefw.backends.openfhe.context import Context, context
from hefw.backends.openfhe.memory import OpenfheMemory, layout
from hefw.backends.openfhe.operations import OpenfheOperations
from hefw.backends.rns.evaluator import RnsEvaluator, two_parts
from hefw.backends.rns.form import Form
from hefw.backends.rns.keys import read, second_part
from hefw.backends.rns.native import Native
from hefw.backends.rns.objects import words
from hefw.backends.rns.switching import Switching, Words
from hefw.backends.rns.trial import switches
from hefw.core.backend import Capabilities, Ciphertext, Plaintext
from hefw.core.errors import CapabilityError, EnvelopeError
from hefw.core.params import Resolved

WRONG = (
    "compiled loops do not give what OpenFHE gives: set the backend's option loops to false, for OpenFHE's own calls, "
    "which are slower"
)


class OpenfheLoops(RnsEvaluator, OpenfheOperations):
    """OpenFHE encodes, adds and drops levels; products, rescales and key switches are compiled loops."""

    def __init__(self, params: Resolved, capabilities: Capabilities) -> None:
        found = layout()
        assert found is not None  # as when the parameters were resolved
        shared = context(params)
        super().__init__(params, capabilities, OpenfheMemory(shared, found))
        self._native = Native(params, self._memory, Switching(params))
        if not _agrees(self._native, shared):
            raise CapabilityError(WRONG)

    def _load_key(self, name: str, payload: bytes) -> None:
        if name == "bootstrap":
            raise EnvelopeError("a key for bootstrapping was sent, which these parameters have not")
        size, form = self._context.ring_dimension, Form(self.params, self.keys[name])
        element = 0 if name == "relinearisation" else self._context.automorphism(name)
        parts = [
            np.stack([np.stack(digit.residues), second_part(digit.seed, form, size)])
            for digit in read(name, element, payload, size, form)
        ]
        self._native.keep(name, self._native.switching.key(parts, range(len(form.rows)), element or 1))

    def _faster(self, example: Ciphertext, *keys: str) -> Native:
        self.require_keys(keys, example.level)
        self._native.switching.threads = self.threads
        return self._native

    def _multiply_accumulate(self, pairs: Sequence[tuple[Ciphertext, Plaintext]]) -> Any:
        if not two_parts(pairs):
            return super()._multiply_accumulate(pairs)
        return self._faster(pairs[0][0]).sums([pairs])[0]

    def _square(self, a: Ciphertext) -> Any:
        return self._faster(a).square(a) if a.size == 2 else super()._square(a)

    def _relinearise(self, a: Ciphertext) -> Any:
        return self._faster(a, "relinearisation").relinearise(a)

    def _rescale(self, a: Ciphertext) -> Any:
        return self._faster(a).rescale(a) if a.size == 2 else super()._rescale(a)

    def _rotate(self, a: Ciphertext, step: int) -> Any:
        return self._turned(a, f"rotation/{step}")

    def _conjugate(self, a: Ciphertext) -> Any:
        return self._turned(a, "conjugation")

    def _turned(self, a: Ciphertext, name: str) -> Any:
        return self._faster(a, name).rotate_many(a, [name])[0]

    @property
    def threads_used(self) -> int:
        """All: compiled loops let go of Python's lock."""
        return self.threads


def _agrees(native: Native, shared: Context) -> bool:
    """Whether OpenFHE's sums of products, squares and rescales are found of a ciphertext, and keys switch."""
    level, slots, openfhe = native.params.max_level, native.params.slots, shared.openfhe
    example = Ciphertext(shared.sample.Clone(), level, 1.0)
    ramp, scale = np.arange(slots) / slots, shared.nominal
    weights = [Plaintext(shared.encode(ramp - k, level, scale), level, 1.0) for k in (0, 2)]
    products = [openfhe.EvalMult(example.handle, weight.handle) for weight in weights]
    total = openfhe.EvalAdd(*products)
    (found,) = native.sums([[(example, weight) for weight in weights]])
    pairs = [(found, total), (native.square(example), openfhe.EvalMultNoRelin(example.handle, example.handle))]
    if level:
        lower = native.rescale(Ciphertext(found, level, 1.0))
        pairs.append((lower, openfhe.Rescale(total)))
    if not all(np.array_equal(_residues(native, ours), _residues(native, theirs)) for ours, theirs in pairs):
        return False
    return switches(native.switching, native.params, _residues(native, example.handle))


def _residues(native: Native, handle: Any) -> Words:
    """A copy: (parts, level + 1, N)."""
    rows, size = native.memory.rows(handle), native.params.params.ring_dimension
    return np.stack([words(at, (size,)) for at in rows.ravel().tolist()]).reshape(*rows.shape, size)
