"""The denoiser of `mnist`: a lean UNet on latents, of affine maps and quadratics only."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional

from hefw.models.quadratic import QuadraticActivation, QuadraticUNet, sinusoids, timesteps_of

Shape = tuple[int, int, int]


class Conditioning(nn.Module):  # type: ignore[misc]
    """What timestep and label add to a region (channels, height, width), and what each place has of its own.

    Each adds a bias a channel and, through one mixing of few maps into all channels, a bias a place. The timestep's
    part and the label's are only ever summed: a private label is then one linear map, the same at every step.
    """

    def __init__(self, shape: Shape, maps: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.shape, self.maps = shape, maps
        entries = channels + maps * height * width
        self.time = nn.Linear(hidden, entries)
        self.label = nn.Embedding(num_classes, entries)
        nn.init.normal_(self.label.weight, std=0.3)
        self.mix = nn.Conv2d(maps, channels, 1, bias=False)
        self.place = nn.Parameter(torch.zeros(shape))

    def forward(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Embedded timesteps (1 or count, hidden) and labels (count,) -> (count, *shape)."""
        channels, height, width = self.shape
        entries = self.time(hidden) + self.label(labels)
        maps = entries[:, channels:].reshape(-1, self.maps, height, width)
        return entries[:, :channels, None, None] + self.mix(maps) + self.place


class LatentUNet(QuadraticUNet):
    """Class-conditional v-prediction in two resolutions, of depth 2K + 1 for K quadratics.

    Every region reads activations and earlier regions through one linear map, so that none has to be merged and none
    takes more than one level. With B_k(t, y) = T_k(t) + L_k[y] + a map of its own:

        z0 = conv(x) + B0                                          (channels, size, size)
        z1 = down(act(z0)) + down'(z0) + B1                        (2 channels, size / 2, size / 2)
        zk = z(k-1) + conv(act(z(k-1))) + Bk                       the same, for each further quadratic there
        zl = z0 + conv(act(z0)) + up(act(zk)) + up'(zk) + Bl       (channels, size, size)
        v  = conv(act(zl)) + mix(zl) + mix'(x)

    Args:
        sample_size: height and width of a latent.
        sample_channels: its channels.
        channels: width of the upper resolution; the lower one has twice as many.
        quadratics: K, of which K - 2 are at the lower resolution; at least 3.
        num_classes: number of labels.
        maps: rank of the conditioning in space.
        time_embedding_width: width of the sinusoidal embedding.
        time_hidden_width: width of the network behind it.
        minimum_quadratic: lower bound of the activations' coefficients.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sample_size: int = 8,
        sample_channels: int = 2,
        channels: int = 32,
        quadratics: int = 4,
        num_classes: int = 10,
        maps: int = 4,
        time_embedding_width: int = 64,
        time_hidden_width: int = 128,
        minimum_quadratic: float = 0.1,
    ) -> None:
        super().__init__()
        if sample_size % 2:
            raise ValueError(f"sample_size={sample_size}: expected an even number")
        if quadratics < 3:
            raise ValueError(f"quadratics={quadratics}: expected at least 3")
        high: Shape = (channels, sample_size, sample_size)
        low: Shape = (2 * channels, sample_size // 2, sample_size // 2)
        self.shapes = [high, *[low] * (quadratics - 2), high]
        self.hidden = nn.Linear(time_embedding_width, time_hidden_width)
        self.hidden2 = nn.Linear(time_hidden_width, time_hidden_width)
        self.conditioning = nn.ModuleList(
            Conditioning(shape, maps, time_hidden_width, num_classes) for shape in self.shapes
        )
        self.activations = nn.ModuleList(QuadraticActivation(shape[0], minimum_quadratic) for shape in self.shapes)
        self.inp = nn.Conv2d(sample_channels, channels, 3, padding=1, bias=False)
        self.across = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.down = nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1, bias=False)
        self.down_residual = nn.Conv2d(channels, 2 * channels, 2, stride=2, bias=False)
        self.mid = nn.ModuleList(
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, bias=False) for _ in range(quadratics - 3)
        )
        self.up = nn.ConvTranspose2d(2 * channels, channels, 4, stride=2, padding=1, bias=False)
        self.up_residual = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2, bias=False)
        self.out = nn.Conv2d(channels, sample_channels, 3, padding=1)
        self.out_residual = nn.Conv2d(channels, sample_channels, 1, bias=False)
        self.skip = nn.Conv2d(sample_channels, sample_channels, 1, bias=False)
        for layer in (self.out, self.out_residual):
            nn.init.zeros_(layer.weight)

    def embed(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Timesteps (count,) -> (count, time_hidden_width)."""
        embedded = sinusoids(timesteps, self.config.time_embedding_width, self.hidden.weight)
        return functional.silu(self.hidden2(functional.silu(self.hidden(embedded))))

    def forward_with_preactivations(
        self, sample: torch.Tensor, timestep: int | torch.Tensor, class_labels: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """v, and the inputs of all quadratics in order; arguments are those of `forward`."""
        hidden = self.embed(timesteps_of(timestep, sample))
        biases = [part(hidden, class_labels) for part in self.conditioning]
        act = self.activations
        first = self.inp(sample) + biases[0]
        activated = act[0](first)
        z = [first, self.down(activated) + self.down_residual(first) + biases[1]]
        for k, layer in enumerate(self.mid, start=1):
            z.append(z[k] + layer(act[k](z[k])) + biases[k + 1])
        low = z[-1]
        last = first + self.across(activated) + self.up(act[-2](low)) + self.up_residual(low) + biases[-1]
        z.append(last)
        return self.out(act[-1](last)) + self.out_residual(last) + self.skip(sample), z
