"""What a report says in words: numbers, the summary, and who could see what."""

from __future__ import annotations

from typing import Any

import pytest
from cli_fakes import fake_record, ledger_entry, partial_ledger

from hefw.config import Config
from hefw.protocol.client import SHOWN_LIMIT
from hefw.record import RunRecord
from hefw.report.sight import notes, seen, shares
from hefw.report.summary import a_message, encrypted_part, how, round_trips, summary
from hefw.report.words import counted, duration, listed, number, share, size

UPDATE_ONLY = Config(labels="0-3", steps=3, protocol="update-only")
PLAIN_PREDICTIONS = Config(labels="0-3", steps=3, protocol="update-only", noise_prediction="plaintext")


def record_of(config: Config | None = None, *entries: dict[str, Any], **changes: Any) -> RunRecord:
    """A run in which the parties were given these entries and nothing else."""
    return fake_record(config, ledger={"server_plaintext_fraction": 0.25, "entries": entries}, **changes)


# Numbers


def test_units() -> None:
    assert [size(n) for n in (0, 999, 1500, 354_000_000, 2_800_000_000)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "354 MB",
        "2.8 GB",
    ]
    assert [size(n) for n in (999_700, 5e15)] == ["1,000 kB", "5,000 TB"]
    assert [duration(s) for s in (0.0021, 0.5, 4.25, 83, 125, 7260)] == [
        "2.1 ms",
        "500 ms",
        "4.25 s",
        "83 s",
        "2 min 5 s",
        "2 h 1 min",
    ]


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [
        (0, 640, "none"),
        (640, 640, "all"),
        (71, 640, "11.1 %"),
        (639, 640, "99.8 %"),
        (99_999, 100_000, "over 99.9 %"),
        (1, 10**6, "under 0.001 %"),
        (1, 10**4, "0.01 %"),
    ],
)
def test_shares_are_none_or_all_only_where_they_are(part: int, whole: int, words: str) -> None:
    assert share(part, whole) == words


def test_counts_and_lists() -> None:
    assert [counted(n, "image") for n in (1, 2, 1200)] == ["1 image", "2 images", "1,200 images"]
    assert [listed(list(letters)) for letters in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]
    assert [number(n) for n in (16_384, 409.5, 1.0)] == ["16,384", "409.5", "1"]


# The summary


@pytest.mark.parametrize(
    ("config", "changes", "words"),
    [
        (None, {}, "on ciphertext"),
        (None, {"ledger": partial_ledger([20] * 3)}, "partly on ciphertext"),
        (UPDATE_ONLY, {}, "with updates on ciphertext"),
        (UPDATE_ONLY, {"ledger": partial_ledger([20] * 3, predictions="alike")}, "with updates partly on ciphertext"),
        (
            PLAIN_PREDICTIONS,
            {"ledger": partial_ledger([0] * 3, predictions="plaintext")},
            "with updates partly on ciph",
        ),
        (UPDATE_ONLY, {"ledger": partial_ledger([640] * 3, predictions="alike")}, "with nothing encrypted"),
        (UPDATE_ONLY, {"simulated": True}, "in a simulation of encryption"),
    ],
)
def test_how_images_were_drawn(config: Config | None, changes: dict[str, Any], words: str) -> None:
    assert how(fake_record(config, **changes)).startswith(words)


@pytest.mark.parametrize(
    ("config", "changes", "words"),
    [
        (None, {}, "The server saw ciphertext alone: no entry of any latent, noise prediction or image in plaintext."),
        (
            None,
            {"ledger": partial_ledger([71, 71, 72])},
            "The server saw 11.1 % of the latents in plaintext; the rest was ciphertext to it.",
        ),
        (
            PLAIN_PREDICTIONS,
            {"ledger": partial_ledger([71, 71, 72], predictions="plaintext")},
            "The server saw 11.1 % of the latents and all of the noise predictions in plaintext; the rest was",
        ),
        (
            PLAIN_PREDICTIONS,
            {"ledger": partial_ledger([0, 0, 0], predictions="plaintext")},
            "The server saw all of the noise predictions in plaintext; the rest was ciphertext to it.",
        ),
        (
            UPDATE_ONLY,
            {"ledger": partial_ledger([640] * 3, predictions="alike")},
            "Nothing was encrypted: the strategy left every entry for the server to see.",
        ),
        (
            None,
            {"simulated": True},
            "The backend 'tenseal' simulated the encrypted computation; nothing was encrypted.",
        ),
    ],
)
def test_the_summary_says_what_the_server_saw(config: Config | None, changes: dict[str, Any], words: str) -> None:
    assert words in " ".join(summary(fake_record(config, **changes)))


