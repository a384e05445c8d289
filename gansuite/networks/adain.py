"""The networks of the AdaIN-GAN: pictures made of a content and of a style code.

Both generators have ``code(picture)``, which may be mixed: any convex sum of codes is a code, and
``forward(x, code)``, x with the style of the code. With its own code a picture keeps its style.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from gansuite.errors import UserError
from gansuite.losses.perceptual import STAGES, VGG, adain, statistics
from gansuite.networks.layers import (
    InstanceNorm2d,
    NearestUpsample,
    ReflectionPad2d,
    ResidualBlock,
    ThinConv2d,
)
from gansuite.networks.recompute import Chain
from gansuite.ops.winograd import Conv3x3


class VGGDecoder(Chain):
    """The mirror of VGG-19 from relu<levels>_1 to the picture, not limited to [-1, 1].

    Reflection padding, nearest-neighbour enlargement where the encoder pools, ReLU but after the
    last convolution, no norm, which would undo the style (Huang & Belongie 2017, section 6).
    3,505,219 parameters with four levels.
    """

    def __init__(self, levels: int = 4, width: int = 64, channels: int = 3) -> None:
        layers: list[nn.Module] = []

        def conv(inputs: int, outputs: int) -> None:
            layers.extend([ReflectionPad2d(1), Conv3x3(inputs, outputs), nn.ReLU()])

        for level in range(levels, 1, -1):
            wide, narrow = width << level - 1, width << level - 2
            conv(wide, narrow)
            layers.append(NearestUpsample())
            for _ in range(STAGES[level - 2] - 1):
                conv(narrow, narrow)
        conv(width, channels)
        super().__init__(*layers[:-1])


class StatisticsGenerator(nn.Module):
    """Injection by statistics: the code of a picture is the mean and deviation of its features,
    [N, 2, C, 1, 1]; ``encoder`` may be frozen or learned. The output is cut to [-1, 1] in eval
    mode alone: a cut in training has no gradient outside."""

    def __init__(self, encoder: VGG, levels: int, width: int, channels: int) -> None:
        super().__init__()
        self.encoder, self.tap = encoder, f"relu{levels}_1"
        self.decoder = VGGDecoder(levels, width, channels)
        self.stride = 2 ** (levels - 1)

    def code(self, picture: Tensor) -> Tensor:
        """The style of [N, C, H, W] pictures: [N, 2, channels], means and deviations."""
        return torch.stack(statistics(self.encoder(picture, [self.tap])[0]), 1)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        mean, std = code.unbind(1)
        y: Tensor = self.decoder(adain(self.encoder(x, [self.tap])[0], mean, std))
        return y if self.training else y.clamp(-1, 1)


class AdaptiveBlock(nn.Module):
    """x + (conv3 AdaIN ReLU conv3 AdaIN)(x); ``code`` [N, 4C] has each norm's scale and centre."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(ReflectionPad2d(1), Conv3x3(channels, channels)) for _ in range(2)
        )
        self.norm = InstanceNorm2d(channels)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        scale, centre, scale2, centre2 = code[:, :, None, None].chunk(4, 1)
        y = torch.relu(self.norm(self.convs[0](x)) * scale + centre)
        return x + self.norm(self.convs[1](y)) * scale2 + centre2


def _down(channels: int, widths: tuple[int, ...], norm: bool) -> list[nn.Module]:
    """conv7, then k4s2 convolutions, with instance norm or without: it removes the style."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(zip((channels, *widths[:-1]), widths, strict=True)):
        layers += [ReflectionPad2d(1 if i else 3), nn.Conv2d(a, b, *((4, 2) if i else (7,)))]
        layers += [InstanceNorm2d(b)] if norm else []
        layers += [nn.ReLU()]
    return layers


class CodeGenerator(nn.Module):
    """Injection by a learned code of 8 numbers, from which an MLP makes the scales and centres of
    two residual blocks (MUNIT, Huang et al. 2018, made light): 2,192,075 parameters at width 32."""

    stride = 4

    def __init__(self, width: int = 32, channels: int = 3, code: int = 8) -> None:
        super().__init__()
        w, wide = width, 4 * width
        self.content = Chain(
            *_down(channels, (w, 2 * w, wide), norm=True),
            *(ResidualBlock(wide, "instance", reflect=True, bias=True) for _ in range(2)),
        )
        self.style = Chain(
            *_down(channels, (w, 2 * w, wide, wide), norm=False),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(wide, code, 1),
            nn.Flatten(),
        )
        hidden: list[nn.Module] = [nn.Linear(code, wide), nn.ReLU(), nn.Linear(wide, wide)]
        self.mlp = nn.Sequential(*hidden, nn.ReLU(), nn.Linear(wide, 8 * wide))
        with torch.no_grad():  # begins as a plain instance norm
            last = cast(nn.Linear, self.mlp[-1])
            last.bias.copy_(torch.tensor([1.0, 0.0]).repeat_interleave(wide).repeat(4))
        self.blocks = nn.ModuleList(AdaptiveBlock(wide) for _ in range(2))
        up: list[nn.Module] = []
        for a in (wide, 2 * w):
            up += [NearestUpsample(), ReflectionPad2d(2), nn.Conv2d(a, a // 2, 5), nn.ReLU()]
        thin = ThinConv2d(w, channels, 7, padding=(3, 0), padding_mode="reflect")
        self.decoder = Chain(*up, ReflectionPad2d(3, 0), thin, nn.Tanh())

    def code(self, picture: Tensor) -> Tensor:
        """The style of [N, C, H, W] pictures: [N, code]."""
        return cast(Tensor, self.style(picture))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        x = self.content(x)
        for block, part in zip(self.blocks, self.mlp(code).chunk(2, 1), strict=True):
            x = block(x, part)
        return cast(Tensor, self.decoder(x))


def style_generator(
    injection: Literal["stats", "mlp"],
    encoder: Literal["frozen", "learned"],
    judge: VGG,
    levels: int,
    width: int,
    channels: int,
) -> StatisticsGenerator | CodeGenerator:
    """The generator of that ``injection``. By statistics its encoder is ``judge`` itself if it is
    ``frozen`` or if ``judge`` can be trained; else a copy of it, which learns.

    Raises:
        UserError: a judge that can be trained, anywhere but in the encoder.
    """
    trains = any(True for _ in judge.parameters())
    if trains and (injection, encoder) != ("stats", "learned"):
        raise UserError(
            "'method.network' is own, the learned encoder: it needs method.injection=stats and "
            "method.encoder=learned."
        )
    if injection == "mlp":
        return CodeGenerator(width, channels)
    chosen = judge
    if encoder == "learned" and not trains:
        chosen = VGG(judge.last, width, channels)
        chosen.load_state_dict(dict(judge.named_buffers()))
    return StatisticsGenerator(chosen, levels, width, channels)
