"""CUT as its authors' code trains it (Park et al. 2020, arXiv:2007.15651)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cyclegan import Block


class Blur(nn.Module):
    """Down: reflected borders, [1, 2, 1], every second pixel. Up: repeated borders, zeros between
    the pixels, [1, 3, 3, 1]."""

    taps: Tensor

    def __init__(self, c: int, up: bool) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0] if up else [1.0, 2.0, 1.0])
        taps = taps.outer(taps) / taps.sum() ** 2 * (4 if up else 1)
        self.up, self.c = up, c
        self.pad = nn.ReplicationPad2d(1) if up else nn.ReflectionPad2d(1)
        self.register_buffer("taps", taps.repeat(c, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            x = F.conv_transpose2d(self.pad(x), self.taps, stride=2, padding=2, groups=self.c)
            return x[:, :, 1:-1, 1:-1]
        return F.conv2d(self.pad(x), self.taps, stride=2, groups=self.c)


class Generator(nn.Module):
    """``maps``: the layers whose outputs are compared."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()

        def norm(c: int) -> list[nn.Module]:
            return [nn.InstanceNorm2d(c), nn.ReLU(True)]

        w = width
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, w, 7), *norm(w)]
        layers += [nn.Conv2d(w, 2 * w, 3, 1, 1), *norm(2 * w), Blur(2 * w, False)]
        layers += [nn.Conv2d(2 * w, 4 * w, 3, 1, 1), *norm(4 * w), Blur(4 * w, False)]
        layers += [Block(4 * w) for _ in range(blocks)]
        for a, b in ((4 * w, 2 * w), (2 * w, w)):
            layers += [Blur(a, True), nn.Conv2d(a, b, 3, 1, 1), *norm(b)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(w, 3, 7), nn.Tanh()]
        self.layers, self.maps = nn.ModuleList(layers), (0, 4, 8, 12, 16)
        self.channels = (3, 2 * w, 4 * w, 4 * w, 4 * w)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    def encoded(self, x: Tensor) -> list[Tensor]:
        found = []
        for i, layer in enumerate(self.layers[: self.maps[-1] + 1]):
            x = layer(x)
            if i in self.maps:
                found.append(x.clone())  # the activation behind it works in place
        return found


def discriminator(width: int) -> nn.Sequential:
    w = width
    layers: list[nn.Module] = [nn.Conv2d(3, w, 4, 1, 1), nn.LeakyReLU(0.2, True), Blur(w, False)]
    for a, b in ((w, 2 * w), (2 * w, 4 * w)):
        layers += [nn.Conv2d(a, b, 4, 1, 1), nn.InstanceNorm2d(b), nn.LeakyReLU(0.2, True)]
        layers += [Blur(b, False)]
    layers += [nn.Conv2d(4 * w, 8 * w, 4, 1, 1), nn.InstanceNorm2d(8 * w)]
    return nn.Sequential(*layers, nn.LeakyReLU(0.2, True), nn.Conv2d(8 * w, 1, 4, 1, 1))


class Published:
    """Both pictures through the generator at once; the discriminator; then generator and heads
    together, with the discriminator frozen and the maps of the real pictures made with a graph."""

    period = 1

    def __init__(self, size: int, batch: int, width: int = 64, blocks: int = 9) -> None:
        self.generator, self.d = Generator(width, blocks), discriminator(width)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(c, 256), nn.ReLU(), nn.Linear(256, 256))
            for c in self.generator.channels
        )
        self.g = nn.ModuleList([self.generator, self.heads])
        for m in (*self.g.modules(), *self.d.modules()):
            if isinstance(m, nn.Conv2d | nn.Linear):
                nn.init.xavier_normal_(m.weight, 0.02)
                nn.init.zeros_(m.bias)
        adam = {"lr": 2e-4, "betas": (0.5, 0.999)}
        self.adam_g = torch.optim.Adam(self.generator.parameters(), **adam)
        self.adam_f = torch.optim.Adam(self.heads.parameters(), **adam)
        self.adam_d = torch.optim.Adam(self.d.parameters(), **adam)
        self.mse = nn.MSELoss()
        self.one, self.zero = torch.tensor(1.0), torch.tensor(0.0)
        self.a, self.b = torch.rand(2, batch, 3, size, size) * 2 - 1

    def to(self, device: str) -> None:
        self.g.to(device)
        self.d.to(device)
        self.one, self.zero = self.one.to(device), self.zero.to(device)
        self.a, self.b = self.a.to(device), self.b.to(device)

    def gan(self, logits: Tensor, real: bool) -> Tensor:
        label = self.one if real else self.zero
        return self.mse(logits, label.expand_as(logits))

    def step(self) -> dict[str, Tensor]:
        a, b = self.a, self.b
        fake_b, same_b = self.generator(torch.cat([a, b])).chunk(2)
        self.d.requires_grad_(True)
        self.adam_d.zero_grad()
        of_fake = self.gan(self.d(fake_b.detach()), False)
        of_real = self.gan(self.d(b), True)
        loss_d = (of_fake + of_real) * 0.5
        loss_d.backward()
        self.adam_d.step()

        self.d.requires_grad_(False)
        self.adam_g.zero_grad()
        self.adam_f.zero_grad()
        loss_g = self.gan(self.d(fake_b), True)
        loss_g = loss_g + (self.nce(a, fake_b) + self.nce(b, same_b)) * 0.5
        loss_g.backward()
        self.adam_g.step()
        self.adam_f.step()
        return {"g": loss_g.detach(), "d": loss_d.detach()}

    def nce(self, real: Tensor, made: Tensor) -> Tensor:
        queries, keys = self.generator.encoded(made), self.generator.encoded(real)
        total = torch.zeros((), device=real.device)
        for head, q, k in zip(self.heads, queries, keys, strict=True):
            places = torch.randperm(q.shape[2] * q.shape[3], device=real.device)[:256]
            k, q = (self.picked(head, each, places) for each in (k, q))
            total = total + self.found(q, k.detach()).mean()
        return total / len(self.heads)

    def picked(self, head: nn.Module, x: Tensor, places: Tensor) -> Tensor:
        x = head(x.permute(0, 2, 3, 1).flatten(1, 2)[:, places].flatten(0, 1))
        return x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-7)

    def found(self, q: Tensor, k: Tensor) -> Tensor:
        """Of the places of a picture, the own one against the others."""
        own = (q * k).sum(1, keepdim=True)
        q, k = (x.view(len(self.a), -1, x.shape[1]) for x in (q, k))
        others = torch.bmm(q, k.transpose(1, 2))
        same = torch.eye(q.shape[1], device=q.device, dtype=torch.bool)
        others = others.masked_fill(same, -10.0).flatten(0, 1)
        logits = torch.cat([own, others], 1) / 0.07
        target = torch.zeros(len(logits), dtype=torch.long, device=q.device)
        return F.cross_entropy(logits, target, reduction="none")
