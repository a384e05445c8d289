"""The patterns of the drawn animals: a coat is one function from :class:`Skin` to colours.

It is a function of the animal's body coordinates alone and draws no random number. A new one is
entered in ``PATTERNS``. Lengths are in body units, see :mod:`gansuite.data.coats`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gansuite.rng import numpy_generator

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Skin:
    """The n pixels of one part of the animals, as a coat sees them.

    ``s`` [n]: place along the part: from the hips over trunk, neck and head for the body, the same
    beside it for the mane, from the root for legs, tail and ear; in body units of the average
    animal, so that hips, shoulders, poll and hooves have the same ``s`` in all. ``t`` [n]: body
    units across it, positive towards belly and throat. ``head`` [n], of the body only: from 0
    at the poll (and before) to 1 at the muzzle. ``end`` [n]: 0 at the root, 1 at the tip.
    ``pixel`` [n]: a pixel's width in body units.
    """

    part: str  # body, leg, mane, tail or ear
    s: Array
    t: Array
    head: Array
    end: Array
    pixel: Array


def from_hex(text: str) -> Array:
    return np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)], np.float32) / np.float32(255)


def mix(a: Array, b: Array, weight: Array) -> Array:
    """Colours from ``a`` (weight 0) to ``b`` (weight 1): [n, 3] from [3] or [n, 3]."""
    return a + (b - a) * weight[..., None]


def ramp(x: Array, low: float, high: float) -> Array:
    """Smoothstep from 0 at ``low`` to 1 at ``high``."""
    x = np.clip((x - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return x * x * (3 - 2 * x)


def coverage(distance: Array, pixel: Array) -> Array:
    """Antialiased coverage of the region ``distance < 0``, one pixel's width of edge."""
    return np.clip(np.float32(0.5) - distance / pixel, 0, 1)


# A fixed pattern, the same for every animal: where the spots lie in their cells.
_JITTER = numpy_generator(0, "coats pattern").uniform(-0.24, 0.24, (2, 64)).astype(np.float32)


def _cells(s: Array, t: Array, spacing: float) -> tuple[Array, Array, Array]:
    """Where a place lies among the points of a jittered, staggered lattice.

    Returns the distances to the nearest and the second nearest point, and how far the place is
    off the nearest one in a direction of that point's own.
    """
    y = t * np.float32(1 / spacing) + np.float32(0.5)
    row = np.floor(y)
    x = s * np.float32(1 / spacing) + np.float32(16)
    first, second, side = np.full_like(s, 9), np.full_like(s, 9), np.zeros_like(s)
    for dy in (-1, 0, 1):
        r = row + dy
        shifted = x - r * np.float32(0.5)
        column = np.floor(shifted)
        ry, rx = y - r, shifted - column
        line, place = (r.astype(np.int32) & 7) * 8, column.astype(np.int32)
        for dx in (-1, 0, 1):
            jx, jy = _JITTER[:, line + ((place + dx) & 7)]
            px = rx - jx - (dx + np.float32(0.5))
            py = ry - jy - np.float32(0.5)
            square = px * px + py * py
            np.minimum(second, np.maximum(first, square), out=second)
            side = np.where(square < first, px * jx + py * jy, side)
            np.minimum(first, square, out=first)
    unit = np.float32(spacing)
    return np.sqrt(first) * unit, np.sqrt(second) * unit, side * (unit / np.float32(0.24))


def _stripes(s: Array, pixel: Array, period: float, dark: Array | float) -> Array:
    """Coverage of bars across ``s``, a part ``dark`` of each period."""
    x = s * np.float32(1 / period)
    x = np.abs(x - np.floor(x) - np.float32(0.5))
    return coverage((x - np.float32(0.5) * dark) * np.float32(period), pixel)


def _horse(skin: Skin) -> Array:
    chestnut, dark = from_hex("9a5730"), from_hex("2c1c17")
    if skin.part in ("mane", "tail"):
        return np.broadcast_to(dark, (*skin.s.shape, 3))
    if skin.part == "leg":
        return mix(chestnut, dark, ramp(skin.end, 0.45, 0.85))
    return mix(chestnut, from_hex("5c3222"), ramp(skin.head, 0.6, 0.95))


def _zebra(skin: Skin) -> Array:
    white, black = from_hex("f6f3ea"), from_hex("17161a")
    s = skin.s - np.float32(0.03)  # puts the eye on white
    if skin.part == "body":
        dark = np.float32(0.5) - np.clip(skin.t, -0.05, 0.15) * np.float32(1.1)
        weight = _stripes(s + skin.t * skin.t * 2, skin.pixel, 0.135, dark)
        weight = np.maximum(weight, ramp(skin.head, 0.62, 0.8))
    elif skin.part == "leg":
        weight = _stripes(s, skin.pixel, 0.12, 0.48)
    elif skin.part == "tail":
        weight = np.maximum(_stripes(s, skin.pixel, 0.1, 0.45), ramp(skin.end, 0.5, 0.65))
    elif skin.part == "mane":
        weight = _stripes(s, skin.pixel, 0.135, 0.6)
    else:
        weight = ramp(skin.end, 0.55, 0.8)
    return mix(white, black, weight)


def _giraffe(skin: Skin) -> Array:
    cream, brown, dark = from_hex("f0d9a0"), from_hex("9a5322"), from_hex("3a2216")
    if skin.part == "mane":
        return np.broadcast_to(from_hex("7a3d1c"), (*skin.s.shape, 3))
    if skin.part == "tail":
        return mix(cream, dark, ramp(skin.end, 0.5, 0.65))
    if skin.part == "ear":
        return np.broadcast_to(cream, (*skin.s.shape, 3))
    first, second, _ = _cells(skin.s, skin.t, 0.145)
    weight = coverage(np.float32(0.021) - (second - first) * np.float32(0.5), skin.pixel)
    if skin.part == "leg":
        weight = weight * (1 - ramp(skin.end, 0.5, 0.75))
    else:
        weight = weight * (1 - ramp(skin.head, 0.0, 0.2))
    return mix(cream, brown, weight)


def _leopard(skin: Skin) -> Array:
    gold, pale, black = from_hex("eeb03c"), from_hex("fae9c0"), from_hex("20140e")
    if skin.part == "tail":
        weight = np.maximum(_stripes(skin.s, skin.pixel, 0.1, 0.45), ramp(skin.end, 0.85, 0.9))
        return mix(gold, black, weight)
    if skin.part == "mane":
        return np.broadcast_to(from_hex("a8641f"), (*skin.s.shape, 3))
    if skin.part == "ear":
        return mix(gold, black, ramp(skin.end, 0.5, 0.7))
    first, _, side = _cells(skin.s, skin.t, 0.105)
    if skin.part == "leg":
        return mix(gold, black, coverage(first - np.float32(0.027), skin.pixel))
    colour = mix(gold, pale, np.maximum(ramp(skin.t, 0.03, 0.12), ramp(skin.head, 0.4, 0.9)))
    body = 1 - ramp(skin.head, 0.0, 0.2)
    ring = np.abs(first - np.float32(0.027)) - np.float32(0.013) + np.maximum(side - 0.012, 0)
    colour = mix(colour, from_hex("b06a1e"), coverage(first - np.float32(0.03), skin.pixel) * body)
    return mix(colour, black, coverage(ring, skin.pixel) * body)


PATTERNS: dict[str, Callable[[Skin], Array]] = {
    "horse": _horse,
    "zebra": _zebra,
    "giraffe": _giraffe,
    "leopard": _leopard,
}
