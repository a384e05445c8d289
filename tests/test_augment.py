"""DiffAugment and ADA: what they do to known pictures, their second derivatives, their draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from gansuite.draws import Draws
from gansuite.errors import UserError
from gansuite.networks import augment as module
from gansuite.networks.augment import ADA, DiffAugment, ada_update
from gansuite.rng import torch_generator


def gen(*position: int) -> torch.Generator:
    return torch_generator(0, "test", *position)


def draws(*position: int, shard: int = 0) -> Draws:
    return Draws(0, *position, shard=shard)


def pictures(n: int = 4, c: int = 3, side: int = 16) -> Tensor:
    return torch.rand(n, c, side, side, generator=gen(n, c, side)) * 2 - 1


ALL = [DiffAugment(), ADA(1.0), ADA(0.5), ADA(0.8, colour=0.5, cutout=1.0)]


@pytest.mark.parametrize("augment", ALL)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_draws(augment: nn.Module, channels: int) -> None:
    x = pictures(6, channels)
    once = augment(x, draws(1))
    assert once.shape == x.shape
    assert once.isfinite().all()
    assert torch.equal(once, augment(x, draws(1)))
    assert not torch.allclose(once, augment(x, draws(2)), atol=0.1)
    assert not torch.allclose(once, x, atol=0.1)
    # two processes draw what one would
    halves = [augment(x[3 * r : 3 * r + 3], draws(1, shard=r)) for r in (0, 1)]
    torch.testing.assert_close(torch.cat(halves), once)
    # float64 pictures meet the same transformation
    torch.testing.assert_close(augment(x.double(), draws(1)).float(), once, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("augment", ALL)
def test_same_transformation_for_reals_and_fakes(augment: nn.Module) -> None:
    """The map is affine and its draws ignore the pictures: T(x) - T(y) = T(2x - y) - T(x)."""
    x, y = pictures(8).double(), pictures(8).double().flip(0)
    a, b, c = (augment(v, draws(5)) for v in (x, y, 2 * x - y))
    torch.testing.assert_close(a - b, c - a)


@pytest.mark.slow
@pytest.mark.parametrize("augment", ALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_second_derivatives(augment: nn.Module, channels: int) -> None:
    x = torch.randn(2, channels, 4, 4, generator=gen(), dtype=torch.float64).requires_grad_()

    def bent(x: Tensor) -> Tensor:
        # something after the augmentation for a second derivative to pass through
        return augment(x, draws(3)).pow(3)

    assert gradcheck(bent, x)
    assert gradgradcheck(bent, x)


def test_r1_before_the_augmentation() -> None:
    """With D(x) = sum of squares of T(x): grad = 2 J'T(x), here against the explicit Jacobian."""
    x = pictures(1, 3, 6).double().requires_grad_()
    ada = ADA(1.0)
    (g,) = torch.autograd.grad(ada(x, draws(4)).square().sum(), x, create_graph=True)
    j = torch.autograd.functional.jacobian(lambda v: ada(v, draws(4)), x.detach()).view(108, 108)
    t = ada(x, draws(4)).detach().view(-1)
    torch.testing.assert_close(g.view(-1).detach(), 2 * j.T @ t)
    (second,) = torch.autograd.grad(g.square().sum(), x)
    torch.testing.assert_close(second.view(-1), 2 * (2 * j.T @ j).T @ (2 * j.T @ t))


# --------------------------------------------------------------------------------------- ADA


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("side", [15, 16])
def test_ada_at_zero_is_the_identity(dtype: torch.dtype, side: int) -> None:
    x = pictures(5, 3, side).to(dtype)
    assert torch.equal(ADA(0.0)(x, draws()), x)


def only(monkeypatch: pytest.MonkeyPatch, **chosen: list[float]) -> list[int]:
    """ADA with everything off but the gates named in ``on``; draws are set by hand."""
    gates, u, z = [1.0] * 13, [0.5] * 8, [0.0] * 7
    for k in chosen.pop("on"):
        gates[int(k)] = 0.0
    for columns, values in ((u, chosen.get("u", [])), (z, chosen.get("z", []))):
        columns[: len(values)] = values
    n: list[int] = []

    def fake(images: Tensor, count: int, *_: object, normal: bool) -> tuple[Tensor, ...]:
        values = z if normal else gates + u
        n.append(count)
        assert count == len(values)
        return tuple(torch.full((len(images),), float(v)) for v in values)

    monkeypatch.setattr(module, "_draw", fake)
    return n


