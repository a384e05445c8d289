"""Layers, initialisations and checks shared by the networks."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils import parametrizations, parametrize

from gansuite.errors import UserError, nearest
from gansuite.losses.precision import no_autocast
from gansuite.networks.recompute import Block
from gansuite.ops import products
from gansuite.ops.winograd import Conv3x3

Norm = Literal["batch", "instance", "instance_affine", "group", "none"]
Upsample = Literal["deconv", "resize_conv"]


def halvings(size: int, what: str, smallest: int) -> int:
    """log2 of ``size``; ``UserError`` unless it is a power of two of at least ``smallest``."""
    if size < smallest or size & (size - 1):
        raise UserError(
            f"{what} needs a size that is a power of two from {smallest} up, not {size}"
            f": choose {max(smallest, 1 << (max(size, 2) - 1).bit_length())}."
        )
    return size.bit_length() - 1


def check_multiple(size: int, of: int, what: str) -> None:
    """``UserError`` unless ``size`` is a positive multiple of ``of``."""
    if size < of or size % of:
        raise UserError(
            f"{what} needs a size that is a multiple of {of}, not {size}"
            f": choose {max(1, -(-size // of)) * of}."
        )


def judges_alone(module: nn.Module) -> bool:
    """Whether a picture's output depends neither on what is beside it in the batch nor on the
    number of calls: no batch norm, dropout or parametrisation with a state (spectral norm)."""
    return not any(
        isinstance(m, (_BatchNorm, parametrize.ParametrizationList))
        or (isinstance(m, _DropoutNd) and m.p)
        for m in module.modules()
    )


def in_one_call(module: nn.Module, *inputs: Tensor) -> tuple[Any, ...]:
    """``module(x)`` for each of ``inputs``, in order: what it gives, tensors or tuples of them.

    As one batch where that is the same function (`judges_alone`) and they have one size, which is
    faster; else one after the other.
    """
    if not judges_alone(module) or len({x.shape[1:] for x in inputs}) > 1:
        return tuple(module(x) for x in inputs)
    found = module(torch.cat(inputs))
    sizes = [len(x) for x in inputs]
    if isinstance(found, Tensor):
        return found.split(sizes)
    return tuple(zip(*(part.split(sizes) for part in found), strict=True))


@contextlib.contextmanager
def picture_statistics(module: nn.Module) -> Iterator[None]:
    """Inside, batch norms in eval mode normalise each picture by its own mean and variance, as they
    do in train mode in a batch of one."""

    def own(norm: nn.Module, inputs: tuple[Tensor], _: Tensor) -> Tensor:
        assert isinstance(norm, _BatchNorm)
        return _instance_norm(inputs[0], norm.weight, norm.bias, norm.eps)

    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    handles = [m.register_forward_hook(own) for m in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class SharedStatistics:
    """Means and variances that the instance norms of several calls share, so that the tiles of a
    picture are parts of one picture.

    Inside `gathering`, one call, each norm takes them over its whole batch, and they are noted;
    inside `using`, each call takes what was noted, norm by norm in the order of that call.
    """

    def __init__(self) -> None:
        self._noted: list[tuple[Tensor, Tensor]] = []
        self._next: int | None = None

    @contextlib.contextmanager
    def gathering(self) -> Iterator[None]:
        """One call of which every norm's statistics are noted."""
        self._noted, self._next = [], None
        token = _SHARED.set(self)
        try:
            yield
        finally:
            _SHARED.reset(token)

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """One call that takes what was noted."""
        self._next = 0
        token = _SHARED.set(self)
        try:
            yield
        finally:
            _SHARED.reset(token)

    def of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance [C] for the next norm, whose input is ``x`` [N, C, H, W]."""
        if self._next is None:
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            self._noted.append((mean, variance))
        else:
            mean, variance = self._noted[self._next]
            self._next += 1
        return mean, variance


_SHARED: ContextVar[SharedStatistics | None] = ContextVar("shared", default=None)


def _instance_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    if (shared := _SHARED.get()) is not None:
        mean, variance = shared.of(x)
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps)
    if x.shape[-2:] == (1, 1):
        # 1/sqrt(eps) would blow the rounding of x - mean up; the product keeps the graph whole
        x = x * 0
        return x if bias is None else x + bias[:, None, None]
    # not F.group_norm, whose check refuses a batch of one at small sizes
    return torch.group_norm(x, x.shape[1], weight, bias, eps)


class InstanceNorm2d(nn.Module):
    """Instance normalisation of [N, C, H, W] without running statistics.

    Equal to ``nn.InstanceNorm2d`` in train and in eval mode, computed as a group norm with one
    group per channel (faster on a CPU, differentiable twice). A 1x1 map has no variance: there the
    output is the centre (``bias``, or 0), the limit of the formula, where torch raises.
    """

    def __init__(self, channels: int, affine: bool = False, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        return _instance_norm(x, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.channels}, affine={self.weight is not None}, eps={self.eps}"


NORMS = (InstanceNorm2d, _BatchNorm)
"""What may normalise a picture by its own statistics; see `picture_statistics`."""


class _Reflected(torch.autograd.Function):
    """Reflection padding by torch's own kernel, forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, across: int, down: int) -> Tensor:
        ctx.sides = across, down
        with no_autocast(x.device):  # which pads in float32 on a CPU, and doubles what is kept
            return F.pad(x, (across, across, down, down), mode="reflect")

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return _Folded.apply(g, *ctx.sides), None, None


