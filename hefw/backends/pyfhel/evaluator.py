"""The server's side on Pyfhel: objects that never get a secret or a public key."""

from __future__ import annotations

import threading
from typing import Any

from numpy.typing import NDArray

from hefw.backends.frames import bare_ciphertext
from hefw.backends.pyfhel.context import Context
from hefw.backends.seal import memory_file, opaque, path_of
from hefw.core.backend import Capabilities, Ciphertext, Evaluator, Plaintext
from hefw.core.errors import CapabilityError, EnvelopeError
from hefw.core.params import Resolved

#: Rotation keys in one Pyfhel object. It takes its keys at once and forgets those before, so that keys wait for others;
#: each object has a context of its own, which takes the memory of about four keys.
KEYS_TOGETHER = 16


class PyfhelEvaluator(Evaluator):
    """SEAL's operations. hefw keeps the scales and writes them into Pyfhel's objects: SEAL's own checks compare."""

    def __init__(self, params: Resolved, capabilities: Capabilities) -> None:
        super().__init__(params, capabilities)
        self._context = Context(params)
        self._pyfhel = self._context.pyfhel
        self._waiting: dict[str, bytes] = {}
        self._gathering = threading.Lock()
        self._rotators: dict[str, Any] = {}
        self._conjugator: Any = None

    def _load_key(self, name: str, payload: bytes) -> None:
        if name == "bootstrap":
            raise CapabilityError(f"backend {self.params.backend!r} has no {name}; choose one that declares it")
        self._context.check_key(name, payload)
        data = b"".join(self._context.key_file({name: payload}))
        try:
            # Its place for rotation keys serves for checking only: where SEAL refuses a key, the one before is lost.
            self._pyfhel.from_bytes_rotate_key(data)
        except (RuntimeError, ValueError) as error:
            raise EnvelopeError(f"SEAL cannot read the {name} key: {error}") from None
        if name == "relinearisation":
            self._pyfhel.from_bytes_relin_key(data)
            return
        if name == "conjugation":
            conjugator = self._context.make()
            conjugator.from_bytes_relin_key(b"".join(self._context.relinearising(payload)))
            self._conjugator = conjugator
            return
        self._rotators.pop(name, None)
        self._waiting[name] = payload
        if len(self._waiting) == KEYS_TOGETHER:
            self._gather()

    def _gather(self) -> None:
        """Give the rotation keys that wait to an object of their own."""
        with self._gathering:  # one thread does, others that need a key wait for it
            if not self._waiting:
                return
            rotator = self._context.make()
            with memory_file() as file:
                file.writelines(self._context.key_file(self._waiting))
                file.flush()
                rotator.load_rotate_key(path_of(file))
            self._rotators.update(dict.fromkeys(self._waiting, rotator))
            self._waiting.clear()

    def _load(self, payload: bytes, level: int, scale: float) -> Any:
        return self._context.ciphertext(payload, level, scale)

    def _dump(self, ciphertext: Ciphertext) -> bytes:
        return bare_ciphertext(ciphertext.handle.to_bytes())

    def _encode(self, values: NDArray[Any] | float, level: int, scale: float) -> Any:
        return self._context.encode(values, level, scale)

    def _add(self, a: Ciphertext, b: Ciphertext) -> Any:
        a.handle.scale = b.handle.scale = a.scale
        with opaque():
            return self._pyfhel.add(a.handle, b.handle, True)

    def _add_into(self, a: Ciphertext, b: Ciphertext) -> Any:
        a.handle.scale = b.handle.scale = a.scale
        with opaque():
            return self._pyfhel.add(a.handle, b.handle, False)

    def _sub(self, a: Ciphertext, b: Ciphertext) -> Any:
        a.handle.scale = b.handle.scale = a.scale
        with opaque():
            return self._pyfhel.sub(a.handle, b.handle, True)

    def _negate(self, a: Ciphertext) -> Any:
        return self._pyfhel.negate(a.handle, True)

    def _add_plain(self, a: Ciphertext, b: Plaintext) -> Any:
        a.handle.scale = b.handle.scale = a.scale
        return self._pyfhel.add_plain(a.handle, b.handle, True)

    def _mul_plain(self, a: Ciphertext, b: Plaintext) -> Any:
        with opaque():
            return self._pyfhel.multiply_plain(a.handle, b.handle, True)

    def _mul(self, a: Ciphertext, b: Ciphertext) -> Any:
        return self._pyfhel.multiply(a.handle, b.handle, True)

    def _square(self, a: Ciphertext) -> Any:
        return self._pyfhel.square(a.handle, True)

    def _relinearise(self, a: Ciphertext) -> Any:
        out = a.handle.copy()
        self._pyfhel.relinearize(out)
        return out

    def _rescale(self, a: Ciphertext) -> Any:
        out = a.handle.copy()
        self._pyfhel.rescale_to_next(out)
        return out

    def _drop_level(self, a: Ciphertext, level: int) -> Any:
        out = self._pyfhel.mod_switch_to_next_ctxt(a.handle, True)
        for _ in range(a.level - 1 - level):
            self._pyfhel.mod_switch_to_next_ctxt(out, False)
        return out

    def _conjugate(self, a: Ciphertext) -> Any:
        """c0 + c1 s becomes conj c0 + conj c1 conj s: three parts, of which SEAL's relinearisation replaces the last.

        Its key, of the square of the secret otherwise, is here that of the secret's conjugate.
        """
        out = self._context.conjugated(a.handle, a.level, a.scale)
        self._conjugator.relinearize(out)
        return out

    def _rotate(self, a: Ciphertext, step: int) -> Any:
        name = f"rotation/{step}"
        if name in self._waiting:
            self._gather()
        return self._rotators[name].rotate(a.handle, step, True)
