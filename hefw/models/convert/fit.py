"""Replacements fitted to what was calibrated, before any training."""

from __future__ import annotations

import math
from typing import Any

import torch
from numpy.polynomial import chebyshev

from hefw.core.errors import CompileError
from hefw.core.polynomial import MAX_DEGREE
from hefw.models.convert.calibrate import AttentionSeen, NormMoments, Read
from hefw.models.convert.replacements import MINIMUM_QUADRATIC, Replacement, Specification, build
from hefw.models.convert.survey import Site

#: The normal distribution that polynomials are fitted under is wider than the one calibrated, by this and by WIDER_BY.
WIDER, WIDER_BY = 1.3, 0.1
#: Chebyshev intervals reach further than what was calibrated.
MARGIN = 1.1
#: From this degree on, interpolation on the whole interval is as good as least squares on data, and safer.
INTERPOLATED = 8

Fitted = tuple[Specification, Replacement]


def static_norm(site: Site, moments: NormMoments) -> Fitted:
    """Least squares onto the norm's output: one slope per channel, an intercept per timestep and channel."""
    n, x, y, xx, xy = (getattr(moments, name) for name in ("count", "x", "y", "xx", "xy"))
    slope = (xy - x * y / n).sum(0) / (xx - x * x / n).sum(0).clamp_min(1e-12)
    intercept = y / n - slope * x / n
    sizes = {"timesteps": len(n), "channels": site.channels, "axis": site.axis}
    return _made(site, "static norm", sizes, slope=slope, intercept=intercept)


def polynomial(site: Site, read: Read, degree: int) -> Fitted:
    """Degree 1 or 2: least squares per channel under a normal of the calibrated mean and deviation, a little wider.

    A quadratic coefficient below the least allowed is raised to it, and the rest fitted again.
    """
    values = read.values.double()
    mean, deviation = values.mean(1), values.std(1) * WIDER + WIDER_BY
    nodes = torch.linspace(-4, 4, 81, dtype=torch.float64)
    z = mean[:, None] + deviation[:, None] * nodes
    wanted = read.function(z)
    weight = torch.exp(-nodes.square() / 4).expand_as(z)  # the root of the density
    sizes = {"channels": site.channels, "axis": site.axis, "degree": degree}
    if degree == 1:
        constant, slope = _least_squares(z, wanted, weight, 1)
        return _made(site, "polynomial", sizes, constant=constant, slope=slope)
    square = _least_squares(z, wanted, weight, 2)[2].clamp_min(1.05 * MINIMUM_QUADRATIC)
    constant, slope = _least_squares(z, wanted - square[:, None] * z * z, weight, 1)
    raw = torch.log(torch.expm1(square - MINIMUM_QUADRATIC))
    return _made(site, "polynomial", sizes, constant=constant, slope=slope, raw=raw)


def chebyshev_polynomial(site: Site, read: Read, degree: int) -> Fitted:
    """One polynomial for all channels: least squares on what was calibrated, or interpolation for high degrees."""
    values = read.values.double().flatten()
    middle, half = (values.max() + values.min()) / 2, (values.max() - values.min()) / 2 * MARGIN
    grid = torch.cos(math.pi * (torch.arange(400, dtype=torch.float64) + 0.5) / 400)
    if degree >= INTERPOLATED:
        coefficients = chebyshev.chebfit(grid.numpy(), read.function(middle + half * grid).numpy(), degree)
    else:
        # data, and a hundredth of the weight on the whole interval, so that nothing explodes at its ends
        u = torch.cat([(values - middle) / half, grid])
        weight = torch.cat(
            [torch.ones(len(values)), torch.full((len(grid),), math.sqrt(0.01 * len(values) / len(grid)))]
        )
        wanted = read.function(middle + half * u)
        coefficients = chebyshev.chebfit(u.numpy(), wanted.numpy(), degree, w=weight.numpy())
    interval = torch.stack([middle - half, middle + half])
    return _made(site, "chebyshev", {"degree": degree}, coefficients=torch.from_numpy(coefficients), interval=interval)


def check_degree(degree: int) -> None:
    """CompileError for a degree that no polynomial here has."""
    if type(degree) is not int or not 2 <= degree <= MAX_DEGREE or degree % 2:
        raise CompileError(
            f"degree={degree!r} is not allowed; allowed: even numbers from 2 to {MAX_DEGREE} (an odd degree takes as "
            "many levels as the next even one)"
        )


def no_attention(site: Site, seen: AttentionSeen) -> Fitted:
    """Zero."""
    return _made(site, "no attention", {})


def mean_attention(site: Site, seen: AttentionSeen) -> Fitted:
    """The mean of the weights."""
    mean = seen.weights.double().mean(0)
    mean = mean.reshape(-1, *mean.shape[-2:])
    return _made(site, "mean attention", {"heads": len(mean), "tokens": mean.shape[-1]}, weights=mean)


def kernel_attention(site: Site, seen: AttentionSeen, degree: int) -> Fitted:
    """The mean of the weights plus powers of the scores' deviations, by least squares per head."""
    scores, weights = seen.scores.double(), seen.weights.double()
    powers = torch.stack([scores ** (k + 1) for k in range(degree)])
    means = powers.mean(1)
    centred = (powers - means[:, None]).permute(2, 1, 3, 4, 0).flatten(1, 3)  # (heads, values, degree)
    wanted = (weights - weights.mean(0)).transpose(0, 1).flatten(1)
    factors = torch.linalg.lstsq(centred, wanted[..., None]).solution[..., 0].T  # (degree, heads)
    mean = weights.mean(0) - (factors[..., None, None] * means).sum(0)
    sizes = {"heads": weights.shape[1], "tokens": weights.shape[-1], "degree": degree}
    return _made(site, "kernel attention", sizes, mean=mean, factors=factors)


def additive(site: Site, table: torch.Tensor) -> Fitted:
    """The best sum of a timestep's part and a label's part of a table (timesteps, classes, channels)."""
    table = table.double()
    sizes = {"timesteps": len(table), "classes": table.shape[1], "channels": table.shape[2]}
    return _made(site, "additive", sizes, timestep=table.mean(1), label=table.mean(0) - table.mean((0, 1)))


def _made(site: Site, kind: str, sizes: dict[str, int], **weights: Any) -> Fitted:
    specification = Specification(site.number, site.place, site.operator, kind, sizes)
    made = build(specification)
    made.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return specification, made


def _least_squares(z: torch.Tensor, wanted: torch.Tensor, weight: torch.Tensor, degree: int) -> list[torch.Tensor]:
    """Coefficients (channels,) by power, the constant first, of rows (channels, nodes)."""
    powers = torch.stack([z**k for k in range(degree + 1)], dim=-1) * weight[..., None]
    solution = torch.linalg.lstsq(powers, (wanted * weight)[..., None]).solution
    return list(solution[..., 0].unbind(-1))
