"""The key holder of the faulty backend."""

from __future__ import annotations

import time

from hefw.backends.simulator.keyholder import SimulatorKeyHolder
from hosted_faults.backend import fail


class FaultyKeyHolder(SimulatorKeyHolder):
    options: object

    @classmethod
    def of(cls, params, manifest, options, key_id=None):
        holder = cls(params, manifest, key_id)
        holder.options = options
        return holder

    def _load(self, data, level, scale):
        fail("load", self.options)
        return super()._load(data, level, scale)

    def _secret_bytes(self):
        if getattr(self.options, "fault", "") == "slow save":
            time.sleep(0.2)
        return super()._secret_bytes() * 100_000
