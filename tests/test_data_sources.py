"""Layouts on disk, right and broken; every picture carries its own grey value."""

from __future__ import annotations

import csv
import errno
import gzip
import itertools
import multiprocessing
import os
import pickle
import random
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gansuite.data import (
    SOURCES,
    DataModule,
    Needs,
    Source,
    build_source,
    describe_sources,
)
from gansuite.data.cache import cached_array
from gansuite.data.check import check_data
from gansuite.data.images import read_image
from gansuite.data.sources import mnist
from gansuite.data.sources.celeba import CelebA
from gansuite.data.sources.pictures import FilePicture
from gansuite.data.tables import Table
from gansuite.data.views import Pictures, Stream
from gansuite.errors import UserError
from gansuite.methods.cyclegan import CycleGAN

Tree = dict[str, int]  # path -> grey value


def write(root: Path, tree: Tree, size: tuple[int, int] = (4, 4)) -> Path:
    for name, value in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size, value).save(path, format="PNG")
    return root


def unpaired(root: Path) -> Path:
    counts = {"trainA": 3, "trainB": 2, "testA": 1, "testB": 2}
    values = itertools.count(1)
    return write(root, {f"{d}/{i}.jpg": next(values) for d, n in counts.items() for i in range(n)})


def grey(source: Source, split: str, domain: str) -> list[int]:
    """The grey values of a split, in file order."""
    return source.load(split, domain, 2, 1)[:, 0, 0, 0].tolist()


def prepared(name: str, **options: object) -> Source:
    source = build_source(name, **options)
    source.prepare()
    return source


def test_unpaired(tmp_path: Path) -> None:
    source = prepared("unpaired", root=str(unpaired(tmp_path)))
    assert source.domains == source.labels == ("A", "B")
    assert source.counts() == {"train": {"A": 3, "B": 2}, "test": {"A": 1, "B": 2}}
    assert [grey(source, s, d) for s in ("train", "test") for d in "AB"] == [
        [1, 2, 3], [4, 5], [6], [7, 8],
    ]  # fmt: skip
    only = prepared("unpaired", root=str(tmp_path), domains=["horse", "zebra"], only="zebra")
    assert only.domains == ("zebra",)
    assert grey(only, "train", "zebra") == [4, 5]


def test_a_test_split_called_val_and_none_at_all(tmp_path: Path) -> None:
    unpaired(tmp_path)
    for side in "AB":
        (tmp_path / f"test{side}").rename(tmp_path / f"val{side}")
    assert grey(prepared("unpaired", root=str(tmp_path)), "test", "B") == [7, 8]
    for side in "AB":
        (tmp_path / f"val{side}").rename(tmp_path / f"unused{side}")
    source = prepared("unpaired", root=str(tmp_path))
    assert source.counts() == {"train": {"A": 2, "B": 1}, "test": {"A": 1, "B": 1}}
    assert sorted(grey(source, "train", "A") + grey(source, "test", "A")) == [1, 2, 3]
    assert "held out" in source.notes[0]


def test_folders_nested_with_spaces_and_unicode(tmp_path: Path) -> None:
    tree = {
        "train/ä b/x y.PNG": 1,
        "train/ä b/deep er/ü.jpeg": 2,
        "train/c/1.png": 3,
        "train/c/._1.png": 99,
        "train/.hidden/1.png": 99,
        "val/ä b/1.png": 4,
        "val/c/1.png": 5,
    }
    (write(tmp_path, tree) / "train/c/notes.txt").write_text("no picture")
    source = prepared("folders", root=str(tmp_path))
    assert source.domains == ("c", "ä b")
    assert grey(source, "train", "ä b") == [2, 1]
    assert grey(source, "train", "c") == [3]
    assert grey(source, "test", "ä b") == [4]
    chosen = prepared("folders", root=str(tmp_path), domains=["ä b"])
    assert chosen.domains == ("ä b",)
    with pytest.raises(UserError, match=r"no folder 'd'; found: c/, ä b/"):
        prepared("folders", root=str(tmp_path), domains=["d"])


