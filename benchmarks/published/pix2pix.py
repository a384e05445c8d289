"""pix2pix as its PyTorch code trains it (Isola et al. 2017, arXiv:1611.07004)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from .cyclegan import normal_


class UNet(nn.Module):
    """Each level wraps the next one: down, what lies below, up, joined with its input."""

    def __init__(self, widths: list[int], level: int = 0) -> None:
        super().__init__()
        c, above = widths[level], widths[level - 1] if level else 3
        innermost = level == len(widths) - 1
        down: list[nn.Module] = [nn.LeakyReLU(0.2, True)] if level else []
        down += [nn.Conv2d(above, c, 4, 2, 1, bias=False)]
        up: list[nn.Module] = [nn.ReLU(True)]
        inputs = c if innermost else 2 * c
        up += [nn.ConvTranspose2d(inputs, above, 4, 2, 1, bias=not level)]
        up += [nn.BatchNorm2d(above)] if level else [nn.Tanh()]
        if innermost:
            below = []
        else:
            below = [UNet(widths, level + 1)]
            if level:
                down.append(nn.BatchNorm2d(c))
            if level >= 4:
                up.append(nn.Dropout(0.5))
        self.body, self.joined = nn.Sequential(*down, *below, *up), level > 0

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1) if self.joined else self.body(x)


def discriminator(width: int) -> nn.Sequential:
    w = [width, 2 * width, 4 * width, 8 * width]
    layers: list[nn.Module] = [nn.Conv2d(6, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for (a, b), stride in zip(itertools.pairwise(w), (2, 2, 1), strict=True):
        layers += [nn.Conv2d(a, b, 4, stride, 1, bias=False), nn.BatchNorm2d(b)]
        layers += [nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(w[-1], 1, 4, 1, 1))


class Published:
    """The fake; the discriminator with one backward pass for both; the generator, with the
    discriminator frozen."""

    period = 1

    def __init__(self, size: int, batch: int, width: int = 64) -> None:
        widths = [width * min(1 << i, 8) for i in range(min(8, size.bit_length() - 1))]
        self.g, self.d = UNet(widths), discriminator(width)
        normal_(self.g)
        normal_(self.d)
        adam = {"lr": 2e-4, "betas": (0.5, 0.999)}
        self.adam_g = torch.optim.Adam(self.g.parameters(), **adam)
        self.adam_d = torch.optim.Adam(self.d.parameters(), **adam)
        self.bce, self.l1 = nn.BCEWithLogitsLoss(), nn.L1Loss()
        self.one, self.zero = torch.tensor(1.0), torch.tensor(0.0)
        self.a, self.b = torch.rand(2, batch, 3, size, size) * 2 - 1

    def to(self, device: str) -> None:
        self.g.to(device)
        self.d.to(device)
        self.one, self.zero = self.one.to(device), self.zero.to(device)
        self.a, self.b = self.a.to(device), self.b.to(device)

    def gan(self, logits: Tensor, real: bool) -> Tensor:
        label = self.one if real else self.zero
        return self.bce(logits, label.expand_as(logits))

    def step(self) -> dict[str, Tensor]:
        a, b = self.a, self.b
        fake = self.g(a)
        self.d.requires_grad_(True)
        self.adam_d.zero_grad()
        of_fake = self.gan(self.d(torch.cat([a, fake], 1).detach()), False)
        of_real = self.gan(self.d(torch.cat([a, b], 1)), True)
        loss_d = (of_fake + of_real) * 0.5
        loss_d.backward()
        self.adam_d.step()

        self.d.requires_grad_(False)
        self.adam_g.zero_grad()
        loss_g = self.gan(self.d(torch.cat([a, fake], 1)), True) + self.l1(fake, b) * 100
        loss_g.backward()
        self.adam_g.step()
        return {"g": loss_g.detach(), "d": loss_d.detach()}
