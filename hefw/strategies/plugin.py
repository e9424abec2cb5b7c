"""Registers the built-in strategies. Light: imports no array library."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PlainValidator, StrictInt, StrictStr, model_validator

from hefw.hookspecs import Entry, Options, hookimpl
from hefw.strategies.share import Share, ShareOrNone, to_share

DEFAULT_THRESHOLD = 0.01  # HE-Diffusion's


class MinDistortionOptions(Options):
    """Options of `min_distortion` and `sparse`: how much may be seen."""

    #: The share of the total distortion that may be plaintext, 0 to 1; 0.01 if neither option is given.
    threshold: ShareOrNone = None
    #: The share of the entries that is encrypted, 0 to 1, instead of a threshold.
    fraction: ShareOrNone = None

    @model_validator(mode="after")
    def _one(self) -> MinDistortionOptions:
        if self.threshold is not None and self.fraction is not None:
            raise ValueError("give threshold or fraction, not both")
        return self


class RandomOptions(Options):
    """Options of `random`."""

    #: The share of the entries that is encrypted, 0 to 1.
    fraction: Share = 0.5
    #: Fixes the places, and nothing else.
    seed: Annotated[StrictInt, Field(ge=0)] = 0


Box = tuple[float, float, float, float]


def _to_box(value: object) -> Box | None:
    if value is None:
        return None
    try:
        if not isinstance(value, (list, tuple)):
            raise ValueError
        top, left, bottom, right = (to_share(edge) for edge in value)
    except ValueError:
        raise ValueError(
            "give [top, left, bottom, right] as shares of height and width from 0 to 1, for example "
            "[0.25, 0.25, 0.75, 0.75]"
        ) from None
    if top >= bottom or left >= right:
        raise ValueError("the box is empty; give [top, left, bottom, right] with top < bottom and left < right")
    return top, left, bottom, right


class RoiOptions(Options):
    """Options of `roi`: exactly one of them."""

    #: The path of an image file, white = encrypted.
    mask: Annotated[StrictStr, Field(min_length=1)] | None = None
    #: [top, left, bottom, right] as shares of height and width, 0 to 1.
    box: Annotated[Box | None, PlainValidator(_to_box)] = None

    @model_validator(mode="after")
    def _one(self) -> RoiOptions:
        if (self.mask is None) == (self.box is None):
            raise ValueError(
                "give one of mask (the path of an image, white = encrypted) and box ([top, left, bottom, right] as "
                "shares of height and width)"
            )
        return self


@hookimpl
def hefw_strategies() -> list[Entry]:
    return [
        Entry("full", "hefw.strategies.full:Full", "every entry of the latent is encrypted"),
        Entry(
            "min_distortion",
            "hefw.strategies.min_distortion:MinDistortion",
            "HE-Diffusion's partial encryption: what matters least to the picture is plaintext",
            options=MinDistortionOptions,
        ),
        Entry(
            "sparse",
            "hefw.strategies.sparse:Sparse",
            "the selection of min_distortion, its encrypted entries sent as a list",
            options=MinDistortionOptions,
        ),
        Entry(
            "random",
            "hefw.strategies.random:Random",
            "a share of the entries at random places, the same for every picture: a control",
            options=RandomOptions,
        ),
        Entry(
            "roi",
            "hefw.strategies.roi:Roi",
            "a region of interest is encrypted, from a mask or a box",
            options=RoiOptions,
        ),
    ]
