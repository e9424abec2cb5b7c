"""What a server makes of what strategies and protocols show it, on the model `digits`.

    python -m benchmarks.audits  # about 5 minutes: results/audit-*.json, and the pictures in docs/images

Each is `hefw audit` of one configuration; the one at HE-Diffusion's default threshold has the curves.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hefw.audit import chart, pictures
from hefw.audit.run import DEFAULT_THRESHOLDS, audit
from hefw.config import Config
from hefw.report.terminal import show_progress

RESULTS = Path(__file__).with_name("results")
IMAGES = Path(__file__).parents[1] / "docs" / "images"
UPDATE_ONLY = {"protocol": "update-only"}
PUBLISHED = {**UPDATE_ONLY, "noise_prediction": "plaintext"}
#: In the order in which a page shows them.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "1-full": {"strategy": "full"},
    "2-partial": {"strategy": "min_distortion"},
    "3-partial-update-only": {"strategy": "min_distortion", **UPDATE_ONLY},
    "4-partial-published": {"strategy": "min_distortion", **PUBLISHED},
    "5-full-published": {"strategy": "full", **PUBLISHED},
}
WITH_CURVES = "2-partial"


def main() -> None:
    for name, values in CONFIGURATIONS.items():
        print(f"{name}: {values}", file=sys.stderr)
        thresholds = DEFAULT_THRESHOLDS if name == WITH_CURVES else ()
        with show_progress(sys.stderr) as progress:
            done = audit(Config(**values), thresholds=thresholds, progress=progress)
        (RESULTS / f"audit-{name}.json").write_text(done.record.to_json())
        if name == WITH_CURVES:
            (IMAGES / "audit.png").write_bytes(pictures.side_by_side(done))
            (IMAGES / "audit-curves.svg").write_bytes(chart.draw(done.record))


if __name__ == "__main__":
    main()
