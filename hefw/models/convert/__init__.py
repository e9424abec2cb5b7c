"""Conversion of trained networks: `convert` replaces what ciphertext cannot bear, and says what it cost."""

from hefw.models.convert.conversion import ATTENTIONS, convert
from hefw.models.convert.converted import Converted
from hefw.models.convert.distil import Distillation
from hefw.models.convert.report import Report, Row

__all__ = ["ATTENTIONS", "Converted", "Distillation", "Report", "Row", "convert"]
