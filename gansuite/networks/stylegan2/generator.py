"""Mapping z -> w and synthesis w -> image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansuite.draws import Draws
from gansuite.networks.blur import Fir
from gansuite.networks.recompute import Block
from gansuite.networks.stylegan2.layers import (
    GAIN,
    SLOPE,
    EqualizedLinear,
    ModulatedConv2d,
    resolutions,
)

Noise = Literal["random", "const", "none"]

# generator and discriminator sizes by resolution: 1.4 M to 6 M parameters each
PRESETS: dict[int, dict[str, int]] = {
    32: {"z_dim": 256, "w_dim": 256, "base": 4096, "max_channels": 256, "mapping_layers": 4},
    64: {"z_dim": 128, "w_dim": 128, "base": 4096, "max_channels": 128, "mapping_layers": 4},
    128: {"z_dim": 256, "w_dim": 256, "base": 8192, "max_channels": 256, "mapping_layers": 4},
    256: {"z_dim": 256, "w_dim": 256, "base": 8192, "max_channels": 256, "mapping_layers": 4},
}


def num_ws(size: int) -> int:
    """Style inputs of a generator for ``size``: ``2 log2(size) - 2``."""
    return 2 * len(resolutions(size))


class SynthesisLayer(Block):
    """Modulated 3x3 convolution, then noise, then bias, then leaky ReLU with gain sqrt(2).

    One noise map per sample is shared by all channels and scaled by one learned strength, which
    starts at 0.
    """

    noise_const: Tensor

    def __init__(self, inputs: int, outputs: int, size: int, w_dim: int, *, up: bool) -> None:
        super().__init__()
        self.size = size
        self.conv = ModulatedConv2d(inputs, outputs, 3, w_dim, up=up)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(size, size))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """``noise`` [N or 1, 1, size, size] or None."""
        x, factor = self.conv.parts(x, w)
        assert factor is not None
        bias = (self.bias * GAIN)[:, None, None]
        x = torch.addcmul(bias.to(x.dtype), x, (factor * GAIN).to(x.dtype))
        if noise is not None:
            x.add_((noise * (self.noise_strength * GAIN)).to(x.dtype))
        return F.leaky_relu_(x, SLOPE)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to the image, without demodulation, plus bias."""

    def __init__(self, inputs: int, channels: int, w_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inputs, channels, 1, w_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.conv(x, w) + self.bias[:, None, None]


class MappingNetwork(nn.Module):
    """z [N, z_dim] -> w [N, w_dim]: z scaled to unit mean square, then ``layers`` dense layers
    that learn at ``lr_mult`` of the rate (StyleGAN §2, StyleGAN2 app. B).

    ``w_avg`` is for truncation; `update_average` moves it by 0.005 towards the mean w of a batch.
    """

    w_avg: Tensor

    def __init__(self, z_dim: int, w_dim: int, layers: int, lr_mult: float = 0.01) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(
                EqualizedLinear(w_dim if i else z_dim, w_dim, lr_mult=lr_mult, activation=True)
                for i in range(layers)
            )
        )
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor) -> Tensor:
        w: Tensor = self.layers(z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt())
        return w

    def update_average(self, mean: Tensor) -> None:
        """Move ``w_avg`` towards the ``mean`` [w_dim] of the w of a pass."""
        self.w_avg.lerp_(mean, 0.005)


