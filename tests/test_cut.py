"""CUT and FastCUT against the published integers, closed forms and networks called by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansuite.config import Ema
from gansuite.core.settings import Settings
from gansuite.data.spec import Batch, DataSpec
from gansuite.errors import UserError
from gansuite.losses.patchnce import patch_nce
from gansuite.methods.base import Step
from gansuite.methods.cut import CUT
from gansuite.networks.blur import BlurDown, BlurUp
from gansuite.networks.layers import init_xavier_
from gansuite.networks.projections import PatchProjections
from gansuite.networks.resnet import ResnetGenerator
from gansuite.rng import derive, torch_generator

SPEC = DataSpec("toy", 32, 3, ("horse", "zebra"), {}, False, ("horse", "zebra"), "0")


def pictures(n: int, name: str = "cut", size: int = 32) -> Tensor:
    x = torch.rand(n, 3, size, size, generator=torch_generator(0, name), dtype=torch.float64)
    return x * 2 - 1


def unit(*shape: int, name: str = "nce") -> Tensor:
    x = torch.randn(*shape, generator=torch_generator(0, name), dtype=torch.float64)
    return F.normalize(x, dim=-1)


def tiny(**options: Any) -> CUT:
    torch.manual_seed(0)
    small = {"width": 4, "d_width": 4, "blocks": 2, "patches": 9}
    method = CUT(SPEC, **{**small, **options}).double()
    with torch.no_grad():  # weights with which one picture is told from another
        for p in method.parameters():
            p.mul_(10)
    method.configure(Settings(seed=9, images_per_batch=4))
    return method


# --- integers ----------------------------------------------------------------------------------


def test_published_parameter_counts() -> None:
    with torch.device("meta"):
        whole = CUT(SPEC)
        small = CUT(SPEC, width=32)
    counts = whole.parameter_counts()
    assert counts == {"g": 11_378_179, "f": 560_384, "d": 2_764_737}
    assert sum(counts.values()) == 14_703_300
    assert whole.players == ("g", "d")
    assert small.parameter_counts()["f"] == 445_696
    assert whole.maps == ("pixels", "down1", "down2", "block1", "block5")


def test_maps_are_the_published_layers() -> None:
    """methods2.md, section 3b: indices 0, 4, 8, 12, 16 of the antialiased network at 256."""
    with torch.device("meta"):
        g = ResnetGenerator(antialias=True)
        names = ("pixels", "down1", "down2", "block1", "block5")
        found = g.features(torch.zeros(1, 3, 256, 256), names)
        plain = ResnetGenerator().features(torch.zeros(1, 3, 256, 256), names)
    assert [g.taps[name].layer for name in names] == [0, 4, 8, 12, 16]
    shapes = [(3, 262), (128, 256), (256, 128), (256, 64), (256, 64)]
    assert [tuple(found[n].shape[1:3]) for n in names] == shapes
    assert [g.taps[n].channels for n in names] == [c for c, _ in shapes]
    assert isinstance(g.body[4], nn.Conv2d)
    # by name the same places without antialiasing, where the indices are others
    assert [plain[n].shape[1] for n in names] == [c for c, _ in shapes]


@pytest.mark.parametrize(("blocks", "last"), [(1, "block1"), (4, "block4"), (6, "block5")])
def test_fewer_blocks_take_the_last(blocks: int, last: str) -> None:
    method = tiny(blocks=blocks)
    assert method.maps[-1] == last
    assert len(set(method.maps)) == len(method.maps) == len(method.f.heads)


def test_weights_begin_xavier_normal() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(32, 96, 5), nn.Linear(200, 300), nn.ConvTranspose2d(40, 60, 3))
    init_xavier_(layers)
    for m, fans in zip(layers, (25 * 128, 500, 9 * 100), strict=True):
        assert isinstance(m.weight, Tensor)
        assert float(m.weight.detach().std()) == pytest.approx(0.02 * math.sqrt(2 / fans), rel=0.02)
        assert not bool(m.bias.any())  # type: ignore[union-attr, operator]
    method = CUT(SPEC, width=16, d_width=16, blocks=2)
    for net, layer in ((method.g, method.g.body[8]), (method.d, method.d.body[3])):
        fans = layer.weight[0].numel() + layer.weight[:, 0].numel()
        assert float(layer.weight.detach().std()) == pytest.approx(
            0.02 * math.sqrt(2 / fans), rel=0.06
        )
        assert not any(bool(b.any()) for n, b in net.named_parameters() if n.endswith("bias"))


# --- blurred resampling ------------------------------------------------------------------------


def filtered(taps: list[float]) -> Tensor:
    k = torch.tensor(taps, dtype=torch.float64)
    return torch.outer(k, k)[None, None] / k.sum() ** 2


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 2, 7, 12), (1, 1, 31, 5)])
def test_blurs_are_their_definitions(shape: tuple[int, ...]) -> None:
    x = torch.randn(*shape, generator=torch_generator(0, "blur"), dtype=torch.float64)
    by_hand = F.conv2d(
        F.pad(x, (1, 1, 1, 1), mode="reflect"),
        filtered([1, 2, 1]).expand(shape[1], 1, 3, 3),
        stride=2,
        groups=shape[1],
    )
    torch.testing.assert_close(BlurDown().double()(x), by_hand)
    n, c, h, w = shape
    wide = F.pad(x, (1, 1, 1, 1), mode="replicate")
    zeros = torch.zeros(n, c, 2 * h + 4, 2 * w + 4, dtype=torch.float64)
    zeros[..., ::2, ::2] = wide
    kernel = 4 * filtered([1, 3, 3, 1]).expand(c, 1, 4, 4)
    # padded by 3 a transposed convolution of stride 2 is this, from pixel 1 on
    by_hand = F.conv2d(zeros, kernel, groups=c, padding=3)[..., 3 : 2 * h + 3, 3 : 2 * w + 3]
    made = BlurUp().double()(x)
    torch.testing.assert_close(made, by_hand)
    torch.testing.assert_close(made, F.interpolate(x, scale_factor=2, mode="bilinear"))


@pytest.mark.parametrize("make", [BlurDown, BlurUp])
def test_blurring_a_constant_leaves_it_and_has_no_parameters(make: Callable[[], nn.Module]) -> None:
    layer = make()
    x = torch.full((1, 2, 6, 6), 0.7)
    torch.testing.assert_close(layer(x), torch.full_like(layer(x), 0.7))
    back = BlurDown()(BlurUp()(x))
    torch.testing.assert_close(back, x)
    assert not list(layer.parameters())
    assert not layer.state_dict()
    half = layer(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert half.shape == layer(x).shape


# --- PatchNCE ----------------------------------------------------------------------------------


def nce_by_hand(q: Tensor, k: Tensor, t: float) -> Tensor:
    """As the authors' code has it: the positive, then all places with the own one masked."""
    losses = []
    for a, b in zip(q, k, strict=True):
        for i in range(len(a)):
            others = (
                torch.dot(a[i], b[j]) if j != i else a.new_tensor(-10.0) for j in range(len(b))
            )
            logits = [torch.dot(a[i], b[i]), *others]
            scaled = torch.stack(logits) / t
            losses.append(torch.logsumexp(scaled, 0) - scaled[0])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("t", [0.07, 0.5])