def test_the_held_out_split_is_seeded_disjoint_and_stable(tmp_path: Path) -> None:
    write(tmp_path, {f"{d}/{i:03d}.png": i for d in "ab" for i in range(40)})

    def test_split(**options: object) -> list[int]:
        source = prepared("folders", root=str(tmp_path), **options)
        train, test = grey(source, "train", "a"), grey(source, "test", "a")
        assert sorted(train + test) == sorted(range(40 if not added else 41))
        return test

    added = False
    first = test_split()
    assert len(first) == 4
    assert test_split() == first
    assert test_split(split_seed=1) != first
    assert len(test_split(test_fraction=0.25)) == 10
    write(tmp_path, {"a/zzz.png": 40})
    added = True
    assert len(set(test_split()) - set(first)) <= 1  # a new file displaces one at most


def test_a_flat_folder_is_one_domain(tmp_path: Path) -> None:
    source = prepared("folders", root=str(write(tmp_path / "faces", {"1.png": 1, "2.png": 2})))
    assert source.domains == ("faces",)


def test_pairs_side_by_side(tmp_path: Path) -> None:
    for split, n in (("train", 3), ("test", 2), ("val", 1)):
        for i in range(n):
            array = np.full((4, 8), 10 * i + 1, np.uint8)
            array[:, 4:] += 100
            (tmp_path / split).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / split / f"{i}.png")
    source = prepared("paired", root=str(tmp_path), domains=["photo", "label"])
    assert source.paired
    assert grey(source, "train", "photo") == [1, 11, 21]
    assert grey(source, "train", "label") == [101, 111, 121]
    data = DataModule(source, Needs("paired", 2), size=4, batch=3, seed=0, channels=1)
    left, right = (x[:, 0, 0, 0].int() for x in data.train_batch(0).images)
    assert (right - left).tolist() == [100] * 3
    truth = data.truth("photo", "label")
    assert truth is not None
    assert truth[:, 0, 0, 0].tolist() == [101, 111]
    halves = prepared("paired", root=str(tmp_path), domains=["photo", "label"], halves=True)
    assert grey(halves, "train", "photo") == [1]
    assert grey(halves, "train", "label") == [111, 121]
    assert grey(halves, "test", "label") == [101, 111]
    assert not halves.paired
    assert halves.aligned
    assert halves.digest() != source.digest()


def test_pairs_in_two_folders_match_by_name_not_by_suffix_or_unicode_form(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "ü")
    tree = {"trainA/ü.jpg": 1, "trainA/b.jpg": 2, f"trainB/{decomposed}.png": 101}
    write(tmp_path, tree | {"trainB/b.png": 102})
    write(tmp_path, {f"train{s}/c{i}.png": 3 + i + 100 * (s == "B")
                     for s in "AB" for i in range(18)})  # fmt: skip
    source = prepared("paired", root=str(tmp_path))
    assert source.counts()["test"] == {"A": 2, "B": 2}
    for split in ("train", "test"):
        a, b = (grey(source, split, d) for d in "AB")
        assert [y - x for x, y in zip(a, b, strict=True)] == [100] * len(a)
    (tmp_path / "trainB/b.png").unlink()
    with pytest.raises(UserError, match=r"'b' of .*trainA' has no partner in .*trainB' \(1 "):
        prepared("paired", root=str(tmp_path))


def test_pairs_in_named_folders(tmp_path: Path) -> None:
    write(tmp_path, {f"{d}/{i}.png": i + 50 * (d == "mask") for d in ("mask", "photo", "x")
                     for i in range(4)})  # fmt: skip
    source = prepared("paired", root=str(tmp_path), domains=["photo", "mask"], test_fraction=0.5)
    a, b = (grey(source, "test", d) for d in ("photo", "mask"))
    assert [x + 50 for x in a] == b
    with pytest.raises(UserError, match="3 folders"):
        prepared("paired", root=str(tmp_path))