class _Folded(torch.autograd.Function):
    """The transpose of the padding: what lies outside is folded in and added.

    Torch's own is slow in 16 bits, and on CUDA it adds atomically, which
    ``torch.use_deterministic_algorithms`` refuses.
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, across: int, down: int) -> Tensor:
        ctx.sides = across, down
        for dim, p in ((-2, down), (-1, across)):
            if p:
                n = g.shape[dim] - 2 * p
                folded = g.narrow(dim, p, n).clone(memory_format=torch.contiguous_format)
                folded.narrow(dim, 1, p).add_(g.narrow(dim, 0, p).flip(dim))
                folded.narrow(dim, n - 1 - p, p).add_(g.narrow(dim, n + p, p).flip(dim))
                g = folded
        return g

    @staticmethod
    def backward(ctx: Any, x: Tensor) -> tuple[Tensor, None, None]:
        return _Reflected.apply(x, *ctx.sides), None, None


def reflection_pad(x: Tensor, across: int, down: int) -> Tensor:
    """``F.pad(x, (across, across, down, down), mode="reflect")``, deterministic on every device."""
    h, w = x.shape[-2:]
    if h <= down or w <= across:
        raise UserError(
            f"A map of {h}x{w} is too small to be reflected by {max(across, down)}: "
            f"use larger pictures."
        )
    return cast(Tensor, _Reflected.apply(x, across, down))


class ReflectionPad2d(nn.Module):
    """``nn.ReflectionPad2d``: all four sides by ``pad``, or the left and the right by it and the
    upper and the lower by ``down``."""

    def __init__(self, pad: int, down: int | None = None) -> None:
        super().__init__()
        self.pad, self.down = pad, pad if down is None else down

    def forward(self, x: Tensor) -> Tensor:
        return reflection_pad(x, self.pad, self.down)

    def extra_repr(self) -> str:
        return f"{self.pad}, {self.down}"


class ThinConv2d(nn.Conv2d):
    """``nn.Conv2d`` of stride 1 with a large kernel and few outputs; the same function.

    oneDNN computes 16 outputs at a time, so three cost as many. On a CPU each row of the kernel
    has outputs of its own, those of one 1 x k convolution, which are moved to where they belong
    and added: less than half the time, as many multiplications.
    ``padding_mode`` is ``zeros`` or ``reflect``.
    """

    def forward(self, x: Tensor) -> Tensor:
        down, across = (int(p) for p in self.padding)
        reflect = self.padding_mode == "reflect"
        if reflect and across:
            x, across = reflection_pad(x, across, 0), 0

        def padded(y: Tensor) -> Tensor:
            return reflection_pad(y, 0, down) if reflect else F.pad(y, (0, 0, down, down))

        if x.device.type != "cpu":
            return F.conv2d(padded(x), self.weight, self.bias, 1, (0, across))
        outputs, inputs, k, width = self.weight.shape
        rows = self.weight.permute(2, 0, 1, 3).reshape(k * outputs, inputs, 1, width)
        # rows are padded behind it, where there are fewer channels: it treats them one by one
        y = padded(F.conv2d(x, rows, None, 1, (0, across))).contiguous()
        n, _, h, w = y.shape
        # [n, r, o, i, j] is row i + r of the outputs of the kernel's row r
        moved = (k * outputs * h * w, outputs * h * w + w, h * w, w, 1)
        y = y.as_strided((n, k, outputs, h - k + 1, w), moved).sum(1)
        return y if self.bias is None else y + self.bias[:, None, None]


ALWAYS = 4
"""Pixels up to which a convolution on a CPU is a product of matrices, however many pictures."""


def _inner(x: Tensor, pixels: int, channels: int) -> bool:
    """Whether a convolution of a map that small, with weights that large, is faster as a product
    of matrices: on a CPU of at most four pixels, and where such a product is cheap of 16, up to 128
    of all pictures."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or pixels > 16:
        return False  # a program is for maps of any size
    few = channels >= 256 and products.cheap(x) and len(x) * pixels <= 128
    return pixels <= ALWAYS or few


