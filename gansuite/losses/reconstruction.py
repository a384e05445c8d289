"""Losses between pictures, features and labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gansuite.losses.precision import full


def l1(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference over everything."""
    return F.l1_loss(x, y)


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference over everything; on [-1, 1] four times that on [0, 1]."""
    return F.mse_loss(x, y)


def feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Sum over layers of mean (batch mean of real - batch mean of fake)^2, for [N, C, H, W] each.

    DiscoGAN's code; its paper has no such term. Only ``fake`` receives a gradient. The means are
    taken in full precision: their difference does not survive 16 bits.
    """
    pairs = ((full(r.detach()).mean(0), full(f).mean(0)) for r, f in zip(real, fake, strict=True))
    terms = [F.mse_loss(f, r) for r, f in pairs]
    return torch.stack(terms).sum()


def classification(
    logits: Tensor,
    labels: Tensor,
    sets: Sequence[tuple[int, bool]],
    known: Tensor | None = None,
) -> Tensor:
    """StarGAN's domain classification of ``labels`` [N, K], 0 or 1, from ``logits`` [N, K].

    ``sets``: for each label set its number of labels and whether they exclude one another, in the
    order of the K. Exclusive: cross-entropy, mean over the batch; else binary cross-entropy summed
    over attributes, mean over the batch. ``known`` [N, sets], 0 or 1: whose labels of a picture
    are known; the others do not count (section 3.2 of the paper).
    """
    per_picture = torch.zeros_like(logits[:, 0])
    first = 0
    for i, (n, exclusive) in enumerate(sets):
        x, y = logits[:, first : first + n], labels[:, first : first + n]
        first += n
        if exclusive:
            part = F.cross_entropy(x, y, reduction="none")
        else:
            part = F.binary_cross_entropy_with_logits(x, y, reduction="none").sum(1)
        per_picture = per_picture + (part if known is None else part * known[:, i])
    return per_picture.mean()