def test_labelled(tmp_path: Path) -> None:
    write(tmp_path, {f"{s}/{c}/{i}.png": 10 * k + i for s in ("train", "test")
                     for k, c in enumerate(("cat", "dog", "owl")) for i in range(2)})  # fmt: skip
    source = prepared("labelled", root=str(tmp_path), classes=["owl", "cat"])
    assert source.labels == ("owl", "cat")
    assert grey(source, "train", "pictures") == [20, 21, 0, 1]
    vectors = source.label_vectors("train", "pictures")
    assert vectors.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    data = DataModule(source, Needs("labelled"), size=4, batch=4, seed=0, channels=1)
    batch = data.train_batch(0)
    assert batch.labels is not None
    owls = batch.images[0][:, 0, 0, 0] >= 20
    assert owls.tolist() == (batch.labels[:, 0] == 1).tolist()


def attributes(root: Path) -> Path:
    write(root, {f"pics/{i}.png": i for i in range(6)})
    rows = [["image", "hat", "Smile", "split"]]
    rows += [[f"{i}.png", str(i % 2), "-1" if i < 3 else "1", "test" if i > 3 else "train"]
             for i in range(6)]  # fmt: skip
    with open(root / "table.csv", "w", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    return root


def test_attributes(tmp_path: Path) -> None:
    source = prepared("attributes", root=str(attributes(tmp_path)))
    assert source.labels == ("hat", "Smile")
    assert grey(source, "train", "pictures") == [0, 1, 2, 3]
    vectors = source.label_vectors("train", "pictures")
    assert vectors.tolist() == [[0, 0], [1, 0], [0, 0], [1, 1]]
    chosen = prepared("attributes", root=str(tmp_path), attributes=["Smile"])
    assert chosen.label_vectors("test", "pictures").tolist() == [[1], [1]]
    assert chosen.digest() != source.digest()


def test_celeba_as_published(tmp_path: Path) -> None:
    tree = {f"img_align_celeba/{i:06d}.jpg": i for i in range(1, 7)}
    write(tmp_path, tree, size=(178, 218))
    names = ["Bald", "Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young"]
    lines = ["6", " ".join(names)]
    for i in range(1, 7):
        values = [1 if i % (k + 2) == 0 else -1 for k in range(6)]
        lines.append(f"{i:06d}.jpg  " + "  ".join(map(str, values)))
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    parts = [0, 0, 0, 1, 2, 2]
    (tmp_path / "list_eval_partition.txt").write_text(
        "".join(f"{i:06d}.jpg {p}\n" for i, p in enumerate(parts, 1))
    )
    source = prepared("celeba", root=str(tmp_path))
    assert grey(source, "train", "pictures") == [1, 2, 3]
    assert grey(source, "test", "pictures") == [5, 6]
    assert source.labels == tuple(names[1:])
    assert source.label_vectors("train", "pictures")[2].tolist() == [1, 0, 0, 0, 0]
    picture = source.pictures["train"]["pictures"][0]
    assert picture.read(3).shape == (178, 178, 3)
    (tmp_path / "list_eval_partition.txt").unlink()
    assert prepared("celeba", root=str(tmp_path)).counts()["test"] == {"pictures": 1}


def test_stargans_split_of_celeba() -> None:
    """The authors' loader: seed 1234, the rows shuffled in place, the first 1,999 are for testing
    ("(i + 1) < 2000"); checked with Python's global generator, as there."""
    files = [f"{i:06d}.jpg" for i in range(1, 2501)]
    lines = list(files)
    state = random.getstate()
    random.seed(1234)
    random.shuffle(lines)
    random.setstate(state)
    expected = {line: "test" if (i + 1) < 2000 else "train" for i, line in enumerate(lines)}
    source = build_source("celeba", split="stargan")
    assert isinstance(source, CelebA)
    found = source._splits(Table(Path("table"), files, {}))
    assert found == expected
    assert sum(split == "test" for split in found.values()) == 1999
    assert random.getstate() == state


def test_the_centre_is_cropped(tmp_path: Path) -> None:
    array = np.zeros((6, 4), np.uint8)
    array[1:5] = 9
    Image.fromarray(array).save(tmp_path / "a.png")
    assert (FilePicture(tmp_path / "a.png", "a", crop=4).read(1) == 9).all()


def idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_mnist_files(tmp_path: Path) -> None:
    pictures = np.arange(40, dtype=np.uint8).repeat(28 * 28).reshape(40, 28, 28)
    labels = np.arange(40, dtype=np.uint8) % 10
    idx(tmp_path / "t10k-images-idx3-ubyte.gz", pictures)
    idx(tmp_path / "t10k-labels-idx1-ubyte.gz", labels)
    alone = prepared("mnist", root=str(tmp_path))
    assert alone.counts() == {"train": {"mnist": 30}, "test": {"mnist": 10}}
    assert "only the test files" in alone.notes[0]
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    idx(tmp_path / "MNIST/raw/train-images-idx3-ubyte.gz", pictures[:20] + 100)
    idx(tmp_path / "MNIST/raw/train-labels-idx1-ubyte.gz", labels[:20])
    both = prepared("mnist", root=str(tmp_path))
    by_class = [100 + i + k for i in range(10) for k in (0, 10)]
    assert grey(both, "train", "mnist") == by_class
    assert both.label_vectors("train", "mnist").argmax(1).tolist() == sorted([*range(10)] * 2)
    two = prepared("mnist", root=str(tmp_path), domains=["8", "3"])
    assert grey(two, "train", "8") == [108, 118]
    assert DataModule(both, Needs("single"), size=28, batch=1, seed=0).spec.channels == 1
    first = prepared("mnist", root=str(tmp_path), train=13)  # of the file, before the classes
    assert grey(first, "train", "mnist") == [v for v in by_class if v < 113]
    assert first.counts()["test"] == both.counts()["test"]
    assert first.digest() != both.digest()
    for wrong in (0, 21):
        with pytest.raises(UserError, match=f"data.train is {wrong}, but .* has 20 pictures"):
            prepared("mnist", root=str(tmp_path), train=wrong)
    content = (tmp_path / "t10k-images-idx3-ubyte.gz").read_bytes()
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(content[:50])
    with pytest.raises(UserError, match="damaged or cut short"):
        prepared("mnist", root=str(tmp_path))


def test_class_folders_of_the_small_sets(tmp_path: Path) -> None:
    write(tmp_path, {f"{s}/{c}/0.png": c for s in ("train", "test") for c in range(10)})
    source = prepared("fashion_mnist", root=str(tmp_path), domains=["ankle-boot", "t-shirt"])
    assert grey(source, "train", "ankle-boot") == [9]
    with pytest.raises(UserError, match="no class 'boot'"):
        build_source("cifar10", domains=["boot"])


# --- broken trees: one sentence each, all different ----------------------------------------------


def break_missing(root: Path) -> Source:
    return build_source("unpaired", root=str(root / "absent"))


def break_empty(root: Path) -> Source:
    for path in (unpaired(root) / "trainA").iterdir():
        path.unlink()
    return build_source("unpaired", root=str(root))


def break_one_domain(root: Path) -> Source:
    return build_source("folders", root=str(write(root, {"horse/1.png": 1, "horse/2.png": 2})))


def break_no_b(root: Path) -> Source:
    (unpaired(root) / "trainB").rename(root / "train_B")
    return build_source("unpaired", root=str(root))


def break_zero_bytes(root: Path) -> Source:
    (unpaired(root) / "trainA/0.jpg").write_bytes(b"")
    (root / "trainA/1.jpg").write_bytes(b"")
    return build_source("unpaired", root=str(root))


def break_truncated(root: Path) -> Source:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = unpaired(root) / "testB/0.jpg"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:999])
    return build_source("unpaired", root=str(root))


