"""Whole audits: the record, what it says at the ends, and the pages."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from hefw import cli, hookimpl, plugins
from hefw.audit import chart, curves, run, write
from hefw.audit.attacker import Attacker, Guess
from hefw.audit.page import render, summary
from hefw.audit.record import SCHEMA_PATH, AuditRecord, schema_text
from hefw.audit.run import Audit, audit
from hefw.audit.view import View
from hefw.config import Config
from hefw.core.errors import ConfigError, PluginError, SchedulerError
from hefw.core.progress import Progress
from hefw.hookspecs import Entry
from hefw.testing.pipelines import tiny_pipeline

QUICK = ["zero_fill", "template", "repaint"]


def small(images: int = 12, thresholds: tuple[float, ...] = (), attacks: Any = QUICK, **config: Any) -> Audit:
    return audit(Config(**{"steps": 4, **config}), images=images, attacks=attacks, thresholds=thresholds)


@pytest.fixture(scope="module")
def partial() -> Audit:
    """Some strategy, with curves."""
    return small(images=20, thresholds=(0, 0.1, 1), strategy="min_distortion", attacks=["zero_fill", "inversion"])


# -- the record --------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_record() -> None:
    texts = []
    for _ in range(2):
        done = small(images=6, thresholds=(0.1,), strategy="min_distortion", attacks=None)
        texts.append({k: v for k, v in json.loads(done.record.to_json()).items() if k not in ("started", "seconds")})
    assert texts[0] == texts[1]
    other = audit(Config(steps=4, strategy="min_distortion"), images=6, seed=1, attacks=QUICK, thresholds=())
    assert other.record.seed == 1
    assert other.record.everything["psnr"] != texts[0]["everything"]["psnr"]


def test_an_attack_finds_the_same_whatever_others_are_tried() -> None:
    alone, among = (small(attacks=names, strategy="min_distortion") for names in (["repaint"], None))
    (one,) = alone.record.attacks
    (same,) = [attack for attack in among.record.attacks if attack.name == "repaint"]
    assert {k: f.value for k, f in one.findings.items()} == {k: f.value for k, f in same.findings.items()}


def test_the_schema_is_the_committed_one_and_records_follow_it(partial: Audit) -> None:
    assert SCHEMA_PATH.read_text() == schema_text()
    jsonschema.validate(json.loads(partial.record.to_json()), json.loads(schema_text()))
    assert AuditRecord.model_validate_json(partial.record.to_json()) == partial.record


def test_what_a_record_says_was_shown(partial: Audit) -> None:
    shown = partial.record.shown
    assert 0.05 < shown.latents < 0.2
    assert shown.latents < shown.ever < 1
    assert (shown.predictions, shown.final_known, shown.rounded) == (0, 0, True)
    assert shown.latents_known == shown.latents


@pytest.mark.parametrize("protocol", ["end-to-end", "update-only"])
def test_full_leaks_nothing_beyond_the_prior(protocol: str) -> None:
    record = small(images=40, strategy="full", protocol=protocol, attacks=None).record
    assert not record.beyond_prior
    assert record.shown.latents_known == record.shown.predictions == 0
    for attack in record.attacks:
        for metric, finding in attack.findings.items():
            assert finding.gain.low <= 0, (attack.name, metric)
    assert summary(record)[0].startswith("Nothing beyond the prior: over 40 pictures")


def test_published_predictions_leak_with_every_latent_encrypted() -> None:
    record = small(protocol="update-only", noise_prediction="plaintext", attacks=["predictions"]).record
    assert record.beyond_prior
    assert (record.shown.latents, record.shown.predictions) == (0, 1)
    found = record.best("psnr")
    assert found is not None
    assert found[0] == "predictions"
    assert found[1].value.mean > record.nothing["psnr"].value.mean + 10
    assert "names the label of" in summary(record)[0]


def test_steps_between_messages_show_nothing() -> None:
    every = small(strategy="random", refresh={"name": "client", "every": 2}, attacks=["zero_fill"]).record
    each = small(strategy="random", attacks=["zero_fill"]).record
    assert every.shown.latents == pytest.approx(each.shown.latents / 2)


def test_labels_of_the_configuration_are_not_used() -> None:
    assert small(labels="3", attacks=["zero_fill"]).labels == (*range(10), 0, 1)


# -- curves ------------------------------------------------------------------------------------------------------------


def test_curves_go_from_nothing_to_everything(partial: Audit) -> None:
    assert partial.record.curves is not None
    by_name: dict[str, list[Any]] = {}
    for point in partial.record.curves.points:
        by_name.setdefault(point.strategy, []).append(point)
    assert set(by_name) == {"full", "min_distortion", "sparse", "random"}
    for name in ("min_distortion", "sparse", "random"):
        none, some, everything = by_name[name]
        assert (none.encrypted, everything.encrypted) == (1, 0)
        assert 0 < some.encrypted < 1
        assert none.ciphertexts > everything.ciphertexts == 0
        leaks = [point.best["psnr"].leak.mean for point in by_name[name]]
        assert leaks == sorted(leaks)
        assert (leaks[0], leaks[2]) == (0, pytest.approx(1, abs=0.1))
    assert by_name["random"][1].encrypted == pytest.approx(by_name["min_distortion"][1].encrypted, abs=0.02)
    assert by_name["sparse"][1].best == by_name["min_distortion"][1].best


def test_sparse_sends_fewer_ciphertexts_where_lists_can_be_sent() -> None:
    config = {"params": {"ring_dimension": 1024}, "protocol": "update-only", "attacks": ["zero_fill"]}
    record = small(images=30, thresholds=(0.3,), **config).record
    assert record.curves is not None
    cost = {point.strategy: point.ciphertexts for point in record.curves.points}
    assert record.curves.slots == 512
    assert cost["full"] == cost["min_distortion"] == 2 * -(-30 * 64 // 512)
    assert cost["sparse"] < cost["min_distortion"]


def test_a_strategy_of_ones_own_is_compared_as_it_is() -> None:
    found = list(curves.settings("roi", {"box": [0, 0, 0.5, 0.5]}, (0.01, 0.1), plugins.registry()))
    assert [(s.strategy, s.options, s.matches) for s in found if s.strategy in ("full", "roi")] == [
        ("full", {}, None),
        ("roi", {"box": [0, 0, 0.5, 0.5]}, None),
    ]
    chosen = list(curves.settings("random", {"seed": 3, "fraction": 0.2}, (0.01,), plugins.registry()))
    assert [(s.options, s.matches) for s in chosen if s.strategy == "random"] == [({"seed": 3}, 0.01)]


# -- other models ------------------------------------------------------------------------------------------------------


def test_a_prompt_model_is_audited_by_what_it_offers(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    model = {"name": "stable-diffusion", "pretrained": str(tmp_path / "tiny")}
    done = small(
        images=3,
        thresholds=(0.05,),
        model=model,
        prompt=["a cat", "a dog"],
        strategy="sparse",
        noise_prediction="plaintext",
        attacks=None,
    )
    record = done.record
    assert record.labels == 0
    assert record.metrics.keys() == {"psnr", "ssim", "gradient_distance"}
    assert record.not_available == ("label recovered: model 'stable-diffusion' takes prompts, not labels",)
    left_out = {attack.name: attack.left_out for attack in record.attacks if attack.left_out}
    assert left_out.keys() == {"template", "repaint", "inversion"}
    assert "denoise" in left_out["repaint"]
    assert done.shown is None
    assert done.truth.shape == (3, 3, 64, 64)
    again = small(images=3, model=model, prompt=["a cat", "a dog"], strategy="sparse", noise_prediction="plaintext")
    np.testing.assert_array_equal(again.truth, done.truth)
    html = render(record, dict.fromkeys(("audit.png", "audit-dark.png", "curves.svg", "curves-dark.svg"), b"x"))
    assert "Not available: label recovered: model &#39;stable-diffusion&#39; takes prompts" in html


class Oracle:
    """A stranger's attack, as good as can be: it is told the truth by the test."""

    reference = "made up"
    truth: np.ndarray

    def __init__(self, options: object) -> None: ...

    def refusal(self, view: View, attacker: Attacker) -> None: ...

    def guess(self, view: View, attacker: Attacker, rng: np.random.Generator) -> Guess:
        return Guess(self.truth[: len(view)])


