"""Networks against published parameter counts, torch's own layers and closed forms."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from gansuite.draws import Draws
from gansuite.errors import UserError
from gansuite.networks import layers
from gansuite.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from gansuite.networks.discogan import DiscoGANDiscriminator, DiscoGANGenerator
from gansuite.networks.dualgan import (
    DualGANCritic,
    DualGANGenerator,
    SameConv2d,
    SameConvTranspose2d,
)
from gansuite.networks.mlp import Maxout, MLPDiscriminator, MLPGenerator
from gansuite.networks.pairs import pair
from gansuite.networks.patchgan import PatchDiscriminator
from gansuite.networks.pool import ImagePool
from gansuite.networks.r3gan import R3GANDiscriminator
from gansuite.networks.resnet import ResnetGenerator
from gansuite.networks.sngan import (
    DownBlock,
    SNGANDiscriminator,
    SNGANGenerator,
    SNResnetDiscriminator,
    SNResnetGenerator,
    UpBlock,
)
from gansuite.networks.stargan import StarGANDiscriminator, StarGANGenerator
from gansuite.networks.unet import UNetGenerator
from gansuite.ops import products
from gansuite.rng import torch_generator

Make = Callable[[], nn.Module]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# Sizes


COUNTS: list[tuple[int, Make]] = [
    (1_068_928, lambda: DCGANGenerator(32)),
    (663_296, lambda: DCGANDiscriminator(32)),
    (3_576_704, lambda: DCGANGenerator(64)),
    (2_765_568, lambda: DCGANDiscriminator(64)),
    (12_786_560, lambda: DCGANGenerator(128)),
    (11_164_416, lambda: DCGANDiscriminator(128)),
    (3_574_656, lambda: DCGANGenerator(64, channels=1)),
    (2_763_520, lambda: DCGANDiscriminator(64, channels=1)),
    (2_503_984, lambda: MLPGenerator(28)),
    (1_231_441, lambda: MLPDiscriminator(28)),
    (3_812_355, lambda: SNGANGenerator(32)),
    (2_935_873, lambda: SNGANDiscriminator(32)),
    (4_276_739, lambda: SNResnetGenerator(32)),
    (1_204_483, lambda: SNResnetGenerator(32, width=128)),
    (1_053_824, lambda: SNResnetDiscriminator(32)),  # its last layer has no bias
    (1_053_825, lambda: SNResnetDiscriminator(32, spectral=False, pool="mean", bias=True)),
    (11_378_179, lambda: ResnetGenerator()),
    (7_837_699, lambda: ResnetGenerator(blocks=6)),
    (11_388_675, lambda: ResnetGenerator(norm="instance_affine")),
    (7_845_123, lambda: ResnetGenerator(blocks=6, norm="instance_affine")),
    (54_409_603, lambda: UNetGenerator()),
    (41_825_667, lambda: UNetGenerator(downs=7)),
    (54_413_955, lambda: UNetGenerator(norm="batch")),
    (41_828_995, lambda: UNetGenerator(downs=7, norm="batch")),
    (11_378_179, lambda: ResnetGenerator(antialias=True)),
    (2_764_737, lambda: PatchDiscriminator(antialias=True)),
    (2_765_633, lambda: PatchDiscriminator(norm="batch")),
    (2_768_705, lambda: PatchDiscriminator(6, norm="batch")),
    (136_385, lambda: PatchDiscriminator(layers=1)),
    (662_977, lambda: PatchDiscriminator(layers=2)),
    (2_764_737, lambda: PatchDiscriminator()),
    (2_766_529, lambda: PatchDiscriminator(norm="instance_affine")),
    (6_959_553, lambda: PatchDiscriminator(layers=4)),
    (30_627_907, lambda: DualGANGenerator(256)),
    (23_546_947, lambda: DualGANGenerator(128)),
    (3_949_441, lambda: DualGANCritic(256)),
    (3_924_865, lambda: DualGANCritic(128)),
    (3_921_281, lambda: DualGANCritic(256, head="patch")),
    (5_513_856, lambda: DiscoGANGenerator()),
    (7_153_480, lambda: DiscoGANGenerator(extra=True)),
    (2_765_568, lambda: DiscoGANDiscriminator(64)),
    (8_430_528, lambda: StarGANGenerator(5)),
    (8_439_936, lambda: StarGANGenerator(8)),
    (44_762_048, lambda: StarGANDiscriminator(128, 5)),
    (44_786_624, lambda: StarGANDiscriminator(128, 8)),
    (44_884_928, lambda: StarGANDiscriminator(256, 5)),
    (44_731_328, lambda: StarGANDiscriminator(64, 5)),
]


@pytest.mark.parametrize(("count", "make"), COUNTS)
def test_parameter_counts_are_the_published_ones(count: int, make: Make) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in make().parameters()) == count


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_generators_from_noise(size: int, channels: int) -> None:
    for make in (DCGANGenerator, MLPGenerator, SNGANGenerator, SNResnetGenerator):
        g = make(size, channels, z_dim=5, width=2)
        x = g(torch.randn(2, 5))
        assert x.shape == (2, channels, size, size)
        assert x.abs().max() <= 1


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_discriminators_give_one_logit_per_picture(size: int, channels: int) -> None:
    x = torch.rand(2, channels, size, size) * 2 - 1
    nets: list[nn.Module] = [
        DCGANDiscriminator(size, channels, 2),
        DCGANDiscriminator(size, channels, 2, norm="none", spectral=True),
        DCGANDiscriminator(size, channels, 3, norm="group"),
        MLPDiscriminator(size, channels, 2),
        SNGANDiscriminator(size, channels, 2),
        SNResnetDiscriminator(size, channels, 2),
        *([DualGANCritic(size, channels, 2)] if size >= 32 else []),
    ]
    for net in nets:
        assert net(x).shape == (2,)


TRANSLATORS: list[Callable[[layers.Upsample], nn.Module]] = [
    lambda up: ResnetGenerator(width=4, blocks=1, upsample=up),
    lambda up: ResnetGenerator(width=4, blocks=1, upsample=up, antialias=True),
    lambda up: UNetGenerator(width=2, downs=5, upsample=up),
    lambda up: DualGANGenerator(32, width=2, upsample=up),
    lambda up: DiscoGANGenerator(width=2, upsample=up),
]


@pytest.mark.parametrize("upsample", ["deconv", "resize_conv"])
@pytest.mark.parametrize("make", TRANSLATORS)
def test_translators_keep_any_multiple_of_their_stride(
    make: Callable[[layers.Upsample], nn.Module], upsample: layers.Upsample
) -> None:
    g = make(upsample)
    s = g.stride
    assert isinstance(s, int)
    x = torch.rand(2, 3, 3 * s, 5 * s) * 2 - 1
    y = g(x)
    assert y.shape == x.shape
    assert y.abs().max() <= 1
    y.sum().backward()
    assert all(p.grad is not None for p in g.parameters())


def test_translators_take_other_output_channels() -> None:
    for g in (
        ResnetGenerator(1, 2, 1, out_channels=3),
        UNetGenerator(1, 2, 5, out_channels=3),
        DiscoGANGenerator(1, 2, out_channels=3),
    ):
        assert g(torch.zeros(1, 1, 32, 32)).shape == (1, 3, 32, 32)


@pytest.mark.parametrize(("size", "side"), [(256, 30), (128, 14), (64, 6)])
def test_patch_discriminator_maps(size: int, side: int) -> None:
    with torch.device("meta"):
        x = torch.zeros(1, 3, size, size)
        assert PatchDiscriminator()(x).shape == (1, 1, side, side)
        assert PatchDiscriminator(antialias=True)(x).shape == (1, 1, side, side)


@pytest.mark.parametrize(("n", "field"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_receptive_field_of_the_patch_discriminator(n: int, field: int) -> None:
    d = PatchDiscriminator(1, 1, n, norm="none")
    for p in d.parameters():
        nn.init.constant_(p, 0.1)  # nothing cancels, no unit is silent
    x = torch.ones(1, 1, 256, 256, requires_grad=True)
    out = d(x)
    m = out.shape[-1] // 2
    out[0, 0, m, m].backward()
    assert x.grad is not None
    assert int((x.grad[0, 0] != 0).any(0).sum()) == field


def test_stargan_shapes() -> None:
    with torch.device("meta"):
        x = torch.zeros(2, 3, 128, 128)
        adv, cls = StarGANDiscriminator(128, 5)(x)
        assert adv.shape == (2, 1, 2, 2)
        assert cls.shape == (2, 5)
        assert StarGANGenerator(5)(x, torch.zeros(2, 5)).shape == x.shape
    small = StarGANDiscriminator(48, 4, channels=1, width=2, layers=3)
    adv, cls = small(torch.zeros(2, 1, 48, 48))
    assert adv.shape == (2, 1, 6, 6)
    assert cls.shape == (2, 4)
    g = StarGANGenerator(2, width=4, blocks=1, upsample="resize_conv")
    assert g(torch.zeros(2, 3, 20, 28), torch.eye(2)).shape == (2, 3, 20, 28)


def test_discogan_works_on_the_published_range() -> None:
    """[0, 1] inside: a sigmoid at the end, and a discriminator that sees contrast.

    Without biases and with a batch norm of each batch's own it does not see the scale of what it
    is given: brightness, not the contrast around grey."""
    x = torch.rand(8, 3, 64, 64, generator=torch_generator(0, "discogan")) * 2 - 1
    generator, discriminator = DiscoGANGenerator(width=4), DiscoGANDiscriminator(64, width=4)
    with torch.no_grad():
        made = generator(x)
        assert torch.allclose((made + 1) / 2, generator.body((x + 1) / 2).sigmoid(), atol=1e-6)
        logits, _ = discriminator(x)
        darker, _ = discriminator((x + 1) * 0.7 - 1)
        greyer, _ = discriminator(x * 0.7)
    assert torch.allclose(darker, logits, atol=1e-3)
    assert not torch.allclose(greyer, logits, atol=1e-2)


@pytest.mark.parametrize("size", [32, 48, 64, 128])
def test_discogan_discriminator_returns_logits_and_features(size: int) -> None:
    logits, features = DiscoGANDiscriminator(size, width=2)(torch.zeros(2, 3, size, size))
    assert logits.shape == (2,)
    assert [f.shape[1:] for f in features] == [(c, size // s, size // s) for c, s in
                                               ((4, 4), (8, 8), (16, 16))]  # fmt: skip
    assert features[0].requires_grad


def test_dualgan_patch_critic() -> None:
    with torch.device("meta"):
        critic = DualGANCritic(256, head="patch")
        assert critic(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 4, 4)


@pytest.mark.parametrize(
    ("make", "say"),
    [
        (lambda: DCGANGenerator(48), "48: choose 64"),
        (lambda: DCGANDiscriminator(8), "8: choose 16"),
        (lambda: SNGANGenerator(36), "36: choose 40"),
        (lambda: SNResnetDiscriminator(20), "20: choose 32"),
        (lambda: DualGANGenerator(16), "16: choose 32"),
        (lambda: DiscoGANDiscriminator(60), "60: choose 64"),
        (lambda: StarGANDiscriminator(32, 5), "32: choose 64"),
        (lambda: PatchDiscriminator(norm="instanse"), "did you mean 'instance'"),  # type: ignore[arg-type]
        (lambda: ResnetGenerator(upsample="decnv"), "did you mean 'deconv'"),  # type: ignore[arg-type]
        (lambda: DualGANGenerator(32, upsample="resize"), "did you mean 'resize_conv'"),  # type: ignore[arg-type]
        (lambda: ResnetGenerator(width=2, blocks=1)(torch.zeros(1, 3, 4, 4)), "too small"),
    ],
)
def test_bad_sizes_and_names_say_what_to_do(make: Make, say: str) -> None:
    with pytest.raises(UserError, match=say):
        make()


# Layers


def same(ours: nn.Module, reference: nn.Module, x: Tensor) -> None:
    """Equal outputs, and equal gradients of a random projection, in float64."""
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    ya, yb = ours(a), reference(b)
    torch.testing.assert_close(ya, yb)
    w = torch.randn_like(ya)
    (ya * w).sum().backward()
    (yb * w).sum().backward()
    torch.testing.assert_close(a.grad, b.grad)
    for p, q in zip(ours.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_instance_norm_is_torchs(affine: bool, training: bool) -> None:
    ours = layers.InstanceNorm2d(3, affine).double().train(training)
    reference = nn.InstanceNorm2d(3, affine=affine).double().train(training)
    for p in ours.parameters():
        nn.init.normal_(p)
    reference.load_state_dict(ours.state_dict())  # neither has a buffer
    same(ours, reference, torch.randn(2, 3, 5, 4, dtype=torch.float64) + 3)
    same(ours, reference, torch.randn(1, 3, 1, 2, dtype=torch.float64))


def test_instance_norm_of_one_pixel_is_its_centre() -> None:
    norm = layers.InstanceNorm2d(3, affine=True, eps=1e-6)
    assert norm.bias is not None
    nn.init.normal_(norm.bias)
    x = (torch.randn(1, 3, 1, 1) * 100).requires_grad_()
    y = norm(x)
    assert torch.equal(y.flatten(), norm.bias)
    y.sum().backward()
    assert x.grad is not None
    assert not x.grad.any()
    assert not layers.InstanceNorm2d(3)(x).any()


def test_instance_norm_differentiates_twice() -> None:
    norm = layers.InstanceNorm2d(2, affine=True).double()
    x = torch.randn(2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(norm, x)


@pytest.mark.parametrize("down", [None, 0, 1])
@pytest.mark.parametrize("pad", [1, 3])
def test_reflection_pad_is_torchs(pad: int, down: int | None) -> None:
    ours, rows = layers.ReflectionPad2d(pad, down), pad if down is None else down
    for x in (torch.randn(2, 3, 4, 7), torch.randn(1, 2, 5, 4)):  # the folds meet, or not
        x = x.double().contiguous(memory_format=torch.channels_last)
        same(ours, nn.ReflectionPad2d((pad, pad, rows, rows)), x)
    assert torch.autograd.gradgradcheck(ours, torch.randn(1, 1, 4, 4).double().requires_grad_())


def test_reflection_pad_never_needs_what_determinism_refuses() -> None:
    """Nor what is slow in 16 bits: the backward pass of torch's own kernel."""
    with Operations() as seen:
        x = torch.randn(1, 2, 5, 5, requires_grad=True)
        layers.ReflectionPad2d(2)(x).sum().backward()
    assert "aten.reflection_pad2d.default" in seen.names
    assert not any("reflection_pad2d_backward" in name for name in seen.names)


