"""The header of all bytes that come from outside: checked before any library's parser sees the payload."""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass

from hefw.core.errors import EnvelopeError

MAGIC = b"HEFW"
VERSION = 1
MAX_PAYLOAD = 2**31 - 1
KINDS = ("ciphertext", "relinearisation-key", "rotation-key", "conjugation-key", "secret-key", "bootstrap-key")
_HEADER = struct.Struct(">4sHHI16s16s16sidQ32s")
HEADER_SIZE = _HEADER.size


@dataclass(frozen=True)
class Envelope:
    """One payload and what it was made for. A digest finds accidents and mix-ups; it does not authenticate.

    `item` tells apart payloads of one kind: a rotation key's step; 0 otherwise. `key_id` is random, not derived from a
    secret: no HE library notices a wrong key by itself.
    """

    kind: str
    backend: str
    params_digest: bytes
    key_id: bytes
    level: int
    scale: float
    payload: bytes
    item: int = 0

    def pack(self) -> bytes:
        """Header and payload."""
        backend = self.backend.encode("ascii", "replace")
        fits = -(2**31) <= self.item < 2**31 and -(2**31) <= self.level < 2**31
        fits = fits and len(backend) <= 16 and self.backend.isascii() and len(self.params_digest) == 16
        if not fits or self.kind not in KINDS or len(self.key_id) != 16:
            raise EnvelopeError(f"an envelope of kind {self.kind!r} for backend {self.backend!r} cannot be made")
        if len(self.payload) > MAX_PAYLOAD:
            raise EnvelopeError(f"a payload of {len(self.payload)} bytes is too large; at most {MAX_PAYLOAD}")
        header = _HEADER.pack(
            MAGIC,
            VERSION,
            KINDS.index(self.kind),
            self.item,
            backend.ljust(16, b"\0"),
            self.params_digest,
            self.key_id,
            self.level,
            self.scale,
            len(self.payload),
            b"",
        )[:-32]
        return header + _digest(header, self.payload) + self.payload

    @staticmethod
    def unpack(data: bytes, *, max_payload: int = MAX_PAYLOAD) -> Envelope:
        """Read and check one envelope. EnvelopeError says which field is wrong; the payload is not parsed."""
        if len(data) < HEADER_SIZE:
            raise EnvelopeError(f"truncated: {len(data)} bytes, a header alone has {HEADER_SIZE}")
        magic, version, kind, item, backend, params, key_id, level, scale, length, digest = _HEADER.unpack_from(data)
        if magic != MAGIC:
            raise EnvelopeError(f"not a hefw envelope: it starts with {magic!r}, not {MAGIC!r}")
        if version != VERSION:
            raise EnvelopeError(f"envelope version {version} is not supported; this hefw reads version {VERSION}")
        if kind >= len(KINDS):
            raise EnvelopeError(f"unknown kind of payload {kind}; known: {', '.join(KINDS)}")
        if length > max_payload:
            raise EnvelopeError(
                f"oversized: a payload of {length} bytes is announced, at most {max_payload} is allowed"
            )
        payload = data[HEADER_SIZE:]
        if len(payload) != length:
            what = "truncated" if len(payload) < length else "too long"
            raise EnvelopeError(f"{what}: the header announces {length} bytes of payload, {len(payload)} are there")
        if digest != _digest(data[: HEADER_SIZE - 32], payload):
            raise EnvelopeError("changed on the way: the digest of header and payload does not match")
        if level < 0 or not math.isfinite(scale) or scale <= 0:
            raise EnvelopeError(f"level {level} and scale {scale} are not those of a ciphertext or key")
        try:
            name = backend.rstrip(b"\0").decode("ascii")
        except UnicodeDecodeError:
            raise EnvelopeError("the backend's name is not text") from None
        return Envelope(KINDS[kind], name, params, key_id, level, scale, payload, item)

    def expect(self, *, kind: str, backend: str, params_digest: bytes, key_id: bytes | None = None) -> Envelope:
        """Refuse an envelope made for something else; returns itself."""
        if self.kind != kind:
            raise EnvelopeError(f"a {kind} was expected, a {self.kind} was sent")
        if self.backend != backend:
            raise EnvelopeError(f"made by backend {self.backend!r}; {backend!r} is expected here")
        if self.params_digest != params_digest:
            raise EnvelopeError(
                f"made for other parameters (digest {self.params_digest.hex()[:8]}, here {params_digest.hex()[:8]}); "
                "both parties must use the manifest's parameters"
            )
        if key_id is not None and self.key_id != key_id:
            raise EnvelopeError(
                f"made with another key (id {self.key_id.hex()[:8]}, here {key_id.hex()[:8]}); send the evaluation "
                "keys of the key holder that encrypts"
            )
        return self


def _digest(header: bytes, payload: bytes) -> bytes:
    state = hashlib.sha256(header)
    state.update(payload)
    return state.digest()
