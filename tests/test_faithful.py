"""Where the methods follow the published code in a point that no loss curve would show."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import Pictures, experiment, fit, toy_spec, train
from torch import Tensor, nn

from gansuite import catalogue, engine
from gansuite.core.settings import Settings
from gansuite.data.spec import Batch, DataSpec, LabelSet
from gansuite.draws import Draws
from gansuite.errors import UserError
from gansuite.losses.penalties import gradient_penalty
from gansuite.methods.base import Step
from gansuite.methods.discogan import DiscoGAN
from gansuite.methods.dualgan import DualGAN
from gansuite.methods.stargan import StarGAN
from gansuite.methods.vanilla import VanillaGAN
from gansuite.networks.dualgan import DualGANCritic
from gansuite.networks.layers import InstanceNorm2d
from gansuite.networks.mlp import MLPDiscriminator
from gansuite.networks.recompute import keeping_statistics
from gansuite.rng import derive, torch_generator

ATTRIBUTES = ("black", "blond", "brown", "male", "young")


def spec(labels: tuple[str, ...], *domains: str, joint: tuple[LabelSet, ...] = ()) -> DataSpec:
    counts = {split: dict.fromkeys(domains, 8) for split in ("train", "test")}
    return DataSpec("toy", 32, 3, domains, counts, False, labels, "0", labels != ATTRIBUTES, joint)


def pictures(n: int, size: int = 32) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch_generator(0, "faithful")) * 2 - 1


def stargan(given: DataSpec, **options: Any) -> StarGAN:
    return StarGAN(given, width=4, blocks=1, d_width=4, d_layers=3, **options)


# --- StarGAN on attributes ---------------------------------------------------------------------


class Seen(nn.Module):
    """A discriminator that sees the same attributes in every picture."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits, self.sizes = torch.tensor(logits), []  # type: ignore[var-annotated]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.sizes.append(tuple(x.shape[2:]))
        return torch.zeros(len(x), 1), self.logits.expand(len(x), -1)


def labels_given(method: StarGAN, to: str, size: int = 32) -> list[float]:
    """The label with which the generator is asked for ``to``."""
    found: list[Tensor] = []
    handle = method.g.register_forward_pre_hook(lambda _, given: found.append(given[1]))
    with torch.no_grad():
        method.translate(pictures(1, size), to)
    handle.remove()
    return [float(v) for v in found[0][0]]


def test_an_attribute_is_set_beside_those_that_are_there() -> None:
    """methods.md, section 5: the source's own label with one attribute set, and hair colours
    exclude one another."""
    method = stargan(spec(ATTRIBUTES, "pictures"), exclusive=[["black", "blond", "brown"]])
    method.d = Seen(3.0, -1.0, -2.0, -0.5, 0.1)  # black hair, a woman, young
    assert labels_given(method, "male") == [1, 0, 0, 1, 1]
    assert labels_given(method, "blond") == [0, 1, 0, 0, 1]
    assert labels_given(method, "black", size=48) == [1, 0, 0, 0, 1]
    assert set(method.d.sizes) == {(32, 32)}  # a picture of another size is shown to D at its own
    plain = stargan(spec(ATTRIBUTES, "pictures"))
    plain.d = Seen(3.0, -1.0, -2.0, -0.5, 0.1)
    assert labels_given(plain, "blond") == [1, 1, 0, 0, 1]
    with pytest.raises(UserError, match=r"names 'blonde'.*did you mean 'blond'"):
        stargan(spec(ATTRIBUTES, "pictures"), exclusive=[["black", "blonde"]])


def test_a_folder_is_set_alone() -> None:
    folders = LabelSet(("cat", "dog"), ("cat", "dog"), True)
    table = LabelSet(("faces",), ("male", "young"), False)
    joint = spec(("cat", "dog", "male", "young"), "cat", "dog", "faces", joint=(folders, table))
    method = stargan(joint)
    method.d = Seen(5.0, 5.0, 5.0, 5.0)
    assert labels_given(method, "dog") == [0, 1, 0, 0, 1, 0]
    assert labels_given(method, "male") == [0, 0, 1, 1, 0, 1]


