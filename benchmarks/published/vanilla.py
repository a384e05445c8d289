"""DCGAN as the widespread PyTorch example trains it (Radford et al. 2016, arXiv:1511.06434)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def generator(size: int, width: int, latent: int = 100) -> nn.Sequential:
    octaves = size.bit_length() - 4  # doublings between 4x4 and the last layer
    c = width << octaves
    layers: list[nn.Module] = [nn.ConvTranspose2d(latent, c, 4, 1, 0, bias=False)]
    for _ in range(octaves):
        layers += [nn.BatchNorm2d(c), nn.ReLU(True)]
        layers += [nn.ConvTranspose2d(c, c // 2, 4, 2, 1, bias=False)]
        c //= 2
    layers += [nn.BatchNorm2d(c), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(c, 3, 4, 2, 1, bias=False), nn.Tanh())


def discriminator(size: int, width: int) -> nn.Sequential:
    octaves = size.bit_length() - 4
    c = width
    layers: list[nn.Module] = [nn.Conv2d(3, c, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for _ in range(octaves):
        layers += [nn.Conv2d(c, 2 * c, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * c)]
        layers += [nn.LeakyReLU(0.2, True)]
        c *= 2
    return nn.Sequential(*layers, nn.Conv2d(c, 1, 4, 1, 0, bias=False), nn.Sigmoid())


def normal_(module: nn.Module) -> None:
    for m in module.modules():
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(m.weight, 0.0, 0.02)
        elif isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.weight, 1.0, 0.02)


class Published:
    """The discriminator on real pictures and on fakes, a backward pass each, its step; then the
    generator on the same fakes through the new discriminator, which is not frozen."""

    period = 1

    def __init__(self, size: int, batch: int, width: int = 64) -> None:
        self.g, self.d = generator(size, width), discriminator(size, width)
        normal_(self.g)
        normal_(self.d)
        self.adam_g = torch.optim.Adam(self.g.parameters(), lr=2e-4, betas=(0.5, 0.999))
        self.adam_d = torch.optim.Adam(self.d.parameters(), lr=2e-4, betas=(0.5, 0.999))
        self.bce = nn.BCELoss()
        self.real = torch.rand(batch, 3, size, size) * 2 - 1

    def to(self, device: str) -> None:
        self.g.to(device)
        self.d.to(device)
        self.real = self.real.to(device)

    def noise(self) -> Tensor:
        return torch.randn(len(self.real), 100, 1, 1, device=self.real.device)

    def step(self) -> dict[str, Tensor]:
        n, like = len(self.real), {"dtype": self.real.dtype, "device": self.real.device}
        self.d.zero_grad()
        label = torch.full((n,), 1.0, **like)
        of_real = self.bce(self.d(self.real).view(-1), label)
        of_real.backward()
        fake = self.g(self.noise())
        label.fill_(0.0)
        of_fake = self.bce(self.d(fake.detach()).view(-1), label)
        of_fake.backward()
        self.adam_d.step()

        self.g.zero_grad()
        label.fill_(1.0)
        loss_g = self.bce(self.d(fake).view(-1), label)
        loss_g.backward()
        self.adam_g.step()
        return {"g": loss_g.detach(), "d": (of_real + of_fake).detach()}