class OraclePlugin:
    @hookimpl
    def hefw_attacks(self) -> list[Entry]:
        return [
            Entry("oracle", f"{__name__}:Oracle", "knows all"),
            Entry("elsewhere", f"{__name__}:Oracle", "needs more", requires=("no_such_module",), advice="install it"),
        ]


def test_a_strangers_attack_enters_by_the_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    found = plugins.build([*((name, _module(name)) for name in plugins.BUILTIN), ("stranger", OraclePlugin())])
    monkeypatch.setattr(plugins, "registry", lambda: found)
    monkeypatch.setattr(run, "registry", lambda: found)
    Oracle.truth = small(attacks=["zero_fill"]).truth
    record = small(attacks=["oracle"]).record
    (attack,) = record.attacks
    assert (attack.name, attack.summary, attack.reference) == ("oracle", "knows all", "made up")
    assert attack.findings["psnr"].value == record.everything["psnr"]
    assert attack.findings["label"].value.mean == record.everything["label"].mean
    everything = small(images=2, attacks=None).record
    assert "elsewhere" not in [attack.name for attack in everything.attacks]
    assert everything.not_available == ("attack 'elsewhere': no_such_module not installed; run: install it",)
    with pytest.raises(PluginError, match="attack 'elsewhere' is unavailable: no_such_module not installed"):
        small(attacks=["elsewhere"])


