"""Losses against closed forms, finite differences and slow loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansuite.draws import Draws
from gansuite.errors import UserError
from gansuite.losses.adversarial import ADVERSARIAL, adversarial
from gansuite.losses.mmd import mmd2
from gansuite.losses.penalties import clip_weights_, gradient_penalty, r1
from gansuite.losses.precision import mixed_penalties
from gansuite.losses.reconstruction import classification, feature_matching, l1, mse
from gansuite.networks.patchgan import PatchDiscriminator

LN2 = math.log(2)
ON_LOGITS = [name for name in ADVERSARIAL if name != "mmd"]  # mmd compares sets of codes


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def draws() -> Draws:
    return Draws(0)


# Adversarial


@pytest.mark.parametrize(
    ("name", "d", "g"),
    [
        ("nonsaturating", 2 * LN2, LN2),
        ("minimax", 2 * LN2, -LN2),
        ("lsgan", 0.5, 1.0),
        ("hinge", 2.0, 0.0),
        ("wgan", 0.0, 0.0),
        ("relativistic", LN2, LN2),
    ],
)
@pytest.mark.parametrize("shape", [(4,), (2, 1, 3, 3)])
def test_values_at_zero_logits(name: str, d: float, g: float, shape: tuple[int, ...]) -> None:
    zero = torch.zeros(shape)
    assert float(adversarial(name).d(zero, zero)) == pytest.approx(d)
    assert float(adversarial(name).g(zero, zero)) == pytest.approx(g)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


DEFINITIONS = {
    "nonsaturating": (
        lambda r, f: -np.log(sigmoid(r)).mean() - np.log(1 - sigmoid(f)).mean(),
        lambda r, f: -np.log(sigmoid(f)).mean(),
    ),
    "minimax": (
        lambda r, f: -np.log(sigmoid(r)).mean() - np.log(1 - sigmoid(f)).mean(),
        lambda r, f: np.log(1 - sigmoid(f)).mean(),
    ),
    "lsgan": (
        lambda r, f: ((r - 1) ** 2).mean() / 2 + (f**2).mean() / 2,
        lambda r, f: ((f - 1) ** 2).mean(),
    ),
    "hinge": (
        lambda r, f: np.maximum(0, 1 - r).mean() + np.maximum(0, 1 + f).mean(),
        lambda r, f: -f.mean(),
    ),
    "wgan": (lambda r, f: f.mean() - r.mean(), lambda r, f: -f.mean()),
    "relativistic": (
        lambda r, f: -np.log(sigmoid(r - f)).mean(),
        lambda r, f: -np.log(sigmoid(f - r)).mean(),
    ),
}


@pytest.mark.parametrize("name", ON_LOGITS)
def test_adversarial_losses_are_their_definitions(name: str) -> None:
    r = torch.randn(3, 1, 2, 2, dtype=torch.float64) * 2
    f = torch.randn(3, 1, 2, 2, dtype=torch.float64) * 2
    d, g = DEFINITIONS[name]
    assert float(adversarial(name).d(r, f)) == pytest.approx(d(r.numpy(), f.numpy()))
    assert float(adversarial(name).g(f, r)) == pytest.approx(g(r.numpy(), f.numpy()))


@pytest.mark.parametrize("name", ON_LOGITS)
def test_adversarial_losses_push_logits_the_right_way(name: str) -> None:
    r, f = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    dr, df = torch.autograd.grad(adversarial(name).d(r, f), (r, f), allow_unused=True)
    assert dr is None or (dr < 0).all()
    assert df is None or ((df >= 0).all() if name == "lsgan" else (df > 0).all())
    (gf,) = torch.autograd.grad(adversarial(name).g(f, r), f)
    assert (gf < 0).all()


def test_adversarial_losses_stay_finite_far_out_and_leave_16_bits() -> None:
    far = torch.tensor([1e4, -1e4], dtype=torch.bfloat16)
    for name in ON_LOGITS:
        for loss in (adversarial(name).d(far, -far), adversarial(name).g(far, -far)):
            assert torch.isfinite(loss)
            assert loss.dtype == torch.float32


def test_mmd_critic_parts_codes_that_the_generator_joins() -> None:
    r, f = torch.randn(6, 4), torch.randn(6, 4) + 1
    loss = adversarial("mmd")
    assert float(loss.g(f, r)) == pytest.approx(float(mmd2(r, f)))
    assert float(loss.d(r, f)) == -float(loss.g(f, r))
    assert float(loss.g(r, r)) == pytest.approx(0, abs=1e-6)


def test_unknown_loss_and_missing_real_logits() -> None:
    with pytest.raises(UserError, match="did you mean 'hinge'"):
        adversarial("hinje")
    with pytest.raises(ValueError, match="real_logits"):
        adversarial("relativistic").g(torch.zeros(1))


# Penalties


class Critic(nn.Module):
    """A smooth patch critic."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 1, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)))


