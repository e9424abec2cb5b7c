"""Registers the built-in attacks. Light: imports no array library."""

from __future__ import annotations

from hefw.hookspecs import Entry, hookimpl

ADVICE = "pip install 'hefw[audit]'"
ATTACKS = "hefw.audit.attacks"


@hookimpl
def hefw_attacks() -> list[Entry]:
    return [
        Entry(
            "zero_fill",
            f"{ATTACKS}.fill:ZeroFill",
            "the entries shown last, and 0 for all others",
            requires=("torch",),
            advice=ADVICE,
        ),
        Entry(
            "mean_fill",
            f"{ATTACKS}.fill:MeanFill",
            "the entries shown last, and their mean for all others",
            requires=("torch",),
            advice=ADVICE,
        ),
        Entry(
            "inpaint",
            f"{ATTACKS}.inpaint:Inpaint",
            "a smooth surface through the entries shown last (biharmonic inpainting)",
            requires=("torch", "skimage"),
            advice=ADVICE,
        ),
        Entry(
            "template",
            f"{ATTACKS}.template:Template",
            "a regression from masks and shown entries, learnt from runs of the attacker's own",
            requires=("torch",),
            advice=ADVICE,
        ),
        Entry(
            "repaint",
            f"{ATTACKS}.repaint:Repaint",
            "the model's own samples, with the shown entries put in at every step",
            requires=("torch",),
            advice=ADVICE,
        ),
        Entry(
            "inversion",
            f"{ATTACKS}.inversion:Inversion",
            "the noise and the label from which the model reproduces everything shown, by gradient descent",
            requires=("torch",),
            advice=ADVICE,
        ),
        Entry(
            "predictions",
            f"{ATTACKS}.predictions:Predictions",
            "the picture from noise predictions in plaintext, as HE-Diffusion sends them",
            requires=("torch",),
            advice=ADVICE,
        ),
    ]
