"""What evaluation sees of a run: real pictures, fakes, and what is known about the fakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Comparison:
    """One column of scores. All pictures but ``latent_pairs`` are uint8 [., C, H, W] of one size.

    ``name``: ``a2b``, ``b2a``, ``gen`` or ``to_<domain>``. ``real`` [M]: pictures of the target
    domain. ``fake`` [N]: what the method made. ``source`` [N]: the inputs of the fakes. ``truth``
    [N]: the true translation of the inputs. ``mask`` bool [N, 1, H, W]: where the object is.
    ``rec`` [N]: the cycle's reconstruction of ``source``. ``idt`` [M]: the network that makes the
    fakes, applied to ``real``. ``reference`` [N]: the picture that each fake was to have the style
    of. ``target``: the domain that is aimed at, None for all. ``latent_pairs``: two sets of fakes
    in float [-1, 1], [N] each, the second a step of the protocol's ``ppl_epsilon`` further in
    latent space.

    Raises ValueError for another dtype or for sizes that disagree.
    """

    name: str
    real: Tensor
    fake: Tensor
    source: Tensor | None = None
    truth: Tensor | None = None
    mask: Tensor | None = None
    rec: Tensor | None = None
    idt: Tensor | None = None
    latent_pairs: tuple[Tensor, Tensor] | None = None
    reference: Tensor | None = None
    target: str | None = None

    def __post_init__(self) -> None:
        size = self.real.shape[-2:]
        counts = {"real": None, "fake": None, "idt": len(self.real)}
        for key in ("real", "fake", "source", "truth", "rec", "idt", "reference"):
            images = getattr(self, key)
            if images is None:
                continue
            check_images(images, f"{self.name}: {key}")
            if images.shape[-2:] != size:
                raise ValueError(
                    f"{self.name}: {key} is {tuple(images.shape[-2:])}, real {tuple(size)}"
                )
            n = counts.get(key, len(self.fake))
            if n is not None and len(images) != n:
                raise ValueError(f"{self.name}: {key} has {len(images)} pictures, expected {n}")
        if self.mask is not None and (
            self.mask.dtype != torch.bool or self.mask.shape != (len(self.fake), 1, *size)
        ):
            raise ValueError(f"{self.name}: mask must be bool [{len(self.fake)}, 1, H, W]")

    def head(self, n: int) -> Comparison:
        """The first ``n`` pictures of every set."""
        cut: dict[str, Any] = {
            f.name: x[:n] for f in fields(self) if isinstance(x := getattr(self, f.name), Tensor)
        }
        if self.latent_pairs is not None:
            cut["latent_pairs"] = tuple(x[:n] for x in self.latent_pairs)
        return replace(self, **cut)


def directions(domains: Sequence[str]) -> list[tuple[str, list[str], str]]:
    """(name, sources, target): ``a2b`` and ``b2a`` for two domains, else ``to_<target>`` from
    all others."""
    if len(domains) == 2:
        a, b = domains
        return [("a2b", [a], b), ("b2a", [b], a)]
    return [(f"to_{t}", [d for d in domains if d != t], t) for t in domains]


def check_images(images: Tensor, what: str = "images") -> None:
    """ValueError unless ``images`` is uint8 [N, C, H, W].

    Floats are refused and not guessed at: the same float picture read as [0, 1] or as [-1, 1] gives
    two different scores and no error.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or not images.shape[1]:
        raise ValueError(
            f"{what} must be uint8 [N, C, H, W], not {images.dtype} {tuple(images.shape)};"
            " to_uint8 converts from [-1, 1]"
        )


def to_uint8(x: Tensor) -> Tensor:
    """float [N, C, H, W] in [-1, 1] -> uint8 in 0..255, to the nearest level.

    1e-3 outside the range is taken for rounding noise and clamped (an eighth of a grey level).
    Raises ValueError for more than that, for values that are not finite and for integer input.
    """
    if not x.is_floating_point():
        raise ValueError(f"to_uint8 takes floats in [-1, 1], not {x.dtype}")
    x = x.detach().float()
    if x.numel():
        low, high = (float(v) for v in torch.aminmax(x))
        if not (low >= -1.001 and high <= 1.001):
            raise ValueError(
                f"to_uint8 takes values in [-1, 1], these span [{low:.4g}, {high:.4g}]"
            )
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def rgb(images: Tensor) -> Tensor:
    """Grey pictures as three equal channels (a view), others as they are."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
