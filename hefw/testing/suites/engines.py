"""`Backend.engine`, what a server runs: bytes in, bytes out, wherever the library lives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hefw.core.backend import Backend, KeyHolder
from hefw.core.engine import Engine
from hefw.core.errors import EnvelopeError, HefwError, KeyMismatchError, ProtocolError
from hefw.core.lower import Request, lower
from hefw.core.params import CkksParams
from hefw.core.program import Program
from hefw.core.progress import Progress
from hefw.core.runner import Weights
from hefw.testing.graphs import samples, small_unet, small_update
from hefw.testing.parties import Precision
from hefw.testing.session import plain, psnr

IMAGES, STEPS = 5, 2
Array = NDArray[np.float64]


def send(holder: KeyHolder, program: Program, values: Mapping[str, Array], once: bool) -> dict[str, list[bytes]]:
    """The inputs of a request, or those of a step."""
    return {
        name: [holder.encrypt_bytes(row, port.level, port.scale) for row in port.layout.pack(values[name])]
        for name, port in program.interface.inputs.items()
        if port.once == once
    }


class Engines:
    """Whole programs, from keys to figures."""

    precision: Precision

    def test_an_engine_runs_a_program_from_bytes_to_bytes(self, backend: Backend, program_params: CkksParams) -> None:
        graph, values = small_unet(STEPS), samples(IMAGES, seed=2)
        program = lower(graph, backend, Request(params=program_params))
        interface = program.interface
        holder = backend.keygen(interface.params, interface.keys)
        engine, told = backend.engine(program), list[Progress]()
        engine.prepare(told.append)
        for name, blob in holder.evaluation_keys():
            engine.load_keys({name: blob})
        engine.begin(send(holder, program, values, once=True), told.append)
        current = dict(values)
        for step, expected in enumerate(plain(graph, values)):
            outputs = engine.run(step, send(holder, program, current, once=False), told.append)
            assert list(outputs) == list(interface.outputs)
            for name, port in interface.outputs.items():
                slots = np.stack([holder.decrypt_bytes(item).real for item in outputs[name]])
                found = port.layout.unpack(slots, IMAGES) * port.factors[step]
                quality = psnr(found, expected[name])
                assert quality >= self.precision.program_db, f"PSNR of {quality:.1f} dB"
                if port.feedback is not None:
                    current[port.feedback] = found
        self._figures(engine, program, backend)
        assert list(dict.fromkeys(p.stage for p in told)) == ["encode", "label", "evaluate"]
        assert all(0 <= p.done <= p.total for p in told)
        assert [p.detail for p in told if p.stage == "evaluate"] == STEPS * program.regions
        engine.close()

    def _figures(self, engine: Engine, program: Program, backend: Backend) -> None:
        figures = engine.figures()
        counts = Counter(encode=program.weight_count) + program.prelude_counts()
        for step in range(STEPS):
            counts += program.counts(step)
        assert figures.counts == counts
        assert figures.encoded_weights == program.weight_bytes
        assert figures.encode_seconds > 0
        assert figures.peak_rss_bytes > 2**20
        assert [(t.step, t.operation) for t in figures.trace] == [(s, r) for s in range(STEPS) for r in program.regions]
        assert all(t.seconds >= 0 for t in figures.trace)
        assert figures.provenance.library == backend.provenance().library

    def test_engines_share_weights_and_nothing_else(self, backend: Backend, program_params: CkksParams) -> None:
        """Two key holders run the same program by turns; the weights are encoded once."""
        program, values = lower(small_unet(1), backend, Request(params=program_params)), samples(IMAGES)
        interface, weights = program.interface, Weights(program)
        holders = [backend.keygen(interface.params, interface.keys) for _ in range(2)]
        engines = [backend.engine(program, weights) for _ in range(2)]
        for holder, engine in zip(holders, engines, strict=True):
            for name, blob in holder.evaluation_keys():
                engine.load_keys({name: blob})
            engine.prepare()
        assert [engine.figures().counts["encode"] for engine in engines] == [program.weight_count, 0]
        for holder, engine in zip(holders, engines, strict=True):
            engine.begin(send(holder, program, values, once=True))
        (expected,) = plain(small_unet(1), values)
        for holder, engine in zip(holders, engines, strict=True):
            (item,) = engine.run(0, send(holder, program, values, once=False))["latent"]
            port = interface.outputs["latent"]
            found = port.layout.unpack(holder.decrypt_bytes(item).real[None], IMAGES) * port.factors[0]
            assert psnr(found, expected["latent"]) >= self.precision.program_db
        with pytest.raises((EnvelopeError, KeyMismatchError), match="another key"):
            engines[0].run(0, send(holders[1], program, values, once=False))

    def test_what_is_shown_is_added_to_an_input(self, backend: Backend, program_params: CkksParams) -> None:
        """A latent in two parts, plaintext beside its ciphertext, is the whole latent; all in plaintext is one, too."""
        program, values = lower(small_unet(1), backend, Request(params=program_params)), samples(IMAGES, seed=3)
        holder, engine = backend.keygen(program.params, program.interface.keys), backend.engine(program)
        for name, blob in holder.evaluation_keys():
            engine.load_keys({name: blob})
        engine.begin(send(holder, program, values, once=True))
        (expected,), port = plain(small_unet(1), values), program.interface.outputs["latent"]
        for shown in (values["latent"] * (np.arange(16) % 3 == 0), values["latent"]):
            hidden = {**values, "latent": values["latent"] - shown}
            (item,) = engine.run(0, send(holder, program, hidden, once=False), shown={"latent": shown})["latent"]
            found = port.layout.unpack(holder.decrypt_bytes(item).real[None], IMAGES) * port.factors[0]
            quality = psnr(found, expected["latent"])
            assert quality >= self.precision.program_db, f"PSNR of {quality:.1f} dB"
        often = send(holder, program, values, once=False)
        with pytest.raises(ProtocolError, match="plaintext for nothing, which this program does not have"):
            engine.run(0, often, shown={"nothing": values["latent"]})
        engine.run(0, often)

    def test_updates_take_as_many_ciphertexts_as_there_are(self, backend: Backend) -> None:
        """Where all operations act on each slot alone: one of two ciphertexts, or both, and plaintext for the result.

        Where a library has complex numbers, two real ones lie in a slot.
        """
        entries = max(backend.capabilities.ring_dimensions)  # more than any ciphertext has slots
        program = lower(small_update(entries), backend)
        interface, slots, rng = program.interface, program.params.slots, np.random.default_rng(4)
        holder, engine = backend.keygen(interface.params, interface.keys), backend.engine(program)

        def draw(size: int) -> NDArray[Any]:
            values = rng.uniform(-1, 1, size) + 1j * rng.uniform(-1, 1, size)
            return values if backend.capabilities.complex_values else values.real

        shown = draw(entries)[None]
        for count in (1, 2):
            given = {name: draw(count * slots) for name in interface.inputs}
            inputs = {
                name: [holder.encrypt_bytes(row, port.level, port.scale) for row in given[name].reshape(count, slots)]
                for name, port in interface.inputs.items()
            }
            expected = 0.98 * given["latent"] + 0.2 * given["prediction"]
            for more in (None, {"result": shown}):
                items = engine.run(1, inputs, shown=more)["result"]
                assert len(items) == count
                found = np.concatenate([holder.decrypt_bytes(item) for item in items])
                error = float(np.abs(found - expected - (0 if more is None else shown[0, : len(found)])).max())
                assert error < self.precision.worst, f"the result is wrong by {error:.2g}"
        with pytest.raises(ProtocolError, match="must have one number of ciphertexts"):
            engine.run(1, {**inputs, "latent": inputs["latent"][:1]})

    def test_an_engine_refuses_what_is_out_of_order(self, backend: Backend, program_params: CkksParams) -> None:
        program, values = lower(small_unet(1), backend, Request(params=program_params)), samples(IMAGES)
        interface = program.interface
        holder, engine = backend.keygen(interface.params, interface.keys), backend.engine(program)
        blobs = dict(holder.evaluation_keys())
        engine.load_keys({"relinearisation": blobs["relinearisation"]})
        with pytest.raises(KeyMismatchError, match="missing evaluation keys: rotation/"):
            engine.begin(send(holder, program, values, once=True))
        engine.load_keys(blobs)
        often = send(holder, program, values, once=False)
        with pytest.raises(ProtocolError, match="call begin first"):
            engine.run(0, often)
        with pytest.raises(ProtocolError, match="is missing"):
            engine.begin({})
        engine.begin(send(holder, program, values, once=True))
        with pytest.raises(ProtocolError, match="step 1 does not exist"):
            engine.run(1, often)
        for bad in (b"", often["latent"][0][:-1], blobs["relinearisation"]):
            with pytest.raises(HefwError):
                engine.run(0, {"latent": [bad]})
        assert engine.run(0, often).keys() == {"latent"}  # and is none the worse for it
