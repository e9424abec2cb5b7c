"""A run in a few sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hefw.record import RunRecord, SecondsRecord
from hefw.report import levels
from hefw.report.sight import SERVER, shares
from hefw.report.words import counted, duration, listed, share, size

#: What the encrypted part of a run consists of. Weights are encoded while keys are made, or not at all.
ENCRYPTED_PART = ("plan", "keygen", "select", "encrypt", "evaluate", "transfer", "decrypt")


def summary(record: RunRecord) -> list[str]:
    """What was drawn, what the server did and saw, how long it took, and how far it is from plaintext."""
    sentences = [
        f"The model {record.model.name!r} drew {counted(record.count, 'image')} {schedule(record)} with the backend "
        f"{plugin(record, 'backend')!r}, {round_trips(record)}.",
        *beginning(record),
        parties(record),
        sight(record),
        time(record),
    ]
    if record.max_abs_error is not None:
        psnr = "" if record.psnr_db is None else f" (PSNR {record.psnr_db:.1f} dB)"
        sentences.append(
            f"The images differ from those computed in plaintext from the same seed by at most "
            f"{record.max_abs_error:.2g}{psnr}; black is -1, white is 1."
        )
    return sentences


def beginning(record: RunRecord) -> list[str]:
    """What picture it started from, and what of it stayed; nothing where it started from noise."""
    edit = record.edit
    if edit is None:
        return []
    width, height = edit.picture
    scaled = f", scaled from {width}x{height} to {record.shape[3]}x{record.shape[2]} pixels" if edit.resized else ""
    kept = "; the mask kept the rest, whose pixels are the picture's own" if edit.drawn < 1 else ""
    return [
        f"It started from a picture{scaled}, with strength {edit.strength:g}, and drew {share(edit.drawn, 1)} of its "
        f"pixels anew{kept}. Picture and mask never left the key holder; the server saw at which timestep it began."
    ]


def how(record: RunRecord) -> str:
    """What follows 'images drawn': what of it was encrypted."""
    forms = {entry.form for entry in record.ledger.entries if entry.party == SERVER}
    if record.simulated:
        return "in a simulation of encryption"
    if "ciphertext" not in forms:
        return "with nothing encrypted"
    partly = "partly " if "plaintext" in forms else ""
    return f"with updates {partly}on ciphertext" if record.protocol == "update-only" else f"{partly}on ciphertext"


def parties(record: RunRecord) -> str:
    """Which of them computed what."""
    if record.protocol == "update-only":
        return (
            "By the protocol update-only the network ran in plaintext at the key holder; the server computed the "
            "scheduler's updates and nothing else."
        )
    return "By the protocol end-to-end the server computed all of it, the network and the scheduler's updates."


def sight(record: RunRecord) -> str:
    """What the server saw of what is private."""
    parts = shares(record)
    in_part = [part for part in parts if part.words != "none"]
    if record.simulated:
        return f"The backend {plugin(record, 'backend')!r} simulated the encrypted computation; nothing was encrypted."
    if not in_part:
        return "The server saw ciphertext alone: no entry of any latent, noise prediction or image in plaintext."
    if all(part.words == "all" for part in parts):
        return "Nothing was encrypted: the strategy left every entry for the server to see."
    what = listed([f"{part.words} of the {part.name}" for part in in_part])
    return f"The server saw {what} in plaintext; the rest was ciphertext to it."


def time(record: RunRecord) -> str:
    """How long it took, beside the network's own time or the plaintext twin's."""
    seconds, twin = record.seconds, record.seconds.twin
    beside = f" The same in plaintext took {duration(twin)}." if twin else ""
    if record.protocol == "update-only":
        return (
            f"It took {duration(seconds.total)} in all and at most {size(record.peak_rss_bytes)} of memory: "
            f"{duration(seconds.model)} for the network, {duration(encrypted_part(seconds))} for the encrypted part "
            f"(plan, keys, selection, encryption, the server's updates, decryption).{beside}"
        )
    return (
        f"It took {duration(seconds.total)} in all, {duration(record.seconds_per_image_step)} of the server an image "
        f"and {unit(record)}, and at most {size(record.peak_rss_bytes)} of memory.{beside}"
    )


def schedule(record: RunRecord) -> str:
    """'in 10 steps', and how often the network was evaluated where that is something else."""
    steps = counted(record.config["steps"], "step")
    if unit(record) == "step":
        return f"in {steps}"
    begun = ", begun from a picture" if record.config["init_image"] else ""
    evaluations = counted(record.evaluations, "evaluation")
    return f"in {evaluations} of the network ({steps} of {record.model.scheduler}{begun})"


def unit(record: RunRecord) -> str:
    """What is counted between noise and picture: a scheduler may evaluate the network more or less often than once a
    step."""
    return "step" if record.evaluations == record.config["steps"] else "evaluation"


def round_trips(record: RunRecord) -> str:
    """How often the key holder was needed: once ('from one message'), or after how many steps each for a round trip."""
    if record.messages == 1:
        several = f" for each of {record.batches} batches" if record.batches > 1 else ""
        way = ": the server gave levels back by bootstrapping" if levels.bootstrapped(record) else ""
        return f"from one message{several}{way}"
    each = f"each {unit(record)}" if record.every == 1 else f"every {record.every} {unit(record)}s"
    return f"with a round trip to the key holder after {each}"


def a_message(record: RunRecord) -> str:
    """How many steps a message is for."""
    if record.every == 1:
        return f"one message {'a step' if unit(record) == 'step' else 'an evaluation'}"
    return "one message for all steps" if record.messages == 1 else f"one message every {record.every} {unit(record)}s"


def encrypted_part(seconds: SecondsRecord) -> float:
    """Everything but the network: what a run would not need without encryption."""
    return float(sum(getattr(seconds, stage) or 0.0 for stage in ENCRYPTED_PART))


def plugin(record: RunRecord, kind: str) -> str:
    """The name of a chosen plugin."""
    choice: Any = record.config[kind]
    return str(choice["name"] if isinstance(choice, Mapping) else choice)
