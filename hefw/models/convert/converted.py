"""A network with some of its calls replaced: a module to train, to save and to give to `hefw.compile`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import diffusers
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn

from hefw.core.errors import CompileError
from hefw.models.convert.calls import Call, Calls
from hefw.models.convert.replacements import Context, Replacement, Specification, build
from hefw.models.convert.report import Report
from hefw.models.convert.survey import Prediction


class Converted(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A network with replacements for what ciphertext cannot bear.

    Made by `convert`, and by `from_pretrained` of what was saved. Between the timesteps that it was made for, static
    norms are interpolated; it is best on these timesteps.

    Args:
        original: class and configuration of a diffusers network; None for another module, which is not saved by class.
        replacements: specifications, as dictionaries.
        timesteps: those that norms and conditioning are tabulated for, in any order.
        in_channels: channels of a sample.
        sample_size: its other sizes, (height, width).
        num_class_embeds: number of labels, or None.
        module: the network, where it is not to be made from `original`.
    """

    ignore_for_config = ["module"]  # noqa: RUF012 (diffusers' own way)
    known_timesteps: torch.Tensor
    report: Report | None = None

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        original: Mapping[str, Any] | None,
        replacements: Sequence[Mapping[str, Any]],
        timesteps: Sequence[float],
        in_channels: int,
        sample_size: Sequence[int],
        num_class_embeds: int | None = None,
        module: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if module is None:
            if original is None:
                raise CompileError(
                    "this network was not made by diffusers, so its class is not known: load it with torch.load, as it "
                    "was saved with torch.save"
                )
            module = getattr(diffusers, original["_class_name"]).from_config(original)
        self.network = module
        self.replaced = nn.ModuleDict()
        self.specifications: dict[int, Specification] = {}
        for entry in replacements:
            specification = Specification(**entry)
            self.put(specification, build(specification))
        self.register_buffer("known_timesteps", torch.tensor(sorted(timesteps), dtype=torch.float32), persistent=False)
        #: How far polynomials have replaced activations, and where what they read goes: for training.
        self.blend = 1.0
        self.read: list[torch.Tensor] | None = None

    def put(self, specification: Specification, replacement: Replacement) -> None:
        """Replace a call."""
        self.specifications[specification.number] = specification
        self.replaced[str(specification.number)] = replacement
        if "known_timesteps" in self._buffers:
            self.register_to_config(replacements=[asdict(s) for s in self.specifications.values()])

    @contextlib.contextmanager
    def trying(self, specification: Specification, replacement: Replacement) -> Iterator[None]:
        """Within it, a call is replaced so; afterwards as before."""
        key = str(specification.number)
        before: Any = dict(self.replaced.items()).get(key)
        self.replaced[key] = replacement
        try:
            yield
        finally:
            if before is None:
                del self.replaced[key]
            else:
                self.replaced[key] = before

    def train(self, mode: bool = True) -> Converted:
        """Replacements train; the original stays as it is evaluated, without dropout."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(
        self,
        sample: torch.Tensor,
        timestep: float | torch.Tensor,
        class_labels: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        """The prediction for samples (batch, channels, *sizes), timesteps (batch,) or one, and labels (batch,)."""
        t = torch.as_tensor(timestep, device=sample.device)
        context = Context(self.step_weights(t.reshape(-1)), class_labels, self.blend, self.read)

        def answer(call: Call) -> Any:
            key = str(call.number)
            return self.replaced[key](call, context) if key in self.replaced else call.run()

        predict = Prediction(self.network, class_labels is not None)
        with Calls(answer):
            found = predict(sample, t.expand(sample.shape[0]), class_labels)
        return UNet2DOutput(sample=found) if return_dict else (found,)

    def step_weights(self, t: torch.Tensor) -> torch.Tensor:
        """Timesteps (batch,) between those tabulated: (batch, timesteps), at most two not zero, their sum 1."""
        known = self.known_timesteps
        if len(known) == 1:
            return torch.ones(len(t), 1, dtype=known.dtype, device=t.device)
        at = t.to(known.dtype)[:, None].clamp(known[0], known[-1])
        gap = known[1:] - known[:-1]
        # of each interval, how much of it lies below t: hat functions are differences of these
        below = ((at - known[:-1]) / gap).clamp(0, 1)
        ones, zeros = torch.ones_like(at), torch.zeros_like(at)
        return torch.cat([ones, below], 1) - torch.cat([below, zeros], 1)
