"""The server's side of the protocol `update-only`: a scheduler's update on what is encrypted and what is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hefw.core.combination import shares
from hefw.core.engine import Engine
from hefw.core.errors import EnvelopeError, ProtocolError
from hefw.core.graph import Graph
from hefw.core.ledger import Form
from hefw.core.program import Interface
from hefw.core.progress import ProgressCallback
from hefw.protocol import wire
from hefw.protocol.packing import Packing
from hefw.protocol.parts import Mask, Part
from hefw.protocol.wire import Message

Array = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Update:
    """An 'update' message.

    `order` are the entries that ciphertexts hold, first to last: a list (`listed`), or all of them in their places;
    with `paired` two of them lie in a slot. `again` are tensors that came before, in the order of now.
    """

    step: int
    entries: int
    paired: bool
    parts: Mapping[str, Part]
    again: Mapping[str, tuple[bytes, ...]]
    order: Places
    listed: bool

    def pack(self) -> bytes:
        """The message's frame."""
        return wire.encode(
            "update",
            step=self.step,
            entries=self.entries,
            paired=self.paired,
            parts={name: part.pack() for name, part in self.parts.items()},
            again={name: list(items) for name, items in self.again.items()},
            listed=self.listed,
            order=self.order.astype("<i4").tobytes() if self.listed else b"",
        )

    @staticmethod
    def unpack(message: Message, interface: Interface) -> Update:
        """Read and check one; EnvelopeError or ProtocolError if it is not one of this program."""
        entries, paired = wire.field(message, "entries", int), wire.field(message, "paired", bool)
        port = next(iter(interface.inputs.values()))
        if entries < 1 or Packing(1, paired).positions(entries) != port.layout.features:
            raise ProtocolError(f"{entries} entries came, for a program of {port.layout.features} slots")
        parts = wire.field(message, "parts", dict)
        again = wire.blobs(message, "again")
        for name in (*parts, *again):
            if name not in interface.inputs:
                raise ProtocolError(f"input {str(name)[:40]!r} is not one of this program")
        listed, sent = wire.field(message, "listed", bool), wire.field(message, "order", bytes)
        order = np.frombuffer(sent, "<i4").astype(np.int64) if listed and not len(sent) % 4 else np.arange(entries)
        if len(sent) % 4 or (sent and not listed) or ((order < 0) | (order >= entries)).any():
            raise EnvelopeError("the indices of encrypted entries are none")
        if (np.diff(order) <= 0).any():
            raise EnvelopeError("the indices of encrypted entries must ascend")
        found = {name: Part.unpack(data, entries) for name, data in parts.items()}
        count = Packing(port.layout.width, paired).ciphertexts(len(order))
        for name, part in found.items():
            _check_count(name, part.ciphertexts, count if part.mask.any() else 0)
        for name, items in again.items():
            _check_count(name, items, count)
        return Update(
            wire.field(message, "step", int),
            entries,
            paired,
            found,
            {name: tuple(items) for name, items in again.items()},
            order,
            listed,
        )

    def contents(self) -> Iterator[tuple[str, Form, int, int]]:
        """What a server that is sent this sees: (item, form, entries, bytes)."""
        for name, part in self.parts.items():
            yield from part.contents(name)
        for name, items in self.again.items():
            yield f"{name}, again", "ciphertext", 0, sum(map(len, items))  # no number that was not sent before
        if self.listed and len(self.order):
            yield "indices of encrypted entries", "derived", len(self.order), 4 * len(self.order)


def _check_count(name: str, items: Sequence[bytes], count: int) -> None:
    if len(items) != count:
        raise EnvelopeError(f"input {name!r} has {len(items)} ciphertexts; {count} are expected")


class Updates:
    """One request's updates, step after step; keeps what later steps of a multistep scheduler need.

    An entry's share that is in plaintext is computed in plaintext; where a ciphertext holds another share of the same
    entry, it is added to that.
    """

    def __init__(self, graph: Graph, interface: Interface) -> None:
        self.interface = interface
        self.shares = shares(graph)
        (self.result,) = interface.outputs
        self._next = 0
        self._held: dict[str, Part] = {}
        self._order: Places = np.zeros(0, dtype=np.int64)

    def run(self, update: Update, engine: Engine, progress: ProgressCallback) -> tuple[list[bytes], Array]:
        """The ciphertexts of one step's result, and its entries that no ciphertext holds, in ascending order."""
        if update.step == 0:  # a new request
            self._next, self._held = 0, {}
        if update.step != self._next or update.step >= self.interface.steps:
            raise ProtocolError(
                f"step {update.step} is out of order; step {self._next} of {self.interface.steps} is next"
            )
        parts = self._history(update) | dict(update.parts)
        factors = {name: float(share[update.step]) for name, share in self.shares.items() if share[update.step]}
        missing = [name for name in factors if name not in parts]
        if missing:
            raise ProtocolError(f"step {update.step} takes {', '.join(missing)}, which did not come")
        used = {name: parts[name] for name in factors}
        plain = np.sum([factors[name] * part.values for name, part in used.items()], axis=0)
        hidden: Mask = np.any([part.mask for part in used.values()], axis=0)
        ciphertexts: list[bytes] = []
        if hidden.any():
            if not np.isin(np.flatnonzero(hidden), update.order).all():
                raise ProtocolError("an encrypted entry is in no ciphertext")
            inputs = {name: part.ciphertexts for name, part in used.items() if part.mask.any()}
            layout = self.interface.outputs[self.result].layout
            packed = Packing(layout.width, update.paired).pack(np.where(hidden, plain, 0.0)[update.order])
            added = np.zeros((1, layout.features), packed.dtype)
            count = min(packed.size, layout.features)
            added[0, :count] = packed.ravel()[:count]
            ciphertexts = engine.run(update.step, inputs, progress, {self.result: added})[self.result]
        self._held, self._order, self._next = parts, update.order, update.step + 1
        return ciphertexts, plain[~hidden]

    def _history(self, update: Update) -> dict[str, Part]:
        """What was sent at the steps before, under the names that it has now."""
        moved = {
            name: self._held[port.previous]
            for name, port in self.interface.inputs.items()
            if port.previous is not None and port.previous in self._held
        }
        unknown = ", ".join(update.again.keys() - moved.keys())
        if unknown:
            raise ProtocolError(f"{unknown} came again at step {update.step}, but never before")
        if not np.array_equal(update.order, self._order):  # ciphertexts in another order are of no use
            moved = {name: replace(part, ciphertexts=update.again.get(name, ())) for name, part in moved.items()}
        elif update.again:
            raise ProtocolError("tensors came again in an order that they are in already")
        return moved
