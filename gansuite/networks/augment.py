"""Differentiable augmentation of what a discriminator sees: DiffAugment and ADA.

Call ``augment(images, draws)`` with reals and fakes alike; images are float [N, C, H, W] in
[-1, 1], and the result may leave that range. What happens to a picture depends on
its place in the global batch and on ADA's p only, never on the pictures, so both sides see one
distribution.

Every transformation is linear or affine in the image and made of gathers and products, whose second
derivatives exist: R1 can be taken with respect to the image before augmentation. (torch's
``grid_sample`` has no second derivative.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gansuite.draws import Draws
from gansuite.errors import UserError, nearest


def _draw(images: Tensor, columns: int, draws: Draws, *, normal: bool) -> tuple[Tensor, ...]:
    """``columns`` tensors [N], uniform on [0, 1) or normal."""
    drawn = (draws.randn if normal else draws.rand)(len(images), columns)
    # geometry needs float32 at least, whatever the images are in
    return drawn.to(torch.promote_types(images.dtype, torch.float32)).unbind(1)


def _factor(value: Tensor, images: Tensor) -> Tensor:
    """[N] -> [N, 1, 1, 1] in the images' type."""
    return value.to(images.dtype)[:, None, None, None]


class DiffAugment(nn.Module):
    """Zhao et al. 2020 §3: every picture gets every part of ``policy``, a comma-separated list.

    ``color``: brightness +U(-.5, .5), saturation xU(0, 2), contrast xU(.5, 1.5).
    ``translation``: a whole number of pixels up to 1/8 of the side each way, zeros outside.
    ``cutout``: a square of half the side, centred anywhere in the picture, set to 0.
    Raises UserError for an unknown part.
    """

    PARTS = ("color", "translation", "cutout")

    def __init__(self, policy: str = "color,translation,cutout") -> None:
        super().__init__()
        self.policy = [part.strip() for part in policy.split(",") if part.strip()]
        for part in self.policy:
            if part not in self.PARTS:
                raise UserError(
                    f"DiffAugment's policy has no part '{part}'; "
                    f"it knows {', '.join(self.PARTS)}{nearest(part, self.PARTS)}."
                )

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        u = _draw(images, 7, draws, normal=False)
        for part in self.policy:
            if part == "color":
                images = self._color(images, *u[:3])
            elif part == "translation":
                images = self._translation(images, *u[3:5])
            else:
                images = self._cutout(images, *u[5:])
        return images

    @staticmethod
    def _color(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
        x = x + _factor(brightness - 0.5, x)
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * _factor(2 * saturation, x)
        level = x.mean((1, 2, 3), keepdim=True)
        return level + (x - level) * _factor(contrast + 0.5, x)

    @staticmethod
    def _translation(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
        for dim, u in ((2, down), (3, right)):
            side = x.shape[dim]
            reach = int(side / 8 + 0.5)
            shift = (u * (2 * reach + 1)).floor().long() - reach
            shape = [len(x), 1, 1, 1]
            shape[dim] = side
            source = (torch.arange(side, device=x.device) - shift[:, None]).view(shape)
            inside = (source >= 0) & (source < side)
            x = x.gather(dim, source.clamp(0, side - 1).expand_as(x)) * inside.to(x.dtype)
        return x

    @staticmethod
    def _cutout(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
        def first(u: Tensor, side: int) -> Tensor:
            cut = side // 2
            return (u * (side + 1 - cut % 2)).floor() - cut // 2

        hole = _square(x, first(row, x.shape[2]), first(column, x.shape[3]))
        return x * (~hole).to(x.dtype)


def _square(x: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """bool [N, 1, H, W]: the square of half the sides that begins at ``top``, ``left`` [N]."""

    def covered(first: Tensor, side: int) -> Tensor:
        offset = torch.arange(side, device=x.device) - first[:, None]
        return (offset >= 0) & (offset < side // 2)

    return covered(top, x.shape[2])[:, None, :, None] & covered(left, x.shape[3])[:, None, None]


class ADA(nn.Module):
    """Adaptive augmentation, the 'bgc' pipeline of Karras et al. 2020b (app. B).

    Each of these happens to a picture with probability ``p`` (a buffer; see :func:`ada_update`):
    horizontal flip (or not), 0 to 3 quarter turns, shift by whole pixels up to 1/8 of the side;
    scaling by 2^N(0, .2^2), rotation, stretching by 2^N(0, .2^2), shift by N(0, .125^2) of the
    side; brightness +N(0, .2^2), contrast x2^N(0, .5^2), inversion of luma (or not), rotation of
    hue, saturation x2^N(0, 1). Rotations may come before and after the stretching, with 1 - sqrt(1
    - p) each, so that p is the probability of any. Hue and saturation do nothing to grey pictures,
    hue nothing to those of more than three channels. Outside the picture lies its reflection. With
    p = 0 the pictures come back exactly.

    ``colour``: the five of colour happen with ``colour * p`` instead. ``cutout``: with
    ``cutout * p`` a square of half the side, centred anywhere in the picture, is 0 in the end.

    Known deviation: the geometric part interpolates bilinearly, where the authors filter with a
    wavelet at twice the resolution.
    """

    p: Tensor

    def __init__(self, p: float = 0.0, colour: float = 1.0, cutout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("p", torch.tensor(float(p)))
        self.colour, self.cutout = colour, cutout

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        uniform = _draw(images, 21, draws, normal=False)
        gates, u = uniform[:13], uniform[13:]
        z = _draw(images, 7, draws, normal=True)
        p = self.p.to(gates[0])
        rotation = 1 - (1 - p.clamp(max=1)).sqrt()
        chances = [rotation if k in (4, 6) else p if k < 8 else self.colour * p for k in range(13)]
        on = [gate < chance for gate, chance in zip(gates, chances, strict=True)]
        images = _warp(images, _inverse_motion(images, on[:8], u[:6], z[:4]))
        images = _recolour(images, on[8:], u[6:], z[4:])
        if not self.cutout:
            return images
        gate, row, column = _draw(images, 3, draws, normal=False)
        # pixels whose centres lie within a quarter of the side of the square's
        top, left = (
            (u * side - side / 4 + 0.5).floor()
            for u, side in zip((row, column), images.shape[2:], strict=True)
        )
        hole = _square(images, top, left) & (gate < self.cutout * p)[:, None, None, None]
        return images * (~hole).to(images.dtype)


def ada_update(
    p: Tensor,
    signs_mean: Tensor,
    batch: int,
    target: float = 0.6,
    ada_kimg: float = 500,
    interval: int = 4,
) -> Tensor:
    """The next p (2020b §3.2): a step up if ``signs_mean``, the mean sign of the logits of reals
    since the last update, exceeds ``target``, a step down if it falls short.

    A step is ``batch * interval`` images over ``ada_kimg`` thousand, the way from 0 to 1; p stays
    at or above 0.
    """
    step = batch * interval / (ada_kimg * 1000)
    return (p + torch.sign(signs_mean.to(p) - target) * step).clamp(min=0)


def _rows(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """[N, 3, 3] from the entries [N]."""
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _inverse_motion(
    images: Tensor, on: list[Tensor], u: tuple[Tensor, ...], z: tuple[Tensor, ...]
) -> Tensor:
    """[N, 3, 3] taking an output pixel (x, y, 1) to where it is read, both relative to the
    picture's centre: the inverse of flip, quarter turns, whole shift, scaling, rotation,
    stretching, rotation, shift, in this order."""
    height, width = images.shape[2:]
    zero, one = torch.zeros_like(u[0]), torch.ones_like(u[0])

    def scale(gate: Tensor, x: Tensor, y: Tensor) -> Tensor:
        x, y = torch.where(gate, x, one), torch.where(gate, y, one)
        return _rows((x, zero, zero), (zero, y, zero), (zero, zero, one))

    def shift(gate: Tensor, x: Tensor, y: Tensor) -> Tensor:
        x, y = torch.where(gate, x, zero), torch.where(gate, y, zero)
        return _rows((one, zero, x), (zero, one, y), (zero, zero, one))

    def turn(gate: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        cos, sin = torch.where(gate, cos, one), torch.where(gate, sin, zero)
        return _rows((cos, -sin, zero), (sin, cos, zero), (zero, zero, one))

    def rotate(gate: Tensor, u: Tensor) -> Tensor:
        angle = (2 * u - 1) * math.pi
        return turn(gate, angle.cos(), angle.sin())

    quarter = (u[1] * 4).floor()
    size, aspect = torch.exp2(0.2 * z[0]), torch.exp2(0.2 * z[1])
    steps = (
        scale(on[0], torch.where(u[0] < 0.5, -one, one), one),
        # whole cosines and sines keep pixels on pixels
        turn(on[1], 1 - torch.minimum(quarter, 4 - quarter), 1 - (quarter - 1).abs()),
        shift(on[2], ((2 * u[2] - 1) * width / 8).round(), ((2 * u[3] - 1) * height / 8).round()),
        scale(on[3], size, size),
        rotate(on[4], u[4]),
        scale(on[5], aspect, 1 / aspect),
        rotate(on[6], u[5]),
        shift(on[7], 0.125 * width * z[2], 0.125 * height * z[3]),
    )
    motion = steps[0]
    for step in steps[1:]:
        motion = motion @ step
    return motion


def _reflect(index: Tensor, side: int) -> Tensor:
    """Integer positions folded into 0 .. side-1 by reflection about the border pixels."""
    period = max(2 * (side - 1), 1)
    return (side - 1) - (index.remainder(period) - (side - 1)).abs()


def _warp(images: Tensor, motion: Tensor) -> Tensor:
    """Bilinear reading of ``images`` where ``motion`` [N, 3, 3] sends each output pixel."""
    n, c, height, width = images.shape
    x = torch.arange(width, device=motion.device, dtype=motion.dtype) - (width - 1) / 2
    y = torch.arange(height, device=motion.device, dtype=motion.dtype) - (height - 1) / 2
    a = motion[..., None, None]
    at_x = a[:, 0, 0] * x + a[:, 0, 1] * y[:, None] + a[:, 0, 2] + (width - 1) / 2
    at_y = a[:, 1, 0] * x + a[:, 1, 1] * y[:, None] + a[:, 1, 2] + (height - 1) / 2
    left, top = at_x.floor(), at_y.floor()
    fx = (at_x - left).to(images.dtype)[:, None]
    fy = (at_y - top).to(images.dtype)[:, None]
    columns = [_reflect(left.long() + k, width) for k in (0, 1)]
    rows = [_reflect(top.long() + k, height) * width for k in (0, 1)]
    flat = images.flatten(2)

    def read(row: Tensor, column: Tensor) -> Tensor:
        index = (row + column).view(n, 1, -1).expand(n, c, -1)
        return flat.gather(2, index).view(n, c, height, width)

    upper, lower = (read(row, columns[0]) * (1 - fx) + read(row, columns[1]) * fx for row in rows)
    return upper * (1 - fy) + lower * fy


def _recolour(x: Tensor, on: list[Tensor], u: tuple[Tensor, ...], z: tuple[Tensor, ...]) -> Tensor:
    """Brightness, contrast, luma inversion, hue, saturation, in this order.

    With v = (1, 1, 1)/sqrt(3), the last four are c (l vv' + s (cos (I - vv') + sin [v]x)): luma
    lies along v, hue turns about v, saturation scales the plane across v.
    """
    one, zero = torch.ones_like(u[0]), torch.zeros_like(u[0])
    bright = torch.where(on[0], 0.2 * z[0], zero)
    contrast = torch.where(on[1], torch.exp2(0.5 * z[1]), one)
    luma = contrast * torch.where(on[2] & (u[0] < 0.5), -one, one)
    hue = on[3] if x.shape[1] in (1, 3) else torch.zeros_like(on[3])
    angle = torch.where(hue, (2 * u[1] - 1) * math.pi, zero)
    vivid = contrast * torch.where(on[4], torch.exp2(z[2]), one)
    across, turned = vivid * angle.cos(), vivid * angle.sin()
    # a x + (l - a) mean(x) rather than l mean(x) + a (x - mean(x)): exactly x at p = 0
    out = x * _factor(across, x) + x.mean(1, keepdim=True) * _factor(luma - across, x)
    if x.shape[1] == 3:
        out = out + (x.roll(1, 1) - x.roll(-1, 1)) * _factor(turned / math.sqrt(3), x)
    return out + _factor(luma * bright, x)