def test_the_summary_says_who_computed_what_and_how_long_that_took() -> None:
    text = " ".join(summary(fake_record()))
    assert "By the protocol end-to-end the server computed all of it" in text
    assert "It took 91 s in all, 520 ms of the server an image and step, and at most 2.8 GB of memory. " in text
    assert "The same in plaintext took 31 s." in text
    record = fake_record(UPDATE_ONLY)
    text = " ".join(summary(record))
    assert "the network ran in plaintext at the key holder; the server computed the scheduler's updates" in text
    assert encrypted_part(record.seconds) == 1.75 + 2.5 + 0.0625 + 0.5 + 83.0 + 0.5 + 0.125
    assert "It took 2 min 1 s in all and at most 2.8 GB of memory: 30 s for the network, 88.4 s for the encry" in text
    seconds = record.seconds.model_copy(update={"twin": 0.0})
    alone = record.model_copy(update={"seconds": seconds, "max_abs_error": None, "psnr_db": None})
    assert "in plaintext took" not in " ".join(summary(alone))


@pytest.mark.parametrize(
    ("evaluations", "messages", "trips", "message"),
    [
        (50, 50, "with a round trip to the key holder after each step", "one message a step"),
        (51, 51, "with a round trip to the key holder after each evaluation", "one message an evaluation"),
        (99, 33, "with a round trip to the key holder after every 3 evaluations", "one message every 3 evaluations"),
        (99, 1, "from one message", "one message for all steps"),
    ],
)
def test_round_trips_are_counted_in_evaluations(evaluations: int, messages: int, trips: str, message: str) -> None:
    """PNDM makes 51 evaluations of 50 steps, Heun's method 99."""
    config = Config(steps=50, protocol="update-only")
    record = fake_record(config, evaluations=evaluations, messages=messages, ledger=partial_ledger([0]))
    assert round_trips(record) == trips
    assert a_message(record) == message
    steps = "in 50 steps" if evaluations == 50 else f"in {evaluations} evaluations of the network (50 steps of DDIMSch"
    assert steps in summary(record)[0]


# Who could see what


def test_ledger_rows_are_grouped() -> None:
    rows = seen(fake_record())
    assert [(row["party"], row["item"], row["form"], row["when"]) for row in rows] == [
        ("server", "parameters, schedule, shapes, counts and precision wanted", "as public data", "once"),
        ("server", "labels", "only as ciphertext", "once"),
        ("server", "latent x_t", "only as ciphertext", "in 3 messages"),
        ("key holder", "latent x_t", "in plaintext", "in 3 messages"),
    ]
    assert (rows[2]["entries"], rows[2]["a_message"], rows[2]["bytes"]) == (3 * 1024, "1,024", 900_000)
    assert (rows[1]["entries"], rows[1]["a_message"]) == (160, "")


def test_rotation_keys_share_a_row() -> None:
    """Dozens of keys that differ only in their step are one row with their number and their bytes together."""
    keys = [ledger_entry(f"evaluation key rotation/{k}", "public", None, entries=0, size=10) for k in (16, 32, 48)]
    (row,) = seen(record_of(None, *keys))
    assert row["item"] == "evaluation key rotation, 3 of them"
    assert row["bytes"] == 30
    assert row["when"] == "once"


def test_tensors_of_earlier_steps_share_a_row() -> None:
    """As multistep schedulers have them: sent again in another order, or (end-to-end) encrypted anew."""
    again = [
        ledger_entry(f"prediction-{back}, again", "ciphertext", step, entries=0, size=10)
        for step in (1, 2)
        for back in range(1, step + 1)
    ]
    (row,) = seen(record_of(UPDATE_ONLY, *again))
    assert row["item"] == "noise prediction, of earlier steps, again"
    assert (row["when"], row["entries"], row["a_message"], row["bytes"]) == ("in 2 messages", 0, "", 30)
    history = [
        ledger_entry(f"prediction-{back}", "ciphertext", step, entries=64) for step in (0, 1) for back in (1, 2, 3)
    ]
    (row,) = seen(record_of(None, *history))
    assert (row["item"], row["when"]) == ("noise prediction, of earlier steps", "in 2 messages")
    assert (row["entries"], row["a_message"]) == (384, "192")
    assert [(part.name, part.sent) for part in shares(record_of(None, *history))] == [
        ("noise predictions, of earlier steps", (192, 192))
    ]


def test_what_changes_from_step_to_step_is_told_in_least_most_and_mean() -> None:
    record = fake_record(UPDATE_ONLY, ledger=partial_ledger([57, 60, 82], predictions="alike"))
    rows = {(row["item"], row["form"]): row for row in seen(record)}
    assert rows["latent x_t", "in plaintext"]["a_message"] == "57 to 82, mean 66.3"
    assert rows["latent x_t", "only as ciphertext"]["a_message"] == "558 to 583, mean 573.7"
    derived = rows["which entries of the latent x_t are encrypted", "in plaintext, derived"]
    assert (derived["a_message"], derived["bytes"]) == ("640", 240)
    assert rows["latent x_t", "in plaintext"]["entries"] == 199


