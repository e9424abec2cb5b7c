"""What runs take from the cache: programs, graphs without their networks, encoded weights; and that it is the same."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy_model

import hefw
from hefw import cache as caching
from hefw import outlines, planned
from hefw.cache import Cache
from hefw.config import Config
from hefw.core import codec, encoded
from hefw.core.runner import Weights
from hefw.keymaking import make_keys
from hefw.planned import CachedWeights, program_digest, program_of

REQUEST = replace(toy_model.REQUEST, images=3)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("HEFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HEFW_HOME", str(tmp_path / "home"))
    found = caching.default()
    assert found is not None
    return found


def kinds(cache: Cache) -> list[str]:
    return sorted(entry.kind for entry in cache.entries())


# -- programs ----------------------------------------------------------------------------------------------------------


def test_a_program_is_planned_once(cache, monkeypatch) -> None:
    graph, backend = toy_model.graph(), toy_model.backend("simulator")
    first = program_of(graph, backend, REQUEST, cache)
    monkeypatch.setattr(planned, "lower", lambda *_: pytest.fail("planned again"))
    again = program_of(graph, backend, REQUEST, cache)
    assert codec.encode(again) == codec.encode(first)
    for other in (
        (toy_model.graph(seed=1), backend, REQUEST),
        (graph, toy_model.backend(), REQUEST),
        (graph, backend, replace(REQUEST, precision_db=40.0)),
        (graph, backend, replace(REQUEST, images=4)),
    ):
        assert program_digest(*other) != program_digest(graph, backend, REQUEST)


@pytest.mark.parametrize("content", [b"no program", None], ids=["nonsense", "another graph's"])
def test_an_entry_that_is_no_program_of_it_is_made_again(cache, caplog, content) -> None:
    graph, backend = toy_model.graph(), toy_model.backend("simulator")
    other = codec.encode(program_of(toy_model.graph(seed=1), backend, REQUEST, None))
    cache.put("program", program_digest(graph, backend, REQUEST), [content or other])
    with caplog.at_level(logging.WARNING):
        found = program_of(graph, backend, REQUEST, cache)
    assert found.interface.graph_digest == graph.digest
    assert "is damaged: it is dropped and made again" in caplog.records[0].getMessage()
    assert len(cache.entries()) == 1


# -- encoded weights ---------------------------------------------------------------------------------------------------


class Memory:
    """A `WeightStore` in memory."""

    def __init__(self, content: bytes | None = None) -> None:
        self.content = content
        self.broken = False

    def load(self) -> bytes | None:
        return self.content

    def save(self, parts: Sequence[codec.Buffer]) -> None:
        self.content = b"".join(bytes(part) for part in parts)

    def damaged(self) -> None:
        self.broken = True


def test_weights_from_the_store_are_those_that_were_encoded(monkeypatch) -> None:
    backend = toy_model.backend()
    program = program_of(toy_model.graph(), backend, REQUEST, None)
    evaluator, store, told = backend.evaluator(program.params), Memory(), []
    first, again = Weights(program), Weights(program)
    encoded.prepare(first, evaluator, store)
    counts = evaluator.counts["encode"]
    encoded.prepare(again, evaluator, store, told.append)
    assert evaluator.counts["encode"] == counts > 0
    assert again.complete
    assert (told[-1].done, told[-1].total) == (first.kept_count, first.kept_count)
    assert again.kept_bytes == first.kept_bytes > 0
    for name, plaintexts in first.encoded.items():
        for one, two in zip(plaintexts, again.encoded[name], strict=True):
            assert (one.level, one.scale) == (two.level, two.scale)
            assert evaluator.dump_plaintext(one) == evaluator.dump_plaintext(two)


def test_weights_that_are_none_or_of_another_program_are_encoded_again() -> None:
    backend = toy_model.backend()
    program = program_of(toy_model.graph(), backend, REQUEST, None)
    evaluator = backend.evaluator(program.params)
    wrong = {op.name: [np.zeros(9, np.uint8)] * program.op_weight_count(op) for op in Weights(program).kept}
    for content in (b"", b"x" * 99, codec.encode({}), codec.encode(wrong)):
        weights, store = Weights(program), Memory(content)
        encoded.prepare(weights, evaluator, store)
        assert store.broken
        assert weights.complete
        assert store.content != content


def test_a_library_without_plaintext_bytes_encodes() -> None:
    backend = toy_model.backend("simulator")
    program = program_of(toy_model.graph(), backend, REQUEST, None)
    weights, store = Weights(program), Memory()
    encoded.prepare(weights, backend.evaluator(program.params), store)
    assert weights.complete
    assert store.content is None


def test_a_plaintext_of_another_level_is_refused() -> None:
    backend = toy_model.backend()
    program = program_of(toy_model.graph(), backend, REQUEST, None)
    evaluator = backend.evaluator(program.params)
    data = evaluator.dump_plaintext(evaluator.encode(1.5, 2, 2.0**30))
    assert evaluator.load_plaintext(data, 2, 2.0**30).level == 2
    for level, scale in ((1, 2.0**30), (2, 2.0**31)):
        with pytest.raises(hefw.core.errors.EnvelopeError, match="a plaintext that is not of level"):
            evaluator.load_plaintext(data, level, scale)


# -- whole runs --------------------------------------------------------------------------------------------------------


def test_weights_are_kept_for_runs_with_stored_keys_alone(toys, cache) -> None:
    config = Config(**{**toy_model.CONFIG, "twin": False})
    hefw.generate(config)
    assert kinds(cache) == ["program"]  # the toy's graph depends on nobody knows what
    make_keys("alice", config)
    first = hefw.generate(config, keys="alice")
    assert kinds(cache) == ["program", "weights"]
    again = hefw.generate(config, keys="alice", twin=True)
    assert kinds(cache) == ["program", "weights"]
    assert toy_model.psnr(again.images, again.plain) >= toy_model.PRECISION_DB
    assert np.abs(first.images - again.images).max() <= 2 / 255
    assert again.record.counts["encode"] < first.record.counts["encode"]


def test_no_key_and_no_number_of_a_run_is_in_the_cache(toys, cache, tmp_path) -> None:
    config = Config(**{**toy_model.CONFIG, "twin": False})
    made = make_keys("alice", config)
    result = hefw.generate(config, keys="alice")
    content = b"\0".join(path.read_bytes() for path in cache.folder.iterdir())
    assert len(content) > 100_000
    secret = (made.folder / "secret").read_bytes()
    body = secret[200 : len(secret.rstrip(b"\0")) - 24]
    for block in (body[k : k + 24] for k in range(0, len(body), 48)):
        assert len(set(block)) < 12 or block not in content
    assert made.record.key_id.encode() not in content
    assert bytes.fromhex(made.record.key_id) not in content
    for latents in result.trajectory:
        assert latents.tobytes()[:16] not in content
        assert latents.astype(np.float32).tobytes()[:16] not in content


DRAW = """
import sys
import hefw
told = []
twin = len(sys.argv) > 1
result = hefw.generate(backend="simulator", labels="0-1", steps=2, twin=twin, params={"precision_db": 30},
                       progress=lambda p: told.append((p.stage, "torch" in sys.modules)))
