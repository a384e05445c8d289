"""What the three dual-learning methods share: a generator each way, a discriminator per domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from torch import Tensor, nn

from gansuite.data.spec import Batch, DataSpec, Needs
from gansuite.methods.base import Inference, Method, Step


class TwoWay(Method):
    """Two unpaired domains A and B. ``g["ab"]`` makes B of A, ``g["ba"]`` A of B; ``d["a"]``
    judges domain A and ``d["b"]`` domain B. ``g`` and ``d`` are called once for each network."""

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

    def fakes(self, batch: Batch, step: Step) -> tuple[Tensor, Tensor]:
        """fake_A of the real B and fake_B of the real A, each made once per batch."""
        real_A, real_B = batch.images
        fake_A = step.fake("fake_A", lambda: self.g["ba"](real_B))
        fake_B = step.fake("fake_B", lambda: self.g["ab"](real_A))
        return fake_A, fake_B

    def toward(self, to: str) -> nn.Module:
        """The generator that makes pictures of domain ``to``."""
        return self.g["ba" if self.spec.domains.index(to) == 0 else "ab"]

    def translate(self, x: Tensor, to: str) -> Tensor:
        return cast(Tensor, self.toward(to)(x))

    def inference(self, to: str) -> Inference:
        return Inference(
            self.toward(to), lambda image: self.translate(image, to), "translate", image="picture"
        )
