"""R3GAN as its authors' code trains it, in float32 and without augmentation (Huang et al. 2024,
arXiv:2501.05441)."""

from __future__ import annotations

import copy
import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .stylegan import low_pass, resample


def conv(a: int, b: int, kernel: int, groups: int = 1, gain: float = 1.0) -> nn.Conv2d:
    made = nn.Conv2d(a, b, kernel, padding=1 if kernel == 3 else 0, groups=groups, bias=False)
    nn.init.normal_(made.weight, 0.0, gain / math.sqrt(made.weight[0].numel()) if gain else 0.0)
    return made


class Active(nn.Module):
    """The bias of the convolution in front of it, and the leaky ReLU."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(c))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias[:, None, None], 0.2)


class Block(nn.Module):
    def __init__(self, c: int, group: int, gain: float) -> None:
        super().__init__()
        wide = 2 * c
        self.body = nn.Sequential(
            conv(c, wide, 1, gain=gain),
            Active(wide),
            conv(wide, wide, 3, wide // group, gain),
            Active(wide),
            conv(wide, c, 1, gain=0.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Resample(nn.Module):
    taps: Tensor

    def __init__(self, up: bool) -> None:
        super().__init__()
        self.up = up
        self.register_buffer("taps", low_pass())

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            return resample(x, self.taps, up=2, pads=(2, 1), gain=4)
        return resample(x, self.taps, down=2, pads=(1, 1))


class Basis(nn.Module):
    def __init__(self, z_dim: int, c: int) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.randn(c, 4, 4))
        self.linear = nn.Linear(z_dim, c, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        return self.basis[None] * self.linear(z)[:, :, None, None]


def networks(widths: list[int], z_dim: int, blocks: int, group: int) -> tuple[nn.Module, nn.Module]:
    gain = math.sqrt(2 / (1 + 0.2**2)) * (blocks * len(widths)) ** -0.25

    def stage(c: int) -> list[nn.Module]:
        return [Block(c, group, gain) for _ in range(blocks)]

    g: list[nn.Module] = [Basis(z_dim, widths[0]), *stage(widths[0])]
    d: list[nn.Module] = [conv(3, widths[-1], 1), *stage(widths[-1])]
    for a, b in itertools.pairwise(widths):
        g += [*([conv(a, b, 1)] if a != b else []), Resample(True), *stage(b)]
    for a, b in itertools.pairwise(widths[::-1]):
        d += [Resample(False), *([conv(a, b, 1)] if a != b else []), *stage(b)]
    c = widths[0]
    d += [conv(c, c, 4, c), nn.Flatten(), nn.Linear(c, 1, bias=False)]
    return nn.Sequential(*g, conv(widths[-1], 3, 1)), nn.Sequential(*d)


class Published:
    """The discriminator with both penalties, then the generator, each with pictures and latents of
    its own and the other player frozen; then the average."""

    period = 1

    def __init__(
        self, size: int, batch: int, width: int = 128, wide_to: int = 32, blocks: int = 2,
        group: int = 16, z_dim: int = 64, gamma: float = 0.05,
    ) -> None:  # fmt: skip
        sides = [4 << i for i in range(size.bit_length() - 2)]
        widths = [width * wide_to // max(side, wide_to) for side in sides]
        self.g, self.d = networks(widths, z_dim, blocks, group)
        self.average = copy.deepcopy(self.g).eval().requires_grad_(False)
        adam = {"lr": 2e-4, "betas": (0.0, 0.9), "eps": 1e-8}
        self.adam_g = torch.optim.Adam(self.g.parameters(), **adam)
        self.adam_d = torch.optim.Adam(self.d.parameters(), **adam)
        self.z_dim, self.gamma = z_dim, gamma
        self.real = torch.rand(2 * batch, 3, size, size) * 2 - 1

    def to(self, device: str) -> None:
        for module in (self.g, self.d, self.average):
            module.to(device)
        self.real = self.real.to(device)

    def penalised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_(True)
        logits = self.d(x)
        (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return logits, slope.square().sum([1, 2, 3])

    def fake(self, n: int) -> Tensor:
        return self.g(torch.randn(n, self.z_dim, device=self.real.device))

    def step(self) -> dict[str, Tensor]:
        first, second = self.real.chunk(2)
        self.g.requires_grad_(False)
        self.d.requires_grad_(True)
        self.adam_d.zero_grad()
        real, r1 = self.penalised(first)
        fake, r2 = self.penalised(self.fake(len(first)))
        loss_d = (F.softplus(fake - real) + self.gamma / 2 * (r1 + r2)[:, None]).mean()
        loss_d.backward()
        self.adam_d.step()

        self.d.requires_grad_(False)
        self.g.requires_grad_(True)
        self.adam_g.zero_grad()
        fake, real = self.d(self.fake(len(second))), self.d(second)
        loss_g = F.softplus(real - fake).mean()
        loss_g.backward()
        self.adam_g.step()
        with torch.no_grad():
            for p, q in zip(self.average.parameters(), self.g.parameters(), strict=True):
                p.lerp_(q, 0.002)
        return {"g": loss_g.detach(), "d": loss_d.detach()}
