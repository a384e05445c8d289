"""Pictures in and out of files, and labelled grids of them.

The data package reads what a network is *trained* on (8 bit, a fixed number of channels). Here a
picture keeps what it is: grey or colour, 8 or 16 bit, with or without alpha, so that a tool can
write the same kind of file again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from torch import Tensor

from gansuite.errors import UserError
from gansuite.files import replacing
from gansuite.stacks import Stack, is_stack, read_stack, write_stack

_TIFF = frozenset({"L", "LA", "RGB", "RGBA", "L16"})
_HAS_TIFFFILE = importlib.util.find_spec("tifffile") is not None
if _HAS_TIFFFILE:  # PIL has no 16 bits for a colour
    _TIFF |= {"RGB16", "RGBA16", "stack"}
WRITABLE: dict[str, tuple[str, frozenset[str]]] = {
    # suffix: (PIL format, the kinds of picture it holds without loss of kind)
    ".png": ("PNG", frozenset({"L", "LA", "RGB", "RGBA", "L16", "LA16", "RGB16", "RGBA16"})),
    ".tif": ("TIFF", _TIFF),
    ".tiff": ("TIFF", _TIFF),
    ".jpg": ("JPEG", frozenset({"L", "RGB"})),
    ".jpeg": ("JPEG", frozenset({"L", "RGB"})),
    ".webp": ("WEBP", frozenset({"RGB", "RGBA"})),
    ".bmp": ("BMP", frozenset({"L", "RGB"})),
    ".npy": ("NPY", frozenset({"stack"})),
}
# what Pillow may take a file for, whatever its name: not all that it can open is a mere picture
# (PostScript is a program)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "PPM", "TIFF", "JPEG2000")
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
# EXIF orientation 1 to 8: (quarter turns to the left, then mirrored)
_TURNS = ((0, 0), (0, 1), (2, 0), (2, 1), (3, 1), (3, 0), (1, 1), (1, 0))


def quiet_pillow() -> None:
    """Leave unsaid what Pillow finds odd about tags that are not read here (in EXIF, TIFF): a file
    that can't be read is an error of ours, with its name. Not undone, as threads read pictures."""
    warnings.filterwarnings("ignore", module=r"PIL\b")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)


quiet_pillow()


@dataclass(frozen=True)
class Picture:
    """One picture as its file holds it, upright.

    ``colour`` is uint8 or uint16 [H, W, 1 or 3]; ``alpha`` is None or [H, W] of the same type, not
    multiplied into the colour; ``icc`` the colour profile, if it still applies; ``note`` says what
    could not be read ("" when all was). Of any other number of channels (a `Stack`) ``colour`` may
    be float32 from 0 to 1 too, and ``first`` says whether they are the first axis of the file.
    """

    colour: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    note: str = ""
    first: bool = False

    @property
    def kind(self) -> str:
        """``L``, ``LA``, ``RGB`` or ``RGBA``, with ``16`` behind it for 16 bits; or ``stack``."""
        if is_stack(self.colour.shape[2]):
            return "stack"
        return (
            ("L" if self.colour.shape[2] == 1 else "RGB")
            + ("" if self.alpha is None else "A")
            + ("16" if self.colour.dtype == np.uint16 else "")
        )