def _row_wise(layer: nn.Conv2d | nn.ConvTranspose2d, pixels: int) -> None:
    """From now on a weight lies as products of matrices read it, whatever layout its network has;
    only where it is always one, so that no layout depends on how many pictures came before."""
    weight = layer._parameters.get("weight")
    if pixels <= ALWAYS and weight is not None and not weight.is_contiguous():
        weight.data = weight.data.contiguous()


class InnerConv2d(nn.Conv2d):
    """``nn.Conv2d``, for the innermost maps of a network; the same function.

    There the weight is large and the map is not. On a CPU it is a product of matrices: up to two
    and a half times as fast, as many multiplications. Elsewhere, and of larger maps, it is one
    convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        padding = cast(tuple[int, int], self.padding)
        given = zip(x.shape[-2:], self.kernel_size, self.stride, padding, strict=True)
        h, w = ((side + 2 * pad - k) // step + 1 for side, k, step, pad in given)
        if not _inner(x, h * w, self.in_channels):
            return super().forward(x)
        _row_wise(self, h * w)
        wide = x.float() if x.dtype == torch.bfloat16 else x  # its gradient is a sum
        patches = F.unfold(wide, self.kernel_size, 1, padding, self.stride)
        n, inputs, pixels = patches.shape
        rows = patches.transpose(1, 2).reshape(n * pixels, inputs)
        y = products.linear(rows, self.weight.flatten(1), self.bias)
        return y.view(n, pixels, -1).transpose(1, 2).reshape(n, -1, h, w)


class InnerConvTranspose2d(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` of stride 2 or more, for the innermost maps of a network; the same
    function, as a product of matrices where `InnerConv2d` is one."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        n, inputs, h, w = x.shape
        if output_size is not None or not _inner(x, h * w, self.in_channels):
            return super().forward(x, output_size)
        _row_wise(self, h * w)
        padding = cast(tuple[int, int], self.padding)
        given = zip(self.kernel_size, self.stride, padding, self.output_padding, strict=True)
        (k, step, pad, more), across = given
        down = (h - 1) * step - 2 * pad + k + more
        k, step, pad, more = across
        sides = down, (w - 1) * step - 2 * pad + k + more
        rows = x.flatten(2).transpose(1, 2).reshape(n * h * w, inputs)
        made = products.product(rows, self.weight.flatten(1))
        patches = made.view(n, h * w, -1).transpose(1, 2)
        patches = patches.float() if made.dtype == torch.bfloat16 else patches  # sums of them
        y = F.fold(patches, sides, self.kernel_size, 1, padding, self.stride)
        y = y if self.bias is None else y + self.bias[:, None, None]
        return y.to(made.dtype)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.conv2d(x, weight, bias)`` for a kernel of 1x1; the same function.

    On a CPU with one thread PyTorch leaves oneDNN, which is up to twice as fast, for batches below
    16. Channels last, some rows of a picture pass for a picture of their own: nothing is copied.
    """
    if (
        torch.compiler.is_compiling()  # a program for batches of any size
        or x.device.type != "cpu"
        or x.dtype == torch.bfloat16
        or len(weight) < 16
        or not x.is_contiguous(memory_format=torch.channels_last)
    ):
        return F.conv2d(x, weight, bias)
    n, _, h, w = x.shape
    parts = next((k for k in range(1, h + 1) if h % k == 0 and n * k >= 16), 1)
    rows = x.permute(0, 2, 3, 1).reshape(n * parts, h // parts, w, -1).permute(0, 3, 1, 2)
    y = F.conv2d(rows, weight, bias).permute(0, 2, 3, 1)
    return y.reshape(n, h, w, -1).permute(0, 3, 1, 2)


class PointwiseConv2d(nn.Conv2d):
    """`pointwise` as a layer."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.bias)


class NearestUpsample(nn.Module):
    """Nearest-neighbour enlargement by two, [N, C, H, W] -> [N, C, 2H, 2W]; deterministic."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x[:, :, :, None, :, None].expand(n, c, h, 2, w, 2).reshape(n, c, 2 * h, 2 * w)


def norm_layer(name: Norm, channels: int) -> nn.Module:
    """The normalisation ``name`` for ``channels``.

    ``instance`` has no parameters (CycleGAN), ``instance_affine`` has scale and centre,
    ``group`` has 32 groups, or fewer where 32 does not divide ``channels``.
    """
    makers: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: nn.BatchNorm2d(channels),
        "instance": lambda: InstanceNorm2d(channels),
        "instance_affine": lambda: InstanceNorm2d(channels, affine=True),
        "group": lambda: nn.GroupNorm(math.gcd(32, channels), channels),
        "none": nn.Identity,
    }
    if name not in makers:
        raise UserError(f"Unknown norm '{name}': one of {', '.join(makers)}{nearest(name, makers)}")
    return makers[name]()


