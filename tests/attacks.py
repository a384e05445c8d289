"""Bad input in quantity: `Case` by `Case`, drawn by hypothesis strategies or named because it once
did harm; a `Workshop` that tries them; and what is expected of all of them alike:

it works, or it is exactly one sentence and exit code 2; and in either case nothing half-written, no
process and no temporary file is left, and a training that ends has the numbers of one in peace.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from forked import Ended, run, told_badly
from helpers import difference, experiment
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pages import make_run
from PIL import Image

from gansuite.runs import read_checkpoint, write_checkpoint

RUN = "runs/vanilla_coats/seed0"
E = "e.yaml"
KINDS = ("configuration", "record", "picture", "folder")
_UNLIKE = ("clock", "lengths", "experiment")  # parts of a checkpoint in which equal runs differ
_CLOCKS = ("seconds", "eval_seconds", "evaluation_share", "images_per_second")
_PEAKS = ("peak_memory_mb", "peak_memory_eval_mb")  # of all memory of the process


@dataclass(frozen=True)
class Change:
    """One thing done to the case's folder before the command.

    ``what``: write (``value`` bytes), folder, link (to ``value``), pipe, remove, cut (to the share
    ``value``), flip (bit ``value`` of the file, modulo), json / lines / yaml / checkpoint (put
    ``value`` in the place that ``picks`` lead to: at each level a key, or a number modulo
    the keys), blot (the second half of a file with 0x80), nan (into all numbers of a checkpoint).
    """

    what: str
    path: str
    value: Any = None
    picks: tuple[int | str, ...] = ()

    def __str__(self) -> str:
        shown = "" if self.value is None else f" {_short(self.value)}"
        return f"{self.what} {self.path!r}{shown}{list(self.picks) if self.picks else ''}"


@dataclass(frozen=True)
class Case:
    """``words``: the command. ``base``: which of the workshop's folders it gets a copy of, "" for
    an empty one. ``batches``: after how many a training is stopped, 0 for never. ``exact``: if it
    ends well, it has the numbers of a run in peace. ``images``: if it trains, on so many pictures
    of all domains together."""

    kind: str
    words: tuple[str, ...]
    base: str = ""
    changes: tuple[Change, ...] = ()
    batches: int = 2
    exact: bool = False
    images: int | None = None

    def __str__(self) -> str:
        told = "; ".join(map(str, self.changes))
        return f"gansuite {' '.join(map(_short, self.words))}{f'  after: {told}' * bool(told)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("ascii", "backslashreplace").decode()
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


@dataclass(frozen=True)
class Verdict:
    """What came of a case. ``fault``: "" or a word for what is wrong, ``detail`` more of it."""

    case: Case
    ended: Ended
    fault: str = ""
    detail: str = ""

    def __str__(self) -> str:
        said = self.ended.err.strip().splitlines()
        last = "\n    ".join(line[:300] for line in said[-4:])
        return (
            f"{self.fault} {self.detail}\n  {self.case}\n  exit code {self.ended.code} after "
            f"{self.ended.seconds:.1f} s; stderr ends with:\n    {last}"
        )


# -- the workshop --------------------------------------------------------------------------------


class Workshop:
    """Folders to be spoilt, made once, and the trying of cases on copies of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.cache.mkdir(parents=True, exist_ok=True)
        self._makers: dict[str, Callable[[Path], None]] = {
            "": lambda at: None,
            "whole": lambda at: self._trained(at, "vanilla_coats", None),
            "stopped": lambda at: self._trained(at, "vanilla_coats", 5),
            "translator": lambda at: self._trained(at, "cyclegan_coats", None),
            "compared": _made_up,
            "pictures": _pictures,
        }

    def base(self, name: str) -> Path:
        """The folder ``name``, made at the first call."""
        path = self.folder / f"base-{name or 'empty'}"
        if not path.exists():
            making = self.folder / "making"
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            self._makers[name](making)
            making.rename(path)
        return path

    def _trained(self, at: Path, name: str, batches: int | None) -> None:
        e = experiment(name, Path("runs"), 8)
        (at / E).write_text(e.yaml())
        ended = run(["exp", E], at, cache=self.cache, batches=batches, limit=600)
        if ended.code != (75 if batches else 0):
            raise RuntimeError(f"{name} does not train: {ended.err}")
        (at / "in.png").write_bytes(picture("RGB", (40, 40), "PNG"))

    def try_(self, case: Case) -> Verdict:
        """Run a case in a fresh folder, which is removed again."""
        place = self.folder / "case"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.base(case.base), place, symlinks=True)
        cache = self.cache
        if any(c.path.startswith("cache/") for c in case.changes):
            cache = place / "cache"
            shutil.copytree(self.cache, cache)
        with contextlib.suppress(OSError):  # names that this file system does not take
            for change in case.changes:
                apply(change, place)
        before = set(tree(place))
        ended = run(case.words, place, cache=cache, batches=case.batches or None)
        fault = told_badly(ended)
        detail = ""
        if not fault:
            fault, detail = self._found(case, ended, place, before)
        shutil.rmtree(place, ignore_errors=True)
        return Verdict(case, ended, fault, detail)

    def _found(self, case: Case, ended: Ended, place: Path, before: set[str]) -> tuple[str, str]:
        new = [place / p for p in tree(place) if p not in before]
        # of an earlier kill, what is ours goes at the next start
        if left := temporary([place / p for p in tree(place)] if case.exact else new):
            return "leftover", str(left[0].relative_to(place))
        for path in new:
            if broken := half_written(path):
                return "half-written", f"{path.relative_to(place)}: {broken}"
        if ended.code == 2:
            for path in new:
                bare = path.is_dir() and not any(p.is_file() for p in path.rglob("*"))
                begun = path.name == "config.yaml" and not (path.parent / "metrics.jsonl").exists()
                if bare or begun:
                    return "leftover", f"{path.relative_to(place)} of a command that was refused"
        peace = self.base("whole") / RUN
        exact = ended.code == 0 and case.exact
        if exact and (unlike := difference(outcome(place / RUN), outcome(peace))):
            return "no page" if unlike.startswith("/page") else "wrong numbers", unlike
        if ended.code in (0, 75) and case.images is not None:
            for path in new:
                if path.name == "last.ckpt":
                    counts = read_checkpoint(path)["data"]["counts"]["train"]
                    if sum(counts.values()) != case.images:
                        return "wrong numbers", f"trained on {counts}, there are {case.images}"
        return "", ""