@pytest.mark.parametrize(("center", "constant"), [(1.0, 1.0), (0.0, 0.0)])
def test_gradient_penalty_in_closed_form(center: float, constant: float) -> None:
    real, fake = torch.randn(3, 3, 4, 4), torch.randn(3, 3, 4, 4)

    def gp(critic: object) -> float:
        return gradient_penalty(critic, real, fake, draws(), center).item()  # type: ignore[arg-type]

    d = 3 * 4 * 4
    assert gp(lambda x: 0 * x.sum((1, 2, 3))) == pytest.approx(constant)
    assert gp(lambda x: x.sum((1, 2, 3))) == pytest.approx((math.sqrt(d) - center) ** 2)
    assert gp(lambda x: x) == pytest.approx((math.sqrt(d) - center) ** 2)  # patches are summed


def test_r1_in_closed_form() -> None:
    x = torch.randn(3, 3, 4, 4)
    assert float(r1(lambda x: x.sum((1, 2, 3)), x)) == pytest.approx(48)
    assert r1(lambda x: 0.5 * x.square(), x).item() == pytest.approx(float(x.square().sum() / 3))


def test_constant_critic_has_a_finite_gradient() -> None:
    scale = torch.zeros((), requires_grad=True)
    x = torch.randn(2, 1, 2, 2)
    (g,) = torch.autograd.grad(gradient_penalty(lambda x: scale * x, x, x, draws()), scale)
    assert torch.isfinite(g)


def test_penalty_looks_between_real_and_fake_with_one_alpha_per_sample() -> None:
    real = torch.randn(6, 2, 3, 3)
    fake = torch.randn(6, 2, 3, 3, requires_grad=True)
    seen: list[Tensor] = []

    def critic(x: Tensor) -> Tensor:
        seen.append(x)
        return x.square()

    gradient_penalty(critic, real, fake, draws())
    (x,) = seen
    assert x.is_leaf  # nothing leads back into the generator
    alpha = ((x - fake) / (real - fake)).detach().flatten(1)
    torch.testing.assert_close(alpha, alpha[:, :1].expand_as(alpha), atol=1e-3, rtol=1e-3)
    assert (alpha[:, 0] >= 0).all()
    assert (alpha[:, 0] <= 1).all()
    assert alpha[:, 0].std() > 0.1
    expected = draws().rand(6)
    torch.testing.assert_close(alpha[:, 0], expected, atol=1e-3, rtol=1e-3)


