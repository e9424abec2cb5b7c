"""Leak against cost: strategies at several settings, each attacked alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hefw.audit import results
from hefw.audit.attacker import Attack, Attacker
from hefw.audit.measure import ends, measure
from hefw.audit.record import BestRecord, PointRecord
from hefw.audit.statistics import Bootstrap
from hefw.audit.subject import Subject
from hefw.audit.trajectories import Trajectories
from hefw.audit.view import Rules, View, look
from hefw.core.progress import Progress, ProgressCallback
from hefw.plugins import Registry
from hefw.strategies.base import Strategy

#: Compared in every audit; a configuration's own strategy comes along.
COMPARED = ("full", "min_distortion", "sparse", "random")
#: Whose thresholds say how much the strategies without a threshold encrypt, so that they are compared at equal cost.
LEADER = "min_distortion"
AMOUNTS = ("threshold", "fraction")


@dataclass(frozen=True)
class Setting:
    """A strategy with options. `matches` is the leader's threshold whose share of encrypted entries it is to have."""

    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    matches: float | None = None


def settings(
    own: str, options: Mapping[str, Any], thresholds: Sequence[float], registry: Registry
) -> Iterator[Setting]:
    """What is compared: strategies with a threshold at every threshold, those with a fraction only at equal shares.

    `own` is the configuration's strategy, with its options; it comes as it is where it has neither.
    """
    names = [name for name in COMPARED if name in registry.names("strategy")]
    for name in dict.fromkeys([*names, own]):
        fields = registry.entry("strategy", name).options.model_fields
        given = dict(options) if name == own else {}
        rest = {key: value for key, value in given.items() if key not in AMOUNTS}
        if "threshold" in fields:
            yield from (Setting(name, rest | {"threshold": threshold}) for threshold in thresholds)
        elif "fraction" in fields and LEADER in names:
            yield from (Setting(name, rest, matches=threshold) for threshold in thresholds)
        else:
            yield Setting(name, given)


@dataclass(frozen=True, eq=False)
class Sweep:
    """The same pictures and attackers' own runs under one strategy after the other."""

    subject: Subject
    attacks: Mapping[str, Attack]
    rules: Rules
    runs: Trajectories
    own: Trajectories
    slots: int  # of a ciphertext
    seed: int
    make: Callable[[str, dict[str, Any]], Strategy]

    def points(self, wanted: Sequence[Setting], progress: ProgressCallback) -> Iterator[PointRecord]:
        """Settings in order, the leader's first; those under which the server sees the same are attacked once."""
        bootstrap = Bootstrap(len(self.runs), self.seed)
        between = ends(self.subject, self.runs, self.own, self.seed)
        shares: dict[float, float] = {}
        attacked: dict[bytes, dict[str, BestRecord]] = {}
        for number, setting in enumerate(wanted):
            options = dict(setting.options)
            if setting.matches is not None:
                options["fraction"] = shares[setting.matches]
            progress(Progress("curves", number, len(wanted), _line(setting.strategy, options)))
            strategy = self.make(setting.strategy, options)
            view = look(self.runs, strategy, self.subject.updates, self.rules)
            encrypted = float(view.masks[:: self.rules.every].mean())
            if setting.strategy == LEADER:
                shares[setting.options["threshold"]] = round(encrypted, 4)
            same = np.packbits(view.masks).tobytes()
            if same not in attacked:
                attacker = Attacker(
                    strategy, self.rules, self.subject.updates, self.subject.labels, self.subject.denoiser, self.own
                )
                outcomes = measure(self.subject, self.attacks, self.runs, view, attacker, between, bootstrap, self.seed)
                attacked[same] = results.best(outcomes)
            yield PointRecord(
                strategy=setting.strategy,
                options=options,
                encrypted=encrypted,
                ciphertexts=ciphertexts(view, self.rules, strategy.packed, self.slots),
                best=attacked[same],
            )
        progress(Progress("curves", len(wanted), len(wanted)))


def ciphertexts(view: View, rules: Rules, packed: bool, slots: int) -> float:
    """Ciphertexts that a key holder sends a message for all images, on average: latents, and predictions it encrypts.

    In `update-only` a packed strategy's encrypted entries are a list; otherwise all entries keep their places.
    """
    masks = view.masks[:: rules.every].reshape(-1, view.masks[0].size)
    listed = packed and rules.updates
    sent = [math.ceil((mask.sum() if listed else mask.size) / slots) for mask in masks if mask.any()]
    tensors = 2 if rules.updates and not rules.predictions else 1
    return tensors * sum(sent) / len(masks)


def _line(strategy: str, options: Mapping[str, Any]) -> str:
    return ", ".join([strategy, *(f"{name} {value:g}" for name, value in options.items() if isinstance(value, float))])
