"""StyleGAN2 as its authors' PyTorch code trains it, with the reference operations in place of its
CUDA kernels (Karras et al. 2020, arXiv:1912.04958 and arXiv:2006.06676)."""

from __future__ import annotations

import copy
import itertools
import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def low_pass() -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    taps = taps.outer(taps)
    return taps / taps.sum()


def resample(
    x: Tensor, taps: Tensor, up: int = 1, down: int = 1, pads: tuple[int, int] = (0, 0),
    gain: float = 1.0,
) -> Tensor:  # fmt: skip
    """Zeros between the pixels, a border of zeros, the filter, every ``down``-th pixel."""
    n, c, h, w = x.shape
    x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, up - 1, 0, 0, 0, up - 1])
    x = F.pad(x.reshape(n, c, h * up, w * up), [*pads, *pads])
    taps = (taps * gain).to(x.dtype)[None, None].repeat(c, 1, 1, 1)
    return F.conv2d(x, taps, groups=c)[:, :, ::down, ::down]


def activated(x: Tensor, bias: Tensor, gain: float = math.sqrt(2)) -> Tensor:
    x = x + bias.reshape([-1 if i == 1 else 1 for i in range(x.ndim)])
    return F.leaky_relu(x, 0.2) * gain


class Dense(nn.Module):
    def __init__(
        self, a: int, b: int, active: bool = False, rate: float = 1.0, start: float = 0.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(b, a) / rate)
        self.bias = nn.Parameter(torch.full([b], start))
        self.active, self.gain, self.rate = active, rate / math.sqrt(a), rate

    def forward(self, x: Tensor) -> Tensor:
        w, b = self.weight * self.gain, self.bias * self.rate
        return activated(x.matmul(w.t()), b) if self.active else torch.addmm(b[None], x, w.t())


