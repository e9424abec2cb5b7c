"""Small pipelines of diffusers' own classes to try things out: random weights from a seed, no download, no training.

They are built as Stable Diffusion is, and draw nothing that anybody would recognise; but prompts, guidance and negative
prompts change what they draw.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

#: Words that are one token; others are spelt.
WORDS = ("a", "an", "astronaut", "cat", "dog", "green", "horse", "in", "of", "on", "photo", "red", "riding")
CONTEXT = 77
WIDTH = 32
NOISE_LEVELS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}

Kind = Literal["v1", "v2", "xl"]


def tiny_pipeline(kind: Kind = "v1", size: int = 8, seed: int = 0) -> Any:
    """A pipeline like Stable Diffusion 1.x (epsilon, PNDM), 2.x (v-prediction, DDIM) or XL (two text encoders, Euler).

    Latents are (4, size, size), pictures (3, 8 size, 8 size); `size` is even, and 64 is that of the real one.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = _xl(size) if kind == "xl" else _stable(size, kind)
    for network in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if hasattr(made, network):
            getattr(made, network).eval()
    made.set_progress_bar_config(disable=True)
    return made


def _stable(size: int, kind: Kind) -> Any:
    words = _tokenizer()
    if kind == "v1":
        scheduler = diffusers.PNDMScheduler(**NOISE_LEVELS, skip_prk_steps=True, steps_offset=1)
    else:
        scheduler = diffusers.DDIMScheduler(
            **NOISE_LEVELS, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1
        )
    return diffusers.StableDiffusionPipeline(
        text_encoder=_text_encoder(CLIPTextModel, words),
        tokenizer=words,
        unet=_unet(size, WIDTH),
        vae=_vae(0.18215),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _xl(size: int) -> Any:
    words, times = _tokenizer(), 8
    return diffusers.StableDiffusionXLPipeline(
        text_encoder=_text_encoder(CLIPTextModel, words),
        text_encoder_2=_text_encoder(CLIPTextModelWithProjection, words),
        tokenizer=words,
        tokenizer_2=words,
        unet=_unet(
            size,
            2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=times,
            projection_class_embeddings_input_dim=WIDTH + 6 * times,
            use_linear_projection=True,
        ),
        vae=_vae(0.13025),
        scheduler=diffusers.EulerDiscreteScheduler(**NOISE_LEVELS, steps_offset=1, timestep_spacing="leading"),
        add_watermarker=False,
    )


def _tokenizer() -> Any:
    """CLIP's tokenizer, with a token for each of WORDS and for each letter."""
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merges.append(f"{pieces[0]} {pieces[1]}")
            pieces[:2] = ["".join(pieces[:2])]
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(pair.replace(" ", "") for pair in merges)]
    tokens = [*dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"])]
    with tempfile.TemporaryDirectory(prefix="hefw-") as folder:
        vocabulary, order = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        vocabulary.write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
        order.write_text("\n".join(["#version: 0.2", *dict.fromkeys(merges)]) + "\n")
        return CLIPTokenizer(str(vocabulary), str(order), pad_token="<|endoftext|>", model_max_length=CONTEXT)


def _text_encoder(kind: Any, words: Any) -> Any:
    """CLIP's text encoder of two small layers."""
    return kind(
        CLIPTextConfig(
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
    )


def _unet(size: int, context: int, **more: Any) -> Any:
    """Two resolutions; text reaches the lower one, and matters: random weights alone would hardly let it."""
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


def _vae(scaling_factor: float) -> Any:
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
        scaling_factor=scaling_factor,
    )
