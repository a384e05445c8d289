"""Reading any picture: the pixel values are known in advance for every mode."""

from __future__ import annotations

import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gansuite.data.images import is_image, read_image, resize_uint8
from gansuite.errors import UserError


def _save(path: Path, array: np.ndarray, mode: str | None = None, quality: int = 95) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, quality=quality)
    return path


COLOUR = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


def test_colour_and_luminance(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png", COLOUR)
    assert np.array_equal(read_image(path, 3), COLOUR)
    grey = read_image(path, 1)
    assert grey.shape == (4, 6, 1)
    assert np.abs(grey[:, :, 0] - COLOUR @ np.array([0.299, 0.587, 0.114])).max() <= 1


def test_grey_is_replicated(tmp_path: Path) -> None:
    values = COLOUR[:, :, 0]
    path = _save(tmp_path / "a.png", values)
    assert np.array_equal(read_image(path, 3), np.stack([values] * 3, axis=2))
    assert np.array_equal(read_image(path, 1)[:, :, 0], values)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257, 1000], [32768, 65278, 65535]], np.uint16)
    path = _save(tmp_path / "a.png", values)
    want = np.round(values / 257).astype(np.uint8)
    assert np.array_equal(read_image(path, 1)[:, :, 0], want)
    assert np.array_equal(read_image(path, 3)[:, :, 2], want)


@pytest.mark.parametrize(("alpha", "want"), [(255, 10), (0, 255), (128, 132)])
def test_alpha_is_composited_on_white(tmp_path: Path, alpha: int, want: int) -> None:
    rgba = np.full((2, 2, 4), 10, np.uint8)
    rgba[..., 3] = alpha
    la = rgba[..., 2:]
    for name, array in (("rgba.png", rgba), ("la.png", np.ascontiguousarray(la))):
        path = _save(tmp_path / name, array)
        assert abs(int(read_image(path, 3)[0, 0, 1]) - want) <= 1
        assert abs(int(read_image(path, 1)[0, 0, 0]) - want) <= 1


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 100, 50, 1, 2, 3])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "clear.png", transparency=1)
    assert read_image(tmp_path / "plain.png", 3).tolist() == [[[200, 100, 50], [1, 2, 3]]]
    assert read_image(tmp_path / "clear.png", 3).tolist() == [[[200, 100, 50], [255, 255, 255]]]


def test_cmyk(tmp_path: Path) -> None:
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    image.save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read_image(tmp_path / "a.jpg", 3)[4, 4].astype(int) - [0, 255, 255]).max() <= 3
    assert read_image(tmp_path / "a.jpg", 1).shape == (8, 8, 1)