class Conv(nn.Module):
    """Of the discriminator: the low-pass before the stride, bias and activation behind."""

    taps: Tensor

    def __init__(
        self, a: int, b: int, kernel: int, down: bool = False, active: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(b, a, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(b)) if active else None
        self.gain, self.kernel, self.down = 1 / math.sqrt(a * kernel**2), kernel, down
        self.register_buffer("taps", low_pass())

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        w = self.weight * self.gain
        if self.down and self.kernel == 1:
            x = F.conv2d(resample(x, self.taps, down=2, pads=(1, 1)), w)
        elif self.down:
            x = F.conv2d(resample(x, self.taps, pads=(2, 2)), w, stride=2)
        else:
            x = F.conv2d(x, w, padding=self.kernel // 2)
        if self.bias is None:
            return x * gain
        return activated(x, self.bias, math.sqrt(2) * gain)


def modulated(
    x: Tensor, weight: Tensor, style: Tensor, taps: Tensor, up: bool, demodulate: bool
) -> tuple[Tensor, Tensor | None]:
    """The convolution of the scaled maps, and the factors that demodulate it."""
    factors = None
    if demodulate:
        each = weight[None] * style[:, None, :, None, None]
        factors = (each.square().sum([2, 3, 4]) + 1e-8).rsqrt()[:, :, None, None]
    x = x * style[:, :, None, None]
    if not up:
        return F.conv2d(x, weight, padding=weight.shape[2] // 2), factors
    x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    return resample(x, taps, pads=(1, 1), gain=4), factors


class Layer(nn.Module):
    taps: Tensor
    noise: Tensor

    def __init__(self, a: int, b: int, size: int, w_dim: int, up: bool) -> None:
        super().__init__()
        self.size, self.up = size, up
        self.style = Dense(w_dim, a, start=1.0)
        self.weight = nn.Parameter(torch.randn(b, a, 3, 3))
        self.strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(b))
        self.register_buffer("taps", low_pass())

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        noise = torch.randn(len(x), 1, self.size, self.size, device=x.device) * self.strength
        x, factors = modulated(x, self.weight, self.style(w), self.taps, self.up, True)
        return activated(torch.addcmul(noise, x, factors), self.bias)


class ToRGB(nn.Module):
    taps: Tensor

    def __init__(self, a: int, w_dim: int) -> None:
        super().__init__()
        self.style, self.gain = Dense(w_dim, a, start=1.0), 1 / math.sqrt(a)
        self.weight = nn.Parameter(torch.randn(3, a, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.register_buffer("taps", low_pass())

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.style(w) * self.gain
        x, _ = modulated(x, self.weight, style, self.taps, False, False)
        return x + self.bias[:, None, None]


class Generator(nn.Module):
    taps: Tensor
    mean_w: Tensor

    def __init__(self, size: int, z_dim: int, w_dim: int, widths: list[int], dense: int) -> None:
        super().__init__()
        self.dense = nn.ModuleList(
            Dense(w_dim if i else z_dim, w_dim, True, 0.01) for i in range(dense)
        )
        self.const = nn.Parameter(torch.randn(widths[0], 4, 4))
        self.layers, self.rgb = nn.ModuleList(), nn.ModuleList()
        for i, b in enumerate(widths):
            side = 4 << i
            pair = [Layer(widths[i - 1], b, side, w_dim, True)] if i else []
            self.layers.append(nn.ModuleList([*pair, Layer(b, b, side, w_dim, False)]))
            self.rgb.append(ToRGB(b, w_dim))
        self.register_buffer("taps", low_pass())
        self.register_buffer("mean_w", torch.zeros(w_dim))
        self.styles = 2 * len(widths)

    def mapping(self, z: Tensor, follow: bool) -> Tensor:
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.dense:
            x = layer(x)
        if follow:
            self.mean_w.lerp_(x.detach().mean(0), 0.005)
        return x[:, None].repeat(1, self.styles, 1)

    def synthesis(self, ws: Tensor) -> Tensor:
        x = self.const[None].repeat(len(ws), 1, 1, 1)
        image, k = None, 0
        for layers, rgb in zip(self.layers, self.rgb, strict=True):
            for layer in layers:
                x = layer(x, ws[:, k])
                k += 1
            if image is not None:
                image = resample(image, self.taps, up=2, pads=(2, 1), gain=4)
            y = rgb(x, ws[:, k])
            image = y if image is None else image + y
        return image


class Down(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.skip = Conv(a, b, 1, down=True, active=False)
        self.first, self.second = Conv(a, a, 3), Conv(a, b, 3, down=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.skip(x, math.sqrt(0.5))
        return y + self.second(self.first(x), math.sqrt(0.5))


class Discriminator(nn.Module):
    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        w = widths[::-1]
        self.rgb = Conv(3, w[0], 1)
        self.downs = nn.Sequential(*(Down(a, b) for a, b in itertools.pairwise(w)))
        self.conv = Conv(w[-1] + 1, w[-1], 3)
        self.dense, self.out = Dense(w[-1] * 16, w[-1], True), Dense(w[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.downs(self.rgb(x))
        n, c, h, w = x.shape
        group = min(4, n)
        y = x.reshape(group, -1, c, h, w)
        y = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt().mean([1, 2, 3])
        y = y.reshape(-1, 1, 1, 1).repeat(group, 1, h, w)
        return self.out(self.dense(self.conv(torch.cat([x, y], 1)).flatten(1)))


class Published:
    """The generator, every 4 iterations the path length on half a batch, the discriminator on new
    fakes, every 16 R1, then the average. The player that is not in turn is frozen."""

    period = 16

    def __init__(
        self, size: int, batch: int, base: int = 2048, most: int = 128, z_dim: int = 128,
        w_dim: int = 128, dense: int = 2,
    ) -> None:  # fmt: skip
        widths = [min(base // (4 << i), most) for i in range(size.bit_length() - 2)]
        self.g, self.d = Generator(size, z_dim, w_dim, widths, dense), Discriminator(widths)
        self.average = copy.deepcopy(self.g).eval().requires_grad_(False)
        self.adam_g = self.adam(self.g, 4)
        self.adam_d = self.adam(self.d, 16)
        self.z_dim, self.length = z_dim, torch.zeros([])
        self.real = torch.rand(batch, 3, size, size) * 2 - 1
        self.iteration = 0

    def adam(self, module: nn.Module, every: int) -> torch.optim.Optimizer:
        share = every / (every + 1)
        betas = (0.0, 0.99**share)
        return torch.optim.Adam(module.parameters(), lr=2.5e-3 * share, betas=betas, eps=1e-8)

    def to(self, device: str) -> None:
        for module in (self.g, self.d, self.average):
            module.to(device)
        self.real, self.length = self.real.to(device), self.length.to(device)

    def styles(self, n: int) -> Tensor:
        z = torch.randn(n, self.z_dim, device=self.real.device)
        ws = self.g.mapping(z, True)
        cutoff = random.randrange(1, ws.shape[1]) if random.random() < 0.9 else ws.shape[1]
        other = torch.randn(n, self.z_dim, device=self.real.device)
        ws[:, cutoff:] = self.g.mapping(other, False)[:, cutoff:]  # also where nothing is mixed
        return ws

    def update(self, adam: torch.optim.Optimizer) -> None:
        for group in adam.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.nan_to_num_(0.0, 1e5, -1e5)
        adam.step()

    def step(self) -> dict[str, Tensor]:
        n, found = len(self.real), {}
        self.d.requires_grad_(False)
        self.adam_g.zero_grad()
        loss = F.softplus(-self.d(self.g.synthesis(self.styles(n)))).mean()
        loss.backward()
        self.update(self.adam_g)
        found["g"] = loss.detach()
        if self.iteration % 4 == 0:
            self.adam_g.zero_grad()
            ws = self.styles(n // 2)
            image = self.g.synthesis(ws)
            noise = torch.randn_like(image) / math.sqrt(image.shape[2] * image.shape[3])
            (slope,) = torch.autograd.grad((image * noise).sum(), ws, create_graph=True)
            lengths = slope.square().sum(2).mean(1).sqrt()
            mean = self.length.lerp(lengths.mean(), 0.01)
            self.length.copy_(mean.detach())
            penalty = 2 * (lengths - mean).square().mean()
            (4 * penalty).backward()
            self.update(self.adam_g)

        self.d.requires_grad_(True)
        self.g.requires_grad_(False)
        self.adam_d.zero_grad()
        fake = F.softplus(self.d(self.g.synthesis(self.styles(n)))).mean()
        fake.backward()
        real = F.softplus(-self.d(self.real.detach())).mean()
        real.backward()
        self.update(self.adam_d)
        found["d"] = (fake + real).detach()
        if self.iteration % 16 == 0:
            self.adam_d.zero_grad()
            x = self.real.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(self.d(x).sum(), x, create_graph=True)
            penalty = 10 / 2 * slope.square().sum([1, 2, 3]).mean()
            (16 * penalty).backward()
            self.update(self.adam_d)
        self.g.requires_grad_(True)

        with torch.no_grad():
            for p, q in zip(self.average.parameters(), self.g.parameters(), strict=True):
                p.lerp_(q, 0.002)
            for p, q in zip(self.average.buffers(), self.g.buffers(), strict=True):
                p.copy_(q)
        self.iteration += 1
        return found
