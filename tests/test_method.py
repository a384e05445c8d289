"""The contract of `Method`: turns, fakes, weights, schedules, averages, guards, logging."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from helpers import (
    SIZE,
    SMALL,
    EachBatch,
    Pictures,
    Toy,
    difference,
    experiment,
    fit,
    parameters,
    train,
)
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gansuite import engine
from gansuite.callbacks.cost import CountFlops
from gansuite.cli import main
from gansuite.config import Budget, Ema, Optim
from gansuite.core.averages import WeightAverages
from gansuite.core.schedule import critic_alternation, lr_factor
from gansuite.core.settings import Settings
from gansuite.data.spec import Batch, DataSpec, Needs
from gansuite.draws import Draws
from gansuite.errors import UserError
from gansuite.methods import _two_way
from gansuite.methods._unconditional import Signs
from gansuite.methods.base import Step, terms
from gansuite.methods.cyclegan import CycleGAN
from gansuite.methods.stargan import StarGAN
from gansuite.methods.stylegan import StyleGAN
from gansuite.methods.vanilla import VanillaGAN
from gansuite.networks.pool import ImagePool
from gansuite.rng import torch_generator
from gansuite.runs import read_checkpoint, read_lines

# -- turns ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([["g", "d"]], "gdgdgdgdgdgdgd"),
        ([["d"], ["g"], ["g"]], "dggdggd"),  # DiscoGAN
        ([["d"]] * 4 + [["d", "g"]], "dddddgdd"),  # n_critic 5
    ],
)
def test_turns(turns: Any, expected: str) -> None:
    toy = fit(Toy(turns), 7)
    assert toy.order() == expected
    assert (toy.batches, toy.images_seen, toy.progress) == (7, 28, 1.0)
    assert toy.update_counts == {"g": expected.count("g"), "d": expected.count("d")}
    assert toy.player_batches == toy.update_counts


def test_no_gradients_lie_beside_another_players_update() -> None:
    class Watched(Toy):
        def after_update(self, update: str, step: Step) -> None:
            for name in self.players:
                held = [p.grad is not None for p in self.player(name).parameters()]
                assert all(held) if name == update else not any(held)

    toy = fit(Watched([["d", "g"]]), 2)
    assert toy.update_counts == {"d": 2, "g": 2}
    assert all(p.grad is None for p in toy.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("n_critic", [1, 5])
def test_budget_is_in_batches_whatever_the_alternation(
    n_critic: int, tmp_path: Path, monkeypatch: Any
) -> None:
    e = experiment("vanilla_coats", tmp_path, 11, f"method.n_critic={n_critic}")
    session = train(monkeypatch, e)
    assert session.method.batches == 11
    assert session.method.images_seen == 22
    assert session.method.update_counts == {"g": 11 // n_critic, "d": 11}
    lines = read_lines(session.run.metrics)
    assert [r["batches"] for r in lines if r["kind"] == "train"] == [2, 4, 6, 8, 10, 11]
    assert [r["batches"] for r in lines if r["kind"] == "eval"] == [4, 8, 11]


class Lazy(Toy):
    """R1 in the discriminator's batches 0, 3, 6, ...; a phase of its own for the generator."""

    def d_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        found = super().d_losses(batch, step)
        if step.due(3):
            self.log_.append(("!", self.batches))
            found["r1"] = self.d[1].weight.square().sum()
        return found

    def g_path_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        if not step.due(4):
            return {}
        self.log_.append(("p", self.batches))
        return {"path": self.fake(batch, step).square().mean()}


def test_lazy_terms_and_phases_count_the_players_own_batches() -> None:
    toy = fit(Lazy([["d", "g", "g.path"]], {"gan": 1, "r1": 1, "path": 1}), 9)
    assert [at for name, at in toy.log_ if name == "!"] == [0, 3, 6]
    assert [at for name, at in toy.log_ if name == "p"] == [0, 4, 8]
    assert toy.update_counts == {"d": 9, "g": 12}
    # the same when the player has only every second batch
    toy = fit(Lazy([["d"], ["d", "g", "g.path"]], {"gan": 1, "r1": 1, "path": 1}), 9)
    assert [at for name, at in toy.log_ if name == "p"] == [1]


def test_a_lazy_phase_steps_all_parameters_as_stylegan2s_code_does() -> None:
    """Adam written out: where a lazy term has no gradient the moments decay all the same."""

    class Weights(Toy):
        gradients: ClassVar[list[float]] = []

        def d_r1_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
            return {"r1": self.d[1].weight.square().sum()} if step.due(3) else {}

        def after_update(self, update: str, step: Step) -> None:
            if update[0] == "d":
                assert update == "d" or not self.d[1].bias.grad.any()
                self.gradients.append(float(self.d[1].bias.grad))

    toy = Weights([["g", "d", "d.r1"]], {"gan": 1, "r1": 1})
    bias, m, v = float(toy.d[1].bias.detach()), 0.0, 0.0
    fit(toy, 7, precision="64-true", optim={"lr": 1e-2, "betas": [0.5, 0.9]})
    assert len(toy.gradients) == toy.update_counts["d"] == 7 + 3
    for t, g in enumerate(toy.gradients, start=1):
        m, v = 0.5 * m + 0.5 * g, 0.9 * v + 0.1 * g * g
        bias -= 1e-2 * (m / (1 - 0.5**t)) / (math.sqrt(v / (1 - 0.9**t)) + Optim().eps)
    assert float(toy.d[1].bias.detach()) == pytest.approx(bias, rel=1e-9)


