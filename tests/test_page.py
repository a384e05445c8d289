"""The page of a comparison: what it says, what it needs, and what a real browser makes of it."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import Browser
from pages import ENVIRONMENT, METHODS, PROTOCOL, Page, check_self_contained, make_run, make_runs
from PIL import Image

from gansuite.callbacks.samples import save_strips
from gansuite.compare import charts, page
from gansuite.compare.charts import COLOURS, Line, mark
from gansuite.compare.collect import ComparedRuns, gather
from gansuite.compare.entry import read_entry
from gansuite.compare.format import human, interval, metric
from gansuite.compare.page import write_page
from gansuite.compare.stats import mean_interval
from gansuite.evaluation import Comparison as Scored
from gansuite.rng import torch_generator


def compared(folder: Path, runs: list[Path], **options: Any) -> ComparedRuns:
    options = {"title": "Families & <b>friends</b>", "command": "gansuite compare demo", **options}
    return gather("demo", folder, [read_entry(run) for run in runs], **options)


def written(folder: Path, runs: list[Path], **options: Any) -> tuple[str, Page, ComparedRuns]:
    comparison = compared(folder, runs, **options)
    text = write_page(comparison, folder / "out").read_text("utf-8")
    return text, Page(text), comparison


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page, ComparedRuns]:
    folder = tmp_path_factory.mktemp("full")
    return written(folder, make_runs(folder, ("cyclegan", "discogan", "vanilla"), (0, 1, 2)))


def test_it_needs_nothing_from_outside(full: tuple[str, Page, ComparedRuns]) -> None:
    text, parsed, _ = full
    check_self_contained(text, parsed)
    (script,) = parsed.all("script")
    assert script == {}  # inline
    policy = next(a["content"] for a in parsed.all("meta") if "http-equiv" in a)
    code = re.search(r"<script>(.*)</script>", text, re.S)
    assert code
    digest = base64.b64encode(hashlib.sha256(code[1].encode()).digest()).decode()
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    assert not re.search(r"\son\w+=", text)


def test_every_number_appears(full: tuple[str, Page, ComparedRuns]) -> None:
    _, parsed, c = full
    assert c.names == ("a2b", "b2a", "gen")
    expected = [PROTOCOL["id"], "16 kimg", "gansuite compare demo", ENVIRONMENT["commit"], "2.6.0"]
    for name in c.names:
        for m in c.metrics(name):
            expected.append(metric(m).label)
            for values in c.scores(name, m).values():
                expected.append(interval(*mean_interval([*values.values()])))
        for s in c.ranking(name):
            expected += [interval(s.mean, s.low, s.high), s.place.replace("-", "–")]
            expected += [human(v) for v in s.values.values()]  # each run, in the health table
        for values in c.best_scores(name, "fd_random").values():
            expected.append(interval(*mean_interval([*values.values()])))
        for row in c.references(name).values():
            expected += [human(v) for v in row.values()]
    expected += ["8 min 53 s", "1.05 GB", "1.9 M", "840 MFLOP", "13.4 TFLOP", "30.0", "16,000"]
    expected += ["collapsed: a2b has 12% of the real variety", "a2b from 12,000 images on"]
    expected += ["optim.g.lr", "0.0004", "0.0002", "From horse to zebra", "Pictures from noise"]
    for words in expected:
        assert str(words) in parsed.text, words
    said = " ".join(parsed.text.split())
    assert "From horse to zebra: cyclegan comes closest to real and closed 75 % of the gap" in said
    assert "Cheapest to train: vanilla with 1 min 24 s of training a run" in said


def test_two_rows_of_one_method_are_called_by_what_differs(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, ("cyclegan", "discogan", "vanilla"), (0,))

    def labels(*methods: str) -> list[str]:
        found = zip(map(read_entry, runs), methods, strict=True)
        entries = [replace(e, results={**e.results, "method": m}) for e, m in found]
        return [row.label for row in gather("demo", tmp_path, entries).table_rows.values()]

    assert labels("cyclegan", "discogan", "vanilla") == ["cyclegan", "discogan", "vanilla"]
    assert labels("cut", "cut", "vanilla") == ["cyclegan", "discogan", "vanilla"]
    assert labels("cut", "cut", "discogan") == ["cyclegan", "discogan_coats", "discogan"]


def test_a_cheap_method_that_does_nothing_is_no_answer(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, ("cyclegan", "vanilla"), (0,))
    (file,) = (run / "results.json" for run in runs if run.parent.name.startswith("vanilla"))
    results = json.loads(file.read_text())
    results["final"]["gen"]["fd_random"] = 99.0
    file.write_text(json.dumps(results))
    found = page._answers(compared(tmp_path, runs))
    assert found[2]["rest"] == (
        "is the only one scored, but is no closer than a Gaussian of the training pictures"
    )
    lead = "Cheapest to train of those that are closer to real than doing nothing"
    assert (found[3]["lead"], found[3]["strong"]) == (lead, "cyclegan")
    learned = {"do_nothing": 9.0, "real_vs_real": 1.0}
    results["final"]["gen"]["fd_learned"] = 4.0
    for row, value in learned.items():
        results["references"][row]["gen"]["fd_learned"] = value
    file.write_text(json.dumps(results))
    (said,) = page._answers(compared(tmp_path, [file.parent], rank_by="fd_learned"))
    assert said["rest"] == (
        "is the only one scored and closed 50 % of the gap, but to a random network it is no "
        "closer than a Gaussian of the training pictures"
    )


def test_it_is_well_made(full: tuple[str, Page, ComparedRuns]) -> None:
    text, parsed, _ = full
    headings = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch("h[1-6]", tag)]
    assert headings.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(headings))
    assert all(a.get("scope") in ("row", "col") for a in parsed.all("th"))
    anchors = {str(a["href"])[1:] for a in parsed.all("a")}
    assert anchors <= {str(a["id"]) for _, a in parsed.tags if "id" in a}
    assert all(a["aria-hidden"] == "true" for a in parsed.all("svg"))
    labels = [str(a["aria-label"]) for a in parsed.all("div") if a.get("role") == "img"]
    assert len(labels) == len(parsed.all("svg")) > 20
    assert len(set(labels)) == len(labels)
    assert any(
        label.startswith("Fréchet distance, random VGG, from horse to zebra, over images seen: cyc")
        for label in labels
    )
    assert "prefers-color-scheme: dark" in text
    # the placeholders of ink, rule and series are gone; the style sheet names the series once
    for colour in ("#123456", "#123457"):
        assert colour not in text
    for colour in COLOURS:
        assert text.count(colour) <= 1


def test_the_same_pictures_stand_below_each_other(full: tuple[str, Page, ComparedRuns]) -> None:
    _, parsed, c = full
    images = parsed.all("img")
    # input, truth and two translators in two directions; one generator
    assert len(images) == 2 * 4 + 1
    assert [i["alt"] for i in images[:3]] == [
        "The test pictures that go in",
        "The true translations of these pictures",
        f"The same pictures made by {c.ranking('a2b')[0].name.removesuffix('_coats')}",
    ]
    for image in images:
        assert image["alt"]
        coded = str(image["src"]).partition("base64,")[2]
        with Image.open(io.BytesIO(base64.b64decode(coded))) as picture:
            assert picture.size == (8 * 32, 32)
            assert (str(picture.width), str(picture.height)) == (image["width"], image["height"])


@pytest.mark.usefixtures("no_charts")
def test_other_inputs_are_not_put_below_the_first(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, ("cyclegan", "dualgan"), (0,))
    strip = runs[1] / "samples" / "strip_a2b_source.png"
    with Image.open(strip) as picture:
        other = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    other.save(strip)
    text, parsed, _ = written(tmp_path, runs)
    assert text.count('class="gallery"') == 3
    assert "Other inputs" in parsed.text
    assert len(parsed.all("img")) == 2 * 3 + 4
    strip.unlink()
    strip.with_name("strip_a2b_fake.png").unlink()  # a run from before there were strips
    assert len(written(tmp_path, runs)[1].all("img")) == 3 + 4


def test_the_strips_hold_the_scored_pictures(tmp_path: Path) -> None:
    drawn = torch.randint(256, (3, 10, 3, 8, 8), generator=torch_generator(0, "strips"))
    source, fake, truth = drawn.byte()
    save_strips(tmp_path, Scored("to_x", real=truth, fake=fake, source=source, truth=truth), 4)
    for name, pictures in (("source", source), ("fake", fake), ("truth", truth)):
        with Image.open(tmp_path / f"strip_to_x_{name}.png") as image:
            found = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        assert torch.equal(found, torch.cat([pictures[i] for i in (0, 2, 5, 7)], dim=2))
    save_strips(tmp_path, Scored("gen", real=truth[:, :1], fake=fake[:, :1]), 99)
    assert not (tmp_path / "strip_gen_source.png").exists()
    with Image.open(tmp_path / "strip_gen_fake.png") as image:
        assert (image.mode, image.size) == ("L", (80, 8))


def test_names_are_escaped(full: tuple[str, Page, ComparedRuns]) -> None:
    text, parsed, _ = full
    assert "<b>friends" not in text
    assert html.escape("Families & <b>friends</b>") in text
    assert "<script>alert(1)</script>" in parsed.text
    assert text.count("<script") == 1


@pytest.mark.usefixtures("no_charts")
def test_a_single_seed_is_marked_and_never_bold(tmp_path: Path) -> None:
    text, parsed, c = written(tmp_path, make_runs(tmp_path, ("cyclegan", "dualgan"), (0,)))
    assert 'class="first"' not in text
    assert parsed.text.count("1 seed") >= 4  # two rows, two directions
    assert "±" not in parsed.text
    assert "with one seed this may be chance" in parsed.text
    assert all(note in parsed.text for note in c.notes)
    # two seeds of the one: the single one is still not bold
    runs = [tmp_path / "cyclegan_coats/seed0", make_run(tmp_path, "discogan", 0)]
    runs.append(make_run(tmp_path, "discogan", 1))
    text, _, c = written(tmp_path, runs, allow_unequal=True)
    for row in re.findall(r"<tr>.*?</tr>", text, re.S):
        assert not ("1 seed" in row and 'class="first"' in row)
    assert c.unequal
    assert all(html.escape(note, quote=False) in text.replace("&#39;", "'") for note in c.unequal)
    assert 'class="warning"' in text


@pytest.mark.usefixtures("no_charts")
def test_ties_are_said(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, ("cyclegan", "stargan"), (0, 1, 2))
    for run in runs:  # the same scores but for the seed
        results = json.loads((run / "results.json").read_text())
        results["final"]["a2b"]["fd_random"] = 3.0 + 0.1 * results["seed"]
        results["final"]["b2a"]["fd_random"] = (
            3.0 + ("stargan" in str(run)) + 0.01 * results["seed"]
        )
        (run / "results.json").write_text(json.dumps(results))
    text, parsed, _ = written(tmp_path, runs)
    words = " ".join(parsed.text.split())
    assert "tied with stargan" in words
    assert "stargan can't be told apart from it" in words
    a2b, b2a = (
        re.findall(r'<table class="board sortable.*?</table>', text, re.S)[i] for i in (0, 2)
    )
    assert a2b.count('class="first"') == 2
    assert b2a.count('class="first"') == 1
    assert "tied" not in b2a
    assert "1–2" in a2b


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize("methods", [("cyclegan",), ("vanilla",), ("vanilla", "stylegan")])
def test_one_method_or_only_generators(tmp_path: Path, methods: tuple[str, ...]) -> None:
    text, parsed, _ = written(tmp_path, make_runs(tmp_path, methods, (0, 1)))
    check_self_contained(text, parsed)
    assert ("is the only one scored" in parsed.text) == (len(methods) == 1)
    assert len(parsed.all("img")) == (len(methods) if "vanilla" in methods else 6)
    heads = re.findall(r'<th scope="col"[^>]*>Behind the first', text)
    assert len(heads) == (len(methods) > 1)


@pytest.mark.usefixtures("no_charts")
def test_unfinished_failed_and_outside_rows(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, "cyclegan", 0), make_run(tmp_path, "dualgan", 0, finished=False)]
    runs.append(make_run(tmp_path, "stargan", 0, finished=False))
    (runs[-1] / "error.txt").write_text("loss/g/gan is not finite at 3,000 images")
    outside = make_run(tmp_path, "discogan", 0)
    results = json.loads((outside / "results.json").read_text())
    results |= {"outside": True, "cost": {}, "experiment": "their <model>", "method": ""}
    (outside / "results.json").write_text(json.dumps(results))
    for file in ("config.yaml", "environment.json", "metrics.jsonl", "timing.jsonl"):
        (outside / file).unlink()
    text, parsed, c = written(tmp_path, [*runs, outside])
    assert "not at its end" in parsed.text
    assert "loss/g/gan is not finite at 3,000 images" in parsed.text
    assert "their <model>" in parsed.text
    assert "<model>" not in text
    assert "outside entry" in parsed.text
    assert [s.name for s in c.ranking("a2b")] == ["cyclegan_coats", "their <model>"]


def _seen(rgb: np.ndarray, kind: str) -> np.ndarray:
    """OKLab of sRGB colours [N, 3] as an eye of that kind sees them (Machado et al. 2009)."""
    matrices = {
        "normal": np.eye(3),
        "protan": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.052]],
        "deutan": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    }
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.array(matrices[kind]).T, 0, 1)
    lms = np.cbrt(
        linear
        @ np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]).T
    )
    lab = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
    return lms @ np.array(lab).T


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_can_be_told_apart(theme: str) -> None:
    """By colour-blind eyes too, and each from the page; markers differ as well."""
    style = (Path(page.__file__).parent / "style.css").read_text()
    found = re.findall(r"--c(\d): (#\w{6})", style)
    chosen = [c for _, c in found][:8] if theme == "light" else [c for _, c in found][8:]
    assert len(chosen) == len(COLOURS)
    if theme == "light":
        assert tuple(chosen) == COLOURS

    def rgb(codes: list[str]) -> np.ndarray:
        return np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in codes])

    colours = rgb(chosen)
    for kind in ("normal", "protan", "deutan"):
        lab = _seen(colours, kind)
        apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + np.eye(8)
        assert apart.min() > 0.075
        assert apart[:6, :6].min() > 0.09
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    light = linear @ [0.2126, 0.7152, 0.0722]
    ground = 1.0 if theme == "light" else 0.0085
    contrast = (np.maximum(light, ground) + 0.05) / (np.minimum(light, ground) + 0.05)
    assert contrast.min() >= 3
    assert len({mark(i)["glyph"] for i in range(8)}) == 8
    assert len({tuple(mark(i).values()) for i in range(20)}) == 20


def test_a_chart_is_the_same_every_time_and_its_names_stand_apart() -> None:
    lines = [Line(f"method{i}", [0, 1], [5, 2 + 0.01 * i], style=i) for i in range(6)]
    svg = charts.chart(lines, "x", "salt", levels=[("do nothing", 6.0)], direct=True)
    assert charts.chart(lines, "x", "salt", levels=[("do nothing", 6.0)], direct=True) == svg
    assert charts.chart(lines, "x", "other", direct=True) != svg
    found = re.findall(r'<text[^>]* y="([\d.]+)"[^>]*>(method\d)</text>', svg)
    heights = sorted({float(y) for y, _ in found})
    assert {name for *_, name in found} == {line.name for line in lines}
    assert min(b - a for a, b in itertools.pairwise(heights)) > 8
    assert len(heights) == 6
    # nor does one lie on the name of a level
    line = [Line("method", [0, 1], [5, 3.05])]
    svg = charts.chart(line, "x", "salt", levels=[("do nothing", 3.0)], direct=True)
    places = {
        name: float(y)
        for y, name in re.findall(r'<text[^>]* y="([\d.]+)"[^>]*>(method|do nothing)</text>', svg)
    }
    assert abs(places["method"] - places["do nothing"]) > 8


def test_intervals_are_rounded_for_people() -> None:
    shown = [
        interval(m, m - h, m + h)
        for m, h in ((12.31, 0.42), (2.2048, 0.0397), (11, 11.2), (1234.5, 20.2), (22, 0.004))
    ]
    assert shown == ["12.31 ± 0.42", "2.205 ± 0.040", "11 ± 11", "1,234 ± 20", "22.00 ± 0.004"]
    assert interval(2.5, None, None) == "2.50"
    assert interval(0.0, 0.0, 0.0) == "0 ± 0"


TABLE = "document.querySelector('table.sortable')"
ORDER = f"[...{TABLE}.tBodies[0].rows].map(r => r.cells[COLUMN].dataset.value)"
SORTED_BY = (
    f"[...{TABLE}.tHead.rows[0].cells]"
    ".map((h, i) => [i, h.getAttribute('aria-sort')]).filter(p => p[1])"
)


@pytest.mark.slow
def test_in_a_real_browser(tmp_path: Path, browser: Browser) -> None:
    runs = make_runs(tmp_path, tuple(METHODS), (0, 1, 2))
    path = write_page(compared(tmp_path, runs), tmp_path)
    browser.open(path)
    assert browser.value("document.title").startswith("Families & <b>friends</b>")
    widths = browser.value("[...document.images].map(i => [i.complete, i.naturalWidth])")
    assert len(widths) == 2 * 6 + 2
    assert all(complete and width == 8 * 32 for complete, width in widths)
    # the table is sorted by place; a click sorts by another column, a second one turns it round
    assert browser.value(SORTED_BY) == [[1, "ascending"]]
    click = f"{TABLE}.tHead.rows[0].cells[COLUMN].querySelector('button').click()"
    for column in ("0", "2", "6"):
        for direction, reverse in (("ascending", False), ("descending", True)):
            browser.value(click.replace("COLUMN", column))
            order = browser.value(ORDER.replace("COLUMN", column))
            keys = order if column == "0" else [float(v) for v in order]
            assert keys == sorted(keys, reverse=reverse)
            assert browser.value(SORTED_BY) == [[int(column), direction]]
    # a run without a score stays last, whichever way: the generators have none in a2b
    tables = "[...document.querySelectorAll('table.sortable')]"
    health = f"{tables}.find(t => t.tHead.innerText.includes('ended'))"
    for _ in range(2):
        browser.value(f"{health}.tHead.rows[0].cells[3].querySelector('button').click()")
        order = browser.value(f"[...{health}.tBodies[0].rows].map(r => r.cells[3].dataset.value)")
        assert order[-6:] == [""] * 6
        assert "" not in order[:-6]
    # with the keyboard: a button has the focus and takes Enter
    browser.value(f"{TABLE}.tHead.rows[0].cells[1].querySelector('button').focus()")
    for kind in ("keyDown", "keyUp"):
        browser("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r",
                windowsVirtualKeyCode=13)  # fmt: skip
    assert browser.value(SORTED_BY) == [[1, "ascending"]]
    # a phone: nothing but tables and pictures, each in a box of its own, is wider than the page
    browser("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2,
            mobile=True)  # fmt: skip
    assert browser.value("document.documentElement.scrollWidth") <= 390
    assert browser.complaints() == []
