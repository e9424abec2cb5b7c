"""An evaluator whose module brings the key holder along."""

from __future__ import annotations

from broken_keyholder import Holder

from hefw.backends.simulator.evaluator import SimulatorEvaluator


class CarelessEvaluator(SimulatorEvaluator):
    holder = None if Holder else 0
