"""Who could see what in a run: the ledger, added up and in plain words."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hefw.protocol.client import SHOWN_LIMIT
from hefw.record import LedgerEntryRecord, RunRecord
from hefw.report.words import counted, number, share

SERVER = "server"
PRIVATE = ("plaintext", "ciphertext")
FORMS = {
    "plaintext": "in plaintext",
    "ciphertext": "only as ciphertext",
    "derived": "in plaintext, derived",
    "public": "as public data",
}
ITEMS = {
    "latent": "latent x_t",
    "prediction": "noise prediction",
    "noise": "random noise of the scheduler",
    "label": "labels",
    "condition": "embedded prompts",
    "result": "updated latent",
    "indices of encrypted entries": "places of the encrypted entries",
    "unit of latent": "unit that shown entries of the latent are multiples of",
}
KINDS = {
    "latent": "latents",
    "prediction": "noise predictions",
    "noise": "random noise of the scheduler",
    "label": "labels",
    "condition": "embedded prompts",
}
SELECTION = "selection of "
AGAIN = ", again"
EARLIER = ", of earlier steps"
#: A tensor of K steps before, as graphs of multistep schedulers name it.
HISTORY = re.compile(r"(latent|prediction)-\d+")


@dataclass(frozen=True)
class Share:
    """Of one kind of private numbers, message by message: how many were sent to the server, and shown to it."""

    kind: str
    shown: tuple[int, ...]
    sent: tuple[int, ...]

    @property
    def name(self) -> str:
        """In the plural: 'noise predictions'."""
        base, comma, rest = self.kind.partition(",")
        return KINDS.get(base, base) + comma + rest

    @property
    def words(self) -> str:
        """How much of it was in plaintext."""
        return share(sum(self.shown), sum(self.sent))

    @property
    def numbers(self) -> str:
        """The same in entries a message: '57 to 81 of 640, 71.2 on average'."""
        average = "" if len(set(self.shown)) == 1 else f", {number(_mean(self.shown))} on average"
        return f"{_range(self.shown)} of {_range(self.sent)}{average}"


def shares(record: RunRecord) -> list[Share]:
    """What of the private numbers the server saw in plaintext, by kind; kinds that it was not sent are left out."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for message in _messages(record, SERVER):
        private = [entry for entry in message if entry.form in PRIVATE and entry.entries]
        for kind in dict.fromkeys(_kind(entry.item) for entry in private):
            of_kind = [entry for entry in private if _kind(entry.item) == kind]
            found[kind].append((_entries(e for e in of_kind if e.form == "plaintext"), _entries(of_kind)))
    return [Share(kind, *(tuple(column) for column in zip(*rows, strict=True))) for kind, rows in found.items()]


def seen(record: RunRecord) -> list[dict[str, Any]]:
    """The ledger, a row for each party, item and form: what it could see, how often, how many numbers and bytes.

    Items that differ only in what follows a slash (rotation keys by their step) share a row with their number, and so
    do tensors of earlier steps. Messages are those of all batches.
    """
    groups: dict[tuple[str, str, str], list[list[LedgerEntryRecord]]] = {}
    for party in dict.fromkeys(entry.party for entry in record.ledger.entries):
        for message in _messages(record, party):
            alike: dict[tuple[str, str, str], list[LedgerEntryRecord]] = defaultdict(list)
            for entry in message:
                alike[party, _kind(entry.item), entry.form].append(entry)
            for key, entries in alike.items():
                groups.setdefault(key, []).append(entries)
    return [
        {
            "party": party,
            "item": _item(kind, times),
            "form": FORMS[form],
            "when": _when(times),
            "entries": sum(map(_entries, times)),
            "a_message": _spread([_entries(entries) for entries in times]) if times[0][0].step is not None else "",
            "bytes": sum(entry.bytes for entries in times for entry in entries),
        }
        for (party, kind, form), times in groups.items()
    ]


