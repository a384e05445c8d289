"""The networks of published checkpoints in plain PyTorch, with the names of the authors' state
dicts and none of gansuite: what `gansuite import` is tested against."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Named(nn.Module):
    """Holds ``layers`` under the attribute ``name``."""

    def __init__(self, name: str, *layers: nn.Module) -> None:
        super().__init__()
        self.name = name
        setattr(self, name, nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self.name)(x)


class Residual(Named):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Resample(nn.Module):
    """CUT's, with its buffer ``filt`` [C, 1, k, k]."""

    def __init__(self, c: int, up: bool) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0] if up else [1.0, 2.0, 1.0])
        taps = taps[:, None] * taps[None] / taps.sum() ** 2 * (4 if up else 1)
        self.up, self.c = up, c
        self.register_buffer("filt", taps.repeat(c, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            x = F.pad(x, (1, 1, 1, 1), mode="replicate")
            x = F.conv_transpose2d(x, self.filt, stride=2, padding=2, groups=self.c)
            return x[:, :, 1:-1, 1:-1]
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.filt, stride=2, groups=self.c)


def resnet(w: int, blocks: int, cut: bool = False, channels: int = 3) -> nn.Module:
    """The generator of CycleGAN, or of CUT."""

    def norm(c: int) -> list[nn.Module]:
        return [nn.InstanceNorm2d(c), nn.ReLU()]

    def block() -> nn.Module:
        def half() -> list[nn.Module]:
            return [nn.ReflectionPad2d(1), nn.Conv2d(4 * w, 4 * w, 3), nn.InstanceNorm2d(4 * w)]

        return Residual("conv_block", *half(), nn.ReLU(), *half())

    layers = [nn.ReflectionPad2d(3), nn.Conv2d(channels, w, 7), *norm(w)]
    for a, b in ((w, 2 * w), (2 * w, 4 * w)):
        layers += [nn.Conv2d(a, b, 3, 1 if cut else 2, 1), *norm(b)]
        layers += [Resample(b, up=False)] if cut else []
    layers += [block() for _ in range(blocks)]
    for a, b in ((4 * w, 2 * w), (2 * w, w)):
        layers += [Resample(a, up=True), nn.Conv2d(a, b, 3, 1, 1)] if cut else []
        layers += [] if cut else [nn.ConvTranspose2d(a, b, 3, 2, 1, 1)]
        layers += norm(b)
    return Named("model", *layers, nn.ReflectionPad2d(3), nn.Conv2d(w, channels, 7), nn.Tanh())


def patch(w: int, cut: bool = False, channels: int = 3, batch: bool = False) -> nn.Module:
    """PatchGAN 70."""
    layers: list[nn.Module] = [nn.Conv2d(channels, w, 4, 1 if cut else 2, 1), nn.LeakyReLU(0.2)]
    layers += [Resample(w, up=False)] if cut else []
    for i, (a, b) in enumerate(((w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w))):
        halves = i < 2
        layers += [nn.Conv2d(a, b, 4, 2 if halves and not cut else 1, 1, bias=not batch)]
        layers += [nn.BatchNorm2d(b) if batch else nn.InstanceNorm2d(b), nn.LeakyReLU(0.2)]
        layers += [Resample(b, up=False)] if cut and halves else []
    return Named("model", *layers, nn.Conv2d(8 * w, 1, 4, 1, 1))


def cut_heads(channels: tuple[int, ...]) -> nn.Module:
    heads = {f"mlp_{i}": [nn.Linear(c, 256), nn.ReLU(), nn.Linear(256, 256)]
             for i, c in enumerate(channels)}  # fmt: skip
    return nn.ModuleDict({name: nn.Sequential(*layers) for name, layers in heads.items()})


class Level(Named):
    """A level of pix2pix' U-Net around the next one; its input goes along with what it makes."""

    def __init__(self, widths: list[int], norm: Any, level: int = 0) -> None:
        c, above = widths[level], widths[level - 1] if level else 3
        inner, bias = level == len(widths) - 1, norm is nn.InstanceNorm2d
        down = [nn.Conv2d(above, c, 4, 2, 1, bias=bias)]
        up = nn.ConvTranspose2d(c if inner else 2 * c, above, 4, 2, 1, bias=bias or not level)
        if not level:
            layers = [*down, Level(widths, norm, 1), nn.ReLU(), up, nn.Tanh()]
        elif inner:
            layers = [nn.LeakyReLU(0.2), *down, nn.ReLU(), up, norm(above)]
        else:
            layers = [nn.LeakyReLU(0.2), *down, norm(c), Level(widths, norm, level + 1)]
            layers += [nn.ReLU(), up, norm(above), *([nn.Dropout(0.5)] if level >= 4 else [])]
        super().__init__("model", *layers)
        self.level = level

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, super().forward(x)], 1) if self.level else super().forward(x)


