"""What both sides share: SEAL's context, the ids of its levels, and bytes in and out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import IO, Any

import _sealapi_cpp as seal

from hefw.backends import frames
from hefw.backends.rns import loops
from hefw.backends.seal import memory_file, no_primes, path_of, prime_sizes, refused
from hefw.core.errors import EncodingError, EnvelopeError, ParameterError
from hefw.core.params import CkksParams, Resolved

LENGTH_BYTES = 8
SLACK_BITS = 10
OVERHEAD = 4096  # headers and seeds
MOST_SPECIAL = 4  # special primes


class Context:
    """A SEAL context and, for each level, the id under which SEAL knows it.

    SEAL takes all special primes but the last for primes of the chain, at levels that no ciphertext has.
    """

    def __init__(self, params: Resolved) -> None:
        self.params = params
        primes = (*params.primes, *params.special_primes)
        security = seal.SEC_LEVEL_TYPE.NONE if params.params.insecure else seal.SEC_LEVEL_TYPE.TC128
        self.seal = seal.SEALContext(_parameters(params.params, [seal.Modulus(q) for q in primes]), True, security)
        if not self.seal.parameters_set():
            raise refused(params.params)
        self.encoder = seal.CKKSEncoder(self.seal)
        self.level_ids = _level_ids(self.seal, params.max_level)
        self.version = frames.version(saved(seal.Plaintext().save))
        self._file = PublicFile()

    def encode(self, values: Any, level: int, scale: float) -> Any:
        """A SEAL plaintext of (slots,) values or one constant."""
        plaintext = seal.Plaintext()
        listed = values if isinstance(values, float) else values.tolist()
        try:
            self.encoder.encode(listed, self.level_ids[level], scale, plaintext)
        except ValueError as error:  # SEAL keeps up to two bits more of the modulus free than hefw's own check
            raise EncodingError(
                f"values at scale {scale:g} do not fit SEAL's modulus at level {level}: {error}; use a smaller scale"
            ) from None
        return plaintext

    def ciphertext(self, payload: bytes, level: int, scale: float) -> Any:
        """A SEAL ciphertext from its bytes, with the level and scale that the envelope announced."""
        ct = seal.Ciphertext()
        parse("ciphertext", lambda path: ct.load(self.seal, path), payload, self._file)
        if ct.size() != 2:
            raise EnvelopeError(f"a ciphertext of {ct.size()} parts was sent; relinearise it before")
        if ct.coeff_modulus_size() != level + 1:
            raise EnvelopeError(f"a ciphertext of level {ct.coeff_modulus_size() - 1} was sent as one of level {level}")
        ct.scale = scale
        return ct


def resolve(params: CkksParams, backend: str) -> Resolved:
    """SEAL's choice of primes; its context is made once to be sure that it accepts them."""
    bits = prime_sizes(params, MOST_SPECIAL)
    try:
        moduli = [m.value() for m in seal.CoeffModulus.Create(params.ring_dimension, bits)]
    except (ValueError, RuntimeError) as error:
        raise no_primes(params, error) from None
    count, count_special = len(params.modulus_bits), len(params.special_bits)
    if count_special > 1 and (reason := loops.missing()) is not None:
        raise ParameterError(
            f"{count_special} special primes need compiled loops, which cannot be used here ({reason}); use one"
        )
    resolved = Resolved(params, backend, tuple(moduli[:count]), tuple(moduli[count:]))
    Context(resolved)
    return resolved


def saved(save: Callable[[str], None]) -> bytes:
    """The bytes that a SEAL object saves."""
    with memory_file() as file:
        save(path_of(file))
        file.seek(0)
        return file.read()


def dump(save: Callable[[str], None], padded: int) -> bytes:
    """The bytes that a SEAL object saves, padded with zeros to a length that does not depend on its content.

    SEAL compresses, so that lengths would vary with random bits: two runs would tell apart by their sizes.
    """
    data = saved(save)
    if len(data) + LENGTH_BYTES > padded:
        raise EnvelopeError(f"a SEAL object of {len(data)} bytes exceeds its padded length of {padded}")
    return len(data).to_bytes(LENGTH_BYTES, "big") + data + bytes(padded - LENGTH_BYTES - len(data))


def parse(what: str, load: Callable[[str], None], payload: bytes, file: PublicFile | None = None) -> None:
    """Hand the unpadded bytes to SEAL's checking loader; EnvelopeError if it refuses them. Without a file, by a new
    one."""
    length = int.from_bytes(payload[:LENGTH_BYTES], "big")
    end = LENGTH_BYTES + length
    if len(payload) < end or payload.count(0, end) != len(payload) - end:
        raise EnvelopeError(f"not a padded {what}: {len(payload)} bytes announce {length}")
    data = memoryview(payload)[LENGTH_BYTES:end]
    if file is not None:
        file.load(what, load, data)
        return
    with memory_file() as new:
        _load(what, load, data, new)


class PublicFile(threading.local):
    """A file in memory that is written over and over, for what is no secret: new memory each time costs as much as
    loading. A thread, and a forked process, has its own.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._process = 0

    def load(self, what: str, load: Callable[[str], None], data: bytes | memoryview) -> None:
        """Hand bytes to SEAL's checking loader; EnvelopeError if it refuses them."""
        if self._file is None or self._process != os.getpid():
            self._file, self._process = memory_file(), os.getpid()
        self._file.seek(0)
        _load(what, load, data, self._file)


def _load(what: str, load: Callable[[str], None], data: bytes | memoryview, file: IO[bytes]) -> None:
    file.write(data)
    file.truncate()
    file.flush()
    try:
        load(path_of(file))
    except (RuntimeError, ValueError, IndexError) as error:
        raise EnvelopeError(f"SEAL cannot read the {what}: {error}") from None


def padded_length(primes: Sequence[int], ring_dimension: int, polynomials: int) -> int:
    """An upper bound of the bytes that SEAL saves for so many polynomials modulo each of `primes`.

    A residue has 8 bytes; SEAL's compressor takes it to within SLACK_BITS of the size of its prime (measured for primes
    of 25 to 60 bits), and never adds more than a thousandth.
    """
    bits = sum(min(64, q.bit_length() + SLACK_BITS) for q in primes)
    return int(1.003 * ring_dimension * polynomials * bits / 8) + OVERHEAD


def _parameters(params: CkksParams, moduli: Any) -> Any:
    chosen = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    chosen.set_poly_modulus_degree(params.ring_dimension)
    chosen.set_coeff_modulus(moduli)
    return chosen


def _level_ids(context: Any, max_level: int) -> list[Any]:
    data = context.first_context_data()
    ids = []
    while data is not None:
        ids.append(data.parms_id())
        data = data.next_context_data()
    return ids[::-1][: max_level + 1]
