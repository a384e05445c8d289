"""CartoonGAN (Chen et al. 2018, "CartoonGAN: Generative Adversarial Networks for Photo
Cartoonization", CVPR)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from gansuite.config import Optim
from gansuite.data.spec import Batch, DataSpec, Needs
from gansuite.errors import UserError
from gansuite.losses.adversarial import adversarial
from gansuite.losses.perceptual import perceptual_network
from gansuite.losses.reconstruction import l1
from gansuite.methods._one_way import OneWay
from gansuite.methods.base import Step, terms
from gansuite.networks.cartoongan import CartoonDiscriminator, CartoonGenerator
from gansuite.networks.layers import in_one_call
from gansuite.networks.pool import ImagePool


class CartoonGAN(OneWay):
    """Photographs, the first domain, become cartoons, the second.

    The discriminator also sees cartoons with smoothed edges, so that a cartoon without clear edges
    does not pass for one. It minimises (section 3.2, eqs. 3, 4)

        gan      the adversarial loss of real cartoons and of G(p), from a history of 50
        edge     that of the smoothed cartoons, as fakes

    the generator

        gan      (D(G(p)) - 1)^2, patches; with ``loss: bce`` softplus(-D(G(p)))
        content  |phi(G(p)) - phi(p)|, phi: conv4_4 of VGG-19 before its ReLU

    In the first ``init`` batches only ``content`` is trained, at the rate ``init_lr`` if there is
    one, and D stays as it is (section 3.3).

    ``network``: phi, ``random_vgg``, seeded, of ``network_width``, as is a ``classifier`` of the
    two domains, trained once per data set; or ``vgg19`` from ``network_file``; ``content`` carries
    its name.

    Follows the authors' code in the squared error (its option for the paper's log loss has no
    effect) and in the order D, G. Known deviations: the fakes are judged anew for G's update, by
    the discriminator just updated (the code reuses what D had computed of older fakes); instance
    norm has no affine parameters unless ``norm: instance_affine`` (the released networks); D's
    squared errors are halved; phi sees pictures at their own size (the code: 224); edges are
    found and blurred at the training size, 5 pixels wide from 128 pixels on, 3 below.
    """

    loss_terms = {"g": ("content", "gan"), "d": ("gan", "edge")}
    needs = Needs(view="unpaired", domains=2, smoothed=True)

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: int = 64,
        blocks: int = 8,
        d_width: int = 32,
        norm: Literal["instance", "instance_affine"] = "instance",
        upsample: Literal["deconv", "resize_conv"] = "deconv",
        network: Literal["random_vgg", "classifier", "vgg19"] = "random_vgg",
        network_file: str = "",
        network_seed: int = 0,
        network_width: int = 64,
        layer: str = "conv4_4",
        init: int = 1000,
        init_lr: float | None = None,
        pool: int = 50,
        loss: Literal["lsgan", "bce"] = "lsgan",
        weights: Mapping[str, float] = terms(gan=1.0, edge=1.0, content=10.0),
    ) -> None:
        super().__init__(spec, weights, "ab")
        if init < 0:
            raise UserError(f"'method.init' is {init}, it must be 0 or more batches.")
        self.g = CartoonGenerator(spec.channels, width, blocks, norm, upsample)
        self.d = CartoonDiscriminator(spec.channels, d_width, norm)
        self.phi = perceptual_network(
            network,
            layer,
            width=network_width,
            channels=spec.channels,
            seed=network_seed,
            file=network_file,
            key="method.network_width",
        )
        self.layer, self.content = layer, f"content/{network}"
        self.init, self.init_lr = init, init_lr
        self.stride = self.g.stride
        self.adversarial = adversarial("nonsaturating" if loss == "bce" else loss)
        self.pool = ImagePool(pool)
        self.rank_state = {"pool": self.pool}
        self.alternation = (("d", "g"),)

    def updates_in(self, batch: int) -> Sequence[str]:
        return ("g",) if batch < self.init else super().updates_in(batch)

    @property
    def period(self) -> int:
        return self.init + 1  # the first batch with every term

    def optim_now(self, player: str) -> Optim:
        now, first = super().optim_now(player), self.batches < self.init
        return now.model_copy(update={"lr": self.init_lr}) if first and self.init_lr else now

    def d_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        photo, cartoon, smoothed = batch.images
        fake = self.pool.query(step.fake("fake", lambda: self.g(photo)), step.draws)
        edges = [smoothed] if self.weights["edge"] else []
        real_logits, fake_logits, *edge_logits = in_one_call(self.d, cartoon, fake, *edges)
        losses = {"gan": self.adversarial.d(real_logits, fake_logits)}
        if edge_logits:
            losses["edge"] = self.adversarial.d_fake(edge_logits[0])
        return losses

    def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        photo = batch.images[0]
        fake = step.fake("fake", lambda: self.g(photo))
        losses = {}
        if self.weights["content"]:
            with torch.no_grad():
                (wanted,) = self.phi(photo, [self.layer])
            losses[self.content] = l1(self.phi(fake, [self.layer])[0], wanted)
        if "d" in step.updates:
            losses["gan"] = self.adversarial.g(self.d(fake))
        return losses
