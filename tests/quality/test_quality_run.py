"""Whole judgements: the record, what it says at the ends, and the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from quality_toys import config
from toy_model import LABELS, PRECISION_DB, STEPS

from hefw.config import Config
from hefw.core.errors import ConfigError
from hefw.models.frechet import frechet_distance
from hefw.quality.page import over_original, summary
from hefw.quality.record import SCHEMA_PATH, QualityRecord, schema_text
from hefw.quality.run import Asked, Quality, quality
from hefw.quality.write import FILES, write_quality
from hefw.record import INSECURE, SIMULATED

SMALL = Asked(samples=40, simulated=6)


@pytest.fixture
def pictures(judged_toys: None) -> Quality:
    """A model with an original and with pictures of its training."""
    return quality(config("pictures"), SMALL)


# -- the record --------------------------------------------------------------------------------------------------------


def test_the_schema_is_the_committed_one_and_records_follow_it(pictures: Quality) -> None:
    text = SCHEMA_PATH.read_text(encoding="utf-8")
    assert text == schema_text(), "run: python -m hefw.quality.record > hefw/quality/quality.schema.json"
    jsonschema.validate(json.loads(pictures.record.to_json()), json.loads(text))
    assert QualityRecord.model_validate_json(pictures.record.to_json()) == pictures.record


def test_the_same_seed_gives_the_same_figures_and_another_one_others(judged_toys: None) -> None:
    asked = Asked(samples=40, simulated=0)
    first, again = (quality(config(), asked).record for _ in range(2))
    assert first.sets == again.sets
    other = quality(config(), Asked(samples=40, simulated=0, seed=2)).record
    assert other.sets != first.sets
    assert {item.pictures for item in other.sets} == {40}


def test_every_network_is_judged_at_every_number_of_steps(judged_toys: None) -> None:
    record = quality(config("pictures"), Asked(samples=20, steps=(2, 4), simulated=3)).record
    found = [(item.kind, item.steps, item.pictures) for item in record.sets]
    assert found == [
        ("real", None, 20),
        ("original", 2, 20),
        ("twin", 2, 20),
        ("original", 4, 20),
        ("twin", 4, 20),
        ("simulated", 2, 3),
    ]
    assert record.of("twin", 4) is record.sets[4]
    assert record.config["steps"] == STEPS


def test_figures_of_the_twin_are_those_of_its_pictures(judged_toys: None) -> None:
    from quality_toys import JudgedToy

    from hefw.hookspecs import Options

    model = JudgedToy(Options())
    noise = np.random.default_rng(1).normal(size=(40, 1, 4, 4))
    labels = np.arange(40) % LABELS
    images = model.twin(noise, labels, None, STEPS, lambda *_: None)
    rows, reference = model.features(images), model.reference()
    twin = quality(config(), Asked(samples=40, simulated=0)).record.of("twin")
    assert twin is not None
    assert twin.distance is not None
    assert twin.accuracy is not None
    assert twin.nearest is not None
    assert twin.ranges is not None
    assert twin.distance.value == pytest.approx(frechet_distance(rows, reference.real))
    assert twin.accuracy.value == pytest.approx((model.judge(images) == labels).mean())
    table = np.linalg.norm(rows[:, None] - reference.training, axis=2)
    assert twin.nearest.median == pytest.approx(np.median(table.min(1)))
    assert twin.ranges.graph_error == pytest.approx(0, abs=1e-9)
    assert twin.diverged == 0


def test_simulated_pictures_are_paired_with_their_twins(pictures: Quality) -> None:
    found = pictures.record.of("simulated")
    assert found is not None
    assert found.twin is not None
    assert found.twin.psnr_db is not None
    assert found.twin.lowest_psnr_db is not None
    assert found.twin.psnr_db > found.twin.lowest_psnr_db >= PRECISION_DB - 10
    assert found.twin.label_agreement == found.pictures == 6
    error = np.abs(pictures.columns["simulated"] - pictures.columns["twin"][:6]).max()
    assert found.twin.max_abs_error >= error - 1e-9 > 0
    assert pictures.record.banner == INSECURE
    assert found.distance is not None  # six pictures are enough for four features


def test_encrypted_pictures_are_drawn_by_the_backend(judged_toys: None) -> None:
    record = quality(config(backend="tenseal"), Asked(samples=20, simulated=0, encrypted=3)).record
    found = record.of("encrypted")
    assert found is not None
    assert found.twin is not None
    assert (found.backend, found.pictures, found.twin.label_agreement) == ("tenseal", 3, 3)
    assert found.twin.lowest_psnr_db is not None
    assert found.twin.lowest_psnr_db >= PRECISION_DB - 10
    assert found.distance is None
    assert any("Fréchet distance of 3 encrypted pictures" in reason for reason in record.not_available)
    assert record.of("simulated") is None


def test_what_is_compared_with_the_original(pictures: Quality) -> None:
    record = pictures.record
    twin, original = record.of("twin"), record.of("original")
    assert twin is not None
    assert original is not None
    assert twin.distance is not None
    assert original.distance is not None
    assert over_original(record, twin) == pytest.approx(twin.distance.value / original.distance.value)
    assert over_original(record, original) is None
    assert any("times the original's" in sentence for sentence in summary(record))
    assert np.abs(pictures.columns["original"] - pictures.columns["twin"] - 0.5).max() < 1e-9


def test_real_pictures_are_the_floor(pictures: Quality, judged_toys: None) -> None:
    real, twin = pictures.record.of("real"), pictures.record.of("twin")
    assert real is not None
    assert twin is not None
    assert real.distance == twin.floor is not None
    assert real.accuracy is not None  # labels and pictures are there
    assert real.diversity is not None
    assert not pictures.record.reference.held_out
    bare = quality(config(), Asked(samples=20, simulated=0)).record
    without = bare.of("real")
    assert without is not None
    assert without.accuracy is without.diversity is None
    assert bare.reference.held_out
    assert len(bare.not_available) == 2


def test_shown_samples_have_their_nearest_training_picture(pictures: Quality) -> None:
    record = pictures.record
    assert [item.label for item in record.shown] == [k % LABELS for k in range(10)]
    assert pictures.columns["nearest"].shape == pictures.columns["real"].shape == (10, 1, 4, 4)


def test_divergence_is_counted_and_no_distance_is_made_up(judged_toys: None, tmp_path: Path) -> None:
    found = quality(config("exploding"), Asked(samples=20, simulated=0))
    twin = found.record.of("twin")
    assert twin is not None
    assert twin.ranges is not None
    assert (twin.diverged, twin.distance, twin.ranges.largest, twin.ranges.beyond) == (20, None, None, 20)
    assert twin.ranges.graph_error is None
    assert "not finite" in (write_quality(found, tmp_path)[1]).read_text()


def test_digits_are_as_good_as_they_were() -> None:
    record = quality(Config(backend="simulator", steps=10), Asked(samples=500, simulated=0)).record
    twin = record.of("twin")
    assert twin is not None
    assert twin.accuracy is not None
    assert twin.distance is not None
    assert twin.ranges is not None
    assert twin.ranges.largest is not None
    assert twin.ranges.graph_error is not None
    assert twin.accuracy.value >= 0.98
    assert twin.distance.value < 40
    assert twin.diverged == twin.ranges.beyond == 0
    assert twin.ranges.largest < 6
    assert twin.ranges.graph_error < 1e-4
    assert record.banner is None  # nothing but plaintext, and no more is said


def test_what_is_simulated_alone_says_so(pictures: Quality) -> None:
    record = pictures.record
    sets = [item.model_dump() for item in record.sets]
    sets[-1]["params"]["insecure"] = False
    secure = QualityRecord.model_validate({**record.model_dump(), "sets": sets})
    assert secure.banner == SIMULATED


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_page_stands_alone_and_has_every_set(pictures: Quality, tmp_path: Path) -> None:
    paths = write_quality(pictures, tmp_path)
    assert [path.name for path in paths] == list(FILES)
    text = (tmp_path / "quality.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script|url\(", text)
    assert text.count("data:image/png;base64,") == 2  # for light and dark surroundings
    for part in ("original, 3 steps", "twin, 3 steps", "simulated, 3 steps", "times the original", INSECURE):
        assert part in text
    assert "encrypted, 3 steps" not in text
    assert json.loads((tmp_path / "quality.json").read_text())["model"] == "pictures"
    assert write_quality(pictures, tmp_path)[1].read_text(encoding="utf-8") == text


def test_sentences_name_what_was_found(pictures: Quality) -> None:
    text = "\n".join(summary(pictures.record))
    assert re.search(r"^Twin, 3 steps: of 40 pictures, [\d.]+% are classified as their label; Fréchet", text, re.M)
    assert re.search(r"^Simulated, 3 steps, on simulator: .*; PSNR against the plaintext twin [\d.]+ dB", text, re.M)
    assert "6 are classified as their twins are; none diverged." in text


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "asked", "part"),
    [
        ({"model": "plain"}, {}, "model 'plain' cannot be judged"),
        ({"model": "plain"}, {}, "those that have: broken, exploding, pictures, toy"),
        ({"protocol": "update-only"}, {}, "use protocol: end-to-end"),
        ({}, {"samples": 4}, "--samples 4 is too few: model 'toy' is judged by a covariance of 4 features"),
        ({}, {"samples": 1}, "--samples 1 is not allowed; allowed: an integer from 2"),
        ({}, {"steps": (0,)}, "--steps 0 is not allowed"),
        ({}, {"seed": -1}, "--seed -1 is not allowed"),
        ({}, {"encrypted": 3}, "backend 'simulator' encrypts nothing"),
        ({}, {"simulated": 10**6}, "--simulated 1000000 is not allowed"),
        ({"model": "broken"}, {}, "no weights"),
    ],
)
def test_bad_input_is_one_line(judged_toys: None, given: dict, asked: dict, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        quality(config(**given), Asked(**{"simulated": 0, **asked}))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