print(result.images.round(1).tolist(), result.record.model.scheduler, result.record.model.digest)
print("torch" in sys.modules, [t for s, t in told if s == "label"][:1], (result.record.psnr_db or 0) > 20)
"""


def test_a_second_run_needs_no_network_before_its_first_step(cache) -> None:
    """In processes of their own: what they import is what matters."""
    first, again, twin = (
        subprocess.run([sys.executable, "-c", DRAW, *more], capture_output=True, text=True, check=True).stdout.split(
            "\n"
        )
        for more in ([], [], ["twin"])
    )
    assert kinds(cache) == ["graph", "program"]
    assert first[0].rpartition("]")[2] == again[0].rpartition("]")[2]  # the same scheduler and graph
    assert (first[1], again[1]) == ("True [True] False", "False [False] False")
    assert twin[1] == "True [False] True"  # loaded while the server worked


def test_an_outline_is_the_model(cache) -> None:
    from hefw.run import prepared

    settings = Config(backend="simulator", labels="0-1", steps=2, params={"precision_db": 30})
    chosen = settings.resolve()
    assert outlines.find(settings, chosen, cache) is None
    graph, wanted = prepared(settings).asking()
    found = prepared(settings)
    assert isinstance(found.model, outlines.Outlined)
    assert found.asking()[0].digest == graph.digest
    assert found.asking()[1] == wanted
    real = found.model.model
    latents, labels = np.random.default_rng(0).normal(size=(2, *real.latent_shape)), np.array([0, 1])
    for name, values in real.inputs(latents, labels).items():
        assert np.array_equal(found.model.inputs(latents, labels)[name], values)
    assert (found.model.labels, found.model.latent_shape, found.model.name) == (
        real.labels,
        real.latent_shape,
        real.name,
    )
    assert found.initial == 1.0
    assert np.array_equal(found.model.decode(latents), real.decode(latents))
    for more in ({"steps": 3}, {"scheduler": "euler"}, {"model": "digits-shallow"}):
        other = Config(**{**settings.to_dict(), **more})
        assert outlines.find(other, other.resolve(), cache) is None
    for more in ({"protocol": "update-only"}, {"init_image": "x.png"}):
        other = Config(**{**settings.to_dict(), **more})
        assert outlines.find(other, other.resolve(), cache) is None


def test_a_damaged_outline_is_made_again(cache, caplog) -> None:
    settings = Config(backend="simulator", labels="0-1", steps=2, params={"precision_db": 30})
    chosen = settings.resolve()
    from hefw.run import prepared

    prepared(settings).asking()
    (entry,) = cache.entries()
    cache.put("graph", entry.digest, [b"\x80"])
    assert outlines.find(settings, chosen, cache) is None
    assert "is damaged" in caplog.records[0].getMessage()
    assert not cache.entries()


def test_weights_are_in_a_store_of_their_own_program(cache) -> None:
    graph, backend = toy_model.graph(), toy_model.backend("simulator")
    store = CachedWeights(cache, graph, backend, REQUEST)
    assert store.load() is None
    store.save([b"abc"])
    assert bytes(store.load() or b"") == b"abc"
    assert CachedWeights(cache, graph, backend, replace(REQUEST, images=4)).load() is None
    store.damaged()
    assert store.load() is None