@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_ada_blits_are_exact(monkeypatch: pytest.MonkeyPatch, quarter: int) -> None:
    x = pictures(2, 3, 16)
    only(monkeypatch, on=[0, 1], u=[0.2, quarter / 4 + 0.1])
    out = ADA(0.5)(x, draws())
    # the flip comes first; both senses of rotation are equally likely
    assert torch.equal(out, x.flip(3).rot90(quarter, (2, 3)))


def test_ada_whole_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    x = pictures(2, 3, 16)
    only(monkeypatch, on=[2], u=[0.9, 0.0, 1.0, 0.25])
    out = ADA(0.5)(x, draws())
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="reflect")
    assert torch.equal(out, padded[:, :, 1:17, 4:20])


def test_ada_geometry_against_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    x = pictures(1, 1, 16).double()
    only(monkeypatch, on=[3, 4, 5, 6, 7], u=[0, 0, 0, 0, 0.61, 0.37], z=[0.8, -1.1, 0.3, -0.2])
    out = ADA(0.5)(x, draws())[0, 0].numpy()

    def turn(u: float) -> np.ndarray:
        a = (2 * u - 1) * math.pi
        return np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])

    size, aspect = 2 ** (0.2 * 0.8), 2 ** (0.2 * -1.1)
    linear = size * turn(0.61) @ np.diag([aspect, 1 / aspect]) @ turn(0.37)
    ys, xs = np.mgrid[0:16, 0:16] - 7.5
    offset = np.array([0.125 * 16 * 0.3, 0.125 * 16 * -0.2])
    read = np.einsum("ij,jhw->ihw", linear, np.stack([xs + offset[0], ys + offset[1]])) + 7.5
    expected = map_coordinates(x[0, 0].numpy(), read[::-1], order=1, mode="mirror")
    np.testing.assert_allclose(out, expected, atol=1e-4)


def test_ada_colours_against_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    x = pictures(1, 3, 4).double()
    z = [0.0, 0.0, 0.0, 0.0, 0.7, -0.9, 0.4]
    only(monkeypatch, on=[8, 9, 10, 11, 12], u=[0, 0, 0, 0, 0, 0, 0.3, 0.83], z=z)
    out = ADA(0.5)(x, draws())[0].flatten(1).numpy()
    y = x[0].flatten(1).numpy() + 0.2 * 0.7
    y = y * 2 ** (0.5 * -0.9)
    v = np.ones((3, 1)) / math.sqrt(3)
    y = (np.eye(3) - 2 * v @ v.T) @ y  # a reflection at the plane across the grey axis
    y = Rotation.from_rotvec((2 * 0.83 - 1) * math.pi * v[:, 0]).as_matrix() @ y
    y = (v @ v.T + (np.eye(3) - v @ v.T) * 2**0.4) @ y
    np.testing.assert_allclose(out, y, atol=1e-5)


