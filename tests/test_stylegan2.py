"""StyleGAN2's networks and path length against slow independent computations in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from gansuite.draws import Draws
from gansuite.errors import UserError
from gansuite.losses.path_length import lazy_adam, path_length_penalty, path_lengths
from gansuite.networks.blur import Fir
from gansuite.networks.stylegan2 import (
    PRESETS,
    StyleDiscriminator,
    StyleGenerator,
    interpolate,
    mixing_cutoff,
    project,
    style_mixing_grid,
)
from gansuite.networks.stylegan2.discriminator import minibatch_stddev
from gansuite.networks.stylegan2.generator import MappingNetwork, SynthesisLayer, ToRGB, num_ws
from gansuite.networks.stylegan2.layers import EqualizedConv2d, EqualizedLinear, ModulatedConv2d
from gansuite.rng import torch_generator

M = TypeVar("M", bound=nn.Module)


def gen(*position: int) -> torch.Generator:
    return torch_generator(0, "test", *position)


def draws(*position: int, shard: int = 0) -> Draws:
    return Draws(0, *position, shard=shard)


def randn(*shape: int, k: int = 0) -> Tensor:
    return torch.randn(shape, generator=gen(k, *shape), dtype=torch.float64)


def seeded(build: Callable[[], M]) -> M:
    """A float64 module whose zero-initialised parameters are made to matter."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build().double()
        for p in module.parameters():
            if not p.any():
                p.data.normal_()
    return module


@pytest.fixture(scope="module")
def tiny() -> StyleGenerator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        g = StyleGenerator(16, z_dim=8, w_dim=12, base=128, max_channels=16, mapping_layers=2)
    g.mapping.w_avg.copy_(torch.linspace(-1, 1, 12))
    return g.eval()


def tiny_copy() -> StyleGenerator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return StyleGenerator(16, z_dim=8, w_dim=12, base=128, max_channels=16, mapping_layers=2)


# ----------------------------------------------------------------------------- sizes, counts


@pytest.mark.parametrize(
    ("size", "sizes", "g", "d"),
    [
        (32, PRESETS[32], 4_320_915, 4_608_897),
        (64, PRESETS[64], 1_428_312, 1_465_025),
        (64, PRESETS[128], 5_699_224, 5_854_593),
        (128, PRESETS[128], 5_875_933, 5_973_313),
        (256, PRESETS[256], 5_936_642, 6_002_977),
        (1024, {}, 30_370_060, 29_012_513),
        (256, {}, 30_034_338, 28_864_129),
        (256, {"base": 16384}, 24_767_458, 24_001_089),
        (256, {"base": 16384, "mapping_layers": 2}, 23_191_522, 24_001_089),
        (128, {"base": 16384, "mapping_layers": 2}, 22_949_277, 23_882_369),
        (64, {"base": 16384, "mapping_layers": 2}, 22_243_608, 23_407_361),
        (32, {"base": 16384, "mapping_layers": 2}, 19_947_539, 20_720_641),
    ],
)
def test_published_parameter_counts(size: int, sizes: dict[str, int], g: int, d: int) -> None:
    widths = {k: v for k, v in sizes.items() if k in ("base", "max_channels")}
    with torch.device("meta"):
        generator = StyleGenerator(size, **sizes)
        # the authors' CIFAR-10 configuration is the only one without residual blocks
        discriminator = StyleDiscriminator(size, residual=d != 20_720_641, **widths)
    assert sum(p.numel() for p in generator.parameters()) == g
    assert sum(p.numel() for p in discriminator.parameters()) == d
    assert generator.num_ws == num_ws(size) == 2 * int(math.log2(size)) - 2


def test_shapes_and_sizes(tiny: StyleGenerator) -> None:
    images = tiny(torch.randn(3, 8, generator=gen()), draws=draws())
    assert images.shape == (3, 3, 16, 16)
    assert StyleDiscriminator(16, base=128, max_channels=16)(images).shape == (3, 1)
    with torch.device("meta"):
        for size in (0, 4, 48):
            with pytest.raises(UserError, match=f"power of two.*not {size}"):
                StyleGenerator(size)
            with pytest.raises(UserError):
                StyleDiscriminator(size)
        assert StyleGenerator(8, 1)(torch.zeros(2, 512)).shape == (2, 1, 8, 8)


