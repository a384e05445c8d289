"""The embedded dataset ``coats``: one procedural animal, rendered in one of several coats.

The animal (pose, proportions, place, facing) and the scene behind it are a function of
(seed, index) alone; a coat is a function of the animal's body coordinates alone and draws no
random number. Hence the true translation of every picture is known, the mapping between two coats
is a bijection, and everything outside the animal's mask is equal in all coats.

Shapes are signed distances in coordinates that know no resolution: lengths are in *body units*
(the animal is about one long, x forward, y down, origin in the middle of the trunk), and edges are
antialiased over one pixel, so the same picture appears at every size.

The coats themselves are in :mod:`gansuite.data.patterns`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gansuite.data.patterns import PATTERNS, Array, Skin, coverage, from_hex, mix, ramp
from gansuite.data.renderings import RENDERINGS
from gansuite.errors import UserError, nearest
from gansuite.rng import numpy_generator

SIZES = (32, 256)
"""Smallest and largest picture, in pixels a side."""

Params = dict[str, NDArray[np.float64]]

# Everything that varies between pictures, uniform in [low, high). All of it can be seen in every
# coat: proportions and pose are outlines, ``light`` and ``tone`` scale every coat alike.
PARAMETERS: dict[str, tuple[float, float]] = {
    "facing": (-1.0, 1.0),  # the sign counts: left or right
    "width": (0.66, 0.88),  # of the animal, as a part of the picture's
    "place": (0.0, 1.0),  # where the animal stands between the left and right margin
    "ground": (0.87, 0.95),  # height of the hooves in the picture
    "trunk": (0.36, 0.46),  # body units from here on
    "girth": (0.115, 0.145),
    "leg": (0.26, 0.35),
    "neck": (0.20, 0.29),
    "neck_angle": (0.45, 1.15),  # radians above the horizontal
    "head_angle": (0.35, 0.95),  # radians below the horizontal
    "gait": (0.0, 1.0),  # phase of the legs, one cycle
    "stride": (0.05, 0.13),
    "tail": (0.15, 0.95),  # radians off the vertical
    "tone": (0.88, 1.06),
    "light": (0.0, 1.0),  # from cool noon to warm evening
    "sky": (0.0, 1.0),
    "grass": (0.0, 1.0),
    "horizon": (0.16, 0.32),  # above the hooves
    "hills": (0.0, 1.0),
    "hill_height": (0.03, 0.08),
    "hill_phase": (0.0, 1.0),
}

COATS: tuple[str, ...] = tuple(PATTERNS)
DOMAINS: tuple[str, ...] = (*COATS, *RENDERINGS)
"""The coats, and the renderings of whole scenes."""


# ------------------------------------------------------------------------------------- geometry


def parameters(indices: Sequence[int], seed: int = 0) -> Params:
    """What distinguishes the pictures: [N] values for each name of ``PARAMETERS``."""
    draws = np.array(
        [numpy_generator(seed, "coats", i).random(len(PARAMETERS)) for i in indices], np.float64
    ).reshape(-1, len(PARAMETERS))
    return {
        name: low + (high - low) * draws[:, k]
        for k, (name, (low, high)) in enumerate(PARAMETERS.items())
    }


# Where ``Skin.s`` begins in each part, and the lengths of the average animal's bones.
_LENGTHS: dict[str, tuple[float, tuple[float, ...]]] = {
    "body": (0.0, (0.41, 0.245, 0.165)),
    "mane": (0.37, (0.2, 0.12)),
    "ear": (0.0, (0.085,)),
    "eye": (0.0, (0.002,)),
    "tail": (0.0, (0.105, 0.14)),
    "leg": (0.0, (0.18, 0.17)),
}


@dataclass(frozen=True)
class _Bone:
    """A tapered capsule in every picture: two ends [N, 2] and the radii there [N], body units."""

    a: NDArray[np.float64]
    b: NDArray[np.float64]
    ra: NDArray[np.float64]
    rb: NDArray[np.float64]

    @property
    def length(self) -> NDArray[np.float64]:
        return np.hypot(*(self.b - self.a).T)


def _skeleton(p: Params) -> dict[str, list[_Bone]]:
    """The bones of each part, from the parameters."""
    one = np.ones_like(p["width"])

    def point(x: NDArray[np.float64] | float, y: NDArray[np.float64] | float) -> np.ndarray:
        return np.stack([x * one, y * one], 1)

    def bone(a: np.ndarray, b: np.ndarray, ra: np.ndarray | float, rb: np.ndarray | float) -> _Bone:
        return _Bone(a, b, ra * one, rb * one)

    half, girth = p["trunk"] / 2, p["girth"]
    rump, chest = point(-half, -0.01), point(half, 0.01)
    root = point(half + 0.01, -girth * 0.35)
    neck = np.stack([np.cos(p["neck_angle"]), -np.sin(p["neck_angle"])], 1)
    poll = root + neck * p["neck"][:, None]
    head = np.stack([np.cos(p["head_angle"]), np.sin(p["head_angle"])], 1)
    back = np.stack([neck[:, 1], -neck[:, 0]], 1)  # from the throat to the mane
    crown = np.stack([head[:, 1], -head[:, 0]], 1)
    muzzle = poll + head * 0.165
    crest = poll - neck * p["neck"][:, None] * 0.35 + back * 0.045
    parts = {
        "body": [
            bone(rump, chest, girth, girth * 1.05),
            bone(root, poll, girth * 0.74, 0.062),
            bone(poll, muzzle, 0.066, 0.043),
        ],
        "mane": [
            bone(root + back * girth[:, None] * 0.72 - point(0.04, 0.0), crest, 0.012, 0.034),
            bone(crest, poll + back * 0.02 + crown * 0.05, 0.034, 0.024),
        ],
        "ear": [bone(poll + crown * 0.04, poll + crown * 0.125 - head * 0.01, 0.026, 0.008)],
        "eye": [bone(poll + head * 0.05 + crown * 0.018, poll + head * 0.052 + crown * 0.018,
                     0.0165, 0.0165)],
    }  # fmt: skip
    tail = np.stack([-np.sin(p["tail"]), np.cos(p["tail"])], 1)
    start = rump + point(-girth * 0.85, -girth * 0.35)
    middle = start + tail * 0.10 + point(-0.015, 0.0)
    tip = middle + tail * 0.06 + point(0.0, 0.085)
    parts["tail"] = [bone(start, middle, 0.022, 0.024), bone(middle, tip, 0.03, 0.014)]

    floor = girth + p["leg"]
    for name, x, turn, fore in (
        ("far hind leg", -half + 0.03, 0.5, False),
        ("far fore leg", half + 0.03, 0.0, True),
        ("near hind leg", -half - 0.03, 0.0, False),
        ("near fore leg", half - 0.02, 0.5, True),
    ):
        angle = 2 * np.pi * (p["gait"] + turn)
        swing, lift = np.sin(angle), np.maximum(0, np.cos(angle))
        hip = point(x, girth * 0.35)
        hoof = point(x + swing * p["stride"], floor - lift * p["stride"] * 0.35)
        knee = 0.5 * (hip + hoof) + point((1 if fore else -1) * (0.008 + 0.03 * lift), 0.0)
        parts[name] = [
            bone(hip, knee, 0.06 if fore else 0.078, 0.04),
            bone(knee, hoof, 0.038, 0.031),
        ]
    return parts


class _Stage:
    """Pictures being painted: colours [N, S, S, 3] in [0, 1] and the animal's coverage."""

    def __init__(self, p: Params, size: int, coat: Callable[[Skin], Array]) -> None:
        self.p, self.size, self.coat = p, size, coat
        self.bones = _skeleton(p)
        ends = [(e, r) for part in self.bones.values() for q in part
                for e, r in ((q.a, q.ra), (q.b, q.rb))]  # fmt: skip
        low = np.min([e - r[:, None] for e, r in ends], 0)
        high = np.max([e + r[:, None] for e, r in ends], 0)
        self.facing = np.where(p["facing"] < 0, -1.0, 1.0)
        # the tall ones shrink a little, so that every animal fits into its picture
        extent = high - low
        self.scale = np.minimum(p["width"] / extent[:, 0], (p["ground"] - 0.04) / extent[:, 1])
        width = extent[:, 0] * self.scale
        centre = 0.03 + width / 2 + p["place"] * (0.94 - width)
        self.x = centre - self.facing * self.scale * (low + high)[:, 0] / 2
        self.hooves = p["girth"] + p["leg"] + 0.031
        self.y = p["ground"] - self.scale * self.hooves
        self.pixel = (1 / (size * self.scale)).astype(np.float32)
        warm = p["light"][:, None]
        self.light = (np.array([1.0, 1.0, 1.02]) * (1 - warm) + warm * [1.04, 0.95, 0.85]).astype(
            np.float32
        )
        self.rgb = self._scene()
        self.alpha = np.zeros((len(self.x), size, size), np.float32)

    def _scene(self) -> Array:
        p, size = self.p, self.size
        grid = (np.arange(size) + 0.5) / size

        def colour(a: str, b: str, weight: NDArray[np.float64]) -> Array:
            return mix(from_hex(a), from_hex(b), weight.astype(np.float32)) * self.light

        horizon = p["ground"] - p["horizon"]
        down = np.clip(grid / horizon[:, None], 0, 1).astype(np.float32)  # [N, S]
        top, low = colour("4f8fd6", "7fb4d8", p["sky"]), colour("cfe6f2", "f4e4c8", p["sky"])
        rgb = np.empty((len(horizon), size, size, 3), np.float32)
        rgb[:] = (top[:, None] + (low - top)[:, None] * down[..., None])[:, :, None]
        wave = 2 * np.pi * (grid + p["hill_phase"][:, None])
        far = horizon[:, None] - p["hill_height"][:, None] * (
            1.7 + 0.6 * np.sin(wave) + 0.4 * np.sin(2 * wave + 5 * p["hills"][:, None])
        )
        near = horizon[:, None] + 0.012 * np.sin(wave * 1.5 + 2)
        y = grid[None, :, None]
        hill = colour("7f9fae", "8fae8a", p["hills"])
        over = np.clip((y - far[:, None]) * size + 0.5, 0, 1).astype(np.float32)
        rgb += (hill[:, None, None] - rgb) * over[..., None]
        fore = np.clip((grid - horizon[:, None]) / (1 - horizon[:, None]), 0, 1).astype(np.float32)
        back = colour("a9c46a", "cfc27a", p["grass"])
        front = colour("5f8f3a", "9a8f45", p["grass"])
        grass = back[:, None] + (front - back)[:, None] * fore[..., None]
        over = np.clip((y - near[:, None]) * size + 0.5, 0, 1).astype(np.float32)
        rgb += (grass[:, :, None] - rgb) * over[..., None]
        return rgb

    def _window(self, bones: list[_Bone], margin: float) -> tuple[np.ndarray, Array, Array]:
        """Body coordinates in one window for each picture around the bones.

        Returns the flat numbers of the windows' pixels [N, H, W], x [N, 1, W] and y [N, H, 1].
        The windows have one size, the largest needed: what they hold too much is empty.
        """
        low = np.min([np.minimum(b.a, b.b) - np.maximum(b.ra, b.rb)[:, None] for b in bones], 0)
        high = np.max([np.maximum(b.a, b.b) + np.maximum(b.ra, b.rb)[:, None] for b in bones], 0)
        low, high = low - margin, high + margin
        ends = self.x[:, None] + (self.facing * self.scale)[:, None] * np.stack(
            [low[:, 0], high[:, 0]], 1
        )
        axes = []
        for start, stop in (
            (ends.min(1), ends.max(1)),
            (self.y + self.scale * low[:, 1], self.y + self.scale * high[:, 1]),
        ):
            first = np.floor(start * self.size).astype(np.int64) - 1
            count = min(self.size, int((np.ceil(stop * self.size) + 1 - first).max()))
            first = np.clip(first, 0, self.size - count)
            axes.append(first[:, None] + np.arange(count))
        column, row = axes
        scale = self.scale[:, None]
        x = ((column + 0.5) / self.size - self.x[:, None]) / (scale * self.facing[:, None])
        y = ((row + 0.5) / self.size - self.y[:, None]) / scale
        flat = np.arange(len(x))[:, None, None] * self.size**2
        flat = flat + row[:, :, None] * self.size + column[:, None, :]
        return flat, x.astype(np.float32)[:, None, :], y.astype(np.float32)[:, :, None]

    def _paint(self, flat: np.ndarray, cover: Array, colour: Array) -> None:
        """Lay colours [n, 3] with coverage [n] over the pixels ``flat`` [n]."""
        rgb, alpha = self.rgb.reshape(-1, 3), self.alpha.reshape(-1)
        below = rgb[flat]
        rgb[flat] = below + (colour - below) * cover[:, None]
        alpha[flat] += (1 - alpha[flat]) * cover

    def shadow(self) -> None:
        """A soft shadow on the grass; it belongs to the scene, not to the animal."""
        reach = self.p["trunk"] / 2 + self.p["girth"]
        ends = [np.stack([k * reach, self.hooves], 1) for k in (-1, 1)]
        bone = _Bone(*ends, *[np.full_like(reach, 0.05)] * 2)
        flat, x, y = self._window([bone], 0.05)
        reach = (reach + 0.1)[:, None, None].astype(np.float32)
        hooves = self.hooves[:, None, None].astype(np.float32)
        depth = np.clip(1 - (x / reach) ** 2 - ((y - hooves) * 16) ** 2, 0, 1)
        rgb = self.rgb.reshape(-1, 3)
        rgb[flat] *= (1 - np.float32(0.4) * depth * (2 - depth))[..., None]

    def part(self, name: str, shade: float = 1.0) -> None:
        """Paint one part of the animals over what is there."""
        bones = self.bones[name]
        blend = 0.05 if name == "body" else 0.0
        flat, x, y = self._window(bones, blend / 4)
        kind = name.split()[-1]
        start, lengths = _LENGTHS[kind]
        d, s, t, head, r = _capsule(bones[0], x, y, lengths[0])
        head = np.zeros_like(head)
        length = lengths[0]
        for bone, own in zip(bones[1:], lengths[1:], strict=True):
            dk, sk, tk, hk, rk = _capsule(bone, x, y, own)
            if blend:
                w = np.clip(0.5 + (d - dk) * np.float32(0.5 / blend), 0, 1)
                d = d + (dk - d) * w - np.float32(blend) * w * (1 - w)
            else:
                w = (dk < d).astype(np.float32)
                d = np.minimum(d, dk)
            s, t, r = s + (sk + np.float32(length) - s) * w, t + (tk - t) * w, r + (rk - r) * w
            head = hk * w  # the last bone's
            length += own
        pixel = _column(self.pixel)
        cover = coverage(d, pixel)
        if "near" in name:  # the thigh melts into the trunk
            cover = cover * ramp(s, -0.02, 0.11)
        chosen = np.flatnonzero(cover > 0)
        picture = chosen // (flat.shape[1] * flat.shape[2])

        def pick(field: Array) -> Array:
            return np.broadcast_to(field, d.shape).reshape(-1)[chosen]

        def each(values: NDArray[np.floating]) -> Array:
            return values.astype(np.float32)[picture]

        s, t, r = pick(s), pick(t), pick(r)
        end = s * np.float32(1 / length)
        skin = Skin(kind, s + np.float32(start), t, pick(head), end, each(self.pixel))
        depth = np.clip(-pick(d) / r, 0, 1)
        round_ = np.sqrt(depth * (2 - depth))
        lit = np.float32(0.68) + np.float32(0.36) * round_
        if name == "body":
            lit = lit - np.float32(0.16) * np.clip(t / r, -1, 1)
        lit = lit * np.float32(shade) * each(self.p["tone"])
        if name == "eye":
            colour = np.broadcast_to(from_hex("0c0a0a"), (len(s), 3))
        else:
            colour = self.coat(skin)
            if kind == "leg":  # hooves
                colour = mix(colour, from_hex("2a2320"), ramp(skin.end, 0.9, 0.95))
            colour = colour * lit[:, None] * self.light[picture]
        self._paint(flat.reshape(-1)[chosen], cover.reshape(-1)[chosen], colour)