def test_patchnce_is_the_double_loop(t: float) -> None:
    q, k = unit(2, 7, 5).requires_grad_(), unit(2, 7, 5, name="k").requires_grad_()
    found = patch_nce(q, k, t)
    by_hand = nce_by_hand(q, k.detach(), t)
    torch.testing.assert_close(found, by_hand, rtol=1e-8, atol=1e-9)
    (a,), (b,) = torch.autograd.grad(found, [q]), torch.autograd.grad(by_hand, [q])
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)
    assert not patch_nce(q.detach(), k, t).requires_grad  # no gradient on the side of the keys


def test_patchnce_in_closed_form() -> None:
    same = unit(1, 1, 16).expand(2, 256, 16)
    assert float(patch_nce(same, same)) == pytest.approx(math.log(256), abs=1e-12)
    assert float(patch_nce(same.float(), same.float())) == pytest.approx(math.log(256), abs=1e-5)
    axes = torch.eye(256, dtype=torch.float64)[None]
    expected = math.log1p(255 * math.exp(-1 / 0.07))
    assert float(patch_nce(axes, axes)) == pytest.approx(expected, rel=1e-9)
    assert expected == pytest.approx(1.6e-4, rel=0.02)


def test_patchnce_knows_no_order_and_no_other_picture() -> None:
    q, k = unit(2, 20, 8), unit(2, 20, 8, name="k")
    order = torch.randperm(20, generator=torch_generator(0, "order"))
    torch.testing.assert_close(patch_nce(q[:, order], k[:, order]), patch_nce(q, k))
    singles = [patch_nce(q[i : i + 1], k[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(torch.stack(singles).mean(), patch_nce(q, k))


def test_patchnce_is_computed_in_full_precision() -> None:
    q, k = unit(1, 64, 16).float(), unit(1, 64, 16, name="k").float()
    exact = patch_nce(q, k)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(patch_nce(q, k), exact)
        assert patch_nce(q.bfloat16(), k.bfloat16()).dtype == torch.float32


def test_projections_are_unit_vectors_of_their_pixels() -> None:
    torch.manual_seed(0)
    f = PatchProjections({"a": 3, "b": 5}, width=6).double()
    maps = {"a": pictures(2, size=4), "b": torch.randn(2, 5, 2, 3, dtype=torch.float64)}
    places = {"a": torch.tensor([5, 0, 11]), "b": torch.tensor([4, 1])}
    for name, found in zip("ab", f(maps, places), strict=True):
        head, w = f.heads[name], maps[name].shape[3]
        assert found.shape == (2, len(places[name]), 6)
        for i, p in enumerate(places[name].tolist()):
            raw = head(maps[name][:, :, p // w, p % w])
            by_hand = raw / (raw.norm(dim=1, keepdim=True) + 1e-7)
            torch.testing.assert_close(found[:, i], by_hand)


# --- the method --------------------------------------------------------------------------------


def places(seed: int, calls: range, sizes: list[int], n: int) -> list[Tensor]:
    """The first ``n`` of a permutation of each map's pixels, drawn afresh."""
    found = []
    for call, size in zip(calls, sizes, strict=True):
        g = torch.Generator().manual_seed(derive(seed, "step", 0, call))
        found.append(torch.randperm(size, generator=g)[:n])
    return found


@pytest.mark.parametrize("preset", ["cut", "fastcut"])
def test_losses_are_those_of_the_paper(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the same networks called one picture at a time, in float64."""
    method = tiny(preset=preset)
    x, y = pictures(2), pictures(2, "target")
    mirrored = preset == "fastcut"
    monkeypatch.setattr("gansuite.draws.Draws.common", lambda self, k: [self._next() and 0.3] * k)
    step = Step(method, ("d", "g"), Batch((x, y)), 0)
    d_found = method.d_losses(Batch((x, y)), step)
    d_gradient = torch.autograd.grad(d_found["gan"], list(method.d.parameters()))
    assert all(p.grad is None for p in method.g.parameters())
    step.position = 1
    g_found = method.g_losses(Batch((x, y)), step)

    def g(real: Tensor) -> Tensor:
        real = real.flip(3) if mirrored else real
        return torch.cat([method.g(one[None]) for one in real])

    fake = g(x)
    expected = 0.5 * ((method.d(y) - 1) ** 2).mean() + 0.5 * (method.d(fake.detach()) ** 2).mean()
    torch.testing.assert_close(d_found["gan"], expected)
    for a, b in zip(
        d_gradient, torch.autograd.grad(expected, list(method.d.parameters())), strict=True
    ):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(g_found["gan"], ((method.d(fake) - 1) ** 2).mean())

    # body: pad, conv, norm, relu, conv, norm, relu, blur, conv, norm, relu, blur, block, block
    def encoded(picture: Tensor) -> list[Tensor]:
        maps = []
        for i, layer in enumerate(method.g.body[:14]):
            picture = layer(picture)
            if i in (0, 4, 8, 12, 13):
                maps.append(picture)
        return maps

    def nce(real: Tensor, made: Tensor, first: int) -> Tensor:
        terms = []
        sizes = [38 * 38, 32 * 32, 16 * 16, 8 * 8, 8 * 8]
        drawn = places(9, range(first, first + 5), sizes, 9)
        for head, mine, theirs, at in zip(
            method.f.heads.values(), encoded(made), encoded(real), drawn, strict=True
        ):
            mine = mine.flip(3) if mirrored else mine
            q, k = (head(m.flatten(2)[:, :, at].mT) for m in (mine, theirs))
            q, k = (v / (v.square().sum(2, keepdim=True).sqrt() + 1e-7) for v in (q, k))
            terms.append(nce_by_hand(q, k.detach(), 0.07))
        return torch.stack(terms).mean()

    torch.testing.assert_close(g_found["nce"], nce(x, fake, 2))
    if preset == "cut":
        torch.testing.assert_close(g_found["idt"], nce(y, g(y), 7))
    assert g_found.keys() == ({"gan", "nce", "idt"} if preset == "cut" else {"gan", "nce"})
    weights = {term: method.weight_of(term, step) for term in g_found}
    wanted = {"gan": 1.0, "nce": 0.5, "idt": 0.5} if preset == "cut" else {"gan": 1.0, "nce": 10.0}
    assert weights == wanted


def test_both_pictures_go_through_g_together_and_d_never_sees_the_identity() -> None:
    method = tiny()
    batch = Batch((pictures(2), pictures(2, "target")))
    seen: dict[str, list[Tensor]] = {"g": [], "d": []}
    for name in seen:
        method.network(name).register_forward_pre_hook(
            lambda _, given, name=name: seen[name].append(given[0].detach())
        )
    step = Step(method, ("d", "g"), batch, 0)
    method.d_losses(batch, step)
    step.position = 1
    method.g_losses(batch, step)
    assert [len(x) for x in seen["g"]] == [4]
    assert torch.equal(seen["g"][0], torch.cat(batch.images))
    with torch.no_grad():
        fakes = method.g(torch.cat(batch.images)).split(2)
    assert [len(x) for x in seen["d"]] == [4, 2]  # both of its own update, and G's
    for judged in [*seen["d"][0].split(2), seen["d"][1]]:
        assert any(torch.equal(judged, known) for known in (batch.images[1], fakes[0]))


def test_the_encoder_sees_the_identity_in_the_same_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so it does alone what it does beside the other term (the losses themselves: above)."""
    both, alone = tiny(), tiny(weights={"gan": 1.0, "nce": 0.0, "idt": 1.0})
    batch = Batch((pictures(2), pictures(2, "target")))
    calls: list[int] = []
    features = both.g.features

    def counted(x: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
        calls.append(len(x))
        return features(x, names)

    monkeypatch.setattr(both.g, "features", counted)
    step = Step(both, ("g",), batch, 0)
    found = both.g_losses(batch, step)
    assert calls == [4, 4]  # of the fakes, of the real pictures
    step = Step(alone, ("g",), batch, 0)
    for _ in range(5):  # the places of the other term
        step.draws.permutation(1)
    losses = alone.g_losses(batch, step)
    assert losses.keys() == {"gan", "idt"}
    torch.testing.assert_close(losses["idt"], found["idt"])


def test_the_contrast_trains_the_encoder_and_the_heads_from_the_side_of_the_queries() -> None:
    method = tiny()
    x = pictures(1)
    step = Step(method, ("g",), Batch((x, x)), 0)
    loss = method.nce({"nce": (x, method.g(x))}, step)["nce"]
    gradients = torch.autograd.grad(loss, [*method.f.parameters(), method.g.body[1].weight])
    assert all(bool(g.any()) for g in gradients[::2])
    frozen = copy.deepcopy(method)
    frozen.requires_grad_(False)
    step = Step(frozen, ("g",), Batch((x, x)), 0)
    given = x.clone().requires_grad_()
    assert not frozen.nce({"nce": (given, x)}, step)["nce"].requires_grad


def test_mirroring_is_exact_for_a_generator_that_commutes_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With symmetric kernels G(flip x) = flip G(x), so the unflipped maps are those of no flip."""
    method = tiny(preset="fastcut")
    with torch.no_grad():
        for m in method.g.modules():
            if isinstance(m, nn.Conv2d):
                m.weight.copy_((m.weight + m.weight.flip(3)) / 2)
    # at every second pixel from the first on, blurring itself does not commute with mirroring
    method.maps = ("pixels", "down1")
    method.f = PatchProjections({n: method.g.taps[n].channels for n in method.maps}).double()
    batch, found = Batch((pictures(2), pictures(2, "target"))), []
    x = batch.images[0]
    torch.testing.assert_close(
        method.g.features(x.flip(3), ("down1",))["down1"].flip(3),
        method.g.features(x, ("down1",))["down1"],
    )
    for chance in (0.4, 0.6):
        monkeypatch.setattr(
            "gansuite.draws.Draws.common", lambda self, k, p=chance: [self._next() and p] * k
        )
        step = Step(method, ("g",), batch, 0)
        made = x.flip(3) if chance < 0.5 else x
        found.append(method.nce({"nce": (x, made)}, step)["nce"])
    torch.testing.assert_close(found[0], found[1])


def test_half_of_the_batches_are_mirrored_and_none_in_cut() -> None:
    fast, plain = tiny(preset="fastcut"), tiny()
    batch = Batch((pictures(1), pictures(1)))
    seen = {True: 0, False: 0}
    for fast.batches in range(400):
        step = Step(fast, ("d", "g"), batch, 0)
        (x,) = batch.images[:1]
        first = torch.equal(fast.seen(x, step), x.flip(3))
        assert torch.equal(fast.seen(x, step), x.flip(3) if first else x)  # for D and for G
        seen[first] += 1
        assert torch.equal(plain.seen(x, Step(plain, ("d", "g"), batch, 0)), x)
    assert 160 < seen[True] < 240  # 4 sigma


def test_places_are_the_runs_own() -> None:
    """Whatever the global generators do, and others in the next batch."""
    method = tiny()
    x = pictures(1)
    made = method.g(x).detach()

    def loss(batches: int) -> float:
        method.batches = batches
        torch.manual_seed(batches + 17)
        step = Step(method, ("g",), Batch((x, x)), 0)
        return float(method.nce({"nce": (x, made)}, step)["nce"])

    first = loss(0)
    assert loss(1) != first
    torch.manual_seed(5)
    assert loss(0) == first


def test_the_heads_train_with_g_and_are_not_averaged() -> None:
    method = tiny()
    optimizer = method.configure_optimizers()[0]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for net in (method.g, method.f) for p in net.parameters()}
    assert method.averaged == ("g",)
    method.configure(Settings(ema=Ema(half_life_kimg=1.0)))
    assert isinstance(method.averages.modules["g"], ResnetGenerator)


# --- one direction -----------------------------------------------------------------------------


@pytest.mark.parametrize(("direction", "target"), [("ab", "zebra"), ("ba", "horse")])
def test_one_direction(direction: Any, target: str) -> None:
    method = tiny(direction=direction)
    assert method.targets == (target,)
    x = pictures(1)
    assert torch.equal(method.translate(x, target), method.g(x))
    (other,) = {"horse", "zebra"} - {target}
    with pytest.raises(UserError, match=f"translates {other} to {target}, not to '{other}'"):
        method.translate(x, other)
    source, wanted = method.pair(Batch((pictures(1, "A"), pictures(1, "B"))))
    assert torch.equal(source, pictures(1, "A" if direction == "ab" else "B"))
    assert torch.equal(wanted, pictures(1, "B" if direction == "ab" else "A"))
