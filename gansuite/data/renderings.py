"""Two styles of the drawn scenes, as painted and as a cartoon: the true stylisation is known.

A rendering is a function of the picture alone and draws no random number. Lengths are parts of the
picture's side, so the same picture appears at every size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gansuite.rng import numpy_generator

Array = NDArray[np.float32]

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_LONG, _WIDE, _SLANT = 0.11, 0.042, 0.4  # of a stroke, in parts of the side; radians
# a fixed pattern, the same for every picture: where the strokes lie in their cells, and their tone
_PATTERN = numpy_generator(0, "strokes").uniform(-1, 1, (3, 32, 32)).astype(np.float32)


def _smooth(x: Array, low: float, high: float) -> Array:
    x = np.clip((x - np.float32(low)) / np.float32(high - low), 0, 1)
    return x * x * (3 - 2 * x)


def _saturated(rgb: Array, factor: float) -> Array:
    grey = (rgb @ _LUMINANCE)[..., None]
    return grey + (rgb - grey) * np.float32(factor)


def _strokes(size: int) -> tuple[np.ndarray, np.ndarray, Array, Array]:
    """Of each pixel [S, S]: row and column of its stroke's middle, the stroke's tone, -1 to 1, and
    how far the pixel is across it, -1 to 1."""
    grid = ((np.arange(size) + 0.5) / size).astype(np.float32)
    y, x = np.meshgrid(grid, grid, indexing="ij")
    cos, sin = np.float32(np.cos(_SLANT)), np.float32(np.sin(_SLANT))
    along, across = (x * cos + y * sin) / np.float32(_LONG), (y * cos - x * sin) / np.float32(_WIDE)
    best = np.full_like(x, 9)
    middle, tone, side = np.zeros((2, size, size), np.float32), np.zeros_like(x), np.zeros_like(x)
    for dr in (-1, 0, 1):
        row = np.floor(across).astype(np.int64) + dr
        shift = np.where(row % 2, np.float32(0.5), np.float32(0))
        for dc in (-1, 0, 1):
            column = np.floor(along - shift).astype(np.int64) + dc
            jx, jy, own = _PATTERN[:, row % 32, column % 32]
            a = column + shift + np.float32(0.5) + np.float32(0.3) * jx
            b = row + np.float32(0.5) + np.float32(0.3) * jy
            distance = (along - a) ** 2 + (across - b) ** 2
            nearer = distance < best
            best = np.where(nearer, distance, best)
            tone, side = np.where(nearer, own, tone), np.where(nearer, across - b, side)
            a, b = a * np.float32(_LONG), b * np.float32(_WIDE)
            place = np.stack([a * sin + b * cos, a * cos - b * sin])
            middle = np.where(nearer, place, middle)
    rows, columns = np.clip((middle * size).astype(np.int64), 0, size - 1)
    return rows, columns, tone, np.clip(side, -1, 1)


def painted(rgb: Array) -> Array:
    """[N, S, S, 3] in [0, 1]: slanted strokes of one colour each, lighter on their upper edge, with
    violet shadows and creamy lights."""
    rows, columns, tone, side = _strokes(rgb.shape[1])
    strokes = (rgb[:, rows, columns] + rgb) / 2  # over a wash of the picture itself
    light = (strokes @ _LUMINANCE)[..., None]
    violet, cream = np.array([[0.30, 0.22, 0.52], [1.05, 0.96, 0.70]], np.float32)
    toned = strokes * np.float32(0.6) + (violet + (cream - violet) * light) * np.float32(0.4)
    paint = (
        _saturated(toned, 1.3) * (1 + np.float32(0.13) * tone - np.float32(0.12) * side)[..., None]
    )
    return np.clip(paint, 0, 1).astype(np.float32)


def cartoon(rgb: Array) -> Array:
    """[N, S, S, 3] in [0, 1]: four flat, strong tones and dark outlines."""
    light = np.clip(rgb @ _LUMINANCE, 0.02, 1)
    step = light * 4
    flat = (np.floor(step) + _smooth(step - np.floor(step), 0.85, 1.0) + np.float32(0.5)) / 4
    colour = np.clip(_saturated(rgb * (flat / light)[..., None], 1.6), 0, 1)
    wide = np.pad(rgb, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    down = (wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]) / 2
    right = (wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2]) / 2
    slope = np.sqrt((down**2 + right**2).max(-1))
    line = _smooth(slope, 0.08, 0.18)[..., None]
    ink = np.array([0.07, 0.06, 0.10], np.float32)
    return (colour + (ink - colour) * line).astype(np.float32)


RENDERINGS: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "painted": ("horse", painted),
    "cartoon": ("horse", cartoon),
}
"""Domain -> the coat of its animals and what is done to the picture."""