def test_latents_and_noise_predictions_have_shares_of_their_own() -> None:
    ledger = partial_ledger([57, 60, 82], predictions="plaintext")
    latents, predictions = shares(fake_record(PLAIN_PREDICTIONS, ledger=ledger))
    assert (latents.name, latents.words, latents.numbers) == (
        "latents",
        "10.4 %",
        "57 to 82 of 640, 66.3 on average",
    )
    assert (predictions.name, predictions.words, predictions.numbers) == ("noise predictions", "all", "640 of 640")


def test_what_was_not_sent_has_no_share() -> None:
    public = ledger_entry("timesteps", "public", None)
    again = ledger_entry("prediction-1, again", "ciphertext", 1, entries=0)
    mine = ledger_entry("result", "plaintext", 0, "key holder")
    assert shares(record_of(UPDATE_ONLY, public, again, mine)) == []


@pytest.mark.parametrize("steps", [1, 2])
def test_messages_of_several_batches_are_told_apart(steps: int) -> None:
    """The second batch is of fewer images."""
    entries = [
        ledger_entry("latent", form, step, entries=count)
        for whole in (640, 64)
        for step in range(steps)
        for form, count in (("ciphertext", whole // 2), ("plaintext", whole // 2))
    ]
    record = record_of(Config(labels="0-3", steps=steps), *entries)
    (latents,) = shares(record)
    assert (latents.sent, latents.shown) == ((640,) * steps + (64,) * steps, (320,) * steps + (32,) * steps)
    assert [row["when"] for row in seen(record)] == [f"in {2 * steps} messages"] * 2


def notes_of(config: Config | None, ledger: dict[str, Any], **changes: Any) -> str:
    return " ".join(notes(fake_record(config, ledger=ledger, **changes)))


def test_nothing_follows_where_nothing_is_shown() -> None:
    assert notes(fake_record()) == []
    bound = ledger_entry("bound of latents, a power of two", "derived", None, entries=1, size=0)
    assert notes(record_of(UPDATE_ONLY, bound)) == []


def test_where_all_is_shown_one_note_says_it() -> None:
    record = fake_record(PLAIN_PREDICTIONS, ledger=partial_ledger([640] * 3, predictions="plaintext"))
    assert notes(record) == ["Nothing that the server was sent was encrypted, so it has the final latents, too."]


def test_what_follows_from_plaintext_predictions() -> None:
    text = notes_of(PLAIN_PREDICTIONS, partial_ledger([0, 0, 0], predictions="plaintext"))
    assert "From them alone it can rebuild the picture or much of it, whatever is encrypted of the latents" in text
    assert "`hefw audit` measures how closely" in text
    assert "it has that entry, too" not in text
    text = notes_of(PLAIN_PREDICTIONS, partial_ledger([5, 6, 7], predictions="plaintext"))
    assert "an entry that is shown once is known at all steps" in text
    text = notes_of(UPDATE_ONLY, partial_ledger([5, 6, 7], predictions="alike"))
    assert "rebuild" not in text
    assert "shown once" not in text
    assert "Where the server was shown all that goes into an entry of the next latent, it has that entry, too" in text


def test_noise_that_is_encrypted_hides_what_predictions_would_tell() -> None:
    entries = [
        *partial_ledger([5, 6, 7], predictions="plaintext")["entries"],
        ledger_entry("noise", "ciphertext", 0, entries=640),
    ]
    text = " ".join(notes(record_of(PLAIN_PREDICTIONS, *entries)))
    assert "it has that entry, too" in text
    assert "shown once" not in text


@pytest.mark.parametrize("config", [None, UPDATE_ONLY])
def test_what_is_shown_tells_of_the_rest(config: Config | None) -> None:
    words = "a server that has the model can compute much of the rest"
    predictions = "alike" if config else None
    assert words in notes_of(config, partial_ledger([100, 200, 300], predictions=predictions))
    assert words not in notes_of(config, partial_ledger([640] * 3, predictions=predictions))
    assert words not in notes_of(config, partial_ledger([0] * 3, predictions=predictions))


def test_what_follows_from_entries_shown_in_end_to_end() -> None:
    text = notes_of(None, partial_ledger([100, 200, 300]))
    assert f"600 entries of latents were shown, each rounded to 8 bits; at most {SHOWN_LIMIT:,} may be." in text
    assert "come from decryptions, each of which tells of the secret key a little" in text
    assert "update" not in text
    once = notes_of(Config(labels="0-3", steps=3, refresh="none"), partial_ledger([100]))
    assert "100 entries of latents were shown" in once
    assert "decryptions" not in once  # the starting noise was never encrypted before


def test_a_selection_tells_of_the_picture() -> None:
    assert "tells of the picture by its selection alone" in notes_of(None, partial_ledger([100]))
    shown = ledger_entry("latent", "plaintext", 0)
    assert "selection" not in " ".join(notes(record_of(UPDATE_ONLY, shown)))