def test_one_bit(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", np.array([[0, 255]], np.uint8), mode="1")
    assert read_image(tmp_path / "a.png", 1).ravel().tolist() == [0, 255]


def test_exif_rotation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    Image.fromarray(COLOUR).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png", 3), np.rot90(COLOUR, -1))


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", COLOUR).rename(tmp_path / "ünder a.jpg")
    assert np.array_equal(read_image(tmp_path / "ünder a.jpg", 3), COLOUR)


def test_unreadable_files_name_file_and_reason(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    jpeg = _save(tmp_path / "cut.jpg", noise).read_bytes()
    png = _save(tmp_path / "cut.png", noise).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tmp_path / "cut.png").write_bytes(png[: len(png) // 2])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("<html>404 not found</html>")
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "float.tif")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "program.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    small = _save(tmp_path / "huge.png", np.zeros((2, 2, 3), np.uint8)).read_bytes()
    head = b"IHDR" + struct.pack(">II", 40_000, 40_000) + small[24:29]
    head += struct.pack(">I", zlib.crc32(head))
    (tmp_path / "huge.png").write_bytes(small[:12] + head + small[33:])
    reasons = {
        "cut.jpg": "cut short",
        "cut.png": "cut short",
        "empty.jpg": r"empty \(0 bytes\)",
        "text.jpg": "is not a picture",
        "float.tif": "floating-point",
        "absent.jpg": "does not exist",
        "folder.jpg": "cannot be read",
        "program.png": "is not a picture",
        "huge.png": "is too large",
        "nul\0l.png": "cannot be read .embedded null byte",
        "a" * 300 + ".png": "cannot be read .File name too long",
    }
    for name, reason in reasons.items():
        with pytest.raises(UserError, match=f"{name}.*{reason}"):
            read_image(tmp_path / name)


def test_resize(tmp_path: Path) -> None:
    flat = np.full((5, 7, 3), 77, np.uint8)
    assert np.array_equal(resize_uint8(flat, (3, 9)), np.full((3, 9, 3), 77, np.uint8))
    assert resize_uint8(flat[:, :, :1], 4).shape == (4, 4, 1)
    assert resize_uint8(flat, (5, 7)) is flat
    # antialiased: a fine checkerboard becomes even grey, nearest or plain bicubic would alias
    board = (np.indices((64, 64)).sum(0)[:, :, None] % 2 * 255).astype(np.uint8)
    assert np.abs(resize_uint8(board, 13).astype(int) - 127).max() <= 4


def opencv_linear(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """cv2.resize(array, (width, height)) before rounding, pixel by pixel: the centre of a pixel in
    the original, its two neighbours a side, the edge repeated; however much smaller."""

    def places(n: int, m: int) -> list[tuple[int, int, float]]:
        found = []
        for i in range(m):
            x = (i + 0.5) * n / m - 0.5
            first = int(np.floor(x))
            share = x - first
            if first < 0:
                first, share = 0, 0.0
            if first >= n - 1:
                first, share = n - 1, 0.0
            found.append((first, min(first + 1, n - 1), share))
        return found

    a, out = array.astype(np.float64), np.empty((height, width, array.shape[2]))
    columns = places(a.shape[1], width)
    for i, (top, below, v) in enumerate(places(a.shape[0], height)):
        for j, (left, right, h) in enumerate(columns):
            upper = a[top, left] * (1 - h) + a[top, right] * h
            lower = a[below, left] * (1 - h) + a[below, right] * h
            out[i, j] = upper * (1 - v) + lower * v
    return out


@pytest.mark.parametrize("side", [(9, 9), (13, 40), (26, 20), (64, 16)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_aliased_filter_is_opencvs(side: tuple[int, int], channels: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (26, 40, channels), np.uint8)
    found = resize_uint8(array, side, "bilinear_aliased")
    assert found.shape == (*side, channels)
    assert found.dtype == np.uint8
    # half a level of rounding, and what float32 leaves
    assert np.abs(found - opencv_linear(array, *side)).max() <= 0.5 + 1e-4


def test_the_other_filters_are_antialiased() -> None:
    """Bilinear: a triangle as wide as the pixels of the result, normalised at the edge."""
    line = np.random.default_rng(1).integers(0, 256, (1, 40, 1), np.uint8)
    found = resize_uint8(np.repeat(line, 8, 0), (8, 16), "bilinear")[0, :, 0]
    scale = 40 / 16
    centres = (np.arange(16) + 0.5) * scale
    distance = np.abs(np.arange(40) + 0.5 - centres[:, None]) / scale
    weights = np.maximum(0, 1 - distance)
    expected = weights @ line[0, :, 0] / weights.sum(1)
    assert np.abs(found - expected).max() <= 0.51
    filters = ("bicubic", "bilinear", "bilinear_aliased")
    kinds = [resize_uint8(np.repeat(line, 8, 0), (8, 16), k) for k in filters]
    assert all((a != b).any() for a, b in itertools.combinations(kinds, 2))
    assert np.array_equal(resize_uint8(line, (1, 16)), resize_uint8(line, (1, 16), "bicubic"))


def test_suffixes() -> None:
    assert is_image(Path("a/B.JPEG"))
    assert not is_image(Path("a/._b.jpg"))
    assert not is_image(Path("a/b.txt"))
