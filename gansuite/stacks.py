"""Pictures of any number of channels, such as those of a satellite or a microscope: .npy and TIFF
files with the channels first or last, of 8 or 16 bits or of floats from 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gansuite.errors import UserError

STACK_SUFFIXES = (".npy", ".tif", ".tiff")
MOST_CHANNELS = 64
_MAGIC = b"\x93NUMPY"
_TYPES = ("uint8", "uint16", "float16", "float32", "float64")
_MOST_VALUES = 1 << 31


def is_stack(channels: int | None) -> bool:
    """Whether so many channels are no grey or colour picture."""
    return channels not in (None, 1, 3)


@dataclass(frozen=True)
class Stack:
    """``array``: uint8, uint16 or float32 (0 to 1) [H, W, C]; ``first``: whether the channels are
    the first axis in its file."""

    array: np.ndarray
    first: bool


def read_stack(path: Path, channels: int) -> Stack:
    """The picture of ``channels`` channels in a .npy or TIFF file (its content decides which).

    float16 and float64 become float32. Of a TIFF the first series: its channels may be samples of
    a pixel, planes or pages.

    Raises:
        UserError: it is no such file, has another number of channels or type, or floats that are
            not between 0 and 1; the file is named.
    """
    try:
        with open(path, "rb") as file:
            array = _npy(path) if file.read(6) == _MAGIC else _tiff(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # the readers raise whatever the bytes lead them to
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"'{path}' cannot be read as .npy or TIFF ({reason}).") from error
    shape = tuple(array.shape)
    if len(shape) != 3 or channels not in (shape[0], shape[2]) or not array.size:
        raise UserError(
            f"'{path}' is {' x '.join(map(str, shape)) or 'one number'}; wanted are {channels} "
            f"channels, first or last of three axes."
        )
    if array.dtype.name not in _TYPES:
        raise UserError(
            f"'{path}' holds {array.dtype.name}; save it as uint8, uint16 or float32 from 0 to 1."
        )
    first = shape[2] != channels
    array = np.ascontiguousarray(np.moveaxis(array, 0, 2) if first else array)
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # so is NaN
            raise UserError(
                f"'{path}' has values from {low:.4g} to {high:.4g}; scale floats to 0 to 1."
            )
    return Stack(array, first)


def _npy(path: Path) -> np.ndarray:
    # mapped: a header that promises more than there is costs no memory
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.array(array, dtype=array.dtype.newbyteorder("="))


def _tiff(path: Path) -> np.ndarray:
    try:
        import tifffile
    except ImportError:
        raise UserError(
            f"'{path}' needs the package tifffile: pip install 'gansuite[tiff]'."
        ) from None
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        if series.size > _MOST_VALUES:
            raise ValueError(f"{series.size} values are too many")
        return series.asarray()


def write_stack(file: BinaryIO, suffix: str, stack: Stack) -> None:
    """Write to an open file, as .npy or as TIFF without losses; see `read_stack`."""
    array = np.ascontiguousarray(np.moveaxis(stack.array, 2, 0) if stack.first else stack.array)
    if suffix.lower() == ".npy":
        np.save(file, array)
        return
    import io

    import tifffile

    written = io.BytesIO()  # it wants the name of a file that is open
    planes = "separate" if stack.first else "contig"
    tifffile.imwrite(
        written, array, photometric="minisblack", planarconfig=planes, compression="zlib"
    )
    file.write(written.getvalue())


def to_eight_bits(array: np.ndarray) -> np.ndarray:
    """uint8 of uint8, of uint16 (divided by 257) or of floats from 0 to 1, to the nearest level."""
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.dtype == np.uint8:
        return array
    return (array * 255).round().astype(np.uint8)
