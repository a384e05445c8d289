"""The door: files of another type, and names that would be more than text in a table."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import Page, check_self_contained
from test_compare_collect import together, write_run

from gansuite.compare import schema, tables
from gansuite.compare.entry import read_entry
from gansuite.compare.escape import csv_text, markdown, one_line, tex
from gansuite.compare.page import write_page
from gansuite.compare.report import write_report
from gansuite.errors import UserError

EVENT = {"images_seen": 5, "event": "collapse", "name": "a2b", "action": "warn", "message": "m"}
RESULTS: dict[str, Any] = {
    "experiment": "x",
    "method": "m",
    "seed": 0,
    "data": {"name": "coats", "digest": "f", "domains": ["a"]},
    "protocol": {"id": "p", "size": 32, "samples": 8},
    "budget": {"kimg": 1.0, "seconds": None},
    "images_seen": 1000,
    "final": {"a2b": {"swd": 1.0}},
    "best": {"a2b": {"swd": 1.0}},
    "references": {"do_nothing": {"a2b": {"swd": 9.0}}, "real_vs_real": {}},
    "cost": {"seconds": 3.0, "parameters": {"g": 3}, "flops_per_image": 8.0},
    "health": [EVENT],
    "verdict": "learned",
}
CONFIG = {"name": "x", "seed": 0, "method": {"name": "m"}, "data": {"size": 32}, "trainer": {}}
RECORD = {"kind": "train", "images_seen": 5, "batches": 1, "loss/g/gan": 0.5}
FILES: dict[str, Any] = {
    "results.json": RESULTS,
    "config.yaml": CONFIG,
    "environment.json": {"device": "1 x cpu", "packages": {"torch": "2"}},
    "metrics.jsonl": [RECORD, {"kind": "health", **EVENT}],
    "timing.jsonl": [{"kind": "train", "images_seen": 5, "seconds": 1.0}],
}
HUGE = 10**400
WRONG: dict[type, list[Any]] = {
    str: [1, True, [], {}],
    int: ["1", True, [], {}, 1.5, -1, HUGE, float("nan")],
    float: ["1", True, [], {}, HUGE],
    dict: [1, "x", [1], True],
    list: [1, "x", {}, True],
}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Any:
    """(path, value) of every node but the root and the values of null."""
    if path and value is not None:
        yield path, value
    pairs = value.items() if isinstance(value, dict) else ()
    for key, x in enumerate(value) if isinstance(value, list) else pairs:
        yield from leaves(x, (*path, key))


def with_value(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    content = copy.deepcopy(content)
    at = content
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return content


def write(file: Path, content: Any) -> None:
    if file.suffix == ".yaml":
        file.write_text(yaml.safe_dump(content))
    elif file.suffix == ".json":
        file.write_text(json.dumps(content))
    else:
        file.write_text("".join(json.dumps(line) + "\n" for line in content))


@pytest.mark.parametrize("name", FILES)
def test_a_value_of_another_type_is_one_sentence(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    write(file, FILES[name])
    assert not read_entry(tmp_path).damaged
    tried = 0
    for path, value in leaves(FILES[name]):
        for wrong in WRONG[type(value)]:
            write(file, with_value(FILES[name], path, wrong))
            e = read_entry(tmp_path)
            assert (e.status, e.damaged) == ("failed", True), (path, wrong)
            assert str(file) in e.error
            assert "\n" not in e.error
            assert len(e.error) < 300 + 3 * len(str(file))
            tried += 1
    assert tried >= 10
    with pytest.raises(UserError, match="is damaged"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    for path, value, expected in (
        (("final", "a2b", "swd"), float("inf"), "'final.a2b.swd' is inf, not a finite number"),
        (("cost", "parameters", "g"), "3", "'cost.parameters.g' is '3', not a valid integer"),
        (("references", "do_nothing"), None, "'references.do_nothing' is null, not a valid dict"),
        (("health", 0, "message"), [1], "'health.0.message' is [1], not a valid string"),
    ):
        write(file, with_value(RESULTS, path, value))
        assert expected in read_entry(tmp_path).error
    write(file, {k: v for k, v in RESULTS.items() if k != "budget"})
    assert "it has no 'budget'" in read_entry(tmp_path).error
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    write(file, {**RESULTS, "more": deep})
    assert "nested more than 16 deep" in read_entry(tmp_path).error
    file.unlink()
    write(tmp_path / "metrics.jsonl", [RECORD, {**RECORD, "images_seen": "5"}])
    assert "metrics.jsonl, line 2, is damaged ('images_seen' is '5'" in read_entry(tmp_path).error


def test_a_line_that_is_cut_off_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(json.dumps(RECORD) + '\n{"kind": "tra')
    assert schema.read_records(file) == (RECORD,)
    assert schema.read_records(tmp_path / "none.jsonl") == ()


# -- escaping --------------------------------------------------------------------------------------

EVIL = (
    "=HYPERLINK(1)",
    "+1",
    "@SUM(1)",
    "-2+3",
    "a\n\\input{x}",
    "<img src=x onerror=alert(1)>",
    "[go](javascript:alert(1))",
    "$x",
    "a|b",
    "\x1b[31mred\u202e",
)


@pytest.mark.parametrize("text", [*EVIL, "\t=1", "＝1"])
def test_no_cell_is_a_formula(text: str) -> None:
    ((cell,),) = csv.reader(io.StringIO(csv_text([[text]])))
    assert cell[:1] not in set("=+-@\t\r\n＝＋－＠")
    assert cell.lstrip("'") == one_line(text)  # and nothing is lost
    assert csv_text([[-1.5, None, "a-b"]]) == "-1.5,,a-b\n"


def test_tex_is_text() -> None:
    assert tex("a\n\\b") == r"a \textbackslash{}b"
    for x in "&%$#_{}":
        assert tex(x) == f"\\{x}"
    assert tex("~^<>") == r"\textasciitilde{}\textasciicircum{}$<$$>$"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<b>x</b>", "&lt;b>x&lt;/b>"),
        ("[a](u) ![b](u) [c][d]", r"[a\](u) ![b\](u) [c\][d]"),
        ("`x` **y** ~z~", r"\`x\` \*\*y\*\* \~z\~"),
        ("a|b\\|c", r"a\|b\\\|c"),
        ("_x_ a_b", r"\_x\_ a_b"),
        ("&lt;b & c", "&amp;lt;b & c"),
        ("+4.00 [+4, +4]", "+4.00 [+4, +4]"),
    ],
)
def test_markdown_is_text(text: str, shown: str) -> None:
    assert markdown(text) == shown


@pytest.mark.parametrize("text", ["# x", "> x", "- x", "+ x", "1. x", "12) x", "==="])
def test_markdown_begins_no_block(text: str) -> None:
    assert re.match(r"\d*\\", markdown(text, begins=True))
    assert markdown("x " + text, begins=True) == "x " + text


@pytest.mark.usefixtures("no_charts")
def test_names_of_others_are_text_in_every_format(tmp_path: Path) -> None:
    for i, evil in enumerate(EVIL):
        path = write_run(tmp_path, f"row{i}_coats", 0, 2.0 + i)
        file = path / "results.json"
        content = json.loads(file.read_text())
        content["experiment"] = content["verdict"] = evil
        if i:
            content["data"]["name"] = evil
        else:
            content["data"]["name"] = "coats\n\\end{tabular}\\input{/etc/passwd}"
        file.write_text(json.dumps(content))
    c = together(tmp_path, allow_unequal=True, title="t\n\\input{y}")
    assert set(c.rows) == set(EVIL)
    for text in (tables.leaderboard_csv(c), tables.cost_csv(c)):
        cells = [x for row in csv.reader(io.StringIO(text)) for x in row]
        wild = [x for x in cells if x[:1] in set("=+-@")]
        assert all(re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", x) for x in wild), wild
    source = tables.latex(c)
    assert "\\input" not in re.sub(r"^% .*$", "", source, flags=re.M)
    widths = {line.count(" & ") for line in source.splitlines() if line.endswith(r"\\")}
    assert len(widths) == 1
    for text in (tables.markdown(c), tables.cost_markdown(c)):
        assert "<img" not in text
        assert not re.search(r"(?<!\\)\]\(javascript", text)
        assert "\x1b" not in text
        assert "\u202e" not in text
        bars = {len(re.findall(r"(?<!\\)\|", x)) for x in text.splitlines() if x.startswith("|")}
        assert len(bars) == 1
    page = Page(text := write_page(c, tmp_path).read_text())
    check_self_contained(text, page)
    assert not [a for a in page.all("img") if a.get("src") == "x"]
    assert not any("onerror" in a for _, a in page.tags)
    assert EVIL[5] in page.text
