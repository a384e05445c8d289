"""StyleGAN2's networks in plain PyTorch: mapping, modulated synthesis, residual discriminator.

Sources: Karras et al. 2019 (StyleGAN: mapping, noise, mixing, truncation), Karras et al. 2020a
(StyleGAN2: weight demodulation, skip generator, residual discriminator, projection) and 2020b
(the channel and layer counts). Images are float [N, C, size, size], nominally in [-1, 1]; the
generator has no output activation, so a picture may leave that range.

Everything can be differentiated twice (R1, path length). Three rewrites keep the function and save
time: modulation scales activations instead of building one weight per sample; resampling is one
depthwise convolution with its own stride and padding; the gain sqrt(2) of the activation is folded
into what precedes it, because ``lrelu(g v) = g lrelu(v)`` for g > 0.

Random numbers come only from the `Draws` handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansuite.draws import Draws
from gansuite.errors import UserError
from gansuite.losses.precision import full, no_autocast
from gansuite.rng import torch_generator

Noise = Literal["random", "const", "none"]

# generator and discriminator sizes by resolution: 1.4 M to 6 M parameters each
PRESETS: dict[int, dict[str, int]] = {
    32: {"z_dim": 256, "w_dim": 256, "base": 4096, "max_channels": 256, "mapping_layers": 4},
    64: {"z_dim": 128, "w_dim": 128, "base": 4096, "max_channels": 128, "mapping_layers": 4},
    128: {"z_dim": 256, "w_dim": 256, "base": 8192, "max_channels": 256, "mapping_layers": 4},
    256: {"z_dim": 256, "w_dim": 256, "base": 8192, "max_channels": 256, "mapping_layers": 4},
}

_SLOPE = 0.2
_GAIN = math.sqrt(2.0)


def resolutions(size: int) -> list[int]:
    """4, 8, ..., ``size``. Raises UserError unless ``size`` is a power of two of at least 8."""
    if size < 8 or size & (size - 1):
        raise UserError(f"StyleGAN needs a size that is a power of two from 8 on, not {size}.")
    return [2**k for k in range(2, size.bit_length())]


def num_ws(size: int) -> int:
    """Style inputs of a generator for ``size``: ``2 log2(size) - 2``."""
    return 2 * len(resolutions(size))


# ------------------------------------------------------------------------------------ layers


class Fir(nn.Module):
    """The low-pass [1, 3, 3, 1] (both ways, sum 1) of all resampling, one depthwise convolution.

    ``down``: [N, C, H, W] -> [N, C, H/2, W/2]. ``up``: zeros between the pixels, filter, gain 4
    -> [N, C, 2H, 2W]. ``after_up``: what follows a stride-2 transposed 3x3 convolution,
    [2H+1] -> [2H], gain 4. ``before_down``: what precedes a stride-2 3x3 convolution without
    padding, [H] -> [H+1].
    """

    kernel: Tensor
    _PADDING = {"down": 1, "up": 1, "after_up": 1, "before_down": 2}

    def __init__(self, mode: Literal["down", "up", "after_up", "before_down"]) -> None:
        super().__init__()
        self.mode = mode
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        gain = 4 if mode in ("up", "after_up") else 1
        self.register_buffer("kernel", gain * torch.outer(taps, taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        padding = self._PADDING[self.mode]
        if self.mode == "up":
            return F.conv_transpose2d(x, kernel, stride=2, padding=padding, groups=channels)
        if self.mode == "down" and x.dtype == torch.bfloat16 and x.device.type == "cpu":
            # a strided depthwise convolution takes a path ten times slower in bf16 on CPUs
            return F.conv2d(x, kernel, padding=padding, groups=channels)[..., ::2, ::2]
        stride = 2 if self.mode == "down" else 1
        return F.conv2d(x, kernel, stride=stride, padding=padding, groups=channels)


class EqualizedLinear(nn.Module):
    """[N, in] -> [N, out]; the 1/sqrt(in) of the initialisation acts at run time (ProGAN §4.1).

    Stored weights are N(0, 1) / lr_mult and are used times lr_mult / sqrt(in), biases times
    lr_mult: under Adam the layer learns at lr_mult times the rate.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        lr_mult: float = 1.0,
        bias_init: float = 0.0,
        activation: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_mult)
        self.bias = nn.Parameter(torch.full((outputs,), bias_init / lr_mult))
        gain = lr_mult * (_GAIN if activation else 1.0)
        self.weight_gain, self.bias_gain = gain / math.sqrt(inputs), gain
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        out = torch.addmm(
            self.bias, x, self.weight.t(), beta=self.bias_gain, alpha=self.weight_gain
        )
        return F.leaky_relu_(out, _SLOPE) if self.activation else out


