"""The order of the pictures, against an independent computation from (seed, position)."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gansuite.data import Batch, DataModule, DataSpec, Needs, Source, build_source
from gansuite.data.images import read_image, resize_uint8
from gansuite.data.views import _BLOCK, TrainBatches
from gansuite.errors import UserError
from gansuite.rng import derive

SEED = 7


class Numbered(Source):
    """Every pixel tells domain, picture, row and column: [domain, 16 * picture + row, column]."""

    name = "numbered"

    def __init__(self, counts: dict[str, int], paired: bool = False) -> None:
        super().__init__()
        self._counts, self.paired = counts, paired

    @property
    def where(self) -> str:
        return ""

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(self._counts)

    def _scan(self) -> None:
        self.labels = self.domains

    def counts(self) -> dict[str, dict[str, int]]:
        return {"train": self._counts, "test": self._counts}

    def digest(self) -> str:
        return "0"

    def _stamp(self, split: str, domain: str) -> str:
        return f"{self._counts}{split}{domain}"

    def _fill(
        self, out: np.ndarray, split: str, domain: str, size: int, channels: int, resize: str
    ) -> None:
        n = len(out)
        out[:, 0] = self.domains.index(domain)
        out[:, 1] = 16 * np.arange(n)[:, None, None] + np.arange(size)[:, None]
        out[:, 2] = np.arange(size)


def module(
    view: str = "unpaired", counts: tuple[int, ...] = (5, 3), batches: int = 1, **options: object
) -> DataModule:
    source = Numbered(dict(zip("abcd", counts, strict=False)), paired=view == "paired")
    settings = {"size": 4, "load_size": 6, "batch": 4, "seed": SEED} | options
    needs = Needs(view, batches=batches)  # type: ignore[arg-type]
    return DataModule(source, needs, **settings)  # type: ignore[arg-type]


def expected(stream: int, position: int, n: int) -> tuple[int, int, int, bool]:
    """(picture, top, left, mirrored) of one position, computed afresh."""
    epoch, place = divmod(position, n)
    picture = np.random.default_rng(derive(SEED, "order", stream, epoch)).permutation(n)[place]
    block, row = divmod(position, _BLOCK)
    draws = np.random.default_rng(derive(SEED, "augment", stream, block)).random((_BLOCK, 3))[row]
    return int(picture), int(draws[0] * 3), int(draws[1] * 3), bool(draws[2] < 0.5)


def seen(image: torch.Tensor) -> tuple[int, int, int, int, bool]:
    """(domain, picture, top, left, mirrored) as the pixels tell."""
    first, last = int(image[2, 0, 0]), int(image[2, 0, -1])
    corner = int(image[1, 0, 0])
    assert torch.equal(image[1, :, 0] - image[1, 0, 0], torch.arange(4, dtype=torch.uint8))
    return int(image[0, 0, 0]), corner // 16, corner % 16, min(first, last), first > last


def same(a: Batch, b: Batch) -> bool:
    labels = (a.labels is None) == (b.labels is None) and (
        a.labels is None or b.labels is None or torch.equal(a.labels, b.labels)
    )
    return labels and all(torch.equal(x, y) for x, y in zip(a.images, b.images, strict=True))


def test_order_crop_and_mirror_are_a_function_of_seed_and_position() -> None:
    data = module()
    for index in (0, 1, 2, 9, 300):  # 300: beyond the first block of draws
        batch = data.train_batch(index)
        for stream, n in enumerate((5, 3)):
            for row, image in enumerate(batch.images[stream]):
                want = expected(stream, index * 4 + row, n)
                assert seen(image) == (stream, *want)


def test_each_epoch_is_a_permutation_and_epochs_differ() -> None:
    data = module(counts=(8, 4))
    rows = [seen(x)[1] for i in range(8) for x in data.train_batch(i).images[0]]
    epochs = [rows[i : i + 8] for i in range(0, 32, 8)]
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_all_crops_and_both_directions_occur_evenly() -> None:
    data = module(batch=256, counts=(5, 5))
    found = [seen(x)[2:] for i in range(8) for x in data.train_batch(i).images[0]]
    assert set(found) == {(t, s, m) for t in range(3) for s in range(3) for m in (False, True)}
    assert abs(sum(m for *_, m in found) / 2048 - 0.5) < 0.05  # 4.5 sigma
    assert not any(seen(x)[4] for x in module(flip=False).train_batch(0).images[0])


@pytest.mark.parametrize("view", ["single", "unpaired", "paired", "labelled"])
def test_ranks_get_the_slices_of_the_global_batch(view: str) -> None:
    data = module(view, counts=(5, 5))
    for index in (0, 3):
        whole = data.train_batch(index)
        for world in (2, 4):
            parts = [data.train_batch(index, rank, world) for rank in range(world)]
            joined = Batch(
                tuple(torch.cat(x) for x in zip(*(p.images for p in parts), strict=True)),
                None if whole.labels is None else torch.cat([p.labels for p in parts]),  # type: ignore[misc]
            )
            assert same(whole, joined)


@pytest.mark.parametrize("view", ["single", "unpaired", "paired", "labelled"])
def test_several_batches_drawn_together(view: str) -> None:
    """Of 2, batch i has the pictures that batches 2i and 2i + 1 would have, in each process a
    slice of either, and all are counted."""
    one, both = module(view, counts=(5, 5)), module(view, counts=(5, 5), batches=2)
    assert both.images_per_batch == 2 * one.images_per_batch
    for index in (0, 3):
        for world in (1, 2):
            for rank in range(world):
                halves = both.train_batch(index, rank, world).split(2)
                for k, half in enumerate(halves):
                    assert same(half, one.train_batch(2 * index + k, rank, world))


@pytest.mark.parametrize("batch", [1, 2])
def test_the_order_does_not_depend_on_the_batch_size(batch: int) -> None:
    small, large = module(batch=batch), module(batch=4)
    for side in range(2):
        one = torch.cat([small.train_batch(i).images[side] for i in range(8 // batch)])
        assert torch.equal(one, torch.cat([large.train_batch(i).images[side] for i in range(2)]))


def test_pairs_share_picture_crop_and_mirror() -> None:
    batch = module("paired", counts=(5, 5)).train_batch(2)
    for a, b in zip(*batch.images, strict=True):
        assert seen(a)[0] == 0
        assert seen(b) == (1, *seen(a)[1:])


def test_labelled_pools_the_domains() -> None:
    data = module("labelled")
    batches = [data.train_batch(i) for i in range(2)]
    images = torch.cat([b.images[0] for b in batches])
    labels = torch.cat([b.labels for b in batches if b.labels is not None])
    facts = [seen(x) for x in images]
    assert sorted(f[:2] for f in facts) == [(0, i) for i in range(5)] + [(1, i) for i in range(3)]
    assert labels.dtype == torch.float32
    assert labels.argmax(1).tolist() == [f[0] for f in facts]
    assert labels.sum(1).tolist() == [1.0] * 8
    assert module("single").train_batch(0).labels is None


def test_images_per_batch_counts_all_domains() -> None:
    assert [module(v, counts=(5, 5)).images_per_batch for v in ("single", "labelled")] == [4, 4]
    assert [module(v, counts=(5, 5)).images_per_batch for v in ("unpaired", "paired")] == [8, 8]


def take(data: DataModule, count: int) -> list[Batch]:
    return list(itertools.islice(iter(data.train_dataloader()), count))


def test_the_loader_yields_the_batches_with_and_without_workers() -> None:
    want = [module().train_batch(i) for i in range(6)]
    for workers in (0, 2):
        assert all(map(same, take(module(workers=workers), 6), want))


def test_resuming_continues_the_order() -> None:
    whole = take(module(), 7)
    data = module()
    data.start_batch = 4
    assert all(map(same, take(data, 3), whole[4:]))


def test_the_dataset_survives_pickling_without_copying_the_cache(tmp_path: Path) -> None:
    # what spawned workers receive
    source = Numbered({"a": 200, "b": 200})
    data = DataModule(source, Needs("unpaired"), size=16, batch=4, seed=SEED, cache=tmp_path)
    dataset = data.train_dataloader().dataset
    assert isinstance(dataset, TrainBatches)
    assert same(dataset[5], data.train_batch(5))
    content = pickle.dumps(dataset)
    assert len(content) < 5000
    assert same(pickle.loads(content)[5], data.train_batch(5))
    in_memory = module()
    copy = pickle.loads(pickle.dumps(in_memory.train_dataloader().dataset))
    assert same(copy[5], in_memory.train_batch(5))


def test_global_generators_have_no_say() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    first = module().train_batch(3)
    torch.manual_seed(2)
    np.random.seed(2)
    state = torch.get_rng_state()
    assert same(module().train_batch(3), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_pictures_are_in_file_order_and_not_augmented() -> None:
    data = module()
    found = data.pictures("test", "a")
    assert found.shape == (5, 3, 4, 4)
    assert [seen(x) for x in found] == [(0, i, 0, 0, False) for i in range(5)]
    assert len(data.pictures("test", "a", 2)) == 2
    pooled = data.pictures("test", None, 5)
    assert [seen(x)[:2] for x in pooled] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert len(data.pictures("test", None, 7)) == 7
    assert len(data.pictures("test", None)) == 8
    assert data.masks("a") is None
    assert data.truth("a", "b") is None


def test_bad_options_are_refused() -> None:
    for options, text in (
        ({"size": 0}, "data.size"),
        ({"batch": 0}, "data.batch"),
        ({"load_size": 3}, "data.load_size is 3"),
        ({"channels": 2}, "data.channels is 2, but data '"),
        ({"channels": 65}, "data.channels is 65"),
        ({"workers": -1}, "data.workers"),
    ):
        with pytest.raises(UserError, match=text):
            module(**options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"batch is 4 .* by 3 .* 3 and 6"):
        module().train_batch(0, 0, 3)
    with pytest.raises(UserError, match=r"no domain 'x'"):
        module().pictures("test", "x")


def test_needs_name_what_is_missing() -> None:
    def spec(*domains: str, labels: tuple[str, ...] = ()) -> DataSpec:
        counts = {"train": dict.fromkeys(domains, 1)}
        return DataSpec("x", 8, 3, domains, counts, False, labels, "d")

    two = Needs("unpaired", domains=2)
    two.check(spec("horse", "zebra"))
    with pytest.raises(UserError, match=r"cyclegan needs 2 domains.* 'x' at p has 1 \(horse\)"):
        two.check(spec("horse"), who="cyclegan", where="p")
    with pytest.raises(UserError, match=r"exactly 2 .* 3 .*data.domains=\[a,b\]"):
        two.check(spec("a", "b", "c"))
    with pytest.raises(UserError, match="needs pairs"):
        Needs("paired").check(spec("a", "b"))
    with pytest.raises(UserError, match="needs labels"):
        Needs("labelled").check(spec("a"))
    Needs("labelled", min_domains=2).check(spec("faces", labels=("hat", "smile")))


def test_spec_survives_a_checkpoint(tmp_path: Path) -> None:
    spec = module().spec
    torch.save(spec.to_dict(), tmp_path / "a")
    assert DataSpec.from_dict(torch.load(tmp_path / "a", weights_only=True)) == spec


def test_batch_moves() -> None:
    batch = Batch((torch.zeros(1, 3, 2, 2, dtype=torch.uint8),), torch.zeros(1, 2))
    moved = batch.to("meta", non_blocking=True)
    assert moved.images[0].device.type == "meta"
    assert moved.labels is not None
    assert moved.labels.device.type == "meta"


# --- the embedded set ----------------------------------------------------------------------------


def test_coats_train_indices_are_disjoint_and_test_indices_shared() -> None:
    from gansuite.data.sources.coats import Coats

    four = Coats(domains=["leopard", "horse", "giraffe", "zebra"], train=50, test=9)
    train = [set(four.indices("train", domain)) for domain in four.domains]
    test = {tuple(four.indices("test", domain)) for domain in four.domains}
    assert len(test) == 1
    union = set().union(*train, *test)
    assert len(union) == 4 * 50 + 9
    alone = Coats(domains=["horse"], train=50, test=9)
    assert alone.indices("train", "horse") == four.indices("train", "horse")


def test_coats_know_the_truth() -> None:
    source = build_source("coats", train=3, test=4)
    data = DataModule(source, Needs("unpaired", 2), size=32, load_size=36, batch=2, seed=0)
    horses, masks = data.pictures("test", "horse"), data.masks("horse")
    truth = data.truth("horse", "zebra")
    assert masks is not None
    assert truth is not None
    assert torch.equal(truth, data.pictures("test", "zebra"))
    assert masks.shape == (4, 1, 32, 32)
    assert masks.dtype == torch.bool
    outside = ~masks.expand_as(horses)
    assert torch.equal(horses[outside], truth[outside])
    assert not torch.equal(horses, truth)
    assert data.train_batch(0).images[0].shape == (2, 3, 32, 32)


def test_coats_digest_depends_on_what_is_drawn() -> None:
    def digest(**options: object) -> str:
        return build_source("coats", **options).digest()

    assert digest() == digest()
    others = [digest(seed=1), digest(train=9), digest(test=9), digest(domains=["horse"]), digest()]
    assert len(set(others)) == 5


def test_coats_refuse_bad_options() -> None:
    with pytest.raises(UserError, match="did you mean 'zebra'"):
        build_source("coats", domains=["zebre"])
    with pytest.raises(UserError, match="twice"):
        build_source("coats", domains=["zebra", "zebra"])
    with pytest.raises(UserError, match=r"data.train is 0"):
        build_source("coats", train=0)
    with pytest.raises(UserError, match="32 to 256"):
        DataModule(build_source("coats"), Needs("single"), size=16, batch=1, seed=0).spec  # noqa: B018


@pytest.mark.parametrize("resize", ["bicubic", "bilinear", "bilinear_aliased"])
def test_the_filter_is_for_training_and_has_a_cache_of_its_own(resize: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        for i in range(1 if split == "train" else 2):
            picture = rng.integers(0, 256, (40, 30, 3), np.uint8)
            Image.fromarray(picture).save(tmp_path / split / "a" / f"{i}.png")
    source = build_source("folders", root=str(tmp_path))
    options: dict[str, object] = {"size": 12, "batch": 1, "seed": 0, "flip": False}
    cache = tmp_path / "cache"
    plain = DataModule(source, Needs("single"), cache=cache, **options)  # type: ignore[arg-type]
    other = DataModule(source, Needs("single"), cache=cache, resize=resize, **options)  # type: ignore[arg-type]
    for data in (plain, other):
        data.setup()
    for split in ("train", "test"):  # what is scored, and real against real
        assert torch.equal(plain.pictures(split, "a"), other.pictures(split, "a"))
    file = read_image(tmp_path / "train/a/0.png")
    seen = other.train_batch(0).images[0][0].permute(1, 2, 0).numpy()
    assert np.array_equal(seen, resize_uint8(file, 12, resize))
    same = torch.equal(plain.train_batch(0).images[0], other.train_batch(0).images[0])
    assert same == (resize == "bicubic")
    assert len(list(cache.glob("*.npy"))) == (2 if resize == "bicubic" else 3)
