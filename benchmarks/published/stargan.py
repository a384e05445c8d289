"""StarGAN as its authors' code trains it (Choi et al. 2018, arXiv:1711.09020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def norm(c: int) -> nn.Module:
    return nn.InstanceNorm2d(c, affine=True, track_running_stats=True)


class Block(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        half = [nn.Conv2d(c, c, 3, 1, 1, bias=False), norm(c), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*half, nn.Conv2d(c, c, 3, 1, 1, bias=False), norm(c))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Generator(nn.Module):
    def __init__(self, width: int, labels: int, blocks: int) -> None:
        super().__init__()
        w = width
        layers = [nn.Conv2d(3 + labels, w, 7, 1, 3, bias=False), norm(w), nn.ReLU(True)]
        for a, b in ((w, 2 * w), (2 * w, 4 * w)):
            layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), norm(b), nn.ReLU(True)]
        layers += [Block(4 * w) for _ in range(blocks)]
        for a, b in ((4 * w, 2 * w), (2 * w, w)):
            layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), norm(b), nn.ReLU(True)]
        self.body = nn.Sequential(*layers, nn.Conv2d(w, 3, 7, 1, 3, bias=False), nn.Tanh())

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        planes = label.view(*label.shape, 1, 1).repeat(1, 1, *x.shape[2:])
        return self.body(torch.cat([x, planes], 1))


class Discriminator(nn.Module):
    def __init__(self, size: int, width: int, labels: int, layers: int) -> None:
        super().__init__()
        c = width
        body: list[nn.Module] = [nn.Conv2d(3, c, 4, 2, 1), nn.LeakyReLU(0.01)]
        for _ in range(layers - 1):
            body += [nn.Conv2d(c, 2 * c, 4, 2, 1), nn.LeakyReLU(0.01)]
            c *= 2
        self.body = nn.Sequential(*body)
        self.source = nn.Conv2d(c, 1, 3, 1, 1, bias=False)
        self.label = nn.Conv2d(c, labels, size >> layers, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(x)
        return self.source(x), self.label(x).view(len(x), -1)


class Published:
    """The discriminator with a gradient penalty in every iteration, on fakes that are made with a
    graph and detached; in every fifth also the generator, on new fakes, through a discriminator
    that is not frozen. Each step empties the gradients of both."""

    period = 5

    def __init__(
        self, size: int, batch: int, width: int = 64, labels: int = 4, blocks: int = 6,
        layers: int = 6,
    ) -> None:  # fmt: skip
        self.g = Generator(width, labels, blocks)
        self.d = Discriminator(size, width, labels, layers)
        self.adam_g = torch.optim.Adam(self.g.parameters(), 1e-4, (0.5, 0.999))
        self.adam_d = torch.optim.Adam(self.d.parameters(), 1e-4, (0.5, 0.999))
        self.real = torch.rand(batch, 3, size, size) * 2 - 1
        self.kind = torch.arange(batch) % labels
        self.label = F.one_hot(self.kind, labels).float()
        self.iteration = 0

    def to(self, device: str) -> None:
        self.g.to(device)
        self.d.to(device)
        self.real, self.kind = self.real.to(device), self.kind.to(device)
        self.label = self.label.to(device)

    def zero_grad(self) -> None:
        self.adam_g.zero_grad()
        self.adam_d.zero_grad()

    def step(self) -> dict[str, Tensor]:
        real = self.real
        order = torch.randperm(len(real))
        target, target_kind = self.label[order], self.kind[order]

        source, label = self.d(real)
        loss = -source.mean() + F.cross_entropy(label, self.kind)
        fake = self.g(real, target)
        loss = loss + self.d(fake.detach())[0].mean()
        alpha = torch.rand(len(real), 1, 1, 1, device=real.device)
        between = (alpha * real + (1 - alpha) * fake).detach().requires_grad_(True)
        loss = loss + 10 * self.penalty(self.d(between)[0], between)
        self.zero_grad()
        loss.backward()
        self.adam_d.step()
        found = {"d": loss.detach()}

        self.iteration += 1
        if self.iteration % 5 == 0:
            fake = self.g(real, target)
            source, label = self.d(fake)
            loss = -source.mean() + F.cross_entropy(label, target_kind)
            loss = loss + 10 * (real - self.g(fake, self.label)).abs().mean()
            self.zero_grad()
            loss.backward()
            self.adam_g.step()
            found["g"] = loss.detach()
        return found

    def penalty(self, y: Tensor, x: Tensor) -> Tensor:
        ones = torch.ones_like(y)
        (slope,) = torch.autograd.grad(y, x, ones, retain_graph=True, create_graph=True)
        length = slope.view(len(slope), -1).pow(2).sum(1).sqrt()
        return (length - 1).pow(2).mean()