def test_reflection_pad_leaves_16_bits_as_they_are() -> None:
    """A CPU's autocast would pad in float32."""
    x = torch.randn(1, 2, 5, 5).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        padded = layers.ReflectionPad2d(2)(x)
    assert padded.dtype == torch.bfloat16
    assert torch.equal(padded, F.pad(x, (2, 2, 2, 2), mode="reflect"))


class Operations(TorchDispatchMode):
    """The names of what is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


THIN: dict[str, dict[str, Any]] = {
    "zeros": {"padding": 3, "bias": False},
    "reflect": {"padding": 3, "padding_mode": "reflect"},
    "reflected before": {"padding": (3, 0), "padding_mode": "reflect"},
    "none": {},
}


@pytest.mark.parametrize("options", THIN.values(), ids=THIN)
def test_a_thin_convolution_is_torchs(options: dict[str, Any]) -> None:
    ours = layers.ThinConv2d(2, 3, 7, **options).double()
    reference = nn.Conv2d(2, 3, 7, **options).double()
    reference.load_state_dict(ours.state_dict())  # the same names and shapes
    x = torch.randn(2, 2, 9, 11, dtype=torch.float64)
    same(ours, reference, x)
    same(ours, reference, x.contiguous(memory_format=torch.channels_last))


def test_a_thin_convolution_differentiates_twice() -> None:
    conv = layers.ThinConv2d(1, 2, 3, padding=1, padding_mode="reflect").double()
    x = torch.randn(1, 1, 3, 4, dtype=torch.float64, requires_grad=True)

    def of(x: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(conv, {"weight": weight}, (x,))

    assert torch.autograd.gradgradcheck(of, (x, conv.weight))


@pytest.mark.parametrize(("device", "kernel"), [("cpu", (1, 7)), ("meta", (7, 7))])
@pytest.mark.parametrize(
    "make", [lambda: ResnetGenerator(3, 4, 1), lambda: StarGANGenerator(2, 3, 4, 1)]
)
def test_pictures_come_in_rows_on_a_cpu_alone(
    make: Make, device: str, kernel: tuple[int, int], monkeypatch: Any
) -> None:
    net = make().to(device)
    x = [torch.zeros(2, 3, 16, 16, device=device)]
    x += [torch.zeros(2, 2, device=device)] if isinstance(net, StarGANGenerator) else []
    real, kernels = F.conv2d, []

    def noted(x: Tensor, weight: Tensor, *args: Any) -> Tensor:
        kernels.append(tuple(weight.shape[2:]))
        return real(x, weight, *args)

    monkeypatch.setattr(F, "conv2d", noted)
    with FlopCounterMode(display=False) as counter:
        assert net(*x).shape == (2, 3, 16, 16)
    assert kernels[-1] == kernel
    last = net.body[-2]
    assert isinstance(last, layers.ThinConv2d)
    plain = nn.Conv2d(4, 3, 7)  # as many operations wherever it runs
    with FlopCounterMode(display=False) as one:
        plain(torch.zeros(2, 4, 22, 22))
    parts = counter.get_flop_counts()[type(net).__name__ + ".body." + str(len(net.body) - 2)]
    assert sum(parts.values()) == one.get_total_flops()


@pytest.mark.parametrize("side", [2, 3, 4, 6])
@pytest.mark.parametrize(("kernel", "padding", "bias"), [(4, 1, True), (2, 0, False)])
def test_an_inner_convolution_is_torchs(side: int, kernel: int, padding: int, bias: bool) -> None:
    ours = layers.InnerConv2d(3, 5, kernel, 2, padding, bias=bias).double()
    reference = nn.Conv2d(3, 5, kernel, 2, padding, bias=bias).double()
    reference.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, side, side + 1, dtype=torch.float64)
    with Operations() as seen, FlopCounterMode(display=False) as counter:
        ours(x)
    assert any("convolution" in name for name in seen.names) == (side == 6)  # 3x3 pixels
    with FlopCounterMode(display=False) as one:
        reference(x)
    assert counter.get_total_flops() == one.get_total_flops()
    same(ours, reference, x)


@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize(
    ("kernel", "padding", "more", "bias"), [(4, 1, 0, True), (3, 1, 1, False), (3, 0, 0, True)]
)
def test_an_inner_transposed_convolution_is_torchs(
    side: int, kernel: int, padding: int, more: int, bias: bool
) -> None:
    ours = layers.InnerConvTranspose2d(3, 5, kernel, 2, padding, more, bias=bias).double()
    reference = nn.ConvTranspose2d(3, 5, kernel, 2, padding, more, bias=bias).double()
    reference.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, side, side + 1, dtype=torch.float64)
    with Operations() as seen, FlopCounterMode(display=False) as counter:
        ours(x)
    assert any("convolution" in name for name in seen.names) == (side > 1)  # 1x2 pixels
    with FlopCounterMode(display=False) as one:
        reference(x)
    assert counter.get_total_flops() == one.get_total_flops()
    same(ours, reference, x)


@pytest.mark.parametrize("transposed", [False, True])
def test_larger_inner_maps_where_products_are_cheap(
    transposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: dict[bool, Any] = {False: nn.Conv2d, True: nn.ConvTranspose2d}
    own: dict[bool, Any] = {False: layers.InnerConv2d, True: layers.InnerConvTranspose2d}
    ours, reference = (kind[transposed](256, 3, 4, 2, 1) for kind in (own, kinds))
    reference.load_state_dict(ours.state_dict())
    few, many = torch.randn(8, 256, 4, 4), torch.randn(9, 256, 4, 4)
    if not transposed:
        few, many = torch.randn(8, 256, 8, 8), torch.randn(9, 256, 8, 8)
    for cheap in (False, True):
        monkeypatch.setattr(products, "exact", lambda cheap=cheap: cheap)
        for x in (few, many):
            with Operations() as seen:
                y = ours(x)
            plain = any("convolution" in name for name in seen.names)
            assert plain == (not cheap or x is many)
            torch.testing.assert_close(y, reference(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
def test_an_inner_map_in_16_bits(transposed: bool) -> None:
    """Rounded no worse than torch's, against float64; the gradients as well."""
    own = (layers.InnerConv2d, layers.InnerConvTranspose2d)[transposed](256, 3, 4, 2, 1)
    kind = (nn.Conv2d, nn.ConvTranspose2d)[transposed]
    found = []
    for net, dtype in ((own, None), (kind(256, 3, 4, 2, 1), None), (copy.deepcopy(own), "f64")):
        net.load_state_dict(own.state_dict())
        x = torch.randn(2, 256, 4, 4, generator=torch_generator(0, "t"))
        x = (x if dtype is None else x.double()).requires_grad_()
        net = net if dtype is None else net.double()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is None):
            y = net(x)
        assert y.dtype == (torch.bfloat16 if dtype is None else torch.float64)
        y.double().square().sum().backward()
        assert x.grad is not None
        found.append((y.detach().double(), x.grad.double(), net.weight.grad.double()))
    for ours, torchs, exact in zip(*found, strict=True):
        assert float((ours - exact).norm()) <= 1.2 * float((torchs - exact).norm())


