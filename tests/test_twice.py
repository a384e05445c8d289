"""Second derivatives that are cheaper than PyTorch's, and equal to them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansuite.core.flops import OperationCounter
from gansuite.losses.penalties import r1
from gansuite.networks.blur import BlurDown, BlurUp, Fir
from gansuite.networks.dualgan import DualGANCritic
from gansuite.networks.layers import PointwiseConv2d
from gansuite.networks.r3gan import R3GANDiscriminator
from gansuite.networks.stargan import StarGANDiscriminator
from gansuite.networks.stylegan2 import StyleDiscriminator
from gansuite.ops.twice import TwiceDifferentiable


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


CRITICS: dict[str, Any] = {
    "stargan": lambda: StarGANDiscriminator(16, 2, 3, 4, 2),
    "dualgan": lambda: DualGANCritic(32, 3, 4),
    "stylegan": lambda: StyleDiscriminator(8, 3, base=64, max_channels=8),
    "r3gan": lambda: R3GANDiscriminator(3, [8, 4], 1, 4),
    "others": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=2, dilation=2, groups=1),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(6, 2, 3, padding="same"),
    ),
}


SIDES = {"stargan": (16, 16), "dualgan": (32, 32), "others": (9, 12)}


@pytest.mark.parametrize("name", CRITICS)
def test_a_penalty_is_that_of_pytorchs_own_derivatives(name: str) -> None:
    """Its value, and its gradient by every parameter, the outputs' own among them."""
    torch.manual_seed(0)
    critic = CRITICS[name]().double()
    for p in critic.parameters():
        p.data += 0.1 * torch.randn_like(p)
    x = randn(4, 3, *SIDES.get(name, (8, 8)))
    found = []
    for inside in (nullcontext(), TwiceDifferentiable()):
        x = x.detach().requires_grad_()
        with inside:
            outputs = critic(x)
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        (slope,) = torch.autograd.grad(outputs.sum(), x, create_graph=True)
        total = (slope.flatten(1).norm(dim=1) - 1).square().mean() + F.softplus(outputs).mean()
        wanted = [*critic.parameters(), x]
        grads = torch.autograd.grad(total, wanted, allow_unused=True)
        found.append([outputs, slope, *(torch.zeros(()) if g is None else g for g in grads)])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_finite_differences_agree() -> None:
    x, weight, bias = randn(1, 2, 5, 4), randn(4, 1, 3, 3), randn(4)

    def critic(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        with TwiceDifferentiable():
            y = F.leaky_relu(F.conv2d(x, weight, bias, 2, 1, groups=2), 0.2)
            return F.conv_transpose2d(y * y, weight, None, 2, 1, 1, groups=2)

    inputs = tuple(t.requires_grad_() for t in (x, weight, bias))
    assert torch.autograd.gradcheck(critic, inputs)
    assert torch.autograd.gradgradcheck(critic, inputs)


def backwards(inside: Any) -> int:
    critic, x = StarGANDiscriminator(16, 2, 3, 4, 2), torch.randn(2, 3, 16, 16)
    x.requires_grad_()
    with OperationCounter() as counter:
        with inside:
            outputs, _ = critic(x)
        (slope,) = torch.autograd.grad(outputs.sum(), x, create_graph=True)
        slope.square().sum().backward()
    return counter.calls["convolution_backward"]


def test_nothing_goes_back_where_the_second_derivative_is_0() -> None:
    """Three layers: the slope through each, then each one's weight; PyTorch's own goes back through
    the two in front of a leaky ReLU once more."""
    assert backwards(TwiceDifferentiable()) == 3 + 3
    assert backwards(nullcontext()) == 3 + 2


def test_a_penalty_in_bf16_stays_in_full_precision() -> None:
    """Also where its backward pass runs under autocast."""
    torch.manual_seed(0)
    critic, x = StarGANDiscriminator(16, 2, 3, 4, 2), torch.randn(2, 3, 16, 16)
    found = []
    for autocast in (False, True):
        critic.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            r1(lambda x: critic(x)[0], x).backward()
        found.append([p.grad for p in critic.parameters() if p.grad is not None])
    assert found[0]
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("mode", ["down", "up", "after_up", "before_down", "blur", "reflected"])
def test_a_low_pass_differentiates_twice_with_all_channels_in_one(mode: Any) -> None:
    x = randn(1, 6, 6, 6).requires_grad_()
    blur = {"blur": BlurUp, "reflected": BlurDown}.get(mode, lambda: Fir(mode))().double()
    assert torch.autograd.gradgradcheck(blur, randn(1, 1, 3, 4).requires_grad_())
    with OperationCounter() as counter:
        (slope,) = torch.autograd.grad(blur(x).square().sum(), x, create_graph=True)
        slope.square().sum().backward()
    assert sum(n for call, n in counter.calls.items() if "convolution" in call) <= 4


@pytest.mark.parametrize("pictures", [1, 3, 8, 16])
def test_a_pointwise_convolution_is_torchs(pictures: int) -> None:
    """Also of the rows of few pictures, which pass for pictures of their own."""
    torch.manual_seed(0)
    ours = PointwiseConv2d(4, 16).double()
    reference = nn.Conv2d(4, 16, 1).double()
    reference.load_state_dict(ours.state_dict())
    x = randn(pictures, 4, 16, 2).contiguous(memory_format=torch.channels_last)
    found = []
    for conv in (reference, ours):
        x = x.detach().requires_grad_()
        y = conv(x)
        (slope,) = torch.autograd.grad(y.tanh().sum(), x, create_graph=True)
        grads = torch.autograd.grad(slope.square().sum(), [*conv.parameters(), x])
        found.append([y, slope, *grads])
        assert y.is_contiguous(memory_format=torch.channels_last)
    for theirs, mine in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
