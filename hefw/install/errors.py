"""What goes wrong when a library is installed."""

from __future__ import annotations

from hefw.core.errors import HefwError


class InstallError(HefwError):
    """No interpreter fits, pip failed, or what it installed cannot be imported."""
