"""Reading and resizing pictures: any file Pillow knows becomes uint8 [H,W,C]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError

from gansuite.errors import UserError
from gansuite.imaging import FORMATS, unlike_a_file
from gansuite.stacks import is_stack, read_stack, to_eight_bits

# compared with the lower-cased suffix; the content decides how a file is decoded
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff",
)  # fmt: skip
RESIZE_POLICIES = {  # by the value of data.resize; part of the key of the cache
    "bicubic": "bicubic-antialias",
    "bilinear": "bilinear-antialias",
    "bilinear_aliased": "bilinear",
}


def is_image(path: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> bool:
    """Whether the name is that of a picture (any case; hidden files are not)."""
    return path.suffix.lower() in suffixes and not path.name.startswith(".")


def read_image(path: str | Path, channels: int = 3) -> np.ndarray:
    """The picture as uint8 [H,W,channels], channels 1 (luminance, ITU-R 601) or 3; other numbers
    are read from .npy and TIFF as they are (:func:`gansuite.stacks.read_stack`).

    The EXIF rotation is applied, alpha is composited on white, 16-bit values are scaled to 8 bits
    (divided by 257), palettes, CMYK and grey are converted. Of an animation, the first frame.
    Raises :class:`UserError` naming the file when it is missing, empty, damaged or no picture.
    """
    path = Path(path)
    try:
        if reason := unlike_a_file(path):
            raise UserError(f"picture '{path}' {reason}; replace or remove it")
        if is_stack(channels):
            return to_eight_bits(read_stack(path, channels).array)
        with Image.open(path, formats=FORMATS) as image:
            return _to_array(ImageOps.exif_transpose(image), channels)
    except UserError:
        raise
    except UnidentifiedImageError:
        reason = "is empty (0 bytes)" if path.stat().st_size == 0 else "is not a picture"
    except PermissionError as error:
        reason = f"cannot be read ({error.strerror})"
    except Image.DecompressionBombError as error:
        reason = f"is too large ({error})"
    except Exception as error:  # Pillow's readers raise whatever the bytes lead them to
        told = (str(error).splitlines() or [type(error).__name__])[0]
        reason = f"is damaged or cut short ({told})"
    raise UserError(f"picture '{path}' {reason}; replace or remove it")


def _to_array(image: Image.Image, channels: int) -> np.ndarray:
    if image.mode == "F":
        raise ValueError("floating-point samples are not supported, save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit samples are not supported, save it with 8 or 16 bits")
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    if channels == 1:
        # CMYK and the like have no direct way to grey
        if image.mode not in ("L", "RGB"):
            image = image.convert("RGB")
        return np.array(image.convert("L"))[:, :, None]
    return np.array(image.convert("RGB"))


def to_channels(array: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [H,W] or [H,W,C] as [H,W,channels]: grey is replicated, colour becomes luminance."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 2:
        return np.repeat(array[:, :, None], channels, axis=2)
    return array if channels == 3 else np.array(Image.fromarray(array).convert("L"))[:, :, None]


def resize_uint8(
    array: np.ndarray, size: int | tuple[int, int], resize: str = "bicubic"
) -> np.ndarray:
    """uint8 [H,W,C] resized to ``size`` (a side, or (height, width)).

    ``resize``: ``bicubic`` or ``bilinear``, both antialiased (Pillow's), or ``bilinear_aliased``,
    which looks at 2 x 2 pixels however much it shrinks: OpenCV's INTER_LINEAR but for rounding (it
    computes with weights of 11 bits; at most one level apart).
    """
    height, width = (size, size) if isinstance(size, int) else size
    if array.shape[:2] == (height, width):
        return array
    if resize == "bilinear_aliased":
        x = torch.from_numpy(array).permute(2, 0, 1)[None].float()
        x = F.interpolate(x, (height, width), mode="bilinear", align_corners=False)
        return (x[0].permute(1, 2, 0) + 0.5).floor().clamp(0, 255).byte().numpy()
    if is_stack(array.shape[2]):
        planes = np.split(array, array.shape[2], axis=2)
        return np.concatenate([resize_uint8(plane, size, resize) for plane in planes], axis=2)
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    out = np.array(image.resize((width, height), Image.Resampling[resize.upper()]))
    return out[:, :, None] if out.ndim == 2 else out
