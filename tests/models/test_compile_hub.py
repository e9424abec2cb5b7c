"""Networks by their name on the hub: what diffusers is asked for, and one line where there is no network."""

from __future__ import annotations

import shutil

import huggingface_hub
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

from hefw.core.errors import PluginError
from hefw.models.compiler.load import load_saved
from hefw.testing.unets import CONFIGURATIONS


@pytest.mark.parametrize("pipeline", [True, False])
def test_a_repository_of_a_pipeline_or_of_a_unet_alone(monkeypatch, tmp_path, pipeline) -> None:
    """As the hub would give it: only what is asked for, by the patterns that say so."""
    torch.manual_seed(0)
    net, scheduler = UNet2DModel(**CONFIGURATIONS["classes"]), DDIMScheduler(clip_sample=False, beta_end=0.03)
    remote, local, asked = tmp_path / "remote", tmp_path / "local", []
    if pipeline:
        DDIMPipeline(net, scheduler).save_pretrained(remote)
    else:
        net.save_pretrained(remote)
        scheduler.save_pretrained(remote)
    (remote / "pytorch_model.bin").write_bytes(b"not wanted")

    def snapshot_download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append(name)
        files = [str(path.relative_to(remote)) for path in remote.rglob("*") if path.is_file()]
        for file in huggingface_hub.utils.filter_repo_objects(files, allow_patterns=allow_patterns):
            (local / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(remote / file, local / file)
        return str(local)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    saved = load_saved("someone/digits-unet")
    assert asked == ["someone/digits-unet"]
    assert not (local / "pytorch_model.bin").exists()
    assert not saved.module.training
    for name, value in net.state_dict().items():
        assert torch.equal(saved.module.state_dict()[name], value)
    assert saved.scheduler.config.beta_end == 0.03
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
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: pytest.fail(f"asked for {name}"))
    with pytest.raises(PluginError, match="there is no such folder"):
        load_saved(name)
