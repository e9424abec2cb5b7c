"""The server's side on Lattigo: no secret key.

Sums and products are numpy's, on residues. Key switches and rescales are Lattigo's, by circuits of one node, each of
which ends with a rescale. So the server's Lattigo has the special prime P as the last prime of its chain: that rescale
is the division by P with which a key switch ends. Lattigo wants an auxiliary prime of its own besides; every key is
multiplied by it, so that Lattigo's division by it is exact. The keys stay keys modulo Q P: neither security nor
precision is touched. A ciphertext below the top level is filled up with zeros, which is right for each prime apart.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import orion_evaluator
from hefw.core.backend import Capabilities, Ciphertext, Evaluator, Plaintext
from hefw.core.errors import EnvelopeError
from hefw.core.params import Resolved
from numpy.typing import NDArray

from hefw_lattigo import circuits, residues
from hefw_lattigo.context import Context, dump, write_polynomials
from hefw_lattigo.residues import Residues


class LattigoEvaluator(Evaluator):
    """A handle is (parts, level + 1, N) residues; that of a plaintext (level + 1, N), of a constant (level + 1, 1)."""

    def __init__(self, params: Resolved, capabilities: Capabilities) -> None:
        super().__init__(params, capabilities)
        self._context = Context(params)
        self._primes = self._context.primes
        self._chain = residues.column((*params.primes, *params.special_primes))
        self._special = residues.constant(params.special_primes[0], self._primes)
        with self._context.lattigo():
            self._rescaling = circuits.rescale(params)
            self._squaring = circuits.square(params)
            self._keyless = self._make(b"\0", {})
        self._rotating: dict[tuple[int, ...], orion_evaluator.Model] = {}
        self._relinearising: orion_evaluator.Evaluator | None = None
        self._waiting: dict[int, bytes] = {}  # rotation keys by step, until the first rotation after they came
        self._turning: dict[int, orion_evaluator.Evaluator] = {}

    # -- keys and bytes ------------------------------------------------------------------------------------------

    def _load_key(self, name: str, payload: bytes) -> None:
        shape = (len(self.params.primes), 2, len(self._chain), 2 * self.params.slots)
        element, key = residues.from_bytes(payload, shape, self._chain)
        if element != self._context.element(name):
            raise EnvelopeError(f"the bytes sent as {name!r} hold another key (Galois element {element})")
        written = self._write_key(key)
        if not element:
            with self._context.lattigo():
                self._relinearising = self._make(b"\1" + written, {})
        else:
            self._waiting[int(name.partition("/")[2])] = written

    def _load(self, payload: bytes, level: int, scale: float) -> Any:
        return self._context.load(payload, level)

    def _dump(self, ciphertext: Ciphertext) -> bytes:
        return dump(ciphertext.handle)

    def _encode(self, values: NDArray[Any] | float, level: int, scale: float) -> Any:
        return self._context.encode(values, level, scale)

    # -- sums and products: numpy's --------------------------------------------------------------------------------

    def _add(self, a: Ciphertext, b: Ciphertext) -> Any:
        if len(a.handle) < len(b.handle):
            a, b = b, a
        primes, both = self._primes[: a.level + 1], len(b.handle)
        return np.concatenate([residues.add(a.handle[:both], b.handle, primes), a.handle[both:]])

    def _negate(self, a: Ciphertext) -> Any:
        return residues.subtract(np.zeros_like(a.handle), a.handle, self._primes[: a.level + 1])

    def _add_plain(self, a: Ciphertext, b: Plaintext) -> Any:
        out = a.handle.copy()
        out[0] = residues.add(out[0], b.handle, self._primes[: a.level + 1])
        return out

    def _mul_plain(self, a: Ciphertext, b: Plaintext) -> Any:
        return residues.multiply(a.handle, b.handle, self._primes[: a.level + 1])

    def _multiply_accumulate(self, pairs: Sequence[tuple[Ciphertext, Plaintext]]) -> Any:
        return residues.dot([(a.handle, b.handle) for a, b in pairs], self._primes[: pairs[0][0].level + 1])

    def _mul(self, a: Ciphertext, b: Ciphertext) -> Any:
        primes = self._primes[: a.level + 1]
        (a0, a1), (b0, b1) = a.handle, b.handle
        return np.stack([residues.dot(pairs, primes) for pairs in ([(a0, b0)], [(a0, b1), (a1, b0)], [(a1, b1)])])

    def _drop_level(self, a: Ciphertext, level: int) -> Any:
        return a.handle[:, : level + 1].copy()

    def _drop_plain_level(self, a: Plaintext, level: int) -> Any:
        return a.handle[: level + 1]

    # -- key switches and rescales: Lattigo's ----------------------------------------------------------------------

    def _relinearise(self, a: Ciphertext) -> Any:
        """Only squares are relinearised by a circuit: d = ((d + 1) / 2)^2 - ((d - 1) / 2)^2."""
        if len(a.handle) == 2:
            return a.handle
        primes = self._primes[: a.level + 1]
        half, one = (primes + 1) // 2, np.ones_like(primes)
        roots = np.stack([residues.add(a.handle[2], one, primes), residues.subtract(a.handle[2], one, primes)])
        sent = self._fill(np.zeros((2, 2, *a.handle.shape[1:]), dtype=np.int64))
        sent[:, 1, : a.level + 1] = residues.multiply(roots, half, primes)
        plus, minus = self._run(self._relinearising, self._squaring, sent, a.level)
        return residues.add(a.handle[:2], residues.subtract(plus, minus, primes), primes)

    def _rescale(self, a: Ciphertext) -> Any:
        """Part by part, two at a time, as the circuit's ciphertexts have two."""
        pairs = [a.handle[:2]] if len(a.handle) == 2 else [a.handle[:2], a.handle[1:]]
        found = [self._run(self._keyless, self._rescaling, pair[None], a.level - 1)[0] for pair in pairs]
        return np.concatenate([found[0], *(pair[1:] for pair in found[1:])])

    def rotate_many(self, a: Ciphertext, steps: Sequence[int]) -> list[Ciphertext]:
        """`rotate` for several steps: Lattigo decomposes the ciphertext once for all."""
        turned = [step % self.params.slots for step in steps]
        wanted = [step for step in turned if step]
        if wanted:
            self._two_parts("rotate", a)
            self.require_keys((f"rotation/{step}" for step in wanted), a.level)
            self.counts["rotate"] += len(wanted)
        found = iter(self._turn(a, wanted))
        return [Ciphertext(next(found), a.level, a.scale) if step else a for step in turned]

    def _rotate(self, a: Ciphertext, step: int) -> Any:
        return self._turn(a, [step])[0]

    def _turn(self, a: Ciphertext, steps: Sequence[int]) -> list[Residues]:
        with self._context.lattigo():
            if self._waiting:
                came = list(self._waiting)
                keys = {self._context.element(f"rotation/{step}"): self._waiting.pop(step) for step in came}
                self._turning |= dict.fromkeys(came, self._make(b"\0", keys))
        sent = a.handle.copy()
        sent[0] = residues.multiply(sent[0], self._special[: a.level + 1], self._primes[: a.level + 1])
        found: dict[int, Residues] = {}
        for evaluator in dict.fromkeys(self._turning[step] for step in steps):
            group = tuple(step for step in dict.fromkeys(steps) if self._turning[step] is evaluator)
            with self._context.lattigo():
                if group not in self._rotating:
                    self._rotating[group] = circuits.rotations(self.params, group)
            found |= zip(
                group, self._run(evaluator, self._rotating[group], self._fill(sent[None]), a.level), strict=True
            )
        return [found[step] for step in steps]

    def _run(self, evaluator: Any, circuit: Any, ciphertexts: Residues, level: int) -> list[Residues]:
        """The results of a circuit, down to a level: (2, level + 1, N) each."""
        sent = [self._context.write(parts) for parts in ciphertexts]
        with self._context.lattigo():
            results = evaluator.forward(circuit, sent)
        rows = ciphertexts.shape[2] - 1
        return [np.ascontiguousarray(self._context.read(data, 2, rows)[:, : level + 1]) for data in results]

    def _fill(self, ciphertexts: Residues) -> Residues:
        """(..., all primes, N): with zeros for the primes above."""
        missing = len(self._chain) - ciphertexts.shape[-2]
        return np.pad(ciphertexts, [(0, 0)] * (ciphertexts.ndim - 2) + [(0, missing), (0, 0)])

    def _write_key(self, key: Residues) -> bytes:
        """A key of (digits, 2, primes, N) residues as Lattigo writes one of the server's parameters."""
        auxiliary = self._context.auxiliary
        key = residues.multiply(key, residues.constant(auxiliary, self._chain), self._chain)
        key = np.pad(key, [(0, 1), (0, 0), (0, 0), (0, 0)])  # one digit for the special prime: it is always zero
        words = np.concatenate([write_polynomials(key), write_polynomials(np.zeros_like(key[:, :, :1]))], axis=-1)
        counts = np.full((len(key), 1), 1), np.full((len(key), 1), 2)
        digits = np.concatenate([*counts, words.reshape(len(key), -1)], axis=1)
        return struct.pack("<QQ", 0, len(key)) + digits.astype("<i8", copy=False).tobytes()

    def _make(self, relinearisation: bytes, rotations: dict[int, bytes]) -> orion_evaluator.Evaluator:
        """Lattigo's evaluator with a set of keys, Galois keys by element. Gives up `rotations`: they take memory."""
        keys = [relinearisation, b"\1", struct.pack("<I", len(rotations))]
        for element, key in rotations.items():
            keys += [struct.pack("<QQQ", element, element, 4 * self.params.slots), key]
        joined = b"".join(keys)
        rotations.clear()
        keys.clear()
        return orion_evaluator.Evaluator(circuits.parameters(self.params), joined)
