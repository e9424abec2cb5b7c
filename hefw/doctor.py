"""Does a backend work on this machine? One key, one encryption, and one of each operation, at 128-bit parameters."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hefw import plugins
from hefw.backends.choose import make, with_capability
from hefw.core.backend import Backend, Ciphertext, Evaluator, KeyHolder, KeyManifest, Provenance
from hefw.core.errors import CapabilityError, HefwError, ParameterError
from hefw.core.params import CkksParams, Resolved

Values = NDArray[Any]
#: Largest error of one operation on values of magnitude up to 1; at these scales CKKS has about 1e-7.
LARGEST_ERROR = 1e-3
#: How many times its declared error one bootstrapping may be off in any slot. What is wrong is off by thousands; how
#: exact it is, the conformance kit judges.
BOOTSTRAP_DEVIATIONS = 32
SCALE_BITS, LEVELS = 40, 2
BOOTSTRAP_SLOTS, BOOTSTRAP_LEVELS = 512, 1


@dataclass(frozen=True)
class Check:
    """One line of a diagnosis. `error` is the largest in any slot, where a result was compared."""

    name: str
    outcome: Literal["ok", "FAILED", "not tried", "not offered"]
    detail: str = ""
    seconds: float | None = None
    error: float | None = None


@dataclass
class Diagnosis:
    """All that was found out about a backend."""

    backend: str
    simulated: bool = False
    provenance: Provenance | None = None
    params: CkksParams | None = None
    checks: list[Check] = field(default_factory=list)

    @property
    def failed(self) -> list[Check]:
        """The checks that failed; those that were not tried because of them are not counted."""
        return [check for check in self.checks if check.outcome == "FAILED"]

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "backend": self.backend,
            "ok": not self.failed,
            "simulated": self.simulated,
            "provenance": None if self.provenance is None else asdict(self.provenance),
            "params": None if self.params is None else self.params.to_dict(),
            "security_bits": None if self.params is None else self.params.security_bits,
            "checks": [asdict(check) for check in self.checks],
        }


def diagnose(name: str, *, bootstrap: bool = False, show: Callable[[Check], None] = lambda check: None) -> Diagnosis:
    """Try every operation of a registered backend. A check that fails stops those that need its result, no others.

    Args:
        name: the backend.
        bootstrap: bootstrap, too.
        show: called with each check as soon as it is done.

    Raises:
        PluginError: no backend has that name.
        CapabilityError: `bootstrap` is asked of a backend that does not declare it.
    """
    plugins.registry().entry("backend", name)
    return _Doctor(name, show).go(bootstrap)


class _Doctor:
    """`made` holds the results of the checks so far, by name."""

    def __init__(self, name: str, show: Callable[[Check], None]) -> None:
        self.diagnosis = Diagnosis(name)
        self.show = show
        self.made: dict[str, Any] = {}
        self.holder: KeyHolder | None = None

    def go(self, bootstrap: bool) -> Diagnosis:
        backend = self.check("load the library", (), self._load, tell=self._who)
        if backend is None:
            return self.diagnosis
        if bootstrap and not backend.capabilities.bootstrap:
            able = ", ".join(with_capability("bootstrap")) or "none"
            raise CapabilityError(
                f"backend {backend.name!r} cannot bootstrap; those that can: {able}. Choose one of them, or leave "
                "--bootstrap out"
            )
        self.diagnosis.simulated = backend.capabilities.simulated
        params: Resolved | None = self.check("choose parameters", (), lambda: _choose(backend), tell=_size)
        if params is not None:
            self.diagnosis.params = params.params
        if params is not None and self._keys(backend, params, _manifest(backend, params)):
            self._operations(backend, params)
        if not backend.capabilities.bootstrap:
            self._add(Check("bootstrap", "not offered", "the library has none; runs refresh by the key holder"))
        elif bootstrap:
            self._bootstrap(backend)
        else:
            command = f"hefw backends doctor {self.diagnosis.backend} --bootstrap"
            self._add(Check("bootstrap", "not tried", f"the library has it; run: {command}"))
        return self.diagnosis

    def check(
        self,
        name: str,
        needs: tuple[str, ...],
        do: Callable[..., Any],
        expected: Values | None = None,
        *,
        limit: float = LARGEST_ERROR,
        tell: Callable[[Any], str] = lambda result: "",
    ) -> Any:
        """Do one thing with the results of others, compare its result, and keep it. None if it failed."""
        lacking = [f"'{need}'" for need in needs if need not in self.made]
        if lacking:
            self._add(Check(name, "not tried", f"needs {' and '.join(lacking)}"))
            return None
        started = time.perf_counter()
        seconds = None
        try:
            result = do(*(self.made[need] for need in needs))
            seconds = time.perf_counter() - started
            error = None if expected is None else float(np.abs(self._values(result) - expected).max())
            detail = tell(result)
        except Exception as failure:  # libraries raise whatever they like
            self._add(Check(name, "FAILED", _line(failure), seconds))
            return None
        if error is not None:
            detail = f"largest error {error:.1e}"
            if not error <= limit:
                self._add(Check(name, "FAILED", f"{detail}, at most {limit:g} is right", seconds, error))
                return None
        self.made[name] = result
        self._add(Check(name, "ok", detail, seconds, error))
        return result

    def _add(self, check: Check) -> None:
        self.diagnosis.checks.append(check)
        self.show(check)

    def _values(self, result: Any) -> Values:
        if isinstance(result, np.ndarray):
            return result
        assert self.holder is not None
        return self.holder.decrypt_bytes(result) if isinstance(result, bytes) else self.holder.decrypt(result)

    # -- what comes before operations ----------------------------------------------------------------------------

    def _load(self) -> Backend:
        entry = plugins.registry().entry("backend", self.diagnosis.backend)
        backend = make(entry, entry.options())
        self.diagnosis.provenance = backend.provenance()
        return backend

    def _who(self, _: Backend) -> str:
        who = self.diagnosis.provenance
        assert who is not None
        return f"{who.library} {who.version}, Python {who.python}, process {who.process}"

    def _keys(self, backend: Backend, params: Resolved, manifest: KeyManifest, what: str = "") -> bool:
        """Keys on both sides; from here on `holder` decrypts."""
        holder = self.check(f"make {what}keys", (), lambda: backend.keygen(params, manifest))
        if holder is None:
            return False
        self.holder = holder

        def send() -> tuple[Evaluator, int, int]:
            evaluator = backend.evaluator(params)
            sizes = []
            for name, blob in holder.evaluation_keys():  # one at a time: together they can be gigabytes
                evaluator.load_keys({name: blob})
                sizes.append(len(blob))
            return evaluator, len(sizes), sum(sizes)

        def tell(sent: tuple[Evaluator, int, int]) -> str:
            return f"{sent[1]} evaluation keys, {sent[2] / 1e6:.1f} MB"

        return self.check(f"send {what}keys", (), send, tell=tell) is not None

    # -- operations ----------------------------------------------------------------------------------------------

    def _operations(self, backend: Backend, params: Resolved) -> None:
        holder: KeyHolder = self.made["make keys"]
        evaluator: Evaluator = self.made["send keys"][0]
        top, scale = params.max_level, 2.0**params.params.scale_bits
        x, y = np.random.default_rng(0).uniform(-1, 1, (2, params.slots))
        z = x + 1j * y if backend.capabilities.complex_values else x

        self.check("encode", (), lambda: evaluator.encode(y, top, scale))
        self.check("encrypt", (), lambda: evaluator.load(holder.encrypt_bytes(z, top, scale)), z)
        self.check("decrypt", ("encrypt",), holder.decrypt, z)
        self.check("add", ("encrypt",), lambda a: evaluator.add(a, a), 2 * z)
        self.check("subtract", ("add", "encrypt"), evaluator.sub, z)
        self.check("add plaintext", ("encrypt", "encode"), evaluator.add_plain, z + y)
        self.check("multiply by plaintext", ("encrypt", "encode"), evaluator.mul_plain, z * y)
        self.check("multiply, relinearise", ("encrypt",), lambda a: evaluator.mul(a, a), z * z)
        self.check("rescale", ("multiply, relinearise",), evaluator.rescale, z * z)
        self.check("drop level", ("encrypt",), lambda a: evaluator.drop_level(a, top - 1), z)
        self.check("rotate by 1", ("encrypt",), lambda a: evaluator.rotate(a, 1), np.roll(z, -1))
        if backend.capabilities.conjugation:
            self.check("conjugate", ("encrypt",), evaluator.conjugate, np.conj(z))
        else:
            self._add(Check("conjugate", "not offered", "the library has none"))
        self.check("serialise", ("encrypt",), evaluator.dump, z)

    def _bootstrap(self, backend: Backend) -> None:
        def choose() -> Resolved:
            return backend.resolve(backend.bootstrap_params(BOOTSTRAP_SLOTS, BOOTSTRAP_LEVELS))

        params: Resolved | None = self.check("choose bootstrapping", (), choose, tell=_size)
        if params is None:
            return
        takes = backend.bootstrapping(params)
        manifest = KeyManifest(dict.fromkeys(takes.rotations, params.max_level), conjugation=True, bootstrap=True)
        if not self._keys(backend, params, manifest, "bootstrapping "):
            return
        holder, evaluator = self.made["make bootstrapping keys"], self.made["send bootstrapping keys"][0]
        x = np.random.default_rng(0).uniform(-1, 1, params.slots) * takes.magnitude / 2

        def refresh() -> Ciphertext:
            low: Ciphertext = evaluator.load(holder.encrypt_bytes(x, takes.level_in, takes.scale))
            high: Ciphertext = evaluator.bootstrap(low)
            return high

        self.check("bootstrap", (), refresh, x, limit=BOOTSTRAP_DEVIATIONS * takes.error)


def _choose(backend: Backend) -> Resolved:
    """Parameters at 128 bits, on the smallest ring that has them and that the library accepts."""
    declared = backend.capabilities
    bits = min(SCALE_BITS, declared.largest_prime_bits)
    refused = "it offers none that is large enough"
    for ring_dimension in sorted(declared.ring_dimensions):
        try:
            return backend.resolve(
                CkksParams(
                    ring_dimension,
                    (bits + 10, *([bits] * LEVELS)),
                    (declared.largest_special_bits,),
                    float(bits),
                )
            )
        except ParameterError as error:
            refused = str(error)
    raise ParameterError(f"no ring dimension of {list(declared.ring_dimensions)} works at 128 bits: {refused}")


def _manifest(backend: Backend, params: Resolved) -> KeyManifest:
    return KeyManifest({1: params.max_level}, conjugation=backend.capabilities.conjugation)


def _size(params: Resolved) -> str:
    asked = params.params
    return f"N = {asked.ring_dimension}, log2(QP) = {asked.log_qp}, {asked.security_bits}-bit security"


def _line(error: Exception) -> str:
    """An error as one line, with its kind where it is not hefw's own."""
    text = " ".join(str(error).split())
    return text if isinstance(error, HefwError) else f"{type(error).__name__}: {text}".rstrip(": ")