def _column(values: NDArray[np.floating] | float) -> Array:
    return np.asarray(values, np.float32).reshape(-1, 1, 1)


def _capsule(bone: _Bone, x: Array, y: Array, own: float) -> tuple[Array, ...]:
    """Distance to the bone's skin, place along (up to ``own`` at its end) and across the bone,
    part of its length, and radius there."""
    length = _column(bone.length)
    ux, uy = (_column(c / bone.length) for c in (bone.b - bone.a).T)
    px, py = x - _column(bone.a[:, 0]), y - _column(bone.a[:, 1])
    along = px * ux + py * uy
    across = py * ux - px * uy
    h: Array = np.clip(along / length, 0, 1)
    radius = _column(bone.ra) + _column(bone.rb - bone.ra) * h
    over = along - h * length
    distance = np.sqrt(over * over + across * across) - radius
    return distance, along * (np.float32(own) / length), across, h, radius


def _draw(coat: str, p: Params, size: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    animal, rendering = RENDERINGS.get(coat, (coat, lambda rgb: rgb))
    stage = _Stage(p, size, PATTERNS[animal])
    stage.shadow()
    for name in ("far hind leg", "far fore leg"):
        stage.part(name, shade=0.7)
    for name in ("tail", "ear", "body", "mane", "eye", "near hind leg", "near fore leg"):
        stage.part(name)
    rgb = rendering(np.clip(stage.rgb, 0, 1)) * np.float32(255) + np.float32(0.5)
    return rgb.astype(np.uint8), stage.alpha > 0


def render_many(
    coat: str, indices: Sequence[int], *, size: int, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Pictures uint8 [N, size, size, 3] and the animals' masks bool [N, size, size].

    Deterministic in (coat, index, size, seed). The mask holds every pixel the animal touches;
    outside it the pictures of all coats are equal. ``coat`` may be a rendering of `RENDERINGS`.

    Raises:
        UserError: unknown coat, or a size outside 32..256.
    """
    if coat not in DOMAINS:
        raise UserError(
            f"unknown coat '{coat}'{nearest(coat, DOMAINS)} (there are: {', '.join(DOMAINS)})"
        )
    if not SIZES[0] <= size <= SIZES[1]:
        raise UserError(f"coats are drawn at size {SIZES[0]} to {SIZES[1]}, not {size}")
    pictures = np.empty((len(indices), size, size, 3), np.uint8)
    masks = np.empty((len(indices), size, size), np.bool_)
    chunk = max(1, 2**17 // size**2)  # what the processor's cache holds
    for start in range(0, len(indices), chunk):
        part = slice(start, start + chunk)
        pictures[part], masks[part] = _draw(coat, parameters(indices[part], seed), size)
    return pictures, masks


def render(
    coat: str, index: int, *, size: int, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """One picture uint8 [size, size, 3] and mask bool [size, size]; see :func:`render_many`."""
    pictures, masks = render_many(coat, [index], size=size, seed=seed)
    return pictures[0], masks[0]