class SynthesisBlock(nn.Module):
    """One resolution: two styled layers (one at 4x4) and the image's share of this resolution."""

    def __init__(self, inputs: int, outputs: int, size: int, channels: int, w_dim: int) -> None:
        super().__init__()
        self.up = SynthesisLayer(inputs, outputs, size, w_dim, up=True) if inputs else None
        self.conv = SynthesisLayer(outputs, outputs, size, w_dim, up=False)
        self.rgb = ToRGB(outputs, channels, w_dim)

    def forward(
        self, x: Tensor, ws: tuple[Tensor, ...], maps: Callable[[SynthesisLayer], Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """Features and image share; ``ws`` are the styles of the layers, ToRGB's last."""
        if self.up is not None:
            x = self.up(x, ws[0], maps(self.up))
        x = self.conv(x, ws[-2], maps(self.conv))
        return x, self.rgb(x, ws[-1])


class SynthesisNetwork(nn.Module):
    """ws [N, num_ws, w_dim] -> image [N, channels, size, size] with skip connections: the images
    of all resolutions are upsampled and added (StyleGAN2 §4.1).

    The layers take one w each; a resolution's ToRGB shares the w of the next one's first layer.
    """

    def __init__(self, size: int, channels: int, w_dim: int, base: int, max_channels: int) -> None:
        super().__init__()
        widths = {r: min(base // r, max_channels) for r in resolutions(size)}
        self.const = nn.Parameter(torch.randn(widths[4], 4, 4))
        self.blocks = nn.ModuleList(
            SynthesisBlock(widths.get(r // 2, 0), width, r, channels, w_dim)
            for r, width in widths.items()
        )
        self.upsample = Fir("up")

    def forward(
        self,
        ws: Tensor,
        *,
        noise: Noise | None = None,
        draws: Draws | None = None,
    ) -> Tensor:
        """``noise``: ``random`` (fresh from ``draws``), ``const`` (the stored maps), ``none``;
        default ``random`` if there are draws, else ``const``. Raises ValueError for ``random``
        without draws."""
        if noise is None:
            noise = "const" if draws is None else "random"
        n = ws.shape[0]  # not len(ws), which fixes the batch of an exported graph
        drawn: Iterator[Tensor] = iter(())
        if noise == "random":
            if draws is None:
                raise ValueError("random noise needs draws")
            drawn = self._noise(n, draws)

        def maps(layer: SynthesisLayer) -> Tensor | None:
            if noise == "none":
                return None
            return layer.noise_const[None, None] if noise == "const" else next(drawn)

        x = self.const.expand(n, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        styles = ws.unbind(1)
        x, image = self.blocks[0](x, styles[:2], maps)
        for k, block in enumerate(self.blocks[1:]):
            x, rgb = block(x, styles[2 * k + 1 : 2 * k + 4], maps)
            image = self.upsample(image) + rgb
        return cast(Tensor, image)

    def _noise(self, n: int, draws: Draws) -> Iterator[Tensor]:
        """The noise map [N, 1, side, side] of each layer in turn, all from one draw."""
        sides = [m.size for m in self.modules() if isinstance(m, SynthesisLayer)]
        drawn = draws.randn(n, sum(side * side for side in sides)).to(self.const)
        for side, part in zip(sides, drawn.split([side * side for side in sides], 1), strict=True):
            yield part.unflatten(1, (1, side, side))


class StyleGenerator(nn.Module):
    """z [N, z_dim] -> image [N, channels, size, size].

    Widths are ``min(base / resolution, max_channels)``. Raises UserError for a size that is no
    power of two.
    """

    def __init__(
        self,
        size: int,
        channels: int = 3,
        *,
        z_dim: int = 512,
        w_dim: int = 512,
        base: int = 32768,
        max_channels: int = 512,
        mapping_layers: int = 8,
    ) -> None:
        super().__init__()
        self.z_dim, self.w_dim, self.num_ws = z_dim, w_dim, num_ws(size)
        self.mapping = MappingNetwork(z_dim, w_dim, mapping_layers)
        self.synthesis = SynthesisNetwork(size, channels, w_dim, base, max_channels)

    def styles(
        self,
        z: Tensor,
        *,
        z_mix: Tensor | None = None,
        cutoff: int | Tensor | None = None,
        truncation_psi: float | Tensor = 1.0,
    ) -> Tensor:
        """ws [N, num_ws, w_dim]. Layers from ``cutoff`` on take their style from ``z_mix``
        (StyleGAN §3.1); ``w <- w_avg + psi (w - w_avg)`` (StyleGAN app. B)."""
        ws = self.mapping(z)[:, None].expand(-1, self.num_ws, -1)
        if z_mix is not None and cutoff is not None:
            early = torch.arange(self.num_ws, device=ws.device) < cutoff
            ws = torch.where(early[:, None], ws, self.mapping(z_mix)[:, None])
        if isinstance(truncation_psi, Tensor) or truncation_psi != 1:
            ws = torch.lerp(self.mapping.w_avg.to(ws.dtype).expand_as(ws), ws, truncation_psi)
        return ws

    def forward(
        self,
        z: Tensor,
        *,
        draws: Draws | None = None,
        noise: Noise | None = None,
        truncation_psi: float | Tensor = 1.0,
        z_mix: Tensor | None = None,
        cutoff: int | Tensor | None = None,
    ) -> Tensor:
        """See :meth:`styles` and :meth:`SynthesisNetwork.forward`."""
        ws = self.styles(z, z_mix=z_mix, cutoff=cutoff, truncation_psi=truncation_psi)
        image: Tensor = self.synthesis(ws, noise=noise, draws=draws)
        return image


def mixing_cutoff(num_ws: int, draws: Draws, probability: float = 0.9) -> int:
    """Where style mixing switches: with ``probability`` uniform on 1 .. num_ws-1, else
    ``num_ws`` (no mixing). One per batch."""
    mix, where = draws.common(2)
    return 1 + int(where * (num_ws - 1)) if mix < probability else num_ws
