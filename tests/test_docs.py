"""What the pages say is so: blocks run, messages exist, references are complete, links lead
somewhere."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import helpers
import numpy as np
import pytest
import torch
from PIL import Image

from gansuite import catalogue, cli
from gansuite.compare.plan import make_plan
from gansuite.config import schema
from gansuite.config.loader import options_model
from gansuite.errors import UserError
from gansuite.methods import method_class, method_names

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "_ext"))

import reference  # noqa: E402

PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in DOCS.rglob("*.md"))]


# --- pages that are made ------------------------------------------------------------------------


@pytest.mark.parametrize("name", reference.PAGES_OF)
def test_a_page_is_what_it_is_made_of(name: str) -> None:
    page = DOCS / "reference" / f"{name}.md"
    made = reference.PAGES_OF[name]()
    assert page.read_text() == made, "run python docs/_ext/reference.py"


def test_every_key_is_in_the_reference() -> None:
    """Counted by pydantic and by inspect, not by what makes the page."""
    text = (DOCS / "reference/configuration.md").read_text()
    sections = [schema.Experiment, schema.Optim, *schema.SECTIONS.values(), schema.DataOptions]
    fixed = sum(len(m.model_fields) for m in [*sections, schema.Compare, schema.CompareBudget])
    known, many = catalogue.schemas(), 0
    for name in reference.method_tables():
        options = known.method(name).options
        many += len(options) - 1 + len(options["weights"][1])
    many += sum(len(known.source(name).options) for name in known.sources)
    assert fixed + many >= 290
    assert f"All {fixed + many} keys." in text
    for name in method_names():
        if reference._is_ours(name):
            (part,) = re.findall(rf"^### method: {name}\n(.*?)(?=^##|\Z)", text, re.M | re.S)
            for key in set(options_model(known.method(name), schema.Section, "x").model_fields):
                assert key in ("name", "weights") or f"| `{key}` |" in part, (name, key)


def test_types_bounds_and_units_of_the_reference() -> None:
    lines = (DOCS / "reference/configuration.md").read_text().splitlines()
    for line in (
        "| `betas` | list of number | `[0.5, 0.999]` | 2 entries, ≥ 0, < 1 |  | Of Adam. |",
        "| `dropout` | number | `0.5` | ≥ 0, ≤ 1 | probability |",
        "| `load_size` | integer or null | `null` | ≥ 8, ≤ 8192 | pixels |",
        "| `weights.cycle` | number | `10.0` | ≥ 0, ≤ 1e+06 |",
        "| `root` | text | required |  |  | The folder of the pictures",
    ):
        assert any(found.startswith(line) for found in lines), line


@pytest.mark.slow
def test_a_run_has_no_key_that_the_reference_lacks(session: Path) -> None:
    told = reference.MEANINGS["files"]
    run = session / "runs/cyclegan_coats/seed0"
    results = json.loads((run / "results.json").read_text())
    free = ("final", "best", "references.", "cost.parameters", "updates", "protocol.", "budget.")
    for key in flat(results):
        assert key in told["results.json"] or key.startswith(free), key
    for name in ("metrics.jsonl", "timing.jsonl"):
        for line in (run / name).read_text().splitlines():
            for key in json.loads(line):
                known = key in told[name] or re.match(r"(loss|lr|a2b|b2a)/", key)
                assert known, (name, key)
    for entry in json.loads((run / "environment.json").read_text()):
        assert entry.keys() <= told["environment.json"].keys()


def flat(value: Any, prefix: str = "") -> Iterator[str]:
    for key, inner in value.items():
        deeper = isinstance(inner, dict) and inner
        yield from flat(inner, f"{prefix}{key}.") if deeper else [prefix + key]


# --- messages -----------------------------------------------------------------------------------


def test_every_message_of_the_troubleshooting_is_in_the_source() -> None:
    page = (DOCS / "troubleshooting.md").read_text()
    quoted = [q.replace("\\*", "*") for q in re.findall(r"^> (.*)$", page, re.M)]
    assert len(quoted) >= 20
    patterns = [re.compile(p, re.S) for p in set(sentences())]
    missing = [q for q in quoted if not any(p.fullmatch(q) for p in patterns)]
    assert not missing


def sentences() -> Iterator[str]:
    """The longer texts of the source as patterns: what is put in may be anything."""
    for file in (ROOT / "gansuite").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else None for p in node.values]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts = [node.value]
            else:
                continue
            if sum(len(str(p)) for p in parts if p) >= 15:
                yield "(gansuite: )?" + "".join(".*" if p is None else re.escape(p) for p in parts)


# --- the site -----------------------------------------------------------------------------------


def test_every_page_is_in_a_list_of_the_index() -> None:
    links = re.findall(r"^- \[[^\]]*\]\(([^)]+)\)", (DOCS / "index.md").read_text(), re.M)
    pages = [p for s in ("*.md", "*.ipynb") for p in DOCS.rglob(s) if p.name != "index.md"]
    assert sorted(links) == sorted(str(p.relative_to(DOCS)) for p in pages)


def test_the_citation_is_of_this_version() -> None:
    told = reference.yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(told["version"]) == reference.gansuite.__version__
    assert told["authors"] == [{"name": "gansuite maintainers"}]
    assert not {"doi", "url", "repository-code"} & told.keys()


def test_links_of_pages_outside_the_site_lead_somewhere() -> None:
    for page in ("README.md", "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^)#:]+)[^)]*\)", (ROOT / page).read_text()):
            assert (ROOT / link).exists(), (page, link)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing(tmp_path: Path) -> None:
    pytest.importorskip("furo", reason="needs the extra docs")
    built(DOCS, tmp_path / "site")
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(PAGES)
    for page in pages:
        loads = re.findall(
            r"<(?:link|script|img|iframe)[^>]*(?:href|src)=\"([^\"]*)\"", page.read_text()
        )
        assert not [x for x in loads if re.match(r"(https?:)?//", x)], page
    for style in (tmp_path / "site/_static").rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//|@import", style.read_text()), style
    text = (tmp_path / "site/reference/api.html").read_text()
    for name in reference.public():
        assert f"gansuite.{name}" in text, name


@pytest.mark.slow
def test_a_dead_link_and_a_forgotten_page_fail(tmp_path: Path) -> None:
    pytest.importorskip("furo", reason="needs the extra docs")
    docs = tmp_path / "docs"
    shutil.copytree(DOCS / "_ext", docs / "_ext")
    (docs / "_static").mkdir()
    shutil.copy(DOCS / "conf.py", docs)
    (docs / "index.md").write_text("# A\n\n## B\n\n- [c](c.md)\n\n[x](gone.md) [y](c.md#nowhere)\n")
    (docs / "c.md").write_text("# C\n")
    (docs / "d.md").write_text("# D\n")
    with pytest.raises(AssertionError) as failed:
        built(docs, tmp_path / "site")
    for what in ("gone.md", "nowhere", "d.md: WARNING: document isn't included in any toctree"):
        assert what in str(failed.value)


def built(docs: Path, site: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-E", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, str(docs), str(site)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert not done.returncode, done.stderr


@pytest.mark.slow
def test_a_public_name_without_a_docstring_is_told(monkeypatch: Any) -> None:
    pytest.importorskip("myst_parser", reason="needs the extra docs")
    import site_pages

    told: list[str] = []
    monkeypatch.setattr(site_pages.log, "warning", lambda text, *names: told.append(text % names))
    given: Any = None
    site_pages.documented(given, "class", "gansuite.X", given, given, [])
    site_pages.documented(given, "class", "gansuite.Y", given, given, ["It is."])
    assert told == ["gansuite.X has no docstring"]


# --- blocks of code -----------------------------------------------------------------------------

TINY = (
    *("data.batch=2", "log.wandb=disabled", "trainer.accelerator=cpu", "log.every_kimg=0.008"),
    *("evaluate.pictures=8", "evaluate.samples=2", "evaluate.learned=false"),
    *("evaluate.best_by=fd_random", "evaluate.every_kimg=null"),
)
COATS = ("data.train=16", "data.test=8", "data.size=32")
PROGRAMS = ("gansuite", "make", "python", "pip", "npm", "torchrun", "srun")

# what is parsed but not run -> why
NOT_RUN = {
    r"^make (test|fast|lint|docs|bench)\b": "the tests themselves, the linters, the site",
    r"^make compare$": "ten methods, minutes",
    r"^pip install": "needs a package index",
    r"--on (slurm|script)": "needs a SLURM: tests/test_cluster.py",
    r"^(torchrun|srun) ": "needs several nodes: tests/test_nodes.py",
    r"s3://": "needs an address: tests/test_remote.py",
    r"horse2zebra|h2z": "needs photographs that are downloaded, or published weights",
    r"^python (benchmarks|docs)/": "takes minutes, or writes the pages themselves",
    r"^gansuite import ": "needs published weights: tests/test_import.py",
    r"^gansuite demo ": "waits for a browser: tests/test_demo.py",
    r"^npm |--ort ": "needs a package of npm: tests/test_webpage.py",
    r"^gansuite (sync|workspace|fetch-metrics)": "needs an account or a network",
    r"name=(source|scratch|fine)|compare_coats": "measurements, minutes",
}


class Block(NamedTuple):
    page: str
    kind: str  # shell, python, yaml or text
    text: str


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page; one that says no language is a shell's by its first word."""
    found = []
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)
    for language, text in fences:
        first = next((x for x in text.splitlines() if x.strip() and x[0] != "#"), "")
        word = (first.split() or [""])[0]
        ours = not language and (word in PROGRAMS or re.match(r"\w+=", word))
        kind = "shell" if ours or language in ("sh", "bash", "shell", "console") else language
        found.append(Block(page, kind or "text", text))
    return found


