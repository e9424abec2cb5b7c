"""MNIST's own files: what is read from them, and what is said about files that are none."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mnist_files import idx, write_mnist

from hefw.core.errors import ConfigError
from hefw.models.mnist.data import IMAGES, load, read_idx


@pytest.mark.parametrize("zipped", [True, False])
def test_the_first_four_fifths_train_and_the_rest_judges(tmp_path: Path, zipped: bool) -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 28, 28))
    images[0, 0, :2] = 0, 255
    write_mnist(tmp_path, images, np.arange(10), zipped=zipped)
    data = load(tmp_path)
    assert data.training.labels.tolist() == list(range(8))
    assert data.held_out.labels.tolist() == [8, 9]
    assert data.training.images.shape == (8, 1, 28, 28)
    assert data.training.images[0, 0, 0, :2].tolist() == [-1.0, 1.0]
    both = torch.cat([data.training.images, data.held_out.images])
    assert np.allclose(both[:, 0].numpy() * 127.5 + 127.5, images, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(values=st.integers(1, 3).flatmap(lambda n: arrays(np.uint8, st.tuples(*[st.integers(0, 4)] * n))))
def test_an_idx_file_is_the_array_that_was_written(
    values: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(idx(values))
    assert np.array_equal(read_idx(path, values.ndim), values)


def shortened(content: bytes) -> bytes:
    return content[:-1]


def of_other_numbers(content: bytes) -> bytes:
    return content[:2] + b"\x0d" + content[3:]


def no_header(content: bytes) -> bytes:
    return content[:7]


@pytest.mark.parametrize("spoil", [shortened, of_other_numbers, no_header])
def test_a_file_that_is_no_idx_file_is_refused_by_its_name(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = tmp_path / IMAGES
    path.write_bytes(spoil(idx(np.zeros((2, 3, 3), np.uint8))))
    with pytest.raises(ConfigError, match=f"{IMAGES}.*is no IDX file of 3 dimensions"):
        read_idx(path, 3)


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"cut short" * 100)[:-20]], ids=["no gzip", "cut short"])
def test_a_file_that_cannot_be_unpacked_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_idx(path, 3)


def test_a_missing_file_is_named_with_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"has no file {IMAGES}.gz; give the folder of MNIST's"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        ((4, 32, 32), [0, 1, 2, 3], "(4, 32, 32)"),
        ((4, 28, 28), [0, 1, 2], "3 labels"),
        ((2, 28, 28), [3, 10], "up to 10"),
        ((1, 28, 28), [3], "1 images"),
    ],
)
def test_files_that_do_not_go_together_are_refused(
    tmp_path: Path, images: tuple[int, ...], labels: list[int], said: str
) -> None:
    write_mnist(tmp_path, np.zeros(images), np.array(labels))
    with pytest.raises(ConfigError) as error:
        load(tmp_path)
    assert said in str(error.value)
