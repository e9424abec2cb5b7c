"""The record of what each party could see, in numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Form = Literal["plaintext", "ciphertext", "derived", "public"]


@dataclass(frozen=True)
class LedgerEntry:
    """One thing that one party could see.

    `form`: 'ciphertext' shows nothing but sizes; 'plaintext' is private data in the clear; 'derived' depends on private
    data without being it (which entries a strategy selected); 'public' is what anyone may know (parameters, evaluation
    keys, timesteps). `entries` are numbers in it that were not sent before, `bytes` its size as sent.
    """

    party: str
    step: int | None
    item: str
    form: Form
    entries: int
    bytes: int


@dataclass
class Ledger:
    """Entries in the order in which they were made."""

    entries: list[LedgerEntry] = field(default_factory=list)

    def add(self, party: str, step: int | None, item: str, form: Form, entries: int, size: int) -> None:
        """Record that `party` was given `entries` numbers of `item` in `size` bytes."""
        self.entries.append(LedgerEntry(party, step, item, form, entries, size))

    def of(self, party: str) -> Iterator[LedgerEntry]:
        """The entries of one party."""
        return (entry for entry in self.entries if entry.party == party)

    def plaintext_fraction(self, party: str) -> float:
        """Share of the private numbers sent to a party that it saw in plaintext, from 0 to 1."""
        private = [entry for entry in self.of(party) if entry.form in ("plaintext", "ciphertext")]
        total = sum(entry.entries for entry in private)
        return sum(entry.entries for entry in private if entry.form == "plaintext") / total if total else 0.0
