"""Numbers for people."""

from __future__ import annotations


def size(count: float) -> str:
    """A number of bytes: decimal prefixes."""
    for prefix in ("", "k", "M", "G"):
        if count < 1000:
            return f"{_three(count)} {prefix}B"
        count /= 1000
    return f"{_three(count)} TB"


def duration(seconds: float) -> str:
    """A time in seconds."""
    if seconds < 1:
        return f"{_three(1000 * seconds)} ms"
    if seconds < 100:
        return f"{_three(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def number(value: float) -> str:
    """A number with thousands apart, three decimals at most."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}".rstrip("0").rstrip(".")


def share(part: float, whole: float) -> str:
    """How much of the whole: 'none' and 'all' are exact, a percentage is neither."""
    if not part:
        return "none"
    if part >= whole:
        return "all"
    percent = 100 * part / whole
    return "over 99.9 %" if percent > 99.9 else "under 0.001 %" if percent < 0.001 else f"{_three(percent)} %"


def counted(count: int, noun: str) -> str:
    """'1 image', '2 images'."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(parts: list[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join([*([", ".join(parts[:-1])] if parts[:-1] else []), *parts[-1:]])


def _three(value: float) -> str:
    """Three significant digits, never in exponent form."""
    return f"{float(f'{value:.3g}'):,g}"
