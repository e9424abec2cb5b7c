"""Memory: what is let go of is given back."""

from __future__ import annotations

from pathlib import Path

from hefw.testing.child import ROUNDS
from hefw.testing.parties import Parties
from hefw.testing.process import prepare, run_child


class Resources:
    """Leaks."""

    def test_two_hundred_operations_leak_no_ciphertext(self, parties: Parties, target: str, tmp_path: Path) -> None:
        """A fresh process must grow by less than half a ciphertext a round, in one of three windows of 200 rounds."""
        prepare(tmp_path, target, parties)
        for name, blob in parties.holder.evaluation_keys():
            (tmp_path / f"{name.replace('/', '-')}.key").write_bytes(blob)
        parties.holder.save(tmp_path / "secret")
        (tmp_path / "sent").write_bytes(parties.send(parties.x))
        size, grown = run_child("repeat", tmp_path)
        assert min(grown) < ROUNDS * size / 2, f"{ROUNDS} rounds leak {min(grown)} bytes; a ciphertext has {size}"