def unlike_a_file(path: Path) -> str:
    """Why ``path`` is no file that can be read to its end, or an empty string.

    Opening a pipe or a device may wait for ever.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a link to nothing" if path.is_symlink() else "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    if stat.S_ISREG(mode):
        return ""
    return "cannot be read (it is a folder)" if stat.S_ISDIR(mode) else "is a pipe or a device"


def files_below(folder: Path) -> list[Path]:
    """Every file in ``folder`` and below, sorted; links to folders are not followed, and folders
    that cannot be read are passed over. ``Path.rglob`` recurses, and fails in deep ones."""
    found: list[Path] = []
    todo = [str(folder)]
    while todo:
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                elif not entry.is_dir():
                    found.append(Path(entry.path))
    return sorted(found)


def read_picture(path: Path, channels: int = 3) -> Picture:
    """Read one picture (the first frame of an animation) with EXIF rotation applied.

    Palettes, bitmaps, CMYK and premultiplied alpha become plain grey or colour; 16 bits stay 16.
    ``channels`` other than 1 and 3: of a .npy or TIFF file, as many; see `read_stack`.
    Raises UserError naming the file when it cannot be read.
    """
    try:
        if reason := unlike_a_file(path):
            raise UserError(f"'{path}' cannot be read as a picture (it {reason})")
        if is_stack(channels):
            stack = read_stack(path, channels)
            return Picture(stack.array, first=stack.first)
        with Image.open(path, formats=FORMATS) as image:
            return _decode(image, path)
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"'{path}' cannot be read as a picture (it is none)") from error
    except Exception as error:  # PIL's plugins raise OSError, SyntaxError, ValueError, struct.error
        reason = str(error).replace(str(path), "the file").strip() or type(error).__name__
        raise UserError(f"'{path}' cannot be read as a picture ({reason})") from error


def _decode(image: Image.Image, path: Path) -> Picture:
    icc = image.info.get("icc_profile") if image.mode in ("L", "LA", "RGB", "RGBA", "P") else None
    note = ""
    if image.format == "PNG" and _png_depth(path) == 16:
        # PIL keeps 16 bits of grey pictures only, torchvision those of every PNG
        from torchvision.io import ImageReadMode, decode_png

        image.load()  # refuses a picture that is too large or damaged with the usual message
        coded = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
        array = decode_png(coded, ImageReadMode.UNCHANGED).numpy().transpose(1, 2, 0)
        array = _upright(array, image.getexif().get(0x0112, 1))
    elif image.format == "TIFF" and _HAS_TIFFFILE and _deep_colour(image):
        image.load()  # as above
        array = _upright(_read_tiff16(path), image.getexif().get(0x0112, 1))
    elif image.mode.startswith(("I", "F")):
        array = np.asarray(_whole(image))
        if image.mode == "F" or array.min(initial=0) < 0 or array.max(initial=0) > 65535:
            raise UserError(
                f"'{path}' holds values that are not 8 or 16 bit whole numbers; "
                "save it as 16-bit PNG first"
            )
        array = array.astype(np.uint16)[:, :, None]
    else:
        if image.format == "TIFF" and _deep_colour(image):
            note = "16-bit colour TIFF is read with its upper 8 bits; all of them need "
            note += "pip install 'gansuite[tiff]'"
        upright = _whole(image)
        alpha = upright.has_transparency_data
        grey = upright.mode in ("1", "L", "LA", "La")
        kind = ("L" if grey else "RGB") + ("A" if alpha else "")
        array = np.asarray(upright.convert(kind))
        array = array.reshape(*array.shape[:2], -1)
    channels = array.shape[2]
    with_alpha = channels in (2, 4)
    colour = np.ascontiguousarray(array[:, :, : channels - with_alpha])
    return Picture(colour, array[:, :, -1].copy() if with_alpha else None, icc, note)


def _deep_colour(image: Image.Image) -> bool:
    """Whether a TIFF has 16 bits in each of several channels."""
    bits = image.tag_v2.get(258, ())  # type: ignore[attr-defined]
    return len(bits) > 1 and set(bits) == {16}


def _read_tiff16(path: Path) -> np.ndarray:
    """uint16 [H, W, 2 to 4] of the first picture in a TIFF."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        array = page.asarray()
        planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    array = np.moveaxis(array, 0, -1) if planar else array
    if array.dtype != np.uint16 or array.ndim != 3 or not 2 <= array.shape[2] <= 4:
        raise ValueError(f"{array.dtype} {list(array.shape)}")
    return np.ascontiguousarray(array)


def _whole(image: Image.Image) -> Image.Image:
    image.load()
    return ImageOps.exif_transpose(image)


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    turns, mirrored = _TURNS[orientation - 1] if orientation in range(1, 9) else (0, 0)
    array = np.rot90(array, turns)
    return np.ascontiguousarray(array[:, ::-1] if mirrored else array)


def _png_depth(path: Path) -> int:
    """The bit depth, byte 24 of every PNG (signature 8, chunk head 8, width 4, height 4)."""
    with open(path, "rb") as file:
        return file.read(25)[-1]


def picture_image(picture: Picture) -> Image.Image | np.ndarray | Stack:
    """What :func:`save_picture` takes: a PIL image, a uint16 array [H, W, 1 to 4] or a stack."""
    if picture.kind == "stack":
        return Stack(picture.colour, picture.first)
    layers = [picture.colour] + ([] if picture.alpha is None else [picture.alpha[:, :, None]])
    array = np.concatenate(layers, axis=2)
    if array.dtype == np.uint16:
        return array
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def save_picture(
    image: Image.Image | np.ndarray | Stack,
    path: Path,
    *,
    icc: bytes | None = None,
    quality: int = 95,
) -> None:
    """Write ``image`` to ``path`` whole or not at all: to a file beside it, then renamed.

    A uint16 array [H, W, 1 to 4] is written as 16-bit PNG or TIFF, a stack as .npy or TIFF. JPEG
    has full colour resolution, WebP is lossless. Raises UserError when the suffix names no format
    that is written here or when the disk refuses.
    """
    if path.suffix.lower() not in WRITABLE:
        raise UserError(f"cannot write '{path}'; use one of {' '.join(WRITABLE)}")
    form = WRITABLE[path.suffix.lower()][0]
    options = {**_OPTIONS.get(form, {}), **({"icc_profile": icc} if icc else {})}
    if form == "JPEG":
        options["quality"] = quality
    with replacing(path, durable=False) as file:
        if isinstance(image, Stack):
            write_stack(file, path.suffix, image)
        elif isinstance(image, Image.Image):
            image.save(file, form, **options)
        elif image.shape[2] == 1:
            Image.fromarray(image[:, :, 0]).save(file, form, **options)
        elif form == "TIFF":
            import tifffile

            alpha = ["unassalpha"] if image.shape[2] == 4 else None
            form_of: Any = {"photometric": "rgb", "compression": "zlib", "extrasamples": alpha}
            written = io.BytesIO()  # it wants the name of a file that is open
            tifffile.imwrite(written, image, iccprofile=icc, **form_of)
            file.write(written.getvalue())
        else:
            file.write(_png16(image, icc))


