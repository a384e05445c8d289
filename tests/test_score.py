"""Outside entrants: names matched, everything checked, scored as a run would be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gansuite import catalogue, cli, engine
from gansuite.compare.collect import gather
from gansuite.compare.entry import find_entries
from gansuite.config import Evaluate
from gansuite.errors import UserError
from gansuite.evaluation import Comparison, Protocol, extractor_of
from gansuite.evaluation.score import score
from gansuite.tools.score import export_test, picture_names, score_folder

DATA = ["cyclegan_coats", "data.train=8", "data.test=6", "evaluate.pictures=6"]


@pytest.fixture
def inputs(here: Path) -> Path:
    assert export_test(DATA, here / "inputs") == {"horse": 6, "zebra": 6}
    return here / "inputs"


def entry(folder: Path, **options: Any) -> dict[str, Any]:
    place = score_folder(folder, DATA, "theirs", **options)
    content: dict[str, Any] = json.loads((place / "seed0/results.json").read_text())
    return content


def refusal(folder: Path, data: list[str] = DATA, name: str = "theirs", **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        score_folder(folder, data, name, **options)
    assert not Path("entries").exists()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_true_translation_is_perfect(inputs: Path) -> None:
    found = entry(inputs / "zebra", comparison="a2b", cost={"seconds": 5.0, "parameters": 12})
    assert found["outside"]
    assert found["final"]["a2b"]["l1"] == 0
    assert found["final"]["a2b"]["fd_random"] == pytest.approx(0, abs=1e-6)
    assert found["cost"] == {"seconds": 5.0, "parameters": {"all": 12}}
    assert found["references"]["do_nothing"]["a2b"]["correlation"] == pytest.approx(1)
    assert set(found["references"]["real_vs_real"]) == {"a2b"}
    assert Path("entries/theirs/seed0/samples/strip_a2b_fake.png").is_file()


def test_doing_nothing_scores_as_the_reference_row(inputs: Path) -> None:
    found = entry(inputs / "horse", comparison="a2b")
    reference = found["references"]["do_nothing"]["a2b"]
    assert {m: reference[m] for m in found["final"]["a2b"]} == found["final"]["a2b"]


def test_it_is_the_score_of_the_same_pictures(inputs: Path) -> None:
    e = catalogue.load_experiment(DATA[0], DATA[1:])
    data = engine.build_data(e)
    noise = torch.Generator().manual_seed(0)
    fake = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8, generator=noise)
    theirs = Path("made/b2a")
    theirs.mkdir(parents=True)
    for i, picture in enumerate(fake):  # any format that keeps the pixels
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(theirs / f"{i:06d}.BMP")
    (theirs / "notes.txt").write_text("not a picture")
    found = entry(Path("made"))
    extractor = extractor_of(Evaluate(), data)
    protocol = Protocol.of(extractor, size=32, channels=3, samples=6, weights="auto")
    real, source = data.pictures("test", "horse"), data.pictures("test", "zebra")
    c = Comparison("b2a", real, fake, source, truth=real, mask=data.masks("zebra"))
    assert found["final"] == {"b2a": score(c, protocol, extractor)}
    assert found["protocol"]["id"] == protocol.id
    assert found["data"]["digest"] == data.spec.digest


def test_generated_pictures_need_only_be_enough(inputs: Path) -> None:
    notes: list[str] = []
    for domain in ("horse", "zebra"):  # 12 are real, but 6 are scored
        for path in (inputs / domain).iterdir():
            path.rename(path.with_name(f"{domain}{path.name}"))
    found = entry(inputs, comparison="gen", note=notes.append)
    assert set(found["final"]) == {"gen"}
    assert "fd_random" in found["final"]["gen"]
    rows = {row: set(c) for row, c in found["references"].items()}
    assert rows == {"do_nothing": {"gen"}, "real_vs_real": {"gen"}, "blurred": {"gen"}}
    assert notes == ["the first 6 of 12 pictures in '" + str(inputs) + "' are scored, by name"]
    shutil.rmtree("entries")
    shutil.rmtree(inputs / "zebra")
    (inputs / "horse" / "horse000000.png").unlink()
    expected = f"'{inputs}' holds 5 pictures, the protocol scores 6; make 1 more."
    assert refusal(inputs, comparison="gen") == expected


def test_an_entry_must_cover_every_picture(inputs: Path) -> None:
    for i in (1, 2, 3, 5):
        (inputs / "zebra" / f"{i:06d}.png").unlink()
    assert refusal(inputs / "zebra", comparison="a2b") == (
        f"'{inputs / 'zebra'}' covers 2 of the 6 test pictures of horse (a2b); the first that is "
        f"missing is '000001', and an entry is scored on all of them or not at all."
    )


def test_what_is_refused(inputs: Path) -> None:
    zebra = inputs / "zebra"
    assert "have; did you mean 'a2b'? (a2b, b2a, gen)" not in refusal(zebra, comparison="c")
    assert "these data do not have" in refusal(zebra, comparison="a2c")
    assert "has no folder named a2b or b2a or gen" in refusal(inputs)
    assert "is no folder" in refusal(inputs / "nope", comparison="a2b")
    assert "--name is 'a/b'" in refusal(zebra, name="a/b", comparison="a2b")
    assert "There is no experiment 'cyclegan'" in refusal(zebra, ["cyclegan"], comparison="a2b")
    Image.fromarray(np.zeros((32, 64, 3), np.uint8)).save(zebra / "000004.png")
    assert "000004.png' is 64 x 32 pixels, the protocol has 32 x 32" in refusal(
        zebra, comparison="a2b"
    )
    (zebra / "000004.png").write_bytes(b"\x89PNG")
    assert "000004.png' is not a picture" in refusal(zebra, comparison="a2b")
    shutil.copy(zebra / "000003.png", zebra / "000004.jpg")
    assert "are both named 000004; keep one" in refusal(zebra, comparison="a2b")


def test_files_are_matched_by_name(here: Path) -> None:
    root = here / "photos"
    noise = np.random.default_rng(0)
    for side in "AB":
        for split, names in (("train", "uv"), ("test", ["b é", "a", "c"])):
            folder = root / f"{split}{side}"
            folder.mkdir(parents=True)
            for i, name in enumerate(names):
                array = noise.integers(256, size=(16, 16, 3)).astype(np.uint8)
                array[0, 0] = i
                Image.fromarray(array).save(folder / f"{name}.png")
    data = ["cyclegan_coats", "data.name=unpaired", f"data.root={root}", "data.size=16"]
    data += ["evaluate.pictures=3", "data.domains=[A,B]"]
    module = engine.build_data(catalogue.load_experiment(data[0], data[1:]))
    assert picture_names(module, "A", 3) == ["a", "b é", "c"]
    assert export_test(data, here / "out") == {"A": 3, "B": 3}
    # the first pixel says which it is: 'a' is the second that was written
    assert Image.open(here / "out/A/a.png").getpixel((0, 0)) == (1, 1, 1)
    decomposed = here / "out" / "A" / "b é.png"
    decomposed.rename(decomposed.with_name("b e\u0301.png"))
    place = score_folder(here / "out/A", data, "idle", comparison="a2b")
    found = json.loads((place / "seed0/results.json").read_text())
    assert found["final"]["a2b"]["correlation"] == pytest.approx(1)
    assert found["final"]["a2b"]["swd"] == found["references"]["do_nothing"]["a2b"]["swd"]


@pytest.mark.slow
def test_several_sources_have_a_folder_each(here: Path) -> None:
    data = ["stargan_coats", "data.train=8", "data.test=6", "evaluate.pictures=6"]
    export_test(data, here / "inputs")
    shutil.copytree(here / "inputs", here / "made")
    shutil.rmtree(here / "made" / "leopard")
    text = refusal(here / "made", data, comparison="to_horse")
    assert "covers 4 of the 6 test pictures of zebra and giraffe and leopard" in text
    assert "missing is 'leopard/000000'" in text
    notes: list[str] = []
    score_folder(here / "inputs", data, "x", comparison="to_horse", note=notes.append)
    assert notes == [f"18 picture(s) in '{here / 'inputs'}' match no test picture: left out"]


def test_through_the_command_line(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*arguments: str) -> None:
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments])
        assert ended.value.code == 0, capsys.readouterr()

    call("score", str(inputs / "zebra"), "--name", "theirs", "--comparison", "a2b",
         "--seconds", "9", "--data", *DATA)  # fmt: skip
    assert "Entry: entries/theirs" in capsys.readouterr().out
    call("export-test", "cyclegan_coats", "again", *DATA[1:])
    assert "6 picture(s) of horse" in capsys.readouterr().out
    call("compare", "entries/theirs", "name=c")
    assert "theirs (outside) †" in capsys.readouterr().out
    c = gather("x", Path(), find_entries(Path("entries/theirs")))
    assert c.of("theirs")[0].cost == {"seconds": 9.0}


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seconds", "-5"), ("--images-per-second", "nan"), ("--seconds", "inf"),
     ("--parameters", "-1"), ("--seed", "-2")],
)  # fmt: skip
def test_numbers_that_are_none_are_refused(
    option: str, value: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "made").mkdir()
    with pytest.raises(SystemExit) as ended:  # the overrides follow another option
        cli.main(["score", "made", "--name", "x", "--data", DATA[0], option, value, *DATA[1:]])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"gansuite: {option} is {value}")
    assert told.endswith("; it is a number from 0 up.\n")
