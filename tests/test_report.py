"""The page of one run, and the table at its end."""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import Page, check_self_contained
from PIL import Image

from gansuite.compare import report
from gansuite.compare.format import METRICS, duration, human
from gansuite.compare.report import scores_of, summary_table, write_report
from gansuite.errors import UserError
from gansuite.evaluation import verdict
from gansuite.evaluation.frechet import frechet_distance
from gansuite.imaging import grid, save_picture
from gansuite.rng import torch_generator

CONFIG = """\
name: cyclegan_toy
seed: 3
method: {name: cyclegan, blocks: 4, note: '<script>alert(1)</script>'}
data: {name: coats, size: 64, domains: [horse, zebra]}
budget: {kimg: 16}
"""
FINAL = {
    "a2b": {"fd_random": 12.25, "swd": 31.7, "psnr_mask": 19.83, "diversity": 0.91},
    "b2a": {"fd_random": 9.5, "swd": 28.1, "psnr_mask": 23.4, "diversity": 0.95},
}
RESULTS: dict[str, Any] = {
    "experiment": "cyclegan_toy",
    "seed": 3,
    "data": {"name": "coats", "digest": "ab12", "domains": ["horse", "zebra"]},
    "protocol": {"id": "9f3ac1", "version": 1, "pictures": 256},
    "budget": {"kimg": 16, "images_seen": 16000},
    "final": FINAL,
    "best": {"a2b": {**FINAL["a2b"], "fd_random": 11.125, "images_seen": 14000}},
    "references": {
        "do_nothing": {"a2b": {"fd_random": 52.25, "swd": 90.4}, "b2a": {"fd_random": 50.0}},
        "real_vs_real": {"a2b": {"fd_random": 2.25, "swd": 8.2}, "b2a": {"fd_random": 2.0}},
    },
    "cost": {
        "seconds": 288.4,
        "eval_seconds": 21.0,
        "evaluation_share": 0.068,
        "images_per_second": 55.48,
        "peak_memory_mb": 1432.0,
        "parameters": {"g": 1234567, "d": 694000},
        "flops_per_image": 2.17e9,
    },
    "verdict": "Still improving: a longer run would score better.",
}


def toy_pictures(n: int, position: int) -> torch.Tensor:
    """uint8 [n, 3, 32, 32]: discs on a slope, sharper the later in the run."""
    draw = torch_generator(0, "toy", position)
    line = torch.linspace(-1, 1, 32)
    y, x = torch.meshgrid(line, line, indexing="ij")
    centre, colour = torch.rand(n, 2, generator=draw) - 0.5, torch.rand(n, 3, generator=draw)
    inside = (x - centre[:, :1, None]) ** 2 + (y - centre[:, 1:, None]) ** 2 < 0.3
    image = torch.where(inside[:, None], colour[:, :, None, None], 0.5 + 0.3 * y)
    return (255 * (image + 0.05 * torch.rand(image.shape, generator=draw)).clamp(0, 1)).byte()