def commands(text: str) -> list[list[str]]:
    """The commands of a shell block as the shell itself reads them, loops and all."""
    script = "".join(f"{p}() {{ printf '%s\\0' {p} \"$@\"; printf '\\n\\0'; }}\n" for p in PROGRAMS)
    done = subprocess.run(
        ["bash", "-euc", script + text], capture_output=True, text=True, check=True
    )
    found: list[list[str]] = [[]]
    for word in done.stdout.split("\0")[:-1]:
        if word == "\n":
            found.append([])
        else:
            found[-1].append(word)
    return found[:-1]


def as_gansuite(words: list[str]) -> list[str] | None:
    """What a command asks of gansuite; None for nothing."""
    program, *rest = words
    if program == "gansuite":
        return rest
    if program in ("torchrun", "srun"):
        return rest[rest.index("gansuite") + 1 :]
    if program == "make":
        given = dict(w.split("=", 1) for w in rest[1:])
        more = shlex.split(given.get("ARGS", ""))
        if rest[0] == "exp":
            return ["exp", given["NAME"], *more]
        if rest[0] == "compare":
            seeds = given.get("SEEDS")
            names = given.get("NAMES", "compare_coats").split()
            return [
                "compare",
                *names,
                *([f"seeds={','.join(seeds.split())}"] if seeds else []),
                *more,
            ]
    return None


