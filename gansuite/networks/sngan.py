"""The two pairs of networks of SNGAN (Miyato et al. 2018), tables 3 and 4, and WGAN-GP's ResNet.

Published for 32 pixels. Other sizes are ours: the first map or the number of blocks grows.
"""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gansuite.networks.layers import (
    NearestUpsample,
    check_multiple,
    halvings,
    init_normal_,
    spectral_norm_,
)
from gansuite.networks.recompute import Block, Chain
from gansuite.ops.winograd import Conv3x3


class SNGANGenerator(nn.Module):
    """The standard CNN: [N, z_dim] -> [N, channels, size, size] in [-1, 1].

    A linear layer to 8 ``width`` maps of size/8, three transposed convolutions with batch norm, a
    3x3 convolution. Weights ~ N(0, .02) as in DCGAN.
    """

    def __init__(self, size: int, channels: int = 3, z_dim: int = 128, width: int = 64) -> None:
        super().__init__()
        check_multiple(size, 8, "The SNGAN network")
        side, w = size // 8, width
        self.z_dim = z_dim
        layers: list[nn.Module] = [nn.Linear(z_dim, 8 * w * side * side)]
        layers += [nn.Unflatten(1, (8 * w, side, side))]
        for a, b in ((8 * w, 4 * w), (4 * w, 2 * w), (2 * w, w)):
            layers += [nn.ConvTranspose2d(a, b, 4, 2, 1), nn.BatchNorm2d(b), nn.ReLU(True)]
        self.body = Chain(*layers, nn.Conv2d(w, channels, 3, 1, 1), nn.Tanh())
        init_normal_(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z)


class SNGANDiscriminator(nn.Module):
    """The standard CNN: [N, channels, size, size] in [-1, 1] -> logits [N].

    Seven convolutions, three of stride 2, leaky ReLU .1, no norm but the spectral one.
    Weights ~ N(0, .02) as in DCGAN.
    """

    def __init__(
        self, size: int, channels: int = 3, width: int = 64, spectral: bool = True
    ) -> None:
        super().__init__()
        check_multiple(size, 8, "The SNGAN network")
        side, w = size // 8, width
        layers: list[nn.Module] = []
        a = channels
        for b in (w, 2 * w, 4 * w):
            layers += [Conv3x3(a, b, 1), nn.LeakyReLU(0.1, True)]
            layers += [nn.Conv2d(b, b, 4, 2, 1), nn.LeakyReLU(0.1, True)]
            a = b
        layers += [Conv3x3(4 * w, 8 * w, 1), nn.LeakyReLU(0.1, True), nn.Flatten()]
        self.body = Chain(*layers, nn.Linear(8 * w * side * side, 1))
        init_normal_(self)
        if spectral:
            spectral_norm_(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).squeeze(1)


def _init_xavier_(module: nn.Module) -> None:
    """Xavier uniform, gain sqrt 2 in residual 3x3 convolutions, 1 elsewhere; biases 0."""
    for name, m in module.named_modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(m.weight, math.sqrt(2) if ".residual." in name else 1.0)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


class UpBlock(Block):
    """Residual block that doubles the sides: [BN ReLU up conv3 BN ReLU conv3] + up(conv1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            NearestUpsample(),
            Conv3x3(channels, channels, 1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            Conv3x3(channels, channels, 1),
        )
        # a 1x1 convolution and nearest enlargement commute: convolve the small map
        self.shortcut = nn.Sequential(nn.Conv2d(channels, channels, 1), NearestUpsample())

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x) + self.shortcut(x)


class DownBlock(Block):
    """Residual block of a critic, without norm; ``halve`` averages 2x2, ``first`` sees pixels."""

    def __init__(self, inputs: int, outputs: int, halve: bool = False, first: bool = False) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Identity() if first else nn.ReLU(),
            Conv3x3(inputs, outputs, 1),
            nn.ReLU(),
            Conv3x3(outputs, outputs, 1),
            nn.AvgPool2d(2) if halve else nn.Identity(),
        )
        # averaging and a 1x1 convolution commute: convolve the small map
        self.shortcut = (
            nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1))
            if halve
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x) + self.shortcut(x)


class SNResnetGenerator(nn.Module):
    """[N, z_dim] -> [N, channels, size, size] in [-1, 1]: log2(size/4) blocks of one ``width``.

    Width 256 is SNGAN's, 128 WGAN-GP's. Nearest enlargement as in the paper.
    """

    def __init__(self, size: int, channels: int = 3, z_dim: int = 128, width: int = 256) -> None:
        super().__init__()
        self.z_dim = z_dim
        blocks = halvings(size, "The SNGAN ResNet", 16) - 2
        self.body = Chain(
            nn.Linear(z_dim, width * 16),
            nn.Unflatten(1, (width, 4, 4)),
            *(UpBlock(width) for _ in range(blocks)),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, channels, 3, 1, 1),
            nn.Tanh(),
        )
        _init_xavier_(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z)


class SNResnetDiscriminator(nn.Module):
    """[N, channels, size, size] in [-1, 1] -> logits [N]: log2(size/8) halving blocks, two plain.

    SNGAN: ``spectral``, ``pool="sum"`` and no ``bias`` of the last layer; WGAN-GP: not
    spectral, ``pool="mean"``, with a bias.
    """

    def __init__(
        self,
        size: int,
        channels: int = 3,
        width: int = 128,
        spectral: bool = True,
        pool: Literal["sum", "mean"] = "sum",
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.pool = pool
        halving = halvings(size, "The SNGAN ResNet", 16) - 3
        self.blocks = Chain(
            DownBlock(channels, width, halve=True, first=True),
            *(DownBlock(width, width, halve=True) for _ in range(halving - 1)),
            DownBlock(width, width),
            DownBlock(width, width),
        )
        self.head = nn.Linear(width, 1, bias=bias)
        _init_xavier_(self)
        if spectral:
            spectral_norm_(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.blocks(x))
        x = x.sum((2, 3)) if self.pool == "sum" else x.mean((2, 3))
        return self.head(x).squeeze(1)
