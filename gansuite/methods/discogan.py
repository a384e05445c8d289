"""DiscoGAN (Kim et al. 2017, "Learning to Discover Cross-Domain Relations with Generative
Adversarial Networks", arXiv:1703.05192)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from gansuite.data.spec import Batch, DataSpec
from gansuite.losses.adversarial import NonSaturating
from gansuite.losses.reconstruction import feature_matching, mse
from gansuite.methods._two_way import TwoWay
from gansuite.methods.base import Step, terms
from gansuite.networks.discogan import DiscoGANDiscriminator, DiscoGANGenerator
from gansuite.networks.recompute import keeping_statistics

Rates = Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2)]
SIDES = {"a": ("fake_A", 0), "b": ("fake_B", 1)}


class DiscoGAN(TwoWay):
    """Two encoder-decoders that undo one another, with feature matching and a curriculum.

    ``d["b"]`` judges domain B. Of three batches the first trains the discriminators

        dis   1/2 BCE(D_B(y), 1) + 1/2 BCE(D_B(G_AB(x)), 0), and likewise for A

    and the next two the generators (section 3.2 and the authors' code)

        gan   BCE(D_B(G_AB(x)), 1) + BCE(D_A(G_BA(y)), 1)
        fm    squared difference of the batch means of three of D's features, real and fake
        rec   (G_BA(G_AB(x)) - x)^2 + (G_AB(G_BA(y)) - y)^2, mean over pixels

    weighted ((1 - rate) (.1 gan + .9 fm) + rate rec), where the rate rises from .01 to .5 after
    ``curriculum`` batches.

    Options: ``architecture``: ``discogan``, or the paper's ablation: ``recongan`` (A to B only,
    with the way back) and ``gan`` (A to B only); ``extra``: the 100-channel bottleneck.

    Follows the authors' code; the paper has neither feature matching (``weights.fm: 0, gan: 1``)
    nor the curriculum (``rate: [0.5, 0.5]``). Known deviations: losses see pictures in
    [-1, 1], so the weight of the squared error is 1/4 of that on [0, 1] (the networks work on
    [0, 1], as published); RGB, not BGR; a finished model uses batch norm's running statistics,
    those of real pictures, where the code goes on with the batch's own.
    """

    loss_terms = {"g": ("gan", "fm", "rec"), "d": ("dis",)}

    alternation = (("d",), ("g",), ("g",))

    def __init__(
        self,
        spec: DataSpec,
        *,
        architecture: Literal["discogan", "recongan", "gan"] = "discogan",
        width: int = 64,
        d_width: int = 64,
        extra: bool = False,
        upsample: Literal["deconv", "resize_conv"] = "deconv",
        curriculum: int = 10_000,
        rate: Rates = [0.01, 0.5],  # noqa: B006 - read only
        weights: Mapping[str, float] = terms(dis=1.0, gan=0.1, fm=0.9, rec=0.25),
    ) -> None:
        super().__init__(
            spec,
            weights,
            lambda: DiscoGANGenerator(spec.channels, width, upsample, extra=extra),
            lambda: DiscoGANDiscriminator(spec.size, spec.channels, d_width),
        )
        self.sides = SIDES if architecture == "discogan" else {"b": SIDES["b"]}
        self.curriculum, self.rate = curriculum, rate
        self.bce = NonSaturating()
        if architecture == "gan":
            self.weights["rec"], self.rate = 0.0, [0.0, 0.0]

    @property
    def targets(self) -> tuple[str, ...]:
        sides = {self.spec.domains[i] for _, i in self.sides.values()}
        return tuple(to for to in super().targets if to in sides)

    def weight_of(self, term: str, step: Step) -> float:
        rate = self.rate[step.batches >= self.curriculum]
        share = {"dis": 1.0, "rec": rate}.get(term, 1 - rate)
        return self.weights[term] * share

    def d_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        fakes = self.fakes(batch, step)
        losses = []
        for side, (_, i) in self.sides.items():
            real_logits, _ = self.d[side](batch.images[i])
            fake_logits, _ = self.d[side](fakes[i])
            losses.append(0.5 * self.bce.d(real_logits, fake_logits))
        return {"dis": sum(losses[1:], losses[0])}

    def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        real_A, real_B = batch.images
        fake_A, fake_B = self.fakes(batch, step)
        gan = fm = rec = real_A.new_zeros(())
        for side, fake in (("a", fake_A), ("b", fake_B)):
            if side not in self.sides:
                continue
            real = batch.images[self.sides[side][1]]
            logits, features = self.d[side](fake)
            gan = gan + self.bce.g(logits)
            fm = fm + feature_matching(self.d[side](real)[1], features)
        losses = {"gan": gan, "fm": fm}
        if self.weights["rec"]:
            with keeping_statistics(self.g):  # those of real pictures, which are translated later
                rec = mse(self.g["ba"](fake_B), real_A)
                if "a" in self.sides:
                    rec = rec + mse(self.g["ab"](fake_A), real_B)
            losses["rec"] = rec
        return losses