def check(words: list[str]) -> None:
    """A command is one that there is; raises for a mistake in it."""
    program, *rest = words
    ours = as_gansuite(words)
    if ours is not None:
        args = cli._parsed(cli._parser(), ours)
        if ours[0] in ("exp", "config", "check-data"):
            catalogue.load_experiment(args.name, args.overrides)
        elif ours[0] == "compare":
            known = catalogue.config.experiment_files()
            overrides = [a for a in args.arguments if re.match(r"(data|method|evaluate)\.", a)]
            for name in known.keys() & set(args.arguments):
                catalogue.load_experiment(name, overrides)
    elif program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.M), rest
    elif program == "npm":
        assert rest == ["pack", "onnxruntime-web"]
    elif program == "pip":
        extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.M)
        for name in re.findall(r"\[([\w,]+)\]", " ".join(rest)):
            assert set(name.split(",")) <= set(extras), name
    elif program == "python":
        assert (ROOT / rest[0]).is_file(), rest
        source = (ROOT / rest[0]).read_text()
        for option in (w for w in rest[1:] if w.startswith("--")):
            assert f'"{option}"' in source, option
    else:
        raise AssertionError(words)


def tiny(name: str, overrides: Sequence[str]) -> list[str]:
    """What makes an experiment take a moment."""
    given = catalogue.load_experiment(name, overrides)
    small = {k: v for k, v in helpers.SMALL.items() if k in given.method}
    data = COATS if given.data["name"] == "coats" else ("data.size=32", "data.load_size=null")
    found = [f"method.{key}={value}" for key, value in small.items()]
    return [*found, *data, *TINY]


