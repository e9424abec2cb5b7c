"""The text encoder: prompts to embeddings, at the key holder, in the clear."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

from hefw.models.mnist.text.captions import LONGEST, WORDS, numbers


class TextEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A transformer of one block over the words of a prompt, averaged into one embedding of mean 0 and deviation 1.

    Args:
        words: size of the vocabulary; word 0 stands for none.
        longest: most words of a prompt.
        width: width of the transformer.
        heads: its attention heads.
        embedding_size: entries of an embedding.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        words: int = len(WORDS),
        longest: int = LONGEST,
        width: int = 64,
        heads: int = 4,
        embedding_size: int = 32,
    ) -> None:
        super().__init__()
        self.word = nn.Embedding(words, width, padding_idx=0)
        self.place = nn.Parameter(0.02 * torch.randn(longest, width))
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 2 * width)
        self.outer = nn.Linear(2 * width, width)
        self.last = nn.Linear(width, embedding_size)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Numbers of words (count, longest), padded with 0 -> embeddings (count, embedding_size)."""
        absent = words == 0
        x = self.word(words) + self.place
        z = self.norm(x)
        x = x + self.attention(z, z, z, key_padding_mask=absent, need_weights=False)[0]
        x = x + self.outer(functional.gelu(self.inner(self.norm2(x))))
        present = (~absent).to(x.dtype)[:, :, None]
        pooled = self.last((x * present).sum(1) / present.sum(1))
        return functional.layer_norm(pooled, pooled.shape[1:])


def embed(encoder: TextEncoder, prompts: Sequence[str]) -> torch.Tensor:
    """Embeddings (prompts, embedding_size); ConfigError for a prompt with words that are not known."""
    embedded: torch.Tensor = encoder(torch.tensor([numbers(prompt) for prompt in prompts]))
    return embedded
