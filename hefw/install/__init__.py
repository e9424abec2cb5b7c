"""Installing a backend's library: into the environment that runs hefw, or into a managed one with a fitting Python.

`python -m hefw backends install NAME` is thin over `install`.
"""

from __future__ import annotations

from hefw.install.errors import InstallError
from hefw.install.installer import Installed, install

__all__ = ["InstallError", "Installed", "install"]
