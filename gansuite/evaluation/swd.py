"""Sliced Wasserstein distance between pictures (Karras et al. 2018, section 5)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gansuite import rng
from gansuite.evaluation.comparison import check_images, rgb

PATCH = 7


def pyramid(images: Tensor, smallest: int = 16) -> list[Tensor]:
    """Laplacian pyramid of float [N, C, H, W], finest level first; the last level is low-pass.

    Levels halve while the shorter side stays at or above ``smallest``. Burt and Adelson's 5-tap
    filter, mirrored borders.
    """
    taps = torch.tensor([1.0, 4, 6, 4, 1], device=images.device) / 16

    def smooth(x: Tensor, gain: float = 1.0) -> Tensor:
        flat = F.pad(x.flatten(0, 1)[:, None], (2, 2, 2, 2), mode="reflect")
        flat = F.conv2d(F.conv2d(flat, gain * taps.view(1, 1, 1, 5)), gain * taps.view(1, 1, 5, 1))
        return flat.view(x.shape)

    levels = []
    while min(images.shape[-2:]) // 2 >= smallest:
        half = smooth(images)[..., ::2, ::2]
        up = torch.zeros_like(images)
        up[..., ::2, ::2] = half
        levels.append(images - smooth(up, gain=2.0))
        images = half
    return [*levels, images]


def descriptors(level: Tensor, patches: int, seed: int, index: int) -> Tensor:
    """Random 7x7 patches [N * patches, C * 49] of one level, each channel at mean 0, deviation 1.

    Where a patch is cut depends on (seed, level, number of the picture) only, so that equal sets
    have distance 0.
    """
    n, c, h, w = level.shape
    draw = rng.numpy_generator(seed, "swd patches", index)
    spot = torch.from_numpy(draw.random((n, patches, 2))).to(level.device)
    room = torch.tensor([h - PATCH + 1, w - PATCH + 1], device=level.device)
    top, left = (spot * room).long().unbind(-1)
    picture = torch.arange(n, device=level.device)[:, None] * (c * h * w)
    corner = (picture + top * w + left).view(-1, 1, 1)
    step = torch.arange(PATCH, device=level.device)
    channel = torch.arange(c, device=level.device)[:, None] * (h * w)
    cut = level.take(corner + (channel + (step[:, None] * w + step).flatten()))
    std, mean = torch.std_mean(cut, (0, 2), keepdim=True, correction=0)
    return ((cut - mean) / std.clamp_min(1e-8)).flatten(1)


def _sorted(x: Tensor) -> Tensor:
    """``x`` with its rows in ascending order; on a CPU in place, by NumPy in a third of PyTorch's
    time."""
    if x.device.type == "cpu":
        x.numpy().sort(axis=1)
        return x
    return x.sort(dim=1).values


def projections(
    images: Tensor,
    *,
    patches: int = 128,
    directions: int = 128,
    repeats: int = 4,
    smallest: int = 16,
    seed: int = 0,
) -> list[Tensor]:
    """Per level, the descriptors of uint8 ``images`` on each random direction, sorted.

    float32 [repeats * directions, N * patches] each. Sets of equal N can be compared.
    """
    check_images(images)
    if min(images.shape[-2:]) < PATCH:
        raise ValueError(f"swd needs pictures of at least 7x7, not {tuple(images.shape[-2:])}")
    result = []
    for index, level in enumerate(pyramid(rgb(images).float(), smallest)):
        x = descriptors(level, patches, seed, index)
        draw = rng.numpy_generator(seed, "swd directions", index)
        axes = torch.from_numpy(draw.standard_normal((repeats * directions, x.shape[1])))
        axes = (axes / axes.norm(dim=1, keepdim=True)).to(x)
        result.append(_sorted(axes @ x.T))
    return result


def between(a: list[Tensor], b: list[Tensor]) -> float:
    """Mean absolute difference of sorted projections, x 1e3, averaged over levels."""
    levels = []
    for level in zip(a, b, strict=True):
        # a few rows at a time stay in the processor's cache
        rows = zip(*(x.split(16) for x in level), strict=True)
        sums = [(x - y).abs_().sum(dtype=torch.float64) for x, y in rows]
        levels.append(float(torch.stack(sums).sum()) / level[0].numel())
    return 1e3 * sum(levels) / len(levels)


def sliced_wasserstein(
    a: Tensor,
    b: Tensor,
    *,
    patches: int = 128,
    directions: int = 128,
    repeats: int = 4,
    smallest: int = 16,
    seed: int = 0,
) -> float:
    """Sliced Wasserstein distance x 1e3 of two sets of pictures uint8 [N, C, H, W].

    Laplacian pyramid down to 16 pixels, ``patches`` random 7x7 patches per picture and level,
    ``repeats`` x ``directions`` random directions, average over levels; 0 for equal sets, and only
    the first min(N, M) pictures of each are used. The paper normalises each set by its own channel
    means and deviations, so a change of brightness or contrast alone is not seen.
    """
    n = min(len(a), len(b))
    sides = [
        projections(
            x[:n],
            patches=patches,
            directions=directions,
            repeats=repeats,
            smallest=smallest,
            seed=seed,
        )
        for x in (a, b)
    ]
    return between(*sides)
