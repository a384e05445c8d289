"""CUT and FastCUT (Park et al. 2020, "Contrastive Learning for Unpaired Image-to-Image
Translation", arXiv:2007.15651)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from gansuite.data.spec import Batch, DataSpec, Needs
from gansuite.losses.adversarial import adversarial
from gansuite.losses.patchnce import patch_nce
from gansuite.methods._one_way import Direction, OneWay
from gansuite.methods.base import Step, terms
from gansuite.networks.layers import Norm, in_one_call, init_xavier_
from gansuite.networks.patchgan import PatchDiscriminator
from gansuite.networks.projections import PatchProjections
from gansuite.networks.resnet import ResnetGenerator

Maps = Mapping[str, Tensor]  # feature maps by the names of their places

# lambda of PatchNCE on x and on y (their mean, in cut), and whether G must commute with mirroring
PRESETS: dict[str, tuple[float, float, bool]] = {
    "cut": (0.5, 0.5, False),
    "fastcut": (10.0, 0.0, True),
}


class CUT(OneWay):
    """One generator and one discriminator; a patch of the output must be nearer to the same place
    of the input than to other places of it.

    ``g`` is the generator G, whose first half is the encoder; ``f`` holds the heads H_l, trained
    with G; ``d`` judges the target domain. D first, then G and the heads (section 3, eqs. 1-5):

        d  gan  1/2 [(D(y) - 1)^2 + D(G(x))^2]
        g  gan  (D(G(x)) - 1)^2
        g  nce  PatchNCE(x, G(x)): cross-entropy over 256 places, temperature .07, mean of 5 maps
        g  idt  PatchNCE(y, G(y)), in place of an identity loss

    weighted gan + 1/2 (nce + idt) by ``preset: cut`` and gan + 10 nce by ``fastcut``, which also
    mirrors the input of G in half of the batches and its maps back before they are compared.
    ``weights`` multiply these.

    Options: ``direction``: ab, from the first domain to the second, or ba; ``blocks`` residual
    blocks; ``width``/``d_width`` channels of the first layers; ``patches`` places per map;
    ``d_norm``: D's norm; instance, as published, hides a tint of the whole picture from it.

    Follows the authors' code: maps are the padded pixels, both widening convolutions before their
    norm, the first and the fifth block (the last, where there are fewer); the keys have no
    gradient; blurred resampling; Xavier normal weights with gain .02. Known deviations: F has its
    layers from the beginning (the code makes them in a first pass without a step); pictures are
    cropped at random to the end (the code only resizes in the decaying part of the budget).
    """

    loss_terms = {"g": ("gan", "nce", "idt"), "d": ("gan",)}
    needs = Needs(view="unpaired", domains=2)
    alternation = (("d", "g"),)
    networks = {"g": ("g", "f")}

    def __init__(
        self,
        spec: DataSpec,
        *,
        preset: Literal["cut", "fastcut"] = "cut",
        direction: Direction = "ab",
        blocks: int = 9,
        width: int = 64,
        d_width: int = 64,
        d_layers: int = 3,
        d_norm: Norm = "instance",
        patches: int = 256,
        temperature: float = 0.07,
        loss: str = "lsgan",
        weights: Mapping[str, float] = terms(gan=1.0, nce=1.0, idt=1.0),
    ) -> None:
        super().__init__(spec, weights, direction)
        nce, idt, self.mirrors = PRESETS[preset]
        self.published = {"gan": 1.0, "nce": nce, "idt": idt}
        self.weights = {term: w if self.published[term] else 0.0 for term, w in weights.items()}
        self.g = ResnetGenerator(spec.channels, width, blocks, antialias=True)
        self.d = PatchDiscriminator(spec.channels, d_width, d_layers, d_norm, antialias=True)
        compared = ("pixels", "down1", "down2", "block1", f"block{min(5, blocks)}")
        self.maps = tuple(name for name in dict.fromkeys(compared) if name in self.g.taps)
        self.f = PatchProjections({name: self.g.taps[name].channels for name in self.maps})
        init_xavier_(self.g)
        init_xavier_(self.d)
        self.patches, self.temperature = patches, temperature
        self.adversarial = adversarial(loss)
        self.stride = self.g.stride

    def weight_of(self, term: str, step: Step) -> float:
        return self.weights[term] * self.published[term]

    def seen(self, x: Tensor, step: Step) -> Tensor:
        """``x``, in every second batch in a mirror, if it ``mirrors``."""
        draws = step.draws
        chance = step.shared("mirror", lambda: draws.decided(lambda d: torch.tensor(d.common(1))))
        return torch.where(chance < 0.5, x.flip(3), x) if self.mirrors else x

    def fakes(self, batch: Batch, step: Step) -> tuple[Tensor, ...]:
        """G(x) and, where it is compared, G(y): made in one batch."""
        x, y = self.pair(batch)
        real = torch.cat([x, y]) if self.weights["idt"] else x
        return step.fake("fakes", lambda: self.g(self.seen(real, step))).split(len(x))

    def d_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        _, y = self.pair(batch)
        fake = self.fakes(batch, step)[0]
        return {"gan": self.adversarial.d(*in_one_call(self.d, y, fake))}

    def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        reals, fakes = self.pair(batch), self.fakes(batch, step)
        losses = {"gan": self.adversarial.g(self.d(fakes[0]))}
        sets = zip(("nce", "idt"), reals, fakes, strict=False)
        compared = {term: pictures for term, *pictures in sets if self.weights[term]}
        return losses | (self.nce(compared, step) if compared else {})

    def nce(self, compared: Mapping[str, Sequence[Tensor]], step: Step) -> dict[str, Tensor]:
        """PatchNCE of each term's pictures, (real, made), at places that all of a term share. The
        encoder sees the terms as one batch."""
        reals, fakes = (torch.cat(pictures) for pictures in zip(*compared.values(), strict=True))
        made = self.g.features(fakes, self.maps)
        made = {name: self.seen(x, step) for name, x in made.items()}
        with torch.no_grad():
            given = self.g.features(reals, self.maps)

        def parts(maps: Maps) -> list[dict[str, Tensor]]:
            split = [x.chunk(len(compared)) for x in maps.values()]
            return [dict(zip(maps, part, strict=True)) for part in zip(*split, strict=True)]

        return {
            term: self.contrast(a, b, step)
            for term, a, b in zip(compared, parts(made), parts(given), strict=True)
        }

    def contrast(self, made: Maps, given: Maps, step: Step) -> Tensor:
        pixels = {name: x.shape[2] * x.shape[3] for name, x in given.items()}
        places = {n: step.draws.permutation(total)[: self.patches] for n, total in pixels.items()}
        with torch.no_grad():
            keys = self.f(given, places)
        pairs = zip(self.f(made, places), keys, strict=True)
        return torch.stack([patch_nce(q, k, self.temperature) for q, k in pairs]).mean()