def break_text(root: Path) -> Source:
    (unpaired(root) / "trainA/0.jpg").write_text("404")
    return build_source("unpaired", root=str(root))


def break_table_files(root: Path) -> Source:
    attributes(root)
    for i in (2, 4):
        (root / f"pics/{i}.png").unlink()
    return build_source("attributes", root=str(root))


def break_attribute(root: Path) -> Source:
    return build_source("attributes", root=str(attributes(root)), attributes=["Smiel"])


def break_value(root: Path) -> Source:
    table = attributes(root) / "table.csv"
    table.write_text(table.read_text().replace("0.png;0", "0.png;37"))
    return build_source("attributes", root=str(root))


BROKEN = {
    break_missing: r"'.*absent' does not exist; set data.root to a folder with trainA/ trainB/",
    break_empty: r"'.*trainA' holds no pictures; accepted are \.jpg",
    break_one_domain: r"needs 2 domains, data 'folders' at .* has 1 \(horse\)",
    break_no_b: r"it has 'trainA' but no 'trainB' \(found: testA/, testB/, trainA/, train_B/\)",
    break_zero_bytes: r"trainA/0.jpg' is empty \(0 bytes\).* \(1 other",
    break_truncated: r"testB/0.jpg' is damaged or cut short",
    break_text: r"trainA/0.jpg' is not a picture",
    break_table_files: r"table.csv' names 2 files that are not below '.*', the first is '2.png'",
    break_attribute: r"no attribute 'Smiel'; did you mean 'Smile'\?; it has hat, Smile",
    break_value: r"'37' in column 'hat' for '0.png'",
}


