"""Backends with one fault each, made of the simulator."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace

import numpy as np

from hefw.backends.simulator.backend import SimulatorBackend
from hefw.backends.simulator.evaluator import SimulatorEvaluator
from hefw.core.backend import Bootstrapping, Capabilities, Ciphertext, KeyManifest, load_ciphertext
from hefw.core.engine import LocalEngine
from hefw.core.errors import CapabilityError
from hefw.core.params import RING_DIMENSIONS, CkksParams, Resolved

PLAIN = SimulatorBackend.capabilities


class Sound(SimulatorBackend):
    """No fault: the base of the others."""

    kind = SimulatorEvaluator
    holder = "Holder"

    def keygen(self, params, manifest):
        import broken_keyholder

        return getattr(broken_keyholder, self.holder)(params, manifest)

    def load_key_holder(self, params, manifest, path):
        import broken_keyholder

        return getattr(broken_keyholder, self.holder).load(params, manifest, path)

    def evaluator(self, params):
        return self.kind(params, self.capabilities)


# -- results ---------------------------------------------------------------------------------------------------------


class TurnsTheOtherWay(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def _rotate(self, a, step):
            return super()._rotate(a, -step)


class TurnsHalves(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def _rotate(self, a, step):
            return np.roll(a.handle.reshape(2, -1), -step, axis=1).reshape(-1)


class KeepsTheScale(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def rescale(self, a, times=1):
            return replace(super().rescale(a, times), scale=a.scale)


class ChangesItsOperand(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def _negate(self, a):
            out = -a.handle
            a.handle[0] += 0.5
            return out


class Coarse(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def _rescale(self, a):
            return super()._rescale(a) + 1e-4


class Miscounts(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def add(self, a, b):
            out = super().add(a, b)
            self.counts["add"] -= 1
            return out

        def square(self, a, *, relinearise=True):
            return self.mul(self.negate(self.negate(a)), a, relinearise=relinearise)

        def rescale(self, a, times=1):
            out = super().rescale(a, times)
            self.counts["rescale"] += 1
            return out


# -- refusals --------------------------------------------------------------------------------------------------------


class TakesForeignKeys(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def load_keys(self, blobs):
            self.key_id = None
            super().load_keys(blobs)

        def load(self, data):
            return load_ciphertext(data, self.params, None, self._load)


class TakesNan(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def encode(self, values, level, scale, *, real=False):
            known = np.nan_to_num(values) if np.asarray(values).dtype.kind in "fc" else values
            return super().encode(known, level, scale, real=real)


class TakesOtherLevels(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def add(self, a, b):
            low = min(a.level, b.level)
            return super().add(self.drop_level(a, low), self.drop_level(b, low))


class TakesOtherScales(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def sub(self, a, b):
            return super().sub(a, replace(b, scale=a.scale))


class NeedsNoKeys(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def require_keys(self, names):
            pass


class TakesAnyBytes(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def _load(self, data, level, scale):
            return np.frombuffer(data[4:], dtype="<c16")


class TakesAnyKey(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def _load_key(self, name, data):
            pass


class LengthsTell(Sound):
    holder = "LengthsTell"

    class kind(SimulatorEvaluator):  # noqa: N801
        def _load(self, data, level, scale):
            return super()._load(data[: 4 + 16 * self.params.slots], level, scale)


class PublicSecret(Sound):
    holder = "PublicSecret"


class FixedKeyId(Sound):
    holder = "FixedKeyId"


class Noisy(Sound):
    holder = "Noisy"


class OneKeyForAll(Sound):
    """As a library with a global cache of keys: an evaluator uses those that were loaded last."""

    last = None

    class kind(SimulatorEvaluator):  # noqa: N801
        def load_keys(self, blobs):
            super().load_keys(blobs)
            OneKeyForAll.last = self.key_id

        def _rotate(self, a, step):
            turned = super()._rotate(a, step)
            return turned if OneKeyForAll.last == self.key_id else np.random.default_rng().normal(size=turned.shape)


# -- isolation -------------------------------------------------------------------------------------------------------


class Decrypts(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def decrypt(self, a):
            return a.handle


class KeepsTheHolder(Sound):
    def evaluator(self, params):
        from broken_keyholder import Holder

        made = super().evaluator(params)
        made._cache = {"x": [Holder(params, KeyManifest())]}
        return made


class ImportsTheHolder(Sound):
    def evaluator(self, params):
        from broken_server import CarelessEvaluator

        return CarelessEvaluator(params, self.capabilities)


# -- declarations ----------------------------------------------------------------------------------------------------


class ClaimsToEncrypt(Sound):
    capabilities = replace(PLAIN, simulated=False)


class ClaimsSeeds(Sound):
    capabilities = replace(PLAIN, seeded_bytes=True)


class DropsPlaintextsWrongly(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def _drop_plain_level(self, a, level):
            return a.handle + 0.1


class ClaimsHoisting(Sound):
    capabilities = replace(PLAIN, hoisted_rotations=True)


class ClaimsBootstrapping(Sound):
    capabilities = replace(PLAIN, bootstrap=True)


@dataclass
class Reread(Ciphertext):
    """Read at another scale, it has other values, as residues have; the simulator's handles are values."""

    read_at: float = 2.0**57

    def __post_init__(self):
        self.handle = self.handle * (self.read_at / self.scale)
        self.read_at = self.scale