def test_a_class_among_pooled_ones_is_set_alone() -> None:
    """Ten classes in one folder tree are labels that exclude one another, as folders are."""
    method = stargan(spec(("cat", "dog", "owl"), "pictures"))
    method.d = Seen(5.0, -5.0, -5.0)
    assert labels_given(method, "dog") == [0, 1, 0]
    assert method.sets == [(3, True)]


# --- DiscoGAN ----------------------------------------------------------------------------------


@pytest.mark.parametrize("synchronised", [False, True])
def test_batch_norm_can_look_away(synchronised: bool) -> None:
    norm = nn.Sequential(nn.BatchNorm2d(3))
    if synchronised:
        norm = nn.SyncBatchNorm.convert_sync_batchnorm(norm)
        assert not isinstance(norm[0], nn.BatchNorm2d)
    before = norm[0].running_mean.clone()
    with keeping_statistics(norm):
        made = norm(pictures(4) + 1)
    assert torch.allclose(made.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.equal(norm[0].running_mean, before)
    norm(pictures(4) + 1)
    assert not torch.equal(norm[0].running_mean, before)


@pytest.mark.slow
def test_discogans_statistics_are_those_of_real_pictures(tmp_path: Path, monkeypatch: Any) -> None:
    """A model is used on real pictures; on the way back in training it sees fakes."""
    kept: list[bool] = []
    real = nn.BatchNorm2d.forward

    def spy(self: nn.BatchNorm2d, x: Tensor) -> Tensor:
        if self.training and self.num_features == 8 and torch.is_grad_enabled():
            kept.append(self.momentum == 0)
        return real(self, x)

    monkeypatch.setattr(nn.BatchNorm2d, "forward", spy)
    train(monkeypatch, experiment("discogan_coats", tmp_path, 3))
    assert any(kept)
    assert not all(kept)


def test_the_ablation_without_a_way_back_has_no_curriculum() -> None:
    given = spec(("a", "b"), "a", "b")
    method = DiscoGAN(given, architecture="gan", width=4, d_width=4, curriculum=2)

    class At:
        batches = 0

    for At.batches in (0, 1, 2, 3):
        weights = [method.weight_of(term, At()) for term in ("dis", "gan", "fm")]  # type: ignore[arg-type]
        assert weights == [1.0, 0.1, 0.9]


# --- ADA ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ada_moves_once_a_batch_in_however_many_chunks(tmp_path: Path, monkeypatch: Any) -> None:
    found = []
    for k in (1, 2):
        more = ("method.augment=ada", "method.g_norm=none", "method.d_norm=none", "data.batch=4")
        e = experiment(
            *("vanilla_coats", tmp_path / str(k), 16, *more, "trainer.precision=64-true"),
            *(f"trainer.accumulate={k}", "evaluate.every_kimg=null"),
        )
        method = train(monkeypatch, e).method
        assert isinstance(method, VanillaGAN)
        found.append(method)
    one, two = found
    assert one.update_counts == two.update_counts
    assert float(one.augment.p) == float(two.augment.p) > 0
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


# --- the GAN of 2014 ---------------------------------------------------------------------------


def test_a_dropped_pixel_is_black() -> None:
    """On [-1, 1] it would be grey."""
    network = MLPDiscriminator(8, width=4)
    seen: list[Tensor] = []
    network.body[2].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network(torch.full((64, 1, 8, 8), -1.0))
    assert (seen[0] == 0).all()
    network(torch.full((64, 1, 8, 8), 1.0))
    dropped = (seen[1] == 0).float().mean()
    assert 0.1 < dropped < 0.3
    assert set(seen[1].unique().tolist()) == {0.0, 1.25}


@pytest.mark.parametrize("penalty", ["gp", "r1"])
def test_penalties_need_pictures_judged_alone(penalty: str) -> None:
    weights = {"gan": 1.0, "gp": 0.0, "r1": 0.0, penalty: 1.0}
    with pytest.raises(UserError, match=rf"'method.weights.{penalty}' needs .* method.d_norm=none"):
        VanillaGAN(spec((), "x"), width=4, d_width=4, weights=weights)
    VanillaGAN(spec((), "x"), width=4, d_width=4, d_norm="none", weights=weights)


def test_noise_of_2014_has_variance_one() -> None:
    method = VanillaGAN(toy_spec(), network="mlp", latent="unit_uniform", width=4, d_width=4)
    method.configure(Settings(seed=0, images_per_batch=4))
    step = Step(method, ("g",), Batch(()), 0)
    for z in (method.z(2000, step), method.z_from(2000, torch_generator(1, "z"))):
        assert math.sqrt(3) * 0.999 < float(z.abs().max()) <= math.sqrt(3)
        assert float(z.min()) < -1.7
        assert float(z.var()) == pytest.approx(1, abs=0.01)


def per_sample(
    draw: Callable[..., Tensor], n: int, shape: tuple[int, ...], seed: int, batch: int, call: int
) -> Tensor:
    """float64 [n, *shape]: a generator for each sample of draw number ``call`` of a batch."""
    made = [torch_generator(seed, "step", batch, call, i) for i in range(n)]
    return torch.stack([draw(*shape, generator=generator) for generator in made]).double()


def test_both_objectives_of_2014_come_from_one_pass() -> None:
    """One fake, one pass of D with its dropout, both gradients there, both steps after it; float64
    against a plain loop, to 1e-9."""
    options: dict[str, Any] = {"network": "mlp", "latent": "unit_uniform", "simultaneous": True}

    def fresh() -> VanillaGAN:
        torch.manual_seed(0)
        return VanillaGAN(toy_spec(), width=8, d_width=8, z_dim=4, **options)

    sgd = {"kind": "sgd", "lr": 0.1, "momentum": 0.5}
    ours = fit(fresh(), 3, precision="64-true", optim=sgd)
    plain = fresh().double()
    g, d = (torch.optim.SGD(m.parameters(), 0.1, 0.5) for m in (plain.g, plain.d))
    for i, batch in enumerate(Pictures(3, 4)):
        x = batch.images[0].double() / 127.5 - 1
        u = per_sample(torch.rand, 4, (4,), 3, i, 1)
        fake = plain.g((u * 2 - 1) * math.sqrt(3))
        torch.manual_seed(derive(3, "masks", i, 0))
        f = plain.d(fake)
        r = plain.d(x)
        d_objective = F.softplus(-r).mean() + F.softplus(f).mean()
        d_gradient = torch.autograd.grad(d_objective, list(plain.d.parameters()), retain_graph=True)
        g_gradient = torch.autograd.grad(F.softplus(-f).mean(), list(plain.g.parameters()))
        for optimizer, net, found in ((d, plain.d, d_gradient), (g, plain.g, g_gradient)):
            for p, gradient in zip(net.parameters(), found, strict=True):
                p.grad = gradient
            optimizer.step()
    for p, q in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-14)
    with pytest.raises(UserError, match=r"'method.simultaneous' .* set method.n_critic=1"):
        VanillaGAN(toy_spec(), n_critic=2, **options)


