"""pix2pix against the published integers and networks called by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import experiment, train
from torch import Tensor, nn

from gansuite.core.settings import Settings
from gansuite.data import DataModule, Needs, build_source
from gansuite.data.spec import Batch, DataSpec
from gansuite.errors import UserError
from gansuite.methods.base import Step
from gansuite.methods.pix2pix import Pix2Pix
from gansuite.networks.layers import picture_statistics
from gansuite.networks.unet import UNetGenerator
from gansuite.rng import torch_generator


def spec(size: int = 32) -> DataSpec:
    return DataSpec("toy", size, 3, ("photo", "label"), {}, True, ("photo", "label"), "0")


def pictures(n: int, name: str = "pix2pix", size: int = 32) -> Tensor:
    x = torch.rand(n, 3, size, size, generator=torch_generator(0, name), dtype=torch.float64)
    return x * 2 - 1


def tiny(size: int = 32, **options: Any) -> Pix2Pix:
    torch.manual_seed(0)
    method = Pix2Pix(spec(size), **{"width": 4, "d_width": 4, **options}).double()
    method.configure(Settings(seed=9, images_per_batch=4))
    return method


def test_published_parameter_counts() -> None:
    with torch.device("meta"):
        found = {size: Pix2Pix(spec(size), norm="batch") for size in (256, 128)}
        instance = Pix2Pix(spec(256))
    assert found[256].parameter_counts() == {"g": 54_413_955, "d": 2_768_705}
    assert found[128].parameter_counts() == {"g": 41_828_995, "d": 2_768_705}
    assert instance.parameter_counts()["g"] == 54_409_603
    assert found[256].d.body[0].in_channels == 6


@pytest.mark.parametrize(("downs", "dropped"), [(8, [1, 2, 3]), (7, [1, 2]), (6, [1]), (5, [])])
def test_dropout_sits_in_the_ups_of_full_width(downs: int, dropped: list[int]) -> None:
    g = UNetGenerator(width=2, downs=downs, dropout=0.5)
    assert [i for i, up in enumerate(g.ups) if "Dropout" in repr(up)] == dropped
    assert all(
        up[1].in_channels == 2 * up[1].out_channels == 32 for up in (g.ups[i] for i in dropped)
    )
    assert "Dropout" not in repr(UNetGenerator(width=2, downs=downs))


@pytest.mark.parametrize("direction", ["ab", "ba"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_losses_are_those_of_the_paper(norm: Any, direction: Any) -> None:
    method = tiny(norm=norm, direction=direction)
    a, b = pictures(2), pictures(2, "label")
    x, y = (a, b) if direction == "ab" else (b, a)
    step = Step(method, ("d", "g"), Batch((a, b)), 0)
    d_found = method.d_losses(Batch((a, b)), step)["gan"]
    assert all(p.grad is None for p in method.g.parameters())
    step.position = 1
    g_found = method.g_losses(Batch((a, b)), step)
    fake = method.g(x)
    real, made = (method.d(torch.cat([x, t], 1)) for t in (y, fake.detach()))
    ones = torch.ones_like(real)
    bce = F.binary_cross_entropy_with_logits
    torch.testing.assert_close(d_found, 0.5 * bce(real, ones) + 0.5 * bce(made, 0 * ones))
    found = bce(method.d(torch.cat([x, fake], 1)), ones)
    torch.testing.assert_close(g_found["gan"], found)
    torch.testing.assert_close(g_found["l1"], (fake - y).abs().mean())
    assert method.weights == {"gan": 1.0, "l1": 100.0}
    (slope,) = torch.autograd.grad(g_found["gan"], [method.g.ups[-1][1].weight], retain_graph=True)
    (by_hand,) = torch.autograd.grad(found, [method.g.ups[-1][1].weight])
    torch.testing.assert_close(slope, by_hand)


def test_l1_is_zero_when_the_target_is_copied() -> None:
    method = tiny()
    a, b = pictures(1), pictures(1, "label")
    method.fake = lambda batch, step: b  # type: ignore[method-assign]
    step = Step(method, ("g",), Batch((a, b)), 0)
    assert float(method.g_losses(Batch((a, b)), step)["l1"]) == 0


def test_one_crop_and_flip_for_both_sides() -> None:
    """Pairs of equal pictures stay equal through resizing, cropping and mirroring."""
    source = build_source("coats", paired=True, train=7, test=2)
    data = DataModule(source, Needs("paired", 2), size=32, load_size=40, batch=8, seed=3)
    view = data._train_view()
    view.domains = (view.domains[0], view.domains[0])
    for index in range(3):
        a, b = view(index).images
        assert torch.equal(a, b)
    assert len({x.numpy().tobytes() for x in a}) > 1


def test_paired_coats_show_one_scene_in_both() -> None:
    source = build_source("coats", paired=True, train=6, test=2)
    data = DataModule(source, Needs("paired", 2), size=32, load_size=36, batch=4, seed=0)
    horses, zebras = (source.load("train", d, 32, 3) for d in source.domains)
    masks = (horses != zebras).any(1)
    assert 0.05 < masks.mean() < 0.6  # the animal
    alone = build_source("coats", train=6, test=2)
    assert (alone.load("train", "horse", 32, 3) == horses).all()
    assert not (alone.load("train", "zebra", 32, 3) == zebras).all()
    assert data.spec.paired
    assert source.digest() != alone.digest()
    assert alone.digest() == build_source("coats", train=6, test=2, paired=False).digest()
    with pytest.raises(UserError, match=r"is unpaired; use data.name=paired, or data.paired=true"):
        DataModule(alone, Needs("paired", 2), size=32, batch=4, seed=0).spec  # noqa: B018


def batch_normed() -> tuple[nn.Module, Tensor]:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).double()
    with torch.no_grad():
        for p in net[1].parameters():
            p.copy_(torch.rand(4, generator=torch_generator(0, "norm")))
    net(pictures(4, "seen") * 3 + 1)
    return net.eval(), pictures(3)


def test_picture_statistics_are_those_of_a_batch_of_one() -> None:
    net, x = batch_normed()
    running = net(x)
    with picture_statistics(net):
        found = net(x)
    assert torch.equal(net(x), running)  # the hooks are gone
    state = {k: v.clone() for k, v in net.state_dict().items()}
    alone = torch.cat([net.train()(one[None]) for one in x])
    torch.testing.assert_close(found, alone)
    assert not torch.allclose(found, running)
    net.load_state_dict(state)


@pytest.mark.parametrize("statistics", ["picture", "running"])
def test_the_norm_used_at_test_time(statistics: Any) -> None:
    method = tiny(64, norm="batch", statistics=statistics)
    x = pictures(3, size=64)
    method.g(pictures(4, "seen", 64))  # running statistics and dropout in training
    assert not torch.equal(method.g(x), method.g(x))
    with method.evaluating("raw"):
        before = {k: v.clone() for k, v in method.state_dict().items()}
        made = method.translate(x, "label")
        # neither the other pictures of the batch nor chance have a say
        one = method.translate(x[:1], "label")
        torch.testing.assert_close(made[:1], one)
        running = method.g(x)
        after = method.state_dict()
    assert torch.equal(made, running) == (statistics == "running")
    assert all(torch.equal(v, after[k]) for k, v in before.items())


def test_odd_sizes_are_refused_with_a_way_out(tmp_path: Path) -> None:
    from gansuite import engine

    e = experiment("pix2pix_coats", tmp_path, 1, "data.size=48")
    with pytest.raises(UserError, match=r"'data.size' is 48, .* multiple of 32: 32 or 64"):
        engine.train(e)
    assert not (tmp_path / "pix2pix_coats").exists()


@pytest.mark.slow
def test_scores_to_the_truth_come_from_the_shared_evaluation(
    tmp_path: Path, monkeypatch: Any
) -> None:
    e = experiment("pix2pix_coats", tmp_path, 1, "method.direction=ab")
    session = train(monkeypatch, e)
    final = session.notes["final"]
    assert final.keys() == {"a2b"}
    assert {"psnr", "ssim", "l1", "psnr_mask", "psnr_outside"} <= final["a2b"].keys()
    assert "cycle_l1" not in final["a2b"]  # there is no way back
    assert (session.run.path / "samples" / "strip_a2b_truth.png").is_file()
