"""What the methods that make pictures from noise share: the latent and the augmentation of what
the discriminator sees."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from gansuite.data.spec import DataSpec, Needs
from gansuite.errors import UserError
from gansuite.methods.base import Inference, Method, Step
from gansuite.networks.augment import ADA, DiffAugment, ada_update
from gansuite.rng import torch_generator

Augment = Literal["none", "diffaugment", "ada"]
Latent = Literal["normal", "uniform", "unit_uniform"]
BOUND = {"uniform": 1.0, "unit_uniform": math.sqrt(3)}  # of the latents that have one
ADA_EVERY = 4  # of the discriminator's batches
WARM = 100  # critic updates for one of the generator, where WGAN warms up


def warm_up_updates(batch: int, n: int) -> tuple[str, ...]:
    """The updates of ``batch`` with ``n`` critic updates for one of the generator, but WARM for
    each of the generator's first 25 and for every 500th."""
    first, later = 25 * WARM + 475 * n, WARM + 499 * n
    long, place = (25, batch) if batch < first else (1, (batch - first) % later)
    place, each = (place, WARM) if place < long * WARM else (place - long * WARM, n)
    return ("d", "g") if place % each == each - 1 else ("d",)


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """The share ``t`` of the way from a to b [N, d] along great circles (Shoemake 1985)."""
    x, y = a.cpu().double(), b.cpu().double()  # some devices (MPS) have no float64
    angle = torch.acos(F.cosine_similarity(x, y)[:, None])
    mixed = torch.sin((1 - t) * angle) * x + torch.sin(t * angle) * y
    return (mixed / torch.sin(angle)).to(a)


def latents(kind: Latent, n: int, z_dim: int, generator: torch.Generator | None) -> Tensor:
    """float32 [n, z_dim] of the distribution ``kind``, on the CPU."""
    if kind == "normal":
        return torch.randn(n, z_dim, generator=generator, dtype=torch.float32)
    z = torch.rand(n, z_dim, generator=generator, dtype=torch.float32) * 2 - 1
    return z * BOUND[kind]


class Signs:
    """The mean sign of the logits of real pictures since the last update of ADA's p, this
    process's share."""

    def __init__(self) -> None:
        self.total, self.number = torch.zeros(()), 0

    def add(self, logits: Tensor) -> None:
        sign = logits.detach().float().sign().mean()
        self.total, self.number = self.total.to(sign.device) + sign, self.number + 1

    def take(self) -> Tensor:
        mean = self.total / self.number
        self.total, self.number = torch.zeros_like(mean), 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self.number = state["total"], state["number"]

    @staticmethod
    def merge(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        total = torch.stack([state["total"] for state in states]).mean(0)
        return {"total": total, "number": states[0]["number"]}


class Unconditional(Method):
    """Pictures from z [N, z_dim]: N(0, 1), U(-1, 1) with ``latent="uniform"``, or
    U(-sqrt 3, sqrt 3), of variance 1, with ``latent="unit_uniform"``.

    ``augment``: what happens to real and fake pictures alike on their way into D, so that few
    pictures suffice: DiffAugment (Zhao et al. 2020) or ADA (Karras et al. 2020b, section 3),
    whose strength p follows how sure D is of real pictures, in steps that lead from 0 to 1 in
    ``ada_kimg`` thousand of them (500 as published, for runs of 25,000; fewer for short runs).
    """

    needs = Needs(view="single")
    has_styles: ClassVar[bool] = False
    """Whether ``g`` is a `StyleGenerator`, with styles w between latents and pictures."""

    def __init__(
        self,
        spec: DataSpec,
        weights: Mapping[str, float],
        z_dim: int,
        augment: Augment,
        latent: Latent = "normal",
        ada_kimg: float = 500,
    ) -> None:
        super().__init__(spec, weights)
        if not ada_kimg > 0:
            raise UserError(f"'method.ada_kimg' is {ada_kimg:g}; it must be greater than 0.")
        self.z_dim, self.latent = z_dim, latent
        kinds: dict[str, type[DiffAugment] | type[ADA]] = {"diffaugment": DiffAugment, "ada": ADA}
        self.augment = kinds[augment]() if augment != "none" else None
        self.signs, self.ada_kimg = Signs(), ada_kimg
        if isinstance(self.augment, ADA):
            self.rank_state["signs"] = self.signs
            self.on_host = "follows D's signs from time to time (method.augment=ada)"

    def z(self, n: int, step: Step) -> Tensor:
        """Latents of this shard, [n, z_dim]."""
        if self.latent == "normal":
            return step.randn(n, self.z_dim)
        return (step.rand(n, self.z_dim) * 2 - 1) * BOUND[self.latent]

    def z_from(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Latents [n, z_dim] from ``generator``."""
        z = latents(self.latent, n, self.z_dim, generator)
        return z.to(self.device, cast(torch.dtype, self.dtype))

    def pictures(self, z: Tensor) -> Tensor:
        """The pictures, float in [-1, 1], of latents ``z``."""
        return cast(Tensor, self.player("g")(z))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.pictures(self.z_from(n, generator))

    def some_z(self, n: int) -> Tensor:
        """The same ``n`` latents each time."""
        return self.z_from(n, torch_generator(0, "latents"))

    def inference(self, to: str) -> Inference:
        return Inference(self.player("g"), lambda z: self.pictures(z), "pictures", z=self.some_z)

    def latent_pairs(
        self, n: int, generator: torch.Generator, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        """In z: along great circles if it is Gaussian, else straight."""
        a, b = self.z_from(n, generator), self.z_from(n, generator)
        step = slerp if self.latent == "normal" else torch.lerp
        return self.player("g")(a), self.player("g")(step(a, b, epsilon))

    def seen(self, images: Tensor, step: Step) -> Tensor:
        """``images`` as D gets to see them."""
        if self.augment is None:
            return images
        return self.augment(images, step.draws)

    def critic(self, step: Step) -> Callable[[Tensor], Tensor]:
        """D of pictures as it gets to see them."""
        return lambda x: cast(Tensor, self.player("d")(self.seen(x, step)))

    def adapt(self, real_logits: Tensor) -> Tensor:
        """``real_logits``, for ADA with their signs counted: for every pass over real pictures."""
        if isinstance(self.augment, ADA):
            self.signs.add(real_logits)
        return real_logits

    def after_batch(self) -> None:
        """ADA: after every four batches, move p by the mean sign since the last time."""
        if (
            isinstance(self.augment, ADA)
            and self.signs.number
            and not self.player_batches["d"] % ADA_EVERY
        ):
            mean = self.mean_over_ranks(self.signs.take())
            batch = self.images_per_batch
            p = ada_update(self.augment.p, mean, batch, ada_kimg=self.ada_kimg, interval=ADA_EVERY)
            self.augment.p.copy_(p)
            self.record("ada/p", self.augment.p)