def upsampling(
    inputs: int, outputs: int, mode: Upsample, kernel: int = 4, bias: bool = False
) -> nn.Module:
    """A layer that doubles the sides.

    ``deconv`` is a transposed convolution of stride 2 (kernel 3 or 4). ``resize_conv`` enlarges by
    nearest neighbour and convolves with the next odd kernel, which cannot paint a checkerboard.
    """
    if mode == "deconv":
        return InnerConvTranspose2d(
            inputs, outputs, kernel, 2, 1, output_padding=4 - kernel, bias=bias
        )
    if mode == "resize_conv":
        odd = kernel - 1 + kernel % 2
        return nn.Sequential(
            NearestUpsample(), nn.Conv2d(inputs, outputs, odd, padding=odd // 2, bias=bias)
        )
    options = get_args(Upsample)
    raise UserError(
        f"Unknown upsample '{mode}': one of {', '.join(options)}{nearest(mode, options)}"
    )


class ResidualBlock(Block):
    """x + (conv3 norm ReLU conv3 norm)(x), nothing after the sum (CycleGAN and StarGAN)."""

    def __init__(self, channels: int, norm: Norm, reflect: bool, bias: bool) -> None:
        super().__init__()

        def half() -> list[nn.Module]:
            return [
                *([ReflectionPad2d(1)] if reflect else []),
                Conv3x3(channels, channels, 0 if reflect else 1, bias),
                norm_layer(norm, channels),
            ]

        self.body = nn.Sequential(*half(), nn.ReLU(True), *half())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def init_normal_(module: nn.Module, std: float = 0.02) -> None:
    """Convolutions and linear layers ~ N(0, std), scales of norms ~ N(1, std), biases 0."""
    _init_(module, lambda weight: nn.init.normal_(weight, 0.0, std), std)


def init_xavier_(module: nn.Module, gain: float = 0.02) -> None:
    """Convolutions and linear layers ~ N(0, gain^2 2 / (fan in + fan out)), scales of norms
    ~ N(1, gain), biases 0."""
    _init_(module, lambda weight: nn.init.xavier_normal_(weight, gain), gain)


def _init_(module: nn.Module, weight_: Callable[[Tensor], Tensor], std: float) -> None:
    for m in module.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            weight_(m.weight)
        elif isinstance(m, (nn.BatchNorm2d, nn.GroupNorm, InstanceNorm2d)):
            if m.weight is not None:
                nn.init.normal_(m.weight, 1.0, std)
        else:
            continue
        if m.bias is not None:
            nn.init.zeros_(m.bias)


def spectral_norm_(module: nn.Module) -> None:
    """Divide every convolution's and linear layer's weight by its largest singular value.

    Miyato et al. 2018: one power iteration per forward in training mode, none in eval mode, on the
    weight as an (out, rest) matrix. Torch's parametrization differs in one thing: it begins with
    15 iterations. Call it after the initialisation.
    """
    for m in list(module.modules()):
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            parametrizations.spectral_norm(m)


def prefers_channels_last(module: nn.Module) -> bool:
    """Whether ``memory_format=torch.channels_last`` pays: not where a layer is the slower for it
    (group and instance norm, reflection), nor where a network lays out its maps itself."""
    slow = (InstanceNorm2d, nn.GroupNorm, ReflectionPad2d)
    return not any(isinstance(m, slow) or getattr(m, "own_layout", False) for m in module.modules())