def test_an_inner_convolution_differentiates_twice() -> None:
    conv = layers.InnerConv2d(1, 2, 4, 2, 1).double()
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)

    def of(x: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(conv, {"weight": weight}, (x,))

    assert torch.autograd.gradgradcheck(of, (x, conv.weight))


# One call


ALONE: dict[str, Make] = {
    "patch": lambda: PatchDiscriminator(3, 2, 2),
    "resnet": lambda: ResnetGenerator(3, 2, 1),
    "critic": lambda: DualGANCritic(32, 3, 2),
    "stargan": lambda: StarGANDiscriminator(32, 2, 3, 2, 3),
    "group": lambda: DCGANDiscriminator(32, 3, 2, norm="group"),
}
TOGETHER: dict[str, Make] = {
    "batch norm": lambda: PatchDiscriminator(3, 2, 2, "batch"),
    "dropout": lambda: DualGANGenerator(32, 3, 2, 0.5),
    "spectral norm": lambda: DCGANDiscriminator(32, 3, 2, norm="none", spectral=True),
}


@pytest.mark.parametrize("name", [*ALONE, *TOGETHER])
def test_one_call_is_the_same_function(name: str) -> None:
    """Outputs, gradients of parameters and inputs, state and draws are those of a call each."""
    one = (ALONE | TOGETHER)[name]().double()
    each = copy.deepcopy(one)
    a = [torch.randn(n, 3, 32, 32, dtype=torch.float64, requires_grad=True) for n in (1, 2)]
    b = [x.detach().clone().requires_grad_() for x in a]
    calls = [0]
    one.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    torch.manual_seed(1)
    found = layers.in_one_call(one, *a)
    torch.manual_seed(1)
    expected = tuple(each(x) for x in b)
    assert calls == [1 if name in ALONE else 2]
    torch.testing.assert_close(found, expected)
    for outputs in (found, expected):
        sum(k * part.sin().sum() for k, part in enumerate(tree_leaves(outputs), 1)).backward()
    for x, y in zip((*a, *one.parameters()), (*b, *each.parameters()), strict=True):
        torch.testing.assert_close(x.grad, y.grad)
    for x, y in zip(one.buffers(), each.buffers(), strict=True):
        torch.testing.assert_close(x, y)


def test_pictures_of_two_sizes_have_a_call_each() -> None:
    d = PatchDiscriminator(3, 2, 2)
    small, large = layers.in_one_call(d, torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 32, 32))
    assert (small.shape[-1], large.shape[-1]) == (2, 6)