def _made_up(at: Path) -> None:
    for method in ("cyclegan", "dualgan"):
        make_run(at, method, 0, kimg=1)


def _pictures(at: Path) -> None:
    for side in ("trainA", "trainB", "testA", "testB"):
        (at / "set" / side).mkdir(parents=True)
        for i in range(4):
            shade = 20 + 20 * i + 7 * len(side) + ord(side[-1])
            content = picture("RGB", (40, 40), "PNG", shade)
            (at / "set" / side / f"{i}.png").write_bytes(content)
    e = experiment("cyclegan_coats", Path("runs"), 2).plain()
    e["data"] = {"name": "unpaired", "root": "set", "size": 32, "batch": 2}
    (at / E).write_text(yaml.safe_dump(e))


def tree(folder: Path) -> list[str]:
    """Every path below ``folder``, links not followed."""
    found = []
    for here, folders, files in os.walk(folder):
        found += [os.path.relpath(os.path.join(here, n), folder) for n in (*folders, *files)]
    return sorted(found)


def temporary(paths: list[Path]) -> list[Path]:
    """Those that are a file being written (locks are not: they stay on purpose)."""
    return [p for p in paths if p.is_file() and p.name.startswith(".") and "lock" not in p.name]


def half_written(path: Path) -> str:
    """What is wrong with a file that a command wrote; "" when it is whole."""
    if not path.is_file():
        return ""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            text = path.read_text()
            [json.loads(line) for line in text.splitlines()]
            return "" if text.endswith("\n") or not text else "its last line is cut off"
        elif path.suffix == ".yaml":
            yaml.safe_load(path.read_text())
        elif path.suffix == ".ckpt":
            read_checkpoint(path)
        elif path.suffix in (".png", ".jpg"):
            with Image.open(path) as image:
                image.load()
        elif path.suffix == ".html" and "</html>" not in path.read_text():
            return "it does not end"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def outcome(seed_folder: Path) -> dict[str, Any]:
    """All that two runs of the same settings must share, to the bit."""
    lines = (seed_folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    found: dict[str, Any] = {"metrics": dict(enumerate(lines, 1))}
    for name in ("last", "best"):
        content = read_checkpoint(seed_folder / "checkpoints" / f"{name}.ckpt")
        # a run that was asked to stop has saved once more than one in peace
        content["notes"].get("last_acted", {}).pop("save", None)
        found[name] = {k: v for k, v in content.items() if k not in _UNLIKE}
    results = json.loads((seed_folder / "results.json").read_text())
    results["cost"] = {k: v for k, v in results["cost"].items() if k not in (*_CLOCKS, *_PEAKS)}
    return {**found, "results": results, "page": (seed_folder / "report.html").is_file()}


# -- changes -------------------------------------------------------------------------------------


def apply(change: Change, place: Path) -> None:
    """Do ``change`` below ``place``. Raises OSError where the file system refuses."""
    path, value = place / change.path, change.value
    if change.what not in ("remove", "cut", "flip"):
        path.parent.mkdir(parents=True, exist_ok=True)
    if change.what in ("json", "lines", "yaml", "checkpoint", "cut", "flip", "blot", "nan"):
        files = sorted(place.glob(change.path))
        path = files[0]  # `cache/*.npy` and the like
    if path.is_fifo():  # drawn twice: whoever opens it waits for ever
        path.unlink()
    if change.what == "write":
        path.write_bytes(value)
    elif change.what == "folder":
        path.mkdir()
    elif change.what == "link":
        path.symlink_to(value)
    elif change.what == "pipe":
        os.mkfifo(path)
    elif change.what == "remove":
        path.unlink() if path.is_file() else shutil.rmtree(path)
    elif change.what == "cut":
        os.truncate(path, int(value * path.stat().st_size))
    elif change.what == "flip":
        content = bytearray(path.read_bytes())
        content[value // 8 % len(content)] ^= 1 << value % 8
        path.write_bytes(content)
    elif change.what == "blot":
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2].ljust(len(content), b"\x80"))
    elif change.what == "nan":
        write_checkpoint(path, spoilt(torch.load(path, weights_only=True)))
    elif change.what == "json":
        path.write_text(json.dumps(replaced(json.loads(path.read_text()), change.picks, value)))
    elif change.what == "yaml":
        text = yaml.safe_dump(replaced(yaml.safe_load(path.read_text()), change.picks, value))
        path.write_text(text)
    elif change.what == "lines":
        lines = path.read_text().splitlines()
        n = change.picks[0] % len(lines)
        lines[n] = json.dumps(replaced(json.loads(lines[n]), change.picks[1:], value))
        path.write_text("\n".join(lines) + "\n")
    elif change.what == "checkpoint":
        content = torch.load(path, weights_only=True)
        write_checkpoint(path, replaced(content, change.picks, value))
    else:
        raise ValueError(change.what)


