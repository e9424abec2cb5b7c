"""The README's measured figures, written from the results files in this folder.

    python -m benchmarks.figures          # rewrites the section between the markers
    python -m benchmarks.figures --check  # exit code 1 if it is not what the files say

The files are: `demo.json` and `demo-40db.json` (run.json of `make demo`, and of the same at --precision-db 40),
`quality.json` (`make quality`), `sweep.json` (`hefw quality --samples 5000 --steps 5,10,20,50 --encrypted 0`) and
`step.json` (`make bench`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


def section() -> str:
    """The text between the markers."""
    demo, coarse, quality, sweep, step = (_read(name) for name in ("demo", "demo-40db", "quality", "sweep", "step"))
    params, machine, encrypted = demo["params"], demo["machine"], quality["encrypted"]
    plain = quality["plaintext"][0]
    rows = [
        ("whole run, from configuration to decrypted pictures", f"{demo['seconds']['total']:.0f} s"),
        ("evaluation of ten steps", f"{demo['seconds']['evaluate']:.1f} s"),
        ("evaluation, an image and step", f"{demo['seconds_per_image_step']:.3f} s"),
        ("PSNR against plaintext, same seed (data range 2)", f"{demo['psnr_db']:.0f} dB"),
        ("largest error of a pixel (black -1, white 1)", f"{demo['max_abs_error']:.1e}"),
        ("evaluation keys, sent once", f"{demo['bytes']['evaluation_keys'] / 1e6:.0f} MB"),
        (
            "upload and download, a step of 16 images",
            f"{demo['bytes']['upload_per_step'] / 1e3:.0f} kB, {demo['bytes']['download_per_step'] / 1e3:.0f} kB",
        ),
        ("peak memory, both processes", f"{demo['peak_rss_bytes'] / 1e9:.1f} GB"),
        ("latents and labels that the server saw in plaintext", _share(demo)),
    ]
    lines = [
        f"`make demo` ({len(demo['labels'])} images, {demo['config']['steps']} steps, backend "
        f"`{demo['config']['backend']}`, N = {params['ring_dimension']}, log2(QP) = {params['log_qp']:.0f}, "
        f"{params['security_bits']}-bit security) on {machine['cores']} cores of an {machine['cpu']}:",
        "",
        "| what | value |",
        "| --- | --- |",
        *(f"| {what} | {value} |" for what, value in rows),
        "",
        f"Asked for 40 dB instead of 60, the same takes {coarse['seconds']['evaluate']:.1f} s of evaluation and "
        f"{coarse['bytes']['evaluation_keys'] / 1e6:.0f} MB of keys, and reaches {coarse['psnr_db']:.0f} dB with a "
        f"largest error of {coarse['max_abs_error']:.1e}. Levels come in whole primes: 50 and 60 dB get the same plan.",
        "",
        f"`make quality`: of {plain['samples']} plaintext samples of {plain['steps']} steps, {plain['accuracy']:.1%} "
        f"are classified as their label; Fréchet distance to the real digits in pixel space "
        f"{plain['distance']:.1f}, that between two halves of the real ones {quality['held_out_distance']:.1f} (biased "
        f"upwards for few samples). Of {encrypted['samples']} encrypted samples, "
        f"{encrypted['label_agreement_with_twin']} are classified like their plaintext twins; PSNR "
        f"{encrypted['psnr_db']:.0f} dB, {encrypted['lowest_psnr_db']:.0f} dB for the worst one.",
        "",
        f"{sweep['plaintext'][0]['samples']} plaintext samples each:",
        "",
        "| steps | classified as their label | Fréchet distance | largest pre-activation | diverged |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {row['steps']} | {row['accuracy']:.2%} | {row['distance']:.1f} | {row['largest_preactivation']:.1f} | "
            f"{row['diverged']} |"
            for row in sweep["plaintext"]
        ),
        "",
        f"`make bench`, {step['what']}: a raw loop that evaluates each matrix by itself and rescales after every layer "
        f"takes {step['speedup_over_raw_loop']:.1f} times as long as hefw; hefw's own transforms with a rescale after "
        f"every layer take {step['speedup_over_plain_chain']:.1f} times as long. hefw adds "
        f"{step['framework_overhead']:.1%} to a flat loop of the very library calls that it makes.",
    ]
    return "\n".join(lines)


def filled(readme: str) -> str:
    """The README with the section replaced."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{section()}\n\n{END}{after}"


def main() -> int:
    """Rewrite or check the README."""
    text = README.read_text(encoding="utf-8")
    wanted = filled(text)
    if "--check" in sys.argv[1:]:
        return int(text != wanted)
    README.write_text(wanted, encoding="utf-8")
    return 0


def _read(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))


def _share(run: dict[str, Any]) -> str:
    return f"{run['ledger']['server_plaintext_fraction']:.0%}"


if __name__ == "__main__":
    sys.exit(main())