# --- SNGAN and WGAN-GP -------------------------------------------------------------------------


def close(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Equal to 1e-9 of the largest."""
    for a, b in zip(found, expected, strict=True):
        assert float((a - b).abs().max()) <= 1e-9 * float(b.abs().max())


def gradients(loss: Tensor, net: nn.Module) -> list[Tensor]:
    """Of its parameters; those of biases before a norm are nothing but rounding, and left out."""
    names, params = zip(*net.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, params, allow_unused=True)
    kept = [f for f, n in zip(found, names, strict=True) if f is not None and "bias" not in n]
    assert len(kept) > 4
    return kept


@pytest.mark.parametrize("kind", ["sngan", "wgangp"])
def test_g_sees_twice_the_batch_of_new_fakes_and_d_dequantised_pixels(kind: str) -> None:
    """`(x / 128 - 1) + U(0, 1/128)`, 64 fakes for D, 128 others for G; float64 against the same
    networks called by hand, to 1e-9."""
    n, spectral = 4, kind == "sngan"
    weights: Mapping[str, float] = {"gan": 1.0, "gp": 0.0 if spectral else 10.0, "r1": 0.0}
    torch.manual_seed(0)
    method = VanillaGAN(
        spec((), "x"),
        network="resnet",
        width=6,
        d_width=6,
        z_dim=5,
        spectral=spectral,
        loss="hinge" if spectral else "wgan",
        fresh_fakes=2,
        dequantise=True,
        weights=weights,
    ).double()
    method.configure(Settings(seed=9, images_per_batch=n))
    pixels = torch.randint(256, (n, 3, 32, 32), generator=torch_generator(0, "pixels"))
    pixels[0, 0, 0, :2] = torch.tensor([0, 255])
    g, d = copy.deepcopy(method.g), copy.deepcopy(method.d)

    batch = Batch((pixels.double() / 127.5 - 1,))
    step = Step(method, ("d", "g"), batch, 0)
    d_found = method.d_losses(batch, step)
    d_total = d_found["gan"] + 10 * d_found.get("gp", torch.zeros(()))
    d_gradient = gradients(d_total, method.d)
    step.position = 1
    g_loss = method.g_losses(batch, step)["gan"]
    g_gradient = gradients(g_loss, method.g)

    x = pixels.double() / 128 - 1 + per_sample(torch.rand, n, (3, 32, 32), 9, 0, 1) / 128
    assert -1 <= float(x.min()) < float(x.max()) < 1
    close([method.real(batch, step)], [x])
    with torch.no_grad():
        fake = g(per_sample(torch.randn, n, (5,), 9, 0, 2))
    r, f = d(x), d(fake)
    if spectral:
        expected = F.relu(1 - r).mean() + F.relu(1 + f).mean()
    else:
        alpha = per_sample(torch.rand, n, (1, 1, 1), 9, 0, 3)
        between = (fake + alpha * (x - fake)).requires_grad_()
        (slope,) = torch.autograd.grad(d(between).sum(), between, create_graph=True)
        norm = slope.flatten(1).norm(dim=1)
        expected = f.mean() - r.mean() + 10 * ((norm - 1) ** 2).mean()
    close([d_total], [expected])
    close(d_gradient, gradients(expected, d))
    z = per_sample(torch.randn, 2 * n, (5,), 9, 0, 3 if spectral else 4)
    by_hand = -d(g(z)).mean()
    close([g_loss], [by_hand])
    close(g_gradient, gradients(by_hand, g))


def test_paired_losses_need_as_many_fakes_as_pictures() -> None:
    with pytest.raises(UserError, match=r"'method.fresh_fakes' is 2; relativistic pairs them"):
        VanillaGAN(spec((), "x"), width=4, d_width=4, loss="relativistic", fresh_fakes=2)


# --- DualGAN -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_critic", [1, 2, 3, 4])
def test_dualgans_counter_is_two_at_the_first_batch(n_critic: int) -> None:
    """`counter = 1`, then for every batch `counter += 1` and G if `counter % n_critic == 0`."""
    given = spec(("a", "b"), "a", "b")
    method = DualGAN(given, width=2, d_width=2, n_critic=n_critic)
    counter, expected = 1, []
    for _ in range(12):
        counter += 1
        expected.append(("d", "g") if counter % n_critic == 0 else ("d",))
    assert [tuple(method.updates_in(batch)) for batch in range(12)] == expected


def test_dualgans_penalty_has_its_epsilon() -> None:
    """sqrt(1e-8 + sum g^2): a critic a * sum(x) of d pixels has the norm sqrt(1e-8 + d a^2)."""
    x = pictures(3).double()
    for a in (0.0, 1e-6, 1e-2):
        found = gradient_penalty(lambda x, a=a: a * x.flatten(1).sum(1), x, -x, Draws(0), eps=1e-8)
        expected = (math.sqrt(1e-8 + x[0].numel() * a * a) - 1) ** 2
        assert float(found) == pytest.approx(expected, rel=1e-9)
    method = DualGAN(spec(("a", "b"), "a", "b"), width=2, d_width=2).double()
    method.configure(Settings(seed=0, images_per_batch=2))
    for p in method.d.parameters():
        nn.init.zeros_(p)
    batch = Batch((x, -x))
    losses = method.d_losses(batch, Step(method, ("d",), batch, 0))
    assert float(losses["gp"]) == pytest.approx(2 * (1 - 1e-4) ** 2, rel=1e-9)


class Moments(nn.Module):
    """Instance norm with `tf.nn.moments`: no gradient reaches the mean inside the variance."""

    def __init__(self, norm: InstanceNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        variance = (x - mean.detach()).square().mean((2, 3), keepdim=True)
        x = (x - mean) * torch.rsqrt(variance + self.eps)
        return x * self.weight[:, None, None] + self.bias[:, None, None]


def test_what_the_stopped_mean_of_tensorflow_is_worth() -> None:
    """The declared deviation: same penalty, a gradient that differs by some percent at 64."""
    torch.manual_seed(0)
    critic = DualGANCritic(64, width=8).double()
    theirs = copy.deepcopy(critic)
    for i, m in enumerate(theirs.body):
        if isinstance(m, InstanceNorm2d):
            theirs.body[i] = Moments(m)
    x = F.interpolate(pictures(1, 8).double(), 64, mode="bicubic")
    made = [gradient_penalty(c, x, -x, Draws(0)) for c in (critic, theirs)]
    close(made[:1], made[1:])
    a, b = (
        torch.cat([v.flatten() for v in gradients(loss, net)])
        for loss, net in zip(made, (critic, theirs), strict=True)
    )
    assert 0.01 < float((a - b).norm() / a.norm()) < 0.1


# --- the published experiments -----------------------------------------------------------------

PUBLISHED = {
    "vanilla_celeba": {"data.flip": False, "data.resize": "bilinear"},
    "vanilla_cifar10": {"data.flip": False},
    "vanilla_cifar10_sngan": {"data.flip": False, "method.fresh_fakes": 2},
    "vanilla_cifar10_wgangp": {"data.flip": False, "method.fresh_fakes": 2},
    "vanilla_mnist": {"data.train": 50_000, "method.latent": "unit_uniform"},
    "stylegan_cifar10": {"data.flip": False, "method.augment": "ada"},
    "r3gan_cifar10": {"data.batch": 64, "method.width": 768, "method.augment_p": 0.55},
    "r3gan_afhq": {"data.flip": True, "method.augment_p": 0.3},
    "dualgan_facades": {"data.flip": False, "data.resize": "bilinear_aliased"},
    "discogan_edges2shoes": {"data.flip": False, "data.resize": "bilinear_aliased"},
    "stargan_celeba": {"data.resize": "bilinear", "data.split": "official"},
    "stargan_celeba_code": {
        "data.resize": "bilinear",
        "data.split": "stargan",
        "method.legacy_lr": True,
    },
    "cyclegan_horse2zebra": {"data.resize": "bicubic"},
    "cut_horse2zebra": {"budget.kimg": 400 * 1334 * 2 / 1000, "budget.decay_from": 0.5},
    "fastcut_horse2zebra": {"budget.kimg": 200 * 1334 * 2 / 1000, "budget.decay_from": 0.75},
    "pix2pix_facades": {"method.norm": "batch", "data.load_size": 286, "budget.decay_steps": 200},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings(name: str) -> None:
    plain = catalogue.load_experiment(name).plain()
    found = {key: plain[key.split(".")[0]][key.split(".")[1]] for key in PUBLISHED[name]}
    assert found == PUBLISHED[name]


def test_a_reduced_budget_is_called_reduced() -> None:
    folder = Path(engine.__file__).resolve().parents[1] / "experiments"
    reduced = ("discogan_edges2shoes", "discogan_horse2zebra", "stylegan_afhq", "stylegan_cifar10")
    reduced += ("r3gan_cifar10", "r3gan_afhq")
    for name in reduced:
        first = (folder / f"{name}.yaml").read_text().splitlines()[0]
        assert "reduced" in first.partition("   ")[0]
