"""Networks by their name on the hub: what diffusers is asked for, and one line where there is no network."""

from __future__ import annotations

from types import SimpleNamespace

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel

from hefw.core.errors import PluginError
from hefw.models.compiler.load import load_saved
from hefw.testing.unets import CONFIGURATIONS


def test_a_name_goes_to_diffusers_untouched(monkeypatch) -> None:
    torch.manual_seed(0)
    asked: list[str] = []
    net, scheduler = UNet2DModel(**CONFIGURATIONS["classes"]), DDIMScheduler(clip_sample=False)

    def from_pretrained(name: str) -> SimpleNamespace:
        asked.append(name)
        return SimpleNamespace(unet=net, scheduler=scheduler)

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", from_pretrained)
    saved = load_saved("someone/digits-unet")
    assert asked == ["someone/digits-unet"]
    assert saved.module is net
    assert not saved.module.training
    assert saved.scheduler is scheduler
    assert (saved.sample_shape, saved.classes) == ((1, 8, 8), 5)


def test_offline_says_what_can_be_done(monkeypatch, tmp_path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PluginError, match=r"no UNet can be loaded from 'someone/digits-unet'.*give a folder") as caught:
        load_saved("someone/digits-unet")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a/b/c", "/absolute/folder", "model.bin"])
def test_what_is_no_name_is_not_looked_up(monkeypatch, name) -> None:
    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", lambda name: pytest.fail(f"asked for {name}"))
    with pytest.raises(PluginError, match="there is no such folder"):
        load_saved(name)