@pytest.mark.parametrize("breaker", BROKEN, ids=lambda f: f.__name__)
def test_broken_trees(tmp_path: Path, breaker: object) -> None:
    assert callable(breaker)
    source = breaker(tmp_path)
    view = Needs("labelled") if source.name == "attributes" else Needs("unpaired", domains=2)
    cache = tmp_path / "cache"
    with pytest.raises(UserError, match=BROKEN[breaker]) as caught:
        DataModule(source, view, size=4, batch=1, seed=0, cache=cache).setup()
    assert "\n" not in str(caught.value)
    left = sorted(p.name for p in cache.rglob("*")) if cache.exists() else []
    assert not [name for name in left if "building" in name or name.endswith(".lock")]


def test_bad_options() -> None:
    for options, text in (
        ({"domains": ["a"]}, "names 1 domains"),
        ({"domains": ["a", "a"]}, "twice"),
        ({"only": "c"}, "data.only"),
        ({"test_fraction": 1.5}, "between 0 and 1"),
    ):
        with pytest.raises(UserError, match=text):
            build_source("unpaired", root="x", **options)


def test_unknown_data_names_the_nearest() -> None:
    with pytest.raises(UserError, match="'horse2zebre'; did you mean 'horse2zebra'"):
        build_source("horse2zebre")


def test_every_source_is_described_in_one_line() -> None:
    described = dict(describe_sources())
    assert set(described) == set(SOURCES)
    assert len(SOURCES) == 21
    assert all(text and "\n" not in text for text in described.values())
    assert all(name == source.name for name, source in SOURCES.items())


# --- digest and cache ----------------------------------------------------------------------------


def test_the_digest_follows_the_files_not_their_place(tmp_path: Path) -> None:
    one = prepared("unpaired", root=str(unpaired(tmp_path / "one")))
    two = prepared("unpaired", root=str(unpaired(tmp_path / "two")))
    assert one.digest() == two.digest()
    Image.new("L", (4, 4), 250).save(tmp_path / "two/trainA/0.jpg", format="PNG")
    assert prepared("unpaired", root=str(tmp_path / "two")).digest() != one.digest()
    (tmp_path / "one/testB/0.jpg").rename(tmp_path / "one/testB/00.jpg")
    assert prepared("unpaired", root=str(tmp_path / "one")).digest() != one.digest()


def test_the_cache_equals_memory_and_notices_change(tmp_path: Path) -> None:
    unpaired(tmp_path / "data")
    cache = tmp_path / "cache"
    source = prepared("unpaired", root=str(tmp_path / "data"))
    plain = source.load("train", "A", 8, 3)
    assert np.array_equal(source.load("train", "A", 8, 3, cache), plain)
    files = list(cache.iterdir())
    assert len(files) == 1
    again = source.load("train", "A", 8, 3, cache)
    assert isinstance(again, np.memmap)
    assert np.array_equal(again, plain)
    for size, channels in ((4, 3), (8, 1)):
        assert source.load("train", "A", size, channels, cache).shape[1:3] == (channels, size)
    Image.new("L", (5, 4), 250).save(tmp_path / "data/trainA/0.jpg", format="PNG")
    changed = prepared("unpaired", root=str(tmp_path / "data")).load("train", "A", 8, 3, cache)
    assert changed[0, 0, 0, 0] == 250
    assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("damage", ["short", "a bit", "its digest", "another's", "nothing"])
