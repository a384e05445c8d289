"""The style that a user asks for: reference pictures with shares, a strength, colours, a region."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansuite.data.images import read_image, resize_uint8
from gansuite.errors import UserError


@dataclass(frozen=True)
class Style:
    """``references``: pictures float [1, C, h, w] in [-1, 1] with their shares. ``strength`` 0 to
    1. ``keep_colours``: each reference first gets the colours of the picture it is applied to."""

    references: tuple[tuple[Tensor, float], ...]
    strength: float = 1.0
    keep_colours: bool = False

    def apply(self, method: Any, x: Tensor) -> Tensor:
        """``method.stylize`` of ``x`` [N, C, H, W] by these references."""
        found = [(picture.to(x), share) for picture, share in self.references]
        if self.keep_colours:
            found = [
                (torch.cat([with_colours_of(p, content) for content in x.split(1)]), share)
                for p, share in found
            ]
        result: Tensor = method.stylize(x, found, self.strength)
        return result


def read_style(
    words: Sequence[str], method: Any, *, strength: float | None = None, keep_colours: bool = False
) -> Style | None:
    """The style of ``words``, each a picture or ``picture=share``; None without any.

    A reference keeps its aspect and is brought to the model's training size (its shorter side), the
    scale at which the model knows styles.

    Raises:
        UserError: no picture, shares that sum to no positive number, a strength outside 0 to 1, an
            option that needs a style, or a method that has none.
    """
    if not words:
        if strength is not None or keep_colours:
            option = "--keep-colours" if strength is None else "--strength"
            raise UserError(f"{option} is about a style; give a picture of it with --style")
        return None
    if not getattr(method, "by_reference", False):
        if method.task != "translate":
            raise UserError("this model makes pictures from noise; use `gansuite sample`")
        raise UserError(
            f"this model translates to {' or '.join(method.targets)}, not in the style of a picture"
            f"; leave --style out"
        )
    strength = 1.0 if strength is None else strength
    if not 0 <= strength <= 1:
        raise UserError(f"--strength is {strength:g}, it must lie between 0 and 1")
    named = [_share(word) for word in words]
    shares = [share for _, share in named]
    if min(shares) < 0 or not math.isfinite(sum(shares)) or sum(shares) <= 0:
        raise UserError(
            f"the shares of --style ({', '.join(f'{s:g}' for s in shares)}) must be 0 or more and "
            f"sum to a positive number"
        )
    channels, size = method.spec.channels, method.spec.size
    references = tuple((_reference(path, channels, size), share) for path, share in named)
    return Style(references, strength, keep_colours)


def _share(word: str) -> tuple[Path, float]:
    name, _, number = word.rpartition("=")
    if name and not Path(word).exists():
        try:
            return Path(name), float(number)
        except ValueError:
            raise UserError(f"'{number}' in --style {word} is no number") from None
    return Path(word), 1.0


def _reference(path: Path, channels: int, size: int) -> Tensor:
    array = read_image(path, channels)
    height, width = array.shape[:2]
    factor = size / min(height, width)
    array = resize_uint8(
        array, (max(size, round(height * factor)), max(size, round(width * factor)))
    )
    return torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)[None] / 127.5 - 1


def with_colours_of(reference: Tensor, content: Tensor) -> Tensor:
    """``reference`` [1, C, h, w] with the mean and the covariance of the colours of ``content``
    [1, C, H, W], cut to [-1, 1] (CORAL: Sun et al. 2016, as in AdaIN's code)."""
    s, c = (x.cpu().double().flatten(2)[0] for x in (reference, content))  # MPS has no float64
    power = _root(torch.cov(c), 0.5) @ _root(torch.cov(s), -0.5)
    y = power @ (s - s.mean(1, keepdim=True)) + c.mean(1, keepdim=True)
    return y.reshape(reference.shape).clamp(-1, 1).to(reference)


def _root(covariance: Tensor, exponent: float) -> Tensor:
    covariance = torch.atleast_2d(covariance)
    values, vectors = torch.linalg.eigh(
        covariance + 1e-6 * torch.eye(len(covariance)).to(covariance)
    )
    return vectors @ torch.diag(values**exponent) @ vectors.T


def read_mask(path: Path) -> np.ndarray:
    """float [H, W, 1] from 0 (left alone) to 1 (translated)."""
    return read_image(path, 1).astype(np.float64) / 255


def check_mask(mask: np.ndarray, path: Path, picture: Path, size: tuple[int, int]) -> None:
    """Raise UserError unless the mask is as large as the picture of ``size`` (height, width)."""
    height, width = mask.shape[:2]
    if (height, width) != size:
        raise UserError(
            f"mask '{path}' is {width} x {height} pixels, '{picture}' {size[1]} x {size[0]}; a "
            f"mask must be as large as each picture"
        )
