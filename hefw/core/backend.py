"""What an HE library must offer, and what every evaluator can then do.

A backend's folder implements the methods that start with an underscore. The public methods check and keep level and
scale in one place, count operations, and fall back to complete defaults written on the primitives.

Conventions: *level* is the number of rescales that remain. Scales are exact and rescaling is explicit. A rotation by
+k moves slot i + k to slot i, cyclic over all N / 2 slots.
"""

from __future__ import annotations

import itertools
import math
import os
import platform
import secrets
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from hefw.core.envelope import Envelope
from hefw.core.errors import (
    CapabilityError,
    EncodingError,
    EnvelopeError,
    KeyMismatchError,
    LevelError,
    ParameterError,
    ScaleError,
)
from hefw.core.files import write_atomically
from hefw.core.linear import Group, Strand, Transform
from hefw.core.params import CkksParams, Resolved
from hefw.core.rounding import RealRounding
from hefw.core.turning import Link, folded_at_once, together

if TYPE_CHECKING:
    from hefw.core.engine import Engine
    from hefw.core.program import Program
    from hefw.core.runner import Weights

#: Relative difference up to which two scales count as equal (they differ by float rounding only).
SCALE_TOLERANCE = 1e-9
#: Products that are summed in one call.
MOST_PRODUCTS = 64
KEY_KINDS = ("relinearisation", "conjugation", "rotation", "bootstrap")


@dataclass(frozen=True)
class Capabilities:
    """What a library can do. An operation that is not declared is refused, never emulated by decrypting."""

    ring_dimensions: tuple[int, ...]
    conjugation: bool = True
    complex_values: bool = True
    hoisted_rotations: bool = False
    seeded_bytes: bool = False  # fresh ciphertexts and keys are sent as seeds: about half the size
    symmetric_encryption: bool = True  # the key holder encrypts by its secret key: less noise than by a public one
    bootstrap: bool = False
    simulated: bool = False  # no encryption at all
    largest_prime_bits: int = 60  # of the chain's primes after the first
    special_primes: int = 1  # most key-switching primes P; more of them make fewer, larger digits
    largest_special_bits: int = 60  # of a special prime that the planner asks for
    plaintext_levels: bool = False  # an encoded plaintext can be taken to a lower level
    packed_slots: bool = False  # fewer than N / 2 values in a ciphertext
    alternating_imaginary: bool = False  # X^(N/2) is i and -i in turn in the slots, as in SEAL, not i in all of them
    threads: bool = True  # several threads may use one evaluator, one operation at a time each
    fork: bool = True  # a child made by os.fork after use can go on; if not, it is refused by name there
    plaintext_bytes: bool = False  # `Evaluator.dump_plaintext`: a plaintext as bytes, read faster than it is encoded
    fine_reals: bool = False  # `encode(real=True)` rounds half as much: an encoder that rounds to the nearest integers
    joined_rotations: bool = False  # those that are added up share a division: keys of their own are worth it
    costs: tuple[tuple[str, float], ...] = ()  # measured times that differ from the defaults of `core.plan.Costs`
    fast_prime_bits: int = 0  # where all primes have at most so many, `fast_costs` hold besides
    fast_costs: tuple[tuple[str, float], ...] = ()
    centred_digits: bool = False  # key switches take digits around 0: half of the noise, and none that depends on keys
    own_calls: Capabilities | None = None  # instead, by larger special primes or with bootstrapping (`under`)

    def under(self, params: CkksParams | None, *, bootstrap: bool = False) -> Capabilities:
        """Those that hold for parameters, if they are known, and for programs that bootstrap."""
        larger = params is not None and min(params.special_bits) > self.largest_special_bits
        return self.own_calls if self.own_calls is not None and (larger or bootstrap) else self


@dataclass(frozen=True)
class Bootstrapping:
    """What a library's bootstrapping takes and gives, under given parameters.

    It takes a ciphertext of at least `level_in`, of exactly `scale`, with values of magnitude below `magnitude`, and
    gives one of `level_out` and the same scale. `error` is the standard deviation that it adds to a value.
    `rotations` are the steps whose keys it uses; they may exceed the slots where these are packed sparsely.
    """

    level_in: int
    level_out: int
    scale: float
    magnitude: float
    error: float
    rotations: tuple[int, ...]


@dataclass(frozen=True)
class Provenance:
    """What does a backend's work: a library of a version, under an interpreter, in a process."""

    library: str
    version: str
    python: str
    process: int


@dataclass(frozen=True)
class KeyManifest:
    """The evaluation keys a program needs. `rotations` maps a step in slots to the highest level of its use.

    `bootstrap` asks for what bootstrapping needs besides rotations, conjugation and relinearisation: one blob.
    """

    rotations: Mapping[int, int] = field(default_factory=dict)
    relinearisation: bool = True
    conjugation: bool = False
    bootstrap: bool = False

    def level(self, name: str, top: int) -> int:
        """The highest level at which a key is used; `top` for all but rotations."""
        kind, _, step = name.partition("/")
        return self.rotations[int(step)] if kind == "rotation" else top

    def names(self) -> list[str]:
        """The blobs that `KeyHolder.evaluation_keys` makes, in order."""
        return (
            (["relinearisation"] if self.relinearisation else [])
            + (["conjugation"] if self.conjugation else [])
            + (["bootstrap"] if self.bootstrap else [])
            + [f"rotation/{step}" for step in sorted(self.rotations)]
        )


