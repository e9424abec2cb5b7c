"""A secret key under a passphrase: scrypt (RFC 7914) makes the key of AES-256-GCM, both by `cryptography`.

    "HEFWSEAL", version, log2 of scrypt's n, r, p (a byte each), salt (16), nonce (12), ciphertext and tag

What the secret belongs to is authenticated with it, so that a file of another key set is refused like a wrong
passphrase.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from hefw.core.errors import KeyStoreError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"HEFWSEAL"
VERSION = 1
_HEADER = struct.Struct(">8sBBBB16s12s")
#: OWASP's advice for scrypt: n = 2^17, r = 8, p = 1; 128 MB and a few tenths of a second a guess.
LOG_N, R, P = 17, 8, 1
#: What a file may ask for: a foreign one must not take the machine's memory.
MOST_LOG_N, MOST_R, MOST_P = 20, 8, 4


def is_sealed(data: bytes) -> bool:
    """Whether bytes say that they are sealed."""
    return data.startswith(MAGIC)


def check_installed() -> None:
    """KeyStoreError, with the next step, if `cryptography` is not there."""
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise KeyStoreError(
            "a passphrase needs cryptography, which is not installed; run: pip install 'hefw[keys]'"
        ) from (None)


def seal(secret: bytes, passphrase: str, belongs_to: bytes) -> bytes:
    """The secret under a passphrase; another salt and nonce each time."""
    if not passphrase:
        raise KeyStoreError("an empty passphrase protects nothing; give one, or leave the passphrase out")
    header = _HEADER.pack(MAGIC, VERSION, LOG_N, R, P, os.urandom(16), os.urandom(12))
    return header + _cipher(passphrase, header).encrypt(header[-12:], secret, header + belongs_to)


def unseal(data: bytes, passphrase: str, belongs_to: bytes) -> bytes:
    """The inverse of `seal`; KeyStoreError for a wrong passphrase, or bytes that are not of this key set."""
    if len(data) < _HEADER.size or not is_sealed(data):
        raise KeyStoreError("the secret key's file is no sealed secret")
    header = data[: _HEADER.size]
    _, version, log_n, r, p, _, nonce = _HEADER.unpack(header)
    if version != VERSION:
        raise KeyStoreError(f"the secret key is sealed in version {version}; this hefw reads version {VERSION}")
    if not (1 <= log_n <= MOST_LOG_N and 1 <= r <= MOST_R and 1 <= p <= MOST_P):
        raise KeyStoreError(f"the secret key's file asks for scrypt with n = 2^{log_n}, r = {r}, p = {p}: not ours")
    cipher = _cipher(passphrase, header)
    from cryptography.exceptions import InvalidTag

    try:
        return cipher.decrypt(nonce, data[_HEADER.size :], header + belongs_to)
    except InvalidTag:
        raise KeyStoreError("wrong passphrase, or the secret key's file was changed") from None


def _cipher(passphrase: str, header: bytes) -> AESGCM:
    check_installed()
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    _, _, log_n, r, p, salt, _ = _HEADER.unpack(header)
    return AESGCM(Scrypt(salt=salt, length=32, n=2**log_n, r=r, p=p).derive(passphrase.encode()))
