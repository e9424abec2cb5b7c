"""What a server could see in the bytes that it was sent: a parser of its own, which knows hefw's format by its bytes.

It shares no code with hefw. A field that it does not know is a failure: nothing may be sent that nobody accounts for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

KEY_HOLDERS = {0: "open", 2: "prepare", 3: "key", 4: "begin", 5: "step", 7: "close", 11: "update"}
FRAME = struct.Struct(">4sHHQI")  # magic, version, kind, length, checksum
ENVELOPE = struct.Struct(">4sHHI16s16s16sidQ32s")  # magic, version, kind, item, backend, parameters, key, level, ...
PUBLIC = {
    "open": "graph_digest backend precision_db ring_dimension params allow_insecure every bootstrap images pairs",
    "prepare": "again",
    "close": "",
}


@dataclass(frozen=True)
class Seen:
    """One thing in a message. `values` are what the server reads: numbers, a mask (True is hidden), or indices."""

    item: str
    step: int | None
    form: str
    entries: int
    size: int
    values: Any = None

    @property
    def counted(self) -> tuple[str, int | None, str, int, int]:
        return self.item, self.step, self.form, self.entries, self.size


class Reader:
    """Reads frames in their order. `features` are the entries of each input of the program, for one image."""

    def __init__(self, features: dict[str, int]) -> None:
        self.features = features
        self.images = 0
        self.key_ids: set[bytes] = set()
        #: The bytes of all frames without what is inside envelopes: what can be read without a key.
        self.clear = b""

    def read(self, frame: bytes) -> list[Seen]:
        """What is in one frame."""
        magic, version, number, length, _ = FRAME.unpack_from(frame)
        assert (magic, version, length) == (b"HEFM", 4, len(frame) - FRAME.size)
        fields, kind = msgpack.unpackb(frame[FRAME.size :]), KEY_HOLDERS[number]
        self.clear += frame[: FRAME.size]
        found = getattr(self, f"_{kind}")(fields) if kind not in PUBLIC else self._public(fields, PUBLIC[kind].split())
        assert not fields, f"a {kind!r} message has {', '.join(fields)}, which nobody accounts for"
        return found

    def _public(self, fields: dict, known: list[str]) -> list[Seen]:
        self.images = fields.get("images", self.images)
        for name in known:
            self.clear += msgpack.packb(fields.pop(name))
        return []

    def _key(self, fields: dict) -> list[Seen]:
        name, size = fields.pop("name"), self._envelope(fields.pop("blob"), kinds=(1, 2, 3, 5))
        return [Seen(f"evaluation key {name}", None, "public", 0, size)]

    def _begin(self, fields: dict) -> list[Seen]:
        return [
            Seen(name, None, "ciphertext", self.images * self.features[name], self._ciphertexts(items))
            for name, items in fields.pop("inputs").items()
        ]

    def _step(self, fields: dict) -> list[Seen]:
        step, images = fields.pop("step"), fields.pop("images")
        assert images == self.images, "a server was told how many images come"
        found, hidden = [], {}
        for name, part in fields.pop("shown").items():
            assert part["entries"] == images * self.features[name]
            assert part["ciphertexts"] == []
            seen, hidden[name] = self._part(name, step, part)
            found += seen
        for name, items in fields.pop("inputs").items():
            entries = hidden.get(name, images * self.features[name])
            found.append(Seen(name, step, "ciphertext", entries, self._ciphertexts(items)))
        return found

    def _update(self, fields: dict) -> list[Seen]:
        step, entries = fields.pop("step"), fields.pop("entries")
        assert type(fields.pop("paired")) is bool
        listed, order = fields.pop("listed"), np.frombuffer(fields.pop("order"), "<i4")
        self.clear += order.tobytes()
        found = []
        for name, part in fields.pop("parts").items():
            assert part["entries"] == entries
            seen, hidden = self._part(name, step, part)
            found += seen
            assert bool(part["ciphertexts"]) == bool(hidden), "ciphertexts where something is hidden, and there only"
            if hidden:
                found.append(Seen(name, step, "ciphertext", hidden, self._ciphertexts(part["ciphertexts"])))
        for name, items in fields.pop("again").items():
            found.append(Seen(f"{name}, again", step, "ciphertext", 0, self._ciphertexts(items)))
        if listed and len(order):
            found.append(Seen("indices of encrypted entries", step, "derived", len(order), 4 * len(order), order))
        assert listed or not len(order)
        return found

    def _part(self, name: str, step: int, part: dict) -> tuple[list[Seen], int]:
        """Plaintext, the selection, and the unit of a tensor; nothing if all is hidden. And how much is hidden."""
        assert set(part) == {"entries", "mask", "values", "unit", "ciphertexts"}
        mask, values, unit = part["mask"], part["values"], part["unit"]
        self.clear += mask + values + struct.pack(">d", unit)
        if not mask:
            assert not values
            return [], part["entries"]
        hidden = np.unpackbits(np.frombuffer(mask, np.uint8))
        assert not hidden[part["entries"] :].any(), "bits that belong to no entry"
        hidden = hidden[: part["entries"]].astype(bool)
        numbers = np.frombuffer(values, "<i1").astype(float) * unit if unit else np.frombuffer(values, "<f4")
        assert len(numbers) == np.count_nonzero(~hidden), "a number for each entry that is not hidden, and no other"
        found = [
            Seen(name, step, "plaintext", len(numbers), len(values), numbers),
            Seen(f"selection of {name}", step, "derived", len(hidden), len(mask), hidden),
        ]
        if unit:
            found.append(Seen(f"unit of {name}", step, "derived", 1, 8, unit))
        return found, int(hidden.sum())

    def _ciphertexts(self, items: list[bytes]) -> int:
        return sum(self._envelope(item, kinds=(0,)) for item in items)

    def _envelope(self, blob: bytes, kinds: tuple[int, ...]) -> int:
        magic, version, kind, _, _, _, key_id, level, scale, length, _ = ENVELOPE.unpack_from(blob)
        assert (magic, version) == (b"HEFW", 1)
        assert kind in kinds, f"an envelope of kind {kind}, where {kinds} are expected"
        assert length == len(blob) - ENVELOPE.size
        assert 0 <= level < 64
        assert scale > 0
        self.key_ids.add(key_id)
        self.clear += blob[: ENVELOPE.size]
        return len(blob)


def occurring(canaries: Iterable[bytes], data: bytes) -> set[bytes]:
    """Which of some strings of at least 8 bytes have their first 8 bytes anywhere in the data."""
    known = {np.frombuffer(canary, "<u8", 1)[0]: canary for canary in canaries}
    wanted = np.array(list(known), np.uint64)
    found = set()
    for offset in range(8):
        words = np.frombuffer(data, "<u8", offset=offset, count=(len(data) - offset) // 8)
        found |= {known[word] for word in np.unique(words[np.isin(words, wanted)])}
    return found
