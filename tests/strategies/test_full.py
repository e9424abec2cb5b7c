"""`full` selects everything, and keeps what every strategy keeps."""

from __future__ import annotations

import numpy as np
import pytest

from hefw.hookspecs import Options
from hefw.strategies.base import Strategy
from hefw.strategies.full import Full
from hefw.testing import StrategyConformance


class TestFull(StrategyConformance):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return Full(Options())

    def test_every_entry_is_selected(self, strategy) -> None:
        for shape in self.shapes:
            assert strategy.select(np.zeros(shape)).all()
