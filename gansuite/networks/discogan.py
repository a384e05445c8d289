"""DiscoGAN: Kim et al. 2017, after the authors' code. Torch's default initialisation, as there.

Pictures come and go in [-1, 1]; inside, the networks see [0, 1] as published, and they must. Their
layers have no biases and the discriminator's batch norm sees real and fake pictures apart, so it
judges c x exactly as x. On [0, 1] that is blindness to a batch's brightness; on [-1, 1] it would
be blindness to its contrast, and the generator's pictures fade to grey.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from gansuite.networks.layers import (
    InnerConv2d,
    Upsample,
    check_multiple,
    upsampling,
)
from gansuite.networks.recompute import Chain


class DiscoGANGenerator(nn.Module):
    """[N, channels, H, W] -> [N, out_channels, H, W], both in [-1, 1]; H, W multiples of 16.

    Four halvings to 8 ``width`` maps, four doublings, no biases, and a sigmoid. ``extra`` adds the
    100-channel bottleneck of the authors' angle experiments, a 4x4 convolution, which needs H, W
    of 64 or more.
    """

    stride = 16

    def __init__(
        self,
        channels: int = 3,
        width: int = 64,
        upsample: Upsample = "deconv",
        out_channels: int | None = None,
        extra: bool = False,
    ) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1, bias=False)]
        layers += [nn.LeakyReLU(0.2, True)]
        for a, b in pairwise(widths):
            layers += [
                InnerConv2d(a, b, 4, 2, 1, bias=False),
                nn.BatchNorm2d(b),
                nn.LeakyReLU(0.2, True),
            ]
        if extra:
            layers += [nn.Conv2d(widths[-1], 100, 4, bias=False), nn.BatchNorm2d(100)]
            layers += [nn.LeakyReLU(0.2, True), nn.ConvTranspose2d(100, widths[-1], 4, bias=False)]
            layers += [nn.BatchNorm2d(widths[-1]), nn.ReLU(True)]
        for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True):
            layers += [upsampling(a, b, upsample), nn.BatchNorm2d(b), nn.ReLU(True)]
        self.body = Chain(*layers, upsampling(width, out_channels or channels, upsample))

    def forward(self, x: Tensor) -> Tensor:
        return (self.body((x + 1) / 2) / 2).tanh()  # 2 sigmoid(y) - 1


class DiscoGANDiscriminator(nn.Module):
    """[N, channels, size, size] in [-1, 1] -> (logits [N], the maps after layers 2, 3 and 4).

    The last convolution covers the whole map of size/16, which is the published 4x4 at 64.
    """

    def __init__(self, size: int, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        check_multiple(size, 16, "DiscoGAN")
        self.first = Chain(nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True))
        self.layers = nn.ModuleList(
            Chain(
                InnerConv2d(width << i, width << i + 1, 4, 2, 1, bias=False),
                nn.BatchNorm2d(width << i + 1),
                nn.LeakyReLU(0.2, True),
            )
            for i in range(3)
        )
        self.last = nn.Conv2d(8 * width, 1, size // 16, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.first((x + 1) / 2)
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return self.last(x).flatten(1).squeeze(1), features