# ------------------------------------------------------------------------------------ layers


def fir_1d(x: np.ndarray, axis: int, up: int, down: int, pad: tuple[int, int]) -> np.ndarray:
    """scipy's resampling along one axis, zero padding ``pad`` around the expanded signal."""
    h = np.array([1.0, 3.0, 3.0, 1.0]) / 8 * up
    side = x.shape[axis]
    full = upfirdn(h, x, up=up, down=1, axis=axis)  # starts 3 before the first whole overlap
    full = np.take(full, range(min(full.shape[axis], side * up + 3)), axis=axis)
    missing = side * up + 3 - full.shape[axis]
    full = np.pad(full, [(0, missing if a == axis else 0) for a in range(x.ndim)])
    start = 3 - pad[0]
    stop = start + side * up + sum(pad) - 3
    return np.take(full, range(start, stop, down), axis=axis)


@pytest.mark.parametrize(
    ("mode", "up", "down", "pad", "gain"),
    [
        ("down", 1, 2, (1, 1), 1),
        ("up", 2, 1, (2, 1), 1),
        ("after_up", 1, 1, (1, 1), 4),
        ("before_down", 1, 1, (2, 2), 1),
    ],
)
@pytest.mark.parametrize("side", [6, 9])
def test_fir_against_scipy(
    mode: Any, up: int, down: int, pad: tuple[int, int], gain: int, side: int
) -> None:
    x = randn(2, 3, side, side + 2)
    y = x.numpy()
    for axis in (2, 3):
        y = fir_1d(y, axis, up, down, pad)
    torch.testing.assert_close(Fir(mode).double()(x), gain * torch.from_numpy(y))
    assert gradgradcheck(Fir(mode).double(), randn(1, 2, 4, 4).requires_grad_())


def test_resampling_keeps_constants_inside() -> None:
    x = torch.full((1, 2, 12, 12), 0.7)
    assert Fir("up")(x)[..., 2:-2, 2:-2].sub(0.7).abs().max() < 1e-6
    assert Fir("down")(x)[..., 1:-1, 1:-1].sub(0.7).abs().max() < 1e-6


def test_down_in_bfloat16_takes_the_same_values() -> None:
    x = randn(1, 4, 8, 8).bfloat16()
    expected = Fir("down").double()(x.double())
    torch.testing.assert_close(Fir("down")(x).double(), expected, atol=2e-2, rtol=2e-2)


def test_equalised_linear() -> None:
    layer = seeded(lambda: EqualizedLinear(400, 300, lr_mult=0.01, activation=True))
    assert layer.weight.std().item() == pytest.approx(100, rel=0.02)
    x = randn(5, 400)
    pre = x @ (layer.weight * 0.01 / 20).T + 0.01 * layer.bias
    torch.testing.assert_close(layer(x), F.leaky_relu(pre, 0.2) * 2**0.5)
    affine = seeded(lambda: EqualizedLinear(9, 4, bias_init=1.0))
    torch.testing.assert_close(affine(torch.zeros(2, 9).double()), torch.ones(2, 4).double())


