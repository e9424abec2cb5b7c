"""The key holder's side of the protocol `update-only`: it has latent and noise prediction, the server adds them up."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import EnvelopeError, ProtocolError
from hefw.protocol import wire
from hefw.protocol.client import VIEW_BYTES, Client
from hefw.protocol.packing import Packing
from hefw.protocol.parts import Mask, Part
from hefw.protocol.updates import Update

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Tensor:
    """What goes into an update, (entries,), and where it is encrypted (True)."""

    values: Array
    mask: Mask


class UpdateClient(Client):
    """One session: `open`, then `step` for every step of as many requests as wanted, then `close`."""

    _held: Mapping[str, Tensor]
    _order: NDArray[np.int64]

    def step(self, step: int, tensors: Mapping[str, Tensor], shares: Mapping[str, float], listed: bool) -> Array:
        """x_{t-1} (entries,), decrypted and merged with the entries that were computed in plaintext.

        Parameters
        ----------
        tensors : the program's inputs of this step by name; what they were before is kept on both sides.
        shares : by which factor each input, earlier ones included, enters this step's sum.
        listed : whether ciphertexts hold a list of the encrypted entries where that takes fewer of them, or always all
            entries in their places.
        """
        if step == 0:
            self._held, self._order = {}, np.zeros(0, dtype=np.int64)
        interface = self.interface
        previous = {name: p.previous for name, p in interface.inputs.items() if p.previous is not None}
        held = {name: self._held[was] for name, was in previous.items() if was in self._held}
        known = held | dict(tensors)
        hidden = np.any([known[name].mask for name, share in shares.items() if share], axis=0)
        inside = np.any([tensor.mask for tensor in tensors.values()], axis=0) | hidden
        order = self._listed(inside) if listed else np.arange(len(inside))
        listed = len(order) < len(inside)
        moved = not np.array_equal(order, self._order)
        started = time.perf_counter()
        again = {name: self._encrypted(name, t, order) for name, t in held.items() if moved and t.mask.any()}
        parts = {
            name: Part(t.mask, np.where(t.mask, 0.0, t.values), self._encrypted(name, t, order))
            for name, t in tensors.items()
        }
        paired = self._packing.paired
        update = Update(step, len(inside), paired, parts, again, order, listed)
        self.figures.seconds["encrypt"] += time.perf_counter() - started
        for item, form, entries, size in update.contents():
            self.ledger.add("server", step, item, form, entries, size)
        result = self._exchange(update, hidden)
        self._held, self._order = known, order
        return result

    @property
    def _packing(self) -> Packing:
        """Two entries lie in a slot where the library has complex numbers: the graph then has half as many."""
        layout = next(iter(self.interface.inputs.values())).layout
        return Packing(layout.width, self.backend.capabilities.complex_values)

    def _listed(self, inside: Mask) -> NDArray[np.int64]:
        """The list of entries for ciphertexts: those inside, and more where that takes no ciphertext more.

        All entries then stay in their places, or else those of the last list on it: what was sent before need not be
        sent again while they do.
        """
        count, least = self._packing.ciphertexts, int(inside.sum())
        if not least:
            return self._order
        both = inside.copy()
        both[self._order] = True
        for more in (np.ones_like(inside), both):
            if count(int(more.sum())) == count(least):
                return np.flatnonzero(more)
        return np.flatnonzero(inside)

    def _exchange(self, update: Update, hidden: Mask) -> Array:
        """Send an update, and put its result together: the entries `hidden` come in ciphertexts."""
        progress = self._step_progress(update.step, (0, 1))
        answer, self.figures.upload_per_step = self._round_trip(update.pack, "updated", progress)
        decrypting = time.perf_counter()
        ((name, port),) = self.interface.outputs.items()
        items = answer.fields.get("ciphertexts")
        told = wire.field(answer, "values", bytes)
        count = self._packing.ciphertexts(len(update.order)) if hidden.any() else 0
        if not isinstance(items, list) or len(items) != count or not all(isinstance(b, bytes) for b in items):
            raise EnvelopeError(f"the result of an update has {count} ciphertexts; others came")
        shown = len(hidden) - int(hidden.sum())
        values = np.frombuffer(told, "<f8") if len(told) == 8 * shown else None
        if values is None or not np.isfinite(values).all():
            raise EnvelopeError("the plaintext entries of an update's result are not those that were shown")
        result = np.zeros(len(hidden))
        if items:
            slots = np.stack([self._decrypt_one(item, name, port) for item in items])
            result[update.order] = self._packing.unpack(slots, len(update.order)) * port.factors[update.step]
        result[~hidden] = values * port.factors[update.step]
        size = sum(map(len, items)) + values.nbytes
        self.figures.download_per_step = size
        self.ledger.add("key holder", update.step, name, "plaintext", len(result), size)
        self.figures.seconds["decrypt"] += time.perf_counter() - decrypting
        return result

    def _encrypted(self, name: str, tensor: Tensor, order: NDArray[np.int64]) -> tuple[bytes, ...]:
        """The ciphertexts of a tensor's encrypted entries, in an order; none if there are none."""
        if not tensor.mask.any():
            return ()
        assert self._keys is not None
        port = self.interface.inputs[name]
        packed = self._packing.pack(np.where(tensor.mask, tensor.values, 0.0)[order])
        made = [self._keys.encrypt_bytes(slots, port.level, port.scale) for slots in packed]
        if name == next(iter(self.interface.inputs)):
            self.view.append(made[0][:VIEW_BYTES])
        return tuple(made)


def check_result(found: Array, own: Array, forecast_db: float) -> float:
    """How far a server's result is from the key holder's own arithmetic; ProtocolError if it is something else."""
    error = float(np.abs(found - own).max())
    allowed = max(1e-3, 20 * 10 ** (-forecast_db / 20)) * max(1.0, float(np.abs(own).max()))
    if not error <= allowed:
        raise ProtocolError(
            f"the server's result is off by {error:.3g}, more than {allowed:.3g}: it computed something else, or "
            "values left the range that the parameters were made for"
        )
    return error
