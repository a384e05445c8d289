"""DualGAN as its authors' TensorFlow code trains it (Yi et al. 2017, arXiv:1704.02510), with
PyTorch's layers and RMSprop."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Down(nn.Module):
    """TensorFlow's SAME convolution of stride 2."""

    def __init__(self, a: int, b: int, kernel: int) -> None:
        super().__init__()
        before = (kernel - 2) // 2
        self.pad = (before, before + 1, before, before + 1)
        self.conv = nn.Conv2d(a, b, kernel, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.pad))


class Up(nn.Module):
    def __init__(self, a: int, b: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(a, b, kernel, 2, (kernel - 2) // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[..., : 2 * x.shape[2], : 2 * x.shape[3]]


class Norm(nn.Module):
    """Moments over the picture; a map of one pixel becomes the centre."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] == (1, 1):
            return (x - x) * self.weight[:, None, None] + self.bias[:, None, None]
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=1e-6)


class Generator(nn.Module):
    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        n = size.bit_length() - 1
        w = [width * min(1 << i, 8) for i in range(n)]
        self.downs = nn.ModuleList([Down(3, w[0], 5)])
        for a, b in itertools.pairwise(w):
            self.downs.append(nn.Sequential(nn.LeakyReLU(0.2), Down(a, b, 3), Norm(b)))
        self.ups = nn.ModuleList()
        for i in range(n - 1, 0, -1):
            a = w[i] if i == n - 1 else 2 * w[i]
            self.ups.append(nn.Sequential(nn.ReLU(), Up(a, w[i - 1], 3), Norm(w[i - 1])))
        self.ups.append(nn.Sequential(nn.ReLU(), Up(2 * w[0], 3, 5), nn.Tanh()))

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for down in self.downs:
            x = down(x)
            maps.append(x)
        x = self.ups[0](maps.pop())
        for up in self.ups[1:]:
            x = up(torch.cat([maps.pop(), x], 1))
        return x


def critic(size: int, width: int) -> nn.Sequential:
    n = min(5, size.bit_length() - 3)
    w = [width * min(1 << i, 8) for i in range(n)]
    layers: list[nn.Module] = [Down(3, w[0], 5), nn.LeakyReLU(0.2)]
    for a, b in itertools.pairwise(w):
        layers += [Down(a, b, 3), Norm(b), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(w[-1] * (size >> n) ** 2, 1))


class Published:
    """Both critics with a gradient penalty, then both generators, on the same batch; each is a
    run of the graph of its own, in which the fakes are made anew."""

    period = 1

    def __init__(self, size: int, batch: int, width: int = 64) -> None:
        self.g = nn.ModuleDict({k: Generator(size, width) for k in ("ab", "ba")})
        self.d = nn.ModuleDict({k: critic(size, width) for k in ("a", "b")})
        for name, p in [*self.g.named_parameters(), *self.d.named_parameters()]:
            if p.ndim > 1:
                nn.init.normal_(p, 0.0, 0.02)
            elif name.endswith("conv.bias"):
                nn.init.zeros_(p)
        rms = {"lr": 5e-5, "alpha": 0.9}
        self.rms_g = torch.optim.RMSprop(self.g.parameters(), **rms)
        self.rms_d = torch.optim.RMSprop(self.d.parameters(), **rms)
        self.a, self.b = torch.rand(2, batch, 3, size, size) * 2 - 1

    def to(self, device: str) -> None:
        self.g.to(device)
        self.d.to(device)
        self.a, self.b = self.a.to(device), self.b.to(device)

    def step(self) -> dict[str, Tensor]:
        a, b = self.a, self.b
        with torch.no_grad():  # a session computes no gradient that it is not asked for
            fake_b, fake_a = self.g["ab"](a), self.g["ba"](b)
        loss_d = self.wasserstein(self.d["b"], b, fake_b)
        loss_d = loss_d + self.wasserstein(self.d["a"], a, fake_a)
        self.rms_d.zero_grad()
        loss_d.backward()
        self.rms_d.step()

        self.d.requires_grad_(False)
        fake_b, fake_a = self.g["ab"](a), self.g["ba"](b)
        rec_a, rec_b = self.g["ba"](fake_b), self.g["ab"](fake_a)
        loss_g = -self.d["b"](fake_b).mean() - self.d["a"](fake_a).mean()
        loss_g = loss_g + 500 * ((a - rec_a).abs().mean() + (b - rec_b).abs().mean())
        self.rms_g.zero_grad()
        loss_g.backward()
        self.rms_g.step()
        self.d.requires_grad_(True)
        return {"g": loss_g.detach(), "d": loss_d.detach()}

    def wasserstein(self, d: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        alpha = torch.rand(len(real), 1, 1, 1, device=real.device)
        between = (real + alpha * (fake - real)).requires_grad_(True)
        (slope,) = torch.autograd.grad(d(between).sum(), between, create_graph=True)
        length = (slope.flatten(1).square().sum(1) + 1e-8).sqrt()
        return d(fake).mean() - d(real).mean() + 10 * (length - 1).square().mean()
