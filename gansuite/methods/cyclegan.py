"""CycleGAN (Zhu et al. 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent
Adversarial Networks", arXiv:1703.10593)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from gansuite.data.spec import Batch, DataSpec
from gansuite.losses.adversarial import adversarial
from gansuite.losses.reconstruction import l1
from gansuite.methods._two_way import TwoWay
from gansuite.methods.base import Step, terms
from gansuite.networks.layers import in_one_call
from gansuite.networks.patchgan import PatchDiscriminator
from gansuite.networks.pool import ImagePool
from gansuite.networks.resnet import ResnetGenerator
from gansuite.networks.unet import UNetGenerator


class CycleGAN(TwoWay):
    """Two generators that undo one another, and a discriminator for each domain.

    ``g["ab"]`` is the paper's G: A -> B, ``g["ba"]`` its F: B -> A. ``d["b"]`` judges domain B.
    The generators minimise (section 3, eqs. 1-3; identity: section 5.2)

        gan       (D_B(G(x)) - 1)^2 + (D_A(F(y)) - 1)^2
        cycle     |F(G(x)) - x| + |G(F(y)) - y|
        identity  |G(y) - y| + |F(x) - x|

    the discriminators ``gan`` = 1/2 [(D_B(y) - 1)^2 + D_B(G(x))^2] and likewise for A, on a
    history of 50 fakes. Both see the fakes made before the generators' update.

    Options: ``blocks`` residual blocks (9 at 256, 6 at 128) of a ``resnet``, or a ``unet``;
    ``width``/``d_width`` channels of the first layers; ``pool`` pictures of history.

    Follows the PyTorch code where it differs from the paper: the identity loss is on for every
    data set (0.5 * 10), instance norm has no affine parameters, C512 has stride 1.
    Known deviations: the two domains are each drawn in a random order of their own (the code
    indexes A in order and B at random); under several processes each keeps its own history.
    """

    loss_terms = {"g": ("gan", "cycle", "identity"), "d": ("gan",)}

    def __init__(
        self,
        spec: DataSpec,
        *,
        generator: Literal["resnet", "unet"] = "resnet",
        blocks: int = 9,
        width: int = 64,
        d_width: int = 64,
        d_layers: int = 3,
        upsample: Literal["deconv", "resize_conv"] = "deconv",
        pool: int = 50,
        loss: str = "lsgan",
        weights: Mapping[str, float] = terms(gan=1.0, cycle=10.0, identity=5.0),
    ) -> None:

        def g() -> nn.Module:
            if generator == "unet":
                downs = min(8, spec.size.bit_length() - 1)
                return UNetGenerator(spec.channels, width, downs, upsample)
            return ResnetGenerator(spec.channels, width, blocks, upsample)

        def d() -> nn.Module:
            return PatchDiscriminator(spec.channels, d_width, d_layers)

        super().__init__(spec, weights, g, d)
        self.adversarial = adversarial(loss)
        self.pool_A, self.pool_B = ImagePool(pool), ImagePool(pool)
        self.rank_state = {"pool_A": self.pool_A, "pool_B": self.pool_B}

    def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        real_A, real_B = batch.images
        fake_A, fake_B, *identities = self.fakes(batch, step, bool(self.weights["identity"]))
        rec_A, rec_B = self.g["ba"](fake_B), self.g["ab"](fake_A)
        adv = self.adversarial
        losses = {
            "gan": adv.g(self.d["a"](fake_A)) + adv.g(self.d["b"](fake_B)),
            "cycle": l1(rec_A, real_A) + l1(rec_B, real_B),
        }
        if identities:
            losses["identity"] = l1(identities[0], real_A) + l1(identities[1], real_B)
        return losses

    def d_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        real_A, real_B = batch.images
        fake_A, fake_B, *_ = self.fakes(batch, step, bool(self.weights["identity"]))
        fake_A = self.pool_A.query(fake_A, step.draws)
        fake_B = self.pool_B.query(fake_B, step.draws)
        loss_A = self.adversarial.d(*in_one_call(self.d["a"], real_A, fake_A))
        loss_B = self.adversarial.d(*in_one_call(self.d["b"], real_B, fake_B))
        return {"gan": loss_A + loss_B}
