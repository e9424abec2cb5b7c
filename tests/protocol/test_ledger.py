"""The ledger lists what the server receives, and the server receives nothing that it does not list: in every protocol,
with every strategy, from the bytes."""

from __future__ import annotations

import itertools
import math
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import psutil
import pytest
import toy_model
from frames_seen import Reader, Seen, occurring

import hefw
from hefw import plugins, run, running, updating
from hefw.core.graph import Graph, Input
from hefw.models.digits.model import Digits
from hefw.models.plugin import DigitsOptions
from hefw.models.schedules import Own
from hefw.protocol.process import ServerProcess
from hefw.running import Result
from hefw.strategies.base import Strategy
from hefw.updating import BOUND, Updating

SEED = 0x5EED_0F_A_C0DE_F00D
PUBLIC_LINE = "parameters, schedule, shapes, counts and precision wanted"
#: More pixels than a ciphertext holds, of which those that are encrypted fit one.
MANY = ",".join("0123456789" * 14)
STRATEGIES = {
    "full": "full",
    "min_distortion": {"name": "min_distortion", "threshold": 0.1},
    "sparse": {"name": "sparse", "threshold": 0.1},
    "random": {"name": "random", "fraction": 0.4},
    "roi": {"name": "roi", "box": [0.25, 0.25, 0.75, 0.75]},
}


class Recorder(ServerProcess):
    """The connection to a server's process, with all that it is given."""

    made: ClassVar[list[Recorder]] = []

    def __init__(self, model: Path, backend: str, options: object = None, **how: int) -> None:
        super().__init__(model, backend, options, **how)
        self.frames: list[bytes] = []
        self.file = model.read_bytes()
        process = psutil.Process(self.pid)
        self.start = "\n".join([*process.cmdline(), *process.environ().values()]).encode()
        self.graph = Graph.load(model)
        self.made.append(self)

    def send(self, frame: bytes) -> None:
        self.frames.append(frame)
        super().send(frame)


@dataclass
class Traffic:
    """A run, what its server was given, and what the key holder had."""

    result: Result
    server: Recorder
    reader: Reader
    seen: list[Seen]
    own: list[np.ndarray]  # x_T and every latent after it by the key holder's arithmetic; update-only
    predictions: list[np.ndarray]
    secret_key: bytes

    @property
    def steps(self) -> int:
        return self.result.record.evaluations

    def values(self, item: str, form: str) -> dict[int, np.ndarray]:
        return {seen.step: seen.values for seen in self.seen if (seen.item, seen.form) == (item, form)}


def recorded(monkeypatch: pytest.MonkeyPatch, features: dict[str, int], **config: object) -> Traffic:
    own, predictions, holders = [], [], []
    for module in (run, updating):
        monkeypatch.setattr(module, "ServerProcess", Recorder)
    step = Updating.step

    def watched(self, index, sample, prediction, noise, exact):
        own.extend([exact.copy()] if index else [sample.copy(), exact.copy()])
        predictions.append(prediction.copy())
        return step(self, index, sample, prediction, noise, exact)

    monkeypatch.setattr(Updating, "step", watched)
    make = running.make

    def making(*arguments):
        backend = make(*arguments)
        keygen = backend.keygen
        backend.keygen = lambda *of: holders.append(keygen(*of)) or holders[-1]
        return backend

    monkeypatch.setattr(running, "make", making)
    result = hefw.generate(seed=SEED, backend="tenseal", **config)
    monkeypatch.undo()
    server, (holder,) = Recorder.made.pop(), holders
    assert not Recorder.made, "one server a run"
    reader = Reader(features)
    seen = [item for frame in server.frames for item in reader.read(frame)]
    return Traffic(result, server, reader, seen, own, predictions, holder._secret_bytes())


@cache
def end_to_end(strategy: str) -> Traffic:
    """The toy model on a small ring; three steps, so that two latents come from decryptions."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        found = toy_model.toy_registry()
        monkeypatch.setattr(plugins, "registry", lambda: found)
        monkeypatch.setattr(running, "registry", lambda: found)
        with pytest.MonkeyPatch.context() as inner:
            features = {"latent": toy_model.PIXELS, "label": toy_model.LABELS}
            return recorded(
                inner, features, **{**toy_model.CONFIG, "strategy": STRATEGIES[strategy], "labels": "2,0,0,1"}
            )


@cache
def update_only(
    strategy: str, noise_prediction: str, scheduler: str = "auto", labels: str = "3,1", steps: int = 4
) -> Traffic:
    """Digits at 128 bits: the server has the update alone."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return recorded(
            monkeypatch,
            {},
            protocol="update-only",
            strategy=STRATEGIES[strategy],
            noise_prediction=noise_prediction,
            scheduler=scheduler,
            labels=labels,
            steps=steps,
        )


