"""Threads and forks: as declared, in both directions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hefw.core.backend import Ciphertext
from hefw.core.errors import CapabilityError
from hefw.testing.parties import Parties
from hefw.testing.process import prepare, run_child

THREADS, ROUNDS = 4, 5


class Concurrency:
    """`Capabilities.threads` and `Capabilities.fork`."""

    def test_threads(self, parties: Parties, a: Ciphertext, b: Ciphertext) -> None:
        """Several threads with one evaluator and shared operands; each must get its own results."""
        ev, x, y = parties.evaluator, parties.x, parties.y

        def work(number: int) -> float:
            worst = 0.0
            for _ in range(ROUNDS):
                ct, expected = (a, x) if number % 2 else (b, y)
                turned = ev.rotate(ct, 1)
                added = ev.add_into(turned, ct)
                product = ev.rescale(ev.mul(added, ct), 1)
                worst = max(worst, parties.error(product, (np.roll(expected, -1) + expected) * expected))
            return worst

        with ThreadPoolExecutor(THREADS) as pool:
            futures = [pool.submit(work, number) for number in range(THREADS)]
            if parties.backend.capabilities.threads:
                assert max(future.result() for future in futures) < 2 * parties.precision.worst
                return
            for future in futures:
                with pytest.raises(CapabilityError, match=parties.backend.name):
                    future.result()

    def test_fork(self, parties: Parties, target: str, tmp_path: Path) -> None:
        """A child made by os.fork goes on with the evaluator of its parent, or is refused by name; it never hangs."""
        prepare(tmp_path, target, parties)
        for name, blob in parties.holder.evaluation_keys():
            (tmp_path / f"{name.replace('/', '-')}.key").write_bytes(blob)
        (tmp_path / "sent").write_bytes(parties.send(parties.x))
        outcome = run_child("fork", tmp_path)
        if not parties.backend.capabilities.fork:
            assert outcome.startswith("CapabilityError"), outcome
            assert parties.backend.name in outcome, outcome
            return
        assert outcome == "done"
        for result in ("parent", "child"):
            found = parties.holder.decrypt_bytes((tmp_path / result).read_bytes())
            assert np.abs(found - np.roll(parties.x, -1) ** 2).max() < parties.precision.worst