def make_run(folder: Path, *, finished: bool = True, grids: int = 5, losses: int = 400) -> Path:
    """A run directory as the engine leaves it."""
    run = folder / "cyclegan_toy" / "seed3"
    (run / "samples").mkdir(parents=True)
    (run / "config.yaml").write_text(CONFIG)
    (run / "environment.json").write_text(
        json.dumps(
            {"python": "3.11.2", "packages": {"torch": "2.6.0"}, "command": "gansuite train"}
        )
    )
    draw = torch_generator(0, "curves")
    metrics, timing = [], []
    for i in range(1, losses + 1):
        seen, noise = 16000 * i // losses, torch.rand(4, generator=draw).tolist()
        terms = {"loss/g/gan": 0.4 + 0.2 * noise[0], "loss/g/cycle": 0.5 / i + 0.1 * noise[1]}
        terms |= {"loss/d/gan": 0.25 + 0.1 * noise[2], "lr/g": 2e-4, "lr/d": 2e-4}
        metrics.append({"kind": "train", "images_seen": seen, "batches": seen // 8, **terms})
        clock = {"seconds": seen / 55.0, "eval_seconds": 0.0, "images_per_second": 55 + noise[3]}
        timing.append({"kind": "train", "images_seen": seen, **clock, "peak_memory_mb": 1432.0})
    for i in range(1, grids + 1):
        scores = {f"{c}/{m}": v * (1 + 3 / i) for c, row in FINAL.items() for m, v in row.items()}
        seen = 16000 * i // grids
        metrics.append({"kind": "eval", "images_seen": seen, **scores})
        timing.append({"kind": "eval", "images_seen": seen, "seconds": seen / 55.0})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    (run / "timing.jsonl").write_text("".join(json.dumps(line) + "\n" for line in timing))
    rows = [("horse", 0), ("to zebra", 1)]
    for i in range(grids + 1):
        picture = grid([(name, toy_pictures(4, 2 * i + k)) for name, k in rows])
        save_picture(picture, run / "samples" / f"{16000 * i // grids:09d}.jpg")
    if finished:
        save_picture(picture, run / "samples" / "final.jpg")
        (run / "results.json").write_text(json.dumps(RESULTS))
    else:  # killed while it wrote a line
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"kind": "train", "images_se')
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    run = make_run(tmp_path_factory.mktemp("run"))
    path = write_report(run)
    assert path == run / "report.html"
    assert not [p for p in run.iterdir() if p.name.startswith(".")]
    text = path.read_text(encoding="utf-8")
    assert write_report(run).read_text(encoding="utf-8") == text  # same run, same page
    return text, Page(text)


def test_page_is_well_formed_and_needs_nothing_from_outside(finished: tuple[str, Page]) -> None:
    text, page = finished
    assert not page.all("script")
    check_self_contained(text, page)


def test_pictures_are_embedded_and_described(finished: tuple[str, Page]) -> None:
    _, page = finished
    images = page.all("img")
    assert len(images) == 1 + 5  # the final grid and those before it, which differ
    for image in images:
        assert image["alt"]
        coded = str(image["src"]).partition("base64,")[2]
        with Image.open(io.BytesIO(base64.b64decode(coded))) as picture:
            picture.load()
            assert str(picture.width) == image["width"]
            assert str(picture.height) == image["height"]
    assert "before training" in page.text
    assert "3,200 images seen" in page.text


def test_numbers_and_words_appear(finished: tuple[str, Page]) -> None:
    text, page = finished
    for expected in (
        "cyclegan_toy",
        "seed 3",
        RESULTS["verdict"],
        "From horse to zebra",
        "12.2",  # final (12.25, half to even)
        "11.1",  # best
        "at 14,000 images",
        "0.0002",  # the learning rate, as a mark on its axis
        "52.2",
        "2.25",
        "65 %",  # of roots: (7.228 - 3.5) / (7.228 - 1.5)
        "71 %",  # (7.071 - 3.082) / (7.071 - 1.414)
        "4 min 48 s",
        "55.5",
        "1.43 GB",
        "1,234,567",
        "2.17 GFLOP",
        "6.8 %",
        "9f3ac1",
        "2.6.0",
        "gansuite train",
        METRICS["fd_random"].meaning,
    ):
        assert expected in page.text, expected
    assert page.text.count("lower is better") == 0  # said once per row, as the arrow's title
    assert {"lower is better", "higher is better"} == {a["title"] for a in page.all("abbr")}
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(headings))
    assert all(a.get("scope") in ("row", "col") for a in page.all("th"))
    # 4 scores over images, losses of g and d, learning rates, 2 scores and speed over seconds
    assert len(page.all("svg")) == 4 + 3 + 3
    labels = [a["aria-label"] for a in page.all("div") if a.get("role") == "img"]
    assert (
        "Fréchet distance, random VGG over images seen: "
        "a2b from 49.0 to 19.6; b2a from 38.0 to 15.2"
    ) in labels
    assert "prefers-color-scheme: dark" in text
    assert "#123456" not in text
    assert "currentColor" in text


@pytest.mark.usefixtures("no_charts")
def test_the_share_on_top_is_that_of_the_verdict(tmp_path: Path) -> None:
    """Of learned features where a run has them, and the page says which."""
    run = make_run(tmp_path, grids=1, losses=2)
    results = json.loads((run / "results.json").read_text())
    for part, value in (("final", 25.0), ("do_nothing", 100.0), ("real_vs_real", 0.0)):
        row = results[part] if part == "final" else results["references"][part]
        row["a2b"]["fd_learned"] = value
    (run / "results.json").write_text(json.dumps(results))
    said = " ".join(Page(write_report(run).read_text("utf-8")).text.split())
    way = "of the way from do nothing to real vs real (the root of Fréchet distance"
    assert f"50 % {way}, learned" in said
    assert f"71 % {way}, random" in said  # b2a has no other


def test_config_is_escaped(finished: tuple[str, Page]) -> None:
    text, page = finished
    assert "<script" not in text
    assert html.escape("<script>alert(1)</script>") in text
    assert "<script>alert(1)</script>" in page.text


@pytest.mark.usefixtures("no_charts")
def test_unfinished_run(tmp_path: Path) -> None:
    page = Page(write_report(make_run(tmp_path, finished=False, grids=2)).read_text("utf-8"))
    assert "has not finished" in page.text
    assert "Latest" in page.text
    assert "30.6" in page.text  # the last evaluation: 12.25 * (1 + 3 / 2)
    assert len(page.all("img")) == 1 + 2


def test_run_that_has_only_begun(tmp_path: Path) -> None:
    run = tmp_path / "begun" / "seed0"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("name: begun\nseed: 0\n")
    page = Page(write_report(run).read_text("utf-8"))
    assert "No pictures were saved yet" in page.text
    assert page.all("svg") == []


@pytest.mark.usefixtures("no_charts")
def test_pictures_stay_within_the_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, cap = make_run(tmp_path, grids=1, losses=2), 75_000
    monkeypatch.setattr(report, "MAX_PICTURE_BYTES", cap)
    noise = torch.randint(256, (1, 3, 200, 250), generator=torch_generator(0, "big"))
    for i in range(12):
        noise[..., i] = 0  # a grid that equals the final one is not shown twice
        save_picture(grid([("", noise.byte())]), run / "samples" / f"{100 + i:09d}.jpg")
    big = run / "samples" / "final.jpg"
    save_picture(grid([("", noise.byte() // 2)]), big)
    assert big.stat().st_size > cap // 3
    images = Page(write_report(run).read_text("utf-8")).all("img")
    assert len(images) == 1 + report.MAX_GRIDS
    assert sum(len(str(a["src"])) for a in images) < 4 * cap / 3 + 2000
    assert int(str(images[0]["width"])) > 100  # smaller, not gone


def test_what_is_no_run_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run directory"):
        write_report(tmp_path / "missing")
    with pytest.raises(UserError, match=r"neither config\.yaml nor metrics"):
        write_report(tmp_path)
    run = make_run(tmp_path, grids=1, losses=2)
    (run / "results.json").write_text('{"final": ')
    with pytest.raises(UserError, match=r"results\.json is damaged"):
        write_report(run)
    assert not (run / "report.html").exists()


def test_human_numbers() -> None:
    given = [None, float("nan"), 0.0, 0.01234, -0.5, 1.0, 12.345, 123.4, 1234.5, 7, 2e-5, 1234567]
    shown = "–,–,0,0.0123,-0.500,1.00,12.3,123,1,234,7,2.00e-05,1,234,567"
    assert ",".join(human(v) for v in given) == shown
    times = (0.5, 7.5, 59.7, 332, 3599.6, 7500)
    assert [duration(s) for s in times] == [
        "0.5 s",
        "7.5 s",
        "59.7 s",
        "5 min 32 s",
        "1 h 00 min",
        "2 h 05 min",
    ]


def test_gap_closed_and_summary() -> None:
    found = {s.name: s for s in scores_of(RESULTS)["a2b"]}
    assert found["fd_random"].gap == pytest.approx((52.25**0.5 - 3.5) / (52.25**0.5 - 1.5))
    assert found["swd"].gap == pytest.approx((90.4 - 31.7) / (90.4 - 8.2))  # is no square
    assert found["psnr_mask"].gap is None  # no reference for it
    assert scores_of({}) == {}
    table = summary_table(RESULTS)
    assert table.isascii()
    rows = [line.split() for line in table.splitlines()]
    assert rows[1] == ["a2b", "fd_random", "lower", "12.2", "52.2", "2.25", "65", "%"]
    assert rows[3] == ["psnr_mask", "higher", "19.8", "-", "-"]
    lines = table.splitlines()
    assert lines[1].index("fd_random") == lines[2].index("swd") == lines[0].index("score")
    assert summary_table({}).splitlines()[1:] == []


def test_half_way_is_half_of_the_gap() -> None:
    """Of pictures that lie on the straight way from *do nothing* to the real ones."""
    real = torch.randn(64, 3, generator=torch_generator(0, "gap")).double()
    away = torch.tensor([3.0, -4.0, 12.0]).double()  # 13 long
    distances = {s: frechet_distance(real, real + s * away) for s in (0.0, 0.25, 0.5, 1.0)}
    assert distances[1.0] == pytest.approx(169)
    assert distances[0.5] == pytest.approx(169 / 4)
    for share in (0.25, 0.5, 1.0):
        gap = verdict.gap_closed(distances[share], distances[1.0], distances[0.0])
        assert gap == pytest.approx(1 - share, abs=1e-4)
    # an unbiased estimate of a square may lie below 0
    assert verdict.gap_closed(-0.1, 4.0, -0.2) == 1
    assert verdict.gap_closed(1.0, -0.1, -0.2) is None
    squares = {m for m, info in METRICS.items() if info.squared}
    assert squares == {"fd_learned", "fd_random", "fd_dino", "fid", "kid", "kd_random", "cmmd"}


def test_there_is_no_share_of_a_gap_that_is_not_there() -> None:
    assert verdict.gap_closed(3.0, 2.0, 2.5) is None
    assert verdict.gap_closed(3.0, 2.0, None) is None
    assert verdict.gap_closed(1.5, 2.0, 1.0, squared=False) == pytest.approx(0.5)
    rows = {"do_nothing": {"a2b": {"fd_random": 2.0}}, "real_vs_real": {"a2b": {"fd_random": 2.5}}}
    said = verdict.verdict({"a2b": {"fd_random": 1.0}}, {}, rows)
    assert said == "not scored"
