"""Where the methods follow the published code in a point that no loss curve would show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import experiment, train
from torch import Tensor, nn

from gansuite.data.spec import DataSpec, LabelSet
from gansuite.errors import UserError
from gansuite.methods.discogan import DiscoGAN
from gansuite.methods.stargan import StarGAN
from gansuite.methods.vanilla import VanillaGAN
from gansuite.networks.layers import keeping_statistics
from gansuite.networks.mlp import MLPDiscriminator
from gansuite.rng import torch_generator

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


def test_ada_moves_once_a_batch_in_however_many_chunks(tmp_path: Path, monkeypatch: Any) -> None:
    found = []
    for k in (1, 2):
        more = ("method.augment=ada", "method.g_norm=none", "method.d_norm=none", "data.batch=4")
        e = experiment(
            *("vanilla_coats", tmp_path / str(k), 24, *more, "trainer.precision=64-true"),
            f"trainer.accumulate={k}",
        )
        method = train(monkeypatch, e).method
        assert isinstance(method, VanillaGAN)
        found.append(method)
    one, two = found
    assert one.taken == two.taken
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
