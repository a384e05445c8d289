"""CycleGAN as its PyTorch code trains it (Zhu et al. 2017, arXiv:1703.10593)."""

from __future__ import annotations

import itertools
import random

import torch
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        half = [nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c)]
        other = [nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c)]
        self.body = nn.Sequential(*half, nn.ReLU(True), *other)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def generator(width: int, blocks: int) -> nn.Sequential:
    def norm(c: int) -> list[nn.Module]:
        return [nn.InstanceNorm2d(c), nn.ReLU(True)]

    w = width
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, w, 7), *norm(w)]
    layers += [nn.Conv2d(w, 2 * w, 3, 2, 1), *norm(2 * w)]
    layers += [nn.Conv2d(2 * w, 4 * w, 3, 2, 1), *norm(4 * w)]
    layers += [Block(4 * w) for _ in range(blocks)]
    layers += [nn.ConvTranspose2d(4 * w, 2 * w, 3, 2, 1, 1), *norm(2 * w)]
    layers += [nn.ConvTranspose2d(2 * w, w, 3, 2, 1, 1), *norm(w)]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(w, 3, 7), nn.Tanh())


def discriminator(width: int, channels: int = 3) -> nn.Sequential:
    w = width
    layers: list[nn.Module] = [nn.Conv2d(channels, w, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for a, b, stride in ((w, 2 * w, 2), (2 * w, 4 * w, 2), (4 * w, 8 * w, 1)):
        layers += [nn.Conv2d(a, b, 4, stride, 1), nn.InstanceNorm2d(b), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(8 * w, 1, 4, 1, 1))


def normal_(module: nn.Module) -> None:
    for m in module.modules():
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(m.weight, 0.0, 0.02)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.weight, 1.0, 0.02)


class ImagePool:
    """The last 50 fakes: half of the time one of them in place of the new one."""

    def __init__(self, size: int = 50) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def query(self, images: Tensor) -> Tensor:
        out = []
        for image in images.detach().split(1):
            if len(self.images) < self.size:
                self.images.append(image)
                out.append(image)
            elif random.random() > 0.5:
                i = random.randrange(self.size)
                out.append(self.images[i].clone())
                self.images[i] = image
            else:
                out.append(image)
        return torch.cat(out, 0)


class Published:
    """All forward passes, then both generators in one step with the discriminators frozen, then
    both discriminators with a backward pass each and one step."""

    period = 1

    def __init__(self, size: int, batch: int, width: int = 64, blocks: int = 9) -> None:
        self.g = nn.ModuleDict({k: generator(width, blocks) for k in ("ab", "ba")})
        self.d = nn.ModuleDict({k: discriminator(width) for k in ("a", "b")})
        normal_(self.g)
        normal_(self.d)
        adam = {"lr": 2e-4, "betas": (0.5, 0.999)}
        g, d = self.g.values(), self.d.values()
        self.adam_g = torch.optim.Adam(itertools.chain(*(m.parameters() for m in g)), **adam)
        self.adam_d = torch.optim.Adam(itertools.chain(*(m.parameters() for m in d)), **adam)
        self.pool_a, self.pool_b = ImagePool(), ImagePool()
        self.mse, self.l1 = nn.MSELoss(), nn.L1Loss()
        self.one, self.zero = torch.tensor(1.0), torch.tensor(0.0)
        self.real_a, self.real_b = torch.rand(2, batch, 3, size, size) * 2 - 1

    def to(self, device: str) -> None:
        self.g.to(device)
        self.d.to(device)
        self.one, self.zero = self.one.to(device), self.zero.to(device)
        self.real_a, self.real_b = self.real_a.to(device), self.real_b.to(device)

    def gan(self, logits: Tensor, real: bool) -> Tensor:
        label = self.one if real else self.zero
        return self.mse(logits, label.expand_as(logits))

    def step(self) -> dict[str, Tensor]:
        a, b = self.real_a, self.real_b
        fake_b = self.g["ab"](a)
        rec_a = self.g["ba"](fake_b)
        fake_a = self.g["ba"](b)
        rec_b = self.g["ab"](fake_a)

        self.d.requires_grad_(False)
        self.adam_g.zero_grad()
        identity_b = self.l1(self.g["ab"](b), b) * 10 * 0.5
        identity_a = self.l1(self.g["ba"](a), a) * 10 * 0.5
        gan_b = self.gan(self.d["b"](fake_b), True)
        gan_a = self.gan(self.d["a"](fake_a), True)
        cycle_a = self.l1(rec_a, a) * 10
        cycle_b = self.l1(rec_b, b) * 10
        loss_g = gan_b + gan_a + cycle_a + cycle_b + identity_b + identity_a
        loss_g.backward()
        self.adam_g.step()

        self.d.requires_grad_(True)
        self.adam_d.zero_grad()
        loss_b = self.judge(self.d["b"], b, self.pool_b.query(fake_b))
        loss_a = self.judge(self.d["a"], a, self.pool_a.query(fake_a))
        self.adam_d.step()
        return {"g": loss_g.detach(), "d": (loss_a + loss_b).detach()}

    def judge(self, d: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        of_real = self.gan(d(real), True)
        of_fake = self.gan(d(fake.detach()), False)
        loss = (of_real + of_fake) * 0.5
        loss.backward()
        return loss
