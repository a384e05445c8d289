"""Losses between pictures, features and labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def l1(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference over everything."""
    return F.l1_loss(x, y)


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference over everything; on [-1, 1] four times that on [0, 1]."""
    return F.mse_loss(x, y)


def feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Sum over layers of mean (batch mean of real - batch mean of fake)^2, for [N, C, H, W] each.

    DiscoGAN's code; its paper has no such term. Only ``fake`` receives a gradient.
    """
    terms = [F.mse_loss(f.mean(0), r.detach().mean(0)) for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).sum()


def classification(logits: Tensor, labels: Tensor, exclusive: bool) -> Tensor:
    """StarGAN's domain classification of ``labels`` [N, K], 0 or 1, from ``logits`` [N, K].

    Attributes: binary cross-entropy summed over attributes, divided by N. ``exclusive`` one-hot
    domains: cross-entropy, mean.
    """
    if exclusive:
        return F.cross_entropy(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / len(logits)