def test_a_damaged_cache_file_is_made_anew(tmp_path: Path, damage: str, capsys: Any) -> None:
    source = prepared("unpaired", root=str(unpaired(tmp_path / "data")))
    plain = source.load("train", "A", 8, 3)
    source.load("train", "A", 8, 3, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    whole = bytearray(file.read_bytes())
    if damage == "short":
        del whole[-100:]
    elif damage == "another's":  # of the same shape, whole, under a wrong name
        cached_array(tmp_path / "other", "x", plain.shape, lambda out: out.fill(9))
        whole = bytearray((tmp_path / "other/x.npy").read_bytes())
    elif damage != "nothing":
        whole[-100 if damage == "a bit" else -1] ^= 1
    file.write_bytes(whole)
    again = source.load("train", "A", 8, 3, tmp_path / "cache")
    assert isinstance(again, np.memmap)
    assert np.array_equal(again, plain)
    told = capsys.readouterr().err
    assert told == (
        "" if damage == "nothing" else f"the picture cache '{file}' is damaged: made again\n"
    )
    source.load("train", "A", 8, 3, tmp_path / "cache")
    assert capsys.readouterr().err == ""


def test_an_unwritable_cache_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file' cannot be written .*GANSUITE_CACHE"):
        cached_array(tmp_path / "file", "x", (1, 1), lambda out: None)


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match=r"\(No space left on device\); it needs 1 MB") as told:
        cached_array(tmp_path / "c", "x", (1000, 1000), lambda out: out.fill(1))
    assert "\n" not in str(told.value)
    assert not list((tmp_path / "c").iterdir())


def _mapping(array: np.ndarray) -> dict[str, str]:
    """What the system says of the memory that ``array`` lies in; ``file``: what stands behind."""
    found: dict[str, str] = {}
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            start, end = (int(x, 16) for x in words[0].split("-"))
            here = start <= array.ctypes.data < end
            if here:
                found["file"] = words[-1]
        elif here:
            found[words[0]] = words[1]
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
def test_pictures_at_rest_are_the_systems_memory_and_not_the_processs(tmp_path: Path) -> None:
    """All pictures are drawn, and none is in memory of the process's own; they are the same through
    a loader's worker, when the file is replaced, and when it is gone."""
    shape, folder = (400, 3, 64, 64), tmp_path / "cache"

    def fill(out: np.ndarray) -> None:
        out.reshape(400, -1)[:] = np.arange(400).astype(np.uint8)[:, None]

    cached_array(folder, "x", shape, fill)
    folder.chmod(0o555)  # it is only read from now on
    pictures = pickle.loads(pickle.dumps(Pictures(cached_array(folder, "x", shape, fill))))
    stream = Stream([pictures], size=64, flip=True, seed=0, stream=0)

    def drawn(i: int) -> int:
        return int(stream.gather(range(i, i + 50)).sum(dtype=torch.int64))

    sums = [drawn(i) for i in range(0, 400, 50)]
    assert sum(sums) == 3 * 64 * 64 * sum(i % 256 for i in range(400))
    there = _mapping(pictures.array)
    assert there["file"] == str(folder / "x.npy")
    assert there["Anonymous:"] == "0"
    assert int(there["Rss:"]) * 1024 >= pictures.array.nbytes
    folder.chmod(0o755)
    file = folder / "x.npy"
    (tmp_path / "other.npy").write_bytes(file.read_bytes())
    os.replace(tmp_path / "other.npy", file)
    assert drawn(0) == sums[0]
    file.unlink()
    assert drawn(0) == sums[0]
    stream = pickle.loads(pickle.dumps(stream))
    assert drawn(0) == sums[0]


def test_a_data_module_holds_no_pictures(tmp_path: Path) -> None:
    found = DataModule.of(
        "coats", size=32, batch=4, cache=tmp_path, train=8, test=4, method=CycleGAN
    )
    found.setup()
    assert len(found._arrays) == 4
    files = {Path(getattr(x, "filename", "")) for x in found._arrays.values()}
    assert files == set(tmp_path.glob("*.npy"))
    assert all(isinstance(x, np.memmap) and x.mode == "r" for x in found._arrays.values())
    assert found._train_view().domains[0].array is found._arrays["train", "horse", 32, "bicubic"]


