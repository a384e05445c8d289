"""Features learned on training pictures, and those of published transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gansuite.config import Evaluate
from gansuite.data import DataModule, Needs, build_source
from gansuite.data.catalogue import SOURCES
from gansuite.data.coats import render_many
from gansuite.errors import UserError
from gansuite.evaluation import (
    Comparison,
    Protocol,
    build_extractor,
    extractor_of,
    reference_rows,
)
from gansuite.evaluation.extractor import is_downloaded
from gansuite.evaluation.frechet import frechet_distance
from gansuite.evaluation.learned import (
    Damaged,
    LearnedFeatures,
    blurred,
    learned_features,
    scaled,
    shuffled,
    train_features,
)
from gansuite.evaluation.score import gaussian_pictures, score
from gansuite.evaluation.verdict import gap_closed, verdict
from gansuite.evaluation.vit import Clip, Dino
from gansuite.evaluation.weights import Weights


def coats(coat: str, start: int, n: int) -> Tensor:
    images, _ = render_many(coat, range(start, start + n), size=32)
    return torch.from_numpy(images).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def learned() -> LearnedFeatures:
    return train_features({"horse": coats("horse", 0, 48), "zebra": coats("zebra", 0, 48)})


def module(cache: Path | None, train: int = 8) -> DataModule:
    source = build_source("coats", domains=["horse", "zebra"], train=train, test=4)
    return DataModule(source, Needs("unpaired", 2), size=32, batch=1, seed=0, cache=cache)


def test_training_is_bit_exact_and_leaves_no_trace() -> None:
    sets = {"a": coats("horse", 0, 6), "b": coats("zebra", 0, 6)}
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = train_features(sets)
    torch.set_num_threads(2)
    try:
        again = train_features(sets)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert first.id == again.id
    assert torch.equal(first(sets["a"]), again(sets["a"]))
    assert torch.equal(state, torch.get_rng_state())
    assert train_features(sets, seed=1).id != first.id
    assert not any(p.requires_grad for p in first.parameters())
    assert not first.train().training


@pytest.mark.slow
def test_training_pictures_have_mean_0_and_variance_1(learned: LearnedFeatures) -> None:
    seen = learned(torch.cat([coats("horse", 0, 48), coats("zebra", 0, 48)]))
    assert seen.shape == (96, 64)
    assert seen.dtype == torch.float64
    assert seen.mean(0).abs().max() < 1e-6
    assert torch.allclose(seen.var(0, correction=0), torch.ones(64, dtype=torch.float64))
    grey = coats("horse", 0, 2)[:, :1]
    assert torch.equal(learned(grey), learned(grey.expand(-1, 3, -1, -1)))
    large = torch.zeros(1, 3, 300, 150, dtype=torch.uint8)
    assert scaled(large).shape == (1, 3, 128, 64)
    assert learned(large).isfinite().all()


def test_the_network_is_trained_once_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = learned_features(module(tmp_path))
    assert learned_features(module(tmp_path, train=9)).id != first.id  # other data, another file
    (kept,) = [p for p in tmp_path.glob("features-*.pt") if first.id == _id(p)]
    with monkeypatch.context() as patch:
        patch.setattr("gansuite.evaluation.learned.learn", None)
        assert learned_features(module(tmp_path)).id == first.id
    kept.write_bytes(b"cut off")
    assert learned_features(module(tmp_path)).id == first.id  # made again


def _id(path: Path) -> str:
    network = LearnedFeatures()
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.id


def test_damage_ranks_by_its_strength_and_doing_nothing_behind_a_blend(
    learned: LearnedFeatures,
) -> None:
    """The table of docs/measurements.md in small."""
    source, target = coats("horse", 900, 48), coats("zebra", 900, 48)
    x, real = target.float(), learned(target)
    tint = torch.tensor([1.0, 0.0, -1.0])[:, None, None]
    series = {
        "blur": [blurred(x, torch.full((48,), s)) for s in (0.5, 1.0, 2.0)],
        "tint": [x + s * tint for s in (10, 20, 40)],
        "blend": [x.lerp(source.float(), s) for s in (0.25, 0.5, 0.75, 1.0)],
        "collapse": [x[: 48 // k].repeat(k, 1, 1, 1) for k in (2, 4, 16)],
    }
    for kind, sets in series.items():
        found = [frechet_distance(real, learned(y.round().clamp(0, 255).byte())) for y in sets]
        assert found == sorted(found), (kind, found)


def test_batches_to_learn_from() -> None:
    images = scaled(coats("horse", 0, 40))
    kinds = torch.arange(40) % 3
    made, again = (Damaged.draw(images, kinds, 3, 0, 7) for _ in range(2))
    assert torch.equal(made.images, again.images)
    assert not torch.equal(made.images, Damaged.draw(images, kinds, 3, 0, 8).images)
    assert made.images.shape == (32, 3, 32, 32)
    assert made.images.abs().max() <= 1
    assert torch.allclose(made.domains.sum(1), torch.ones(32))
    assert made.damage.shape == (32, 4 + 3)
    wide = Damaged.draw(images[..., :20, :], kinds, 3, 0, 7)
    assert set(wide.turns.tolist()) <= {0, 2}


def test_blur_and_tiles_against_plain_computations() -> None:
    x = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    ndimage = pytest.importorskip("scipy.ndimage")
    expected = ndimage.gaussian_filter(x[1, 2].numpy(), 1.5, mode="mirror", radius=4)
    found = blurred(x, torch.tensor([0.5, 1.5]))[1, 2]
    assert torch.allclose(found, torch.from_numpy(expected), atol=1e-5)
    order = torch.stack([torch.arange(4), torch.tensor([3, 1, 2, 0])])
    y = shuffled(x, 2, order)
    assert torch.equal(y[0], x[0])
    assert torch.equal(y[1, :, :12, :12], x[1, :, 12:, 12:])
    assert torch.equal(y[1, :, :12, 12:], x[1, :, :12, 12:])


def test_a_gaussian_has_the_moments_of_its_pictures() -> None:
    g = torch.Generator().manual_seed(0)
    pixel = 128 + 30 * torch.randn(60, 1, 1, 1, generator=g)
    images = (pixel + 10 * torch.randn(60, 1, 2, 2, generator=g)).clamp(0, 255).byte()
    drawn = gaussian_pictures(images, 4000).flatten(1).double()
    x = images.flatten(1).double()
    assert torch.allclose(drawn.mean(0), x.mean(0), atol=3)
    assert torch.allclose(torch.cov(drawn.T), torch.cov(x.T), rtol=0.15, atol=20)
    assert torch.equal(gaussian_pictures(images, 3), gaussian_pictures(images, 3))


def test_rubbish_closes_no_gap(learned: LearnedFeatures) -> None:
    """Noise-like blobs in the right colours, which an untrained network made look good."""
    real, train = coats("horse", 900, 48), coats("horse", 0, 48)
    extractor = build_extractor(learned=learned)
    protocol = Protocol.of(extractor, size=32, metrics=("fd_learned",))
    blobs = torch.rand(48, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 255
    fake = torch.nn.functional.interpolate(blobs, size=32, mode="bicubic").clamp(0, 255).byte()
    c = Comparison("gen", real, fake)
    rows = reference_rows(c, protocol, extractor, train=train)
    assert set(rows) == {"real_vs_real", "do_nothing", "blurred"}
    ends = [rows[k]["fd_learned"] for k in ("do_nothing", "real_vs_real")]
    share = gap_closed(score(c, protocol, extractor)["fd_learned"], *ends)
    assert share is not None
    assert share < 0.1
    told = verdict(
        {"gen": {"fd_learned": 2 * ends[0]}},
        {},
        {row: {"gen": scores} for row, scores in rows.items()},
    )
    assert told == "not learned: gen is no closer to real than a Gaussian of the training pictures"
    assert rows["real_vs_real"]["fd_learned"] < rows["blurred"]["fd_learned"] < ends[0]


def test_inception_comes_by_itself_for_published_data_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, notes = module(tmp_path), []
    assert extractor_of(Evaluate(learned=False), data, note=notes.append).inception is None
    assert notes == []

    def refuse(self: Weights, folder: Path) -> Path:
        raise UserError("no network")

    monkeypatch.setattr(Weights, "fetch", refuse)
    monkeypatch.setattr(Weights, "check_package", lambda self: None)
    monkeypatch.setattr(data.source, "downloads", True)
    assert extractor_of(Evaluate(learned=False), data, note=notes.append).inception is None
    assert notes == ["no FID: no network"]
    published = {
        n
        for n in ("coats", "folders", "cifar10", "celeba", "horse2zebra")
        if is_downloaded(SOURCES[n])
    }
    assert published == {"cifar10", "celeba", "horse2zebra"}


def reference(kind: str, folder: Path) -> Any:
    """A small network with random weights, saved as the published ones are."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small: dict[str, Any] = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "dino":
        network = transformers.Dinov2Model(transformers.Dinov2Config(image_size=518, **small))
    else:
        config = transformers.CLIPVisionConfig(
            image_size=56, patch_size=14, intermediate_size=256, projection_dim=32, **small
        )
        network = transformers.CLIPVisionModelWithProjection(config)
    with torch.no_grad():
        for p in network.parameters():
            p.normal_(0, 0.1)
    network.eval().save_pretrained(folder)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dino", "clip"])