def spoilt(content: Any) -> Any:
    """``content`` with no number in any tensor of floats."""
    if isinstance(content, torch.Tensor):
        return torch.full_like(content, torch.nan) if content.is_floating_point() else content
    if isinstance(content, dict):
        return {k: spoilt(v) for k, v in content.items()}
    return [spoilt(v) for v in content] if isinstance(content, list) else content


def replaced(content: Any, picks: tuple[int | str, ...], value: Any) -> Any:
    """``content`` with ``value`` where ``picks`` lead to; REMOVE takes the key away."""
    if not picks or not isinstance(content, dict | list) or not content:
        return value
    copy, key = content.copy(), picks[0]
    if isinstance(key, int):
        key = sorted(content, key=str)[key % len(content)] if isinstance(content, dict) else key
    if isinstance(content, list):
        key = int(key) % len(content)
    if value == REMOVE and (len(picks) == 1 or not isinstance(content[key], dict | list)):
        del copy[key]
    else:
        copy[key] = replaced(content[key], picks[1:], value)
    return copy


REMOVE = "\0remove"


def picture(mode: str, size: tuple[int, int], form: str, shade: int = 90) -> bytes:
    """The bytes of a picture file. Raises OSError or ValueError for what PIL does not write."""
    pixels = np.random.default_rng(shade).integers(0, 255, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(pixels)
    if mode in ("I;16", "I", "F"):
        image = image.convert("L").convert("I" if mode != "F" else "F")
        image = (
            image.convert(mode)
            if mode != "I;16"
            else Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
        )
    else:
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


# -- strategies ----------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        *("", " ", "0", "-1", "1", "2", "7", "1000000000", str(2**31), str(2**63), str(10**30)),
        *("nan", "inf", "-inf", ".nan", ".inf", "1e308", "-1e308", "1e-300", "0.5", "-0.5", "1e4"),
        *("null", "true", "no", "~", "[]", "{}", "[1]", "[1,2]", "[[]]", "{a: 1}", "[1,", "{", "}"),
        *("abc", "'1'", '"', "a: b", "- 1", "#", "&a", "*a", "!!python/none", "!!binary x", "???"),
        *("${seed}", "${no.such}", "${", "${out}", "${oc.env:HOME}", "${method}", "\u2603", "\\"),
        *(
            "../..",
            "/",
            "/dev/null",
            "~nouser/x",
            "a/b",
            "a" * 300,
            "x\ny",
            "x\ty",
            "\x7f",
            "\u202e",
        ),
    ]
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2**31, 2**63, 10**30]),
    st.sampled_from([0.0, -0.5, 1e308, float("nan"), float("inf")]),
    st.sampled_from(["", "x", "=1+1", "<b>", "\\input{x}", "a\nb", "\u2603", "0", REMOVE]),
    st.sampled_from([[], {}, [1], [[]], {"": 0}, {"a": {}}, ["x", None]]),
)
PICKS = st.lists(st.integers(0, 40), min_size=1, max_size=4).map(tuple)
EXPERIMENTS = st.sampled_from(
    [f"{m}_coats" for m in ("vanilla", "cyclegan", "stylegan", "stargan", "dualgan", "discogan")]
)


