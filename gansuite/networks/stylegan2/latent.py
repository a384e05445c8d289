"""Walking, mixing and projecting in the latent space of a trained generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gansuite.networks.stylegan2.generator import StyleGenerator
from gansuite.rng import torch_generator


def _render(generator: StyleGenerator, ws: Tensor, batch: int) -> Tensor:
    return torch.cat([generator.synthesis(part, noise="const") for part in ws.split(batch)])


@torch.no_grad()
def interpolate(
    generator: StyleGenerator,
    keys: Tensor,
    steps: int,
    *,
    truncation_psi: float = 1.0,
    batch: int = 16,
) -> Tensor:
    """A walk through ``keys``, z [K, z_dim] or ws [K, num_ws, w_dim], straight in w.

    Returns (K-1) ``steps`` + 1 images, ``steps`` from one key to the next, with the stored noise.
    ``truncation_psi`` acts on z only. Raises ValueError for fewer than two keys.
    """
    if len(keys) < 2 or steps < 1:
        raise ValueError(f"needs two keys and one step, got {len(keys)} and {steps}")
    if keys.ndim == 2:
        keys = generator.styles(keys, truncation_psi=truncation_psi)
    t = (torch.arange(steps, device=keys.device, dtype=keys.dtype) / steps)[None, :, None, None]
    path = torch.lerp(keys[:-1, None], keys[1:, None], t).flatten(0, 1)
    return _render(generator, torch.cat([path, keys[-1:]]), batch)


@torch.no_grad()
def style_mixing_grid(
    generator: StyleGenerator,
    z_rows: Tensor,
    z_cols: Tensor,
    cutoffs: Sequence[int],
    *,
    truncation_psi: float = 1.0,
    batch: int = 16,
) -> tuple[Tensor, Tensor, Tensor]:
    """Row pictures [R, C, H, W], column pictures [K, C, H, W] and the mixtures
    [len(cutoffs), R, K, C, H, W]: layers below the cutoff from the row, the others from the column
    (StyleGAN §3.1), with the stored noise."""
    sources = generator.styles(torch.cat([z_rows, z_cols]), truncation_psi=truncation_psi)
    rows, cols = sources[: len(z_rows)], sources[len(z_rows) :]
    own = _render(generator, sources, batch)
    layer = torch.arange(generator.num_ws, device=sources.device)[:, None]
    ws = torch.stack([torch.where(layer < c, rows[:, None], cols[None]) for c in cutoffs])
    mixed = _render(generator, ws.flatten(0, 2), batch).unflatten(0, ws.shape[:3])
    return own[: len(z_rows)], own[len(z_rows) :], mixed


class Projection(NamedTuple):
    """Result of :func:`project`: w [N, w_dim], its images [N, C, H, W], and the loss of every
    step [steps]."""

    w: Tensor
    images: Tensor
    losses: Tensor


def project(
    generator: StyleGenerator,
    image: Tensor,
    steps: int = 500,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = F.mse_loss,
    lr: float = 0.1,
    exploration: float = 0.05,
    samples: int = 1000,
    seed: int = 0,
) -> Projection:
    """The w whose picture comes closest to ``image`` [N, C, H, W], by Adam (StyleGAN2 app. D).

    Starts at the mean of ``samples`` mapped draws. The rate rises over the first 5 % and falls by
    a cosine over the last 25 % of the steps; Gaussian noise of ``exploration`` times the spread of
    w is added to w, fading out over the first 75 %. ``loss(made, image)`` returns a scalar, for
    instance a distance of features. The generator, its gradients and its mode stay as they are.
    Unlike the paper, the noise maps are not optimised.
    """
    source = torch_generator(seed, "project")
    like = generator.mapping.w_avg
    with torch.no_grad():
        z = torch.randn(samples, generator.z_dim, generator=source).to(like)
        known = generator.mapping(z)
        centre = known.mean(0)
        spread = (known - centre).square().sum(1).mean().sqrt()

    def make(w: Tensor) -> Tensor:
        ws = w[:, None].expand(-1, generator.num_ws, -1)
        return generator.synthesis(ws, noise="const")

    start = centre.repeat(len(image), 1)
    wander = float(spread) * exploration
    return descend(make, start, image, steps, loss=loss, lr=lr, wander=wander, source=source)


def descend(
    make: Callable[[Tensor], Tensor],
    start: Tensor,
    image: Tensor,
    steps: int,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    lr: float,
    wander: float,
    source: torch.Generator,
) -> Projection:
    """From ``start`` [N, d] to where ``make`` comes closest to ``image`` (see `project`);
    ``wander``: the deviation of the noise that is added at first, drawn from ``source``."""
    w = start.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([w], lr=lr, betas=(0.9, 0.999))
    losses = []
    for step in range(steps):
        t = step / steps
        ramp = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / 0.25))
        optimizer.param_groups[0]["lr"] = lr * ramp * min(1.0, (t + 1 / steps) / 0.05)
        jitter = torch.randn(w.shape, generator=source).to(w)
        value = loss(make(w + jitter * (wander * max(0.0, 1 - t / 0.75) ** 2)), image)
        (w.grad,) = torch.autograd.grad(value, w)
        optimizer.step()
        losses.append(value.detach())
    with torch.no_grad():
        return Projection(w.detach(), make(w), torch.stack(losses))
