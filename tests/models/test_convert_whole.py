"""Whole conversions of small networks: order, budget, report, distillation, what is saved, what is compiled."""

from __future__ import annotations

import json

import pytest
import torch
from convert_nets import CLASSES, SHAPE, Attending, Branches, Tiny, scheduler, seeded
from diffusers import EulerDiscreteScheduler, UNet2DModel

import hefw
from hefw.core.errors import CompileError, SchedulerError
from hefw.core.graph import Affine, Input, Polynomial
from hefw.core.normalise import normalise
from hefw.models.convert import Converted, Distillation, Report, convert
from hefw.models.convert.report import STAGE

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = 3
ATTENTION = "scaled_dot_product_attention"
NONE = Distillation(iterations=0)
SHORT = Distillation(iterations=60, images=30, own_images=10, batch=32, learning_rate=3e-3)


def converted(make=Tiny, how=NONE, **options):
    sizes = {"sample_shape": SHAPE, "classes": CLASSES if make is Tiny else None}
    return convert(seeded(make), **({"scheduler": scheduler(), "steps": STEPS, "distillation": how} | sizes | options))


def compiled(network, steps=STEPS, classes=CLASSES):
    return hefw.compile(network, SHAPE, scheduler=scheduler(), steps=steps, classes=classes)


def depth(graph):
    """Affine regions and squares in sequence, of the graph that is planned."""
    flat = normalise(graph)
    found = {}
    for name, node in flat.nodes.items():
        if isinstance(node, Affine):
            found[name] = 1 + max(found[term.source] for term in node.terms)
        elif isinstance(node, Polynomial):
            found[name] = 1 + found[node.source]
        else:
            assert isinstance(node, Input)
            found[name] = 0
    return max(found.values())


def test_replacements_come_in_order_and_each_is_reported():
    report = converted(levels=5).report
    done = [(row.place, row.operator, row.replacement, row.levels) for row in report.rows]
    dropped = next(row.place for row in report.rows if row.replacement == "linear")
    assert done == [
        ("original", STAGE, "", 1),
        ("norm", "group_norm", "static", 1),
        ("norm2", "layer_norm", "static", 1),
        ("static norms", STAGE, "", 1),
        (ATTENTION, ATTENTION, done[4][2], 1),
        ("attention", STAGE, "", 1),
        ("act", "silu", "additive", 1),
        ("additive labels", STAGE, "", 1),
        ("act#2", "silu", "degree 2", 3),
        ("silu", "silu", "degree 2", 5),
        ("act#3", "silu", "degree 2", 7),
        ("polynomials of degree 2", STAGE, "", 7),
        (dropped, "silu", "linear", 5),
        ("fewer activations", STAGE, "", 5),
    ]
    assert report.rows[0].error == 0
    assert all(row.error > 0 for row in report.rows[1:])


def test_a_report_is_a_table_and_json():
    asked = []

    def metric(network):
        asked.append(network(torch.zeros(2, *SHAPE), torch.tensor(999), torch.arange(2)).sample.shape)
        return float(len(asked))

    report = converted(levels=3, metric=metric).report
    stages = [row for row in report.rows if row.operator == STAGE]
    assert [row.metric for row in stages] == [float(k + 1) for k in range(len(stages))]
    assert all(row.metric is None for row in report.rows if row.operator != STAGE)
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    lines = str(report).splitlines()
    assert len(lines) == 1 + len(report.rows)
    assert lines[0].split() == ["place", "operator", "replacement", "error", "added", "levels", "metric"]
    assert report.settings["levels"] == 3


@pytest.mark.parametrize("options", [{"levels": 6}, {"degree": 4, "levels": 11}, {"keep": ["act#2"]}])
def test_the_compiled_graph_has_the_depth_that_the_report_says(options):
    network = converted(**options)
    graph = compiled(network)
    assert depth(graph) == network.report.rows[-1].levels <= options.get("levels", 13)
    assert all(node.shape == (CLASSES,) for name, node in graph.nodes.items() if "label" in name)  # no table a step