def slow_down(x: Tensor, pad: int, stride: int) -> Tensor:
    """Low-pass by explicit sums of shifted copies."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype) / 8
    x = F.pad(x, (pad,) * 4)
    h, w = x.shape[2] - 3, x.shape[3] - 3
    out = sum(taps[i] * taps[j] * x[:, :, i : i + h, j : j + w] for i in range(4) for j in range(4))
    assert isinstance(out, Tensor)
    return out[:, :, ::stride, ::stride]


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("activation", [False, True])
def test_equalised_conv(kernel: int, down: bool, activation: bool) -> None:
    layer = seeded(
        lambda: EqualizedConv2d(3, 5, kernel, down=down, activation=activation, gain=0.7)
    )
    x = randn(2, 3, 8, 8)
    weight = layer.weight / (3 * kernel**2) ** 0.5
    if down:
        # the low-pass before the strided convolution, whatever the order inside
        y = F.conv2d(slow_down(x, 2 if kernel == 3 else 1, 1), weight, stride=2)
    else:
        y = F.conv2d(x, weight, padding=kernel // 2)
    if layer.bias is not None:
        y = F.leaky_relu(y + layer.bias[:, None, None], 0.2) * 2**0.5
    assert (layer.bias is not None) == activation
    torch.testing.assert_close(layer(x), 0.7 * y)


def per_sample_conv(layer: ModulatedConv2d, x: Tensor, w: Tensor, up: bool) -> Tensor:
    """Modulated convolution as the paper writes it: one weight per sample, one group each."""
    n, inputs, outputs = len(x), layer.weight.shape[1], layer.weight.shape[0]
    kernel = layer.weight.shape[2]
    style = w @ (layer.affine.weight / w.shape[1] ** 0.5).T + layer.affine.bias
    weight = layer.weight[None] * style[:, None, :, None, None]
    if layer.demodulate:
        norm = weight.square().sum((2, 3, 4), keepdim=True)
        weight = weight / (norm + 1e-8).sqrt()
    else:
        weight = weight / (inputs * kernel**2) ** 0.5
    flat = x.reshape(1, n * inputs, *x.shape[2:])
    if not up:
        out = F.conv2d(flat, weight.flatten(0, 1), padding=kernel // 2, groups=n)
        return out.view(n, outputs, *x.shape[2:])
    out = F.conv_transpose2d(flat, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=n)
    return 4 * slow_down(out.view(n, outputs, *out.shape[2:]), 1, 1)


@pytest.mark.parametrize(
    ("kernel", "up", "demodulate"), [(3, False, True), (3, True, True), (1, False, False)]
)
def test_modulated_conv_against_per_sample_weights(kernel: int, up: bool, demodulate: bool) -> None:
    layer = seeded(lambda: ModulatedConv2d(4, 5, kernel, 6, up=up, demodulate=demodulate))
    x, w = randn(3, 4, 6, 6).requires_grad_(), randn(3, 6).requires_grad_()
    ours, slow = layer(x, w), per_sample_conv(layer, x, w, up)
    assert ours.shape == (3, 5, 12, 12) if up else (3, 5, 6, 6)
    torch.testing.assert_close(ours, slow, atol=1e-12, rtol=1e-12)
    inputs = [x, w, *layer.parameters()]
    seed = randn(*ours.shape, k=1)
    first = [torch.autograd.grad(y, inputs, seed, create_graph=True) for y in (ours, slow)]
    for a, b in zip(*first, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)
    # and a second time, as R1 and path length need it
    second = [
        torch.autograd.grad(torch.stack([t.square().sum() for t in g]).sum(), inputs) for g in first
    ]
    for a, b in zip(*second, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


def test_demodulation_keeps_unit_variance() -> None:
    layer = seeded(lambda: ModulatedConv2d(64, 64, 3, 32))
    x, w = randn(4, 64, 32, 32), 3 * randn(4, 32)
    inside = layer(x, w)[..., 1:-1, 1:-1]
    assert inside.var().item() == pytest.approx(1, abs=0.05)
    assert layer.affine.bias.eq(1).all()  # styles start around 1
    plain = seeded(lambda: ModulatedConv2d(64, 64, 3, 32, demodulate=False))
    assert plain(x, w).var().item() > 3


@pytest.mark.parametrize("up", [False, True])
def test_synthesis_layer_order(up: bool) -> None:
    """Demodulation, then noise, then bias, then activation; gains not folded."""
    layer = seeded(lambda: SynthesisLayer(4, 5, 12 if up else 6, 6, up=up))
    x, w = randn(2, 4, 6, 6), randn(2, 6)
    noise = randn(2, 1, layer.size, layer.size)
    y = per_sample_conv(layer.conv, x, w, up) + layer.noise_strength * noise
    y = 2**0.5 * F.leaky_relu(y + layer.bias[:, None, None], 0.2)
    torch.testing.assert_close(layer(x, w, noise), y)
    # no activation in between, and the same noise for every channel
    rgb = seeded(lambda: ToRGB(4, 3, 6))
    expected = per_sample_conv(rgb.conv, x, w, False) + rgb.bias[:, None, None]
    torch.testing.assert_close(rgb(x, w), expected)


# --------------------------------------------------------------------------------- generator


def test_generator_against_its_definition() -> None:
    """The whole forward, written out: which w each layer takes and how the images add up."""
    g = seeded(tiny_copy).eval()
    ws = randn(2, 6, 12)
    blocks: list[Any] = list(g.synthesis.blocks)
    x = g.synthesis.const.expand(2, -1, -1, -1)
    image = torch.zeros(2, 3, 2, 2).double()
    layer = 0
    for block in blocks:
        image = Fir("up").double()(image)
        for part in ([] if layer == 0 else [block.up]) + [block.conv]:
            x = part(x, ws[:, layer], part.noise_const[None, None])
            layer += 1
        image = image + block.rgb(x, ws[:, layer])
    assert layer == 5
    torch.testing.assert_close(g.synthesis(ws), image)


def test_mapping() -> None:
    m = seeded(lambda: MappingNetwork(6, 5, 2)).eval()
    z = randn(4, 6)
    x = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
    layers: list[Any] = list(m.layers)
    for layer in layers:
        pre = x @ (layer.weight * 0.01 / x.shape[1] ** 0.5).T + 0.01 * layer.bias
        x = 2**0.5 * torch.where(pre > 0, pre, 0.2 * pre)
    torch.testing.assert_close(m(z), x)
    torch.testing.assert_close(m(7 * z), x)  # only the direction of z matters
    m.train()(z)
    assert not m.w_avg.any()
    for _ in range(2):
        m.update_average(x.mean(0).detach())
    torch.testing.assert_close(m.w_avg, (1 - 0.995**2) * x.mean(0).detach())


def test_noise(tiny: StyleGenerator) -> None:
    z = torch.randn(2, 8, generator=gen())
    at_init = tiny(z, draws=draws(1))
    assert torch.equal(at_init, tiny(z, draws=draws(2)))
    assert torch.equal(at_init, tiny(z, noise="none"))
    g = tiny_copy()
    for layer in g.modules():
        if isinstance(layer, SynthesisLayer):
            layer.noise_strength.data.fill_(0.3)
    first = g(z, draws=draws(1))
    assert torch.equal(first, g(z, draws=draws(1)))
    assert not torch.allclose(first, g(z, draws=draws(2)), atol=1e-2)
    assert torch.equal(g(z), g(z, noise="const"))
    assert not torch.allclose(g(z), g(z, noise="none"), atol=1e-2)
    with pytest.raises(ValueError, match="needs draws"):
        g(z, noise="random")
    # two processes draw what one would
    z = torch.randn(4, 8, generator=gen())
    halves = [g(z[2 * r : 2 * r + 2], draws=draws(1, shard=r)) for r in (0, 1)]
    torch.testing.assert_close(torch.cat(halves), g(z, draws=draws(1)))


def test_truncation(tiny: StyleGenerator) -> None:
    z = torch.randn(4, 8, generator=gen())
    mean_image = tiny.synthesis(tiny.mapping.w_avg.expand(1, 6, 12))
    torch.testing.assert_close(
        tiny(z, truncation_psi=0.0), mean_image.expand(4, -1, -1, -1), atol=1e-5, rtol=1e-5
    )
    assert torch.equal(tiny(z, truncation_psi=1.0), tiny(z))
    half = tiny.styles(z, truncation_psi=0.5)
    torch.testing.assert_close(half, (tiny.styles(z) + tiny.mapping.w_avg) / 2)


def test_style_mixing(tiny: StyleGenerator) -> None:
    z, other = torch.randn(2, 3, 8, generator=gen())
    a, b = tiny.styles(z), tiny.styles(other)
    mixed = tiny.styles(z, z_mix=other, cutoff=2)
    assert torch.equal(mixed[:, :2], a[:, :2])
    assert torch.equal(mixed[:, 2:], b[:, 2:])
    assert torch.equal(tiny.styles(z, z_mix=other, cutoff=6), a)
    assert torch.equal(tiny(z, z_mix=other, cutoff=2), tiny.synthesis(mixed))
    source = draws()
    cutoffs = [mixing_cutoff(6, source) for _ in range(4000)]
    share = [cutoffs.count(c) / 4000 for c in range(8)]
    assert share == pytest.approx([0, 0.18, 0.18, 0.18, 0.18, 0.18, 0.1, 0], abs=0.025)


def test_generator_gradients_twice() -> None:
    g = seeded(lambda: StyleGenerator(8, 1, z_dim=2, w_dim=2, base=16, mapping_layers=1))
    ws = randn(1, 4, 2).requires_grad_()
    assert gradcheck(g.synthesis, ws)
    assert gradgradcheck(g.synthesis, ws, gen_non_contig_grad_outputs=True)


# ----------------------------------------------------------------------------- discriminator


def test_minibatch_stddev_by_hand() -> None:
    x = randn(8, 3, 2, 2)
    out = minibatch_stddev(x, 4)
    assert torch.equal(out[:, :3], x)
    for k in (0, 4):
        members = x[k : k + 4].numpy()
        value = np.sqrt(members.var(0) + 1e-8).mean()
        np.testing.assert_allclose(out[k : k + 4, 3].numpy(), value, rtol=1e-12)
    # 6 is not divisible by 4: groups of 3
    six = minibatch_stddev(x[:6], 4)
    torch.testing.assert_close(six[:, 3:], minibatch_stddev(x[:6], 3)[:, 3:])
    assert len(six[:, 3].unique()) == 2
    assert torch.allclose(minibatch_stddev(x[:5], 4)[:, 3], torch.tensor(1e-4).double())
    # the authors' groups have every (N / group)-th sample: those of the batch in another order
    theirs = x.reshape(4, 2, 3, 2, 2).var(0, correction=0).add(1e-8).sqrt().mean((1, 2, 3))
    order = torch.arange(8).view(4, 2).T.flatten()
    inverse = order.argsort()
    torch.testing.assert_close(
        minibatch_stddev(x[order], 4)[inverse, 3, 0, 0], theirs.repeat(4), rtol=1e-12, atol=0
    )
    # reals and fakes in one call give what two calls give
    parts = [minibatch_stddev(half, 4) for half in (x[:4], x[4:])]
    torch.testing.assert_close(torch.cat(parts), out)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_minibatch_stddev_in_16_bits(dtype: torch.dtype) -> None:
    """1e-8 is 0 in fp16: equal samples would have an infinite slope."""
    x = randn(1, 3, 2, 2).to(dtype).expand(4, -1, -1, -1).clone().requires_grad_()
    out = minibatch_stddev(x, 4)
    assert out.dtype == dtype
    assert out[0, 3, 0, 0].item() == pytest.approx(1e-4, rel=0.01)
    (slope,) = torch.autograd.grad(out[:, 3].float().sum(), x)
    assert slope.isfinite().all()
    y = (randn(8, 16, 4, 4) * 1e-3 + 1).to(dtype)  # little spread around a large mean
    expected = minibatch_stddev(y.double(), 4)[:, 16, 0, 0]
    found = minibatch_stddev(y, 4)[:, 16, 0, 0].double()
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0)


@pytest.mark.parametrize("residual", [True, False])
def test_discriminator_against_its_definition(residual: bool) -> None:
    d = seeded(lambda: StyleDiscriminator(8, base=32, max_channels=6, residual=residual))

    def conv(x: Tensor, layer: EqualizedConv2d, stride: int = 1, pad: int = 0) -> Tensor:
        weight = layer.weight / layer.weight[0].numel() ** 0.5
        return F.conv2d(x, weight, layer.bias, stride=stride, padding=pad)

    def act(x: Tensor) -> Tensor:
        return 2**0.5 * F.leaky_relu(x, 0.2)

    def dense(x: Tensor, layer: EqualizedLinear) -> Tensor:
        return F.linear(x, layer.weight / x.shape[1] ** 0.5, layer.bias)

    x = randn(4, 3, 8, 8)
    y = act(conv(x, d.from_rgb))
    block: Any = d.blocks[0]
    inner = act(conv(slow_down(act(conv(y, block.conv, pad=1)), 2, 1), block.down, stride=2))
    if residual:
        inner = (inner + conv(slow_down(y, 1, 2), block.skip)) * 0.5**0.5
    y = act(conv(minibatch_stddev(inner, 4), d.conv, pad=1))
    y = dense(act(dense(y.reshape(4, -1), d.dense)), d.out)
    torch.testing.assert_close(d(x), y)


def test_r1_through_the_discriminator() -> None:
    """The gradient of R1 with respect to a weight against finite differences."""
    d = seeded(lambda: StyleDiscriminator(8, 1, base=16, max_channels=4))
    x = randn(4, 1, 8, 8).requires_grad_()

    def r1() -> Tensor:
        (g,) = torch.autograd.grad(d(x).sum(), x, create_graph=True)
        return g.square().sum((1, 2, 3)).mean()

    weight = d.from_rgb.weight
    (analytic,) = torch.autograd.grad(r1(), weight)
    eps, flat = 1e-6, weight.data.view(-1)
    for k in (0, 1):
        values = []
        for sign in (1, -1):
            flat[k] += sign * eps
            values.append(r1().item())
            flat[k] -= sign * eps
        slope = (values[0] - values[1]) / (2 * eps)
        assert analytic.view(-1)[k].item() == pytest.approx(slope, rel=1e-5)


def test_bfloat16_autocast_is_finite(tiny: StyleGenerator) -> None:
    d = StyleDiscriminator(16, base=128, max_channels=16)
    with torch.autocast("cpu", torch.bfloat16):
        images = tiny(torch.randn(4, 8, generator=gen()), draws=draws())
        loss = F.softplus(-d(images).float()).mean()
    loss.backward()
    grads = [p.grad for p in [*tiny.parameters(), *d.parameters()] if p.grad is not None]
    assert len(grads) > 50
    assert all(g.isfinite().all() for g in grads)
    tiny.zero_grad()


# ---------------------------------------------------------------------------- path length


class Linear(nn.Module):
    """A generator whose image is linear in ws: its Jacobian is its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(randn(2 * 4 * 4, 3 * 5))

    def forward(self, ws: Tensor) -> Tensor:
        return (ws.flatten(1) @ self.weight.T).view(-1, 2, 4, 4)