def test_ada_probability_and_spread() -> None:
    """How often and how far, on many pictures."""
    n = 4000
    spot = torch.zeros(n, 1, 9, 9)
    spot[:, :, 4, 4] = 1
    moved = ADA(0.3)(spot, draws())
    untouched = (moved == spot).flatten(1).all(1).float().mean().item()
    # a grey spot in the centre stays as it is without stretching, turning, fractional shift,
    # brightness and contrast, if both whole shifts round to 0, luma is not inverted, and scaling
    # does not enlarge it
    still = 0.7 + 0.3 * (0.5 / 1.125) ** 2
    expected = 0.7**5 * 0.85 * still * 0.85
    assert untouched == pytest.approx(expected, abs=0.012)
    # colour of constant grey pictures: v -> +-c (v + b)
    flat = torch.full((n, 1, 4, 4), 0.5)
    value = ADA(1.0)(flat, draws())[:, 0, 0, 0]
    assert (value < 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
    # median of log2 |v|: log2 .5 plus two symmetric terms
    assert value.abs().log2().median().item() == pytest.approx(-1, abs=0.05)
    flat = torch.zeros(n, 1, 4, 4)
    assert ADA(1.0)(flat, draws(1)).abs().median().item() == pytest.approx(0.2 * 0.66, abs=0.02)


def test_ada_update() -> None:
    p = torch.tensor(0.5)
    step = 64 * 4 / 500_000
    assert ada_update(p, torch.tensor(0.7), 64).item() == pytest.approx(0.5 + step)
    assert ada_update(p, torch.tensor(0.5), 64).item() == pytest.approx(0.5 - step)
    assert ada_update(torch.tensor(0.0), torch.tensor(-1.0), 64).item() == 0
    assert ada_update(p, torch.tensor(0.6), 64).item() == 0.5
    fast = ada_update(p, torch.tensor(0.3), 32, target=0.2, ada_kimg=1, interval=2)
    assert fast.item() == pytest.approx(0.564)
    assert ada_update(torch.tensor(1.0), torch.tensor(1.0), 64) > 1  # only 0 is a bound
    ada = ADA()
    assert list(ada.state_dict()) == ["p"]
    assert not list(ada.parameters())


# ------------------------------------------------------------------------------- DiffAugment


def test_ada_with_less_colour_and_cutout(monkeypatch: pytest.MonkeyPatch) -> None:
    x = pictures(1, 3, 16).expand(4000, -1, -1, -1)
    out = ADA(0.6, cutout=0.5)(x * 0 + 1, draws(8)) == 0
    hit = out[:, 0].flatten(1).any(1)
    assert float(hit.float().mean()) == pytest.approx(0.3, abs=0.03)
    rows = out[hit][:, 0].any(2)
    assert torch.equal(out[hit][:, 0], rows[:, :, None] & out[hit][:, 0].any(1)[:, None])
    inside = ~rows[:, 0] & ~rows[:, -1]
    assert (rows[inside].sum(1) == 8).all()
    assert rows.sum(1).min() >= 4
    middle = (rows.float() @ torch.arange(16.0)) / rows.sum(1)
    assert float(middle[inside].mean()) == pytest.approx(7.5, abs=0.3)
    # the square of the centre u = 1/2: pixels whose centres are within a quarter of the side
    gates = [1.0] * 13 + [0.5] * 8
    drawn = iter([gates, [0.0] * 7, [0.0, 0.5, 0.25]])
    monkeypatch.setattr(
        module, "_draw", lambda *a, **k: tuple(torch.full((4000,), v) for v in next(drawn))
    )
    hole = ADA(0.5, cutout=1.0)(x * 0 + 1, draws())[0, 0] == 0
    centres = (torch.arange(16) + 0.5) / 16
    expected = ((centres - 0.5).abs() < 0.25)[:, None] & ((centres - 0.25).abs() < 0.25)
    assert torch.equal(hole, expected)
    # colour at half the probability: a gate of 0.4 opens at p = 0.5 but not at 0.25
    for colour, opened in ((1.0, True), (0.5, False)):
        gates = [1.0] * 8 + [0.4] + [1.0] * 4 + [0.5] * 8
        drawn = iter([gates, [1.0] * 7])
        changed = not torch.equal(ADA(0.5, colour=colour)(x, draws()), x)
        assert changed == opened


def test_diffaugment_policy() -> None:
    x = pictures()
    assert torch.equal(DiffAugment("")(x, draws()), x)
    with pytest.raises(UserError, match=r"no part 'colour'.*did you mean 'color'"):
        DiffAugment("colour,cutout")


def test_diffaugment_color() -> None:
    x = pictures(500)
    out = DiffAugment("color")(x, draws())
    u = draws().rand(500, 7)[:, :3, None, None, None]
    y = x + (u[:, 0] - 0.5)
    y = y.mean(1, keepdim=True) + 2 * u[:, 1] * (y - y.mean(1, keepdim=True))
    mean = y.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(out, mean + (0.5 + u[:, 2]) * (y - mean))
    shift = out.mean((1, 2, 3)) - x.mean((1, 2, 3))
    assert -0.5 <= shift.min() < -0.48
    assert 0.48 < shift.max() <= 0.5


def test_diffaugment_translation() -> None:
    x = pictures(600)
    out = DiffAugment("translation")(x, draws())
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    seen = set()
    for k in range(600):
        hits = [
            (dy, dx)
            for dy in range(5)
            for dx in range(5)
            if torch.equal(out[k], padded[k, :, dy : dy + 16, dx : dx + 16])
        ]
        assert len(hits) == 1
        seen.update(hits)
    assert len(seen) == 25


def test_diffaugment_cutout() -> None:
    out = DiffAugment("cutout")(torch.ones(2000, 1, 16, 16), draws())[:, 0]
    assert set(out.unique().tolist()) == {0.0, 1.0}
    rows, cols = (out == 0).any(2), (out == 0).any(1)
    # a rectangle: the zeros are exactly rows x columns, half a side unless cut by the border
    assert torch.equal(out == 0, rows[:, :, None] & cols[:, None, :])
    assert rows.sum(1).max() == 8
    assert rows.sum(1).min() == 4
    inside = rows[:, 0].logical_not() & rows[:, -1].logical_not()
    assert (rows[inside].sum(1) == 8).all()
