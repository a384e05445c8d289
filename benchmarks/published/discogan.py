"""DiscoGAN as its authors' code trains it (Kim et al. 2017, arXiv:1703.05192)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


def generator(width: int) -> nn.Sequential:
    w = width
    layers: list[nn.Module] = [nn.Conv2d(3, w, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for a, b in ((w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w)):
        layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b)]
        layers += [nn.LeakyReLU(0.2, True)]
    for a, b in ((8 * w, 4 * w), (4 * w, 2 * w), (2 * w, w)):
        layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(w, 3, 4, 2, 1, bias=False), nn.Sigmoid())


class Discriminator(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.first = nn.Sequential(nn.Conv2d(3, w, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True))
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(w << i, w << i + 1, 4, 2, 1, bias=False),
                nn.BatchNorm2d(w << i + 1),
                nn.LeakyReLU(0.2, True),
            )
            for i in range(3)
        )
        self.last = nn.Sequential(nn.Conv2d(8 * w, 1, 4, 1, 0, bias=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, features = self.first(x), []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return self.last(x).flatten(), features


class Published:
    """Every iteration computes all losses of both players, and makes one backward pass and one
    step: of the discriminators in each third, else of the generators. Pictures are in [0, 1]."""

    period = 3

    def __init__(self, size: int, batch: int, width: int = 64) -> None:
        assert size == 64
        self.g = nn.ModuleDict({k: generator(width) for k in ("ab", "ba")})
        self.d = nn.ModuleDict({k: Discriminator(width) for k in ("a", "b")})
        adam = {"lr": 2e-4, "betas": (0.5, 0.999), "weight_decay": 1e-5}
        g, d = self.g.values(), self.d.values()
        self.adam_g = torch.optim.Adam(itertools.chain(*(m.parameters() for m in g)), **adam)
        self.adam_d = torch.optim.Adam(itertools.chain(*(m.parameters() for m in d)), **adam)
        self.bce, self.mse, self.hinge = nn.BCELoss(), nn.MSELoss(), nn.HingeEmbeddingLoss()
        self.a, self.b = torch.rand(2, batch, 3, size, size)
        self.iteration = 0

    def to(self, device: str) -> None:
        self.g.to(device)
        self.d.to(device)
        self.a, self.b = self.a.to(device), self.b.to(device)

    def step(self) -> dict[str, Tensor]:
        self.g.zero_grad()
        self.d.zero_grad()
        a, b = self.a, self.b
        ab, ba = self.g["ab"](a), self.g["ba"](b)
        aba, bab = self.g["ba"](ab), self.g["ab"](ba)
        rec_a, rec_b = self.mse(aba, a), self.mse(bab, b)
        dis_a, gen_a, fm_a = self.judged(self.d["a"], a, ba)
        dis_b, gen_b, fm_b = self.judged(self.d["b"], b, ab)
        rate = 0.01 if self.iteration < 10_000 else 0.5
        total_a = (gen_b * 0.1 + fm_b * 0.9) * (1 - rate) + rec_a * rate
        total_b = (gen_a * 0.1 + fm_a * 0.9) * (1 - rate) + rec_b * rate
        loss_g, loss_d = total_a + total_b, dis_a + dis_b
        if self.iteration % 3 == 0:
            loss_d.backward()
            self.adam_d.step()
        else:
            loss_g.backward()
            self.adam_g.step()
        self.iteration += 1
        return {"g": loss_g.detach(), "d": loss_d.detach()}

    def judged(self, d: nn.Module, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        of_real, real_maps = d(real)
        of_fake, fake_maps = d(fake)
        ones, zeros = torch.ones_like(of_real), torch.zeros_like(of_real)
        dis = self.bce(of_real, ones) * 0.5 + self.bce(of_fake, zeros) * 0.5
        fm = torch.zeros((), device=real.device)
        for r, f in zip(real_maps, fake_maps, strict=True):
            square = (r.mean(0) - f.mean(0)) * (r.mean(0) - f.mean(0))
            fm = fm + self.hinge(square, torch.ones_like(square))
        return dis, self.bce(of_fake, ones), fm