def _style(monkeypatch: Any, **options: Any) -> StyleGAN:
    monkeypatch.setattr(Big, "domains", 1)
    monkeypatch.setattr("helpers.Pictures", Big)
    small = {k: SMALL[k] for k in ("z_dim", "w_dim", "base", "max_channels", "mapping_layers")}
    return StyleGAN(_specs(("a",)), **small, mbstd_group=2, **options)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_stylegans_mean_w_moves_with_every_pass(accumulate: int, monkeypatch: Any) -> None:
    method = _style(monkeypatch, path_every=2)
    styles, seen = method.g.styles, []
    expected = torch.zeros(8, dtype=torch.float64)

    def spy(z: Tensor, **options: Any) -> Tensor:
        seen.append(method.g.mapping(z).detach().mean(0))
        return styles(z, **options)

    def follow(method: StyleGAN) -> None:
        nonlocal expected
        parts = [
            torch.stack(seen[i : i + accumulate]).mean(0) for i in range(0, len(seen), accumulate)
        ]
        seen.clear()
        assert len(parts) == (2 if method.batches % 2 else 1)  # G's pictures, those of the path
        for mean in (*parts, parts[0]):  # and D's, which are G's
            expected = 0.995 * expected + 0.005 * mean
        torch.testing.assert_close(method.g.mapping.w_avg, expected, rtol=1e-9, atol=1e-12)

    monkeypatch.setattr(method.g, "styles", spy)
    watch = EachBatch(follow)
    fit(method, 3, precision="64-true", callbacks=[watch], accumulate=accumulate)
    assert method.g.mapping.w_avg.any()


def test_ada_counts_every_pass_over_real_pictures(monkeypatch: Any) -> None:
    """Those of the lazy phase too; p has moved when the next batch begins."""
    method = _style(monkeypatch, augment="ada", r1_every=2, weights={"gan": 1, "path": 0, "r1": 1})
    p: list[float] = []
    numbers: list[int] = []
    take = Signs.take
    monkeypatch.setattr(Signs, "take", lambda self: numbers.append(self.number) or take(self))
    monkeypatch.setattr("gansuite.methods._unconditional.ada_update", lambda p, *_, **__: p + 0.25)
    fit(method, 9, callbacks=[EachBatch(lambda m: p.append(float(m.augment.p)))])
    assert p == [0] * 3 + [0.25] * 4 + [0.5] * 2
    assert numbers == [6, 6]
    signs = Signs()
    for logits in ([1.0, -1, -1, -1], [2.0, 3, -1, 1]):
        signs.add(torch.tensor(logits))
    assert float(signs.take()) == 0
    assert (float(signs.total), signs.number) == (0, 0)


def test_a_further_phase_of_the_maker_makes_its_own_pictures() -> None:
    toy = fit(Lazy([["g", "d", "g.path"]], {"gan": 1, "r1": 1, "path": 1}), 1)
    assert toy.forwards == 2
    assert toy.order().replace("!", "") == "gdp"


def test_empty_losses_skip_the_update() -> None:
    class Idle(Toy):
        def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
            return {}

    toy = Idle([["d", "g"]])
    before = parameters(toy)
    fit(toy, 3, ema=Ema(half_life_kimg=0.01))
    assert toy.update_counts == {"g": 0, "d": 3}
    assert difference(parameters(toy.g), {k[2:]: v for k, v in before.items() if k[0] == "g"}) == ""
    assert toy._raw_optimizers()[0].state_dict()["state"] == {}
    assert toy.averages.state_dict()["updated_at"] == {}


# -- fakes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [("g", "d"), ("d", "g")])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_equals_a_plain_loop(turn: tuple[str, str], clip: float | None) -> None:
    """Fakes are made once, before any update; each update changes its player alone."""
    torch.manual_seed(0)
    g = nn.Sequential(nn.Linear(4, 3 * SIZE * SIZE), nn.Tanh())
    d = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 1))
    optimizers = {
        n: torch.optim.Adam(m.parameters(), 1e-2, (0.5, 0.999)) for n, m in (("g", g), ("d", d))
    }
    for i, batch in enumerate(Pictures(4, 4)):
        real = batch.images[0] / 127.5 - 1
        z = torch.stack(
            [torch.randn(4, generator=torch_generator(3, "step", i, 1, k)) for k in range(4)]
        )
        fake = g(z).unflatten(1, (3, SIZE, SIZE))
        for name in turn:
            if name == "g":
                loss = (d(fake) - 1).square().mean()
            else:
                loss = (d(real) - 1).square().mean() + d(fake.detach()).square().mean()
            optimizers[name].zero_grad()
            loss.backward()
            if clip is not None:
                group = optimizers[name].param_groups[0]["params"]
                assert nn.utils.clip_grad_norm_(group, clip) > clip
            optimizers[name].step()
    toy = fit(Toy([turn]), 4, optim={"lr": 1e-2, "clip": clip})
    assert toy.forwards == 4
    assert toy.log_ == [(name, name == "g") for name in turn] * 4
    torch.testing.assert_close(dict(toy.g.state_dict()), dict(g.state_dict()), rtol=0, atol=1e-6)
    torch.testing.assert_close(dict(toy.d.state_dict()), dict(d.state_dict()), rtol=0, atol=1e-6)


def test_an_update_changes_its_player_alone() -> None:
    toy = fit(Toy(), 1)
    after_g, after_d = toy.after
    changed = {k for k in after_g if not torch.equal(after_g[k], after_d[k])}
    assert changed == {"d.1.weight", "d.1.bias"}


