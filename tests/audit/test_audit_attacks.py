"""Attacks find the truth at the ends, and what theory says they find between."""

from __future__ import annotations

import numpy as np
import pytest
from audit_toys import END_TO_END, PUBLISHED, UPDATE_ONLY, attack_one, digits, strategy

from hefw import plugins
from hefw.audit.attacker import Attacker, Denoiser, Guess, Judge
from hefw.audit.attacks import template
from hefw.audit.attacks.network import choose
from hefw.audit.measure import ends, measure
from hefw.audit.statistics import Bootstrap
from hefw.audit.subject import LabelSubject
from hefw.audit.view import Rules, look
from hefw.core.errors import HefwError

NAMES = ["zero_fill", "mean_fill", "inpaint", "template", "repaint", "inversion", "predictions"]
BY_MODEL = ["template", "repaint", "inversion"]


def test_all_are_plugins() -> None:
    registry = plugins.registry()
    assert [name for kind, name in registry.entries if kind == "attack"] == NAMES
    for name in NAMES:
        assert registry.load("attack", name)(None).reference


@pytest.mark.parametrize("name", NAMES[:-1])
def test_full_leaks_nothing_beyond_the_prior(name: str) -> None:
    outcome, *_ = attack_one(digits(), name, strategy("full"), END_TO_END, images=40, own=800)
    assert outcome.findings.keys() == {"psnr", "ssim", "gradient_distance", "label"}
    for metric, finding in outcome.findings.items():
        assert not finding.beyond_prior, metric
        assert finding.gain[1] <= 0, metric


@pytest.mark.parametrize("name", BY_MODEL[1:])
@pytest.mark.parametrize("rules", [END_TO_END, UPDATE_ONLY])
def test_all_plaintext_leaks_everything(name: str, rules: Rules) -> None:
    outcome, between, *_ = attack_one(digits(), name, strategy("min_distortion", threshold=1), rules)
    assert outcome.findings["psnr"].value[0] > 50
    assert outcome.findings["label"].value[0] >= between.everything.scores["label"].mean()
    for finding in outcome.findings.values():
        assert finding.beyond_prior
        assert finding.leak is not None
        assert finding.leak[0] > 0.85


@pytest.mark.parametrize("name", ["zero_fill", "mean_fill", "inpaint"])
def test_fills_leave_shown_entries_and_are_exact_where_all_is_shown(name: str) -> None:
    outcome, between, *_ = attack_one(digits(), name, strategy("min_distortion", threshold=1), UPDATE_ONLY)
    assert outcome.score is not None
    np.testing.assert_allclose(outcome.score.images, between.truth, atol=1 / 255)
    subject, chosen = digits(), strategy("random", fraction=0.5)
    _, _, view, _ = attack_one(subject, name, chosen, END_TO_END)
    attack = plugins.registry().load("attack", name)(None)
    attacker = Attacker(chosen, END_TO_END, subject.updates, 10, subject.denoiser, subject.own(20))
    guess = attack.guess(view, attacker, np.random.default_rng(0))
    known = np.isfinite(view.latest)
    np.testing.assert_array_equal(guess.latents[known], view.latest[known])
    filled = {"zero_fill": 0.0, "mean_fill": view.latest[0][known[0]].mean()}
    if name in filled:
        np.testing.assert_allclose(guess.latents[0][~known[0]], filled[name])
    else:
        inside = view.latest[0][known[0]]
        assert (guess.latents[0] <= inside.max()).all()
        assert (guess.latents[0] >= inside.min()).all()
        assert guess.latents[0][~known[0]].std() > 0


def test_masks_alone_tell_of_the_picture() -> None:
    """The regression is given masks and no values: what is shown is 0 everywhere."""
    subject, chosen = digits(10), strategy("min_distortion", threshold=0.05)
    runs, own = subject.audited(40), subject.own(1500)
    attacker = Attacker(chosen, END_TO_END, subject.updates, 10, None, own)
    view = look(runs, chosen, subject.updates, END_TO_END)
    for known in (view, attacker.own_view):
        known.latents[...] = np.nan
    guess = plugins.registry().load("attack", "template")(None).guess(view, attacker, np.random.default_rng(0))
    assert (guess.labels == runs.labels).mean() > 0.35


