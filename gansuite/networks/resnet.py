"""The generator of CycleGAN: Zhu et al. 2017, after Johnson et al. 2016."""

from __future__ import annotations

from torch import Tensor, nn

from gansuite.networks.layers import (
    Norm,
    ReflectionPad2d,
    ResidualBlock,
    Upsample,
    init_normal_,
    norm_layer,
    upsampling,
)


class ResnetGenerator(nn.Module):
    """[N, channels, H, W] -> [N, out_channels, H, W], both in [-1, 1]; H, W multiples of 4.

    9 blocks for 256, 6 for 128. Reflection padding around the stride-1
    convolutions, zero padding in those of stride 2, biases everywhere although instance norm
    removes them, no dropout: as in the authors' PyTorch code. Weights ~ N(0, .02).
    """

    stride = 4

    def __init__(
        self,
        channels: int = 3,
        width: int = 64,
        blocks: int = 9,
        upsample: Upsample = "deconv",
        out_channels: int | None = None,
        norm: Norm = "instance",
    ) -> None:
        super().__init__()
        w = width
        layers: list[nn.Module] = [ReflectionPad2d(3), nn.Conv2d(channels, w, 7)]
        layers += [norm_layer(norm, w), nn.ReLU()]
        for a, b in ((w, 2 * w), (2 * w, 4 * w)):
            layers += [nn.Conv2d(a, b, 3, 2, 1), norm_layer(norm, b), nn.ReLU()]
        layers += [ResidualBlock(4 * w, norm, reflect=True, bias=True) for _ in range(blocks)]
        for a, b in ((4 * w, 2 * w), (2 * w, w)):
            layers += [upsampling(a, b, upsample, kernel=3, bias=True), norm_layer(norm, b)]
            layers += [nn.ReLU()]
        layers += [ReflectionPad2d(3), nn.Conv2d(w, out_channels or channels, 7), nn.Tanh()]
        self.body = nn.Sequential(*layers)
        init_normal_(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)