class UNet(nn.Module):
    """``model`` is the outermost level, itself with a ``model``."""

    def __init__(self, w: int, levels: int, norm: Any = nn.BatchNorm2d) -> None:
        super().__init__()
        self.model = Level([w * min(2**i, 8) for i in range(levels)], norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class StarGANGenerator(Named):
    def __init__(self, w: int, labels: int, blocks: int) -> None:
        def norm(c: int) -> nn.Module:
            return nn.InstanceNorm2d(c, affine=True, track_running_stats=True)

        def conv(a: int, b: int) -> nn.Module:
            return nn.Conv2d(a, b, 3, 1, 1, bias=False)

        c = 4 * w
        layers = [nn.Conv2d(3 + labels, w, 7, 1, 3, bias=False), norm(w), nn.ReLU()]
        for a, b in ((w, 2 * w), (2 * w, c)):
            layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), norm(b), nn.ReLU()]
        for _ in range(blocks):
            layers += [Residual("main", conv(c, c), norm(c), nn.ReLU(), conv(c, c), norm(c))]
        for a, b in ((c, 2 * w), (2 * w, w)):
            layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), norm(b), nn.ReLU()]
        super().__init__("main", *layers, nn.Conv2d(w, 3, 7, 1, 3, bias=False), nn.Tanh())

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        planes = label[:, :, None, None].repeat(1, 1, x.shape[2], x.shape[3])
        return super().forward(torch.cat([x, planes], 1))  # in train mode, as the authors use it