class EqualizedConv2d(nn.Module):
    """Convolution with equalised learning rate; with ``activation`` also bias and leaky ReLU.

    [N, in, H, W] -> [N, out, H, W], or half the size with ``down`` (low-pass first). Weights are
    N(0, 1), used times 1/sqrt(in k^2). The layer without activation has no bias. ``gain`` scales
    the whole output.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        down: bool = False,
        activation: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if activation else None
        self.bias_gain = gain * (_GAIN if activation else 1.0)
        self.weight_gain = self.bias_gain / math.sqrt(inputs * kernel**2)
        # a 1x1 convolution commutes with the resampling: a quarter of the pixels remains to mix
        self.fir = Fir("down" if kernel == 1 else "before_down") if down else None
        self.stride = 2 if down and kernel > 1 else 1
        self.padding = 0 if down else kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        if self.fir is not None:
            x = self.fir(x)
        bias = None if self.bias is None else self.bias * self.bias_gain
        x = F.conv2d(x, self.weight * self.weight_gain, bias, self.stride, self.padding)
        return x if bias is None else F.leaky_relu_(x, _SLOPE)


class ModulatedConv2d(nn.Module):
    """Convolution whose weight is scaled per sample and input channel (StyleGAN2 §2.2, eq. 1-3).

    ``forward(x [N, in, H, W], w [N, w_dim])`` -> [N, out, H, W] (2H, 2W with ``up``). With
    ``demodulate`` each sample's output filters have unit norm, so unit variance stays unit
    variance. Computed as ``conv(x s) d`` with s the style and
    ``d = rsqrt(sum_{in,k} (W s)^2 + 1e-8)``, equal to convolving with per-sample weights.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        w_dim: int,
        *,
        up: bool = False,
        demodulate: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.affine = EqualizedLinear(w_dim, inputs, bias_init=1.0)
        self.demodulate = demodulate
        # demodulation cancels any gain of the weight; without it the style carries 1/sqrt(in k^2)
        self.style_gain = 1.0 if demodulate else 1 / math.sqrt(inputs * kernel**2)
        self.padding = kernel // 2
        self.fir = Fir("after_up") if up else None

    def parts(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor | None]:
        """The convolution of the modulated input, and the factor d [N, out, 1, 1] still to apply
        (None without demodulation)."""
        style = self.affine(w)
        if not self.demodulate:
            style = style * self.style_gain
        x = x * style[:, :, None, None]
        if self.fir is None:
            x = F.conv2d(x, self.weight, padding=self.padding)
        else:
            x = self.fir(F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2))
        if not self.demodulate:
            return x, None
        with no_autocast(x.device):  # squares of 16 bits, summed
            energy = full(style).square() @ full(self.weight).square().sum((2, 3)).t()
        return x, (energy + 1e-8).rsqrt()[:, :, None, None]

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x, factor = self.parts(x, w)
        return x if factor is None else x * factor


