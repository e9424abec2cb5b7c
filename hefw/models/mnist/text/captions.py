"""The small language of `mnist-text`: what a prompt may say, what it means, and captions of measured digits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hefw.core.errors import ConfigError

Array = NDArray[np.float64]

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WIDTHS = (("thin", "light", "fine"), ("normal", "medium", "regular"), ("bold", "thick", "heavy"))
LEFT, UPRIGHT, RIGHT = range(3)
LEANS = ("leaning", "slanted", "italic")
SIDES = ("left", "right")
STRAIGHT = ("upright", "straight")
FILLERS = ("a", "an", "the", "and", "digit", "number", "handwritten")

#: Every word that a prompt may hold, by its number in the embedding; 0 stands for no word.
WORDS = (
    "",
    *DIGITS,
    *map(str, range(10)),
    *(word for words in WIDTHS for word in words),
    *LEANS,
    *SIDES,
    *STRAIGHT,
    *FILLERS,
)
LONGEST = 12  # words
EXAMPLE = "for example --prompt 'a thin seven', or 'a bold slanted four'"
#: Shares of the pictures of a label that are called thin and bold, leaning left and slanted.
LOWER, UPPER = 0.3, 0.7


@dataclass(frozen=True)
class Caption:
    """What a prompt asks for. `width` 0 to 2 is thin, normal, bold, `slant` 0 to 2 left, upright, right; None: any."""

    label: int
    width: int | None = None
    slant: int | None = None


def parse(prompt: str) -> Caption:
    """The meaning of a prompt; ConfigError if it has a word that is not known, no digit, or two of a kind."""
    words = split(prompt)
    label = _only(prompt, "digit", [_label(word) for word in words])
    width = _only(prompt, "stroke width", [_width(word) for word in words])
    slant = _only(prompt, "slant", _slants(words))
    if label is None:
        raise ConfigError(f"prompt {prompt!r} names no digit; give one of {', '.join(DIGITS)}; {EXAMPLE}")
    return Caption(label, width, slant)


def split(prompt: str) -> list[str]:
    """The words of a prompt; ConfigError for one that is not known, and for too many."""
    words = re.findall(r"[^\s,.;-]+", prompt.lower())
    for word in words:
        if word not in WORDS:
            raise ConfigError(f"prompt {prompt!r}: {word!r} is not a word of this model; {vocabulary()}; {EXAMPLE}")
    if len(words) > LONGEST:
        raise ConfigError(f"prompt {prompt!r} has {len(words)} words; allowed: up to {LONGEST}; {EXAMPLE}")
    return words


def vocabulary() -> str:
    """All words, by what they say."""
    kinds = {
        "digits": (*DIGITS, "0 to 9"),
        "stroke width": tuple(word for words in WIDTHS for word in words),
        "slant": (*STRAIGHT, *LEANS, *SIDES),
        "fillers": FILLERS,
    }
    return "; ".join(f"{kind}: {', '.join(words)}" for kind, words in kinds.items())


def numbers(prompt: str) -> list[int]:
    """The numbers of a prompt's words, padded with 0 to LONGEST."""
    found = [WORDS.index(word) for word in split(prompt)]
    return found + [0] * (LONGEST - len(found))


def phrase(caption: Caption, rng: np.random.Generator) -> str:
    """One of the prompts that mean a caption, drawn at random."""
    width = [] if caption.width is None else [str(rng.choice(WIDTHS[caption.width]))]
    before: list[str] = []
    after: list[str] = []
    if caption.slant == UPRIGHT:
        before = [str(rng.choice(STRAIGHT))]
    elif caption.slant is not None:
        lean = str(rng.choice(LEANS))
        if caption.slant == RIGHT and rng.random() < 0.5:
            before = [lean]
        else:
            after = [lean, SIDES[caption.slant == RIGHT]]
    if after and rng.random() < 0.5:
        before, after = after, []
    adjectives = [*before, *width] if rng.random() < 0.5 else [*width, *before]
    digit = DIGITS[caption.label] if rng.random() < 0.7 else str(caption.label)
    noun = ["number", digit] if rng.random() < 0.1 else [digit]
    article = [str(rng.choice(["a", "the"]))] if rng.random() < 0.8 else []
    return " ".join([*article, *adjectives, *noun, *after])


def classes(values: Array, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1 or 2 for each picture (pictures,): in the lower, middle or upper part of those of the same label.

    What is thin or slanted is so for its digit: a one is upright where a seven leans.
    """
    found = np.ones(len(values), dtype=np.int64)
    for label in np.unique(labels):
        of_label = labels == label
        low, high = np.quantile(values[of_label], [LOWER, UPPER])
        found[of_label & (values < low)] = 0
        found[of_label & (values > high)] = 2
    return found


def _label(word: str) -> int | None:
    return DIGITS.index(word) if word in DIGITS else int(word) if word.isdigit() else None


def _width(word: str) -> int | None:
    return next((k for k, words in enumerate(WIDTHS) if word in words), None)


def _slants(words: Sequence[str]) -> list[int | None]:
    """Of each word; those that lean do so to the right where no side is named."""
    side: list[int | None] = [LEFT if word == "left" else RIGHT for word in words if word in SIDES]
    upright: list[int | None] = [UPRIGHT for word in words if word in STRAIGHT]
    leaning: list[int | None] = [RIGHT for word in words if word in LEANS]
    return upright + (side or leaning)


def _only(prompt: str, kind: str, found: Sequence[int | None]) -> int | None:
    """The one value among those found, or None."""
    values = {value for value in found if value is not None}
    if len(values) > 1 or (kind == "digit" and sum(value is not None for value in found) > 1):
        raise ConfigError(f"prompt {prompt!r} names more than one {kind}; give one; {EXAMPLE}")
    return next(iter(values), None)