def _paths(value: Any, where: str = "") -> Iterator[str]:
    for key, inner in value.items():
        yield f"{where}{key}"
        if isinstance(inner, Mapping):
            yield from _paths(inner, f"{where}{key}.")


TINY = experiment("vanilla_coats", Path("runs"), 8).plain()
KEYS = sorted(_paths(TINY))


@st.composite
def configurations(draw: Callable[..., Any]) -> Case:
    """Overrides with wild values and misspelt keys, and experiment files that are hardly YAML."""
    form = draw(st.sampled_from(["value", "key", "file", "text", "train"]))
    if form == "file":
        text = draw(_files())
        return Case("configuration", ("config", "x.yaml"), "", (Change("write", "x.yaml", text),))
    key = draw(st.sampled_from(KEYS))
    if form == "text":
        word = draw(st.text(max_size=12).filter(lambda s: "\0" not in s and _encodable(s)))
    else:
        word = draw(WORDS)
    if form == "key":
        place = draw(st.integers(0, len(key) - 1))
        key = draw(
            st.sampled_from([key[:place] + key[place + 1 :], key[:place] + "x" + key[place:]])
        )
    if form == "train":
        write = Change("write", "x.yaml", yaml.safe_dump(TINY).encode())
        return Case("configuration", ("exp", "x.yaml", f"{key}={word}"), "", (write,))
    name = draw(EXPERIMENTS)
    command = draw(st.sampled_from(["config", "config", "config", "check-data"]))
    return Case("configuration", (command, name, f"{key}={word}"))