def run(words: list[str]) -> None:
    """Run a command at toy size."""
    args = cli._parsed(cli._parser(), words)
    match words[0]:
        case "exp":
            more = [*tiny(args.name, args.overrides), "budget.kimg=0.016"]
        case "compare":
            names = [a for a in args.arguments if "=" not in a]
            sizes = [
                tiny(n, [a for a in args.arguments if a[:5] in ("data.", "metho")]) for n in names
            ]
            more = [x for x in sizes[0] if all(x in s for s in sizes)]
            more += ["budget.kimg=0.016", "seeds=0", "rank_by=fd_random"]
            for one in make_plan(
                [*args.arguments, *more]
            ).runs:  # here, not in a process of its own
                call(["exp", *one.arguments])
        case "sample":
            more = ["-n", "2", "--steps", "2"]
        case "project":
            more = ["--steps", "2"]
        case "score" | "export-test":
            more = [*COATS, *TINY[-4:]]
        case _:
            more = []
    call([*words, *more])


def call(words: list[str]) -> str:
    """A command in this process; what it printed."""
    out = io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
        pytest.raises(SystemExit) as end,
    ):
        cli.main(words)
    assert not end.value.code, f"gansuite {shlex.join(words)}\n{out.getvalue()}"
    return out.getvalue()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as a reader may have it: pictures, and a run of everything that is used."""
    folder = tmp_path_factory.mktemp("session")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("gansuite.compare.charts.chart", lambda *_, **__: "")
        patch.setattr("gansuite.compare.curves.scatter", lambda *_, **__: "")
        for side in ("trainA", "trainB", "testA", "testB"):
            pictures(folder / "mypictures" / side, 8)
        pictures(folder / "holiday_photos", 2)
        for name in ("photo.jpg", "painting.jpg", "picture.jpg", "horse.png"):
            Image.open("holiday_photos/0.png").save(name)
        run(["exp", "cyclegan_coats"])
        yield folder


def pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = np.random.default_rng([len(str(folder)), i]).integers(
            0, 255, (48, 64, 3), np.uint8
        )
        Image.fromarray(pixels).save(folder / f"{i}.png")


def prepare(page: str) -> None:
    """What a page takes for granted."""
    if page == "README.md":
        for name in ("vanilla_coats", "adain_coats", "stylegan_coats"):
            made = helpers.untrained(name, Path.cwd())
            place = Path("runs", name, "seed0", "checkpoints", "last.ckpt")
            place.parent.mkdir(parents=True)
            made.rename(place)
        call(["export-test", "cyclegan_coats", "theirs", *COATS])
        for source, name in (("horse", "a2b"), ("zebra", "b2a")):
            Path("theirs", source).rename(Path("theirs", name))
    if page == "docs/use.md":
        film(Path("horses.mp4"))


def film(path: Path) -> None:
    av = pytest.importorskip("av", reason="needs the extra video")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=4)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * i, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_yaml(text: str) -> None:
    """An experiment whose first line says its file."""
    found = re.match(r"# (experiments/\w+\.yaml)\n", text)
    if found:
        Path("experiments").mkdir(exist_ok=True)
        Path(found[1]).write_text(text)
        catalogue.load_experiment(Path(found[1]).stem)


@pytest.mark.slow
def test_every_block_runs(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of all pages, in order and in one folder; a run that is there is left alone."""
    found = {"shell": 0, "python": 0}
    ran = 0
    for page in PAGES:
        if page == "docs/adding_a_method.md":
            continue
        prepare(page)
        names: dict[str, Any] = {}
        for block in blocks(page):
            if block.kind == "yaml":
                write_yaml(block.text)
            if block.kind not in found:
                continue
            found[block.kind] += 1
            if block.kind == "python":
                if "gansuite.Evaluate()" not in block.text:  # tests/test_library.py runs that one
                    exec(compile(ready(block.text), page, "exec"), names)
                    ran += 1
                continue
            for words in commands(block.text):
                check(words)
                ours = as_gansuite(words)
                if not any(re.search(why, shlex.join(words)) for why in NOT_RUN):
                    assert ours is not None, words
                    run(ours)
                    ran += 1
    assert found["shell"] >= 28
    assert found["python"] >= 9
    assert ran >= 43  # commands, and blocks of Python