def _count_pictures(method: Any, names: list[str]) -> list[int]:
    count = [0]
    for name in names:
        method.get_submodule(name).register_forward_hook(
            lambda _, inputs, __: count.__setitem__(0, count[0] + len(inputs[0]))
        )
    return count


def _specs(domains: tuple[str, ...]) -> DataSpec:
    counts = {split: dict.fromkeys(domains, 8) for split in ("train", "test")}
    return DataSpec("toy", 32, 3, domains, counts, False, (), "0")


class Big(Pictures):
    def __getitem__(self, index: int) -> Batch:
        (x,) = super().__getitem__(index).images
        x = x.repeat_interleave(32 // SIZE, 2).repeat_interleave(32 // SIZE, 3)
        return Batch((x, x.flip(3))[: self.domains])

    domains = 2


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 4), (5.0, 6)])
def test_cyclegan_makes_each_picture_once(weight: float, expected: int, monkeypatch: Any) -> None:
    weights = {"gan": 1.0, "cycle": 10.0, "identity": weight}
    method = CycleGAN(_specs(("a", "b")), width=4, d_width=4, blocks=1, weights=weights)
    count = _count_pictures(method, ["g.ab", "g.ba"])
    monkeypatch.setattr("helpers.Pictures", Big)
    fit(method, 2, batch=1)
    assert count[0] == 2 * expected


@pytest.mark.parametrize("name", ["cyclegan", "stargan", "dualgan", "cut", "cartoongan"])
def test_one_call_for_several_batches_is_the_same_step(
    name: str, here: Path, monkeypatch: Any
) -> None:
    """Losses and gradients of both players, in float64, penalty included, against a call each;
    and with one call there are fewer."""
    e = experiment(f"{name}_coats", here, 1, "data.batch=2")
    data = engine.build_data(e)
    data.setup()

    def step(method: Any) -> tuple[list[Tensor], int]:
        method.configure(engine.make_settings(e, data))
        calls = [0]
        for m in method.modules():
            if type(m).__name__.endswith(("Generator", "Discriminator", "Critic")):
                m.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
        batch = method.double().prepared(data.train_batch(0))
        found: list[Tensor] = []
        now = Step(method, ("g", "d"), batch, 0)
        now.batches = 10**6  # past every curriculum
        for now.position, player in enumerate("gd"):
            losses = getattr(method, f"{player}_losses")(batch, now)
            parameters = list(method.player(player).parameters())
            total = torch.stack([*losses.values()])
            options = {"retain_graph": True, "materialize_grads": True}
            found += [total, *torch.autograd.grad(total.sum(), parameters, **options)]
        return found, calls[0]

    one, few = step(engine.build_method(e.method, data.spec, 0))
    module = sys.modules[type(engine.build_method(e.method, data.spec, 0)).__module__]
    for place in (module, _two_way):
        if hasattr(place, "in_one_call"):
            monkeypatch.setattr(place, "in_one_call", lambda net, *xs: tuple(net(x) for x in xs))
    each, many = step(engine.build_method(e.method, data.spec, 0))
    assert few < many
    torch.testing.assert_close(one, each)