def _build(folder: str, log: str) -> None:
    def fill(out: np.ndarray) -> None:
        with open(log, "a") as file:
            file.write("filled\n")
        time.sleep(0.3)  # the others arrive meanwhile
        out[:] = np.arange(1000, dtype=np.uint8)

    array = cached_array(Path(folder), "x", (1000, 1000), fill)
    assert (array == np.arange(1000, dtype=np.uint8)).all()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_two_processes_build_one_cache(tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_build, args=(str(tmp_path / "c"), str(log))) for _ in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 4
    assert log.read_text() == "filled\n"
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["x.npy"]


# --- links, pipes, names -------------------------------------------------------------------------


def pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (pipe, "is a pipe or a device"),
        (lambda path: path.symlink_to("/dev/zero"), "is a pipe or a device"),
        (lambda path: path.symlink_to("nowhere"), "is a link to nothing"),
        (lambda path: path.symlink_to(path.name), "cannot be read .Too many levels of symbolic"),
    ],
    ids=["pipe", "device", "dangling", "to itself"],
)
def test_what_is_no_file_is_not_opened(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    make(unpaired(tmp_path) / "trainA/z.png")
    with pytest.raises(UserError, match=f"trainA/z.png' {reason}.*; remove it"):
        prepared("unpaired", root=str(tmp_path))
    with pytest.raises(UserError, match=f"trainA/z.png' {reason}"):
        read_image(tmp_path / "trainA/z.png")


def test_links_are_followed_inside_the_data_and_once(tmp_path: Path) -> None:
    root = unpaired(tmp_path / "data")  # trainA 1 2 3, trainB 4 5, testA 6, testB 7 8
    write(root, {"more/a.png": 20, "more/deep/b.png": 21, "trainA/own/c.png": 22})
    write(tmp_path / "outside", {"d.png": 30})
    plain = ["0.jpg", "1.jpg", "2.jpg", "own/c.png"]
    for link, target in (
        ("trainA/up", ".."),
        ("trainA/here", "."),
        ("trainA/own/up", "../.."),
        ("trainA/test", "../testA"),
        ("trainA/one.png", "../testB/0.jpg"),
        ("trainA/again", "own"),
        ("trainA/again.png", "0.jpg"),
        ("trainA/out", "../../outside"),
        ("trainA/out.png", "../../outside/d.png"),
        ("trainA/nowhere", "nothing"),
        ("trainA/circle", "circle"),
    ):
        (root / link).symlink_to(target)
    source = prepared("unpaired", root=str(root))
    assert [p.name for p in source.pictures["train"]["A"]] == [f"trainA/{n}" for n in plain]
    assert source.counts()["test"] == {"A": 1, "B": 2}
    assert source.notes == [
        f"9 link(s) in '{root}/trainA' not followed: they lead out of the data folder, back, or to "
        "what is counted already"
    ]
    assert "9 link(s)" in check_data(build_source("unpaired", root=str(root))).render()
    (root / "trainA/more").symlink_to("../more")  # in the data, and of no other domain
    (root / "trainA/twice").symlink_to("../more/deep")
    source = prepared("unpaired", root=str(root))
    assert grey(source, "train", "A") == [1, 2, 3, 20, 21, 22]


def test_a_folder_of_the_layout_may_lie_elsewhere(tmp_path: Path) -> None:
    root = unpaired(tmp_path / "data")
    (root / "trainA").rename(tmp_path / "far")
    (root / "trainA").symlink_to("../far")
    assert grey(prepared("unpaired", root=str(root)), "train", "A") == [1, 2, 3]
    (tmp_path / "short").symlink_to(root)
    assert grey(prepared("unpaired", root=str(tmp_path / "short")), "train", "A") == [1, 2, 3]


def test_a_folder_that_leads_back_is_no_domain(tmp_path: Path) -> None:
    write(tmp_path, {f"{d}/{i}.png": i for d in "ab" for i in range(3)})
    (tmp_path / "c").symlink_to(".")
    assert prepared("folders", root=str(tmp_path)).domains == ("a", "b")


def test_folders_may_be_deep_and_unreadable_ones_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = unpaired(tmp_path)
    scandir = os.scandir

    def locked(path: Any) -> Any:
        if str(path).endswith("trainB"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(UserError, match=r"trainB' cannot be read \(Permission denied\)"):
        prepared("unpaired", root=str(root))


def test_a_file_that_vanishes_meanwhile_is_one_sentence(tmp_path: Path) -> None:
    source = prepared("unpaired", root=str(unpaired(tmp_path)))
    (tmp_path / "trainA/0.jpg").unlink()
    for call in (source.digest, lambda: source.load("train", "A", 4, 3, tmp_path / "cache")):
        with pytest.raises(UserError, match=r"trainA/0.jpg' cannot be read \(No such file"):
            call()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    root = write(tmp_path / "data", {f"{d}/{i}.png": i for d in "ab" for i in range(5)})
    plain = prepared("folders", root=str(root)).digest()
    os.rename(root / "a/3.png", os.fsencode(root) + b"/a/3\xff.png")
    source = prepared("folders", root=str(root))
    assert source.digest() != plain
    assert sorted(grey(source, "train", "a") + grey(source, "test", "a")) == [0, 1, 2, 3, 4]
    Path(os.fsdecode(os.fsencode(root) + b"/a/3\xff.png")).write_text("404")
    assert "a/3\\udcff.png" in check_data(prepared("folders", root=str(root))).render()
    os.rename(root / "b", os.fsencode(root) + b"/\xe4")
    with pytest.raises(UserError, match=r"named '\\udce4', which is not UTF-8; rename it"):
        prepared("folders", root=str(root))


def test_a_root_that_is_no_path() -> None:
    for root, reason in (("~nouser/x", "no such home"), ("a\0b", "null byte"), ("x" * 300, "long")):
        with pytest.raises(UserError, match=f"'data.root' is .*{reason}"):
            build_source("unpaired", root=root)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (b"file\n0.png\n", "has one column"),
        (b"file,a\n" + b"x" * 200_000 + b",1\n", "is no CSV file .field larger than field limit"),
        (b"file,a\n", "has no rows"),
        (b"5\na b\n", "has no rows"),
        (b"file,a,a\n0.png,1,0\n", "has two columns named 'a'"),
        (b"file,a\n0.png," + b"2" * 100_000 + b"\n", "has '2{80}' in column 'a'"),
        (b"file,a\n" + b"x" * 100_000 + b"\n", r"row 1 \('x{80}'\) has 1 entries"),
        (b"\xff\xfe", "cannot be read"),
        (b"", "is empty"),
    ],
)
def test_broken_tables(tmp_path: Path, table: bytes, reason: str) -> None:
    (write(tmp_path, {"0.png": 0}) / "table.csv").write_bytes(table)
    with pytest.raises(UserError, match=f"table.csv':? ?{reason}"):
        prepared("attributes", root=str(tmp_path))


def test_a_pipe_for_a_table_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(write(tmp_path, {"0.png": 0}) / "table.csv")
    with pytest.raises(UserError, match=r"table.csv' is a pipe or a device"):
        prepared("attributes", root=str(tmp_path))


def test_digits_that_swell_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "_LARGEST", 1 << 16)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(1 << 20)))
    with pytest.raises(UserError, match=r"damaged or cut short .it holds more than 65536 bytes"):
        prepared("mnist", root=str(tmp_path))


def test_one_test_picture_is_too_few(tmp_path: Path) -> None:
    root = str(unpaired(tmp_path))  # testA has one
    data = DataModule(
        build_source("unpaired", root=root), Needs("unpaired"), size=4, batch=1, seed=0
    )
    with pytest.raises(UserError, match="has 1 test picture of A; scores need at least 2"):
        data.setup()
    pooled = build_source("unpaired", root=root)
    DataModule(pooled, Needs("single"), size=4, batch=1, seed=0).setup()  # three together