def _encodable(text: str) -> bool:
    with contextlib.suppress(UnicodeEncodeError):
        return bool(text.encode()) or not text
    return False


@st.composite
def _files(draw: Callable[..., Any]) -> bytes:
    """The bytes of an experiment file, of one that was spoilt, or of something else."""
    text = yaml.safe_dump(TINY).encode()
    form = draw(
        st.sampled_from(["value", "spoilt", "nested", "aliases", "bytes", "extends", "list"])
    )
    if form == "value":
        content = replaced(TINY, draw(PICKS), draw(VALUES))
        return yaml.safe_dump(content, allow_unicode=True).encode()
    if form == "spoilt":
        place, more = draw(st.integers(0, len(text))), draw(st.integers(0, 40))
        inside = draw(
            st.sampled_from([b"", b"\t", b":", b"- ", b"\0", b"\xff", b"{", b"\r", b"*a"])
        )
        return text[:place] + inside + text[place + more :]
    if form == "nested":
        depth = draw(st.sampled_from([10, 200, 3000]))
        return b"seed: " + b"[" * depth + b"]" * depth
    if form == "aliases":
        lines = ["a0: &a0 [1, 1]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 12))]
        return "\n".join(lines).encode()
    if form == "extends":
        return b"extends: " + draw(WORDS).encode()
    return draw(st.binary(max_size=40)) if form == "bytes" else b"- 1\n- 2\n"


@st.composite
def records(draw: Callable[..., Any]) -> Case:
    """Files of a run that are no longer what the run wrote."""
    form = draw(st.sampled_from(["compare", "checkpoint", "lines", "bytes", "cache", "config"]))
    picks, value = draw(PICKS), draw(VALUES)
    if form == "compare":
        run = "cyclegan_coats/seed0"
        what, file = draw(
            st.sampled_from(
                [
                    *(("json", "results.json"), ("json", "environment.json")),
                    *(("lines", "metrics.jsonl"), ("lines", "timing.jsonl")),
                    ("yaml", "config.yaml"),
                ]
            )
        )
        words: tuple[str, ...] = ("compare", "cyclegan_coats", "dualgan_coats", "name=c")
        words = draw(st.sampled_from([words, ("report", run)]))
        words = tuple(w if "_" not in w or "/" in w else f"./{w}" for w in words)
        change = Change(what, f"{run}/{file}", value, picks)
        return Case("record", words, "compared", (change,))
    commands = [("exp", E), ("sample", RUN, "o", "-n", "2"), ("evaluate", RUN), ("report", RUN)]
    words = draw(st.sampled_from(commands))
    base = draw(st.sampled_from(["whole", "stopped"])) if words[0] != "exp" else "stopped"
    file = draw(st.sampled_from(["checkpoints/last.ckpt", "metrics.jsonl", "timing.jsonl"]))
    if form == "checkpoint":
        change = Change("checkpoint", f"{RUN}/checkpoints/last.ckpt", value, picks)
        return Case("record", words, base, (change,))
    if form == "cache":
        change = Change("flip", "cache/coats-train-*.npy", draw(st.integers(2048, 10**9)))
        return Case("record", ("exp", E), "stopped", (change,), batches=0, exact=True)
    if form == "lines":
        file = draw(st.sampled_from(["metrics.jsonl", "timing.jsonl"]))
        return Case("record", words, base, (Change("lines", f"{RUN}/{file}", value, picks),))
    if form == "config":
        file = draw(st.sampled_from(["config.yaml", "environment.json"]))
        change = Change("yaml" if file[0] == "c" else "json", f"{RUN}/{file}", value, picks)
        return Case("record", words, base, (change,))
    damage = draw(
        st.one_of(
            st.floats(0, 1, exclude_max=True).map(lambda s: Change("cut", f"{RUN}/{file}", s)),
            st.integers(0, 10**9).map(lambda b: Change("flip", f"{RUN}/{file}", b)),
            st.just(Change("remove", f"{RUN}/{file}")),
        )
    )
    exact = words[0] == "exp" and not (damage.what == "flip" and file == "timing.jsonl")
    exact = exact and not (damage.what == "remove" and file.endswith(".ckpt"))
    return Case("record", words, base, (damage,), batches=0 if exact else 2, exact=exact)


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16", "F"]
FORMS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "TIFF": "tif", "GIF": "gif", "BMP": "bmp"}
SIZES = [(1, 1), (1, 3), (3, 1), (40, 40), (1, 2000), (41, 39)]


