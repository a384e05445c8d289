"""Networks, protocol, and the scores of a comparison."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import experiment
from torch import Tensor

from gansuite import engine
from gansuite.callbacks.evaluate import Comparisons
from gansuite.callbacks.session import Session
from gansuite.data.coats import render_many
from gansuite.errors import UserError
from gansuite.evaluation import (
    OFFLINE,
    Comparison,
    Evaluator,
    Extractor,
    Protocol,
    Statistics,
    build_extractor,
    difference,
    kept,
    reference_rows,
)
from gansuite.evaluation.features import Inception, RandomVGG16
from gansuite.evaluation.frechet import frechet_distance
from gansuite.evaluation.score import score
from gansuite.evaluation.weights import INCEPTION, VGG, WEIGHTS, Weights
from gansuite.runs import Run

N = 48


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return build_extractor()


@pytest.fixture(scope="module")
def protocol(extractor: Extractor) -> Protocol:
    return Protocol.of(extractor, size=32, swd_patches=32, swd_directions=32)


def coats(coat: str, start: int, n: int = N) -> tuple[Tensor, Tensor]:
    images, masks = render_many(coat, range(start, start + n), size=32)
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks)[:, None]


@pytest.fixture(scope="module")
def horses_to_zebras() -> Comparison:
    """The comparison of a method that returns its input."""
    source, mask = coats("horse", 900)
    truth, _ = coats("zebra", 900)
    return Comparison("a2b", real=truth, fake=source, source=source, truth=truth, mask=mask)


def test_the_random_network_is_the_same_everywhere(extractor: Extractor) -> None:
    """Pinned: another value makes all earlier scores incomparable (and Protocol.version grow)."""
    assert extractor.random.id == "random-vgg16-112d-128px-a17c485bd9b7"
    assert RandomVGG16(1).id != extractor.random.id
    widths = [p.shape for n, p in extractor.random.named_parameters() if n.endswith("weight")]
    assert [w[0] for w in widths] == [64, 64, 128, 128, 256, 256, 256]


def test_the_random_network_only_looks(extractor: Extractor) -> None:
    state = torch.get_rng_state()
    net = RandomVGG16()
    x, _ = coats("horse", 0, 3)
    features = net.train()(x)
    assert not any(m.training for m in net.modules())
    assert not any(p.requires_grad for p in net.parameters())
    assert features.shape == (3, net.dim) == (3, 112)
    assert features.dtype == torch.float64
    assert torch.equal(features, extractor.random(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(features, net(x))
    assert torch.equal(state, torch.get_rng_state())


def test_features_against_a_plain_computation(extractor: Extractor) -> None:
    net = extractor.random
    x, _ = coats("leopard", 0, 2)
    y, parts = x.double() / 127.5 - 1, []
    parameters = iter([p.double() for p in net.stages.parameters()])
    for stage, convolutions in enumerate((2, 2, 3)):
        if stage:
            y = torch.nn.functional.max_pool2d(y, 2)
        for _ in range(convolutions):
            weight, bias = next(parameters), next(parameters)
            y = torch.nn.functional.conv2d(y, weight, bias, padding=1).relu()
        parts.append(y.mean((2, 3)) @ net.projections[stage].double())
    quadrants = y.view(2, 256, 2, 4, 2, 4).mean((3, 5)).flatten(1)
    expected = torch.cat([*parts, quadrants @ net.projections[3].double()], 1)
    assert torch.allclose(net(x), expected, atol=1e-5)


def test_features_of_grey_large_and_odd_pictures(extractor: Extractor) -> None:
    net = extractor.random
    grey = coats("horse", 0, 2)[0][:, :1]
    assert torch.equal(net(grey), net(grey.expand(-1, 3, -1, -1)))
    flat = torch.full((1, 3, 300, 210), 90, dtype=torch.uint8)
    assert torch.isfinite(net(flat)).all()
    assert torch.isfinite(net(flat[..., :9, :11])).all()
    with pytest.raises(ValueError, match="8x8"):
        net(flat[..., :7, :7])
    for wrong in (flat.float() / 127.5 - 1, flat[0], flat[:, :2]):
        with pytest.raises(ValueError, match=r"uint8|3 channels"):
            net(wrong)


@pytest.mark.slow
def test_the_distance_tells_good_from_bad(extractor: Extractor) -> None:
    """What the metric is for: far from the other coat, near to more of the same, bad in between."""
    zebras, more, horses = coats("zebra", 900)[0], coats("zebra", 0)[0], coats("horse", 0)[0]
    half = more.float().lerp(horses.float(), 0.5).byte()
    blur = torch.nn.functional.avg_pool2d(more.float(), 3, 1, 1).byte()
    sets = {
        "floor": more,
        "nothing": horses,
        "half": half,
        "collapse": more[:4].repeat(12, 1, 1, 1),
    }
    sets |= {"blur": blur, "upside down": more.flip(2), "tint": (more.float() * 0.8).byte()}
    real = extractor.random(zebras)
    found = {k: frechet_distance(real, extractor.random(v)) for k, v in sets.items()}
    floor = found.pop("floor")
    assert found["nothing"] > 20 * floor
    assert all(value > 4 * floor for value in found.values()), (floor, found)


def test_doing_nothing_and_real_against_real(
    horses_to_zebras: Comparison, protocol: Protocol, extractor: Extractor
) -> None:
    rows = reference_rows(horses_to_zebras, protocol, extractor, train=coats("zebra", 0)[0])
    nothing, floor = rows["do_nothing"], rows["real_vs_real"]
    assert set(nothing) == set(OFFLINE) - {"ms_ssim"}  # which needs 176 pixels
    assert set(OFFLINE) - set(floor) == {
        *("psnr", "psnr_mask", "psnr_outside", "ssim", "ms_ssim", "l1"),
        *("cycle_l1", "identity_l1", "correlation"),
    }
    assert nothing["correlation"] == pytest.approx(1)
    assert nothing["cycle_l1"] == nothing["identity_l1"] == 0
    assert nothing["psnr_outside"] > 58 > nothing["psnr"] > nothing["psnr_mask"]
    assert nothing["fd_random"] > 20 * floor["fd_random"]
    assert nothing["swd"] > 1.5 * floor["swd"]
    assert nothing["coverage"] < 0.2 < 0.8 < floor["coverage"]
    assert floor["diversity"] == pytest.approx(1, abs=0.2)
    assert list(nothing) == [m for m in OFFLINE if m in nothing]
    assert reference_rows(replace(horses_to_zebras, source=None), protocol, extractor) == {}


def test_reference_rows_are_computed_once_for_the_same_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: Protocol, extractor: Extractor
) -> None:
    horses, zebras, train = coats("horse", 0, 4)[0], coats("zebra", 0, 4)[0], coats("zebra", 9, 4)
    c = Comparison("a2b", real=zebras, fake=horses, source=horses, truth=zebras)
    few = replace(protocol, metrics=("swd", "l1", "psnr"))
    computed = []

    def rows(c: Comparison, few: Protocol = few, train: Tensor = train[0]) -> dict[str, Any]:
        return kept.kept_reference_rows(tmp_path, c, few, extractor, train=train)

    def compute(*given: Any, **options: Any) -> dict[str, Any]:
        computed.append(given[0])
        return reference_rows(*given, **options)

    monkeypatch.setattr(kept, "reference_rows", compute)
    first = rows(c)
    assert first == reference_rows(c, few, extractor, train=train[0])
    assert list(map(list, first.values())) == [["swd", "l1", "psnr"], ["swd"]]
    assert rows(replace(c, fake=zebras)) == first  # what was generated is of no account
    assert rows(replace(c, fake=zebras, rec=zebras)) == first
    assert len(computed) == 1
    others = [
        lambda: rows(replace(c, fake=horses[:3], source=horses[:3], truth=zebras[:3])),
        lambda: rows(replace(c, real=zebras.flip(3))),
        lambda: rows(replace(c, source=horses.flip(3))),
        lambda: rows(replace(c, truth=None)),
        lambda: rows(c, train=train[0].flip(3)),
        lambda: rows(c, few=replace(few, seed=1)),
    ]
    for n, other in enumerate(others, start=2):
        other()
        assert len(computed) == n
    for file in tmp_path.iterdir():
        file.write_text('{"do_nothing": ')
    assert rows(c) == first == rows(c)
    assert len(computed) == len(others) + 2
    assert kept.kept_reference_rows(None, c, few, extractor, train=train[0]) == first
    assert len(computed) == len(others) + 3


def test_what_a_network_sees_of_real_pictures_is_kept(
    tmp_path: Path, protocol: Protocol, extractor: Extractor
) -> None:
    """Another run on the same data reads it; a damaged file, or none, is no obstacle."""
    few = replace(protocol, metrics=("fd_random", "kd_random"))
    zebras, horses = coats("zebra", 0, 4)[0], coats("horse", 0, 4)[0]
    seen: list[int] = []
    hook = extractor.random.register_forward_hook(lambda m, i, o: seen.append(len(i[0])))

    def compare(folder: Path | None, real: Tensor = zebras) -> dict[str, float]:
        return Statistics(real, few, extractor, folder).compare(horses)[0]

    first = compare(tmp_path)
    assert first == compare(None)  # with nothing kept
    (file,) = tmp_path.iterdir()
    assert np.load(file).shape == (4, 112)
    seen.clear()
    assert compare(tmp_path) == first
    assert seen == [4]  # what was made
    whole = file.read_bytes()
    for damage in (whole[:100], whole[:-1], b""):
        file.write_bytes(damage)
        assert compare(tmp_path) == first
        assert file.read_bytes() == whole
    assert compare(tmp_path, zebras.flip(3)) != first
    closed = tmp_path / "closed"
    closed.write_text("no folder")
    assert compare(closed) == first
    hook.remove()


@pytest.mark.parametrize("name", ["cyclegan_coats", "vanilla_coats"])
def test_reference_rows_need_nothing_that_a_method_makes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    e = experiment(name, tmp_path, 1)
    data = engine.build_data(e)
    method = engine.ready_method(e, data).eval()
    compare = Comparisons(Session(e, data, method, Run(tmp_path / "run")))
    with torch.no_grad():
        made = compare()
    for key in ("translate", "sample"):
        monkeypatch.setattr(method, key, None)
    for c, idle in zip(made, compare(made=False), strict=True):
        assert not torch.equal(c.fake, idle.fake)
        for key in ("real", "source", "truth", "mask"):
            x, y = getattr(c, key), getattr(idle, key)
            assert (x is None and y is None) or torch.equal(x, y)
        assert len(idle.fake) == len(c.fake)
        assert idle.rec is None is idle.idt


def test_the_truth_scores_perfectly(
    horses_to_zebras: Comparison, protocol: Protocol, extractor: Extractor
) -> None:
    c = replace(horses_to_zebras, fake=horses_to_zebras.real)
    found = score(c, protocol, extractor)
    assert found["swd"] == 0
    assert found["fd_random"] == pytest.approx(0, abs=1e-6)
    assert found["kd_random"] <= 0
    for metric in ("precision", "recall", "coverage", "ssim", "diversity", "checkerboard"):
        assert found[metric] == pytest.approx(1, abs=1e-5), metric
    assert found["l1"] == 0
    for metric in ("psnr", "psnr_mask", "psnr_outside"):
        assert found[metric] == pytest.approx(58.9226)


def test_each_pixel_score_compares_the_right_pictures(
    protocol: Protocol, extractor: Extractor
) -> None:
    """Six sets of flat pictures with different levels: every pair has its own distance."""
    level = {"real": 0, "fake": 1, "source": 3, "truth": 7, "rec": 15, "idt": 31}
    sets = {k: torch.full((4, 3, 16, 16), 5 * v, dtype=torch.uint8) for k, v in level.items()}
    found = score(Comparison("a2b", **sets), protocol, extractor)
    assert found["l1"] == pytest.approx(5 * (7 - 1) / 255)
    assert found["cycle_l1"] == pytest.approx(5 * (15 - 3) / 255)
    assert found["identity_l1"] == pytest.approx(5 * 31 / 255)
    assert found["psnr"] == pytest.approx(20 * math.log10(255 / 30))
    assert found["correlation"] == 0


@pytest.mark.slow
def test_statistics_are_computed_once(
    horses_to_zebras: Comparison, protocol: Protocol, extractor: Extractor
) -> None:
    seen = []
    network = extractor.random
    hook = network.register_forward_hook(lambda m, i, o: seen.append(len(i[0])))
    state = torch.get_rng_state()
    real = Statistics(horses_to_zebras.real, protocol, extractor)
    first = score(horses_to_zebras, protocol, extractor, real=real)
    assert seen == [N, N]
    assert score(horses_to_zebras, protocol, extractor, real=real) == first
    assert seen == [N, N, N]
    hook.remove()
    assert score(horses_to_zebras, protocol, extractor) == first
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(ValueError, match="other pictures"):
        score(replace(horses_to_zebras, real=coats("zebra", 0)[0]), protocol, extractor, real=real)


def test_an_evaluator_scores_as_the_functions_do(
    horses_to_zebras: Comparison, protocol: Protocol, extractor: Extractor
) -> None:
    few, evaluator = horses_to_zebras.head(10), Evaluator(protocol, extractor)
    assert evaluator.scores([few]) == {"a2b": score(few, protocol, extractor)}
    seen: list[int] = []
    hook = extractor.random.register_forward_hook(lambda m, i, o: seen.append(len(i[0])))
    rows = evaluator.references([few])
    hook.remove()
    assert seen == [10]  # the real side is known
    nothing = reference_rows(few, protocol, extractor)["do_nothing"]
    assert rows == {"do_nothing": {"a2b": nothing}, "real_vs_real": {}}  # no training pictures
    assert Protocol.from_dict(evaluator.report()) == protocol
    sets = evaluator.sets()
    for _ in range(2):  # nothing is left of the first round
        sets.reset()
        for part in (slice(0, 4), slice(4, 10)):
            sets.update(few.real[part], real=True)
            sets.update(few.fake[part], real=False)
        found, _ = sets.compute()
        whole = evaluator.score(few)
        assert found == pytest.approx({m: whole[m] for m in found}, rel=1e-6)


def test_only_the_first_samples_count(
    horses_to_zebras: Comparison, protocol: Protocol, extractor: Extractor
) -> None:
    fewer = replace(protocol, samples=16)
    assert score(horses_to_zebras, fewer, extractor) == score(
        horses_to_zebras.head(16), fewer, extractor
    )


@pytest.mark.parametrize("case", ["two", "flat fakes", "flat reals", "tiny", "grey", "odd"])
def test_scores_are_finite_or_absent_with_a_reason(
    case: str, protocol: Protocol, extractor: Extractor
) -> None:
    real, mask = coats("horse", 0, 8)
    fake, _ = coats("zebra", 8, 8)
    if case == "two":
        real, fake, mask = real[:2], fake[:2], mask[:2]
    elif case == "flat fakes":
        fake, mask = torch.full_like(fake, 3), torch.zeros_like(mask)
    elif case == "flat reals":
        real = torch.full_like(real, 200)
    elif case == "tiny":
        real, fake, mask = real[..., :9, :9], fake[..., :9, :9], mask[..., :9, :9]
    elif case == "grey":
        real, fake = real[:, :1], fake[:, :1]
    else:
        real, fake, mask = real[..., :25, :31], fake[..., :25, :31], mask[..., :25, :31]
    c = Comparison("a2b", real, fake, source=real, truth=real, mask=mask, rec=real, idt=fake)
    notes: dict[str, str] = {}
    found = score(c, protocol, extractor, notes=notes)
    assert all(math.isfinite(v) for v in found.values())
    assert set(found) | set(notes) == set(OFFLINE)
    assert not set(found) & set(notes)
    missing = {
        "two": {"precision", "recall", "density", "coverage"},
        "flat fakes": {"psnr_mask"},
        "flat reals": {"diversity"},
        "tiny": {"ssim", "checkerboard"},
        "odd": {"checkerboard"},
    }
    assert set(notes) == missing.get(case, set()) | {"ms_ssim"}


def test_one_picture_and_a_foreign_network_are_refused(
    horses_to_zebras: Comparison, protocol: Protocol, extractor: Extractor
) -> None:
    one = Comparison("gen", horses_to_zebras.real, horses_to_zebras.fake[:1])
    with pytest.raises(ValueError, match="at least two"):
        score(one, protocol, extractor)
    with pytest.raises(ValueError, match="asks for extractor 'another'"):
        score(horses_to_zebras, replace(protocol, extractor="another"), extractor)


def test_protocol_id_is_stable(extractor: Extractor) -> None:
    protocol = Protocol.of(extractor, size=64)
    assert protocol.id == "p2-48c9564ee0"
    assert Protocol.from_dict({**protocol.to_dict(), "id": protocol.id}) == protocol
    assert replace(protocol, metrics=protocol.metrics[::-1]).id == protocol.id
    changed: dict[str, object] = {"metrics": ("swd",), "weights": "raw", "fid_small": True}
    for name, value in protocol.to_dict().items():
        if name not in changed:
            changed[name] = value + "?" if isinstance(value, str) else value + 1
    ids = {replace(protocol, **{k: v}).id for k, v in changed.items()}  # type: ignore[arg-type]
    assert len(ids) == len(protocol.to_dict())
    assert protocol.id not in ids


def test_differences_in_words(extractor: Extractor) -> None:
    a = Protocol.of(extractor, size=64)
    b = replace(a, size=128, swd_patches=64, metrics=("swd", "psnr"))
    c = replace(a, metrics=("swd", "psnr", "l1"))
    assert difference(a, a) == []
    assert difference(b, c) == [
        "size: 128 against 64",
        "metrics: l1 only in the second",
        "swd patches: 64 against 128",
    ]


def test_wrong_protocols_are_one_sentence(extractor: Extractor) -> None:
    for settings, text in (
        ({"metrics": ["fd_randon"]}, "did you mean 'fd_random'"),
        ({"metrics": ["fid"]}, "evaluate.inception"),
        ({"weights": "best"}, "raw, ema or auto"),
        ({"samples": 1}, "at least 2"),
    ):
        with pytest.raises(UserError, match=text):
            Protocol.of(extractor, size=32, **settings)
    with pytest.raises(UserError, match="unknown field 'colour'"):
        Protocol.from_dict({"extractor": "x", "size": 3, "colour": 1})


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda w: w.option)
def test_missing_or_wrong_weights_are_one_sentence(weights: Weights, tmp_path: Path) -> None:
    if weights.package:
        pytest.importorskip(weights.package)
    path = tmp_path / "none.pth"

    def build(file: Path) -> Extractor:
        return build_extractor(**{weights.option: str(file)})

    for call in (weights.check, build):
        told = rf"none\.pth.*fetch-metrics.*sha256 {weights.sha256}.*evaluate.{weights.option}"
        with pytest.raises(UserError, match=told):
            call(path)
    path.write_bytes(b"not a network")
    weights.check(path)
    with pytest.raises(UserError, match=f"does not hold {weights.what}"):
        build(path)
    path.rename(tmp_path / weights.file)
    with pytest.raises(UserError, match=f"does not hold {weights.what}"):
        weights.fetch(tmp_path)


def test_the_weights_are_named_by_their_hash() -> None:
    """As PyTorch's hub and torch-fidelity name their files: a slip in the hash would show."""
    for weights in WEIGHTS:
        assert len(weights.sha256) == 64
        assert weights.sha256[:8] in weights.file
    assert (INCEPTION.option, VGG.option) == ("inception", "vgg")


