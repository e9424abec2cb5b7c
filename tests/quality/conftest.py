"""Makes `quality_toys` importable, and its registry a fixture."""

from __future__ import annotations

from quality_toys import judged_toys  # noqa: F401 (a fixture)
