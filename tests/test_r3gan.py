"""R3GAN: sizes, initialisation, losses, penalties and schedules against closed forms and plain
float64 computations."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import EachBatch, Pictures, fit, toy_spec
from torch import Tensor, nn

from gansuite.config import Budget
from gansuite.core.schedule import cosine
from gansuite.core.settings import Settings
from gansuite.data.spec import Batch, DataSpec
from gansuite.draws import Draws
from gansuite.errors import UserError
from gansuite.losses.adversarial import Relativistic
from gansuite.methods.base import Step
from gansuite.methods.r3gan import R3GAN
from gansuite.networks.augment import ADA
from gansuite.networks.blur import Fir
from gansuite.networks.r3gan import (
    FixupBlock,
    R3GANDiscriminator,
    R3GANGenerator,
    stage_widths,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def of_size(size: int) -> DataSpec:
    counts = {"train": {"x": 64}, "test": {"x": 8}}
    return DataSpec("toy", size, 3, ("x",), counts, False, (), "0")


def ready(size: int = 8, **options: Any) -> tuple[R3GAN, Step, Batch]:
    """A float64 method with blocks that do something, its first step and two pictures."""
    method = R3GAN(of_size(size), **{"width": 8, "blocks": 1, "group": 8, "z_dim": 3, **options})
    method.double().configure(Settings(seed=1, images_per_batch=4))
    for p in method.parameters():
        p.data.add_(0.2 * torch.randn_like(p))
    x = torch.rand(2, 3, size, size, dtype=torch.float64) * 2 - 1
    return method, Step(method, ("d", "g"), Batch((x,)), 0), Batch((x,))


# -- networks ------------------------------------------------------------------------------------

COUNTS = {
    "cifar10": (32, 768, 32, 2, 16, 20_732_160, 20_683_776),
    "ffhq64": (64, 768, 32, 2, 16, 22_429_824, 22_381_440),
    "ffhq256": (256, 768, 32, 2, 16, 23_057_952, 23_009_568),
    "lite 32": (32, 128, 32, 2, 16, 833_920, 825_856),
    "lite 64": (64, 128, 32, 2, 16, 912_064, 904_000),
    "192": (64, 192, 32, 2, 16, 1_792_032, 1_779_936),
    "512": (64, 512, 32, 2, 16, 10_431_232, 10_398_976),
    "one block": (32, 128, 32, 1, 16, 422_272, 414_208),
}


def sizes(size: int, width: int, wide_to: int, blocks: int, group: int) -> tuple[int, int]:
    widths = stage_widths(size, width, wide_to)
    with torch.device("meta"):
        g = R3GANGenerator(3, 64, widths, blocks, group)
        d = R3GANDiscriminator(3, widths, blocks, group)
    a, b = (sum(p.numel() for p in net.parameters()) for net in (g, d))
    return a, b


@pytest.mark.parametrize("name", COUNTS)
def test_parameters(name: str) -> None:
    *options, g, d = COUNTS[name]
    assert sizes(*options) == (g, d)


@pytest.mark.parametrize(
    ("options", "classes", "g", "d"),
    [
        ((32, 768, 32, 2, 16), 10, 20_781_952, 21_280_512),  # CIFAR-10
        ((32, 1536, 32, 2, 32), 1000, 82_914_304, 86_548_992),  # ImageNet-32
        ((64, 1536, 64, 2, 32), 1000, 103_570_432, 107_205_120),  # ImageNet-64
    ],
)
def test_parameters_without_the_classes(options: Any, classes: int, g: int, d: int) -> None:
    """Published with classes: an embedding of 64 beside z; in D a head of the width, and one
    embedding of that width for each class."""
    width = options[1]
    a, b = sizes(*options)
    assert a == g - 64 * classes - 64 * width
    assert b == d - width * (classes + width - 1)


def test_lite_presets_of_every_size() -> None:
    assert stage_widths(32, 128, 32) == [128] * 4
    assert stage_widths(64, 128, 32) == [128] * 4 + [64]
    assert stage_widths(128, 128, 32) == [128] * 4 + [64, 32]
    assert stage_widths(256, 128, 32) == [128] * 4 + [64, 32, 16]
    assert stage_widths(64, 1536, 64) == [1536] * 5
    for size in (32, 64, 128, 256):
        with torch.device("meta"):
            method = R3GAN(of_size(size))
            assert method.g(torch.empty(2, 64)).shape == (2, 3, size, size)
            assert method.d(torch.empty(2, 3, size, size)).shape == (2, 1)
    groups = [m.mix.groups for m in method.d.modules() if isinstance(m, FixupBlock)]
    assert groups == [2, 2, 4, 4, 8, 8, *[16] * 8]


def test_a_block_is_the_identity_at_first() -> None:
    x = torch.randn(2, 32, 8, 8)
    block = FixupBlock(32, 16, 8)
    assert torch.equal(block(x), x)
    assert block.mix.groups == 4
    loss = block(x).square().sum()
    loss.backward()
    assert block.project.weight.grad is not None
    assert block.project.weight.grad.abs().min() > 0  # and learns


def test_initial_spread() -> None:
    block = FixupBlock(256, 16, 14)
    gain = 1.3868 * 14**-0.25
    for conv, fan_in in ((block.expand, 256), (block.mix, 16 * 9)):
        assert float(conv.weight.detach().std()) == pytest.approx(
            gain / math.sqrt(fan_in), rel=0.02
        )
        assert not conv.bias.any()
    g = R3GANGenerator(3, 64, [512, 256], 1, 16)
    assert float(g.basis.detach().std()) == pytest.approx(1, rel=0.03)
    assert float(g.share.weight.detach().std()) == pytest.approx(1 / 8, rel=0.03)
    assert float(g.layers[1].weight.detach().std()) == pytest.approx(512**-0.5, rel=0.03)
    d = R3GANDiscriminator(3, [512, 256], 1, 16)
    assert float(d.layers[-3].weight.detach().std()) == pytest.approx(1 / 4, rel=0.03)
    blocks = [m for m in d.modules() if isinstance(m, FixupBlock)]
    expected = 1.3868 * 2**-0.25 / math.sqrt(256)  # L: blocks of the whole network
    assert float(blocks[0].expand.weight.detach().std()) == pytest.approx(expected, rel=0.03)


def test_a_block_against_dense_matrices() -> None:
    block = FixupBlock(8, 4, 2).double()
    for p in block.parameters():
        p.data.normal_()
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    dense = torch.zeros(16, 16, 3, 3, dtype=torch.float64)
    for k in range(4):
        part = slice(4 * k, 4 * k + 4)
        dense[part, part] = block.mix.weight[part]

    def lrelu(v: Tensor) -> Tensor:
        return torch.where(v > 0, v, 0.2 * v)

    h = torch.einsum("oi,nihw->nohw", block.expand.weight[:, :, 0, 0], x)
    h = lrelu(h + block.expand.bias[:, None, None])
    padded = torch.zeros(2, 16, 7, 7, dtype=torch.float64)
    padded[..., 1:-1, 1:-1] = h
    windows = padded.unfold(2, 3, 1).unfold(3, 3, 1)
    h = lrelu(torch.einsum("ncxyij,ocij->noxy", windows, dense) + block.mix.bias[:, None, None])
    expected = x + torch.einsum("oi,nihw->nohw", block.project.weight[:, :, 0, 0], h)
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


def resampling(n: int) -> tuple[Tensor, Tensor]:
    """Matrices [2n, n] and [n/2, n] that enlarge and reduce n samples with [1, 3, 3, 1]: zeros
    between the samples and outside."""
    taps = torch.tensor([1.0, 3, 3, 1], dtype=torch.float64) / 8
    up, down = (torch.zeros(k, n, dtype=torch.float64) for k in (2 * n, n // 2))
    for i in range(n):
        for k, tap in enumerate(taps):
            if 0 <= 2 * i - 1 + k < 2 * n:
                up[2 * i - 1 + k, i] += 2 * tap
    for i in range(n // 2):
        for k, tap in enumerate(taps):
            if 0 <= 2 * i - 1 + k < n:
                down[i, 2 * i - 1 + k] += tap
    return up, down


def test_new_networks_are_maps_and_resampling() -> None:
    """All blocks are the identity: what is left is linear, recomputed with matrices."""
    widths = [8, 4]
    g = R3GANGenerator(3, 5, widths, 2, 4).double()
    d = R3GANDiscriminator(3, widths, 2, 4).double()
    up, down = resampling(4)[0], resampling(8)[1]
    z = torch.randn(2, 5, dtype=torch.float64)
    narrow, last = g.layers[2].weight[:, :, 0, 0], g.layers[-1].weight[:, :, 0, 0]
    h = torch.einsum("nc,cij->ncij", z @ g.share.weight.t(), g.basis)
    h = torch.einsum("oc,ncij->noij", narrow, h)
    h = torch.einsum("xi,ncij,yj->ncxy", up, h, up)
    torch.testing.assert_close(g(z), torch.einsum("oc,ncij->noij", last, h))

    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    first, wider = d.layers[0].weight[:, :, 0, 0], d.layers[4].weight[:, :, 0, 0]
    h = torch.einsum("oc,ncij->noij", first, x)
    h = torch.einsum("xi,ncij,yj->ncxy", down, h, down)
    h = torch.einsum("oc,ncij->noij", wider, h)
    h = torch.einsum("ncij,cij->nc", h, d.layers[-3].weight[:, 0])
    torch.testing.assert_close(d(x), h @ d.layers[-1].weight.t())


def test_resampling_a_constant() -> None:
    for mode in ("up", "down"):
        y = Fir(mode)(torch.ones(1, 2, 8, 8))
        torch.testing.assert_close(y[..., 1:-1, 1:-1], torch.ones_like(y[..., 1:-1, 1:-1]))
        assert y[..., 0, :].max() < 1  # zeros outside
    assert Fir("up")(torch.ones(1, 1, 4, 4)).shape[-1] == 8


@pytest.mark.parametrize("size", [33, 48])
def test_sizes_are_powers_of_two(size: int) -> None:
    with pytest.raises(UserError, match=rf"R3GAN needs a size that is a power of two .* {size}"):
        R3GAN(of_size(size))


@pytest.mark.parametrize(
    "wrong", [{"burn_in": 1.5}, {"start_beta2": 1.0}, {"augment_p": -0.1}, {"burn_in_kimg": -1.0}]
)
def test_options_out_of_range(wrong: dict[str, float]) -> None:
    ((key, value),) = wrong.items()
    with pytest.raises(UserError, match=rf"'method.{key}' is {value}; it must be from 0 to"):
        R3GAN(of_size(8), **wrong)  # type: ignore[arg-type]


# -- losses --------------------------------------------------------------------------------------


def test_losses_of_a_discriminator_that_knows_nothing() -> None:
    method, step, batch = ready(augment_p=1.0)
    method.d.layers[-1].weight.data.zero_()
    losses = method.d_losses(batch, step)
    assert float(losses["gan"]) == pytest.approx(math.log(2), abs=1e-12)
    assert float(losses["r1"]) == float(losses["r2"]) == 0
    step.position = 1
    assert float(method.g_losses(batch, step)["gan"]) == pytest.approx(math.log(2), abs=1e-12)


def test_the_players_have_the_same_loss_with_roles_swapped() -> None:
    r, f = torch.randn(2, 5, 1, dtype=torch.float64)
    loss = Relativistic()
    assert torch.equal(loss.g(f, r), loss.d(f, r))
    pairs = [math.log1p(math.exp(float(b - a))) for a, b in zip(r, f, strict=True)]
    assert float(loss.d(r, f)) == pytest.approx(sum(pairs) / 5)  # each with its own


def test_penalties_of_a_linear_discriminator() -> None:
    method, step, batch = ready()
    method.d = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 1)).double()
    losses = method.d_losses(batch, step)
    expected = method.d[1].weight.square().sum()
    torch.testing.assert_close(losses["r1"], expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(losses["r2"], expected, rtol=1e-14, atol=0)


def test_no_gradient_reaches_the_generator_in_the_discriminators_update() -> None:
    method, step, batch = ready(augment_p=0.5)
    sum(method.d_losses(batch, step).values()).backward()
    assert all(p.grad is None for p in method.g.parameters())
    assert all(p.grad is not None and p.grad.any() for p in method.d.parameters())


def test_penalties_are_of_the_picture_before_the_augmentation() -> None:
    """r1 = mean |J^T grad D(T(x))|^2 with the Jacobian J of T written out."""
    method, step, batch = ready(augment_p=0.9, burn_in=0.0)
    (x,) = batch.images
    losses = method.d_losses(batch, step)
    draws = Draws(method.noise_seed, 0, dtype=torch.float64)
    with torch.no_grad():
        fake = method.g(draws.randn(2, 3))
    ada = ADA(0.9, colour=0.5, cutout=1.0)
    for key, images in (("r1", x), ("r2", fake)):
        saved = draws._calls

        def seen(v: Tensor, saved: int = saved) -> Tensor:
            draws._calls = saved
            return ada(v, draws)

        t = seen(images).detach().requires_grad_()
        (grad,) = torch.autograd.grad(method.d(t).sum(), t)
        j = torch.autograd.functional.jacobian(seen, images).reshape(2 * 192, 2 * 192)
        expected = (j.T @ grad.flatten()).square().sum() / 2
        torch.testing.assert_close(losses[key], expected)
        assert not torch.allclose(grad.square().sum() / 2, expected, rtol=1e-2)


def test_two_batches_against_a_plain_loop() -> None:
    """D's update on the first half, then G's on the second with new latents, in float64."""
    options = {"width": 4, "blocks": 1, "z_dim": 3, "burn_in": 1.0, "start_gamma": 10.0}
    method = R3GAN(toy_spec(), **options, weights={"gan": 1.0, "r1": 0.3, "r2": 0.2})
    for p in method.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    g, d = copy.deepcopy(method.g).double(), copy.deepcopy(method.d).double()
    settings = {"lr": 1e-2, "betas": [0.0, 0.99]}
    fit(method, 2, batch=8, precision="64-true", optim=settings)
    players = [torch.optim.Adam(net.parameters(), lr=0.0, betas=(0.0, 0.9)) for net in (g, d)]
    data = Pictures(2, 8)

    def penalty(x: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for one in x.detach().split(1):
            one.requires_grad_()
            (slope,) = torch.autograd.grad(d(one).sum(), one, create_graph=True)
            total = total + slope.pow(2).sum()
        return total / len(x)

    for i in range(2):
        (x,) = data[i].images
        first, second = (x.double() / 127.5 - 1).split(4)
        draws = Draws(3, i, dtype=torch.float64)
        share = 0.5 - 0.5 * math.cos(math.pi * i / 2)  # of the burn-in: 0 and 1/2
        for o in players:
            o.param_groups[0]["lr"] = 1e-2 * (4 + (1 - 4) * share)
            o.param_groups[0]["betas"] = (0.0, 0.9 + 0.09 * share)
        gamma = 10 + (1 - 10) * share
        fake = g(draws.randn(4, 3)).detach()
        loss = F.softplus(d(fake) - d(first)).mean()
        loss = loss + gamma * (0.3 * penalty(first) + 0.2 * penalty(fake))
        players[1].zero_grad()
        loss.backward()
        players[1].step()
        players[0].zero_grad()
        F.softplus(d(second) - d(g(draws.randn(4, 3)))).mean().backward()
        players[0].step()
    for mine, plain in ((method.g, g), (method.d, d)):
        for p, q in zip(mine.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-8, atol=1e-10)


# -- schedules -----------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [{"burn_in": 0.5}, {"burn_in_kimg": 0.016}])
def test_schedules_as_the_updates_see_them(unit: dict[str, float]) -> None:
    """4 batches of burn-in, 8 of budget: start, mean of both and end."""
    method = R3GAN(toy_spec(), width=4, blocks=1, augment_p=0.4, **unit)
    found: list[tuple[float, ...]] = []
    after = method.after_update

    def note(phase: str, step: Step) -> None:
        after(phase, step)
        (group,) = method._optimizers[phase].param_groups
        gamma = 2 * method.weight_of("r1", step)
        assert group["lr"] == method.lr(phase)
        p = float(method.augment.p)  # type: ignore[union-attr]
        found.append((group["lr"], *group["betas"], gamma, p))

    method.after_update = note  # type: ignore[method-assign]
    fit(method, 8, batch=4, optim={"lr": 5e-5, "betas": [0.0, 0.99]})
    each = found[::2]
    assert found[1::2] == each  # the same for both players
    assert each[0] == pytest.approx((2e-4, 0, 0.9, 0.5, 0))
    assert each[2] == pytest.approx((1.25e-4, 0, 0.945, 0.275, 0.2))
    for row in each[4:]:
        assert row == pytest.approx((5e-5, 0, 0.99, 0.05, 0.4))


def test_without_a_burn_in_the_settings_are_those_given() -> None:
    for unit in ({"burn_in": 0.0}, {"burn_in_kimg": 0.0}):
        method = R3GAN(toy_spec(), width=4, blocks=1, **unit)  # type: ignore[arg-type]
        method.configure(Settings(seed=0, images_per_batch=4, budget=Budget(kimg=1)))
        assert (method.lr("g"), method.optim_now("d").betas) == (2e-4, [0.5, 0.999])


def test_cosine() -> None:
    assert [cosine(3.0, 1.0, t) for t in (0, 0.5, 1, 7)] == pytest.approx([3, 2, 1, 1])
    assert cosine(0.0, 1.0, 1 / 3) == pytest.approx(0.25)


def test_samples_are_clipped_and_training_is_not() -> None:
    method, step, _ = ready()
    method.g.basis.data.mul_(100)
    step.position = 1
    assert method.g(method.z(2, step)).abs().max() > 1
    assert method.sample(2).abs().max() <= 1


def test_fewer_updates_for_the_same_pictures() -> None:
    """Both batches count."""
    seen: list[int] = []
    method = R3GAN(toy_spec(), width=4, blocks=1)
    fit(method, 3, batch=4, callbacks=[EachBatch(lambda m: seen.append(m.images_seen))])
    assert seen == [4, 8, 12]
    assert method.update_counts == {"g": 3, "d": 3}