@dataclass
class Ciphertext:
    """A library's ciphertext with the level and scale that hefw keeps. `size` is 2, or 3 before relinearisation."""

    handle: Any
    level: int
    scale: float
    size: int = 2

    @property
    def scale_bits(self) -> float:
        """log2 of the scale."""
        return math.log2(self.scale)


@dataclass
class Plaintext:
    """A library's encoded plaintext: a vector over all slots, or one constant."""

    handle: Any
    level: int
    scale: float


class Kept(Sequence[Plaintext]):
    """Weights that are the same objects at every read: a backend may keep what it finds out about them."""

    def __init__(self, weights: Sequence[Plaintext]) -> None:
        self._weights = weights

    def __len__(self) -> int:
        return len(self._weights)

    @overload
    def __getitem__(self, index: int) -> Plaintext: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Plaintext]: ...

    def __getitem__(self, index: int | slice) -> Plaintext | Sequence[Plaintext]:
        return self._weights[index]


Products = Sequence[tuple[Ciphertext, Plaintext]]


def provenance(library: str, version: str) -> Provenance:
    """That of a library in this process."""
    return Provenance(library, version, platform.python_version(), os.getpid())


class Backend(ABC):
    """One HE library."""

    name: str
    capabilities: Capabilities

    def __init__(self, options: object | None = None) -> None:
        self.options = options

    @abstractmethod
    def resolve(self, params: CkksParams) -> Resolved:
        """The actual primes that the library takes for `params`; ParameterError if it cannot."""

    @abstractmethod
    def keygen(self, params: Resolved, manifest: KeyManifest) -> KeyHolder:
        """A new secret key, from the operating system's randomness."""

    @abstractmethod
    def load_key_holder(self, params: Resolved, manifest: KeyManifest, path: Path) -> KeyHolder:
        """The key holder that `KeyHolder.save` wrote."""

    @abstractmethod
    def evaluator(self, params: Resolved) -> Evaluator:
        """A server's side: has no secret key and no way to get one."""

    def bootstrap_params(self, slots: int, levels: int, *, allow_insecure: bool = False) -> CkksParams:
        """Parameters under which `slots` values can be bootstrapped with `levels` rescales left afterwards.

        CapabilityError if the library cannot bootstrap; ParameterError if nothing at 128 bits does.
        """
        raise self._lacks("bootstrap")

    def bootstrapping(self, params: Resolved) -> Bootstrapping:
        """What bootstrapping takes and gives under such parameters; CapabilityError if the library cannot."""
        raise self._lacks("bootstrap")

    def engine(self, program: Program, weights: Weights | None = None, threads: int = 1) -> Engine:
        """What runs a program for one key holder: in this process, with encoded weights that others may share.

        So many threads may work on an operation together, where the library lets go of Python's lock.
        """
        from hefw.core.engine import LocalEngine  # engines stand above backends; only this default needs one

        return LocalEngine(program, self, weights, threads)

    @abstractmethod
    def provenance(self) -> Provenance:
        """The library that does the work, its version, the interpreter and the process."""

    def worker_memory(self) -> int:
        """Peak resident memory of processes that the backend has besides this one, in bytes."""
        return 0

    def drop_secrets(self) -> None:  # noqa: B027 (most libraries have nothing to drop)
        """Called once in a server's process: take away what the library offers there for decrypting, if it can."""

    def require(self, capability: str) -> None:
        """CapabilityError, naming this backend, if a capability is not declared."""
        if not getattr(self.capabilities, capability):
            raise self._lacks(capability)

    def _lacks(self, capability: str) -> CapabilityError:
        return CapabilityError(
            f"backend {self.name!r} has no {capability.replace('_', ' ')}; choose one that declares it"
        )

    def check(self, params: CkksParams) -> None:
        """ParameterError or CapabilityError if the library does not offer the ring dimension or the packing."""
        if params.packed_slots is not None:
            self.require("packed_slots")
        if params.bootstrap is not None:
            self.require("bootstrap")
        self.check_ring(params.ring_dimension)

    def check_ring(self, ring_dimension: int) -> None:
        """ParameterError if the library does not offer the ring dimension."""
        if ring_dimension not in self.capabilities.ring_dimensions:
            allowed = ", ".join(map(str, self.capabilities.ring_dimensions))
            raise ParameterError(f"backend {self.name!r} has no ring dimension {ring_dimension}; allowed: {allowed}")