class StarGANDiscriminator(Named):
    def __init__(self, w: int, labels: int, size: int, layers: int) -> None:
        body: list[nn.Module] = [nn.Conv2d(3, w, 4, 2, 1), nn.LeakyReLU(0.01)]
        for i in range(layers - 1):
            body += [nn.Conv2d(w << i, w << i + 1, 4, 2, 1), nn.LeakyReLU(0.01)]
        super().__init__("main", *body)
        self.conv1 = nn.Conv2d(w << layers - 1, 1, 3, 1, 1, bias=False)
        self.conv2 = nn.Conv2d(w << layers - 1, labels, size >> layers, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = super().forward(x)
        return self.conv1(x), self.conv2(x).flatten(1)


def disco_generator(w: int) -> nn.Module:
    """On [0, 1]; blue first."""
    layers: list[nn.Module] = [nn.Conv2d(3, w, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for a, b in pairwise((w, 2 * w, 4 * w, 8 * w)):
        layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
    for a, b in pairwise((8 * w, 4 * w, 2 * w, w)):
        layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    return Named("main", *layers, nn.ConvTranspose2d(w, 3, 4, 2, 1, bias=False), nn.Sigmoid())


class DiscoDiscriminator(nn.Module):
    def __init__(self, w: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, w, 4, 2, 1, bias=False)
        for i, (a, b) in enumerate(pairwise((w, 2 * w, 4 * w, 8 * w)), start=2):
            setattr(self, f"conv{i}", nn.Conv2d(a, b, 4, 2, 1, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.conv5 = nn.Conv2d(8 * w, 1, 4, 1, 0, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv1(x), 0.2)
        for i in (2, 3, 4):
            x = F.leaky_relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)), 0.2)
        return self.conv5(x).flatten()  # the authors' sigmoid is in our loss


def dcgan_generator(w: int, z: int = 100) -> nn.Module:
    layers: list[nn.Module] = [nn.ConvTranspose2d(z, 8 * w, 4, 1, 0, bias=False)]
    for a, b in pairwise((8 * w, 4 * w, 2 * w, w)):
        layers += [nn.BatchNorm2d(a), nn.ReLU(), nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False)]
    layers += [nn.BatchNorm2d(w), nn.ReLU(), nn.ConvTranspose2d(w, 3, 4, 2, 1, bias=False)]
    return Named("main", *layers, nn.Tanh())


def dcgan_discriminator(w: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, w, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for a, b in pairwise((w, 2 * w, 4 * w, 8 * w)):
        layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
    return Named("main", *layers, nn.Conv2d(8 * w, 1, 4, 1, 0, bias=False))


class Affine(nn.Module):
    """A dense layer whose weight is scaled at run time; ``act``: leaky ReLU times sqrt 2."""

    def __init__(self, a: int, b: int, lr: float = 1.0, act: bool = False, bias: float = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(b, a) / lr)
        self.bias = nn.Parameter(torch.full((b,), float(bias)))
        self.lr, self.act = lr, act

    def forward(self, x: Tensor) -> Tensor:
        x = x @ (self.weight * self.lr / math.sqrt(self.weight.shape[1])).T + self.bias * self.lr
        return F.leaky_relu(x, 0.2) * math.sqrt(2) if self.act else x


def _taps() -> Tensor:
    row = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return row[:, None] * row[None] / 64


def _filtered(x: Tensor, pad: tuple[int, int], gain: float = 1, step: int = 1) -> Tensor:
    taps = (_taps() * gain).to(x).repeat(x.shape[1], 1, 1, 1)
    x = F.pad(x, (*pad, *pad))
    return F.conv2d(x, taps, groups=x.shape[1])[:, :, ::step, ::step]


def _spread(x: Tensor) -> Tensor:
    """Zeros behind each pixel."""
    n, c, h, w = x.shape
    out = x.new_zeros(n, c, h, 2, w, 2)
    out[:, :, :, 0, :, 0] = x
    return out.reshape(n, c, 2 * h, 2 * w)


class Styled(nn.Module):
    """A modulated convolution with one weight for each sample, as the paper writes it."""

    def __init__(self, a: int, b: int, w: int, k: int, side: int = 0, up: bool = False) -> None:
        super().__init__()
        self.affine = Affine(w, a, bias=1)
        self.weight, self.bias = nn.Parameter(torch.randn(b, a, k, k)), nn.Parameter(torch.randn(b))
        self.up, self.k = up, k
        if k == 3:
            self.noise_strength = nn.Parameter(torch.randn([]))
            self.register_buffer("noise_const", torch.randn(side, side))
            self.register_buffer("resample_filter", _taps())

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.affine(w)
        if self.k == 1:
            style = style / math.sqrt(self.weight[0].numel())
        each = self.weight[None] * style[:, None, :, None, None]
        if self.k == 3:
            each = each * (each.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        made = []
        for one, own in zip(x, each, strict=True):
            if self.up:
                y = F.conv_transpose2d(one[None], own.transpose(0, 1), stride=2)
                made.append(_filtered(y, (1, 1), gain=4))
            else:
                made.append(F.conv2d(one[None], own, padding=self.k // 2))
        x = torch.cat(made)
        if self.k == 1:
            return x + self.bias[:, None, None]
        x = x + self.noise_const * self.noise_strength + self.bias[:, None, None]
        return F.leaky_relu(x, 0.2) * math.sqrt(2)


class StyleGAN2(nn.Module):
    """The generator of StyleGAN2-ADA with the noise that is stored; z [N, z] -> pictures."""

    def __init__(self, size: int, widths: dict[int, int], z: int, w: int, layers: int) -> None:
        super().__init__()
        self.size, self.count = size, layers
        self.mapping, self.synthesis = nn.Module(), nn.Module()
        for i in range(layers):
            setattr(self.mapping, f"fc{i}", Affine(w if i else z, w, lr=0.01, act=True))
        self.mapping.register_buffer("w_avg", torch.randn(w))
        previous = 0
        for side, c in widths.items():
            block = nn.Module()
            if previous:
                block.conv0 = Styled(previous, c, w, 3, side, up=True)
            else:
                block.const = nn.Parameter(torch.randn(c, 4, 4))
            block.register_buffer("resample_filter", _taps())
            block.conv1, block.torgb = Styled(c, c, w, 3, side), Styled(c, 3, w, 1)
            setattr(self.synthesis, f"b{side}", block)
            previous = c

    def forward(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        w = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
        for i in range(self.count):
            w = getattr(self.mapping, f"fc{i}")(w)
        w = self.mapping.w_avg + truncation * (w - self.mapping.w_avg)
        x = image = None
        side = 4
        while side <= self.size:
            block = getattr(self.synthesis, f"b{side}")
            if x is None:
                x = block.const[None].repeat(len(z), 1, 1, 1)
            else:
                x = block.conv0(x, w)
                image = _filtered(_spread(image), (2, 1), gain=4)
            x = block.conv1(x, w)
            made = block.torgb(x, w)
            image = made if image is None else image + made
            side *= 2
        assert image is not None
        return image


class Scaled(nn.Module):
    """A convolution of StyleGAN2's discriminator."""

    def __init__(self, a: int, b: int, k: int, down: bool = False, act: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(b, a, k, k))
        if act:
            self.bias = nn.Parameter(torch.randn(b))
        self.register_buffer("resample_filter", _taps())
        self.k, self.down, self.act = k, down, act

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        weight = self.weight / math.sqrt(self.weight[0].numel())
        if self.down and self.k == 3:
            x = F.conv2d(_filtered(x, (2, 2)), weight, stride=2)
        elif self.down:
            x = F.conv2d(_filtered(x, (1, 1), step=2), weight)
        else:
            x = F.conv2d(x, weight, padding=self.k // 2)
        if self.act:
            x = F.leaky_relu(x + self.bias[:, None, None], 0.2) * math.sqrt(2)
        return x * gain


class StyleGAN2D(nn.Module):
    """The residual discriminator; all pictures are one group."""

    def __init__(self, widths: dict[int, int]) -> None:
        super().__init__()
        sides = sorted(widths, reverse=True)
        self.sides = sides
        for side in sides[:-1]:
            block, a, b = nn.Module(), widths[side], widths[side // 2]
            if side == sides[0]:
                block.fromrgb = Scaled(3, a, 1)
            block.conv0, block.conv1 = Scaled(a, a, 3), Scaled(a, b, 3, down=True)
            block.skip = Scaled(a, b, 1, down=True, act=False)
            setattr(self, f"b{side}", block)
        last = widths[4]
        self.b4 = nn.Module()
        self.b4.conv = Scaled(last + 1, last, 3)
        self.b4.fc, self.b4.out = Affine(last * 16, last, act=True), Affine(last, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = getattr(self, f"b{self.sides[0]}").fromrgb(x)
        for side in self.sides[:-1]:
            block, half = getattr(self, f"b{side}"), math.sqrt(0.5)
            x = block.skip(x, half) + block.conv1(block.conv0(x), half)
        deviation = (x.var(0, correction=0) + 1e-8).sqrt().mean()
        x = torch.cat([x, deviation.expand(len(x), 1, 4, 4)], 1)
        return self.b4.out(self.b4.fc(self.b4.conv(x).flatten(1)))
