"""Pictures in and out of files, and labelled grids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops, ImageOps
from torchvision.io import ImageReadMode, decode_image, read_file

from gansuite import imaging
from gansuite.errors import UserError
from gansuite.imaging import (
    Picture,
    contact_sheet,
    grid,
    picture_image,
    read_picture,
    save_picture,
    to_bytes,
)
from gansuite.rng import numpy_generator, torch_generator


def pixels(*shape: int, bits: int = 8) -> np.ndarray:
    dtype = np.uint8 if bits == 8 else np.uint16
    return numpy_generator(0, "pixels", *shape).integers(0, 1 << bits, shape, dtype)


def test_grid_shows_every_pixel_where_it_belongs() -> None:
    draw = torch_generator(0, "grid")
    rows = [torch.randint(256, (3, 3, 32, 20), generator=draw).byte() for _ in range(2)]
    image = grid([("one", rows[0]), ("another row", rows[1])])
    factor, gap = 3, 4  # 32 * 3 = 96
    array = np.asarray(image)
    left = image.width - 3 * (20 * factor + gap)
    for r, row in enumerate(rows):
        for c in range(3):
            top, x = gap + r * (32 * factor + gap), left + c * (20 * factor + gap)
            cell = array[top : top + 32 * factor, x : x + 20 * factor]
            expected = row[c].permute(1, 2, 0).numpy().repeat(factor, 0).repeat(factor, 1)
            assert (cell == expected).all()
    labels = array[:, : left - gap]
    assert labels.min() < 128  # there is writing
    assert (array[:, -gap:] == 255).all()
    assert image.height == gap + 2 * (32 * factor + gap)


def test_grid_sizes() -> None:
    float_rows = torch.zeros(12, 1, 16, 16)
    assert grid([("", float_rows)]).width == 4 + 8 * (96 + 4)  # 8 columns, six times larger
    assert grid([("", float_rows)], columns_max=3, scale=2).size == (4 + 3 * 36, 4 + 36)
    assert grid([("", torch.zeros(1, 3, 200, 100))]).size == (4 + 104, 4 + 204)  # never smaller
    short = grid([("", float_rows[:3]), ("", float_rows[:1])])
    assert short.getpixel((short.width - 20, short.height - 20)) == (255, 255, 255)
    assert contact_sheet(float_rows, columns=5).size == (4 + 5 * 100, 4 + 3 * 100)
    with pytest.raises(ValueError, match="at least one row"):
        grid([])


def test_labels_have_accents_and_arrows() -> None:
    blank = torch.full((1, 3, 96, 96), 255).byte()
    seen = [grid([(text, blank)]) for text in ("é", "→", "\uffff")]
    assert ImageChops.difference(seen[0], seen[2].resize(seen[0].size)).getbbox()
    assert ImageChops.difference(seen[1], seen[2].resize(seen[1].size)).getbbox()


def test_to_bytes_is_the_inverse_of_the_networks_range() -> None:
    every = torch.arange(256).byte().view(1, 1, 16, 16)
    assert (to_bytes(every.float() / 127.5 - 1)[0, :, :, 0] == every[0, 0].numpy()).all()
    assert to_bytes(torch.tensor([[[[-3.0, 3.0]]]])).ravel().tolist() == [0, 255]


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *((suffix, mode) for suffix in (".png", ".tif") for mode in ("L", "RGB", "RGBA")),
        *((".webp", "RGB"), (".webp", "RGBA"), (".bmp", "L"), (".bmp", "RGB")),
    ],
)
def test_eight_bits_come_back(tmp_path: Path, suffix: str, mode: str) -> None:
    channels = len(mode)
    array = pixels(9, 7, channels)
    if channels == 4:
        array[:, :, 3] |= 1  # a lossless WebP may forget the colour under full transparency
    path = tmp_path / f"ä{suffix}"
    Image.fromarray(array[:, :, 0] if channels == 1 else array).save(path, lossless=True)
    picture = read_picture(path)
    assert picture.kind == mode
    save_picture(picture_image(picture), tmp_path / f"out{suffix}")
    with Image.open(tmp_path / f"out{suffix}") as again:
        assert again.mode == mode
        assert (np.asarray(again).reshape(array.shape) == array).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_come_back(tmp_path: Path, channels: int) -> None:
    array = pixels(9, 7, channels, bits=16)
    alpha = array[:, :, -1] if channels in (2, 4) else None
    picture = Picture(array[:, :, : 3 if channels > 2 else 1], alpha)
    path = tmp_path / "deep.png"
    save_picture(picture_image(picture), path)
    # torchvision reads it through libpng, which knows nothing of the writer here
    known = decode_image(read_file(str(path)), ImageReadMode.UNCHANGED)
    assert known.dtype == torch.uint16
    assert (known.numpy().transpose(1, 2, 0) == array).all()
    with Image.open(path) as image:
        image.load()  # PIL checks the checksums
    again = read_picture(path)
    assert again.kind == {1: "L16", 2: "LA16", 3: "RGB16", 4: "RGBA16"}[channels]
    assert (again.colour == picture.colour).all()
    assert (again.alpha is None) == (alpha is None)
    if again.alpha is not None and alpha is not None:
        assert np.array_equal(again.alpha, alpha)


def test_sixteen_bit_grey_tiff_and_pgm_are_not_clipped(tmp_path: Path) -> None:
    array = pixels(5, 6, bits=16)
    for name in ("deep.tif", "deep.pgm"):
        Image.fromarray(array).save(tmp_path / name)
        assert (read_picture(tmp_path / name).colour[:, :, 0] == array).all()
    save_picture(array[:, :, None], tmp_path / "out.tif")
    with Image.open(tmp_path / "out.tif") as image:
        assert (np.asarray(image) == array).all()


def test_other_kinds_become_plain(tmp_path: Path) -> None:
    rgb = Image.fromarray(pixels(8, 8, 3))
    palette = rgb.quantize(16)
    palette.save(tmp_path / "p.png")
    assert (read_picture(tmp_path / "p.png").colour == np.asarray(palette.convert("RGB"))).all()
    palette.save(tmp_path / "t.png", transparency=3)
    with_hole = read_picture(tmp_path / "t.png")
    assert with_hole.alpha is not None
    assert ((with_hole.alpha == 0) == (np.asarray(palette) == 3)).all()
    rgb.convert("1").save(tmp_path / "b.png")
    assert read_picture(tmp_path / "b.png").kind == "L"
    rgb.convert("CMYK").save(tmp_path / "c.tif")
    assert (read_picture(tmp_path / "c.tif").colour == np.asarray(rgb)).all()
    Image.fromarray(pixels(4, 4).astype(np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(UserError, match="not 8 or 16 bit"):
        read_picture(tmp_path / "f.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(pixels(6, 9))
    image.save(tmp_path / "8.png", exif=exif)
    with Image.open(tmp_path / "8.png") as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert (read_picture(tmp_path / "8.png").colour[:, :, 0] == expected).all()
    deep = Image.fromarray(pixels(6, 9).astype(np.uint16) * 257)
    deep.save(tmp_path / "16.png", exif=exif)
    assert (read_picture(tmp_path / "16.png").colour[:, :, 0] == expected * np.uint16(257)).all()


def test_unreadable_and_unwritable_are_one_sentence(tmp_path: Path) -> None:
    image = Image.fromarray(pixels(40, 40, 3))
    image.save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    (tmp_path / "text.jpg").write_text("no picture")
    for name in ("cut.png", "text.jpg", "missing.png"):
        with pytest.raises(UserError, match=name):
            read_picture(tmp_path / name)
    with pytest.raises(UserError, match=r"cannot write .*\.xyz"):
        save_picture(image, tmp_path / "a.xyz")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not be written"):
        save_picture(image, tmp_path / "file" / "a.png")


def test_a_failed_save_leaves_the_old_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    save_picture(Image.new("RGB", (4, 4), "red"), path)
    before = path.read_bytes()

    def full(self: Image.Image, file: object, *rest: object, **options: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match="the disk is full"):
        save_picture(Image.new("RGB", (4, 4)), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = (255, 0, 0)
    stripes[:, 1::2] = (0, 0, 255)
    save_picture(Image.fromarray(stripes), tmp_path / "s.jpg")
    with Image.open(tmp_path / "s.jpg") as image:
        # half the colour resolution would mix neighbouring columns to purple
        assert np.abs(np.asarray(image).astype(int) - stripes).mean() < 8


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_of_a_colour_tiff_are_kept(tmp_path: Path, channels: int) -> None:
    tifffile = pytest.importorskip("tifffile")
    array = pixels(9, 7, channels, bits=16)
    more: dict[str, Any] = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    for name, order, planar in (("a", "<", "contig"), ("b", ">", "separate")):
        given = array if planar == "contig" else np.moveaxis(array, -1, 0)
        tifffile.imwrite(
            tmp_path / f"{name}.tif",
            given,
            photometric="rgb",
            planarconfig=planar,
            byteorder=order,
            **more,
        )
        picture = read_picture(tmp_path / f"{name}.tif")
        assert picture.kind == {3: "RGB16", 4: "RGBA16"}[channels]
        assert picture.note == ""
        assert (picture_image(picture) == array).all()
    save_picture(array, tmp_path / "out.tif", icc=b"profile")
    assert (tifffile.imread(tmp_path / "out.tif") == array).all()
    again = read_picture(tmp_path / "out.tif")
    assert (picture_image(again) == array).all()


def test_without_tifffile_it_is_said_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile = pytest.importorskip("tifffile")
    array = pixels(9, 7, 3, bits=16)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb")
    monkeypatch.setattr(imaging, "_HAS_TIFFFILE", False)
    picture = read_picture(tmp_path / "a.tif")
    assert "pip install 'gansuite[tiff]'" in picture.note
    assert (picture.colour == array >> 8).all()
