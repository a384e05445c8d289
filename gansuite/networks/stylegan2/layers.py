"""Layers with equalised learning rate, and the sizes both networks are made of."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansuite.errors import UserError
from gansuite.losses.precision import full, no_autocast
from gansuite.networks.blur import Fir
from gansuite.networks.layers import pointwise

SLOPE = 0.2
GAIN = math.sqrt(2.0)


def resolutions(size: int) -> list[int]:
    """4, 8, ..., ``size``. Raises UserError unless ``size`` is a power of two of at least 8."""
    if size < 8 or size & (size - 1):
        raise UserError(f"StyleGAN needs a size that is a power of two from 8 on, not {size}.")
    return [2**k for k in range(2, size.bit_length())]


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
        gain = lr_mult * (GAIN if activation else 1.0)
        self.weight_gain, self.bias_gain = gain / math.sqrt(inputs), gain
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        out = torch.addmm(
            self.bias, x, self.weight.t(), beta=self.bias_gain, alpha=self.weight_gain
        )
        return F.leaky_relu_(out, SLOPE) if self.activation else out


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
        self.bias_gain = gain * (GAIN if activation else 1.0)
        self.weight_gain = self.bias_gain / math.sqrt(inputs * kernel**2)
        # a 1x1 convolution commutes with the resampling: a quarter of the pixels remains to mix
        self.fir = Fir("down" if kernel == 1 else "before_down") if down else None
        self.stride = 2 if down and kernel > 1 else 1
        self.padding = 0 if down else kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        if self.fir is not None:
            x = self.fir(x)
        bias = None if self.bias is None else self.bias * self.bias_gain
        weight = self.weight * self.weight_gain
        if bias is not None:
            return F.leaky_relu_(F.conv2d(x, weight, bias, self.stride, self.padding), SLOPE)
        if weight.shape[2] == 1:
            return pointwise(x, weight)
        return F.conv2d(x, weight, None, self.stride, self.padding)


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