def ready(text: str) -> str:
    """A block with the files that it names, which another of the page does not make."""
    if "zebra.onnx" in text:
        Path("zebra.onnx").unlink()  # the one before was exported without --uint8
        call(["export", "runs/cyclegan_coats/seed0", "zebra.onnx", "--to", "zebra", "--uint8"])
    if "zebra.pt2" in text:
        call(["export", "runs/cyclegan_coats/seed0", "zebra.pt2", "--to", "zebra"])
    if text.startswith("def inference"):
        return f"import torch\nfrom gansuite.methods.base import Inference\n{text}"
    return text


@pytest.mark.slow
def test_the_method_that_is_added(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gansuite.methods

    code, options = [b for b in blocks("docs/adding_a_method.md") if b.kind in ("python", "yaml")]
    Path("methods").mkdir()
    Path("methods/lsgan_toy.py").write_text(code.text)
    Path("experiments").mkdir(exist_ok=True)
    Path("experiments/lsgan_toy_coats.yaml").write_text(options.text)
    monkeypatch.setattr(gansuite.methods, "__path__", [*gansuite.methods.__path__, "methods"])
    assert method_class("lsgan_toy").title
    run(["exp", "lsgan_toy_coats"])
    assert (session / "runs/lsgan_toy_coats/seed0/results.json").is_file()


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    books = list((DOCS / "notebooks").glob("*.ipynb"))
    assert books
    for book in books:
        names: dict[str, Any] = {}
        cells = json.loads(book.read_text())["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        assert len(code) >= 5
        assert not any(cell.get("outputs") for cell in cells)
        for text in code:
            exec(compile(text, book.name, "exec"), names)
        assert np.isfinite(list(names["scores"].values())).all()
        assert names["trainer"].global_step == names["STEPS"]
        assert isinstance(names["shown"]["zebra"], torch.Tensor)


def test_blocks_are_found_and_mistakes_in_them_are_seen() -> None:
    text = (
        'for i in 1 2; do\n  gansuite exp cyclegan_coats "seed=$i" \\\n  budget.kimg=1  # so\ndone'
    )
    assert commands(text) == [
        ["gansuite", "exp", "cyclegan_coats", f"seed={i}", "budget.kimg=1"] for i in (1, 2)
    ]
    for wrong in ("gansuite exq a", "gansuite exp cyclegan_coats data.bacth=2"):
        with pytest.raises(UserError):
            check(shlex.split(wrong))
    for wrong in ("make expp", "pip install 'gansuite[nothing]'", "python benchmarks/none.py"):
        with pytest.raises(AssertionError):
            check(shlex.split(wrong))