@pytest.mark.parametrize("n_critic", [1, 2])
def test_vanilla_makes_each_picture_once(n_critic: int, monkeypatch: Any) -> None:
    method = VanillaGAN(_specs(("a",)), width=4, d_width=4, n_critic=n_critic)
    count = _count_pictures(method, ["g"])
    monkeypatch.setattr(Big, "domains", 1)
    monkeypatch.setattr("helpers.Pictures", Big)
    fit(method, 4, batch=2)
    assert count[0] == 4 * 2
    assert method.update_counts == {"g": 4 // n_critic, "d": 4}


# -- noise ---------------------------------------------------------------------------------------


def test_shards_of_the_noise_are_the_noise_of_one_process(monkeypatch: Any) -> None:
    def draw(world: int, accumulate: int) -> list[Tensor]:
        monkeypatch.setattr(Toy, "world", world)
        toy, found = Toy(), []
        toy.configure(Settings(seed=1, images_per_batch=8, accumulate=accumulate))
        labels = torch.arange(8.0).chunk(world)
        for rank in range(world):
            monkeypatch.setattr(Toy, "rank", rank)
            monkeypatch.setattr(Toy, "gathered", lambda self, x: torch.arange(8.0))
            for chunk in range(accumulate):
                step = Step(toy, ("g",), Batch((), labels[rank]), chunk)
                n = 8 // (world * accumulate)
                found.append((step.randn(n, 3), step.rand(n), step.shuffled_labels()))
                assert {len(part) for part in found[-1]} == {n}
        return [torch.cat(parts) for parts in zip(*found, strict=True)]

    whole = draw(1, 1)
    assert sorted(whole[2].tolist()) == list(range(8))
    assert len(set(whole[0].flatten().tolist())) == 24
    for world, accumulate in ((2, 1), (1, 2), (2, 2)):
        assert difference(draw(world, accumulate), whole) == ""


def test_the_draws_of_a_sample_are_its_own() -> None:
    whole, again = Draws(0, 5), Draws(0, 5)
    a, b = whole.randn(4, 3), whole.randn(4, 3)
    assert len(set(torch.cat([a, b]).flatten().tolist())) == 24
    assert torch.equal(a, again.randn(4, 3))
    # a process draws its own samples alone, whatever the others draw
    assert torch.equal(Draws(0, 5, shard=3).randn(1, 3), a[3:])
    assert Draws(0, 5, shard=1).chances(2, 3) == Draws(0, 5).chances(4, 3)[2:]
    # what is common is the same in all parts
    parts = [Draws(0, 5, shard=r) for r in (0, 1)]
    assert parts[0].common(2) == parts[1].common(2) != Draws(0, 6).common(2)
    assert torch.equal(*(part.permutation(50) for part in parts))
    assert sorted(Draws(0).permutation(50).tolist()) == list(range(50))
    found = Draws(1, device="meta", dtype=torch.float64).randn(2, 3)
    assert (found.device.type, found.dtype, found.shape) == ("meta", torch.float64, (2, 3))
    many = Draws(2).randn(4000, 4).double()
    assert abs(float(many.mean())) < 0.03
    assert float(many.std()) == pytest.approx(1, abs=0.03)
    assert abs(float((many[:-1] * many[1:]).mean())) < 0.03  # neighbours


@pytest.mark.parametrize("latent", ["normal", "uniform", "unit_uniform"])
def test_noise_is_the_same_in_single_and_double_precision(latent: Any, monkeypatch: Any) -> None:
    """Whatever the type of the networks: drawn in float32, even where the default is float64."""
    monkeypatch.setattr(Big, "domains", 1)
    monkeypatch.setattr("helpers.Pictures", Big)
    seen: dict[str, list[Tensor]] = {"32-true": [], "64-true": []}
    z_of = VanillaGAN.z
    for precision, found in seen.items():
        method = VanillaGAN(_specs(("a",)), width=4, d_width=4, latent=latent, dequantise=True)

        def spy(self: VanillaGAN, n: int, step: Step, found: Any = found) -> Tensor:
            z = z_of(self, n, step)
            found += [z, step.randn(n, 3), step.rand(n, 3), step.draws.permutation(n)]
            return z

        with monkeypatch.context() as patch:
            patch.setattr(VanillaGAN, "z", spy)
            fit(method, 2, precision=precision)
    singles, doubles = seen.values()
    assert len(singles) == len(doubles) > 0
    for single, double in zip(singles, doubles, strict=True):
        assert (single.dtype, double.dtype) in (
            (torch.float32, torch.float64),
            (torch.int64, torch.int64),
        )
        # scaled after it was drawn, in the precision of the networks
        torch.testing.assert_close(single, double.to(single.dtype), rtol=3e-7, atol=3e-7)


def test_reductions_wait_at_no_barrier(monkeypatch: Any) -> None:
    def two(value: Tensor, op: Any) -> None:
        other = value + 2
        value.copy_(torch.minimum(value, other) if op == dist.ReduceOp.MIN else value + other)

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError

    dist = torch.distributed
    monkeypatch.setattr(dist, "all_reduce", two)
    monkeypatch.setattr(dist, "barrier", forbidden)
    monkeypatch.setattr(Toy, "world", 2)
    toy, x = Toy(), torch.ones(2)
    assert toy.mean_over_ranks(x).tolist() == [2, 2]
    assert x.tolist() == [1, 1]
    toy.record("a", torch.tensor(3.0))
    toy.ledger.close_batch(0)
    assert toy.loss_means()["a"] == 4


# -- schedules -----------------------------------------------------------------------------------


def test_learning_rate_closed_form() -> None:
    linear = Budget(kimg=1, decay_from=0.5)
    assert [lr_factor(p, linear) for p in (0, 0.5, 0.75, 1, 1.2)] == [1, 1, 0.5, 0, 0]
    assert [lr_factor(p, Budget(kimg=1)) for p in (0, 0.5, 1)] == [1, 1, 1]
    assert lr_factor(0.25, Budget(kimg=1, decay_from=0.0)) == 0.75


def test_every_setting_of_an_optimiser_may_be_scheduled() -> None:
    class Scheduled(Toy):
        def optim_now(self, player: str) -> Optim:
            now = super().optim_now(player)
            k = self.batches
            later = {"betas": [0.1 * k, 0.9 + 0.01 * k], "eps": 1e-6 * (k + 1), "clip": 1.0 + k}
            return now.model_copy(update={**later, "weight_decay": 0.5 * k, "lr": now.lr / (k + 1)})

    def note(m: Toy) -> None:
        (group,) = m._raw_optimizers()[1].param_groups
        kept = [group[key] for key in ("lr", "eps", "weight_decay")]
        seen.append((*kept, *group["betas"], m._clip))

    seen: list[Any] = []
    method = Scheduled()
    fit(method, 3, callbacks=[EachBatch(note)], optim={"lr": 0.6, "betas": [0.5, 0.5]})
    expected = [
        (0.6 / (k + 1), 1e-6 * (k + 1), 0.5 * k, 0.1 * k, 0.9 + 0.01 * k, 1.0 + k) for k in range(3)
    ]
    assert [pytest.approx(row) for row in expected] == seen
    assert method.lr("d") == pytest.approx(0.15)  # as it is logged


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_phases_take_the_batches_drawn_together_in_turn(accumulate: int) -> None:
    class Both(Toy):
        needs = Needs(view="single", batches=2)

        def note(self, batch: Batch, step: Step) -> None:
            seen.append((step.update, batch.images[0].clone(), step.batch.images[0].clone()))

        def d_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
            self.note(batch, step)
            return super().d_losses(batch, step)

        def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
            self.note(batch, step)
            return super().g_losses(batch, step)

    seen: list[tuple[str, Tensor, Tensor]] = []
    fit(Both((("d", "g"),)), 1, batch=8, accumulate=accumulate)
    (x,) = Pictures(1, 8)[0].images
    for name, half in zip("dg", (x / 127.5 - 1).split(4), strict=True):
        chunks = [chunk for update, chunk, _ in seen if update == name]
        assert len(chunks) == accumulate
        assert torch.equal(torch.cat(chunks), half)
        assert all(torch.equal(whole, half) for update, _, whole in seen if update == name)


def test_learning_rate_stairs_as_the_optimisers_see_them() -> None:
    seen: list[list[float]] = []
    watch = EachBatch(lambda m: seen.append([o.param_groups[0]["lr"] for o in m._raw_optimizers()]))
    budget = Budget(kimg=0.2, decay_from=0.5, decay_steps=200)
    fit(Toy(), 200, batch=1, callbacks=[watch], optim={"lr": 0.02, "kind": "sgd"}, budget=budget)
    g, d = zip(*seen, strict=True)
    assert g == d
    assert set(g[:100]) == {0.02}
    assert g[100] == pytest.approx(0.02 * 100 / 101)
    assert g[199] == pytest.approx(0.02 / 101)
    expected = [0.02 * (1 - (e - 99) / 101) for e in range(100, 200)]
    assert g[100:] == pytest.approx(expected)


# -- weights -------------------------------------------------------------------------------------


class Two(Toy):
    def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        found = super().g_losses(batch, step)
        return {**found, "extra": found["gan"] * 0 + 3.0}


def test_stargans_published_code_all_but_keeps_its_rate() -> None:
    """From 1e-4 to 9.99e-5 (methods.md, section 13); the paper's goes to 0."""
    counts = {"train": {"x": 1, "y": 1}, "test": {"x": 1, "y": 1}}
    spec = DataSpec("toy", 32, 3, ("x", "y"), counts, False, ("x", "y"), "0")
    for legacy, end in ((True, 9.99e-5), (False, 0.0)):
        method = StarGAN(spec, width=4, blocks=1, d_width=4, d_layers=3, legacy_lr=legacy)
        optim = {p: Optim(lr=1e-4) for p in ("g", "d")}
        method.configure(Settings(0, 1, optim=optim, budget=Budget(kimg=1.0, decay_from=0.5)))
        for progress, lr in ((0.0, 1e-4), (0.5, 1e-4), (0.75, (1e-4 + end) / 2), (1.0, end)):
            method.progress = progress
            assert method.lr("d") == pytest.approx(lr, abs=1e-12)


def test_wgan_warms_up_its_critic() -> None:
    """100 critic updates for each of the first 25 and every 500th of the generator's, else 5."""
    counts = {"train": {"x": 1}, "test": {"x": 1}}
    spec = DataSpec("toy", 32, 3, ("x",), counts, False, (), "0")
    method = VanillaGAN(spec, width=4, d_width=4, loss="wgan", n_critic=5, warm_up=True)
    expected = [
        100 if update < 25 or update % 500 == 0 else 5 for update in range(1600)
    ]  # of each generator update, in order
    found, since = [], 0
    for batch in range(sum(expected)):
        turn = method.updates_in(batch)
        since += turn.count("d")
        if "g" in turn:
            assert turn == ("d", "g")
            found.append(since)
            since = 0
    assert found == expected
    assert since == 0
    assert method.period == 100
    plain = VanillaGAN(spec, width=4, d_width=4, loss="wgan", n_critic=5)
    assert [plain.updates_in(b) for b in range(7)] == [("d",)] * 4 + [("d", "g")] + [("d",)] * 2


def test_a_term_without_a_weight_is_named() -> None:
    with pytest.raises(
        UserError, match=r"'extra' .* 'g' is not stated or has no weight \(weights: gan"
    ):
        fit(Two(), 1)


STATED = terms(gan=1.0, r1=0.0)


class Stated(Toy):
    loss_terms = {"g": ("gan",), "d": ("gan", "r1")}

    def __init__(self, weights: Mapping[str, float] = STATED) -> None:
        super().__init__(weights=weights)


def test_weights_are_held_against_the_terms() -> None:
    assert Stated().weights == {"gan": 1, "r1": 0}
    with pytest.raises(
        UserError, match=r"'method.weights.cycle' is a weight for no term .* gan, r1"
    ):
        Stated({"cycle": 1.0})

    class Unstated(Stated):
        def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
            return {"r1": super().g_losses(batch, step)["gan"]}

    with pytest.raises(
        UserError, match=r"term 'r1' of .* player 'g' is not stated or has no weight"
    ):
        fit(Unstated(), 1)


def test_weights_may_depend_on_progress() -> None:
    class Rising(Two):
        def weight_of(self, term: str, step: Step) -> float:
            return step.progress if term == "extra" else super().weight_of(term, step)

    totals: list[float] = []
    watch = EachBatch(lambda m: totals.append(m.loss_means()))
    fit(Rising(weights={"gan": 2.0, "extra": 0.0}), 4, callbacks=[watch])
    for i, found in enumerate(totals):
        expected = 2 * found["loss/g/gan"] + 3 * i / 4
        assert found["loss/g/total"] == pytest.approx(expected)


# -- averages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rampup", [None, 0.5])
def test_average_is_the_closed_form(rampup: float | None) -> None:
    live: list[Tensor] = []
    toy = Toy([["d"], ["g"], ["d", "g"]], norm=True)
    start = toy.g[1].weight.detach().clone()
    watch = EachBatch(lambda m: live.append(m.g[1].weight.detach().clone()))
    fit(toy, 6, callbacks=[watch], ema=Ema(half_life_kimg=0.008, rampup=rampup))
    expected, last = start, 0
    for batch in (1, 2, 4, 5):  # those with a turn of g; 4 pictures each, a half-life of 8
        now = 4 * (batch + 1)
        half = 8 if rampup is None else min(8, rampup * 4 * batch)
        beta = 0.5 ** ((now - last) / half)
        expected, last = beta * expected + (1 - beta) * live[batch], now
    average = toy.averages.modules["g"]
    torch.testing.assert_close(average[1].weight, expected)
    assert difference(dict(average.named_buffers()), dict(toy.g.named_buffers())) == ""
    assert toy.update_counts["g"] == 4


def _averaging(half_life_kimg: float, images_seen: int, batch: int, rampup: float | None) -> Toy:
    toy = Toy(norm=True)
    ema = Ema(half_life_kimg=half_life_kimg, rampup=rampup)
    toy.configure(Settings(seed=0, images_per_batch=batch, ema=ema))
    for p in toy.averages.modules["g"].parameters():
        p.zero_()
    for p in toy.g.parameters():
        nn.init.ones_(p)
    toy.images_seen = images_seen
    toy.averages._updated_at["g"] = images_seen - batch
    return toy


def test_average_constants_of_stylegan2() -> None:
    toy = _averaging(10, 320032, 32, 0.05)
    toy.averages.update("g", toy.g, toy.images_seen, toy.images_per_batch)
    assert 1 - toy.averages.modules["g"][1].bias[0].item() == pytest.approx(0.997784, abs=1e-6)
    toy = _averaging(10, 1032, 32, 0.05)  # the half-life is still .05 * 1000 pictures
    toy.averages.update("g", toy.g, toy.images_seen, toy.images_per_batch)
    assert 1 - toy.averages.modules["g"][1].bias[0].item() == pytest.approx(
        0.5 ** (32 / 50), abs=1e-6
    )


def test_every_averaged_player_is_averaged() -> None:
    class Both(Toy):
        averaged = ("g", "d")

    toy = fit(Both(), 3, ema=Ema(half_life_kimg=1e-6, rampup=None))  # forgets at once
    for name in ("g", "d"):
        torch.testing.assert_close(
            dict(toy.averages.modules[name].state_dict()), dict(toy.player(name).state_dict())
        )


@pytest.mark.parametrize("spoil", ["1.weight", "0.running_mean"])
def test_nothing_that_is_not_finite_reaches_the_average(spoil: str) -> None:
    toy = _averaging(1, 8, 4, None)
    before = parameters(toy.averages.modules["g"])
    toy.g.state_dict()[spoil].view(-1)[0] = torch.nan
    toy.g[0].num_batches_tracked += 1
    toy.averages.update("g", toy.g, toy.images_seen, toy.images_per_batch)
    assert difference(parameters(toy.averages.modules["g"]), before) == ""


def test_evaluating_swaps_and_restores() -> None:
    toy = fit(Toy(norm=True), 2, ema=Ema(half_life_kimg=1))
    live, average = toy.g, toy.averages.modules["g"]
    assert all(module is not average for module in toy.modules())
    assert len(list(toy.parameters())) == 6
    assert not any(p.requires_grad for p in average.parameters())
    toy.train()
    with contextlib.suppress(ZeroDivisionError), toy.evaluating() as chosen:
        assert chosen == "ema"
        assert toy.g is average
        assert not toy.training
        assert not toy.g.training
        assert not torch.is_grad_enabled()
        raise ZeroDivisionError
    assert toy.g is live
    assert toy.training
    assert live.training
    with toy.evaluating("raw") as chosen:
        assert (chosen, toy.g is live) == ("raw", True)
    with pytest.raises(UserError, match="no averaged weights"), Toy().evaluating("ema"):
        pass


# -- chunks, precision ---------------------------------------------------------------------------


def test_two_chunks_equal_one_batch() -> None:
    one, two = (
        fit(Toy([["d", "g"]]), 5, optim={"kind": "sgd", "lr": 0.1}, accumulate=k) for k in (1, 2)
    )
    torch.testing.assert_close(parameters(two), parameters(one), rtol=0, atol=1e-6)
    assert two.forwards == 2 * one.forwards
    assert two.update_counts == one.update_counts
    assert two.loss_means() == pytest.approx(one.loss_means(), rel=1e-4)


def test_a_second_phase_in_mixed_precision_sees_the_updated_weights() -> None:
    class Twice(Toy):
        def d_again_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
            x = batch.images[0]
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
                self.fresh = self.d(x)
            out = self.d(x)
            assert out.dtype == torch.bfloat16
            assert torch.equal(out, self.fresh)
            return {"gan": out.float().mean()}

    fit(Twice([["d", "d.again", "g"]]), 2, precision="bf16-mixed", optim={"kind": "sgd", "lr": 1.0})


def test_half_precision_needs_a_gpu(tmp_path: Path) -> None:
    e = experiment("vanilla_coats", tmp_path, 1, "trainer.precision=16-mixed")
    with pytest.raises(UserError, match="16-mixed, which needs a CUDA device; use bf16-mixed"):
        engine.make_trainer(e, [])


def test_mixed_penalties_are_for_bf16(tmp_path: Path) -> None:
    e = experiment("stargan_coats", tmp_path, 1, "trainer.penalties=mixed")
    with pytest.raises(
        UserError, match=r"is mixed, which is for bf16-mixed, and .* is 32-true; set"
    ):
        engine.make_trainer(e, [])
    asked = experiment(
        *("stargan_coats", tmp_path, 1),
        *("trainer.penalties=mixed", "trainer.precision=bf16-mixed"),
    )
    engine.make_trainer(asked, [])
    method = engine.ready_method(asked, engine.build_data(asked))
    assert method.settings.mixed_penalties


# -- guards --------------------------------------------------------------------------------------


def test_the_term_that_failed_first_is_named() -> None:
    class Sick(Toy):
        def d_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
            found = super().d_losses(batch, step)
            return {"gan": found["gan"] * (torch.nan if self.batches == 3 else 1)}

    toy = fit(Sick(), 7)  # from batch 4 on the generator's loss, which comes first, is NaN too
    with pytest.raises(UserError, match=r"0\.028 kimg: the term 'loss/d/gan' is not finite"):
        toy.loss_means()


def test_a_gradient_that_is_not_finite_is_found() -> None:
    class Sick(Toy):
        def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
            found = super().g_losses(batch, step)
            found["gan"].register_hook(lambda grad: grad * torch.nan)
            return found

    with pytest.raises(UserError, match="a parameter of player 'g' is not finite"):
        fit(Sick(), 1).loss_means()


def test_checkpoints_outlive_a_run_that_fails(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    e = experiment("vanilla_coats", tmp_path, 8, "log.every_kimg=0.002")
    checkpoints = tmp_path / "vanilla_coats" / "seed0" / "checkpoints"
    bytes_at_4: dict[str, bytes] = {}
    losses = VanillaGAN.g_losses

    def sick(self: VanillaGAN, batch: Batch, step: Step) -> dict[str, Tensor]:
        found = losses(self, batch, step)
        if self.batches == 5:
            bytes_at_4.update((p.name, p.read_bytes()) for p in checkpoints.iterdir())
            return {"gan": found["gan"] * torch.inf}
        return found

    monkeypatch.setattr(VanillaGAN, "g_losses", sick)
    monkeypatch.setattr("gansuite.catalogue.load_experiment", lambda *_: e)
    with pytest.raises(SystemExit) as exit_:
        main(["exp", "vanilla_coats"])
    assert exit_.value.code == 2
    assert "the term 'loss/g/gan' is not finite" in capsys.readouterr().err
    assert bytes_at_4.keys() == {"last.ckpt", "best.ckpt"}
    assert {p.name: p.read_bytes() for p in checkpoints.iterdir()} == bytes_at_4
    assert read_checkpoint(checkpoints / "last.ckpt")["method"]["counters"]["batches"] == 4


# -- what is logged ------------------------------------------------------------------------------


class CountSyncs(TorchDispatchMode):
    """Counts what would make the host wait for a device: a number that is read (item, bool, int,
    a comparison in an ``if``), a shape that depends on values (nonzero, unique, a boolean mask),
    and, seen from Python alone, ``tolist``, ``numpy`` and ``cpu``."""

    AWAITED = (
        torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.masked_select,
        torch.ops.aten._unique2, torch.ops.aten.unique_dim, torch.ops.aten.equal,
        torch.ops.aten.is_nonzero, torch.ops.aten.repeat_interleave,
    )  # fmt: skip
    SEEN = ("tolist", "numpy", "cpu", "__array__")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Any:
        for name in self.SEEN:
            self._patch.setattr(Tensor, name, self._counting(getattr(Tensor, name)))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patch.undo()

    def _counting(self, real: Any) -> Any:
        def call(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return real(tensor, *args, **kwargs)

        return call

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func._overloadpacket in self.AWAITED
        if func._overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put_):
            self.count += any(i is not None and i.dtype == torch.bool for i in args[1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "wait",
    [
        bool, int, float, lambda x: x.item(), lambda x: x.tolist(), lambda x: x.cpu(),
        lambda x: x.numpy(), lambda x: x.nonzero(), lambda x: x.unique(), lambda x: x[x > 0],
        lambda x: torch.equal(x, x), np.asarray,
    ],
)  # fmt: skip
def test_what_waits_is_counted(wait: Any) -> None:
    x = torch.ones(1)
    with CountSyncs() as mode:
        assert not mode.count
        (x * 2).add_(1).mean()
        assert mode.count == 0
        wait(x)
        assert mode.count >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cyclegan_coats", "stylegan_coats", "vanilla_coats"])
def test_no_synchronisation_between_log_points(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    counted: list[int] = []
    # it leaves its own mode before ours in the first cycle (all of StyleGAN's batches here), and
    # what is left is whatever was entered last
    monkeypatch.setattr(CountFlops, "begin", lambda *_: None)
    more = {
        "cyclegan_coats": ("method.pool=2",),  # full from the second batch on
        "stylegan_coats": ("method.augment=ada", "method.mixing=0.9", "method.weights.path=2"),
        "vanilla_coats": (),
    }[name]
    e = experiment(name, tmp_path, 6, "optim.g.clip=1", "ema.half_life_kimg=0.01", *more)

    class Watch(EachBatch):
        mode: CountSyncs

        def on_train_batch_start(self, *_: Any) -> None:
            self.mode = CountSyncs()
            self.mode.__enter__()

    def leave(method: Any) -> None:
        watch.mode.__exit__(None, None, None)
        counted.append(watch.mode.count)

    watch = Watch(leave)
    train(monkeypatch, e, watch)
    assert counted[0::2] == [0, 0, 0]  # batches 1, 3, 5
    assert all(counted[1::2])  # logged, evaluated


def test_means_over_the_interval_and_over_ranks(monkeypatch: Any) -> None:
    seen: dict[str, list[float]] = {}
    record = Toy.record

    def spy(self: Toy, key: str, value: Tensor) -> None:
        seen.setdefault(key, []).append(value.item())
        record(self, key, value)

    monkeypatch.setattr(Toy, "record", spy)
    found: list[dict[str, float]] = []

    def every_third(toy: Toy) -> None:
        if toy.batches % 3 == 0:
            found.append(toy.loss_means())
            expected = {k: sum(v) / len(v) for k, v in seen.items()}
            lrs = {k: v for k, v in found[-1].items() if k.startswith("lr/")}
            assert lrs == {"lr/g": 1e-2, "lr/d": 1e-2}
            assert {**found[-1]} == pytest.approx({**expected, **lrs}, rel=1e-5)
            seen.clear()

    weights = {"gan": 1, "r1": 0.5, "path": 0}
    fit(Lazy([["d"], ["d", "g"]], weights), 9, callbacks=[EachBatch(every_third)], accumulate=2)
    assert len(found) == 3
    assert found[0]["loss/d/r1"] != found[1]["loss/d/r1"]
    assert Toy().loss_means() == {}


def test_the_sums_of_all_processes_outlive_a_resume_on_another_number(monkeypatch: Any) -> None:
    saved = []
    for value in (1.0, 3.0):
        toy = Toy()
        toy.rank_state = {"signs": Signs()}
        toy.rank_state["signs"].add(torch.tensor([value - 2]))
        toy.record("a", torch.tensor(value))
        toy.ledger.close_batch(0)
        saved.append({k: m.state_dict() for k, m in toy._stateful.items()})
    toy = Toy()
    toy.rank_state = {"signs": Signs()}
    monkeypatch.setattr(Toy, "rank", 1)
    monkeypatch.setattr(Toy, "world", 2)
    assert difference(toy.own_part(saved), saved[1]) == ""
    monkeypatch.setattr(Toy, "rank", 0)
    monkeypatch.setattr(Toy, "world", 1)
    found = toy.own_part(saved)
    toy.ledger.load_state_dict(found["ledger"])
    toy.rank_state["signs"].load_state_dict(found["signs"])
    assert toy.loss_means()["a"] == 2
    assert float(toy.rank_state["signs"].take()) == 0


def test_sums_follow_what_comes_in_to_its_device() -> None:
    toy, signs = Toy(), Signs()
    toy.record("a", torch.tensor(1.0))
    toy.ledger.close_batch(0)
    toy.ledger.load_state_dict(toy.ledger.state_dict())
    toy.record("a", torch.ones((), device="meta"))
    toy.ledger.close_batch(1)
    (row,) = toy.ledger.state_dict().values()
    assert {row[k].device.type for k in ("sum", "bad")} == {"meta"}
    signs.add(torch.ones(2, device="meta"))
    assert signs.take().device.type == signs.total.device.type == "meta"


def test_plans_name_only_players() -> None:
    with pytest.raises(UserError, match=r"'optim.e' is the optimiser of no player .*: g, d\)"):
        Toy().configure(Settings(seed=0, images_per_batch=1, optim={"e": Optim()}))


@pytest.mark.parametrize("n", [0, -1])
def test_the_critic_is_on_turn_at_least_once(n: int) -> None:
    assert critic_alternation(2) == (("d",), ("d", "g"))
    with pytest.raises(UserError, match=f"^'method.n_critic' is {n}; .* 1 or more\\.$"):
        critic_alternation(n)


KEPT = {
    "a history": (lambda toy: toy.rank_state.update(pool=ImagePool(4)), "has a pool of its own"),
    "batch norm": (
        lambda toy: toy.add_module("n", nn.BatchNorm2d(3)),
        "normalised its share of a batch",
    ),
    "groups": (lambda toy: setattr(toy.d, "mbstd_group", 4), "compared its own pictures"),
}


@pytest.mark.parametrize("case", KEPT)
def test_another_number_of_processes_is_exact_or_refused(case: str, monkeypatch: Any) -> None:
    """Two processes of 3 pictures each, then one of 6: groups of 4 are others."""
    toy = Toy()
    toy.configure(Settings(images_per_batch=6))
    keep, told = KEPT[case]
    keep(toy)
    for pool in toy.rank_state.values():
        pool.query(torch.zeros(1, 3, 4, 4), Draws(0, 0))
    saved = [{k: m.state_dict() for k, m in toy._stateful.items()} for _ in range(2)]
    with pytest.raises(UserError, match=rf"by 2 process\(es\), .*{told}, so 1 cannot .* start 2 "):
        toy.own_part(saved)
    monkeypatch.setattr(Toy, "world", 2)
    assert toy.own_part(saved).keys() == saved[0].keys()


def test_averages_are_loaded_in_the_precision_of_their_player() -> None:
    """A run in double precision resumes before its averages, begun in single, were converted."""
    player = nn.Linear(2, 2)
    averages = WeightAverages(Ema(half_life_kimg=1.0))
    averages.track("g", player)
    player.double()
    exact = {k: v + 1e-12 for k, v in player.state_dict().items()}
    averages.load_state_dict({"weights": {"g": exact}, "updated_at": {"g": 0}}, {"g": player})
    assert difference(dict(averages.modules["g"].state_dict()), exact) == ""