class KeyHolder(ABC):
    """The client's side of a backend: owns the secret key. Only a KeyHolder can decrypt."""

    def __init__(self, params: Resolved, manifest: KeyManifest, key_id: bytes | None = None) -> None:
        self.params = params
        self.manifest = manifest
        self.key_id = key_id or secrets.token_bytes(16)

    @abstractmethod
    def _encrypt(self, values: NDArray[Any], level: int, scale: float) -> bytes:
        """The library's bytes of a fresh encryption of `values` (slots,); their length depends on the level only."""

    @abstractmethod
    def _decrypt(self, ciphertext: Ciphertext) -> NDArray[np.complex128]:
        """All slots, divided by the ciphertext's scale."""

    @abstractmethod
    def _load(self, payload: bytes, level: int, scale: float) -> Any:
        """The library's ciphertext from its bytes; EnvelopeError if they are not one."""

    @abstractmethod
    def _evaluation_key(self, name: str) -> bytes:
        """The library's bytes of one evaluation key, by a name of `KeyManifest.names`."""

    @abstractmethod
    def _secret_bytes(self) -> bytes:
        """The library's bytes of the secret key."""

    def encrypt_bytes(self, values: NDArray[Any], level: int, scale: float) -> bytes:
        """Encrypt (slots,) values at a level and scale into an envelope, as it is sent."""
        checked = self._vector(values, level, scale)
        return self._envelope("ciphertext", self._encrypt(checked, level, scale), level, scale)

    def encrypt(self, values: NDArray[Any], level: int, scale: float) -> Ciphertext:
        """Encrypt (slots,) values at a level and scale, for local use."""
        checked = self._vector(values, level, scale)
        return Ciphertext(self._load(self._encrypt(checked, level, scale), level, scale), level, scale)

    def decrypt(self, ciphertext: Ciphertext) -> NDArray[np.complex128]:
        """All N / 2 slots as complex numbers. ScaleError if the scale does not fit the modulus that is left."""
        check_scale(self.params, ciphertext.level, ciphertext.scale)
        return self._decrypt(ciphertext)

    def decrypt_bytes(self, data: bytes) -> NDArray[np.complex128]:
        """Decrypt an envelope. EnvelopeError if it was made for other parameters or another key."""
        return self.decrypt(load_ciphertext(data, self.params, self.key_id, self._load))

    def evaluation_keys(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, bytes]]:
        """All public keys a server needs, or some of them, as named envelopes; each can be sent again alone."""
        for name in self.manifest.names() if names is None else names:
            kind, _, step = name.partition("/")
            payload = self._evaluation_key(name)
            level = self.manifest.level(name, self.params.max_level)
            yield name, self._envelope(f"{kind}-key", payload, level, 1.0, int(step or 0))

    def save(self, path: Path) -> None:
        """Write the secret key to a file that only its owner can read."""
        data = self._envelope("secret-key", self._secret_bytes(), self.params.max_level, 1.0)
        write_atomically(Path(path), data, private=True)

    def _vector(self, values: NDArray[Any], level: int, scale: float) -> NDArray[Any]:
        checked = check_values(values, self.params, level, scale)
        return np.full(self.params.slots, checked) if isinstance(checked, float) else checked

    def _envelope(self, kind: str, payload: bytes, level: int, scale: float, item: int = 0) -> bytes:
        return Envelope(kind, self.params.backend, self.params.digest, self.key_id, level, scale, payload, item).pack()