def pulled(weight: Tensor, y: Tensor) -> Tensor:
    """The path lengths of `Linear`, in closed form."""
    return (y.flatten(1) @ weight).view(-1, 3, 5).square().sum(2).mean(1).sqrt()


def test_path_length_against_the_jacobian() -> None:
    g, ws = Linear(), randn(6, 3, 5).requires_grad_()
    mean = torch.tensor(0.8, dtype=torch.float64)
    penalty, new_mean, lengths = path_length_penalty(g(ws), ws, mean, draws())

    y = draws().randn(6, 2, 4, 4).double() / 4
    jacobian = torch.autograd.functional.jacobian(g, ws.detach())  # [6,2,4,4,6,3,5]
    slow = [torch.tensordot(y[n], jacobian[n, :, :, :, n], 3) for n in range(6)]
    expected = torch.stack([v.square().sum(1).mean().sqrt() for v in slow])
    torch.testing.assert_close(lengths, expected)
    a = 0.8 + 0.01 * (expected.mean() - 0.8)
    torch.testing.assert_close(new_mean, a)
    torch.testing.assert_close(penalty.detach(), (expected - a).square().mean())
    assert not new_mean.requires_grad

    # second order: the penalty's gradient, which flows through a as well
    (analytic,) = torch.autograd.grad(penalty, g.weight)

    weight = g.weight.detach().clone().requires_grad_()
    found = pulled(weight, y)
    by_hand = (found - (0.8 + 0.01 * (found.mean() - 0.8))).square().mean()
    (whole,) = torch.autograd.grad(by_hand, weight, retain_graph=True)
    torch.testing.assert_close(analytic, whole, rtol=1e-9, atol=1e-12)
    # a constant a would be off by more than that
    held = (found - a).square().mean()
    (constant,) = torch.autograd.grad(held, weight)
    assert (constant - whole).norm() / whole.norm() > 1e-4

    # two processes, whose gradients are averaged
    both = []
    for r, part in enumerate(ws.detach().split(3)):
        part.requires_grad_()
        penalty, new_mean, _ = path_length_penalty(
            g(part), part, mean, draws(shard=r), over_ranks=lambda _: expected.mean()
        )
        torch.testing.assert_close(new_mean, a)
        both.append(torch.autograd.grad(penalty, g.weight)[0])
    torch.testing.assert_close((both[0] + both[1]) / 2, whole, rtol=1e-9, atol=1e-12)

    halves = [path_lengths(g(part), part, draws(shard=r)) for r, part in enumerate(ws.split(3))]
    torch.testing.assert_close(torch.cat(halves), expected)