@pytest.mark.slow
def test_fid_kid_and_is_equal_torch_fidelity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extractor: Extractor
) -> None:
    """With random weights in the real architecture: the published file is not needed for this."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    fidelity = pytest.importorskip("torch_fidelity")
    network = module.FeatureExtractorInceptionV3
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr(network, "load_state_dict", lambda *a, **k: None)
        torch.manual_seed(0)
        weights = tmp_path / "random.pth"
        torch.save(network("x", ["2048"]).state_dict(), weights)
    inception = Inception(weights, sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
    assert not any(m.training for m in inception.train().modules())
    both = Extractor(extractor.random, inception)
    a, b = coats("zebra", 0, 20)[0], coats("horse", 0, 20)[0]
    protocol = Protocol.of(both, size=32, fid_small=True, inception_splits=1)
    protocol = replace(protocol, metrics=("fid", "kid", "is"))
    found = score(Comparison("a2b", a, b), protocol, both)

    class Set(torch.utils.data.Dataset[Tensor]):
        def __init__(self, images: Tensor) -> None:
            self.images = images

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, i: int) -> Tensor:
            return self.images[i]

    other = fidelity.calculate_metrics(
        input1=Set(b),
        input2=Set(a),
        cuda=False,
        verbose=False,
        fid=True,
        kid=True,
        isc=True,
        isc_splits=1,
        samples_shuffle=False,
        kid_subset_size=20,
        feature_extractor_weights_path=str(weights),
        cache=False,
    )
    assert found["fid"] == pytest.approx(other["frechet_inception_distance"], abs=1e-3)
    assert found["kid"] == pytest.approx(other["kernel_inception_distance_mean"], rel=1e-4)
    assert found["is"] == pytest.approx(other["inception_score_mean"], rel=1e-5)

    notes: dict[str, str] = {}
    strict = replace(protocol, fid_small=False, inception_splits=10)
    assert set(score(Comparison("a2b", a, b), strict, both, notes=notes)) == {"kid"}
    assert "use kid" in notes["fid"]
    assert "100 pictures" in notes["is"]
