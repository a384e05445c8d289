"""Adversarial losses on raw logits of any shape; means over the batch and over patches.

r = D(x), f = D(G(z)), sp = softplus.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from gansuite.errors import UserError, nearest
from gansuite.losses.mmd import mmd2
from gansuite.losses.precision import full


class Adversarial(ABC):
    """``d(real_logits, fake_logits)`` and ``g(fake_logits, real_logits)``, both minimised.

    ``undecided``: D's loss when it cannot tell real from fake, for losses that fall to 0 when it
    always can; None for those without a floor.
    """

    undecided: ClassVar[float | None] = None

    def d(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The discriminator's loss, a scalar; ``fake_logits`` of detached fakes."""
        return self._d(full(real_logits), full(fake_logits))

    def g(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """The generator's loss, a scalar; only ``relativistic`` needs ``real_logits``."""
        return self._g(full(fake_logits), None if real_logits is None else full(real_logits))

    def d_fake(self, fake_logits: Tensor) -> Tensor:
        """The part of ``d`` that its fakes have, where it is the sum of two parts."""
        return self._f(full(fake_logits))

    def _f(self, f: Tensor) -> Tensor:
        raise UserError(f"The loss {type(self).__name__} knows no fakes without real pictures.")

    @abstractmethod
    def _d(self, r: Tensor, f: Tensor) -> Tensor: ...

    @abstractmethod
    def _g(self, f: Tensor, r: Tensor | None) -> Tensor: ...


class NonSaturating(Adversarial):
    """D: sp(-r) + sp(f), not halved; G: sp(-f). Binary cross-entropy with labels 1 and 0."""

    undecided = 2 * math.log(2)

    def _d(self, r: Tensor, f: Tensor) -> Tensor:
        return F.softplus(-r).mean() + self._f(f)

    def _f(self, f: Tensor) -> Tensor:
        return F.softplus(f).mean()

    def _g(self, f: Tensor, r: Tensor | None) -> Tensor:
        return F.softplus(-f).mean()


class Minimax(NonSaturating):
    """D as above; G: -sp(f) = log(1 - D), which saturates (Goodfellow et al. 2014, eq. 1)."""

    def _g(self, f: Tensor, r: Tensor | None) -> Tensor:
        return -F.softplus(f).mean()


class LSGAN(Adversarial):
    """D: 1/2 [(r - 1)^2 + f^2]; G: (f - 1)^2 without the half, as CycleGAN's code has it."""

    undecided = 0.25

    def _d(self, r: Tensor, f: Tensor) -> Tensor:
        return 0.5 * (r - 1).square().mean() + self._f(f)

    def _f(self, f: Tensor) -> Tensor:
        return 0.5 * f.square().mean()

    def _g(self, f: Tensor, r: Tensor | None) -> Tensor:
        return (f - 1).square().mean()


class Wasserstein(Adversarial):
    """D: f - r; G: -f (Arjovsky et al. 2017). Needs clipped weights or a gradient penalty."""

    def _d(self, r: Tensor, f: Tensor) -> Tensor:
        return f.mean() - r.mean()

    def _g(self, f: Tensor, r: Tensor | None) -> Tensor:
        return -f.mean()


class Hinge(Wasserstein):
    """D: max(0, 1 - r) + max(0, 1 + f); G: -f (Miyato et al. 2018)."""

    undecided = 2.0

    def _d(self, r: Tensor, f: Tensor) -> Tensor:
        return F.relu(1 - r).mean() + F.relu(1 + f).mean()


class Relativistic(Adversarial):
    """D: sp(-(r - f)); G: sp(-(f - r)), r and f paired by their place in the batch (R3GAN)."""

    undecided = math.log(2)

    def _d(self, r: Tensor, f: Tensor) -> Tensor:
        return F.softplus(f - r).mean()

    def _g(self, f: Tensor, r: Tensor | None) -> Tensor:
        if r is None:
            raise ValueError("the relativistic generator loss needs real_logits")
        return F.softplus(r - f).mean()


class MMD(Adversarial):
    """D: -MMD^2(r, f); G: MMD^2(r, f), between sets of codes [N, k] (Li et al. 2017)."""

    def _d(self, r: Tensor, f: Tensor) -> Tensor:
        return -mmd2(r, f)

    def _g(self, f: Tensor, r: Tensor | None) -> Tensor:
        if r is None:
            raise ValueError("the mmd generator loss needs real_logits")
        return mmd2(r, f)


ADVERSARIAL: dict[str, Callable[[], Adversarial]] = {
    "nonsaturating": NonSaturating,
    "lsgan": LSGAN,
    "hinge": Hinge,
    "wgan": Wasserstein,
    "relativistic": Relativistic,
    "minimax": Minimax,
    "mmd": MMD,
}


def adversarial(name: str) -> Adversarial:
    """The loss of that name; ``UserError`` names the others."""
    if name not in ADVERSARIAL:
        raise UserError(
            f"Unknown adversarial loss '{name}': one of {', '.join(ADVERSARIAL)}"
            f"{nearest(name, ADVERSARIAL)}"
        )
    return ADVERSARIAL[name]()