class Evaluator(ABC):
    """The server's side of a backend: parameters and named evaluation-key blobs; it cannot hold a secret key."""

    def __init__(self, params: Resolved, capabilities: Capabilities) -> None:
        self.params = params
        self.capabilities = capabilities
        self.counts: Counter[str] = Counter()
        self.threads = 1  # that may work on an operation together
        self.key_id: bytes | None = None
        self.keys: dict[str, int] = {}  # name -> the highest level that the key serves
        self._units: dict[int, Plaintext] = {}  # X^(N/2) by level

    # -- keys and bytes ------------------------------------------------------------------------------------------

    def load_keys(self, blobs: Mapping[str, bytes]) -> None:
        """Take evaluation keys by name ('relinearisation', 'conjugation', 'rotation/STEP'), all of one key holder."""
        for name, blob in blobs.items():
            kind, _, step = name.partition("/")
            if kind not in KEY_KINDS or (kind == "rotation") != step.isdecimal() or len(step) > 9:
                raise KeyMismatchError(
                    f"{name!r} is not an evaluation key; known: relinearisation, conjugation, rotation/STEP"
                )
            envelope = Envelope.unpack(blob).expect(
                kind=f"{kind}-key",
                backend=self.params.backend,
                params_digest=self.params.digest,
                key_id=self.key_id,
            )
            if envelope.item != int(step or 0):
                raise KeyMismatchError(f"the blob named {name!r} holds the key of rotation {envelope.item}")
            if envelope.level > self.params.max_level:
                raise EnvelopeError(
                    f"{name!r} is a key for level {envelope.level}; there are 0 to {self.params.max_level}"
                )
            before = dict(self.keys)
            self.keys[name] = envelope.level  # known while the library loads it
            try:
                self._load_key(name, envelope.payload)
            except BaseException:
                self.keys = before
                raise
            self.key_id = envelope.key_id

    @property
    def threads_used(self) -> int:
        """How many do: of a library that holds Python's lock it is one."""
        return 1

    def require_keys(self, names: Iterable[str], level: int = 0) -> None:
        """KeyMismatchError that lists the evaluation keys which were not sent, or serve lower levels only."""
        names = list(names)
        missing = [name for name in names if name not in self.keys]
        if missing:
            shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise KeyMismatchError(f"missing evaluation keys: {shown}; the key holder must send them")
        for name in names:
            if level > self.keys[name]:
                raise KeyMismatchError(
                    f"the evaluation key {name} serves levels up to {self.keys[name]}, the ciphertext has {level}; the "
                    "key holder's manifest must name the highest level of its use"
                )

    def load(self, data: bytes) -> Ciphertext:
        """A ciphertext from its envelope; EnvelopeError if it is not of these parameters and this key.

        Where no evaluation key was needed, the first ciphertext tells the key's id.
        """
        loaded = load_ciphertext(data, self.params, self.key_id, self._load)
        if self.key_id is None:
            self.key_id = Envelope.unpack(data).key_id
        return loaded

    def dump(self, ciphertext: Ciphertext) -> bytes:
        """The envelope of a ciphertext, of a length that depends on its level only."""
        if self.key_id is None:
            raise KeyMismatchError(
                "no evaluation key and no ciphertext was loaded yet, so that the key's id is not known; call load_keys"
            )
        return Envelope(
            "ciphertext",
            self.params.backend,
            self.params.digest,
            self.key_id,
            ciphertext.level,
            ciphertext.scale,
            self._dump(ciphertext),
        ).pack()

    # -- plaintexts ----------------------------------------------------------------------------------------------

    def encode(self, values: NDArray[Any] | float, level: int, scale: float, *, real: bool = False) -> Plaintext:
        """Encode (slots,) values, or one constant for all slots, at a level and scale.

        `real`: of all that is made with it only real parts are read. Real vectors are then rounded half as much where
        the library allows it (`Capabilities.fine_reals`), and their imaginary parts, 0 otherwise, are rounded too.
        """
        checked = check_values(values, self.params, level, scale)
        self.counts["encode"] += 1
        fine = real and self.capabilities.fine_reals
        if fine and isinstance(checked, np.ndarray) and checked.dtype.kind == "f":
            return Plaintext(self._encode_real(checked, level, scale), level, scale)
        return Plaintext(self._encode(checked, level, scale), level, scale)

    def drop_plain_level(self, a: Plaintext, level: int) -> Plaintext:
        """The same plaintext for a lower level; the scale stays. CapabilityError if that is not declared."""
        if not self.capabilities.plaintext_levels:
            raise CapabilityError(
                f"backend {self.params.backend!r} has no plaintext levels; encode at the level wanted"
            )
        if not 0 <= level <= a.level:
            raise LevelError(f"a plaintext of level {a.level} cannot be dropped to level {level}")
        check_scale(self.params, level, a.scale)
        return a if level == a.level else Plaintext(self._drop_plain_level(a, level), level, a.scale)

    def dump_plaintext(self, a: Plaintext) -> bytes:
        """The bytes of a plaintext, for `load_plaintext`. CapabilityError if that is not declared."""
        raise CapabilityError(f"backend {self.params.backend!r} does not write plaintexts as bytes; encode them again")

    def load_plaintext(self, data: bytes | memoryview, level: int, scale: float) -> Plaintext:
        """The plaintext that `dump_plaintext` wrote, of that level and scale; EnvelopeError if the bytes are none.

        It may go on reading `data`, which must not change.
        """
        raise CapabilityError(f"backend {self.params.backend!r} does not read plaintexts from bytes; encode them again")

    # -- additions: levels and scales of both operands must agree ---------------------------------------------------

    def add(self, a: Ciphertext, b: Ciphertext) -> Ciphertext:
        """a + b, at their common level and scale."""
        self._agree("add", a, b)
        self.counts["add"] += 1
        return Ciphertext(self._add(a, b), a.level, a.scale, max(a.size, b.size))

    def add_into(self, a: Ciphertext, b: Ciphertext) -> Ciphertext:
        """a + b where the caller gives up `a`: a library may reuse its memory."""
        self._agree("add", a, b)
        self.counts["add"] += 1
        return Ciphertext(self._add_into(a, b), a.level, a.scale, max(a.size, b.size))

    def sub(self, a: Ciphertext, b: Ciphertext) -> Ciphertext:
        """a - b, at their common level and scale."""
        self._agree("sub", a, b)
        self.counts["add"] += 1
        return Ciphertext(self._sub(a, b), a.level, a.scale, max(a.size, b.size))

    def negate(self, a: Ciphertext) -> Ciphertext:
        """-a, at the same level and scale."""
        return Ciphertext(self._negate(a), a.level, a.scale, a.size)

    def add_plain(self, a: Ciphertext, b: Plaintext) -> Ciphertext:
        """a + b, at their common level and scale."""
        self._agree("add_plain", a, b)
        self.counts["add_plain"] += 1
        return Ciphertext(self._add_plain(a, b), a.level, a.scale, a.size)

    def add_plain_into(self, a: Ciphertext, b: Plaintext) -> Ciphertext:
        """a + b where the caller gives up `a`: a library may reuse its memory."""
        self._agree("add_plain", a, b)
        self.counts["add_plain"] += 1
        return Ciphertext(self._add_plain_into(a, b), a.level, a.scale, a.size)

    # -- products: the level stays, the scales multiply ------------------------------------------------------------

    def mul_plain(self, a: Ciphertext, b: Plaintext) -> Ciphertext:
        """a * b slot by slot; the level stays, the scale is the product."""
        scale = self._product("mul_plain", a, b)
        self.counts["mul_plain"] += 1
        return Ciphertext(self._mul_plain(a, b), a.level, scale, a.size)

    def mul_scalar(self, a: Ciphertext, value: float, scale: float) -> Ciphertext:
        """a times a constant that is encoded at `scale`; the level stays."""
        return self.mul_plain(a, self.encode(value, a.level, scale))

    def multiply_accumulate(self, pairs: Products) -> Ciphertext:
        """The sum of products with plaintexts, in one call; all products must have one level and scale."""
        scale = self._sum_scale(pairs)
        return Ciphertext(self._multiply_accumulate(pairs), pairs[0][0].level, scale, pairs[0][0].size)

    def _sum_scale(self, pairs: Products) -> float:
        """The scale of a sum of products, which is checked and counted."""
        scale = self._common_scale("multiply_accumulate", pairs)
        self.counts["mul_plain"] += len(pairs)
        self.counts["add"] += len(pairs) - 1
        return scale

    def _common_scale(self, what: str, pairs: Products) -> float:
        """That of products, which must have one, at one level."""
        if not pairs:
            raise EncodingError(f"{what}: at least one pair is needed")
        first, weight = pairs[0]
        scale = self._product(what, first, weight)
        for a, b in pairs:
            if a.level != first.level or b.level != first.level:
                raise LevelError(f"{what}: levels {a.level} and {b.level} differ from {first.level}")
            if abs(a.scale * b.scale - scale) > SCALE_TOLERANCE * scale:
                raise ScaleError(f"{what}: scale {a.scale * b.scale:g} differs from {scale:g}")
        return scale

    def sum_of_products(self, pairs: Iterable[tuple[Ciphertext, Plaintext]]) -> Ciphertext:
        """`multiply_accumulate` of many pairs, few of them in memory at once: plaintexts may be made on the way."""
        remaining = iter(pairs)
        total = self.multiply_accumulate(list(itertools.islice(remaining, MOST_PRODUCTS)))
        while some := list(itertools.islice(remaining, MOST_PRODUCTS)):
            total = self.add_into(total, self.multiply_accumulate(some))
        return total

    def mul(self, a: Ciphertext, b: Ciphertext, *, relinearise: bool = True) -> Ciphertext:
        """a * b of two ciphertexts; the level stays, the scale is the product, the size is 3 until relinearised."""
        scale = self._product("mul", a, b)
        self._two_parts("mul", a, b)
        self.counts["mul"] += 1
        product = Ciphertext(self._mul(a, b), a.level, scale, 3)
        return self.relinearise(product) if relinearise else product

    def square(self, a: Ciphertext, *, relinearise: bool = True) -> Ciphertext:
        """a * a; the level stays, the scale is squared."""
        scale = self._product("square", a, a)
        self._two_parts("square", a)
        self.counts["mul"] += 1
        product = Ciphertext(self._square(a), a.level, scale, 3)
        return self.relinearise(product) if relinearise else product

    def square_parts(self, a: Ciphertext) -> Ciphertext:
        """x^2 + i y^2 for a slot's x + i y: two real squares; the level stays, the scale becomes four times the square.

        i is what `mul_imaginary` multiplies by in the slot. (z + conj z)^2 - i (z - conj z)^2 = 4 (x^2 + i y^2): one
        conjugation, two squares and one relinearisation. CapabilityError if the library has no conjugation.
        """
        check_scale(self.params, a.level, 4 * self._product("square_parts", a, a))
        conjugate = self.conjugate(a)
        real = self.square(self.add(a, conjugate), relinearise=False)
        imaginary = self.square(self.sub(a, conjugate), relinearise=False)
        return self.divide(self.relinearise(self.sub(real, self.mul_imaginary(imaginary))), 4)

    def mul_imaginary(self, a: Ciphertext) -> Ciphertext:
        """a * X^(N/2): times i in every slot, or times i and -i in turn (`Capabilities.alternating_imaginary`).

        It is exact, and level, scale and number of parts stay.
        """
        if not self.capabilities.complex_values:
            raise CapabilityError(f"backend {self.params.backend!r} has no complex values; choose one that declares it")
        self.counts["mul_imaginary"] += 1
        return Ciphertext(self._mul_imaginary(a), a.level, a.scale, a.size)

    def divide(self, a: Ciphertext, by: float) -> Ciphertext:
        """a / by for nothing: the scale is read as so many times larger; the level stays."""
        check_scale(self.params, a.level, a.scale * by)
        return Ciphertext(self._divide(a, by), a.level, a.scale * by, a.size)

    def relinearise(self, a: Ciphertext) -> Ciphertext:
        """Back to two parts, or the same if it has them; level and scale stay. KeyMismatchError without the key."""
        if a.size == 2:
            return a
        self.require_keys(["relinearisation"])
        self.counts["relinearise"] += 1
        return Ciphertext(self._relinearise(a), a.level, a.scale, 2)

    # -- levels --------------------------------------------------------------------------------------------------

    def rescale(self, a: Ciphertext, times: int = 1) -> Ciphertext:
        """Drop `times` primes and divide the scale by them. LevelError if fewer levels remain."""
        if times > a.level:
            raise LevelError(
                f"rescale by {times} wants {times} levels, {a.level} remain; refresh before, or use a longer chain"
            )
        for _ in range(times):
            self.counts["rescale"] += 1
            a = Ciphertext(self._rescale(a), a.level - 1, a.scale / self.params.primes[a.level], a.size)
        return a

    def drop_level(self, a: Ciphertext, level: int) -> Ciphertext:
        """The same value at a lower level; the scale stays. LevelError if `level` is above the ciphertext's."""
        if level == a.level:
            return a
        if not 0 <= level < a.level:
            raise LevelError(f"a ciphertext of level {a.level} cannot be dropped to level {level}")
        check_scale(self.params, level, a.scale)
        self.counts["drop_level"] += 1
        return Ciphertext(self._drop_level(a, level), level, a.scale, a.size)

    # -- rotations: level and scale stay ---------------------------------------------------------------------------

    def rotate(self, a: Ciphertext, step: int) -> Ciphertext:
        """Slot i + step moves to slot i, cyclic over N / 2 slots. KeyMismatchError without that step's key."""
        step %= self.params.slots
        if step == 0:
            return a
        self._two_parts("rotate", a)
        self.require_keys([f"rotation/{step}"], a.level)
        self.counts["rotate"] += 1
        return Ciphertext(self._rotate(a, step), a.level, a.scale)

    def rotate_many(self, a: Ciphertext, steps: Sequence[int]) -> list[Ciphertext]:
        """`rotate` for several steps of one ciphertext; a library that hoists shares their common part."""
        return [self.rotate(a, step) for step in steps]

    def conjugate(self, a: Ciphertext) -> Ciphertext:
        """The complex conjugate of every slot; level and scale stay. CapabilityError if that is not declared."""
        if not self.capabilities.conjugation:
            raise CapabilityError(f"backend {self.params.backend!r} has no conjugation; choose one that declares it")
        self._two_parts("conjugate", a)
        self.require_keys(["conjugation"])
        self.counts["conjugate"] += 1
        return Ciphertext(self._conjugate(a), a.level, a.scale)

    def linear_transform(
        self, inputs: Sequence[Ciphertext], transform: Transform, weights: Sequence[Plaintext]
    ) -> list[Ciphertext]:
        """Matrices times encrypted vectors by baby steps and giant steps; the level stays, the scales multiply.

        `inputs` are the ciphertexts of all sources at one level; `weights` are `transform.weights` encoded there, in
        the same order, at scales that make all products agree.
        """
        rotated = []
        for ct, steps in zip(inputs, transform.babies, strict=True):
            if transform.chained:
                rotated.append(self.turn(ct, transform.turns(steps)))
            else:
                rotated.append(dict(zip(steps, self.rotate_many(ct, steps), strict=True)))
        sums = [self.sum_of_strands(rotated, transform.strands(k), weights) for k in range(len(transform.outputs))]
        return [self.fold(total, transform.folds, given_up=True) for total in sums]

    def turn(self, ct: Ciphertext, strands: Iterable[Sequence[Link]]) -> dict[int, Ciphertext]:
        """A ciphertext by all these steps, some made of others, and by 0."""
        found = {0: ct}
        for before, links in together(itertools.chain.from_iterable(strands)):
            turned = self.rotate_many(found[before], [link.by for link in links])
            found |= zip((link.step for link in links), turned, strict=True)
        return found

    def sum_of_strands(
        self, rotated: Sequence[Mapping[int, Ciphertext]], strands: Iterable[Strand], weights: Sequence[Plaintext]
    ) -> Ciphertext:
        """Some groups of a transform's output: each a sum of products, turned by its giant step; the level stays.

        `rotated[i]` has input i by the baby steps that the groups read.
        """
        return self.joined(strands, lambda groups: self.sums_of_groups(rotated, groups, weights))

    def joined(self, strands: Iterable[Strand], sums: Callable[[Sequence[Group]], Iterable[Ciphertext]]) -> Ciphertext:
        """The sums of groups, in the order asked for, each turned by its giant step and given up; the level stays."""
        total: Ciphertext | None = None
        for strand in strands:
            gone: Ciphertext | None = None
            inward = strand[::-1]
            for (_, by), inner in zip(inward, sums([group for group, _ in inward]), strict=True):
                gone = self.rotate(inner if gone is None else self.add_into(gone, inner), by)
            if gone is not None:
                total = gone if total is None else self.add_into(total, gone)
        if total is None:
            raise EncodingError("a linear transform without a single weight has no ciphertext result")
        return total

    def sums_of_groups(
        self, rotated: Sequence[Mapping[int, Ciphertext]], groups: Sequence[Group], weights: Sequence[Plaintext]
    ) -> Iterator[Ciphertext]:
        """The sum of products of each group, as they are asked for: plaintexts may be made on the way."""
        for group in groups:
            yield self.sum_of_products((rotated[t.source][t.baby], weights[t.weight]) for t in group.terms)

    def fold(self, total: Ciphertext, folds: Sequence[int], *, given_up: bool = False) -> Ciphertext:
        """Partial sums added up, by one group of steps after the other (`turning.folded_at_once`); the level stays.

        A ciphertext that is `given_up` may be written over.
        """
        for steps in folded_at_once(folds):
            total = self.add_rotations(total, steps)
        return total

    def add_rotations(self, a: Ciphertext, steps: Sequence[int]) -> Ciphertext:
        """A ciphertext plus its rotations by some steps; the level stays."""
        first, *others = self.rotate_many(a, steps)
        total = self.add_into(first, a)
        for other in others:
            total = self.add_into(total, other)
        return total

    def bootstrap(self, a: Ciphertext) -> Ciphertext:
        """Give a ciphertext its levels back without the key holder; refused unless the library can.

        The level becomes `Bootstrapping.level_out`; the scale must be `Bootstrapping.scale`, and stays.
        """
        if not self.capabilities.bootstrap or self.params.params.bootstrap is None:
            why = "these parameters do not" if self.capabilities.bootstrap else "it cannot bootstrap"
            raise CapabilityError(f"backend {self.params.backend!r} cannot bootstrap: {why}; use refresh: client")
        promised = self._bootstrapping()
        if a.level < promised.level_in:
            raise LevelError(f"bootstrapping takes level {promised.level_in} or more, the ciphertext has {a.level}")
        if abs(a.scale - promised.scale) > SCALE_TOLERANCE * promised.scale:
            raise ScaleError(f"bootstrapping takes scale {promised.scale:g}, the ciphertext has {a.scale:g}")
        self._two_parts("bootstrap", a)
        self.require_keys(["bootstrap", "conjugation", "relinearisation"])
        self.require_keys(f"rotation/{step}" for step in promised.rotations)
        self.counts["bootstrap"] += 1
        return Ciphertext(self._bootstrap(a), promised.level_out, promised.scale)

    # -- what a library implements -----------------------------------------------------------------------------------

    @abstractmethod
    def _load_key(self, name: str, payload: bytes) -> None: ...

    @abstractmethod
    def _load(self, payload: bytes, level: int, scale: float) -> Any: ...

    @abstractmethod
    def _dump(self, ciphertext: Ciphertext) -> bytes: ...

    @abstractmethod
    def _encode(self, values: NDArray[Any] | float, level: int, scale: float) -> Any: ...

    def _encode_real(self, values: NDArray[np.float64], level: int, scale: float) -> Any:
        return self._encode(self._real_rounding.prepare(values, scale), level, scale)

    @cached_property
    def _real_rounding(self) -> RealRounding:
        return RealRounding(self.params.slots, alternating=self.capabilities.alternating_imaginary)

    @abstractmethod
    def _add(self, a: Ciphertext, b: Ciphertext) -> Any: ...

    @abstractmethod
    def _negate(self, a: Ciphertext) -> Any: ...

    @abstractmethod
    def _add_plain(self, a: Ciphertext, b: Plaintext) -> Any: ...

    @abstractmethod
    def _mul_plain(self, a: Ciphertext, b: Plaintext) -> Any: ...

    @abstractmethod
    def _mul(self, a: Ciphertext, b: Ciphertext) -> Any: ...

    @abstractmethod
    def _relinearise(self, a: Ciphertext) -> Any: ...

    @abstractmethod
    def _rescale(self, a: Ciphertext) -> Any: ...

    @abstractmethod
    def _drop_level(self, a: Ciphertext, level: int) -> Any: ...

    @abstractmethod
    def _rotate(self, a: Ciphertext, step: int) -> Any: ...

    def _bootstrapping(self) -> Bootstrapping:
        raise CapabilityError(f"backend {self.params.backend!r} cannot bootstrap; use refresh: client")

    def _bootstrap(self, a: Ciphertext) -> Any:
        raise CapabilityError(f"backend {self.params.backend!r} cannot bootstrap; use refresh: client")

    def _drop_plain_level(self, a: Plaintext, level: int) -> Any:
        raise CapabilityError(f"backend {self.params.backend!r} has no plaintext levels; encode at the level wanted")

    def _add_into(self, a: Ciphertext, b: Ciphertext) -> Any:
        return self._add(a, b)

    def _add_plain_into(self, a: Ciphertext, b: Plaintext) -> Any:
        return self._add_plain(a, b)

    def _sub(self, a: Ciphertext, b: Ciphertext) -> Any:
        return self._add(a, Ciphertext(self._negate(b), b.level, b.scale, b.size))

    def _square(self, a: Ciphertext) -> Any:
        return self._mul(a, a)

    def _divide(self, a: Ciphertext, by: float) -> Any:
        return a.handle

    def _mul_imaginary(self, a: Ciphertext) -> Any:
        if a.level not in self._units:  # a monomial is exact at scale 1
            unit = imaginary(self.params.slots, alternating=self.capabilities.alternating_imaginary)
            self._units[a.level] = Plaintext(self._encode(unit, a.level, 1.0), a.level, 1.0)
        return self._mul_plain(a, self._units[a.level])

    def _multiply_accumulate(self, pairs: Products) -> Any:
        first, weight = pairs[0]
        scale = first.scale * weight.scale
        total = Ciphertext(self._mul_plain(first, weight), first.level, scale, first.size)
        for a, b in pairs[1:]:
            product = Ciphertext(self._mul_plain(a, b), first.level, scale, first.size)
            total = Ciphertext(self._add_into(total, product), first.level, scale, first.size)
        return total.handle

    def _conjugate(self, a: Ciphertext) -> Any:
        raise CapabilityError(f"backend {self.params.backend!r} has no conjugation; choose one that declares it")

    # -- checks --------------------------------------------------------------------------------------------------

    def _agree(self, what: str, a: Ciphertext, b: Ciphertext | Plaintext) -> None:
        if a.level != b.level:
            raise LevelError(f"{what}: levels {a.level} and {b.level} differ; use drop_level on the higher one")
        if abs(a.scale - b.scale) > SCALE_TOLERANCE * max(a.scale, b.scale):
            raise ScaleError(f"{what}: scales {a.scale:g} and {b.scale:g} differ; encode or rescale to one scale")

    def _product(self, what: str, a: Ciphertext, b: Ciphertext | Plaintext) -> float:
        if a.level != b.level:
            raise LevelError(f"{what}: levels {a.level} and {b.level} differ; use drop_level on the higher one")
        scale = a.scale * b.scale
        check_scale(self.params, a.level, scale)
        return scale

    def _two_parts(self, what: str, *operands: Ciphertext) -> None:
        if any(operand.size != 2 for operand in operands):
            raise ScaleError(f"{what}: a ciphertext of three parts must be relinearised first")