CASES: dict[str, Callable[[], Traffic]] = {
    **{f"end-to-end {s}": (lambda s=s: end_to_end(s)) for s in STRATEGIES},
    **{
        f"update-only {s} {noise}": (lambda s=s, noise=noise: update_only(s, noise))
        for s, noise in itertools.product(STRATEGIES, ("encrypted", "plaintext"))
    },
    "update-only random, noisy": lambda: update_only("random", "plaintext", "euler-ancestral"),
    "update-only sparse, multistep": lambda: update_only("sparse", "encrypted", "dpm-solver++"),
    "update-only sparse, again": lambda: update_only("sparse", "encrypted", "dpm-solver++", MANY, 3),
}
cases = pytest.mark.parametrize("case", CASES)
UPDATES = [case for case in CASES if case.startswith("update-only")]
PARTIAL = [s for s in STRATEGIES if s != "full"]


# -- both ways ---------------------------------------------------------------------------------------------------------


@cases
def test_what_is_received_is_what_is_listed(case) -> None:
    """Every number, mask, index, unit and ciphertext in the bytes, by step, form, count and size; and no others."""
    traffic = CASES[case]()
    of_server = [e for e in traffic.result.record.ledger.entries if e.party == "server"]
    listed = Counter((e.item, e.step, e.form, e.entries, e.bytes) for e in of_server if e.bytes)
    assert Counter(seen.counted for seen in traffic.seen) == listed
    rest = [(e.item, e.form) for e in of_server if not e.bytes]
    assert rest == [(PUBLIC_LINE, "public")] + [(BOUND, "derived")] * (case in UPDATES)


@cases
def test_the_fraction_is_that_of_the_numbers(case) -> None:
    traffic = CASES[case]()
    private = [seen for seen in traffic.seen if seen.form in ("plaintext", "ciphertext")]
    shown = sum(seen.entries for seen in private if seen.form == "plaintext")
    expected = shown / sum(seen.entries for seen in private)
    assert traffic.result.record.ledger.server_plaintext_fraction == pytest.approx(expected, abs=1e-12)
    everything_hidden = " full" in case and "plaintext" not in case
    assert (expected == 0) == everything_hidden


@cases
def test_every_private_number_is_counted_once(case) -> None:
    """Latents, predictions and labels, each entry of each step in one form."""
    traffic = CASES[case]()
    record = traffic.result.record
    counts: Counter = Counter()
    for seen in traffic.seen:
        if seen.form in ("plaintext", "ciphertext"):
            counts[seen.item, seen.step] += seen.entries
    latent = math.prod(record.shape)
    wanted = {("latent", step): latent for step in range(record.evaluations)}
    if case in UPDATES:
        wanted |= {("prediction", step): latent for step in range(record.evaluations)}
    else:
        wanted["label", None] = len(record.labels) * toy_model.LABELS
    again = {key: n for key, n in counts.items() if key[0].endswith(", again")}
    assert not any(again.values()), "what was sent before is not counted twice"
    assert bool(again) == case.endswith(", again")
    if case.endswith(", noisy"):
        wanted |= {("noise", step): latent for step in range(record.evaluations - 1)}
    assert counts == {**wanted, **again}


def test_history_in_end_to_end_is_not_counted_twice() -> None:
    """A multistep scheduler has earlier latents encrypted anew: new are the latent and the last prediction only."""
    record = hefw.generate(
        backend="simulator", scheduler="unipc", strategy="random", labels="3,1", steps=4, params={"precision_db": 40}
    ).record
    sent = Counter()
    for entry in record.ledger.entries:
        if entry.party == "server" and entry.form in ("plaintext", "ciphertext"):
            sent[entry.item] += entry.entries
    size = 4 * math.prod(record.shape)
    history = {name for name in sent if "-" in name}
    assert "latent-1" in history
    assert {name: sent.pop(name) for name in history} == {name: size * (name == "prediction-1") for name in history}
    assert sent == {"latent": size, "label": 2 * 10}


@cases
def test_ciphertexts_are_of_one_key(case) -> None:
    assert len(CASES[case]().reader.key_ids) == 1


