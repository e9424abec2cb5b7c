"""The doctor finds what is broken, names it, and goes on with what does not depend on it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hefw import plugins
from hefw.backends.simulator.backend import SimulatorBackend
from hefw.backends.simulator.evaluator import SimulatorEvaluator
from hefw.core.backend import Bootstrapping, Evaluator, KeyHolder, KeyManifest
from hefw.core.errors import CapabilityError, ParameterError, PluginError
from hefw.core.params import CkksParams, Resolved
from hefw.doctor import Check, Diagnosis, diagnose
from hefw.hookspecs import Entry

EVERY_CHECK = [
    "load the library",
    "choose parameters",
    "make keys",
    "send keys",
    "encode",
    "encrypt",
    "decrypt",
    "add",
    "subtract",
    "add plaintext",
    "multiply by plaintext",
    "multiply, relinearise",
    "rescale",
    "drop level",
    "rotate by 1",
    "conjugate",
    "serialise",
    "bootstrap",
]


class Patient(SimulatorBackend):
    """The simulator, with some of its evaluator's methods replaced."""

    def __init__(self, options: object | None = None, **methods: Callable[..., Any]) -> None:
        super().__init__(options)
        self.methods = methods

    def evaluator(self, params: Resolved) -> Evaluator:
        kind = type("SickEvaluator", (SimulatorEvaluator,), self.methods)
        made: Evaluator = kind(params, self.capabilities)
        return made


@pytest.fixture
def examine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Diagnosis]:
    """Diagnose a backend that is made by a function, registered as a stranger's."""

    def examining(make: Callable[[Any], Any], **options: Any) -> Diagnosis:
        module = ModuleType("patients")
        module.make = make  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "patients", module)
        registry = plugins.Registry()
        registry.add("backend", Entry("patient", "patients:make", "under examination"), "test")
        monkeypatch.setattr(plugins, "registry", lambda: registry)
        return diagnose("patient", **options)

    return examining


def outcomes(diagnosis: Diagnosis) -> dict[str, str]:
    return {check.name: check.outcome for check in diagnosis.checks}


def raising(error: BaseException) -> Callable[..., Any]:
    def method(*_: object, **__: object) -> Any:
        raise error

    return method


@pytest.mark.parametrize("name", ["simulator", "tenseal"])
def test_a_healthy_backend(name: str) -> None:
    shown: list[Check] = []
    diagnosis = diagnose(name, show=shown.append)
    assert shown == diagnosis.checks
    assert [check.name for check in shown] == EVERY_CHECK
    assert set(outcomes(diagnosis).values()) == {"ok", "not offered"}
    assert [check.name for check in shown if check.outcome == "not offered"] == ["bootstrap"]
    assert all(check.seconds is not None for check in shown[:-1])
    errors = [check.error for check in shown[5:-1]]
    assert all(error is not None and 0 < error < 1e-6 for error in errors)
    assert diagnosis.failed == []
    assert diagnosis.simulated == (name == "simulator")
    assert diagnosis.params is not None
    assert diagnosis.params.security_bits == 128
    assert diagnosis.provenance is not None
    assert diagnosis.to_json()["ok"] is True


def test_a_wrong_result(examine: Callable[..., Diagnosis]) -> None:
    diagnosis = examine(lambda options: Patient(_rotate=lambda self, a, step: np.roll(a.handle, step)))
    assert [check.name for check in diagnosis.failed] == ["rotate by 1"]
    (check,) = diagnosis.failed
    assert check.error is not None
    assert check.error > 0.1
    assert check.detail.startswith("largest error ")
    assert check.detail.endswith(", at most 0.001 is right")
    assert list(outcomes(diagnosis)) == EVERY_CHECK


def test_a_result_that_is_no_number(examine: Callable[..., Diagnosis]) -> None:
    diagnosis = examine(lambda options: Patient(_add=lambda self, a, b: a.handle * np.nan))
    assert [check.name for check in diagnosis.failed] == ["add"]
    assert outcomes(diagnosis)["subtract"] == "not tried"


def test_what_needs_a_failed_check_is_not_tried(examine: Callable[..., Diagnosis]) -> None:
    diagnosis = examine(lambda options: Patient(_mul=raising(RuntimeError("no\nrelinearisation"))))
    found = {check.name: (check.outcome, check.detail) for check in diagnosis.checks}
    assert found["multiply, relinearise"] == ("FAILED", "RuntimeError: no relinearisation")
    assert found["rescale"] == ("not tried", "needs 'multiply, relinearise'")
    assert found["serialise"][0] == "ok"
    assert [check.name for check in diagnosis.failed] == ["multiply, relinearise"]
    assert diagnosis.to_json()["ok"] is False


def test_no_encoding_and_no_encryption(examine: Callable[..., Diagnosis]) -> None:
    diagnosis = examine(lambda options: Patient(_encode=raising(MemoryError()), _load=raising(ValueError("bad bytes"))))
    assert [check.name for check in diagnosis.failed] == ["encode", "encrypt"]
    found = {check.name: check.detail for check in diagnosis.checks}
    assert found["encode"] == "MemoryError"
    assert found["add plaintext"] == "needs 'encrypt' and 'encode'"