def test_transformers_equal_the_reference_with_its_preprocessing(kind: str, tmp_path: Path) -> None:
    network = reference(kind, tmp_path)
    side = {"dino": 224, "clip": 56}[kind]
    images = coats("horse", 0, 3)
    mean, std = {
        "dino": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    }[kind]
    arrays = []
    for image in images:
        resized = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        arrays.append((np.asarray(resized) / 255 - mean) / std)
    x = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        out = network(pixel_values=x)
    expected = out.pooler_output if kind == "dino" else out.image_embeds
    ours = {"dino": Dino, "clip": Clip}[kind](tmp_path / "model.safetensors")
    found = ours(images)
    assert found.dtype == torch.float64
    assert found.shape == expected.shape == (3, ours.dim)
    scale = expected.double().std()
    assert (found - expected.double()).abs().max() < 0.05 * scale  # Pillow resizes in integers
    extractor = build_extractor(**{kind: str(tmp_path / "model.safetensors")})
    protocol = Protocol.of(extractor, size=32)
    assert getattr(protocol, kind) == ours.id
    assert ("fd_dino" if kind == "dino" else "cmmd") in protocol.metrics


def test_wrong_files_for_transformers_are_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    save = pytest.importorskip("safetensors.torch").save_file
    with pytest.raises(UserError, match=r"evaluate\.dino: there is no file '.*none'"):
        Dino(tmp_path / "none")
    path = tmp_path / "other.safetensors"
    path.write_bytes(b"no network")
    for content in (None, {"embeddings.cls_token": torch.zeros(1, 1, 8)}):
        if content is not None:
            save(content, path)
        for kind in (Dino, Clip):
            with pytest.raises(UserError, match="does not hold a"):
                kind(path)
