"""Operations by `switching` on what a library holds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from hefw.backends.rns import loops
from hefw.backends.rns.abi import KEY_WORDS
from hefw.backends.rns.memory import Memory
from hefw.backends.rns.switching import Fill, Key, Switching, Words
from hefw.backends.rns.tape import Rows, Shape, Tape
from hefw.backends.rns.transforms import Written
from hefw.core.backend import Ciphertext, Plaintext
from hefw.core.params import Resolved


class Native:
    """Compiled ways of one evaluator, with the keys that it was given. Results are the library's ciphertexts."""

    def __init__(self, params: Resolved, memory: Memory, switching: Switching) -> None:
        self.params = params
        self.memory = memory
        self.switching = switching
        self._keys: dict[str, Key] = {}
        self._used: WeakKeyDictionary[Tape, Words] = WeakKeyDictionary()

    def keep(self, name: str, key: Key) -> None:
        """Use a key, from now on."""
        self._used.clear()
        self._keys[name] = key

    def has(self, name: str) -> bool:
        """Whether a key is kept."""
        return name in self._keys

    def shape(self, level: int) -> Shape:
        """Of tapes at a level."""
        return self.switching.shape(level)

    def rotate_many(self, a: Ciphertext, names: Sequence[str]) -> list[Any]:
        """A ciphertext turned by each of several keys."""
        outs = [self._blank(a) for _ in names]
        keys, rows = [self._keys[name] for name in names], [self.memory.rows(out) for out in outs]
        self.switching.rotations(self.memory.rows(a.handle), keys, rows)
        return outs

    def fold(self, a: Ciphertext, names: Sequence[Sequence[str]], *, given_up: bool = False) -> Any:
        """A ciphertext plus itself turned by each of several keys, and that again by each of others, and so on: a copy,
        unless it is given up."""
        out = a.handle if given_up else self._blank(a)
        rows = self.memory.rows(out)
        if not given_up:
            loops.copy(self.memory.rows(a.handle), rows, self.params.params.ring_dimension)
        self.switching.fold([[self._keys[name] for name in some] for some in names], rows)
        return out

    def relinearise(self, a: Ciphertext) -> Any:
        """Two parts of three."""
        out = self._blank(a)
        key = self._keys["relinearisation"]
        self.switching.relinearise(self.memory.rows(a.handle), key, self.memory.rows(out))
        return out

    def square(self, a: Ciphertext) -> Any:
        """Three parts of two."""
        out = self.memory.blank(a.level, 3)
        self.switching.square(self.memory.rows(a.handle), self.memory.rows(out))
        return out

    def squared(self, a: Ciphertext) -> Any:
        """Two parts of two: relinearised."""
        out = self._blank(a)
        key = self._keys["relinearisation"]
        self.switching.squared(self.memory.rows(a.handle), key, self.memory.rows(out))
        return out

    def rescale(self, a: Ciphertext) -> Any:
        """One level less; of two parts."""
        out = self.memory.blank(a.level - 1)
        self.switching.rescale(self.memory.rows(a.handle), self.memory.rows(out))
        return out

    def sums(self, products: Sequence[Sequence[tuple[Ciphertext, Plaintext]]]) -> list[Any]:
        """Sums of products of ciphertexts of two parts with plaintexts, all at one level."""
        level, memory = products[0][0][0].level, self.memory
        outs = [memory.blank(level) for _ in products]
        self.switching.sums(
            [memory.rows(ct.handle) for some in products for ct, _ in some],
            np.array([memory.plain_rows(pt.handle, level) for some in products for _, pt in some]),
            [*itertools.accumulate(map(len, products), initial=0)],
            [memory.rows(out) for out in outs],
        )
        return outs

    def transform(self, written: Written, inputs: Sequence[Ciphertext], weights: Rows, fill: Fill | None) -> list[Any]:
        """A linear transform of ciphertexts of two parts at one level; `weights` are plaintexts' rows, written by
        `fill` if that is not None (`Switching.execute`)."""
        switching, tape, level = self.switching, written.tape, inputs[0].level
        outs = [self.memory.blank(level) for _ in range(written.outputs)]
        size = level + 1, self.params.params.ring_dimension
        turned = loops.rows(switching.room.array("turned", written.rotations, 2, *size))
        between = loops.rows(switching.room.array("sums", written.turned, 2, *size))
        given, written_to = ([self.memory.rows(ct) for ct in some] for some in ([ct.handle for ct in inputs], outs))
        places = tape.shape.table([*given, *turned, *written_to, *between])
        switching.execute(tape, places, self._words(tape), weights, fill)
        return outs

    def _words(self, tape: Tape) -> Words:
        """Of the keys that a transform's tape uses."""
        found = self._used.get(tape)
        if found is None:
            slots = self.params.slots
            keys = [self._keys[f"rotation/{step % slots}"] for step in tape.keys]
            found = self._used[tape] = np.array([key.words for key in keys], np.uint64).reshape(-1, KEY_WORDS)
        return found

    def _blank(self, like: Ciphertext) -> Any:
        return self.memory.blank(like.level)