def test_path_length_reaches_the_generator() -> None:
    g = tiny_copy()
    ws = g.styles(torch.randn(2, 8, generator=gen()))
    images = g.synthesis(ws, draws=draws())
    penalty, _, _ = path_length_penalty(images, ws, torch.zeros(()), draws())
    penalty.backward()
    for name, p in g.named_parameters():
        if name.endswith("conv.weight"):
            assert p.grad is not None, name
            assert p.grad.abs().sum() > 0, name


def test_lazy_adam() -> None:
    lr, betas = lazy_adam(0.0025, (0, 0.99), 4)
    assert lr == pytest.approx(0.002)
    assert betas == pytest.approx((0, 0.991992), abs=5e-7)
    lr, betas = lazy_adam(0.0025, (0.0, 0.99), 16)
    assert lr == pytest.approx(0.0025 * 16 / 17)
    assert betas[1] == pytest.approx(0.990585, abs=5e-7)
    assert lazy_adam(0.002, (0.5, 0.99), 0) == (0.002, (0.5, 0.99))
    torch.optim.Adam([torch.zeros(1)], lr, betas)  # which refuses integer betas


# ------------------------------------------------------------------------- using a generator


def test_interpolation(tiny: StyleGenerator) -> None:
    z = torch.randn(3, 8, generator=gen())
    walk = interpolate(tiny, z, 4, batch=4)
    assert walk.shape == (9, 3, 16, 16)
    torch.testing.assert_close(walk[::4], tiny(z), atol=1e-5, rtol=1e-5)
    ws = tiny.styles(z)
    torch.testing.assert_close(
        walk[5], tiny.synthesis(0.75 * ws[1:2] + 0.25 * ws[2:3])[0], atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(interpolate(tiny, ws, 4), walk, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="two keys"):
        interpolate(tiny, z[:1], 4)


def test_mixing_grid(tiny: StyleGenerator) -> None:
    z = torch.randn(5, 8, generator=gen())
    rows, cols, mixed = style_mixing_grid(tiny, z[:2], z[2:], [0, 2, 6])
    assert mixed.shape == (3, 2, 3, 3, 16, 16)
    close: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(torch.cat([rows, cols]), tiny(z), **close)
    torch.testing.assert_close(mixed[0], cols.expand(2, 3, 3, 16, 16), **close)
    torch.testing.assert_close(mixed[2], rows[:, None].expand(2, 3, 3, 16, 16), **close)
    expected = tiny(z[1:2], z_mix=z[4:5], cutoff=2)[0]
    torch.testing.assert_close(mixed[1, 1, 2], expected, **close)


def test_projection_finds_a_generated_picture() -> None:
    g = tiny_copy()
    before = {k: v.clone() for k, v in g.state_dict().items()}
    w = g.mapping(torch.randn(1, 8, generator=gen()))
    target = g.synthesis(w[:, None].expand(-1, 6, -1).detach()).detach()
    made = project(g, target, 80, samples=100)
    z = torch.randn(64, 8, generator=gen())
    centre = g.mapping(z).mean(0).expand(1, 6, 12)
    start = F.mse_loss(g.synthesis(centre), target)
    assert made.losses.shape == (80,)
    assert F.mse_loss(made.images, target) < 0.02 * start
    assert torch.equal(project(g, target, 5, samples=100).w, project(g, target, 5, samples=100).w)
    assert not torch.equal(
        project(g, target, 5, samples=100).w, project(g, target, 5, samples=100, seed=1).w
    )
    calls = []

    def features(made: Tensor, image: Tensor) -> Tensor:
        calls.append(1)
        return (made - image).abs().mean()

    project(g, target, 3, samples=10, loss=features)
    assert len(calls) == 3
    assert g.training
    assert all(p.grad is None for p in g.parameters())
    assert all(torch.equal(v, before[k]) for k, v in g.state_dict().items())