# -- what is shown -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", PARTIAL)
def test_end_to_end_shows_8_bits_and_never_a_decryption(strategy) -> None:
    traffic = end_to_end(strategy)
    shown, selections = traffic.values("latent", "plaintext"), traffic.values("selection of latent", "derived")
    units = traffic.values("unit of latent", "derived")
    assert sorted(shown) == sorted(units) == list(range(toy_model.STEPS))
    for step, values in shown.items():
        decrypted = traffic.result.trajectory[step].ravel()[~selections[step]]
        levels = values / units[step]
        assert np.array_equal(levels, np.rint(levels))
        assert np.abs(levels).max() <= 127
        mantissa, _ = math.frexp(units[step])
        assert mantissa * 8 == int(mantissa * 8), "three bits of the largest entry"
        assert np.abs(values - decrypted).max() <= units[step] / 2 * (1 + 1e-9)
        assert np.abs(values - decrypted).mean() > units[step] / 20, "rounded, not exact"


@pytest.mark.parametrize("case", UPDATES)
def test_update_only_shows_the_key_holders_own_arithmetic(case) -> None:
    """Bit for bit, in 32 bits: never what was decrypted."""
    traffic = CASES[case]()
    for item, own in (("latent", traffic.own), ("prediction", traffic.predictions)):
        shown, selections = traffic.values(item, "plaintext"), traffic.values(f"selection of {item}", "derived")
        for step, values in shown.items():
            mine = own[step].ravel()[~selections[step]]
            assert values.tobytes() == mine.astype("<f4").tobytes()
    if " full" in case and "plaintext" not in case:
        assert not traffic.values("latent", "plaintext")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_own_arithmetic_is_the_twins(strategy) -> None:
    """What the network goes on with is the plaintext twin's, where anything is shown; a decryption where nothing is."""
    traffic = update_only(strategy, "encrypted")
    model, twin = Digits(DigitsOptions()), []
    labels, scheduler = np.array(traffic.result.labels), model.scheduler(Own, {})
    model.twin(traffic.own[0], labels, scheduler, traffic.steps, lambda _, latent: twin.append(latent.copy()))
    off = max(np.abs(a - b).max() for a, b in zip(traffic.own[1:], twin, strict=True))
    assert (off < 1e-9) == (strategy != "full")
    assert off < 1e-3


def loaded(choice: str | dict) -> Strategy:
    registry = toy_model.toy_registry()
    options = {"name": choice} if isinstance(choice, str) else dict(choice)
    name = options.pop("name")
    return registry.load("strategy", name)(registry.entry("strategy", name).options.model_validate(options))


@pytest.mark.parametrize("case", CASES)
def test_masks_are_the_strategys(case) -> None:
    traffic = CASES[case]()
    strategy = loaded(traffic.result.record.config["strategy"])
    selections = traffic.values("selection of latent", "derived")
    latents = traffic.own if case in UPDATES else list(traffic.result.trajectory)
    for step in range(traffic.steps):
        wanted = np.stack([strategy.select(image) for image in latents[step]]).ravel()
        assert np.array_equal(selections.get(step, np.ones(wanted.size, bool)), wanted)
    if "sparse" in case and case in UPDATES:
        lists = traffic.values("indices of encrypted entries", "derived")
        assert all(set(np.flatnonzero(selections[step])) <= set(order) for step, order in lists.items())


# -- what is not there -------------------------------------------------------------------------------------------------


def given(traffic: Traffic) -> bytes:
    """All that the server can read without a key: messages without payloads, its file, how it was started."""
    return traffic.reader.clear + traffic.server.file + traffic.server.start


def everything(traffic: Traffic) -> bytes:
    return b"".join(traffic.server.frames) + traffic.server.file + traffic.server.start


def hidden(traffic: Traffic, case: str) -> dict[str, np.ndarray]:
    """The entries of each tensor that the server was not shown at any step, as the key holder had them."""
    latents = traffic.own if case in UPDATES else list(traffic.result.trajectory)
    selections = traffic.values("selection of latent", "derived")
    found = {}
    for step in range(traffic.steps):
        entries = latents[step].ravel()
        found[f"latent {step}"] = entries[selections.get(step, np.ones(entries.size, bool))]
    selections = traffic.values("selection of prediction", "derived")
    for step, prediction in enumerate(traffic.predictions):
        entries = prediction.ravel()
        found[f"prediction {step}"] = entries[selections.get(step, np.ones(entries.size, bool))]
    found["last"] = traffic.result.images.ravel()
    return found


def renderings(entries: np.ndarray) -> dict[str, list[bytes]]:
    """Numbers as bytes: alone, and by two."""
    return {
        kind: [entries.astype(kind).tobytes()[k : k + size] for k in range(0, len(entries) * size, size)]
        for kind in ("<f4", ">f4", "<f8", ">f8")
        if (size := np.dtype(kind).itemsize)
    }