def test_a_few_entries_a_step_give_picture_and_label() -> None:
    """HE-Diffusion's default threshold, with a model that the server owns."""
    outcome, between, view, _ = attack_one(digits(10), "inversion", strategy("min_distortion"), END_TO_END)
    assert (~view.masks).mean() < 0.15
    assert outcome.findings["label"].value[0] >= 0.8
    assert outcome.findings["psnr"].value[0] > between.nothing("psnr")[1].mean() + 5


def test_predictions_in_plaintext_give_the_picture_though_every_latent_is_encrypted() -> None:
    outcome, _, view, _ = attack_one(digits(), "predictions", strategy("full"), PUBLISHED)
    assert np.isnan(view.latents).all()
    assert outcome.findings["label"].value[0] >= 0.95
    assert outcome.findings["psnr"].value[0] > 30


def test_predictions_without_the_network_are_combined_by_least_squares() -> None:
    subject = digits()
    subject.denoiser = None
    outcome, between, *_ = attack_one(subject, "predictions", strategy("full"), PUBLISHED)
    assert outcome.findings["psnr"].value[0] > between.nothing("psnr")[1].mean() + 2
    assert outcome.findings["label"].value[0] >= 0.8


@pytest.mark.parametrize(
    ("name", "rules", "reason"),
    [
        ("predictions", UPDATE_ONLY, "noise predictions are not shown in plaintext"),
        ("repaint", END_TO_END, "no method `denoise`"),
        ("inversion", END_TO_END, "no method `denoise`"),
    ],
)
def test_what_does_not_apply_is_left_out_with_the_reason(name: str, rules: Rules, reason: str) -> None:
    subject = digits()
    subject.denoiser = None
    outcome, *_ = attack_one(subject, name, strategy("full"), rules, images=3, own=6)
    assert outcome.reason is not None
    assert reason in outcome.reason
    assert outcome.findings == {}


def test_templates_need_small_views_and_many_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "MOST", 100)
    outcome, *_ = attack_one(digits(), "template", strategy("full"), END_TO_END, images=3, own=6)
    assert outcome.reason is not None
    assert outcome.reason.startswith("a view of 704 numbers an image is too much")
    monkeypatch.undo()
    outcome, *_ = attack_one(digits(), "template", strategy("full"), END_TO_END, images=3, own=6)
    assert outcome.reason == "6 runs of the attacker's own are too few to learn from; at least 100"


def test_random_schedulers_are_inverted_by_nobody_and_repainted() -> None:
    registry = plugins.registry()
    subject = digits()
    kind = registry.load("scheduler", "ddpm")
    noisy = LabelSubject(subject.model, lambda: subject.model.scheduler(kind, {}), 5, 0, stochastic=True)
    assert any(update.noise for update in noisy.updates)
    left_out, *_ = attack_one(noisy, "inversion", strategy("full"), UPDATE_ONLY, images=3, own=6)
    assert left_out.reason is not None
    assert "adds noise at every step" in left_out.reason
    found, *_ = attack_one(noisy, "repaint", strategy("random", fraction=0.3), UPDATE_ONLY)
    assert found.findings["label"].value[0] >= 0.8


def test_labels_that_nothing_tells_apart_are_chosen_at_random() -> None:
    rng = np.random.default_rng(0)
    best = choose(np.zeros((10, 5000)), 2, rng)
    assert np.bincount(best[0], minlength=10).min() > 350
    assert (best[0] != best[1]).all()
    miss = np.array([[3.0, np.nan], [1.0, 5.0], [2.0, np.nan]])
    assert choose(miss, 1, rng).tolist() == [[1, 1]]


def test_a_strangers_attack_that_returns_something_else_is_named() -> None:
    class Wrong:
        reference = "none"

        def refusal(self, view: object, attacker: object) -> None: ...

        def guess(self, view: object, attacker: object, rng: object) -> Guess:
            return Guess(np.zeros((1, 2, 3)))

    subject, chosen = digits(), strategy("full")
    runs, own = subject.audited(2), subject.own(4)
    view = look(runs, chosen, subject.updates, END_TO_END)
    attacker = Attacker(chosen, END_TO_END, subject.updates, 10, None, own)
    between = ends(subject, runs, own, 0)
    with pytest.raises(
        HefwError, match=r"attack 'wrong' returned latents of shape \(1, 2, 3\); expected \(2, 1, 8, 8\)"
    ):
        measure(subject, {"wrong": Wrong()}, runs, view, attacker, between, Bootstrap(2, 0), 0)


def test_digits_offers_a_judge_and_a_denoiser() -> None:
    model = digits().model
    assert isinstance(model, Judge)
    assert isinstance(model, Denoiser)
