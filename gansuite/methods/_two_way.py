"""What the three dual-learning methods share: a generator each way, a discriminator per domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from gansuite.data.spec import Batch, DataSpec, Needs
from gansuite.methods.base import Inference, Method, Step
from gansuite.networks.layers import in_one_call


class TwoWay(Method):
    """Two unpaired domains A and B. ``g["ab"]`` makes B of A, ``g["ba"]`` A of B; ``d["a"]``
    judges domain A and ``d["b"]`` domain B. ``g`` and ``d`` are called once for each network.

    A generator whose weights are all 0 is not there, as of published weights that know one way:
    what it would make is no target.
    """

    needs = Needs(view="unpaired", domains=2)
    task = "translate"

    def __init__(
        self,
        spec: DataSpec,
        weights: Mapping[str, float],
        g: Callable[[], nn.Module],
        d: Callable[[], nn.Module],
    ) -> None:
        super().__init__(spec, weights)
        self.g = nn.ModuleDict({"ab": g(), "ba": g()})
        self.d = nn.ModuleDict({"a": d(), "b": d()})
        self.stride = cast(int, self.g["ab"].stride)

    def fakes(self, batch: Batch, step: Step, identity: bool = False) -> tuple[Tensor, ...]:
        """fake_A of the real B and fake_B of the real A, each made once per batch; with
        ``identity`` also G_BA(A) and G_AB(B), made with them."""
        real_A, real_B = batch.images
        made_A = self._made("A", "ba", (real_B, real_A)[: 1 + identity], step)
        made_B = self._made("B", "ab", (real_A, real_B)[: 1 + identity], step)
        return tuple(part for parts in zip(made_A, made_B, strict=True) for part in parts)

    def _made(self, to: str, way: str, inputs: Sequence[Tensor], step: Step) -> Sequence[Tensor]:
        made = step.fake(f"fake_{to}", lambda: torch.cat(in_one_call(self.g[way], *inputs)))
        return made.split([len(x) for x in inputs])

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(
            to for to in self.spec.domains if bool(next(self.toward(to).parameters()).any())
        )

    def toward(self, to: str) -> nn.Module:
        """The generator that makes pictures of domain ``to``."""
        return self.g["ba" if self.spec.domains.index(to) == 0 else "ab"]

    def translate(self, x: Tensor, to: str) -> Tensor:
        return cast(Tensor, self.toward(to)(x))

    def inference(self, to: str) -> Inference:
        return Inference(
            self.toward(to), lambda image: self.translate(image, to), "translate", image="picture"
        )