def test_penalties_agree_with_finite_differences() -> None:
    critic = Critic().double()
    real = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    fake = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    alpha = draws().rand(2, 1, 1, 1).double()

    def slopes(x: Tensor) -> Tensor:
        """|grad D|^2 per sample by central differences."""
        out, h = torch.zeros(len(x), dtype=torch.float64), 1e-5
        for i in range(x[0].numel()):
            e = torch.zeros_like(x[0]).flatten()
            e[i] = h
            e = e.view_as(x[0])
            out += ((critic(x + e) - critic(x - e)).sum((1, 2, 3)) / (2 * h)) ** 2
        return out

    with torch.no_grad():
        at_real, between = slopes(real), slopes(alpha * real + (1 - alpha) * fake)
    assert r1(critic, real).item() == pytest.approx(float(at_real.mean()), rel=1e-6)
    for c in (0.0, 1.0):
        expected = float((between.sqrt() - c).square().mean())
        gp = gradient_penalty(critic, real, fake, draws(), center=c)
        assert gp.item() == pytest.approx(expected, rel=1e-6)


def test_penalties_train_the_critic() -> None:
    critic = Critic().double()
    parameters = tuple(critic.parameters())
    x, y = torch.randn(2, 2, 2, 5, 5, dtype=torch.float64)
    # the biases' true gradient is 0 for the last layer only
    for penalty in (
        lambda *_: r1(critic, x),
        lambda *_: gradient_penalty(critic, x, y, draws()),
    ):
        assert torch.autograd.gradcheck(penalty, parameters[:3], atol=1e-6)


def test_penalties_run_in_full_precision_inside_autocast() -> None:
    critic = Critic()
    x, y = torch.randn(2, 2, 2, 5, 5)
    expected = gradient_penalty(critic, x, y, draws()), r1(critic, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert critic(x).dtype == torch.bfloat16
        actual = gradient_penalty(critic, x, y, draws()), r1(critic, x)
        assert torch.isfinite(gradient_penalty(critic, x, y.bfloat16(), draws()))
        assert torch.isfinite(r1(critic, x.bfloat16()))
    assert actual == expected


@pytest.mark.parametrize("penalty", [r1, lambda d, x: gradient_penalty(d, x, x.flip(0), draws())])
def test_mixed_penalties_run_in_16_bits_and_are_nearly_the_same(penalty: Any) -> None:
    """Against float64: the value and its gradient with respect to the critic's weights."""
    torch.manual_seed(0)
    critic = PatchDiscriminator(3, 16, 3, norm="none").double()
    x = torch.rand(4, 3, 32, 32, dtype=torch.float64) * 2 - 1

    def found(x: Tensor) -> tuple[Tensor, Tensor]:
        value = penalty(critic, x)
        parts = torch.autograd.grad(value, list(critic.parameters()), allow_unused=True)
        return value.detach(), torch.cat([g.double().flatten() for g in parts if g is not None])

    value, gradient = found(x)
    critic.float()
    with torch.autocast("cpu", torch.bfloat16):
        full, _ = found(x.float())
        with mixed_penalties():
            near, slope = found(x.float())
        assert torch.equal(found(x.float())[0], full)
    assert near.dtype == torch.float32
    assert near != full
    assert float(near) == pytest.approx(float(value), rel=0.02)
    assert torch.cosine_similarity(slope, gradient, 0) > 0.999
    assert float(slope.norm() / gradient.norm()) == pytest.approx(1, rel=0.02)


def test_clip_weights_reaches_every_parameter() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    before = [p.detach().clone() for p in net.parameters()]
    clip_weights_(net, 0.01)
    for p, b in zip(net.parameters(), before, strict=True):
        assert torch.equal(p, b.clamp(-0.01, 0.01))
        assert p.requires_grad
    assert float(net.get_parameter("1.weight").detach().max()) == pytest.approx(0.01)


# MMD


def slow_mmd2(x: np.ndarray, y: np.ndarray, unbiased: bool) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return sum(math.exp(-((a - b) ** 2).sum() / (2 * s * s)) for s in (1, 2, 4, 8, 16))

    def mean(a: np.ndarray) -> float:
        pairs = [
            k(p, q) for i, p in enumerate(a) for j, q in enumerate(a) if i != j or not unbiased
        ]
        return sum(pairs) / len(pairs)

    return mean(x) + mean(y) - 2 * float(np.mean([[k(p, q) for q in y] for p in x]))


@pytest.mark.parametrize("unbiased", [False, True])
def test_mmd_is_the_double_loop(unbiased: bool) -> None:
    x = torch.randn(7, 3, dtype=torch.float64)
    y = torch.randn(5, 3, dtype=torch.float64) + 1
    expected = slow_mmd2(x.numpy(), y.numpy(), unbiased)
    assert float(mmd2(x, y, unbiased=unbiased)) == pytest.approx(expected)


def test_mmd_of_equal_samples() -> None:
    x = torch.randn(50, 4) + 10
    assert float(mmd2(x, x)) == pytest.approx(0, abs=1e-4)
    assert float(mmd2(x, x, unbiased=True)) < 0

    def two_samples(unbiased: bool) -> float:
        return float(mmd2(torch.randn(20, 2), torch.randn(20, 2), unbiased=unbiased))

    values = [two_samples(unbiased=True) for _ in range(300)]
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error  # unbiased
    assert min(two_samples(unbiased=False) for _ in range(50)) > 0


def test_mmd_and_feature_matching_in_16_bits() -> None:
    """Small differences of large sums: in bf16 nothing of them would be left."""
    x, y = torch.randn(32, 4) + 20, torch.randn(32, 4) + 20.1
    expected = mmd2(x.bfloat16().double(), y.bfloat16().double())
    with torch.autocast("cpu", torch.bfloat16):
        for a, b in ((x.bfloat16(), y.bfloat16()), (x.bfloat16().float(), y.bfloat16().float())):
            assert float(mmd2(a, b)) == pytest.approx(float(expected), rel=1e-2)
    real = torch.randn(64, 8, 4, 4) + 5
    for dtype in (torch.float16, torch.bfloat16):
        r, f = real.to(dtype), (real.flip(1) + 0.02).to(dtype)
        exact = feature_matching([r.double()], [f.double()])
        with torch.autocast("cpu", torch.bfloat16):
            assert float(feature_matching([r], [f])) == pytest.approx(float(exact), rel=1e-4)


def test_mmd_has_a_gradient() -> None:
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: mmd2(x, y), x)