def test_a_library_that_cannot_be_loaded(examine: Callable[..., Diagnosis]) -> None:
    diagnosis = examine(raising(OSError("libseal.so.4: cannot open shared object file")))
    assert outcomes(diagnosis) == {"load the library": "FAILED"}
    assert "libseal.so.4" in diagnosis.checks[0].detail


def test_keys_that_cannot_be_made(examine: Callable[..., Diagnosis]) -> None:
    class Keyless(Patient):
        def keygen(self, params: Resolved, manifest: KeyManifest) -> KeyHolder:
            raise RuntimeError("no randomness")

    diagnosis = examine(lambda options: Keyless())
    assert list(outcomes(diagnosis).items())[2:] == [("make keys", "FAILED"), ("bootstrap", "not offered")]


def test_parameters_that_the_library_refuses(examine: Callable[..., Diagnosis]) -> None:
    class Choosy(Patient):
        smallest = 32768

        def resolve(self, params: CkksParams) -> Resolved:
            if params.ring_dimension < self.smallest:
                raise ParameterError(f"no ring dimension below {self.smallest}")
            return super().resolve(params)

    diagnosis = examine(lambda options: Choosy())
    assert diagnosis.failed == []
    assert diagnosis.params is not None
    assert diagnosis.params.ring_dimension == 32768
    Choosy.smallest = 2**20
    (check,) = examine(lambda options: Choosy()).failed
    assert check.name == "choose parameters"
    assert "works at 128 bits: no ring dimension below 1048576" in check.detail


def test_what_is_not_declared_is_not_tried(examine: Callable[..., Diagnosis]) -> None:
    class Plain(Patient):
        capabilities = replace(SimulatorBackend.capabilities, conjugation=False, complex_values=False)

    diagnosis = examine(lambda options: Plain())
    assert diagnosis.failed == []
    assert outcomes(diagnosis)["conjugate"] == "not offered"


class Bootstrapper(Patient):
    """Says that it bootstraps, and gives values back with an error of `off`."""

    capabilities = replace(SimulatorBackend.capabilities, bootstrap=True, packed_slots=True)
    off = 0.0

    def __init__(self, options: object | None = None) -> None:
        promised = Bootstrapping(0, 1, 2.0**40, 1.0, 1e-3, (1, 2))
        super().__init__(
            options,
            _bootstrapping=lambda self: promised,
            _bootstrap=lambda self, a: np.asarray(a.handle) + Bootstrapper.off,
        )
        self.promised = promised

    def bootstrap_params(self, slots: int, levels: int, *, allow_insecure: bool = False) -> CkksParams:
        return CkksParams(16384, (50, 40, 40), (60,), 40.0, packed_slots=slots, bootstrap=(3, 3))

    def bootstrapping(self, params: Resolved) -> Bootstrapping:
        return self.promised


def test_bootstrapping_only_if_it_is_asked_for(
    examine: Callable[..., Diagnosis], monkeypatch: pytest.MonkeyPatch
) -> None:
    last = examine(lambda options: Bootstrapper()).checks[-1]
    assert (last.name, last.outcome) == ("bootstrap", "not tried")
    assert last.detail == "the library has it; run: hefw backends doctor patient --bootstrap"

    diagnosis = examine(lambda options: Bootstrapper(), bootstrap=True)
    assert diagnosis.failed == []
    assert [check.name for check in diagnosis.checks[-4:]] == [
        "choose bootstrapping",
        "make bootstrapping keys",
        "send bootstrapping keys",
        "bootstrap",
    ]
    assert diagnosis.checks[-1].error is not None

    monkeypatch.setattr(Bootstrapper, "off", 0.05)
    (check,) = examine(lambda options: Bootstrapper(), bootstrap=True).failed
    assert (check.name, check.detail) == ("bootstrap", "largest error 5.0e-02, at most 0.032 is right")

    monkeypatch.setattr(Bootstrapper, "bootstrap_params", raising(ParameterError("nothing at 128 bits")))
    (check,) = examine(lambda options: Bootstrapper(), bootstrap=True).failed
    assert (check.name, check.detail) == ("choose bootstrapping", "nothing at 128 bits")


def test_bootstrapping_that_is_not_declared_is_refused() -> None:
    with pytest.raises(CapabilityError, match="backend 'simulator' cannot bootstrap; those that can: openfhe"):
        diagnose("simulator", bootstrap=True)


def test_unknown_backends() -> None:
    with pytest.raises(PluginError, match="unknown backend 'tensela'; did you mean 'tenseal'"):
        diagnose("tensela")


def test_an_interrupt_is_not_a_finding(examine: Callable[..., Diagnosis]) -> None:
    with pytest.raises(KeyboardInterrupt):
        examine(lambda options: Patient(_add=raising(KeyboardInterrupt())))