def test_nearest_upsample_is_torchs() -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    same(layers.NearestUpsample(), nn.Upsample(scale_factor=2), x)


@pytest.mark.parametrize("kernel", [3, 4])
def test_only_resize_conv_is_free_of_checkerboards(kernel: int) -> None:
    def ripple(mode: layers.Upsample) -> float:
        """The variation inside the enlargement of a constant map."""
        y = layers.upsampling(2, 2, mode, kernel)(torch.ones(1, 2, 6, 6)).detach()
        assert y.shape[-2:] == (12, 12)
        return float(y[..., 3:-3, 3:-3].std((2, 3)).max())

    assert ripple("resize_conv") < 1e-6
    assert ripple("deconv") > 1e-2


def tensorflow_same(x: Tensor, w: Tensor) -> Tensor:
    """SAME convolution of stride 2 by its definition: pad total max(2 (ceil(n/2) - 1) + k - n)."""
    n, k = x.shape[-1], w.shape[-1]
    m = math.ceil(n / 2)
    before = max(2 * (m - 1) + k - n, 0) // 2
    out = torch.zeros(len(x), len(w), m, m, dtype=x.dtype)
    for i in range(m):
        for j in range(m):
            for a in range(k):
                for b in range(k):
                    r, c = 2 * i + a - before, 2 * j + b - before
                    if 0 <= r < n and 0 <= c < n:
                        out[:, :, i, j] += x[:, :, r, c] @ w[:, :, a, b].T
    return out


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("side", [2, 6])
def test_same_convolution_and_its_transpose(kernel: int, side: int) -> None:
    conv = SameConv2d(2, 3, kernel).double()
    conv.conv.bias = None
    x = torch.randn(2, 2, side, side, dtype=torch.float64)
    torch.testing.assert_close(conv(x), tensorflow_same(x, conv.conv.weight))
    up = SameConvTranspose2d(3, 2, kernel).double()
    up.conv.bias = None
    up.conv.weight = conv.conv.weight
    y = torch.randn(2, 3, side // 2, side // 2, dtype=torch.float64)
    torch.testing.assert_close((conv(x) * y).sum(), (x * up(y)).sum())  # <Ax, y> = <x, A'y>


def test_sngan_blocks_equal_the_plain_order_of_their_shortcuts() -> None:
    up = UpBlock(3).double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    conv = up.shortcut[0]
    plain = up.residual(x) + conv(F.interpolate(x, scale_factor=2))
    torch.testing.assert_close(up(x), plain)
    down = DownBlock(3, 2, halve=True).double()
    plain = down.residual(x) + F.avg_pool2d(down.shortcut.get_submodule("1")(x), 2)
    torch.testing.assert_close(down(x), plain)


def test_sngan_pools_by_sum_or_mean() -> None:
    a = SNResnetDiscriminator(32, width=4, spectral=False)
    b = SNResnetDiscriminator(32, width=4, spectral=False, pool="mean")
    b.load_state_dict(a.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(a(x), 64 * b(x))  # 8x8 maps, head bias 0


@pytest.mark.parametrize("spectral", [True, False])
def test_the_resnet_pair_is_sngans_or_wgangps(spectral: bool) -> None:
    _, d = pair("resnet", 32, 3, 4, 2, 2, spectral=spectral)
    assert isinstance(d, SNResnetDiscriminator)
    assert (d.pool, d.head.bias is None) == (("sum", True) if spectral else ("mean", False))


def test_maxout_takes_the_largest_piece() -> None:
    m = Maxout(4, 3, pieces=5)
    x = torch.randn(2, 4)
    y = m.linear(x)
    expected = [[max(row[5 * i : 5 * i + 5]) for i in range(3)] for row in y.tolist()]
    torch.testing.assert_close(m(x), torch.tensor(expected))


def test_what_has_no_instance_norm_prefers_channels_last_and_computes_the_same() -> None:
    d = DCGANDiscriminator(32, width=8)
    assert not layers.prefers_channels_last(ResnetGenerator(width=2, blocks=1))
    for norm in ("batch", "none", "group", "instance"):
        prefers = layers.prefers_channels_last(DCGANDiscriminator(32, width=8, norm=norm))
        assert prefers == (norm in ("batch", "none"))
    assert not layers.prefers_channels_last(R3GANDiscriminator(3, [8, 4], group=4))
    # pictures pass from one network to the other in the format that they were made in
    mixed = nn.ModuleList([d, DCGANDiscriminator(32, width=8, norm="instance")])
    assert not layers.prefers_channels_last(mixed)
    x = torch.randn(4, 3, 32, 32)
    expected = d(x)
    last = copy.deepcopy(d).to(memory_format=torch.channels_last)
    y = last(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-4)


def test_weights_of_the_innermost_maps_lie_as_products_read_them() -> None:
    net = nn.Sequential(
        layers.InnerConv2d(3, 4, 4, 2, 1),  # 8 pixels a side to 4: a convolution
        layers.InnerConv2d(4, 5, 4, 2, 1),  # to 2: a product
        layers.InnerConvTranspose2d(5, 4, 4, 2, 1),
    ).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8)
    expected = copy.deepcopy(net).double()(x.double()).float()
    torch.testing.assert_close(net(x), expected)
    assert [m.weight.is_contiguous() for m in net] == [False, True, True]
    torch.testing.assert_close(net(x), expected)


def test_no_layout_depends_on_how_many_pictures_came_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A few are a product where many are a convolution; a resumed run has not seen the few."""
    monkeypatch.setattr(layers.products, "exact", lambda: True)
    conv = layers.InnerConv2d(256, 2, 4, 2, 1).to(memory_format=torch.channels_last)
    assert layers._inner(torch.zeros(8, 1), 16, 256)
    assert not layers._inner(torch.zeros(9, 1), 16, 256)
    conv(torch.randn(1, 256, 8, 8))
    assert not conv.weight.is_contiguous()


# Spectral norm


def test_spectral_norm_tends_to_one_and_freezes_in_eval() -> None:
    d = DCGANDiscriminator(32, width=8, norm="none", spectral=True)
    convs = [m for m in d.modules() if isinstance(m, nn.Conv2d)]
    x = torch.randn(2, 3, 32, 32)
    for _, vector in d.named_buffers():  # forget torch's warm-up
        vector.copy_(F.normalize(torch.randn_like(vector), dim=0))

    def norms() -> list[float]:
        return [float(torch.linalg.matrix_norm(m.weight.detach().flatten(1), 2)) for m in convs]

    d.eval()
    before = copy.deepcopy(d.state_dict())
    d(x)
    assert all(torch.equal(v, before[k]) for k, v in d.state_dict().items())
    assert max(norms()) > 1.05
    d.train()
    with torch.no_grad():
        for _ in range(200):
            d(x)
    d.eval()
    assert norms() == pytest.approx([1] * len(convs), abs=0.05)


def test_spectral_norm_covers_every_layer() -> None:
    for d in (SNGANDiscriminator(32, width=2), SNResnetDiscriminator(32, width=2)):
        for m in d.modules():
            if isinstance(m, (nn.Conv2d, nn.Linear)):
                assert hasattr(m, "parametrizations")


# Initialisation


def weights(net: nn.Module, kind: type[nn.Module]) -> Tensor:
    found = [m.get_parameter("weight") for m in net.modules() if isinstance(m, kind)]
    return torch.cat([w.detach().flatten() for w in found])


def test_normal_initialisation() -> None:
    for net in (DCGANGenerator(32), DCGANDiscriminator(32), ResnetGenerator(width=24, blocks=1)):
        for kind in (nn.Conv2d, nn.ConvTranspose2d):
            if any(isinstance(m, kind) for m in net.modules()):
                w = weights(net, kind)
                assert float(w.mean()) == pytest.approx(0, abs=5e-4)
                assert float(w.std()) == pytest.approx(0.02, rel=0.02)
        assert not any(p.any() for n, p in net.named_parameters() if n.endswith("bias"))
    scales = weights(DCGANGenerator(128), nn.BatchNorm2d)
    assert float(scales.mean()) == pytest.approx(1, abs=0.005)
    assert float(scales.std()) == pytest.approx(0.02, rel=0.1)


def test_dualgan_cuts_the_normal_of_its_convolutions() -> None:
    g = DualGANGenerator(32, width=16)
    w = weights(g, nn.Conv2d)
    assert float(w.abs().max()) <= 0.04
    assert float(w.std()) == pytest.approx(0.02 * 0.8796, rel=0.02)  # of a normal cut at 2
    w = weights(g, nn.ConvTranspose2d)
    assert float(w.abs().max()) > 0.06
    assert float(w.std()) == pytest.approx(0.02, rel=0.02)


def test_xavier_and_uniform_initialisation() -> None:
    d = SNResnetDiscriminator(32, width=64, spectral=False)
    conv = d.get_parameter("blocks.1.residual.1.weight").detach()
    assert float(conv.std()) == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.02)
    short = d.get_parameter("blocks.1.shortcut.1.weight").detach()
    assert float(short.std()) == pytest.approx(math.sqrt(1 / 64), rel=0.05)
    for net, bound in ((MLPGenerator(8, width=64), 0.05), (MLPDiscriminator(8), 0.005)):
        w = weights(net, nn.Linear)
        assert 0.98 * bound < float(w.abs().max()) <= bound
        assert float(w.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)


# What the methods rely on


def test_dualgan_bottleneck_carries_no_picture_at_its_size() -> None:
    g = DualGANGenerator(32, width=4)
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    y = g(x)
    innermost = g.downs[-1][1].conv  # type: ignore[index]
    nn.init.normal_(innermost.weight)
    assert torch.equal(g(x), y)
    assert not torch.equal(g(x * 0.5), y)
    assert not torch.equal(g(torch.cat([x, x], 3))[..., :32], y)  # 1x2 pixels: it does


def test_dualgan_critic_still_sees_at_small_sizes() -> None:
    for size in (32, 64):
        critic = DualGANCritic(size, width=4)
        values = critic(torch.randn(4, 3, size, size)).detach()
        assert float(values.std()) > 1e-5


def test_dualgan_dropout_sits_in_three_layers_and_rests_in_eval() -> None:
    g = DualGANGenerator(64, width=2, dropout=0.5)
    drops = [i for i, up in enumerate(g.ups) if "Dropout" in repr(up)]
    assert drops == [0, 1, 2]
    x = torch.rand(1, 3, 64, 64)
    assert not torch.equal(g(x), g(x))
    g.eval()
    assert torch.equal(g(x), g(x))


def test_unet_skips_reach_the_output() -> None:
    g = UNetGenerator(width=2, downs=5)
    x = torch.rand(1, 3, 32, 32)
    y = g(x)
    for m in g.ups[0].modules():
        if isinstance(m, nn.ConvTranspose2d):
            nn.init.zeros_(m.weight)
    assert not torch.equal(g(x), g(x * 0.5))  # without the innermost path
    assert y.shape == x.shape


def test_stargan_sees_its_label_and_needs_no_eval_mode() -> None:
    g = StarGANGenerator(3, width=4, blocks=1)
    x = torch.rand(2, 3, 16, 16)
    a, b = torch.eye(3)[[0, 0]], torch.eye(3)[[1, 0]]
    ya, yb = g(x, a), g(x, b)
    assert not torch.equal(ya[0], yb[0])
    torch.testing.assert_close(ya[1], yb[1])
    g.eval()
    assert torch.equal(g(x, a), ya)
    assert not list(g.buffers())
    assert not any(isinstance(m, layers.ReflectionPad2d) for m in g.modules())


@pytest.mark.gpu
@pytest.mark.parametrize("make", TRANSLATORS)
def test_translators_are_deterministic_on_cuda(
    make: Callable[[layers.Upsample], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        g = make("deconv").cuda()
        x = torch.randn(4, 3, 64, 64, device="cuda")
        runs = []
        for _ in range(2):
            g.zero_grad()
            g(x).square().mean().backward()
            runs.append([p.grad.clone() for p in g.parameters() if p.grad is not None])
        assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    finally:
        torch.use_deterministic_algorithms(False)


# The pool of earlier fakes


def numbered(*values: float) -> Tensor:
    return (
        torch.tensor(values, dtype=torch.float32)[:, None, None, None].expand(-1, 3, 2, 2).clone()
    )


def numbers(images: Tensor) -> list[float]:
    assert torch.equal(images, images[:, :1, :1, :1].expand_as(images))
    return images[:, 0, 0, 0].tolist()


def test_pool_passes_pictures_through_while_it_fills() -> None:
    pool, g = ImagePool(50), Draws(0)
    for i in range(0, 50, 5):
        new = numbered(*range(i, i + 5)).requires_grad_()
        out = pool.query(new, g)
        assert torch.equal(out, new)
        assert not out.requires_grad
    assert numbers(pool.images) == list(range(50))


def test_pool_swaps_half_of_the_pictures_and_never_grows() -> None:
    pool, g = ImagePool(50), Draws(0)
    pool.query(numbered(*range(50)), g)
    old, slots = 0, set()
    for i in range(50, 2050):
        before = numbers(pool.images)
        (out,) = numbers(pool.query(numbered(i), g))
        after = numbers(pool.images)
        assert len(after) == 50
        if out == i:
            assert after == before  # returned, not stored
        else:
            slot = before.index(out)
            slots.add(slot)
            assert after == [*before[:slot], i, *before[slot + 1 :]]
            old += 1
    assert old / 2000 == pytest.approx(0.5, abs=0.04)
    assert len(slots) == 50


def test_pool_keeps_and_returns_copies() -> None:
    pool, g = ImagePool(1), Draws(0)
    new = numbered(1)
    first = pool.query(new, g)
    new.zero_()
    first.zero_()
    assert numbers(pool.images) == [1]
    while True:
        out = pool.query(numbered(2), g)
        if numbers(out) == [1]:
            break
    pool.images[0].zero_()
    assert numbers(out) == [1]


def test_pool_of_size_zero_is_the_identity() -> None:
    pool, g = ImagePool(0), Draws(0)
    for i in range(9):
        assert numbers(pool.query(numbered(i), g)) == [i]
    assert not len(pool.images)


def test_pool_mixes_within_a_batch() -> None:
    pool, g = ImagePool(2), Draws(0)
    out = numbers(pool.query(numbered(*range(40)), g))
    assert out[:2] == [0, 1]
    assert len(set(out[2:])) == 38  # an exchanged picture leaves the pool
    assert any(v != i for i, v in enumerate(out))


@pytest.mark.parametrize("stored", [0, 1, 4, 9])
def test_pool_resumes_from_plain_tensors(stored: int) -> None:
    pool = ImagePool(4)
    pool.query(numbered(*range(stored)), Draws(0)) if stored else None
    file = BytesIO()
    torch.save(pool.state_dict(), file)
    file.seek(0)
    other = ImagePool(4)
    other.load_state_dict(torch.load(file, weights_only=True))
    new = numbered(*range(100, 130))
    a = pool.query(new, Draws(1))
    assert torch.equal(a, other.query(new, Draws(1)))


def test_a_loaded_pool_follows_the_pictures_to_their_device() -> None:
    pool = ImagePool(4)
    pool.load_state_dict({"images": numbered(0, 1, 2)})
    for _ in range(9):  # while it fills and afterwards
        out = pool.query(numbered(3).to("meta"), Draws(0))
        assert out.device.type == "meta"
        assert pool.images.device.type == "meta"
    back = pool.query(torch.zeros(1, 3, 2, 2, dtype=torch.float64, device="meta"), Draws(0))
    assert pool.images.dtype == back.dtype == torch.float64
