"""The denoiser lowered for each backend, and what is needed to run it as client and server would."""

from __future__ import annotations

from collections import Counter
from functools import cache

from core_graphs import denoiser

from hefw.backends.simulator.backend import SimulatorBackend
from hefw.backends.tenseal.backend import TensealBackend
from hefw.core.backend import Backend
from hefw.core.lower import Request, lower
from hefw.core.params import CkksParams
from hefw.core.program import Program
from hefw.testing.session import Session, plain, psnr

__all__ = ["BACKENDS", "SMALL", "Session", "check_strands", "difference", "plain", "psnr", "small_program"]

BACKENDS: dict[str, Backend] = {"simulator": SimulatorBackend(), "tenseal": TensealBackend()}
SMALL = CkksParams(2048, (60, 50, 50, 50, 50, 50), (60,), 40.0, allow_insecure=True)


@cache
def small_program(backend: str = "simulator") -> Program:
    """The denoiser on a ring that is small and insecure."""
    return lower(denoiser(), BACKENDS[backend], Request(params=SMALL))


def check_strands(strands, slots: int) -> None:
    """Every rotation is made of what is there, in each strand by itself."""
    for strand in strands:
        there = {0}
        for link in strand:
            assert link.before in there
            assert (link.before + link.by) % slots == link.step
            there.add(link.step)


def difference(after: Counter[str], before: Counter[str]) -> Counter[str]:
    return Counter({k: after[k] - before[k] for k in after if after[k] != before[k]})
