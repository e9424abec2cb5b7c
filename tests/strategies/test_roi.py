"""`roi` encrypts a region of all channels, from a mask or a box, and says what is wrong with either."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hefw.core.errors import ConfigError, EncodingError, PluginError
from hefw.strategies.base import Strategy
from hefw.strategies.plugin import RoiOptions
from hefw.strategies.roi import Roi
from hefw.testing import StrategyConformance


def boxed(box: list[float], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    return Roi(RoiOptions.model_validate({"box": box})).select(np.zeros(shape))


def masked(path: Path, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    return Roi(RoiOptions(mask=str(path))).select(np.zeros(shape))


def saved(path: Path, values: object, mode: str | None = None) -> Path:
    """An image file; its name's ending is its format."""
    image = Image.fromarray(np.asarray(values, dtype=np.uint8))
    (image.convert(mode) if mode else image).save(path)
    return path


# -- boxes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "shape", "rows", "columns"),
    [
        ([0.25, 0.5, 0.75, 1], (1, 8, 8), (2, 6), (4, 8)),
        ([0, 0, 1, 1], (4, 3, 5), (0, 3), (0, 5)),
        ([0.3, 0.2, 0.7, 0.4], (2, 10, 20), (3, 7), (4, 8)),  # shares of the height and of the width
        ([0.1, 0.0, 0.3, 1.0], (1, 30, 2), (3, 9), (0, 2)),  # 0.1 * 30 is 3, not a little more
        ([0.07, 0.0, 0.29, 1.0], (1, 100, 2), (7, 29), (0, 2)),  # as binary numbers: 7.000000000000001 and 28.999...
        ([0.26, 0.49, 0.74, 0.51], (1, 8, 8), (2, 6), (3, 5)),  # a place partly inside is encrypted
        ([0.5, 0.5, 0.500001, 0.500001], (1, 2, 2), (1, 2), (1, 2)),
        ([0.2, 0.2, 0.4, 0.4], (1, 1, 1), (0, 1), (0, 1)),
    ],
)
def test_a_box_is_encrypted_in_all_channels(box, shape, rows, columns) -> None:
    expected = np.zeros(shape, dtype=bool)
    expected[:, slice(*rows), slice(*columns)] = True
    assert np.array_equal(boxed(box, shape), expected)


# -- masks -----------------------------------------------------------------------------------------------------------


def test_a_mask_of_the_latents_size_is_the_selection_of_each_channel(tmp_path: Path) -> None:
    white = np.random.default_rng(0).random((6, 10)) < 0.4
    found = masked(saved(tmp_path / "mask.png", 255 * white), (3, 6, 10))
    assert np.array_equal(found, np.stack([white] * 3))


def test_a_place_is_encrypted_if_any_of_its_pixels_is_white(tmp_path: Path) -> None:
    pixels = np.zeros((8 * 3, 8 * 5))
    pixels[11, 39] = 255  # row 1, column 4
    pixels[16:, :8] = 255  # row 2, column 0
    found = masked(saved(tmp_path / "mask.png", pixels), (2, 3, 5))
    assert np.argwhere(found).tolist() == [[c, *place] for c in (0, 1) for place in ([1, 4], [2, 0])]


def test_a_mask_may_be_larger_by_another_factor_along_each_side(tmp_path: Path) -> None:
    pixels = np.zeros((4, 9))
    pixels[3, 8] = 255
    assert np.argwhere(masked(saved(tmp_path / "mask.png", pixels), (1, 2, 3))).tolist() == [[0, 1, 2]]


def test_half_brightness_is_where_white_begins(tmp_path: Path) -> None:
    found = masked(saved(tmp_path / "mask.png", [[0, 1, 127, 128, 255]]), (1, 1, 5))
    assert found.ravel().tolist() == [False, False, False, True, True]


@pytest.mark.parametrize(("mode", "name"), [("1", "m.png"), ("P", "m.gif"), ("RGB", "m.bmp"), ("CMYK", "m.jpg")])
def test_any_kind_of_image_is_read(mode: str, name: str, tmp_path: Path) -> None:
    white = np.zeros((16, 16), dtype=bool)
    white[:8, 8:] = True
    assert np.array_equal(masked(saved(tmp_path / name, 255 * white, mode), (1, 16, 16))[0], white)


