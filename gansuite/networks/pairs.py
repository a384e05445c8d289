"""The pairs of networks for pictures from noise, by name."""

from __future__ import annotations

from typing import Literal

from torch import nn

from gansuite.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from gansuite.networks.layers import Norm
from gansuite.networks.mlp import MLPDiscriminator, MLPGenerator
from gansuite.networks.sngan import (
    SNGANDiscriminator,
    SNGANGenerator,
    SNResnetDiscriminator,
    SNResnetGenerator,
)

Pair = Literal["dcgan", "mlp", "sngan", "resnet"]


def pair(
    name: Pair,
    size: int,
    channels: int,
    z_dim: int,
    width: int,
    d_width: int,
    g_norm: Norm = "batch",
    d_norm: Norm = "batch",
    spectral: bool = False,
    outputs: int = 1,
) -> tuple[nn.Module, nn.Module]:
    """The generator [N, z_dim] -> [N, channels, size, size] and the discriminator of a picture.

    ``resnet`` is SNGAN's with ``spectral`` and WGAN-GP's without, also in its pooling and in the
    bias of its last layer. The norms and ``outputs`` are the DCGAN's.
    """
    if name == "dcgan":
        return (
            DCGANGenerator(size, channels, z_dim, width, g_norm),
            DCGANDiscriminator(size, channels, d_width, d_norm, spectral, outputs),
        )
    if name == "mlp":
        return (
            MLPGenerator(size, channels, z_dim, width),
            MLPDiscriminator(size, channels, d_width),
        )
    if name == "sngan":
        return (
            SNGANGenerator(size, channels, z_dim, width),
            SNGANDiscriminator(size, channels, d_width, spectral),
        )
    pool: Literal["sum", "mean"] = "sum" if spectral else "mean"
    return (
        SNResnetGenerator(size, channels, z_dim, width),
        SNResnetDiscriminator(size, channels, d_width, spectral, pool, bias=not spectral),
    )