def _png16(array: np.ndarray, icc: bytes | None) -> bytes:
    """A 16-bit PNG of uint16 [H, W, 2 to 4] (PIL writes only grey ones); each row filter 1, Sub."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    height, width, channels = array.shape
    raw = np.ascontiguousarray(array, ">u2").view(np.uint8).reshape(height, -1)
    filtered = raw.copy()
    filtered[:, 2 * channels :] -= raw[:, : -2 * channels]
    rows = np.concatenate([np.ones((height, 1), np.uint8), filtered], axis=1)
    head = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    profile = chunk(b"iCCP", b"profile\0\0" + zlib.compress(icc)) if icc else b""
    body = chunk(b"IDAT", zlib.compress(rows.tobytes(), 6))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + profile + body + chunk(b"IEND", b"")


def to_bytes(x: Tensor) -> np.ndarray:
    """uint8 [N, H, W, C] for looking at: from uint8, or from floats in [-1, 1], rounded.

    Values outside the range are cut: this is for eyes, never for a metric.
    """
    x = x.detach().cpu()
    if x.dtype != torch.uint8:
        x = ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return x.permute(0, 2, 3, 1).numpy()


def shown(x: Tensor) -> np.ndarray:
    """`to_bytes`, of more than three channels the first three, of two these and black."""
    pixels = to_bytes(x)[..., :3]
    return np.pad(pixels, ((0, 0),) * 3 + ((0, 1),)) if pixels.shape[3] == 2 else pixels


def _tiles(x: Tensor, scale: int | None) -> list[Image.Image]:
    """RGB pictures, enlarged by a whole number so that the longer side has at least 96 pixels."""
    pixels = shown(x)
    if pixels.shape[3] == 1:
        pixels = pixels.repeat(3, axis=3)
    height, width = pixels.shape[1:3]
    factor = scale or max(1, -(-96 // max(height, width)))
    size = (width * factor, height * factor)
    return [Image.fromarray(tile).resize(size, Image.Resampling.NEAREST) for tile in pixels]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans out of matplotlib's data (PIL's own font has neither accents nor arrows)."""
    found = importlib.util.find_spec("matplotlib")
    if found is not None and found.origin is not None:
        file = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(str(file), size)
    return ImageFont.load_default(size)


def _wrapped(text: str, font: Any, width: int) -> str:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def grid(
    rows: Sequence[tuple[str, Tensor]], *, scale: int | None = None, columns_max: int = 8
) -> Image.Image:
    """Labelled rows of pictures on white; a column is the same sample all the way down.

    ``rows`` are (label, pictures), pictures uint8 or float in [-1, 1], [N, C, H, W]; the first
    ``columns_max`` are shown. Small pictures are enlarged ``scale`` times (default: to at least 96
    pixels), pixel by pixel. Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("a grid needs at least one row")
    gap, wide, font = 4, 128, _font(13)
    tiles = [_tiles(pictures[:columns_max], scale) for _, pictures in rows]
    labels = [_wrapped(label, font, wide) for label, _ in rows]
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    boxes = [measure.multiline_textbbox((0, 0), label, font=font, spacing=3) for label in labels]
    left = round(max(box[2] for box in boxes)) + 4 * gap if any(labels) else gap
    cell = max((tile.width for row in tiles for tile in row), default=0) + gap
    heights = [
        max([*(tile.height for tile in row), round(box[3]) + gap]) + gap
        for row, box in zip(tiles, boxes, strict=True)
    ]
    columns = max(len(row) for row in tiles)
    sheet = Image.new("RGB", (left + columns * cell, gap + sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    top = gap
    for label, row, height in zip(labels, tiles, heights, strict=True):
        middle = top + (height - gap) / 2
        draw.multiline_text(
            (left - 2 * gap, middle), label, "#333333", font, "rm", spacing=3, align="right"
        )
        for column, tile in enumerate(row):
            sheet.paste(tile, (left + column * cell, top))
        top += height
    return sheet


def contact_sheet(images: Tensor, columns: int = 8) -> Image.Image:
    """All of ``images`` (uint8 or float in [-1, 1], [N, C, H, W]) in rows of ``columns``.

    Raises ValueError without images.
    """
    rows = [("", part) for part in images.split(columns)]
    return grid(rows, columns_max=columns)


def strip(images: Tensor) -> Image.Image:
    """``images`` ([N, C, H, W], as :func:`to_bytes` takes them) side by side, unscaled."""
    row = np.concatenate(list(shown(images)), axis=1)
    return Image.fromarray(row[:, :, 0] if row.shape[2] == 1 else row)
