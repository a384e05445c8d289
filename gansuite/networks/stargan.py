"""StarGAN: Choi et al. 2018, after the authors' code. Torch's default initialisation, as there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gansuite.networks.layers import (
    InnerConv2d,
    Norm,
    ResidualBlock,
    ThinConv2d,
    Upsample,
    check_multiple,
    norm_layer,
    upsampling,
)
from gansuite.networks.recompute import Chain


class StarGANGenerator(nn.Module):
    """(x [N, channels, H, W], label [N, labels]) -> [N, channels, H, W]; H, W multiples of 4.

    Pictures in [-1, 1]. The label is spread over constant planes. They reach the output only
    through the borders that zero padding makes and through the norm's parameters, so the padding
    must not be a reflection. One deviation: the authors' norm also tracks running statistics,
    which their code never uses; without them eval mode equals train mode.
    """

    stride = 4
    norm: Norm = "instance_affine"

    def __init__(
        self,
        labels: int,
        channels: int = 3,
        width: int = 64,
        blocks: int = 6,
        upsample: Upsample = "deconv",
    ) -> None:
        super().__init__()
        w, norm = width, self.norm
        layers: list[nn.Module] = [nn.Conv2d(channels + labels, w, 7, 1, 3, bias=False)]
        layers += [norm_layer(norm, w), nn.ReLU(True)]
        for a, b in ((w, 2 * w), (2 * w, 4 * w)):
            layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), norm_layer(norm, b), nn.ReLU(True)]
        layers += [ResidualBlock(4 * w, norm, reflect=False, bias=False) for _ in range(blocks)]
        for a, b in ((4 * w, 2 * w), (2 * w, w)):
            layers += [upsampling(a, b, upsample), norm_layer(norm, b), nn.ReLU(True)]
        last = ThinConv2d(w, channels, 7, padding=3, bias=False)
        self.body = Chain(*layers, last, nn.Tanh())

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        planes = label.to(x)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return self.body(torch.cat([x, planes], 1))


class StarGANDiscriminator(nn.Module):
    """[N, channels, size, size] -> (patch logits [N, 1, h, h], label logits [N, labels]).

    Pictures in [-1, 1]; ``layers`` halvings, h = size / 2^layers; leaky ReLU .01, no norm.
    With the published six, a "patch" is wider than a picture of 128.
    """

    def __init__(
        self, size: int, labels: int, channels: int = 3, width: int = 64, layers: int = 6
    ) -> None:
        super().__init__()
        check_multiple(size, 2**layers, f"StarGAN's discriminator with {layers} layers")
        body: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.01)]
        for i in range(layers - 1):
            body += [InnerConv2d(width << i, width << i + 1, 4, 2, 1), nn.LeakyReLU(0.01)]
        self.body = Chain(*body)
        last = width << layers - 1
        self.adv_head = nn.Conv2d(last, 1, 3, 1, 1, bias=False)
        self.cls_head = nn.Conv2d(last, labels, size >> layers, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(x)
        return self.adv_head(x), self.cls_head(x).flatten(1)