def test_what_is_transparent_is_black(tmp_path: Path) -> None:
    path = saved(tmp_path / "mask.png", [[[255, 255, 255, 0], [255, 255, 255, 255], [0, 0, 0, 255]]])
    assert masked(path, (1, 1, 3)).ravel().tolist() == [False, True, False]


def test_the_home_directory_may_be_written_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    saved(tmp_path / "mask.png", np.full((2, 2), 255))
    assert masked(Path("~/mask.png"), (1, 2, 2)).all()


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", [(6, 15), (3, 5), (10, 6), (7, 11)])
def test_a_mask_of_another_shape_names_both_shapes(pixels: tuple[int, int], tmp_path: Path) -> None:
    path = saved(tmp_path / "mask.png", np.full(pixels, 255))
    with pytest.raises(ConfigError) as error:
        masked(path, (1, 6, 10))
    assert str(error.value) == (
        f"mask {str(path)!r} is {pixels[0]}x{pixels[1]} (height x width), the latent 6x10; allowed: the latent's size, "
        "or an integer multiple of each side; resize the mask, or use a box"
    )


def refusal(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(path.parent)
    with pytest.raises(ConfigError) as error:
        Roi(RoiOptions(mask=path.name))
    return str(error.value)


def test_a_file_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(tmp_path / "mask.png", monkeypatch) == (
        "mask 'mask.png' does not exist; give the path of an image file, white = encrypted"
    )


def test_a_file_that_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mask.png").write_text("white")
    assert refusal(tmp_path / "mask.png", monkeypatch) == (
        "mask 'mask.png' is no image; give a PNG or another image file, white = encrypted"
    )


def test_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "masks").mkdir()
    assert refusal(tmp_path / "masks", monkeypatch) == (
        "mask 'masks' cannot be read: Is a directory; give an image file, white = encrypted"
    )


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("format", ["png", "jpg", "gif", "bmp", "tif", "webp"])
def test_an_image_that_is_cut_off(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / f"mask.{format}", np.random.default_rng(0).integers(0, 256, size=(64, 64)))
    whole = path.read_bytes()
    for length in (len(whole) // 2, 40):
        path.write_bytes(whole[:length])
        line = refusal(path, monkeypatch)
        assert line.startswith(f"mask 'mask.{format}' "), line
        assert line.endswith("image file, white = encrypted"), line
        assert "\n" not in line


def test_a_mask_of_16_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.full((2, 2), 40000, dtype=np.uint16)).save(tmp_path / "mask.png")
    assert refusal(tmp_path / "mask.png", monkeypatch) == (
        "mask 'mask.png' has more than 8 bits a channel (mode I;16); save it with 8 bits"
    )


def test_a_mask_without_white(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "mask.png", np.full((2, 2), 127))
    assert refusal(tmp_path / "mask.png", monkeypatch) == (
        "mask 'mask.png' has no white pixel, so nothing would be encrypted; paint the region white"
    )


def test_without_pillow_a_box_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert boxed([0, 0, 1, 1], (1, 2, 2)).all()
    with pytest.raises(PluginError) as error:
        Roi(RoiOptions(mask="mask.png"))
    assert str(error.value) == (
        "mask 'mask.png' cannot be read: pillow not installed; run: pip install 'hefw[report]', or use a box"
    )


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(EncodingError, match=r"^1 of 4 entries of a latent are not finite"):
        Roi(RoiOptions(box=(0, 0, 1, 1))).select(np.array([[[1, 2], [3, -np.inf]]]))


class TestRoiOfABox(StrategyConformance):
    @pytest.fixture
    def strategy(self) -> Strategy:
        return Roi(RoiOptions(box=(0.25, 0.25, 0.6, 0.75)))


class TestRoiOfAMask(StrategyConformance):
    shapes = ((1, 8, 8), (4, 8, 8), (3, 16, 8), (1, 1, 1))

    @pytest.fixture
    def strategy(self, tmp_path: Path) -> Strategy:
        white = np.random.default_rng(0).random((64, 64)) < 0.01
        return Roi(RoiOptions(mask=str(saved(tmp_path / "mask.png", 255 * white))))