def test_parallel_branches_are_counted_once():
    whole = converted(Branches)
    assert depth(compiled(whole, classes=None)) == whole.report.rows[-1].levels == 5
    less = converted(Branches, levels=3)
    assert depth(compiled(less, classes=None)) == 3
    linear = [row.place for row in less.report.rows if row.replacement == "linear"]
    assert len(linear) == 1
    assert linear[0] in ("acts.0", "acts.1")


@pytest.mark.parametrize(("attention", "levels"), [("mean", 7), ("quadratic kernel", 13)])
def test_every_attention_compiles_to_what_the_module_computes(attention, levels):
    network = converted(attention=attention)
    graph = compiled(network)  # which compares both in float64
    assert depth(graph) == network.report.rows[-1].levels == levels


@pytest.mark.parametrize(("share", "left_out"), [(0.01, True), (1.0, False)])
def test_attention_is_left_out_only_where_that_harms_little(share, left_out):
    network = seeded(lambda: Attending(share))
    rows = convert(network, scheduler=scheduler(), steps=STEPS, sample_shape=SHAPE, distillation=NONE).report.rows
    assert (next(row.replacement for row in rows if row.operator == ATTENTION) == "zero") is left_out
    assert rows[-1].error < 0.5


def test_distillation_brings_it_closer_and_is_the_same_again():
    first = converted(levels=5, how=SHORT)
    before, after = first.report.rows[-2].error, first.report.rows[-1].error
    assert after < 0.8 * before
    second = converted(levels=5, how=SHORT)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name
    other = converted(levels=5, how=SHORT, seed=1)
    assert any(not torch.equal(w, other.state_dict()[n]) for n, w in first.state_dict().items())


def test_a_frozen_network_is_distilled_as_any_other():
    first = converted(levels=5, how=SHORT)
    frozen = converted(lambda: Tiny().requires_grad_(False), levels=5, how=SHORT, classes=CLASSES)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, frozen.state_dict()[name]), name


def test_the_original_is_left_as_it_was():
    network = seeded(Tiny)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    convert(network, scheduler=scheduler(), steps=2, sample_shape=SHAPE, classes=CLASSES, distillation=SHORT)
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())
    assert all(p.requires_grad for p in network.parameters())


def unet():
    return UNet2DModel(
        sample_size=4,
        in_channels=1,
        out_channels=1,
        block_out_channels=(4,),
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=2,
        num_class_embeds=CLASSES,
        attention_head_dim=2,
    )


def test_a_network_of_diffusers_is_saved_and_loaded(tmp_path):
    network = convert(seeded(unet), scheduler=scheduler(), steps=STEPS, levels=5, distillation=NONE)
    network.save_pretrained(tmp_path)
    again = Converted.from_pretrained(tmp_path)
    x, y = torch.randn(3, 1, 4, 4), torch.arange(3)
    for t in (torch.tensor(999), torch.tensor(400)):
        torch.testing.assert_close(again(x, t, y).sample, network(x, t, y).sample)


def test_high_degrees_are_saved_with_their_interval(tmp_path):
    network = convert(seeded(unet), scheduler=scheduler(), steps=2, degree=4, distillation=NONE)
    network.save_pretrained(tmp_path)
    x, y = torch.randn(3, 1, 4, 4), torch.arange(3)
    again = Converted.from_pretrained(tmp_path)
    torch.testing.assert_close(again(x, 999, y).sample, network(x, 999, y).sample)


def test_a_module_that_is_not_of_diffusers_cannot_be_made_from_its_configuration(tmp_path):
    converted(levels=3).save_pretrained(tmp_path)
    with pytest.raises(CompileError, match=r"was not made by diffusers.*torch\.load"):
        Converted.from_pretrained(tmp_path)


def test_schedulers_that_scale_their_latents_are_followed():
    euler = EulerDiscreteScheduler(prediction_type="v_prediction", timestep_spacing="trailing")
    network = converted(levels=5, scheduler=euler, how=SHORT)
    assert network.report.rows[-1].error < network.report.rows[-2].error


def test_a_scheduler_that_adds_noise_is_refused():
    from diffusers import DDPMScheduler

    with pytest.raises(SchedulerError, match="stochastic"):
        converted(scheduler=DDPMScheduler(clip_sample=False))