@st.composite
def pictures(draw: Callable[..., Any]) -> Case:
    """Picture files that are damaged, misnamed, or merely odd."""
    content, ending = draw(_picture_files())
    name = draw(st.sampled_from([ending, *FORMS.values(), "PNG", "jpeg"]))
    form = draw(st.sampled_from(["check", "train", "translate"]))
    if form == "translate":
        write = Change("write", f"x.{name}", content)
        words = ("translate", "runs/cyclegan_coats/seed0", f"x.{name}", "o", "--to", "zebra")
        return Case("picture", words, "translator", (write,))
    side = draw(st.sampled_from(["trainA", "testB"]))
    write = Change("write", f"set/{side}/x.{name}", content)
    return _on_set("picture", (write,), "exp" if form == "train" else "check-data")


@st.composite
def _picture_files(draw: Callable[..., Any]) -> tuple[bytes, str]:
    """Bytes and the ending that would be right."""
    form = draw(st.sampled_from(sorted(FORMS)))
    mode, size = draw(st.sampled_from(MODES)), draw(st.sampled_from(SIZES))
    try:
        content = bytearray(picture(mode, size, form))
    except (OSError, ValueError, KeyError):
        content = bytearray(picture("RGB", size, form))
    if draw(st.booleans()):
        for _ in range(draw(st.integers(1, 8))):
            bit = draw(st.integers(0, 8 * min(len(content), 400) - 1))
            content[bit // 8] ^= 1 << bit % 8
    if draw(st.booleans()):
        content = content[: draw(st.integers(0, len(content)))]
    return bytes(content), FORMS[form]


def _on_set(
    kind: str, changes: tuple[Change, ...], command: str, images: int | None = None
) -> Case:
    """A command for CycleGAN on the four folders of pictures."""
    return Case(kind, (command, E), "pictures", changes, images=images)


NAMES = st.sampled_from(
    [
        *("x", "up", "x y", " ", "-x", "--help", "x\n", "x\t", "~", "$x", "${x}", "%s", "\u2603"),
        *(
            "e\u0301",
            "\u202e",
            "a" * 250,
            "\udcff",
            "\udce9x",
            ".x",
            "._x",
            "__x",
            "CON",
            "x" * 120,
        ),
        *("../x", "deep/er/x", "1", "0"),
    ]
)


@st.composite
def folders(draw: Callable[..., Any]) -> Case:
    """Layouts that a set of pictures should not have, or may."""
    changes = []
    for _ in range(draw(st.integers(1, 3))):
        side = draw(st.sampled_from(["trainA", "trainB", "testA", "testB", "."]))
        ending = draw(st.sampled_from(["", ".png", ".PNG", ".jpg", ".txt", ".png.png"]))
        path = f"set/{side}/{draw(NAMES)}{ending}"
        what = draw(st.sampled_from(["write", "folder", "link", "pipe", "remove", "empty"]))
        if what == "link":
            targets = [".", "..", "../..", "/", "/dev/null", "/dev/zero", "nowhere", "0.png"]
            targets += ["../testA", "../trainA/0.png", "../testA/1.png", Path(path).name]
            changes.append(Change("link", path, draw(st.sampled_from(targets))))
        elif what == "write":
            content = draw(st.sampled_from([picture("RGB", (40, 40), "PNG"), b"", b"x"]))
            changes.append(Change("write", path, content))
        elif what in ("remove", "empty"):
            changes.append(Change("remove", f"set/{side}"))
            if what == "empty" and side != ".":
                changes.append(Change("folder", f"set/{side}"))
        else:
            changes.append(Change(what, path))
    command = draw(st.sampled_from(["check-data", "check-data", "exp", "export-test"]))
    case = _on_set("folder", tuple(changes), command)
    return replace(case, words=(*case.words, "o")) if command == "export-test" else case


STRATEGIES = {
    "configuration": configurations(),
    "record": records(),
    "picture": pictures(),
    "folder": folders(),
}


def cases(kind: str, count: int, number: int = 0) -> list[Case]:
    """``count`` cases of a kind, no two alike, the same for the same ``number``."""
    found: dict[str, Case] = {}

    @seed(number)
    @settings(
        max_examples=2 * count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(STRATEGIES[kind])
    def collect(case: Case) -> None:
        found.setdefault(str(case), case)

    collect()
    drawn = list(found.values())
    random.Random(number).shuffle(drawn)
    return drawn[:count]


# -- cases with a name ---------------------------------------------------------------------------

_YAML = Change("write", "x.yaml", yaml.safe_dump(TINY).encode())


def _exp(*overrides: str) -> Case:
    return Case("configuration", ("exp", "x.yaml", *overrides), "", (_YAML,))


def _set(*changes: Change, images: int | None = None, command: str = "exp") -> Case:
    return _on_set("folder", changes, command, images)


def _resumed(*changes: Change) -> Case:
    return Case("record", ("exp", E), "stopped", changes, batches=0, exact=True)


def _compared(*changes: Change) -> Case:
    words = ("compare", "./cyclegan_coats", "./dualgan_coats", "name=c")
    return Case("record", words, "compared", changes)


_EXTENDING = tuple(
    Change("write", f"e{i}.yaml", f"extends: [e{i + 1}, e{i + 1}]\n".encode()) for i in range(20)
)
_LAST, _METRICS = f"{RUN}/checkpoints/last.ckpt", f"{RUN}/metrics.jsonl"
NAMED: dict[str, Case] = {
    "a budget beyond all numbers": _exp("budget.kimg=1e308"),
    "a beta above 1": _exp("optim.g.betas=[1,2]"),
    "a negative alpha": _exp("optim.g.kind=rmsprop", "optim.g.alpha=-1"),
    "a negative momentum": _exp("optim.g.kind=sgd", "optim.g.momentum=-3"),
    "pictures smaller than the kernels": Case("folder", ("exp", E, "data.size=8"), "pictures"),
    "a value that doubles itself": _exp(
        "log.tags=[x,%s]" % ",".join(f"'${{log.tags[{i}]}}${{log.tags[{i}]}}'" for i in range(40))  # noqa: UP031
    ),
    "a home that nobody has": _exp("out=~nouser/x"),
    "two nodes without a launcher": _exp("trainer.num_nodes=2"),
    "a batch that no memory holds": _exp("data.batch=1000000000"),
    "a learning rate that ends in nothing finite": _exp("optim.g.lr=1e30", "optim.d.lr=1e30"),
    "brackets 3,000 deep": Case(
        "configuration",
        ("config", "x.yaml"),
        "",
        (Change("write", "x.yaml", b"seed: " + b"[" * 3000 + b"]" * 3000),),
    ),
    "files that extend two each, 20 deep": Case(
        "configuration",
        ("config", "e0.yaml"),
        "",
        (*_EXTENDING, Change("write", "e20.yaml", yaml.safe_dump(TINY).encode())),
    ),
    "a checkpoint with one bit flipped in a weight": _resumed(Change("flip", _LAST, 8 * 30_011)),
    "a checkpoint with one bit flipped further on": _resumed(Change("flip", _LAST, 8 * 60_011)),
    "a checkpoint that was cut": _resumed(Change("cut", _LAST, 0.7)),
    "metrics shorter than the checkpoint says": _resumed(Change("cut", _METRICS, 0.4)),
    "metrics that were removed": _resumed(Change("remove", _METRICS)),
    "metrics with a bit flipped": _resumed(Change("flip", _METRICS, 8 * 30 + 1)),
    "a cache that holds something else": _resumed(Change("blot", "cache/coats-train-*.npy")),
    "a checkpoint of another method": Case(
        "record",
        ("exp", E),
        "stopped",
        (Change("checkpoint", _LAST, {}, ("method", "networks")),),
    ),
    "a checkpoint without its notes' content": Case(
        "record", ("evaluate", RUN), "whole", (Change("checkpoint", _LAST, {}, ("notes",)),)
    ),
    "weights that are no numbers": Case(
        "record", ("evaluate", RUN), "whole", (Change("nan", _LAST),)
    ),
    "a resumed state that is no numbers": Case(
        "record", ("exp", E), "stopped", (Change("nan", _LAST),)
    ),
    "cost that is text": _compared(
        Change("json", "cyclegan_coats/seed0/results.json", "x", ("cost", "flops_per_image"))
    ),
    "a field that is not UTF-8": Case(
        "configuration", ("config", "x.yaml"), "", (Change("write", "x.yaml", b"name: \xe9"),)
    ),
    "killed between the results and the page": Case(
        "record",
        ("exp", E),
        "whole",
        (Change("remove", f"{RUN}/report.html"),),
        batches=0,
        exact=True,
    ),
    "what a kill while saving left": _resumed(
        Change("write", f"{RUN}/checkpoints/.last.ckpt.abcdefgh", b"x" * 1000)
    ),
    "a folder that cannot be written to": Case(
        "record",
        ("compare", "./cyclegan_coats", "./dualgan_coats", "name=c", "out=/proc/x"),
        "compared",
    ),
    "scores that are text": _compared(
        Change("json", "cyclegan_coats/seed0/results.json", "x", ("final", "a2b", "swd"))
    ),
    "results of another shape": _compared(
        Change("json", "cyclegan_coats/seed0/results.json", [], ("cost",))
    ),
    "a link to the folder above": _set(Change("link", "set/trainA/up", ".."), images=8),
    "a link to all that there is": _set(Change("link", "set/all", "/"), command="check-data"),
    "a folder of its own, linked as a picture": _set(
        Change("link", "set/testB/x.PNG", ".."), command="check-data"
    ),
    "a link to itself": _set(Change("link", "set/trainA/x.png", "x.png")),
    "a link to nowhere": _set(Change("link", "set/trainA/x.png", "nowhere")),
    "a pipe named as a picture": _set(Change("pipe", "set/trainA/z.png")),
    "a device named as a picture": _set(Change("link", "set/trainA/z.png", "/dev/zero")),
    "a file name that is not UTF-8": _set(
        Change("write", "set/trainA/\udce9.png", picture("RGB", (40, 40), "PNG")), images=9
    ),
    "a damaged file whose name is not UTF-8": _set(Change("write", "set/trainA/\udce9.png", b"x")),
    "one test picture per domain": _set(
        *(Change("remove", f"set/test{s}/{i}.png") for s in "AB" for i in range(1, 4))
    ),
}


@dataclass
class Tally:
    """Counts by kind and fault, and the faults themselves."""

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    faults: list[Verdict] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        row = self.counts.setdefault(verdict.case.kind, {})
        word = verdict.fault or ("refused" if verdict.ended.code == 2 else "worked")
        row[word] = row.get(word, 0) + 1
        if verdict.fault:
            self.faults.append(verdict)
