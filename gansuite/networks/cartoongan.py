"""CartoonGAN: Chen et al. 2018, after the authors' code. Weights ~ N(0, .02)."""

from __future__ import annotations

from torch import Tensor, nn

from gansuite.networks.layers import Norm, Upsample, init_normal_, norm_layer
from gansuite.networks.recompute import Chain
from gansuite.networks.resnet import ResnetGenerator
from gansuite.ops.winograd import Conv3x3


class CartoonGenerator(ResnetGenerator):
    """[N, channels, H, W] -> the same, both in [-1, 1]; H, W multiples of 4.

    CycleGAN's, but each halving and each doubling is a convolution of stride 2 and one of stride 1
    with nothing in between, then norm and ReLU. 11,120,195 parameters at width 64 with 8 blocks,
    11,129,667 with the affine norm of the released networks.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 64,
        blocks: int = 8,
        norm: Norm = "instance",
        upsample: Upsample = "deconv",
    ) -> None:
        super().__init__(channels, width, blocks, upsample, norm=norm, refine=True)


class CartoonDiscriminator(nn.Module):
    """[N, channels, H, W] in [-1, 1] -> patch logits [N, 1, H/4, W/4], each of 37 pixels.

    1,128,385 parameters at width 32, 1,129,665 with the affine norm.
    """

    def __init__(self, channels: int = 3, width: int = 32, norm: Norm = "instance") -> None:
        super().__init__()
        w = width
        layers: list[nn.Module] = [nn.Conv2d(channels, w, 3, 1, 1), nn.LeakyReLU(0.2, True)]
        for a in (w, 4 * w):
            b = 2 * w if a == w else 4 * w
            layers += [
                nn.Conv2d(a, b, 3, 2, 1),
                nn.LeakyReLU(0.2, True),
                Conv3x3(b, 2 * b, 1),
            ]
            layers += [norm_layer(norm, 2 * b), nn.LeakyReLU(0.2, True)]
        layers += [
            Conv3x3(8 * w, 8 * w, 1),
            norm_layer(norm, 8 * w),
            nn.LeakyReLU(0.2, True),
        ]
        self.body = Chain(*layers, nn.Conv2d(8 * w, 1, 3, 1, 1))
        init_normal_(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)
