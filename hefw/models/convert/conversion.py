"""`convert`: a trained network becomes one that ciphertext can bear, one replacement after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from hefw.core.errors import CompileError
from hefw.models.compiler.check import check_sample_shape
from hefw.models.convert import fit
from hefw.models.convert.calibrate import Calibration, calibrate
from hefw.models.convert.calls import ACTIVATION, ATTENTION, NORM, SOFTMAX
from hefw.models.convert.converted import Converted
from hefw.models.convert.distil import Distillation, distil
from hefw.models.convert.fit import Fitted
from hefw.models.convert.levels import check_levels, depth, least_harmful
from hefw.models.convert.report import STAGE, Report, Row
from hefw.models.convert.states import Sampler, States, error
from hefw.models.convert.survey import CONDITIONING, Prediction, Site, survey
from hefw.models.schedules import linear_updates
from hefw.models.training import Progress, one_thread
from hefw.models.update_terms import check_updates

Metric = Callable[[nn.Module], float]

CALIBRATION_IMAGES, HELD_OUT_IMAGES = 100, 20
#: Ways to do without softmax, in the order in which they are tried.
ATTENTIONS = ("zero", "mean", "linear kernel", "quadratic kernel")
#: What an attention's replacement may add to the error, beside the predictions' mean square, before the next is tried.
ATTENTION_TOLERANCE = 0.01


def convert(
    unet: nn.Module,
    *,
    scheduler: Any,
    steps: int,
    levels: int | None = None,
    sample_shape: Sequence[int] | None = None,
    classes: int | None = None,
    degree: int = 2,
    keep: Collection[str] | None = None,
    attention: str | None = None,
    additive: bool = True,
    distillation: Distillation | None = None,
    metric: Metric | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Converted:
    """A copy of a trained network without what CKKS cannot compute, distilled from it; `hefw.compile` takes it.

    In this order, each judged on trajectories of the original that nothing is fitted to: norms become static, attention
    goes without softmax, labels additive, activations polynomials, and those whose loss does least harm linear until
    the depth is as wanted. Then all weights are trained together. `converted.report` says what each step cost.

    Args:
        unet: a diffusers UNet or any module as `hefw.compile` takes it, in eval mode. It is copied, not changed.
        scheduler: a deterministic diffusers scheduler; the result is meant for its timesteps.
        steps: number of steps asked of `scheduler.set_timesteps`.
        levels: greatest multiplicative depth: 2 K + 1 for K quadratics in sequence. None: all activations stay.
        sample_shape: of one sample, (channels, height, width); a diffusers network says it itself.
        classes: number of labels; a diffusers network says it itself (num_class_embeds).
        degree: of polynomials: 2 are trained quadratics per channel; higher ones, even, up to 16, are shared.
        keep: places whose activations stay nonlinear, as the report names them, where the choice is not left to
            `convert`; all others become linear.
        attention: what every attention becomes, of `ATTENTIONS`. None: the first that adds no more than a hundredth.
        additive: whether the label's part is made the same at every step, so that it is computed once a request.
        distillation: how long, and with what settings; None: `Distillation`'s own.
        metric: judges the network so far at each stage, for the report; called with a module like `unet`.
        seed: of all random numbers.
        progress: called with (iterations done, iterations in all, how it goes).

    Raises:
        CompileError: what cannot be converted, by its place and with the remedy.
        SchedulerError: the scheduler's update is not linear or adds noise.
    """
    fit.check_degree(degree)
    how = Distillation() if distillation is None else distillation
    if attention is not None and attention not in ATTENTIONS:
        raise CompileError(f"attention={attention!r} is not allowed; allowed: {', '.join(ATTENTIONS)}, or None to try")
    shape, labels = _sizes(unet, sample_shape, classes)
    check_levels(levels, 1)
    check_updates(linear_updates(scheduler, steps))
    with one_thread():
        conversion = _Conversion(unet, Sampler(scheduler, steps, shape, labels), degree, metric, seed)
        conversion.replace_norms()
        conversion.replace_attention(attention, levels)
        if additive:
            conversion.replace_conditioning()
        conversion.replace_activations()
        conversion.drop(levels, keep)
        settings = {
            "steps": steps,
            "levels": levels,
            "degree": degree,
            "seed": seed,
            "distillation": asdict(how),
        }
        return conversion.finish(how, settings, progress)


def _sizes(unet: Any, shape: Sequence[int] | None, classes: int | None) -> tuple[tuple[int, ...], int | None]:
    config = getattr(unet, "config", {})
    if shape is None:
        size = config.get("sample_size")
        if size is None or "in_channels" not in config:
            raise CompileError(
                f"sample_shape=None is not allowed for {type(unet).__name__}, which does not say it; give "
                "(channels, height, width)"
            )
        shape = (config["in_channels"], *((size, size) if isinstance(size, int) else size))
    if classes is None:
        classes = config.get("num_class_embeds")
    if classes is not None and (type(classes) is not int or classes < 1):
        raise CompileError(f"classes={classes!r} is not allowed; allowed: the number of labels, or None")
    return check_sample_shape(shape), classes


class _Conversion:
    """The network so far, and the rows of its report."""

    def __init__(self, unet: nn.Module, sampler: Sampler, degree: int, metric: Metric | None, seed: int) -> None:
        self.sampler, self.degree, self.metric, self.seed = sampler, degree, metric, seed
        timesteps = sampler.timesteps()
        self.sites = survey(unet, sampler.shape, timesteps, sampler.classes)
        self.teacher = copy.deepcopy(unet).float().eval().requires_grad_(False)
        self.original = Prediction(self.teacher, sampler.classes is not None)
        ascending = timesteps.sort().values
        generator = torch.Generator().manual_seed(seed)
        states, _ = sampler.trajectories(self.original, CALIBRATION_IMAGES, generator)
        self.held_out: States = sampler.trajectories(self.original, HELD_OUT_IMAGES, generator)[0]
        self.calibration: Calibration = calibrate(self.original, self.sites, states, ascending, sampler.classes)
        config = getattr(unet, "config", None)
        self.network: Converted = Converted(
            None if config is None else _portable(type(unet).__name__, config),
            (),
            ascending.tolist(),
            sampler.shape[0],
            sampler.shape[1:],
            sampler.classes,
            module=copy.deepcopy(unet).float().eval().requires_grad_(True),  # it may be frozen, or a moving average
        ).eval()
        self.cost: dict[int, int] = {}
        self.rows: list[Row] = []
        self.stage("original")

    def of(self, *kinds: str) -> list[Site]:
        return [site for site in self.sites if site.kind in kinds]

    def error(self) -> float:
        return error(lambda x, t, y: self.network(x, t, y).sample, self.held_out)

    def put(self, fitted: Fitted) -> None:
        specification, replacement = fitted
        self.network.put(specification, replacement.eval())
        self.cost[specification.number] = replacement.levels

    def row(self, site: Site, replacement: str) -> None:
        self.rows.append(Row(str(site), site.operator, replacement, self.error(), depth(self.sites, self.cost)))

    def stage(self, name: str) -> None:
        metric = None if self.metric is None else float(self.metric(self.network))
        self.rows.append(Row(name, STAGE, "", self.error(), depth(self.sites, self.cost), metric))

    def replace_norms(self) -> None:
        """Slopes common to all timesteps, intercepts of each."""
        for site in self.of(NORM):
            self.put(fit.static_norm(site, self.calibration.norms[site.number]))
            self.row(site, "static")
        if self.of(NORM):
            self.stage("static norms")

    def replace_attention(self, wanted: str | None, budget: int | None) -> None:
        """Each becomes the first of `ATTENTIONS` that adds little, or the best that fits the budget."""
        for site in self.of(ATTENTION, SOFTMAX):
            way, fitted = self._least_attention(site, wanted, budget)
            self.put(fitted)
            self.row(site, way)
        if self.of(ATTENTION, SOFTMAX):
            self.stage("attention")

    def _least_attention(self, site: Site, wanted: str | None, budget: int | None) -> tuple[str, Fitted]:
        before = self.error()
        tried: list[tuple[float, str, Fitted]] = []
        for way in ATTENTIONS if wanted is None else (wanted,):
            fitted = self._attention(site, way)
            if fitted is None:
                continue
            # one activation at least has to fit, too
            cost = {**self.cost, site.number: fitted[1].levels}
            if wanted is None and budget is not None and depth(self.sites, cost) + 2 > max(budget, 3):
                continue
            tried.append((self.harm(fitted), way, fitted))
            if tried[-1][0] - before <= ATTENTION_TOLERANCE:
                return way, fitted
        if not tried:
            raise CompileError(
                f"module {site.place!r}: a softmax alone cannot become a {wanted!r}, which multiplies queries, keys "
                "and values; allowed: zero, mean; or write it with scaled_dot_product_attention"
            )
        return min(tried, key=lambda found: found[0])[1:]

    def _attention(self, site: Site, way: str) -> Fitted | None:
        seen = self.calibration.attentions[site.number]
        if way == "zero":
            return fit.no_attention(site, seen)
        if way == "mean":
            return fit.mean_attention(site, seen)
        if site.kind == SOFTMAX:
            return None
        return fit.kernel_attention(site, seen, 1 if way == "linear kernel" else 2)

    def replace_conditioning(self) -> None:
        """A timestep's part plus a label's."""
        for site in self.of(CONDITIONING):
            self.put(fit.additive(site, self.calibration.conditioning[site.number]))
            self.row(site, "additive")
        if self.of(CONDITIONING):
            self.stage("additive labels")

    def replace_activations(self) -> None:
        """Polynomials everywhere."""
        for site in self.of(ACTIVATION):
            self.put(self._polynomial(site))
            self.row(site, f"degree {self.degree}")
        if self.of(ACTIVATION):
            self.stage(f"polynomials of degree {self.degree}")

    def _polynomial(self, site: Site) -> Fitted:
        read = self.calibration.reads[site.number]
        return fit.polynomial(site, read, 2) if self.degree == 2 else fit.chebyshev_polynomial(site, read, self.degree)

    def drop(self, wanted: int | None, keep: Collection[str] | None) -> None:
        """Activations become linear: those that `keep` does not name, or the least harmful until the depth fits."""
        activations = self.of(ACTIVATION)
        linear = {site.number: fit.polynomial(site, self.calibration.reads[site.number], 1) for site in activations}
        fixed = depth(self.sites, {**self.cost, **dict.fromkeys(linear, 0)})
        check_levels(wanted, fixed)
        by_number = {site.number: site for site in activations}
        rows = len(self.rows)
        if keep is not None:
            for site in _others(keep, activations):
                self.put(linear[site.number])
                self.row(site, "linear")
        if wanted is not None:
            remaining = {n for n in by_number if self.cost.get(n)}
            if keep is not None and depth(self.sites, self.cost) > wanted:
                raise CompileError(
                    f"keep={sorted(keep)!r} takes {depth(self.sites, self.cost)} levels; levels={wanted} allows fewer"
                )
            while (
                chosen := least_harmful(wanted, self.sites, self.cost, remaining, lambda n: self.harm(linear[n]))
            ) is not None:
                remaining.discard(chosen)
                self.put(linear[chosen])
                self.row(by_number[chosen], "linear")
        if len(self.rows) > rows:
            self.stage("fewer activations")

    def harm(self, fitted: Fitted) -> float:
        """The error with one replacement more, which is undone."""
        specification, replacement = fitted
        with self.network.trying(specification, replacement.eval()):
            return self.error()

    def finish(self, how: Distillation, settings: dict[str, Any], progress: Progress | None) -> Converted:
        """Distil, and hand over the network with its report."""
        if how.iterations:
            self.network = distil(self.network, self.original, self.sampler, how, seed=self.seed, progress=progress)
            self.stage(f"distilled, {how.iterations} iterations")
        self.network.eval().requires_grad_(False)
        self.network.report = Report(tuple(self.rows), settings)
        return self.network


def _portable(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the folder that it was loaded from."""
    return {"_class_name": kind, **{key: value for key, value in config.items() if key != "_name_or_path"}}


def _others(keep: Collection[str], activations: Sequence[Site]) -> list[Site]:
    """The activations that are not named; CompileError for a name that there is not."""
    known = {str(site) for site in activations}
    for name in keep:
        if name not in known:
            raise CompileError(f"keep has {name!r}, which is no activation; allowed: {', '.join(sorted(known))}")
    return [site for site in activations if str(site) not in keep]
