"""The fully connected networks of Goodfellow et al. 2014, as their code has them for MNIST."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _init_uniform_(module: nn.Module, bound: float) -> None:
    for m in module.modules():
        if isinstance(m, nn.Linear):
            nn.init.uniform_(m.weight, -bound, bound)
            nn.init.zeros_(m.bias)


class MLPGenerator(nn.Module):
    """[N, z_dim] -> [N, channels, size, size] in [-1, 1]; two hidden ReLU layers of ``width``.

    z is meant to be uniform. Two deviations: tanh for the sigmoid, as pictures are [-1, 1] here,
    and an output bias of 0 instead of the data's marginals. Weights ~ U(-.05, .05).
    """

    def __init__(self, size: int, channels: int = 1, z_dim: int = 100, width: int = 1200) -> None:
        super().__init__()
        self.z_dim, self.shape = z_dim, (channels, size, size)
        self.body = nn.Sequential(
            nn.Linear(z_dim, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, channels * size * size),
            nn.Tanh(),
        )
        _init_uniform_(self, 0.05)

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z).unflatten(1, self.shape)


class Maxout(nn.Module):
    """[N, inputs] -> [N, outputs]: the largest of ``pieces`` linear maps (Goodfellow 2013)."""

    def __init__(self, inputs: int, outputs: int, pieces: int = 5) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = nn.Linear(inputs, outputs * pieces)

    def forward(self, x: Tensor) -> Tensor:
        return torch.amax(self.linear(x).unflatten(1, (-1, self.pieces)), 2)


class MLPDiscriminator(nn.Module):
    """[N, channels, size, size] in [-1, 1] -> logits [N]; two maxout layers of ``width`` x 5.

    Inside, pixels are [0, 1] as published, so that a dropped one is black. Dropout .2 on them and
    .5 on the hidden layers while training. Weights ~ U(-.005, .005).
    """

    def __init__(self, size: int, channels: int = 1, width: int = 240) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(0.2),
            Maxout(channels * size * size, width),
            nn.Dropout(0.5),
            Maxout(width, width),
            nn.Dropout(0.5),
            nn.Linear(width, 1),
        )
        _init_uniform_(self, 0.005)

    def forward(self, x: Tensor) -> Tensor:
        return self.body((x + 1) / 2).squeeze(1)