def notes(record: RunRecord) -> list[str]:
    """What follows from what the server was shown."""
    known = {part.kind: part for part in shares(record)}
    shown = {kind: sum(part.shown) for kind, part in known.items()}
    hidden = {kind for kind, part in known.items() if part.words != "all"}
    if known and not hidden:
        return ["Nothing that the server was sent was encrypted, so it has the final latents, too."]
    found = []
    if shown.get("latent") and "latent" in hidden:
        found.append(
            "What is shown tells of what is encrypted: a server that has the model can compute much of the rest from "
            "the entries of all steps together. `hefw audit` measures how much; the strategy full shows no entry."
        )
    if record.protocol == "update-only" and shown.get("prediction"):
        if record.config["noise_prediction"] == "plaintext":
            found.append(
                "The noise predictions went to the server in plaintext, as HE-Diffusion was published. From them alone "
                "it can rebuild the picture or much of it, whatever is encrypted of the latents: the first latent is "
                "hardly more than the noise that the first prediction names, and every later one follows from it by "
                "predictions. `hefw audit` measures how closely."
            )
        if shown.get("latent"):
            found.append(
                "Where the server was shown all that goes into an entry of the next latent, it has that entry, too: of "
                "the final latent like of any other."
            )
            if record.config["noise_prediction"] == "plaintext" and "noise" not in hidden:
                found[-1] += (
                    " With all noise predictions in plaintext an entry that is shown once is known at all steps."
                )
    if record.protocol == "end-to-end" and shown.get("latent"):
        text = (
            f"Under this run's key {number(shown['latent'])} entries of latents were shown, each rounded to 8 bits; at "
            f"most {number(SHOWN_LIMIT)} may be."
        )
        if record.messages > 1:
            text += (
                " After the first message they come from decryptions, each of which tells of the secret key a little. "
                "That is bearable while the server computes what it was asked to; one that computes something else "
                "could learn more."
            )
        found.append(text)
    if record.edit is not None and shown.get("latent"):
        found.append(
            "The run started from a picture: what was shown of its latents is that picture's with noise, and the same "
            "noise at every step where a mask keeps it. From two steps the server can compute what was kept of the "
            "picture wherever it was shown; the strategy full shows no entry."
        )
    if any(entry.item.startswith(SELECTION) for entry in record.ledger.entries):
        found.append(
            "Which entries are encrypted is told in the clear. A strategy that selects them by the latent, as "
            "min_distortion and sparse do, tells of the picture by its selection alone."
        )
    return found


def _messages(record: RunRecord, party: str) -> Iterator[list[LedgerEntryRecord]]:
    """A party's entries, those of one message together, in all batches; an entry of no step is one alone."""
    message: list[LedgerEntryRecord] = []
    for entry in record.ledger.entries:
        if entry.party != party:
            continue
        again = any((entry.item, entry.form) == (other.item, other.form) for other in message)
        if message and (again or entry.step is None or entry.step != message[0].step):
            yield message
            message = []
        message.append(entry)
    if message:
        yield message


def _kind(item: str) -> str:
    """An item without what tells it from its like."""
    item, _, _ = item.partition("/")
    base, again = (item.removesuffix(AGAIN), AGAIN) if item.endswith(AGAIN) else (item, "")
    history = HISTORY.fullmatch(base)
    return f"{history[1]}{EARLIER}{again}" if history else item


def _item(kind: str, times: Sequence[Sequence[LedgerEntryRecord]]) -> str:
    """In plain words, with the number of those that share a row."""
    base, comma, rest = kind.partition(",")
    if base.startswith(SELECTION):
        of = base.removeprefix(SELECTION)
        base = f"which entries of the {ITEMS.get(of, of)} are encrypted"
    alike = sum("/" in entry.item for entries in times for entry in entries)
    return ITEMS.get(base, base) + comma + rest + (f", {alike} of them" if alike else "")


def _when(times: Sequence[Sequence[LedgerEntryRecord]]) -> str:
    if times[0][0].step is not None:
        return f"in {counted(len(times), 'message')}"
    return "once" if len(times) == 1 or any("/" in entries[0].item for entries in times) else f"{len(times)} times"


def _entries(entries: Iterator[LedgerEntryRecord] | Sequence[LedgerEntryRecord]) -> int:
    return sum(entry.entries for entry in entries)


def _spread(values: Sequence[int]) -> str:
    """One number if all are the same, else '57 to 81, mean 71.2'; nothing for zeros."""
    if not any(values):
        return ""
    return _range(values) + ("" if len(set(values)) == 1 else f", mean {number(_mean(values))}")


def _range(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return number(least) if least == most else f"{number(least)} to {number(most)}"


def _mean(values: Sequence[int]) -> float:
    return round(sum(values) / len(values), 1)
