"""Run directories made up here: what is fair, what is refused, what the tables say."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gansuite.compare import tables
from gansuite.compare.collect import gather
from gansuite.compare.entry import Axis, find_entries, read_entry
from gansuite.errors import UserError
from gansuite.evaluation.protocol import Protocol

DIGEST = "0123456789abcdef"


def write_run(
    folder: Path,
    row: str,
    seed: int,
    fd: float,
    *,
    budget: dict[str, Any] | None = None,
    digest: str = DIGEST,
    names: tuple[str, ...] = ("a2b", "b2a"),
    outside: bool = False,
    device: str = "1 x cpu (x, 2 cores)",
    flops: int = 1000,
    **protocol: Any,
) -> Path:
    """A finished run whose score of every comparison name is ``fd``."""
    p = Protocol(**{"extractor": "random", "size": 32, "samples": 16, **protocol})
    path = folder / row / f"seed{seed}"
    path.mkdir(parents=True)
    scores = {n: {"fd_random": fd, "swd": 10 * fd, "diversity": 0.9} for n in names}
    ends = {"do_nothing": 9.0, "real_vs_real": 1.0}
    results = {
        "experiment": row,
        "method": "" if outside else row.partition("_")[0],
        "outside": outside,
        "seed": seed,
        "data": {"name": "coats", "digest": digest},
        "protocol": {"id": p.id, **p.to_dict()},
        "budget": {} if outside else {"kimg": 1.0, "seconds": None, **(budget or {})},
        "images_seen": 1000,
        "final": scores,
        "best": {n: {**s, "fd_random": fd / 2, "images_seen": 500} for n, s in scores.items()},
        "references": {r: {n: {"fd_random": v} for n in names} for r, v in ends.items()},
        "cost": {"seconds": 3600.0, "parameters": {"g": 3, "d": 4}, "flops_per_image": flops},
        "verdict": "learned",
    }
    (path / "results.json").write_text(json.dumps(results))
    if not outside:
        (path / "config.yaml").write_text(yaml.safe_dump({"name": row, "seed": seed}))
        (path / "environment.json").write_text(json.dumps({"device": device}))
        lines = [
            {"kind": "eval", "images_seen": n, "batches": n, "a2b/fd_random": float(n)}
            for n in (500, 1000)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (path / "metrics.jsonl").write_text(text + '{"kind": "ev')
        times = [{"kind": "eval", "images_seen": n, "seconds": n / 10} for n in (500, 1000)]
        (path / "timing.jsonl").write_text("".join(json.dumps(t) + "\n" for t in times))
    return path


def fair(folder: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    for seed in seeds:
        write_run(folder, "good_coats", seed, 2.0 + seed / 10)
        write_run(folder, "bad_coats", seed, 6.0 + seed / 10)


def together(folder: Path, **options: Any) -> Any:
    paths = sorted(p for p in folder.iterdir() if p.is_dir())
    return gather("test", folder, [e for p in paths for e in find_entries(p)], **options)


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        together(folder, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_what_is_read(tmp_path: Path) -> None:
    fair(tmp_path)
    c = together(tmp_path)
    assert (c.rows, c.seeds, c.names) == (("bad_coats", "good_coats"), (0, 1, 2), ("a2b", "b2a"))
    assert c.axis == Axis("kimg", 1.0)
    assert c.data["digest"] == DIGEST
    assert c.notes == c.unequal == ()
    e = c.of("good_coats")[1]
    assert (e.seed, e.method, e.status, e.parameters, e.device_hours) == (1, "good", "done", 7, 1.0)
    assert e.pflop == pytest.approx(1e-9)
    assert e.curve("a2b", "fd_random") == [(500, 50.0, 500.0), (1000, 100.0, 1000.0)]
    assert c.scores("a2b", "swd")["good_coats"] == {0: 20.0, 1: 21.0, 2: 22.0}
    assert c.metrics("a2b") == ("fd_random", "swd", "diversity")
    assert c.references("a2b") == {
        "do_nothing": {"fd_random": 9.0},
        "real_vs_real": {"fd_random": 1},
    }
    assert c.gap("a2b", "good_coats") == pytest.approx(
        sum(3 - (2 + k / 10) ** 0.5 for k in range(3)) / 6
    )


def test_final_ranks_and_best_of_run_does_not(tmp_path: Path) -> None:
    fair(tmp_path)
    c = together(tmp_path)
    path = tmp_path / "bad_coats/seed0/results.json"
    content = json.loads(path.read_text())
    content["best"]["a2b"]["fd_random"] = 0.0
    path.write_text(json.dumps(content))
    assert [s.name for s in together(tmp_path).ranking("a2b")] == ["good_coats", "bad_coats"]
    assert c.ranking("a2b")[0].bold


def test_ranking_by_something_without_direction(tmp_path: Path) -> None:
    fair(tmp_path)
    with pytest.raises(
        UserError, match=r"'rank_by' is 'diversity', by which nothing can be ranked"
    ):
        together(tmp_path).ranking("a2b", "diversity")
    with pytest.raises(UserError, match="did you mean 'fd_random'"):
        together(tmp_path, rank_by="fd_randon").ranking("a2b")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"budget": {"kimg": 2.0}},
            "the budget is 1 kimg, but other_coats had 2 kimg",
        ),
        (
            {"budget": {"kimg": None, "seconds": 60.0}},
            "the budget is 1 kimg, but other_coats had 60 seconds of training",
        ),
        (
            {"samples": 8},
            "the protocols of bad_coats and other_coats differ (samples: 16 against 8)",
        ),
        (
            {"digest": "f" * 16},
            f"the data differ, coats of bad_coats ({DIGEST}) against coats of other_coats (fff",
        ),
    ],
)
def test_unequal_terms(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    fair(tmp_path)
    for seed in (0, 1, 2):
        write_run(tmp_path, "other_coats", seed, 4.0 + seed / 10, **changes)
    text = refusal(tmp_path)
    assert expected in text
    assert "--allow-unequal" in text
    c = together(tmp_path, allow_unequal=True)
    assert len(c.ranking("a2b")) == 3
    assert any(expected in note for note in c.unequal)
    for table in (tables.markdown(c), tables.leaderboard_csv(c)):
        assert expected in table
    assert "Unequal:" in tables.latex(c)


def test_a_missing_seed(tmp_path: Path) -> None:
    fair(tmp_path)
    (tmp_path / "good_coats/seed1/results.json").unlink()
    assert "good_coats has no result for seed 1, which others have" in refusal(tmp_path)
    c = together(tmp_path, allow_unequal=True)
    assert "good_coats, seed 1, is not at its end and not in the table." in c.notes
    assert c.ranking("a2b")[0].n == 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"final": {', "is damaged (JSONDecodeError)"),
        ("[1]", "holds no JSON object"),
        ('{"final": {}}', "is damaged (it has no 'data')"),
        pytest.param("[" * 100_000, "is damaged (RecursionError)", id="deep"),
        (None, "is damaged ('final.a2b.swd' is nan, not a finite number)"),
    ],
)
def test_a_corrupt_result(tmp_path: Path, content: str | None, expected: str) -> None:
    fair(tmp_path)
    file = tmp_path / "good_coats/seed1/results.json"
    if content is None:
        results = json.loads(file.read_text())
        results["final"]["a2b"]["swd"] = float("nan")
        content = json.dumps(results)
    file.write_text(content)
    text = refusal(tmp_path)
    assert str(file) in text
    assert expected in text
    assert read_entry(file.parent).status == "failed"


def test_a_method_that_failed_altogether_does_not_stop_the_others(tmp_path: Path) -> None:
    fair(tmp_path)
    for seed in (0, 1, 2):
        path = tmp_path / "broken_coats" / f"seed{seed}"
        path.mkdir(parents=True)
        (path / "config.yaml").write_text("name: broken_coats\n")
        (path / "error.txt").write_text("the loss 'g/gan' is not finite.\n")
    c = together(tmp_path)
    assert [s.name for s in c.ranking("a2b")] == ["good_coats", "bad_coats"]
    assert "broken_coats, seed 0, failed: the loss 'g/gan' is not finite." in c.notes


def test_nothing_to_compare(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="holds no results: give an experiment"):
        find_entries(tmp_path / "x")
    path = tmp_path / "x" / "seed0"
    path.mkdir()
    (path / "error.txt").write_text("no pictures.")
    assert refusal(tmp_path) == "test: none of 1 run(s) has results: no pictures."


def test_the_same_run_twice(tmp_path: Path) -> None:
    fair(tmp_path / "a", (0,))
    entries = find_entries(tmp_path / "a/good_coats")
    with pytest.raises(UserError, match="are both good_coats, seed 0; leave one out"):
        gather("x", tmp_path, entries * 2)


def test_seconds_on_different_devices_are_no_budget(tmp_path: Path) -> None:
    seconds = {"kimg": None, "seconds": 60.0}
    write_run(tmp_path, "a_coats", 0, 2.0, budget=seconds)
    write_run(tmp_path, "b_coats", 0, 2.0, budget=seconds, device="1 x H200")
    assert "a budget in seconds on different devices (1 x cpu" in refusal(tmp_path)


def test_flops_as_budget(tmp_path: Path) -> None:
    write_run(tmp_path, "a_coats", 0, 2.0, budget={"kimg": 1.0}, flops=10**9)
    write_run(tmp_path, "b_coats", 0, 2.0, budget={"kimg": 0.5}, flops=2 * 10**9)
    axis = Axis("pflop", 1e-3)
    assert together(tmp_path, axis=axis).unequal == ()
    write_run(tmp_path, "c_coats", 0, 2.0, budget={"kimg": 0.5}, flops=3 * 10**9)
    expected = "the budget is 0.001 PFLOP, but c_coats had 0.0015 PFLOP"
    assert expected in refusal(tmp_path, axis=axis)


def test_generators_and_translators_have_tables_of_their_own(tmp_path: Path) -> None:
    fair(tmp_path, (0, 1))
    for seed in (0, 1):
        write_run(tmp_path, "vanilla_coats", seed, 5.0, names=("gen",))
    c = together(tmp_path)
    assert c.names == ("a2b", "b2a", "gen")
    assert [s.name for s in c.ranking("gen")] == ["vanilla_coats"]
    text = tables.markdown(c)
    assert "Gaussian of the training pictures" in text.partition("## gen")[2]
    assert "vanilla_coats" not in text.partition("## gen")[0]


def test_an_outside_entry(tmp_path: Path) -> None:
    fair(tmp_path)
    write_run(tmp_path, "theirs", 0, 1.5, names=("a2b",), outside=True)
    c = together(tmp_path)
    first = c.ranking("a2b")[0]
    assert (first.name, first.single, first.bold) == ("theirs", True, False)
    assert any(note.startswith("theirs is an outside entry") for note in c.notes)
    assert "theirs (outside) †" in tables.markdown(c)
    assert c.seeds == (0, 1, 2)
    write_run(tmp_path, "others", 0, 1.5, outside=True, size=64)
    assert "differ (size: 32 against 64)" in refusal(tmp_path)


def test_tables(tmp_path: Path) -> None:
    fair(tmp_path)
    c = together(tmp_path, title="A & B 100 %", command="gansuite compare x")
    files = tables.write_tables(c, tmp_path / "out")
    assert [p.name for p in files] == [
        "leaderboard.md", "leaderboard.csv", "leaderboard.tex", "cost.md", "cost.csv",
    ]  # fmt: skip
    text = files[0].read_text()
    assert "**good_coats**" in text
    assert "**bad_coats**" not in text
    # the half width is t(0.975, 2) x 0.1 / sqrt(3) = 0.248
    assert "2.10 ± 0.25" in text
    assert "+4.00 [+4, +4]" in text or "+4 [+4, +4]" in text
    rows = list(csv.DictReader(files[1].open()))
    assert [r["row"] for r in rows if r["comparison"] == "a2b"] == [
        "good_coats", "bad_coats", "do_nothing", "real_vs_real",
    ]  # fmt: skip
    assert float(rows[0]["fd_random"]) == pytest.approx(2.1)
    assert float(rows[0]["fd_random_high"]) == pytest.approx(2.1 + 0.2484, abs=1e-4)
    assert float(rows[0]["best_of_run_fd_random"]) == pytest.approx(1.05)
    tex = files[2].read_text()
    assert r"A \& B 100 \%" in tex
    assert r"\textbf{good\_coats}" in tex
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 2
    widths = {line.count("&") for line in tex.splitlines() if line.endswith(r"\\")}
    assert len(widths) == 1
    assert len(list(csv.DictReader(files[4].open()))) == 6
    assert "3,600" in files[3].read_text()


def test_the_leaderboard_holds_no_clock(tmp_path: Path) -> None:
    fair(tmp_path)
    before = [f(together(tmp_path)) for f in _BOARDS]
    for file in tmp_path.glob("*/seed*/results.json"):
        content = json.loads(file.read_text())
        content["cost"]["seconds"] *= 3
        content["cost"]["images_per_second"] = 5
        file.write_text(json.dumps(content))
    assert [f(together(tmp_path)) for f in _BOARDS] == before


_BOARDS = (tables.markdown, tables.leaderboard_csv, tables.latex)


def configured(path: Path, **sections: Any) -> None:
    """Give a run a configuration beyond its name and seed."""
    file = path / "config.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **sections}))


def test_seeds_of_a_row_are_one_method(tmp_path: Path) -> None:
    fair(tmp_path, seeds=(0, 1))
    for seed in (0, 1):
        optim = {"g": {"lr": 1e-4 * (1 + seed)}}
        where = {"root": f"/disk{seed}", "workers": seed}
        configured(tmp_path / f"good_coats/seed{seed}", optim=optim, data=where, out=f"runs{seed}")
    told = refusal(tmp_path)
    assert "seeds 0 and 1 of good_coats differ in optim.g.lr: 0.0001 -> 0.0002" in told
    for seed in (0, 1):
        configured(tmp_path / f"good_coats/seed{seed}", optim={"g": {"lr": 1e-4}})
    assert together(tmp_path).unequal == ()  # a place and a number of workers are no difference


@pytest.mark.parametrize(
    ("key", "a", "b"),
    [
        ("data.flip", True, False),
        ("data.load_size", None, 36),
        ("data.resize", "bicubic", "bilinear"),
        ("budget.decay_from", 0.5, 1.0),
        ("budget.decay_steps", None, 200),
    ],
)
def test_all_see_the_same_crops_and_one_schedule(tmp_path: Path, key: str, a: Any, b: Any) -> None:
    fair(tmp_path, seeds=(0,))
    section, name = key.split(".")
    for row, value in (("bad_coats", a), ("good_coats", b)):
        configured(tmp_path / row / "seed0", **{section: {"size": 32, name: value}})
    x = 32 if name == "load_size" else a
    assert f"{key} is {x} for bad_coats and {b} for good_coats" in refusal(tmp_path)
    assert any(key in line for line in together(tmp_path, allow_unequal=True).unequal)
    configured(tmp_path / "good_coats/seed0", **{section: {"size": 32, name: x}})
    assert together(tmp_path).unequal == ()


def test_what_rows_may_differ_in_is_said(tmp_path: Path) -> None:
    fair(tmp_path, seeds=(0, 1))
    for seed in (0, 1):
        for row, batch in (("bad_coats", 8), ("good_coats", 32)):
            path = tmp_path / row / f"seed{seed}"
            configured(path, data={"batch": batch}, trainer={"precision": "32-true"})
    results = tmp_path / "good_coats/seed1/results.json"
    health = [{"action": "rollback"}, {"action": "warn"}, {"action": "rollback"}]
    results.write_text(json.dumps({**json.loads(results.read_text()), "health": health}))
    c = together(tmp_path)
    assert c.unequal == ()
    assert c.notes == (
        "good_coats, seed 1, went back to a checkpoint 2 time(s): it drew more pictures and took "
        "longer than its budget says.",
        "data.batch differs: bad_coats 8, good_coats 32.",
    )
