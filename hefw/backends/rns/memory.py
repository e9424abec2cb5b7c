"""What loops need of a library: where it keeps residues, and ciphertexts that can be written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from hefw.backends.rns.tape import Rows
from hefw.core.backend import Ciphertext


class Memory(ABC):
    """A library's ciphertexts and plaintexts, by where their rows of residues are: valid as long as these are.

    Residues are in the transform's order (`ntt`).
    """

    @abstractmethod
    def usable(self, example: Ciphertext) -> bool:
        """Whether residues can be reached, tried with a ciphertext of two parts. False is said with a warning, once."""

    @abstractmethod
    def rows(self, handle: Any) -> Rows:
        """Those of a ciphertext: (parts, level + 1)."""

    @abstractmethod
    def plain_rows(self, handle: Any, level: int) -> Rows:
        """Those of a plaintext, of this level or a higher one: (level + 1,)."""

    @abstractmethod
    def blank(self, level: int, parts: int = 2) -> Any:
        """A ciphertext, whose residues the caller writes."""
