"""`python -m hefw.bench.cell`: one run of one cell, one audit, one profile or one trial of a backend, in a process of
its own.

What to do comes over an inherited socket, and so does the answer. When the other side goes away, however it ends, this
process ends with all that it started.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import psutil

from hefw.bench import messages
from hefw.bench.expansion import HEFW
from hefw.config import Config
from hefw.core.errors import HefwError, ProtocolError, line
from hefw.core.progress import Progress, ProgressCallback
from hefw.core.stream import ByteStream


def measure(config: Config, way: str, folder: Path | None, told: ProgressCallback) -> dict[str, Any]:
    """Draw, compare with the twin, judge; with a folder, write there what `hefw generate` writes."""
    from hefw.bench.measurement import Measured
    from hefw.bench.pictures import row
    from hefw.running import load

    if way == HEFW:
        from hefw.run import generate

        result = generate(config, progress=told)
    else:
        from hefw.bench.paper import draw

        result = draw(config, way, told)
    assert result.plain is not None  # every cell has its twin
    if folder is not None:
        from hefw.report.write import write_run

        write_run(result, folder)
    judged = _judged(load(config.resolve()["model"]), result)
    found = Measured(record=result.record, judged=judged, pictures=row(result.images), twins=row(result.plain))
    return found.model_dump(mode="json")


def _judged(model: Any, result: Any) -> Any:
    """What the model's classifier reads off the pictures; None where there is none, or no labels."""
    import numpy as np

    from hefw.bench.measurement import Judged

    if not hasattr(model, "judge") or not result.labels:
        return None
    asked = np.array(result.labels)
    drawn, twins = (model.judge(np.clip(np.nan_to_num(images), -5, 5)) for images in (result.images, result.plain))
    return Judged(
        pictures=len(asked),
        as_asked=int((drawn == asked).sum()),
        twins_as_asked=int((twins == asked).sum()),
        as_twins=int((drawn == twins).sum()),
    )


def audit(config: Config, images: int, told: ProgressCallback) -> dict[str, Any]:
    """Attack what a configuration shows the server."""
    from hefw.audit.run import audit as attacked
    from hefw.bench.measurement import AuditFigures

    record = attacked(config, images=images, thresholds=(), progress=told).record
    best = record.best("ssim") if "ssim" in record.metrics else None
    label = record.best("label") if "label" in record.metrics else None
    figures = AuditFigures(
        images=record.images,
        beyond_prior=record.beyond_prior,
        best_attack=None if best is None else best[0],
        ssim=None if best is None else best[1].value.mean,
        ssim_low=None if best is None else best[1].value.low,
        ssim_high=None if best is None else best[1].value.high,
        ssim_nothing=record.nothing["ssim"].value.mean if "ssim" in record.nothing else None,
        leak=None if best is None or best[1].leak is None else best[1].leak.mean,
        label=None if label is None else label[1].value.mean,
    )
    return figures.model_dump(mode="json")


def profile(config: Config, told: ProgressCallback) -> dict[str, Any]:
    """Time the server's operations over one message of a configuration's run."""
    from hefw.bench.measurement import OperationFigures, ProfileFigures
    from hefw.profiling.run import profile as profiled

    found = profiled(config, progress=told)
    operations = {
        row.name: OperationFigures(calls=row.calls, seconds=max(0.0, row.seconds)) for row in found.operations
    }
    figures = ProfileFigures(
        messages=found.messages, images=found.images, operations=operations, overhead=found.overhead
    )
    return figures.model_dump(mode="json")


def attempt(backend: str) -> dict[str, Any]:
    """One of each operation of a backend: what it makes once on a machine, such as machine code, is there then."""
    from hefw.doctor import diagnose

    return diagnose(backend).to_json()


def main() -> int:
    """Exit code 0 if there was an answer, be it an error."""
    parser = argparse.ArgumentParser(prog="hefw.bench.cell")
    parser.add_argument("--fd", type=int, required=True, help="an open socket")
    stream = ByteStream(socket.socket(fileno=parser.parse_args().fd))
    job = messages.receive(stream)
    if job is None:
        return 1
    threading.Thread(target=_end_with, args=(stream,), daemon=True).start()

    def told(progress: Progress) -> None:
        with contextlib.suppress(ProtocolError):  # nobody listens: the thread ends this process
            messages.send(stream, {"progress": [progress.stage, progress.done, progress.total]})

    try:
        answer = _answer(job, told)
    except HefwError as error:
        messages.send(stream, {"error": line(error)})
    except Exception as error:
        if os.environ.get("HEFW_DEBUG"):
            raise
        messages.send(stream, {"error": line(f"{type(error).__name__}: {error or 'no further message'}")})
    else:
        messages.send(stream, {"found": answer})
    return 0


def _answer(job: dict[str, Any], told: ProgressCallback) -> dict[str, Any]:
    if job["kind"] == "try":
        return attempt(job["backend"])
    config = Config(**job["config"])
    if job["kind"] == "audit":
        return audit(config, job["images"], told)
    if job["kind"] == "profile":
        return profile(config, told)
    return measure(config, job["way"], None if job["folder"] is None else Path(job["folder"]), told)


def _end_with(stream: ByteStream) -> None:
    """Wait until the other side has gone, then end this process and all below it."""
    with contextlib.suppress(ProtocolError):
        while stream.read(1) is not None:
            pass
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