class Bootstraps(Sound):
    capabilities = replace(PLAIN, bootstrap=True, packed_slots=True)

    class kind(SimulatorEvaluator):  # noqa: N801
        def __init__(self, params, capabilities):
            super().__init__(params, capabilities)
            self._profile = np.ones(params.slots)  # of all slots; these are fewer

        def _bootstrapping(self):
            return Bootstrapping(1, self.params.max_level - 1, 2.0**57, 4.0, 1e-6, (1,))

        def _bootstrap(self, a):
            return a.handle

        def bootstrap(self, a):
            return Reread(**vars(super().bootstrap(a)))

    def bootstrap_params(self, slots, levels, *, allow_insecure=False):
        chain = (60, *([59] * (levels + 1)))
        return CkksParams(2048, chain, (60,), 57.0, allow_insecure, packed_slots=slots, bootstrap=(1, 1))

    def bootstrapping(self, params):
        return self.evaluator(params)._bootstrapping()


class BootstrapsWrongly(Bootstraps):
    class kind(Bootstraps.kind):  # noqa: N801
        def _bootstrap(self, a):
            return a.handle + 0.1


class BootstrapsTooLow(Bootstraps):
    class kind(Bootstraps.kind):  # noqa: N801
        def bootstrap(self, a):
            return self.drop_level(super().bootstrap(a), 2)


class HidesConjugation(Sound):
    capabilities = replace(PLAIN, conjugation=False)


class ClaimsConjugation(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def _conjugate(self, a):
            return a.handle


class ClaimsAlternation(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def _mul_imaginary(self, a):
            return a.handle * 1j


class ClaimsRings(Sound):
    capabilities = Capabilities(ring_dimensions=(*RING_DIMENSIONS, 2**18), simulated=True)

    def resolve(self, params):
        self.check(params)
        return super().resolve(replace(params, ring_dimension=min(params.ring_dimension, 2**16)))


class RefusesSilently(Sound):
    capabilities = Capabilities(ring_dimensions=(2048, 4096), simulated=True)

    def check(self, params):
        pass


class OtherPrimes(Sound):
    turn = 0

    def resolve(self, params):
        found = super().resolve(params)
        OtherPrimes.turn += 2
        return Resolved(params, found.backend, tuple(p - OtherPrimes.turn for p in found.primes), found.special_primes)


class MixesThreads(Sound):
    """Operands wait in one place for all threads."""

    class kind(SimulatorEvaluator):  # noqa: N801
        def _rotate(self, a, step):
            self.waiting = a.handle
            time.sleep(0.005)
            return super()._rotate(replace(a, handle=self.waiting), step)


class ClaimsNoThreads(Sound):
    """Declares that threads are refused, and refuses none."""

    capabilities = replace(PLAIN, threads=False)


class _OneProcess(SimulatorEvaluator):
    """Of use in the process that made it only."""

    def __init__(self, params, capabilities):
        super().__init__(params, capabilities)
        self.home = os.getpid()

    def in_child(self):
        raise NotImplementedError

    def _rotate(self, a, step):
        if os.getpid() != self.home:
            self.in_child()
        return super()._rotate(a, step)


class RefusesForks(Sound):
    """No fault: declared, and refused by name."""

    capabilities = replace(PLAIN, fork=False)

    class kind(_OneProcess):  # noqa: N801
        def in_child(self):
            raise CapabilityError("backend 'simulator' cannot go on in a forked child; start a process of its own")


class ClaimsForks(Sound):
    class kind(_OneProcess):  # noqa: N801
        def in_child(self):
            raise CapabilityError("backend 'simulator' cannot go on in a forked child; start a process of its own")


class DiesOfForks(Sound):
    class kind(_OneProcess):  # noqa: N801
        def in_child(self):
            os.kill(os.getpid(), signal.SIGKILL)


class SilentAboutForks(Sound):
    capabilities = replace(PLAIN, fork=False)


class TurnsByAnyKey(Sound):
    """Takes a rotation key above the levels that it was made for."""

    class kind(SimulatorEvaluator):  # noqa: N801
        def require_keys(self, names, level=0):
            super().require_keys(names)


class Leaks(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        kept: list[object] = []  # noqa: RUF012

        def _rotate(self, a, step):
            self.kept.append(super()._rotate(a, step))
            return self.kept[-1]


class IgnoresShown(Sound):
    """Its engine leaves plaintext parts out."""

    class Engine(LocalEngine):
        def run(self, step, inputs, progress=None, shown=None):
            return super().run(step, inputs, progress)

    def engine(self, program, weights=None):
        return self.Engine(program, self, weights)


class ShowsBeforeTheResult(Sound):
    """Its engine adds plaintext for a result to the input of the first name instead."""

    class Engine(LocalEngine):
        def run(self, step, inputs, progress=None, shown=None):
            moved = {("latent" if name == "result" else name): part for name, part in (shown or {}).items()}
            return super().run(step, inputs, progress, moved)

    def engine(self, program, weights=None):
        return self.Engine(program, self, weights)


class WantsAllCiphertexts(Sound):
    """Its engine repeats the first ciphertext where some are left out."""

    class Engine(LocalEngine):
        def run(self, step, inputs, progress=None, shown=None):
            ports = self.runner.program.interface.inputs
            whole = {name: [*items, *items[:1] * ports[name].layout.ciphertexts] for name, items in inputs.items()}
            cut = {name: items[: ports[name].layout.ciphertexts] for name, items in whole.items()}
            return super().run(step, cut, progress, shown)

    def engine(self, program, weights=None):
        return self.Engine(program, self, weights)


class ClaimsFineReals(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def _encode_real(self, values, level, scale):
            return self._encode(values, level, scale)


class LosesImaginaryParts(Sound):
    class kind(SimulatorEvaluator):  # noqa: N801
        def _encode(self, values, level, scale):
            return super()._encode(np.real(values), level, scale)