# Reconstruction, features, labels


def test_reconstruction_losses_are_means() -> None:
    x, y = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 3.0)
    assert float(l1(x, y)) == 3
    assert float(mse(x, y)) == 9


def test_feature_matching_compares_batch_means() -> None:
    real = [torch.randn(4, 2, 3, 3, requires_grad=True), torch.randn(4, 5, 1, 1)]
    fake = [torch.randn(6, 2, 3, 3, requires_grad=True), torch.randn(6, 5, 1, 1)]
    expected = sum(
        ((r.detach().numpy().mean(0) - f.detach().numpy().mean(0)) ** 2).mean()
        for r, f in zip(real, fake, strict=True)
    )
    loss = feature_matching(real, fake)
    assert loss.item() == pytest.approx(float(expected))
    loss.backward()
    assert real[0].grad is None
    assert fake[0].grad is not None
    assert feature_matching(real, [r.flip(0) for r in real]).item() == pytest.approx(0, abs=1e-12)


def test_classification_sums_attributes_or_averages_domains() -> None:
    zero, labels = torch.zeros(4, 5), torch.eye(5)[:4]
    assert float(classification(zero, labels, [(5, False)])) == pytest.approx(5 * LN2)
    assert float(classification(zero, labels, [(5, True)])) == pytest.approx(math.log(5))
    logits, many = torch.randn(4, 5), (torch.rand(4, 5) > 0.5).float()
    p = sigmoid(logits.double().numpy())
    y = many.numpy()
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum() / 4
    assert float(classification(logits, many, [(5, False)])) == pytest.approx(expected)
    expected = float(F.nll_loss(torch.log_softmax(logits, 1), labels.argmax(1)))
    assert float(classification(logits, labels, [(5, True)])) == pytest.approx(expected)