def windows(numbers: np.ndarray, size: int = 8) -> set[bytes]:
    """Of small integers, as unsigned bytes: all sequences of a length, but for those of few different ones."""
    data = numbers.astype(np.int16).astype(np.uint8).tobytes()
    found = (data[k : k + size] for k in range(len(data) - size + 1))
    return {window for window in found if len(set(window)) > 3}


def test_a_hidden_entry_would_be_found() -> None:
    """The searches below find what is shown, so that they would find what is hidden."""
    traffic = update_only("random", "encrypted")
    shown = traffic.values("latent", "plaintext")[1]
    assert all(one in given(traffic) for one in renderings(shown)["<f4"])
    two = [shown[k : k + 2].astype("<f4").tobytes() for k in range(len(shown) - 1)]
    assert occurring(two, everything(traffic)) == set(two)
    rounded = end_to_end("random")
    unit = rounded.values("unit of latent", "derived")[1]
    sent = windows(rounded.values("latent", "plaintext")[1] / unit)
    assert sent
    assert occurring(sent, given(rounded)) == sent


@cases
def test_no_hidden_entry_is_in_the_bytes(case) -> None:
    """Neither one by one in what can be read without a key, nor in 64 bits in anything at all."""
    traffic = CASES[case]()
    clear = given(traffic)
    alone, long = [], []
    for entries in hidden(traffic, case).values():
        of = renderings(entries[np.abs(entries) > 1e-3][:400])
        alone += of["<f4"] + of[">f4"]
        long += of["<f8"] + of[">f8"]
        long += [a + b for kind in ("<f4", ">f4") for a, b in itertools.pairwise(of[kind])]
    assert len(alone) >= 20
    # of tens of thousands of numbers in four bytes a hidden one may be the same as one that is shown, and listed
    listed = [seen.values for seen in traffic.seen if seen.form == "plaintext" and seen.values is not None]
    listed = {one for values in listed for one in renderings(np.ravel(values))["<f4"]}
    assert not [one for one in alone if one in clear and one not in listed]
    assert not occurring(long, everything(traffic))


@cases
def test_no_hidden_entry_is_there_in_8_bits(case) -> None:
    """As levels of any unit that was sent, or as grey levels: not eight of them in sequence."""
    traffic = CASES[case]()
    units = [*traffic.values("unit of latent", "derived").values(), 1 / 127.5]
    wanted = set()
    for entries in hidden(traffic, case).values():
        for unit, offset in itertools.product(units, (0, 127.5)):
            wanted |= windows(np.clip(np.rint(entries / unit + offset), -128, 255))
    assert wanted
    assert not occurring(wanted, given(traffic))


@cases
def test_no_label_seed_or_key_is_in_the_bytes(case) -> None:
    traffic = CASES[case]()
    clear, all_bytes = given(traffic), everything(traffic)
    seed = [str(SEED).encode(), hex(SEED)[2:].encode(), struct.pack("<q", SEED), struct.pack(">q", SEED)]
    key = traffic.secret_key[300:]  # without what all of SEAL's objects begin with
    assert len(key) > 5_000
    secrets = [key[k : k + 8] for k in range(0, len(key) - 8, 8) if len(set(key[k : k + 8])) > 6]
    assert len(secrets) > 300
    assert not occurring([*seed, *secrets], all_bytes)
    labels = np.array(traffic.result.labels * 2)
    for kind in ("<f8", "<f4", "<i8", "<i4"):
        assert np.eye(10)[labels].astype(kind).tobytes() not in all_bytes
        assert labels.astype(kind).tobytes() not in clear


@pytest.mark.parametrize("case", UPDATES)
def test_the_graph_of_updates_holds_the_schedule_and_a_bound(case) -> None:
    """The key holder makes the file: nothing of the picture is in it but a power of two above all latents."""
    traffic = CASES[case]()
    graph = traffic.server.graph
    bounds = {name: np.unique(values) for name, values in graph.calibration.items()}
    assert all(len(values) == 1 and math.log2(values[0]).is_integer() for values in bounds.values())
    largest = max(np.abs(latent).max() for latent in traffic.own)
    assert bounds["latent"] >= largest / 2
    assert {name for name, node in graph.nodes.items() if not isinstance(node, Input)} == {"update"}
    update = graph.nodes["update"]
    assert not update.bias.any()
    assert all(term.matrix.identity_factor == 1 for term in update.terms)
