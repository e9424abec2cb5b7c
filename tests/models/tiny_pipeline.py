"""Small pipelines of diffusers' own classes, from configs and seeded random weights: no download, no training.

`v1` is like Stable Diffusion 1.x (epsilon, PNDM), `v2` like 2.x (v-prediction, DDIM), `xl` like SDXL (two text
encoders, Euler). Prompts change the picture; latents are 4 x `size` x `size`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

WORDS = ("a", "an", "astronaut", "cat", "dog", "green", "horse", "in", "of", "on", "photo", "red", "riding")
CONTEXT = 77
WIDTH = 32
NOISE_LEVELS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer with a word for each of WORDS, and letters for all others."""
    letters = [chr(code) for code in range(33, 127)]
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merges.append(f"{pieces[0]} {pieces[1]}")
            pieces[:2] = ["".join(pieces[:2])]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair.split()) for pair in merges)]
    tokens = [*dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"])]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *dict.fromkeys(merges)]) + "\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token="<|endoftext|>", model_max_length=CONTEXT
    )


def text_encoder(kind: Any, words: CLIPTokenizer) -> Any:
    """CLIP's text encoder of two small layers."""
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        projection_dim=WIDTH,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return kind(config)


def unet(size: int, context: int, **more: Any) -> Any:
    """Two resolutions; text reaches the lower one, and matters: random weights would hardly let it."""
    made = diffusers.UNet2DConditionModel(
        sample_size=size,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        cross_attention_dim=context,
        attention_head_dim=2,
        **more,
    )
    with torch.no_grad():
        for name, weights in made.named_parameters():
            if "attn2.to_out" in name:
                weights *= 20
    return made


def vae(**more: Any) -> Any:
    """Eight pixels an entry, as the real one."""
    return diffusers.AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        **more,
    )


def pipeline(kind: str, folder: Path, size: int = 8) -> Any:
    """The pipeline `kind` ('v1', 'v2' or 'xl'); the tokenizer's files are written into `folder`."""
    state = torch.get_rng_state()
    torch.manual_seed(5)
    words = tokenizer(folder / "words")
    try:
        parts = xl(words, size) if kind == "xl" else stable(words, size, kind)
    finally:
        torch.set_rng_state(state)
    if kind == "xl":
        made = diffusers.StableDiffusionXLPipeline(**parts, add_watermarker=False)
    else:
        made = diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
    for network in (made.unet, made.vae, made.text_encoder):
        network.eval()
    made.set_progress_bar_config(disable=True)
    return made


def stable(words: CLIPTokenizer, size: int, kind: str) -> dict[str, Any]:
    """The parts of StableDiffusionPipeline."""
    schedulers = {
        "v1": diffusers.PNDMScheduler(**NOISE_LEVELS, skip_prk_steps=True, steps_offset=1),
        "v2": diffusers.DDIMScheduler(
            **NOISE_LEVELS,
            prediction_type="v_prediction",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
    }
    return {
        "text_encoder": text_encoder(CLIPTextModel, words),
        "tokenizer": words,
        "unet": unet(size, WIDTH),
        "vae": vae(scaling_factor=0.18215),
        "scheduler": schedulers[kind],
        "safety_checker": None,
        "feature_extractor": None,
    }


def xl(words: CLIPTokenizer, size: int) -> dict[str, Any]:
    """The parts of StableDiffusionXLPipeline."""
    times = 8
    return {
        "text_encoder": text_encoder(CLIPTextModel, words),
        "text_encoder_2": text_encoder(CLIPTextModelWithProjection, words),
        "tokenizer": words,
        "tokenizer_2": words,
        "unet": unet(
            size,
            2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=times,
            projection_class_embeddings_input_dim=WIDTH + 6 * times,
            use_linear_projection=True,
        ),
        "vae": vae(scaling_factor=0.13025),
        "scheduler": diffusers.EulerDiscreteScheduler(**NOISE_LEVELS, steps_offset=1, timestep_spacing="leading"),
    }


def psnr(images: Any, plain: Any) -> float:
    """Peak signal-to-noise ratio in dB of pictures whose range is 1; infinite where nothing differs."""
    mean = float(((torch.as_tensor(images) - torch.as_tensor(plain)) ** 2).mean())
    return -10 * math.log10(mean) if mean else math.inf
