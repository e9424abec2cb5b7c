"""`hefw train digits-silu`: the original as anyone would train it, then its conversions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from diffusers import DDIMScheduler, UNet2DModel

from hefw.core.files import write_atomically
from hefw.models.convert import Converted, Distillation, Report, convert
from hefw.models.digits.train import make_scheduler, no_data
from hefw.models.digits_silu import original
from hefw.models.training import Progress, existing, load_network, save

BUNDLED = Path(__file__).parents[1] / "digits" / "weights" / "digits-silu"
#: The number of steps that the conversions are made for.
STEPS = 10
ORIGINAL, REPORT = "original", "conversion.json"
#: Distillations by the number of levels.
CONVERSIONS = {
    19: Distillation(iterations=1_200, learning_rate=8e-4),
    9: Distillation(iterations=1_500, learning_rate=1e-3),
}


def folder_of(levels: int) -> str:
    """Where a conversion's weights are, in the model's folder."""
    return f"levels-{levels}"


def run(
    out: Path,
    *,
    seed: int = 0,
    iterations: int | None = None,
    data: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """See `hefw.models.training.Training`. `iterations` are the original's and, if given, each distillation's, too."""
    no_data("digits-silu", data)
    scheduler = make_scheduler()
    unet = original.train(original.ITERATIONS if iterations is None else iterations, seed=seed, progress=progress)
    made = {}
    for levels, how in CONVERSIONS.items():
        how = how if iterations is None else replace(how, iterations=iterations)
        made[levels] = convert_original(unet, levels, how, seed=seed, progress=progress)
    # half the size, and nothing measurable lost
    save(out / ORIGINAL, unet.half(), scheduler)
    for levels, converted in made.items():
        save(out / folder_of(levels), converted.half())
        report = json.dumps(converted.report.to_dict() if converted.report else {}, indent=1)
        write_atomically(out / folder_of(levels) / REPORT, report.encode())


def convert_original(
    unet: UNet2DModel, levels: int, how: Distillation, *, seed: int = 0, progress: Progress | None = None
) -> Converted:
    """The conversion of the original to so many levels."""
    return convert(
        unet, scheduler=make_scheduler(), steps=STEPS, levels=levels, distillation=how, seed=seed, progress=progress
    )


def load_original(folder: str | Path = BUNDLED) -> tuple[UNet2DModel, DDIMScheduler]:
    """The network as it was trained (float32, eval mode), and its scheduler; FileNotFoundError without them."""
    own = Path(folder) / ORIGINAL
    return load_network(UNet2DModel, own), DDIMScheduler.from_pretrained(str(own))


def load(folder: str | Path, levels: int) -> tuple[Converted, DDIMScheduler]:
    """A conversion (float32, eval mode), and the scheduler; FileNotFoundError without them."""
    own = Path(folder) / folder_of(levels)
    converted = load_network(Converted, own)
    path = own / REPORT
    if path.is_file():
        converted.report = Report.from_dict(json.loads(path.read_text()))
    return converted, DDIMScheduler.from_pretrained(existing(Path(folder) / ORIGINAL))
