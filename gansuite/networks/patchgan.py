"""Discriminators that judge patches: Isola et al. 2017."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from gansuite.networks.blur import BlurDown
from gansuite.networks.layers import Norm, init_normal_, norm_layer
from gansuite.networks.recompute import Chain


class PatchDiscriminator(nn.Module):
    """[N, channels, H, W] in [-1, 1] -> patch logits [N, 1, H/2^layers - 2, W/2^layers - 2].

    One logit per overlapping patch: 16, 34, 70, 142, 286 pixels wide for 1 to 5 ``layers`` of
    stride 2; two of stride 1 follow. No norm in the first, biases except before batch norm,
    N(0, .02). ``antialias``: CUT's, where a convolution of stride 1 and a blur that halves the
    sides behind the activation stand for one of stride 2. For pix2pix, ``channels`` are those of
    input and output together.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 64,
        layers: int = 3,
        norm: Norm = "instance",
        antialias: bool = False,
    ) -> None:
        super().__init__()
        stride, blur = (1, [BlurDown]) if antialias else (2, [])
        body: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride, 1), nn.LeakyReLU(0.2, True)]
        body += [halve() for halve in blur]
        widths = [width * min(2**i, 8) for i in range(layers + 1)]
        for i, (a, b) in enumerate(pairwise(widths), start=1):
            bias = norm != "batch"
            body += [nn.Conv2d(a, b, 4, stride if i < layers else 1, 1, bias=bias)]
            body += [norm_layer(norm, b), nn.LeakyReLU(0.2, True)]
            body += [halve() for halve in blur if i < layers]
        body += [nn.Conv2d(widths[-1], 1, 4, 1, 1)]
        self.body = Chain(*body)
        init_normal_(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)