def imaginary(slots: int, *, alternating: bool) -> NDArray[np.complex128]:
    """X^(N/2) in the slots: i in all of them, or i and -i in turn.

    Slot j is the value at a root's power g^j, for g = 5 in most libraries and 3 in SEAL; X^(N/2) is i^(g^j) there.
    """
    return np.tile([1j, -1j], slots // 2) if alternating else np.full(slots, 1j)


def check_scale(params: Resolved, level: int, scale: float) -> None:
    """ScaleError if a scale does not fit the modulus at a level."""
    if not scale > 0 or math.log2(scale) >= params.log_modulus(level):
        raise ScaleError(
            f"scale 2^{math.log2(scale) if scale > 0 else -math.inf:.1f} does not fit the modulus of "
            f"2^{params.log_modulus(level):.1f} at level {level}; rescale first or encode at a smaller scale"
        )


def check_values(values: NDArray[Any] | float, params: Resolved, level: int, scale: float) -> NDArray[Any] | float:
    """Values that can be encoded: one constant, or exactly N / 2 finite numbers that fit the modulus at the level."""
    if not 0 <= level <= params.max_level:
        raise LevelError(f"level {level} does not exist; these parameters have levels 0 to {params.max_level}")
    check_scale(params, level, scale)
    array = np.asarray(values)
    if array.dtype.kind not in "fiuc":
        raise EncodingError(f"values of type {array.dtype} cannot be encoded; give real or complex numbers")
    if array.ndim and array.shape != (params.slots,):
        raise EncodingError(f"{array.shape} values were given; a vector must have exactly ({params.slots},)")
    peak = float(np.abs(array).max())
    if not math.isfinite(peak):
        raise EncodingError("values that are not finite (NaN or infinity) cannot be encoded")
    if peak and math.log2(peak) + math.log2(scale) >= params.log_modulus(level) - 1:
        raise EncodingError(
            f"values up to {peak:g} at scale 2^{math.log2(scale):.1f} exceed the modulus of "
            f"2^{params.log_modulus(level):.1f} at level {level}; use a smaller scale or a higher level"
        )
    if array.ndim == 0 and array.imag:
        array = np.full(params.slots, array)  # a library's constants are real
    if array.ndim:
        return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64, copy=False)
    return float(array.real)


def load_ciphertext(data: bytes, params: Resolved, key_id: bytes | None, load: Any) -> Ciphertext:
    """Check an envelope and hand its payload to a library's loader."""
    envelope = Envelope.unpack(data).expect(
        kind="ciphertext", backend=params.backend, params_digest=params.digest, key_id=key_id
    )
    if envelope.level > params.max_level:
        raise LevelError(f"level {envelope.level} does not exist; these parameters have levels 0 to {params.max_level}")
    check_scale(params, envelope.level, envelope.scale)
    return Ciphertext(load(envelope.payload, envelope.level, envelope.scale), envelope.level, envelope.scale)
