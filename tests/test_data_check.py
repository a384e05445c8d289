"""``check-data`` on trees whose faults are known."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gansuite import catalogue, engine
from gansuite.data import build_source
from gansuite.data.check import check_data
from gansuite.data.images import read_image
from gansuite.errors import UserError
from gansuite.imaging import files_below, quiet_pillow


def picture(path: Path, seed: int, size: int = 8, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


def tree(root: Path) -> None:
    for k, folder in enumerate(("trainA", "trainB", "testA", "testB")):
        for i in range(3):
            picture(root / folder / f"{i}.png", 10 * k + i)


def test_a_good_tree(tmp_path: Path) -> None:
    tree(tmp_path)
    report = check_data(build_source("unpaired", root=str(tmp_path)))
    assert report.ok
    assert report.counts == {"train": {"A": 3, "B": 3}, "test": {"A": 3, "B": 3}}
    assert dict(report.sizes) == {(8, 8): 12}
    assert not report.duplicates
    assert not report.leaks
    text = report.render()
    assert "expected: trainA/ trainB/ testA/ testB/" in text
    assert "trainA/  3 pictures" in text
    assert text.endswith("ok")


def test_faults_are_listed_not_raised(tmp_path: Path) -> None:
    tree(tmp_path)
    picture(tmp_path / "trainA/grey.png", 50, size=16, mode="L")
    picture(tmp_path / "trainA/twin.png", 0)  # equals trainA/0.png
    picture(tmp_path / "testB/leak.png", 10)  # equals trainB/0.png
    (tmp_path / "trainB/empty.jpg").touch()
    (tmp_path / "testA/readme.txt").write_text("x")
    report = check_data(build_source("unpaired", root=str(tmp_path)))
    assert not report.ok
    assert dict(report.sizes) == {(8, 8): 14, (16, 16): 1}
    assert dict(report.modes) == {"RGB": 14, "L": 1}
    assert report.duplicates == [["trainA/0.png", "trainA/twin.png"]]
    assert report.leaks == [["trainB/0.png", "testB/leak.png"]]
    assert len(report.unreadable) == 1
    text = report.render()
    for part in ("trainB/empty.jpg' is empty", "duplicates across train and test: 1",
                 "testA/  3 pictures, 1 other files", "NOT USABLE"):  # fmt: skip
        assert part in text


def test_pictures_that_are_not_used_are_counted(tmp_path: Path) -> None:
    tree(tmp_path)
    picture(tmp_path / "valA/0.png", 99)
    report = check_data(build_source("unpaired", root=str(tmp_path)))
    assert report.ok
    assert any("1 pictures are in folders" in note for note in report.notes)


def test_a_wrong_layout_is_still_examined(tmp_path: Path) -> None:
    picture(tmp_path / "horses/1.png", 1)
    report = check_data(build_source("unpaired", root=str(tmp_path)))
    assert not report.ok
    assert "no 'trainA'" in report.problems[0]
    assert dict(report.sizes) == {(8, 8): 1}
    assert ("horses", 1, 0) in report.folders


def test_registry_sets_are_compared_with_the_published_counts(tmp_path: Path) -> None:
    tree(tmp_path)
    report = check_data(build_source("horse2zebra", root=str(tmp_path)))
    assert report.ok
    assert "horse 3 (published: 1067)" in report.render()
    assert any("published" in note for note in report.notes)


def test_drawn_and_missing_data(tmp_path: Path) -> None:
    assert check_data(build_source("coats")).ok
    missing = check_data(build_source("unpaired", root=str(tmp_path / "absent")))
    assert not missing.ok
    assert "does not exist" in missing.render()


def test_the_sets_of_a_joint_one_are_examined_each(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "elsewhere.png", 7)  # of no set, though in the working directory
    for k, name in enumerate(("red", "blue")):
        for i in range(3):
            for j, split in enumerate(("train", "test")):
                picture(tmp_path / "mine" / split / name / f"{i}.png", 100 * k + 10 * j + i)
    sets = {
        "drawn": {"name": "coats", "train": 4, "test": 2},
        "own": {"name": "folders", "root": "mine"},
    }
    report = check_data(build_source("joint", sets=sets))
    assert report.ok
    assert report.counts["train"] == {"horse": 4, "zebra": 4, "blue": 3, "red": 3}
    assert dict(report.sizes) == {(8, 8): 12}
    assert ("own: train/red", 3, 0) in report.folders
    assert not any("not use" in note for note in report.notes)
    picture(tmp_path / "mine/test/red/leak.png", 0)
    (tmp_path / "mine/train/blue/1.png").write_bytes(b"\x89PNG")
    report = check_data(build_source("joint", sets=sets))
    assert not report.ok
    assert report.leaks == [["own: train/red/0.png", "own: test/red/leak.png"]]
    assert len(report.unreadable) == 1
    assert report.unreadable[0].startswith("own: ")
    sets["own"]["root"] = "absent"
    report = check_data(build_source("joint", sets=sets))
    assert report.render().endswith("NOT USABLE")
    assert [text[:5] for text in report.problems] == ["own: "]


def test_a_link_out_of_the_data_is_not_searched(tmp_path: Path) -> None:
    tree(tmp_path / "set")
    picture(tmp_path / "elsewhere/x.png", 7)
    (tmp_path / "set/more").symlink_to(tmp_path)
    (tmp_path / "set/testB/x.PNG").symlink_to("..")
    (tmp_path / "set/trainA").rename(tmp_path / "A")
    (tmp_path / "set/trainA").symlink_to(tmp_path / "A")  # the pictures are behind this one
    report = check_data(build_source("unpaired", root=str(tmp_path / "set")))
    assert report.ok
    found = [(folder, n) for folder, n, _ in report.folders]
    assert found == [(folder, 3) for folder in ("testA", "testB", "trainA", "trainB")]


def test_folders_deeper_than_the_stack(tmp_path: Path) -> None:
    tree(tmp_path)
    deepest = tmp_path / "trainA"
    made = []
    for _ in range(1500):
        deepest /= "d"
        deepest.mkdir()
        made.append(deepest)
    try:
        report = check_data(build_source("unpaired", root=str(tmp_path)))
        assert report.ok
        assert len(files_below(tmp_path)) == 12
    finally:
        for folder in reversed(made):  # what removes the rest would recurse
            folder.rmdir()


def test_what_training_refuses_is_not_usable(tmp_path: Path) -> None:
    tree(tmp_path)
    for name in ("1.png", "2.png"):
        (tmp_path / "testA" / name).unlink()
    e = catalogue.load_experiment(
        "cyclegan_coats",
        ["data={name: unpaired, root: %s}" % tmp_path],  # noqa: UP031
    )
    report = engine.check_data(e)
    assert report.render().endswith("NOT USABLE")
    assert "has 1 test picture of A; scores need at least 2" in report.problems[0]


def test_pillow_says_nothing_of_odd_tags(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    Image.new("RGB", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    content[14:18] = (1 << 20).to_bytes(4, "little")  # the count of the first tag's values
    path.write_bytes(content)
    for quiet in (False, True):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            if quiet:
                quiet_pillow()
            with pytest.raises(UserError, match=r"x\.tif' is"):
                read_image(path)
        assert bool(told) != quiet
