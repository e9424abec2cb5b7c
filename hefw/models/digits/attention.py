"""`digits-attention`: the UNet of `digits` with attention in its middle, by a kernel that is a polynomial."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import torch
from diffusers.configuration_utils import register_to_config
from torch import nn

from hefw.models.digits.train import DigitsTraining, load_as, train_network
from hefw.models.digits.train import load as load_digits
from hefw.models.digits.unet import PATCH, TwoResolutions

DEFAULT_ITERATIONS = 6_000
LEARNING_RATE = 3e-3
BUNDLED = Path(__file__).parent / "weights" / "digits-attention"


class PolynomialAttention(nn.Module):  # type: ignore[misc]
    """Attention among the pixels of a small picture with weights (1 + s / 2)^2 / tokens instead of a softmax's.

    s is the usual score, a scaled product of query and key. The kernel agrees with exp(s) to first order and is never
    negative; a constant takes the place of the softmax's sum, which would be a division.
    """

    def __init__(self, channels: int, heads: int, head_width: int, tokens: tuple[int, int]) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.position = nn.Parameter(0.1 * torch.randn(1, channels, *tokens))
        self.query, self.key, self.value = (nn.Conv2d(channels, heads * head_width, 1) for _ in range(3))
        self.out = nn.Conv2d(heads * head_width, channels, 1)

    def forward(self, a: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What is read for each pixel of a (batch, channels, height, width), and everything that goes through a square.

        A product of two encrypted numbers is ((p + q) / 2)^2 - ((p - q) / 2)^2.
        """
        placed = a + self.position
        query = self.tokens(self.query(placed)).mT / math.sqrt(self.head_width)
        key, value = self.tokens(self.key(placed)), self.tokens(self.value(placed))
        scores = 1 + (query @ key) / 2
        weights = scores * scores / scores.shape[-1]
        read = (weights @ value.mT).mT
        out: torch.Tensor = self.out(read.reshape(len(a), -1, *a.shape[2:]))
        q, k = query[:, :, :, None], key.mT[:, :, None]
        w, x = weights[..., None], value.mT[:, :, None]
        return out, [(q + k) / 2, (q - k) / 2, scores, (w + x) / 2, (w - x) / 2]

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, heads * width, height, width) as (batch, heads, width, tokens)."""
        return x.reshape(len(x), self.heads, self.head_width, -1)


class AttentionUNet(TwoResolutions):
    """`DigitsUNet` with attention among the 2x2 pixels of its lower resolution in place of the convolution there.

        z2 = z1 + attention(a1) + T2(t) + L2[y]

    Seven affine regions and eight squares in sequence: a score and a weighted sum are a square and a sum each.

    Args:
        sample_size: height and width of the image in pixels.
        channels: width of the upper resolution; the lower one has twice as many.
        heads: of the attention.
        head_width: channels of a head.
        num_classes: number of labels.
        time_embedding_width: width of the sinusoidal embedding.
        time_hidden_width: width of the MLP behind it.
        minimum_quadratic: lower bound of the activations' coefficients.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sample_size: int = 8,
        channels: int = 32,
        heads: int = 2,
        head_width: int = 8,
        num_classes: int = 10,
        time_embedding_width: int = 64,
        time_hidden_width: int = 128,
        minimum_quadratic: float = 0.1,
    ) -> None:
        super().__init__()
        tokens = (sample_size // PATCH // 2,) * 2
        widths = self.lay(sample_size, channels, lambda: PolynomialAttention(2 * channels, heads, head_width, tokens))
        self.condition(widths, num_classes, time_embedding_width, time_hidden_width, minimum_quadratic)

    def middle(self, a: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What attention reads, and its products."""
        read: tuple[torch.Tensor, list[torch.Tensor]] = self.mid(a)
        return read


def load(folder: str | Path = BUNDLED) -> tuple[AttentionUNet, object]:
    """The network (float32, eval mode) and scheduler that `run` wrote; FileNotFoundError if there are none."""
    return load_as(AttentionUNet, folder)


def begun() -> AttentionUNet:
    """A new network that has the layers of the bundled `digits` but its middle, so that training takes minutes."""
    network: AttentionUNet = AttentionUNet()
    layers = {name: tensor for name, tensor in load_digits()[0].state_dict().items() if not name.startswith("mid.")}
    network.load_state_dict(network.state_dict() | layers)
    return network


run = DigitsTraining("digits-attention", DEFAULT_ITERATIONS, partial(train_network, begun, learning_rate=LEARNING_RATE))
