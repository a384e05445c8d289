"""DCGAN: Radford et al. 2016, with the sizes of the widespread PyTorch version."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from gansuite.networks.layers import (
    InnerConv2d,
    InnerConvTranspose2d,
    Norm,
    halvings,
    init_normal_,
    norm_layer,
    spectral_norm_,
)
from gansuite.networks.recompute import Chain


class DCGANGenerator(nn.Module):
    """[N, z_dim] -> [N, channels, size, size] in [-1, 1], by transposed 4x4 convolutions.

    The paper's z is uniform; the common version's, and ours, is standard normal. ``width`` is the
    width before the last layer; each octave of ``size`` (a power of two from 16 up) adds one layer
    and doubles the first width. Weights ~ N(0, .02).
    """

    def __init__(
        self, size: int, channels: int = 3, z_dim: int = 100, width: int = 64, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        n = halvings(size, "DCGAN", 16) - 2
        widths = [width << i for i in reversed(range(n))]
        bias = norm == "none"
        layers: list[nn.Module] = [nn.ConvTranspose2d(z_dim, widths[0], 4, bias=bias)]
        for a, b in pairwise(widths):
            layers += [
                norm_layer(norm, a),
                nn.ReLU(True),
                InnerConvTranspose2d(a, b, 4, 2, 1, bias=bias),
            ]
        layers += [norm_layer(norm, width), nn.ReLU(True)]
        layers += [nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False), nn.Tanh()]
        self.body = Chain(*layers)
        init_normal_(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z[:, :, None, None])


class DCGANDiscriminator(nn.Module):
    """[N, channels, size, size] in [-1, 1] -> logits [N], by 4x4 convolutions of stride 2.

    The mirror of the generator. ``norm="batch"`` is DCGAN; a gradient penalty wants another one
    (``group`` or ``none``), as batch norm mixes samples. ``spectral`` normalises every layer.
    """

    def __init__(
        self,
        size: int,
        channels: int = 3,
        width: int = 64,
        norm: Norm = "batch",
        spectral: bool = False,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        n = halvings(size, "DCGAN", 16) - 2
        widths = [width << i for i in range(n)]
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1, bias=False)]
        for a, b in pairwise(widths):
            layers += [nn.LeakyReLU(0.2, True), InnerConv2d(a, b, 4, 2, 1, bias=norm == "none")]
            layers += [norm_layer(norm, b)]
        layers += [nn.LeakyReLU(0.2, True), nn.Conv2d(widths[-1], outputs, 4, bias=False)]
        self.body = Chain(*layers)
        init_normal_(self)
        if spectral:
            spectral_norm_(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).flatten(1).squeeze(1)
