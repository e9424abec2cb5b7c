"""`audit.html`: one self-contained page about an audit, in words, pictures and tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hefw.audit.record import AuditRecord, IntervalRecord
from hefw.config import Config
from hefw.report.html import fill
from hefw.report.words import counted, listed

TEMPLATE = Path(__file__).with_name("audit.html.jinja")


def render(record: AuditRecord, pictures: Mapping[str, bytes]) -> str:
    """The page's HTML: no script, no remote asset, the pictures embedded.

    Args:
        record: the audit's record.
        pictures: files by name: audit.png and audit-dark.png, and where there are curves curves.svg and
            curves-dark.svg.
    """
    return fill(
        TEMPLATE,
        pictures,
        {"figure": figure, "percent": percent},
        record=record,
        title=title(record),
        summary=summary(record),
        shown=shown(record),
    )


def title(record: AuditRecord) -> str:
    """What was audited."""
    return f"What the server learns: {_strategy(record)}, {record.protocol}"


def summary(record: AuditRecord) -> list[str]:
    """The findings in a few sentences."""
    images = counted(record.images, "picture")
    if not record.beyond_prior:
        return [
            f"Nothing beyond the prior: over {images}, no attack came closer than who sees nothing and knows the "
            "model, by any metric, by more than chance.",
            "An attack that finds nothing proves nothing: a better one may be found.",
        ]
    sentences = []
    if (best := record.best("label") if "label" in record.metrics else None) is not None:
        name, found = best
        sentences.append(
            f"Of {images}, the attack {name} names the label of {percent(found.value.mean)}; who sees nothing names "
            f"{percent(record.nothing['label'].value.mean)}."
        )
    if (best := record.best("psnr")) is not None:
        name, found = best
        sentences.append(
            f"The guesses of {name} are at {found.value.mean:.1f} dB of the pictures; those of who sees nothing at "
            f"{record.nothing['psnr'].value.mean:.1f} dB, and the pictures as they are written at "
            f"{record.everything['psnr'].mean:.1f} dB."
        )
    beyond = [a.name for a in record.attacks if any(found.beyond_prior for found in a.findings.values())]
    sentences.append(f"More than the model alone tells is learned by {listed(beyond)}.")
    sentences.append("A better attack than these may be found: the figures are what leaks at least.")
    return sentences


def shown(record: AuditRecord) -> list[str]:
    """What the server was shown."""
    seen, steps = record.shown, counted(record.steps, "step")
    if not seen.latents and not seen.predictions:
        return [f"Nothing in plaintext: in none of {steps} was an entry of a latent or of a prediction shown."]
    sentences = []
    if seen.latents:
        rounding = ", rounded to 8 bits" if seen.rounded else ""
        sentences.append(
            f"{percent(seen.latents)} of the latents' entries over {steps}{rounding}, and which these are: the masks "
            f"depend on the picture with most strategies. {percent(seen.ever)} of the places were shown at one step at "
            "least."
        )
    else:
        sentences.append("No entry of a latent was sent in plaintext.")
    if record.noise_prediction == "plaintext":
        sentences.append("Every noise prediction, in full.")
    elif seen.predictions:
        sentences.append("The noise predictions of the entries shown, of which the server computes the update itself.")
    if seen.latents_known > seen.latents:
        sentences.append(
            f"By the public arithmetic of the updates, {percent(seen.latents_known)} of the latents' entries follow "
            f"from that, and {percent(seen.final_known)} of those of the final latent, which is never sent."
        )
    return sentences


def figure(found: IntervalRecord, unit: str) -> str:
    """A mean with its interval, in the metric's unit."""
    if unit == "share":
        return f"{percent(found.mean)} ({percent(found.low)} to {percent(found.high)})"
    places = 1 if unit == "dB" else 3
    text = f"{found.mean:.{places}f} ({found.low:.{places}f} to {found.high:.{places}f})"
    return f"{text} {unit}".rstrip()


def percent(share: float) -> str:
    """A share of 0 to 1."""
    return f"{100 * share:.3g} %"


def _strategy(record: AuditRecord) -> str:
    choice = Config(**record.config).strategy
    options = ", ".join(f"{name} {value}" for name, value in choice.options.items())
    return f"{choice.name} ({options})" if options else choice.name
