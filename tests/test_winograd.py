"""Winograd's filtering against the plain convolution."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gansuite.core.flops import OperationCounter
from gansuite.ops import products, winograd
from gansuite.ops.twice import TwiceDifferentiable
from gansuite.ops.winograd import Conv3x3, conv3x3


def _filtered(x: Tensor, weight: Tensor) -> Tensor:
    return winograd._Filtered.apply(x, weight)


def _pair(*sizes: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    n, c, o, h, w = sizes
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, c, h + 2, w + 2, generator=generator, dtype=dtype)
    weight = torch.randn(o, c, 3, 3, generator=generator, dtype=dtype)
    return x.requires_grad_(), weight.requires_grad_()


@pytest.mark.parametrize("shape", [(1, 1, 1, 4, 4), (2, 3, 5, 8, 16), (3, 4, 2, 12, 4)])
def test_the_function_and_its_derivatives(shape: tuple[int, ...]) -> None:
    x, weight = _pair(*shape)
    y, plain = _filtered(x, weight), F.conv2d(x, weight)
    torch.testing.assert_close(y, plain, rtol=0, atol=1e-12)
    g = torch.randn_like(y)
    for wanted in ((x,), (weight,), (x, weight)):
        found = torch.autograd.grad(y, wanted, g, retain_graph=True)
        for a, b in zip(
            found, torch.autograd.grad(plain, wanted, g, retain_graph=True), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_second_derivatives() -> None:
    x, weight = _pair(2, 2, 3, 4, 8)
    assert torch.autograd.gradgradcheck(lambda *args: _filtered(*args).square(), (x, weight))


def test_the_rounding_of_float32() -> None:
    """Against float64, 1e-5 of the norm: a convolution in TF32 is at 3e-4."""
    x, weight = _pair(2, 128, 128, 16, 16, dtype=torch.float32)
    y = _filtered(x, weight)
    g = torch.randn_like(y)
    found = (y, *torch.autograd.grad(y, (x, weight), g))
    exact = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    z = F.conv2d(*exact)
    for a, b in zip(found, (z, *torch.autograd.grad(z, exact, g.double())), strict=True):
        assert 0 < float((a - b).detach().norm() / b.detach().norm()) < 1e-5


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what is filtered."""
    found: list[tuple[int, ...]] = []
    own = winograd._Filtered

    class Watched(own):  # type: ignore[misc, valid-type]
        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
            found.append(tuple(x.shape))
            return own.forward(ctx, x, weight)

    monkeypatch.setattr(winograd, "_Filtered", Watched)
    monkeypatch.setattr(products, "exact", lambda: True)
    return found


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("bias", [False, True])
def test_the_layer_where_it_pays(padding: int, bias: bool, calls: list[tuple[int, ...]]) -> None:
    layer = Conv3x3(96, 96, padding, bias)
    x = torch.randn(6, 96, 18 - 2 * padding, 18 - 2 * padding)
    y = layer(x)
    assert calls == [(6, 96, 18, 18)]
    plain = F.conv2d(x, layer.weight, layer.bias, 1, padding)
    torch.testing.assert_close(y, plain, rtol=1e-4, atol=1e-4)


def test_where_it_does_not_pay(calls: list[tuple[int, ...]]) -> None:
    weight = torch.randn(96, 96, 3, 3)
    conv3x3(torch.randn(5, 96, 18, 18), weight)  # 80 tiles
    conv3x3(torch.randn(6, 96, 17, 18), weight)  # not whole ones
    conv3x3(torch.randn(6, 96, 18, 18), weight[:95])
    many = torch.randn(6, 96, 18, 18)
    conv3x3(many.double(), weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert conv3x3(many, weight).dtype == torch.bfloat16
    with TwiceDifferentiable():
        conv3x3(many, weight)
    assert conv3x3(many.to("meta"), weight.to("meta")).shape == (6, 96, 16, 16)
    assert calls == []
    conv3x3(many, weight)
    assert len(calls) == 1


def test_not_by_a_machine_that_would_round(monkeypatch: pytest.MonkeyPatch) -> None:
    product = torch.bmm

    def rounded(a: Tensor, b: Tensor) -> Tensor:
        if a.dtype == torch.float32:
            a, b = a.bfloat16().float(), b.bfloat16().float()
        return product(a, b)

    products.exact.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "bmm", rounded)
        assert not products.exact()
    products.exact.cache_clear()


@pytest.mark.parametrize("exact", [False, True])
def test_a_product_and_its_derivatives(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "exact", lambda: exact)
    monkeypatch.setattr(products, "plain", lambda x: True)  # in float64 as well
    a, b = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((3, 4), (4, 2)))
    assert torch.equal(products.product(a, b), a @ b)
    assert torch.autograd.gradcheck(products.product, (a, b))
    assert torch.autograd.gradgradcheck(products.product, (a, b))


@pytest.mark.parametrize("exact", [False, True])
def test_a_linear_layer_and_its_derivatives(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "exact", lambda: exact)
    monkeypatch.setattr(products, "plain", lambda x: True)
    x, w, b = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((3, 4), (2, 4), 2))
    torch.testing.assert_close(products.linear(x, w, b), F.linear(x, w, b))
    assert torch.autograd.gradcheck(products.linear, (x, w, b))
    assert torch.autograd.gradgradcheck(products.linear, (x, w, b))
    (slope,) = torch.autograd.grad(products.linear(x, w, b).sum(), w)
    assert slope.is_contiguous()  # else it is laid out anew before it is added up


def test_a_product_under_autocast_is_of_16_bits() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert products.product(torch.ones(2, 3), torch.ones(3, 2)).dtype == torch.bfloat16


def test_the_setting_of_others_is_kept() -> None:
    matmul = products._settings()
    if matmul is None:
        pytest.skip("this PyTorch has no such setting")
    before = matmul.fp32_precision
    x, weight = _pair(1, 2, 2, 4, 4, dtype=torch.float32)
    _filtered(x, weight).sum().backward()
    assert matmul.fp32_precision == before


def test_it_counts_as_the_convolution_that_it_is() -> None:
    x, weight = _pair(2, 3, 5, 8, 4, dtype=torch.float32)
    counted = []
    for convolve in (_filtered, F.conv2d):
        with OperationCounter() as counter:
            convolve(x, weight).sum().backward()
        counted.append(counter.flops)
    assert counted == [3 * 2 * 2 * 8 * 4 * 5 * 3 * 9] * 2
