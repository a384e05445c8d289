"""The generator of CycleGAN (Zhu et al. 2017, after Johnson et al. 2016) and those made from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from gansuite.networks.blur import BlurDown, BlurUp
from gansuite.networks.layers import (
    Norm,
    ReflectionPad2d,
    ResidualBlock,
    ThinConv2d,
    Upsample,
    init_normal_,
    norm_layer,
    upsampling,
)
from gansuite.networks.recompute import Chain


class Tap(NamedTuple):
    """A place in a network: the layer whose output it is, and the channels there."""

    layer: int
    channels: int


class ResnetGenerator(nn.Module):
    """[N, channels, H, W] -> [N, out_channels, H, W], both in [-1, 1]; H, W multiples of 4.

    9 blocks for 256, 6 for 128. Reflection padding around the stride-1
    convolutions, zero padding in those of stride 2, biases everywhere although instance norm
    removes them, no dropout: as in the authors' PyTorch code. Weights ~ N(0, .02).

    ``antialias``: CUT's, whose convolutions have stride 1; a blur halves the sides after the ReLU
    and doubles them before the convolution (``upsample`` is of no account then).
    ``refine``: CartoonGAN's, where a convolution of stride 1 directly follows each that halves or
    doubles.
    ``taps``: the places of `features`: ``pixels``, the padded input; ``down1`` and ``down2``, the
    convolutions that widen, before the norm; ``block1`` to the last.
    """

    stride = 4

    def __init__(
        self,
        channels: int = 3,
        width: int = 64,
        blocks: int = 9,
        upsample: Upsample = "deconv",
        out_channels: int | None = None,
        norm: Norm = "instance",
        antialias: bool = False,
        refine: bool = False,
    ) -> None:
        super().__init__()
        w = width

        def end(b: int) -> list[nn.Module]:
            more = [nn.Conv2d(b, b, 3, 1, 1)] if refine else []
            return [*more, norm_layer(norm, b), nn.ReLU(True)]

        layers: list[nn.Module] = [ReflectionPad2d(3), nn.Conv2d(channels, w, 7)]
        layers += [norm_layer(norm, w), nn.ReLU(True)]
        self.taps = {"pixels": Tap(0, channels)}
        for i, (a, b) in enumerate(((w, 2 * w), (2 * w, 4 * w)), start=1):
            self.taps[f"down{i}"] = Tap(len(layers), b)
            layers += [nn.Conv2d(a, b, 3, 1 if antialias else 2, 1), *end(b)]
            layers += [BlurDown()] if antialias else []
        for i in range(1, blocks + 1):
            self.taps[f"block{i}"] = Tap(len(layers), 4 * w)
            layers += [ResidualBlock(4 * w, norm, reflect=True, bias=True)]
        for a, b in ((4 * w, 2 * w), (2 * w, w)):
            if antialias:
                layers += [BlurUp(), nn.Conv2d(a, b, 3, 1, 1)]
            else:
                layers += [upsampling(a, b, upsample, kernel=3, bias=True)]
            layers += end(b)
        last = ThinConv2d(w, out_channels or channels, 7, padding=(3, 0), padding_mode="reflect")
        layers += [ReflectionPad2d(3, 0), last, nn.Tanh()]
        self.body = Chain(*layers)
        init_normal_(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    def features(self, x: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """The maps [N, C, H', W'] at the ``taps`` called ``names``; the layers behind the last of
        them are not run."""
        wanted = {self.taps[name].layer: name for name in names}
        found = {}
        for i, layer in enumerate(self.body[: max(wanted) + 1]):
            x = layer(x)
            if i in wanted:
                found[wanted[i]] = x
        return found
