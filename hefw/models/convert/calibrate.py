"""What each place reads and gives, by timestep and channel, on the network's own trajectories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from hefw.models.convert.calls import ATTENTION, NORM, SOFTMAX, Call, Calls
from hefw.models.convert.states import Predict, States
from hefw.models.convert.survey import CONDITIONING, Site

#: Values that are kept of what an activation reads, per channel and timestep.
KEPT = 200


@dataclass(frozen=True)
class NormMoments:
    """Of a norm, per timestep and channel (timesteps, channels): how many, and sums over its input x and output y."""

    count: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    xx: torch.Tensor
    xy: torch.Tensor


@dataclass(frozen=True)
class Read:
    """What an activation reads, (channels, values), and the activation itself."""

    values: torch.Tensor
    function: Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class AttentionSeen:
    """Scores and weights of an attention, (images, heads, tokens, tokens); `scores` is empty for a softmax alone."""

    scores: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True)
class Calibration:
    """By the number of a call; conditioning is a table (timesteps, classes, channels)."""

    norms: dict[int, NormMoments]
    reads: dict[int, Read]
    attentions: dict[int, AttentionSeen]
    conditioning: dict[int, torch.Tensor]


@torch.no_grad()  # type: ignore[untyped-decorator]
def calibrate(
    predict: Predict, sites: Sequence[Site], states: States, timesteps: torch.Tensor, classes: int | None
) -> Calibration:
    """Run the original on states, whose timesteps are of `timesteps` (ascending)."""
    by_number = {site.number: site for site in sites}
    generator = torch.Generator().manual_seed(0)
    sums: dict[int, list[torch.Tensor]] = {}
    values: dict[int, list[torch.Tensor]] = {}
    functions: dict[int, Callable[[torch.Tensor], torch.Tensor]] = {}
    scores: dict[int, list[torch.Tensor]] = {}
    weights: dict[int, list[torch.Tensor]] = {}
    for t in timesteps:
        rows = states[states.timesteps == t]
        found: dict[int, list[torch.Tensor]] = {}

        def note(call: Call, found: dict[int, list[torch.Tensor]] = found) -> torch.Tensor:
            result = call.run()
            site = by_number.get(call.number)
            if site is None or site.kind == CONDITIONING:
                return result
            if site.kind == NORM:
                moments = _moments(_by_channel(call.input, site), _by_channel(result, site))
                found[call.number] = [a + b for a, b in zip(found.get(call.number, [0] * 5), moments, strict=True)]
            elif site.kind == ATTENTION:
                query, key = call.tensors[:2]
                found_scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
                scores.setdefault(call.number, []).append(found_scores)
                weights.setdefault(call.number, []).append(found_scores.softmax(-1))
            elif site.kind == SOFTMAX:
                weights.setdefault(call.number, []).append(result)
            else:
                functions[call.number] = call.elementwise
                flat = _by_channel(call.input, site)
                chosen = torch.randint(flat.shape[1], (KEPT,), generator=generator)
                values.setdefault(call.number, []).append(flat[:, chosen])
            return result

        for batch in rows.batches():
            with Calls(note):
                predict(batch.samples, batch.timesteps, batch.labels)
        for number, moments in found.items():
            sums.setdefault(number, []).append(torch.stack(moments))
    return Calibration(
        {number: NormMoments(*torch.stack(rows, dim=1)) for number, rows in sums.items()},
        {number: Read(torch.cat(rows, 1), functions[number]) for number, rows in values.items()},
        {
            number: AttentionSeen(torch.cat(scores[number]) if number in scores else torch.zeros(0), torch.cat(rows))
            for number, rows in weights.items()
        },
        _conditioning(predict, by_number, states, timesteps, classes),
    )


def _by_channel(x: torch.Tensor, site: Site) -> torch.Tensor:
    """(channels, everything else) of a batch."""
    return x.movedim(site.axis, 0).flatten(1)


def _moments(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    x, y = x.double(), y.double()
    return [part.sum(1) for part in (torch.ones_like(x), x, y, x * x, x * y)]


def _conditioning(
    predict: Predict, sites: dict[int, Site], states: States, timesteps: torch.Tensor, classes: int | None
) -> dict[int, torch.Tensor]:
    """What each place of conditioning gives for every timestep and label."""
    tables: dict[int, list[torch.Tensor]] = {}
    if classes is None or all(site.kind != CONDITIONING for site in sites.values()):
        return {}

    def note(call: Call) -> torch.Tensor:
        result = call.run()
        if call.number in sites and sites[call.number].kind == CONDITIONING:
            tables.setdefault(call.number, []).append(result)
        return result

    sample = states.samples[:1].expand(classes, *states.samples.shape[1:])
    for t in timesteps:
        with Calls(note):
            predict(sample, t.expand(classes), torch.arange(classes))
    return {number: torch.stack(rows) for number, rows in tables.items()}
