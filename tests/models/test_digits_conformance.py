"""The bundled model keeps what every model keeps."""

from __future__ import annotations

from functools import cache

import pytest

from hefw.models.digits.model import Digits
from hefw.models.plugin import DigitsOptions
from hefw.testing import ModelConformance


@cache
def bundled() -> Digits:
    return Digits(DigitsOptions())


class TestDigits(ModelConformance):
    max_depth = 10
    tolerance = 1e-5

    @pytest.fixture
    def model(self) -> Digits:
        return bundled()
