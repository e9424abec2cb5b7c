"""The server's side on OpenFHE by its own key switches: no secret key, nothing that decrypts."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from hefw.backends.openfhe import bootstrap, cache
from hefw.backends.openfhe.operations import OpenfheOperations, nominal
from hefw.core.backend import Bootstrapping, Capabilities, Ciphertext, Plaintext
from hefw.core.errors import EncodingError, LevelError
from hefw.core.linear import Transform
from hefw.core.params import Resolved


class OpenfheEvaluator(OpenfheOperations):
    """OpenFHE's evaluator. Its keys are in OpenFHE's one place for all, under a tag that no other evaluator has."""

    def __init__(self, params: Resolved, capabilities: Capabilities) -> None:
        super().__init__(params, capabilities)
        self._tag = cache.new_tag()
        self._relinearisation: Any = None
        weakref.finalize(self, cache.forget, self._tag).atexit = False

    # -- keys -------------------------------------------------------------------------------------------------------

    def _load_key(self, name: str, payload: bytes) -> None:
        if name == "relinearisation":
            self._relinearisation = self._context.load_relinearisation(payload, self._tag)
            cache.insert_relinearisation(self._tag, self._relinearisation)
            return
        if name == "bootstrap":
            cache.insert(self._tag, self._context.load_bootstrap(payload))
            return
        cache.insert(self._tag, self._context.load_automorphism(name, payload, self.keys[name]))

    def _relinearise(self, a: Ciphertext) -> Any:
        return self._centred(self._openfhe.KeySwitch(a.handle, self._relinearisation), a.level)

    # -- rotations ---------------------------------------------------------------------------------------------------

    def _rotate(self, a: Ciphertext, step: int) -> Any:
        digits = self._openfhe.EvalFastRotationPrecompute(a.handle)
        return self._lowered(self._turned(self._owned(a.handle.Clone()), step, digits), a.level)

    def _conjugate(self, a: Ciphertext) -> Any:
        return self._rotate(a, 2 * self._context.ring_dimension - 1)  # OpenFHE's number for it

    def rotate_many(self, a: Ciphertext, steps: Sequence[int]) -> list[Ciphertext]:
        """`rotate` for several steps of one ciphertext, which is taken apart into digits once."""
        steps = [step % self.params.slots for step in steps]
        turned = [step for step in steps if step]
        if not turned:
            return [a for _ in steps]
        self._two_parts("rotate", a)
        self.require_keys((f"rotation/{step}" for step in turned), a.level)
        self.counts["rotate"] += len(turned)
        digits, owned = self._openfhe.EvalFastRotationPrecompute(a.handle), self._owned(a.handle.Clone())
        return [
            Ciphertext(self._lowered(self._turned(owned, step, digits), a.level), a.level, a.scale) if step else a
            for step in steps
        ]

    def _owned(self, handle: Any) -> Any:
        """For which OpenFHE finds this evaluator's keys."""
        handle.SetKeyTag(self._tag)
        return handle

    def _turned(self, owned: Any, step: int, digits: Any) -> Any:
        """A rotation, still times the special primes."""
        with cache.LOCK:
            out = self._openfhe.EvalFastRotationExt(owned, step, digits, True)
        out.SetKeyTag(self._context.tag)
        return out

    def _lowered(self, lifted: Any, level: int) -> Any:
        """Divided by the special primes."""
        return self._centred(self._openfhe.KeySwitchDown(lifted), level)

    def _centred(self, switched: Any, level: int) -> Any:
        centre = self._context.centre(level)
        if centre is not None:
            self._openfhe.EvalAddInPlaceNoCheck(switched, centre)
        return switched

    def linear_transform(
        self, inputs: Sequence[Ciphertext], transform: Transform, weights: Sequence[Plaintext]
    ) -> list[Ciphertext]:
        """Matrices times encrypted vectors by hoisted baby steps and lazy giant steps; the level stays.

        As the default does it, but the giant steps of an output, if they are not made of each other, are added before
        they are divided by the special primes, which is done once.
        """
        if transform.chained:
            return super().linear_transform(inputs, transform, weights)
        rotated = [
            dict(zip(steps, self.rotate_many(ct, steps), strict=True))
            for ct, steps in zip(inputs, transform.babies, strict=True)
        ]
        outputs = []
        for groups in transform.outputs:
            still: Ciphertext | None = None  # the group that no giant step turns
            turned: Ciphertext | None = None  # the others, their sum still times the special primes
            for group in groups:
                inner = self.sum_of_products((rotated[t.source][t.baby], weights[t.weight]) for t in group.terms)
                giant = group.giant % self.params.slots
                if giant == 0:
                    still = inner if still is None else self.add_into(still, inner)
                    continue
                self.require_keys([f"rotation/{giant}"], inner.level)
                self.counts["rotate"] += 1
                digits = self._openfhe.EvalFastRotationPrecompute(inner.handle)
                lifted = Ciphertext(self._turned(self._owned(inner.handle), giant, digits), inner.level, inner.scale)
                turned = lifted if turned is None else self.add_into(turned, lifted)
            outputs.append(self.fold(self._joined(still, turned), transform.folds))
        return outputs

    def _joined(self, still: Ciphertext | None, turned: Ciphertext | None) -> Ciphertext:
        if turned is not None:
            lowered = Ciphertext(self._lowered(turned.handle, turned.level), turned.level, turned.scale)
            return lowered if still is None else self.add_into(lowered, still)
        if still is None:
            raise EncodingError("a linear transform without a single weight has no ciphertext result")
        return still

    # -- bootstrapping -----------------------------------------------------------------------------------------------

    def _bootstrapping(self) -> Bootstrapping:
        return bootstrap.promised(self.params)

    def _bootstrap(self, a: Ciphertext) -> Any:
        promised, made, top = self._bootstrapping(), self._openfhe, self.params.max_level
        bootstrap.prepare(self._context, matrices=True)
        lowest = made.LevelReduce(a.handle, None, a.level - promised.level_in)  # what else there is would be in the way
        with cache.LOCK:
            out = made.EvalBootstrap(self._owned(lowest))
        out.SetKeyTag(self._context.tag)
        if out.GetNoiseScaleDeg() == 2:
            made.RescaleInPlace(out)
        level = top - out.GetLevel()
        if level < promised.level_out:
            raise LevelError(f"OpenFHE's bootstrapping left {level} levels where {promised.level_out} were promised")
        return nominal(made.LevelReduce(out, None, level - promised.level_out))
