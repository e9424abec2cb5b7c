"""Shares between 0 and 1, as options and as exact parts of whole numbers."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Annotated

from pydantic import PlainValidator


def to_share(value: object) -> float:
    """A number from 0 to 1. ValueError for anything else, booleans and text included."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError("give a number from 0 to 1")
    return float(value)


def _to_share_or_none(value: object) -> float | None:
    return None if value is None else to_share(value)


Share = Annotated[float, PlainValidator(to_share)]
ShareOrNone = Annotated[float | None, PlainValidator(_to_share_or_none)]


def floor(share: float, of: int) -> int:
    """A share of a whole number, rounded down. The share is the decimal that was written: 0.29 of 100 is 29."""
    return math.floor(Decimal(str(share)) * of)


def ceil(share: float, of: int) -> int:
    """The same, rounded up: 0.07 of 100 is 7, although the nearest binary number is larger than 0.07."""
    return math.ceil(Decimal(str(share)) * of)