def _module(name: str) -> Callable[[], Any]:
    return lambda: importlib.import_module(name)


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"images": 1}, "images 1 is not allowed; allowed: 2 to 2000"),
        ({"attacks": ["repant"]}, "unknown attack 'repant'; did you mean 'repaint'? Known: inpaint, inversion"),
        ({"thresholds": (0.1, 1.5)}, "threshold 1.5 is not allowed; allowed: 0 to 1"),
    ],
)
def test_bad_input_is_one_line(arguments: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        audit(Config(), **arguments)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_noise_is_for_update_only() -> None:
    with pytest.raises(SchedulerError, match="DDPMScheduler is stochastic"):
        small(images=2, scheduler="ddpm")


def test_runs_that_diverge_are_named() -> None:
    with pytest.raises(SchedulerError, match="of model 'digits' are not finite with scheduler 'heun' and 4 steps"):
        small(images=2, scheduler="heun", protocol="update-only")


# -- pages and files ---------------------------------------------------------------------------------------------------


def test_the_page_stands_alone_and_has_every_figure(partial: Audit, tmp_path: Path) -> None:
    paths = write.write_audit(partial, tmp_path)
    assert [path.name for path in paths] == list(write.FILES)
    html = (tmp_path / "audit.html").read_text()
    assert not re.search(r"https?://|<script|<link", html)
    assert html.count("data:image/") == 4
    assert "prefers-color-scheme: dark" in html
    assert "width=device-width" in html
    assert "Only 20 pictures were audited" in html
    for attack in partial.record.attacks:
        assert attack.reference in html
        for finding in attack.findings.values():
            if finding.beyond_prior:
                assert "beyond" in html
    for sentence in summary(partial.record):
        assert sentence in html
    assert (tmp_path / "audit.json").read_text() == partial.record.to_json()


def test_without_curves_there_is_no_chart(tmp_path: Path) -> None:
    (tmp_path / "curves.svg").write_text("of an earlier audit")
    done = small(images=2, attacks=["zero_fill", "predictions"])
    paths = write.write_audit(done, tmp_path)
    assert [path.name for path in paths] == ["audit.png", "audit.html", "audit.json"]
    assert not (tmp_path / "curves.svg").exists()
    html = (tmp_path / "audit.html").read_text()
    assert "Leak against cost" not in html
    assert "left out: noise predictions are not shown in plaintext" in html
    assert "Nothing in plaintext: in none of 4 steps" in html


def test_pictures_are_the_same_bytes_for_the_same_audit(partial: Audit) -> None:
    assert chart.draw(partial.record) == chart.draw(partial.record)
    assert chart.draw(partial.record) != chart.draw(partial.record, dark=True)


def test_strategies_that_cost_and_leak_the_same_share_a_line(partial: Audit) -> None:
    assert partial.record.curves is not None
    assert [name for name, _ in chart.lines(partial.record.curves.points)] == [
        "full",
        "min_distortion, sparse",
        "random",
    ]


# -- the command -------------------------------------------------------------------------------------------------------

FAST = ["--images", "2", "--attacks", "zero_fill,mean_fill", "--thresholds", "none"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("steps: 2\nstrategy: random\nseed: 5\n")
    assert cli.run(["audit", str(tmp_path / "c.yaml"), *FAST, "--out", str(tmp_path / "a"), "--json"]) == 0
    printed = capsys.readouterr()
    record = AuditRecord.model_validate_json(printed.out)
    assert (record.seed, record.images, [a.name for a in record.attacks]) == (5, 2, ["zero_fill", "mean_fill"])
    assert (tmp_path / "a" / "audit.json").read_text() == printed.out
    assert "attacking 1/2, mean_fill" in printed.err
    assert f"wrote {tmp_path / 'a' / 'audit.html'}" in printed.err
    assert cli.run(["audit", str(tmp_path / "c.yaml"), *FAST, "--out", str(tmp_path / "b"), "--seed", "5"]) == 0
    assert "a better one may be found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--images", "1"], "--images 1 is not allowed; allowed: an integer from 2"),
        (["--images", "many"], "--images 'many' is not allowed"),
        (["--seed", "-1"], "--seed -1 is not allowed"),
        (["--attacks", "zerofill"], "did you mean 'zero_fill'"),
        (["--thresholds", "0,x"], "--thresholds 'x' is not a number; allowed: numbers from 0 to 1"),
        (["--thresholds", "2"], "threshold 2 is not allowed"),
        (["missing.yaml"], "does not exist"),
        (["--out", "/proc/nowhere/a"], "/proc/nowhere"),
    ],
)
def test_bad_options_are_one_line(arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["audit", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert part in error
    assert "\n" not in error


def test_interrupted_it_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(chart, "draw", interrupted)
    arguments = ["audit", "--images", "2", "--attacks", "zero_fill", "--thresholds", "0.1", "--out", str(tmp_path)]
    assert cli.run(arguments) == 130
    assert list(tmp_path.iterdir()) == []


def test_progress_ends_where_it_should() -> None:
    told: list[Progress] = []
    audit(Config(steps=2), images=2, attacks=["zero_fill"], thresholds=(0.1,), progress=told.append)
    for stage in ("draw", "attack", "curves"):
        last = [p for p in told if p.stage == stage][-1]
        assert last.done == last.total