class SynthesisLayer(nn.Module):
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
        bias = (self.bias * _GAIN)[:, None, None]
        x = torch.addcmul(bias.to(x.dtype), x, (factor * _GAIN).to(x.dtype))
        if noise is not None:
            x.add_((noise * (self.noise_strength * _GAIN)).to(x.dtype))
        return F.leaky_relu_(x, _SLOPE)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to the image, without demodulation, plus bias."""

    def __init__(self, inputs: int, channels: int, w_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inputs, channels, 1, w_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.conv(x, w) + self.bias[:, None, None]


# --------------------------------------------------------------------------------- generator


class MappingNetwork(nn.Module):
    """z [N, z_dim] -> w [N, w_dim]: z scaled to unit mean square, then ``layers`` dense layers
    that learn at ``lr_mult`` of the rate (StyleGAN §2, StyleGAN2 app. B).

    ``w_avg`` is for truncation; `follow` moves it towards the mean w of a batch (factor .995).
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

    def follow(self, mean: Tensor) -> None:
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
        n = len(ws)
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
        cutoff: int | None = None,
        truncation_psi: float = 1.0,
    ) -> Tensor:
        """ws [N, num_ws, w_dim]. Layers from ``cutoff`` on take their style from ``z_mix``
        (StyleGAN §3.1); ``w <- w_avg + psi (w - w_avg)`` (StyleGAN app. B)."""
        ws = self.mapping(z)[:, None].expand(-1, self.num_ws, -1)
        if z_mix is not None and cutoff is not None and cutoff < self.num_ws:
            late = self.mapping(z_mix)[:, None].expand(-1, self.num_ws - cutoff, -1)
            ws = torch.cat([ws[:, :cutoff], late], 1)
        if truncation_psi != 1:
            ws = torch.lerp(self.mapping.w_avg.to(ws.dtype).expand_as(ws), ws, truncation_psi)
        return ws

    def forward(
        self,
        z: Tensor,
        *,
        draws: Draws | None = None,
        noise: Noise | None = None,
        truncation_psi: float = 1.0,
        z_mix: Tensor | None = None,
        cutoff: int | None = None,
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


# ----------------------------------------------------------------------------- discriminator


def minibatch_stddev(x: Tensor, group: int) -> Tensor:
    """[N, C, H, W] -> [N, C+1, H, W]: the added channel holds the standard deviation over a group
    of samples, averaged over features and positions (ProGAN §3, StyleGAN2 groups of 4).

    A group is a run of neighbours, so real and fake batches may be concatenated and processes
    may split a batch into multiples of ``group`` without changing the value. The authors' code
    takes every (N / group)-th sample instead: the same for a batch in another order, so with
    random batches the same distribution (of one batch the channel differs, by 1 % in the mean for
    Gaussian features [16, 128, 4, 4] and groups of 4). If ``group`` does not divide N, its largest
    divisor of N not above ``group`` is used; a group of 1 has deviation sqrt(1e-8). The deviation
    is computed in full precision, as 1e-8 is 0 in fp16.
    """
    n, c, h, w = x.shape
    size = max(g for g in range(1, min(group, n) + 1) if n % g == 0)
    groups = full(x).reshape(n // size, size, c, h, w)
    deviation = (groups.var(1, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
    channel = deviation.repeat_interleave(size)[:, None, None, None].expand(n, 1, h, w)
    return torch.cat([x, channel.to(x.dtype)], 1)


class DiscriminatorBlock(nn.Module):
    """[N, in, H, W] -> [N, out, H/2, W/2]: two 3x3 convolutions, the second strided; ``residual``
    adds a linear 1x1 path and scales both by sqrt(1/2) (StyleGAN2 §4.1)."""

    def __init__(self, inputs: int, outputs: int, *, residual: bool) -> None:
        super().__init__()
        half = math.sqrt(0.5) if residual else 1.0
        self.conv = EqualizedConv2d(inputs, inputs, 3)
        self.down = EqualizedConv2d(inputs, outputs, 3, down=True, gain=half)
        self.skip = (
            EqualizedConv2d(inputs, outputs, 1, down=True, activation=False, gain=half)
            if residual
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.conv(x))
        return out if self.skip is None else out + self.skip(x)


class StyleDiscriminator(nn.Module):
    """image [N, channels, size, size] -> logits [N, 1].

    ``residual=False`` is the plain network the paper's authors use for CIFAR-10 (with
    ``mbstd_group=32``). Raises UserError for a size that is no power of two.
    """

    def __init__(
        self,
        size: int,
        channels: int = 3,
        *,
        base: int = 32768,
        max_channels: int = 512,
        mbstd_group: int = 4,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.mbstd_group = mbstd_group
        widths = [min(base // r, max_channels) for r in reversed(resolutions(size))]
        last = widths[-1]
        self.from_rgb = EqualizedConv2d(channels, widths[0], 1)
        self.blocks = nn.Sequential(
            *(DiscriminatorBlock(i, o, residual=residual) for i, o in pairwise(widths))
        )
        self.conv = EqualizedConv2d(last + 1, last, 3)
        self.dense = EqualizedLinear(last * 16, last, activation=True)
        self.out = EqualizedLinear(last, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.from_rgb(x.contiguous(memory_format=torch.channels_last))
        x = minibatch_stddev(self.blocks(x), self.mbstd_group)
        logits: Tensor = self.out(self.dense(self.conv(x).flatten(1)))
        return logits


# ------------------------------------------------------------------------- using a generator


def _render(generator: StyleGenerator, ws: Tensor, batch: int) -> Tensor:
    return torch.cat([generator.synthesis(part, noise="const") for part in ws.split(batch)])


@torch.no_grad()
def interpolate(
    generator: StyleGenerator,
    keys: Tensor,
    steps: int,
    *,
    truncation_psi: float = 1.0,
    batch: int = 16,
) -> Tensor:
    """A walk through ``keys``, z [K, z_dim] or ws [K, num_ws, w_dim], straight in w.

    Returns (K-1) ``steps`` + 1 images, ``steps`` from one key to the next, with the stored noise.
    ``truncation_psi`` acts on z only. Raises ValueError for fewer than two keys.
    """
    if len(keys) < 2 or steps < 1:
        raise ValueError(f"needs two keys and one step, got {len(keys)} and {steps}")
    if keys.ndim == 2:
        keys = generator.styles(keys, truncation_psi=truncation_psi)
    t = (torch.arange(steps, device=keys.device, dtype=keys.dtype) / steps)[None, :, None, None]
    path = torch.lerp(keys[:-1, None], keys[1:, None], t).flatten(0, 1)
    return _render(generator, torch.cat([path, keys[-1:]]), batch)


@torch.no_grad()
def style_mixing_grid(
    generator: StyleGenerator,
    z_rows: Tensor,
    z_cols: Tensor,
    cutoffs: Sequence[int],
    *,
    truncation_psi: float = 1.0,
    batch: int = 16,
) -> tuple[Tensor, Tensor, Tensor]:
    """Row pictures [R, C, H, W], column pictures [K, C, H, W] and the mixtures
    [len(cutoffs), R, K, C, H, W]: layers below the cutoff from the row, the others from the column
    (StyleGAN §3.1), with the stored noise."""
    sources = generator.styles(torch.cat([z_rows, z_cols]), truncation_psi=truncation_psi)
    rows, cols = sources[: len(z_rows)], sources[len(z_rows) :]
    own = _render(generator, sources, batch)
    layer = torch.arange(generator.num_ws, device=sources.device)[:, None]
    ws = torch.stack([torch.where(layer < c, rows[:, None], cols[None]) for c in cutoffs])
    mixed = _render(generator, ws.flatten(0, 2), batch).unflatten(0, ws.shape[:3])
    return own[: len(z_rows)], own[len(z_rows) :], mixed


class Projection(NamedTuple):
    """Result of :func:`project`: w [N, w_dim], its images [N, C, H, W], and the loss of every
    step [steps]."""

    w: Tensor
    images: Tensor
    losses: Tensor


def project(
    generator: StyleGenerator,
    image: Tensor,
    steps: int = 500,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = F.mse_loss,
    lr: float = 0.1,
    exploration: float = 0.05,
    samples: int = 1000,
    seed: int = 0,
) -> Projection:
    """The w whose picture comes closest to ``image`` [N, C, H, W], by Adam (StyleGAN2 app. D).

    Starts at the mean of ``samples`` mapped draws. The rate rises over the first 5 % and falls by
    a cosine over the last 25 % of the steps; Gaussian noise of ``exploration`` times the spread of
    w is added to w, fading out over the first 75 %. ``loss(made, image)`` returns a scalar, for
    instance a distance of features. The generator, its gradients and its mode stay as they are.
    Unlike the paper, the noise maps are not optimised.
    """
    source = torch_generator(seed, "project")
    like = generator.mapping.w_avg
    with torch.no_grad():
        z = torch.randn(samples, generator.z_dim, generator=source).to(like)
        known = generator.mapping(z)
        centre = known.mean(0)
        spread = (known - centre).square().sum(1).mean().sqrt()
    w = centre.repeat(len(image), 1).requires_grad_()
    optimizer = torch.optim.Adam([w], lr=lr, betas=(0.9, 0.999))
    losses = []
    for step in range(steps):
        t = step / steps
        ramp = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / 0.25))
        optimizer.param_groups[0]["lr"] = lr * ramp * min(1.0, (t + 1 / steps) / 0.05)
        wander = spread * exploration * max(0.0, 1 - t / 0.75) ** 2
        jitter = torch.randn(w.shape, generator=source).to(w) * wander
        ws = (w + jitter)[:, None].expand(-1, generator.num_ws, -1)
        value = loss(generator.synthesis(ws, noise="const"), image)
        (w.grad,) = torch.autograd.grad(value, w)
        optimizer.step()
        losses.append(value.detach())
    with torch.no_grad():
        ws = w[:, None].expand(-1, generator.num_ws, -1)
        return Projection(w.detach(), generator.synthesis(ws, noise="const"), torch.stack(losses))
