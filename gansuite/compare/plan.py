"""What a comparison consists of: names and overrides in, a `Plan` of runs on equal terms out.

The runs of a comparison lie in ``<out>/<comparison>/<experiment>/seed<k>``, apart from those of
``gansuite exp``: the same experiment at another budget is another run, and the folder as a whole
can be moved, kept or thrown away. A run that is there with another configuration is refused, as by
``gansuite exp``.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gansuite import config
from gansuite.catalogue import check_ranking, load_experiment
from gansuite.compare.entry import Axis, Entry, find_entries
from gansuite.compare.terms import SHARED, setting
from gansuite.config import Compare, Experiment
from gansuite.errors import UserError, nearest
from gansuite.evaluation.protocol import NEEDS
from gansuite.files import address_of, is_address
from gansuite.runs import Run, fetched, write_json

_OVERRIDE = re.compile(r"(\w+(?:\.\w+)*)=(.*)", re.DOTALL)
_BUDGET: tuple[Literal["kimg", "seconds", "pflop"], ...] = ("kimg", "seconds", "pflop")
# keys of the command line that speak of the comparison; all others go to every run
_OWN = ("seeds", "title", "rank_by", *(f"budget.{kind}" for kind in _BUDGET))
_LONGEST = 80


@dataclass(frozen=True)
class PlannedRun:
    """One run: what it is, and the arguments of ``gansuite exp`` that make it."""

    experiment: Experiment
    arguments: tuple[str, ...]

    @property
    def path(self) -> Path:
        return self.experiment.run_dir

    @property
    def row(self) -> str:
        return self.experiment.name

    @property
    def done(self) -> bool:
        return Run(self.path).done


@dataclass(frozen=True)
class Plan:
    """``runs``: experiment by experiment, seed by seed. ``entries``: results that are there."""

    name: str
    folder: Path
    spec: Compare
    axis: Axis | None
    jobs: int | None
    runs: tuple[PlannedRun, ...]
    entries: tuple[Entry, ...]
    command: str


def make_plan(
    arguments: Sequence[str],
    *,
    allow_unequal: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Plan:
    """The plan of ``gansuite compare ARGUMENTS``: experiments, comparison files, folders with
    results, and ``key=value``.

    Everything is validated before anything runs: names, overrides, budgets, protocols, data, and
    that no run exists with another configuration.

    Raises:
        UserError: one sentence.
    """
    names = [a for a in arguments if not _OVERRIDE.fullmatch(a)]
    given = {m[1]: m[2] for a in arguments if (m := _OVERRIDE.fullmatch(a))}
    out, label = config.out_path(given.pop("out", "runs")), given.pop("name", "")
    jobs = _jobs(given.pop("jobs", ""))
    files, experiments, folders = _sort(names)
    spec = config.load_comparison(files[0] if files else None, _own(given))
    experiments = [*spec.experiments, *(e for e in experiments if e not in spec.experiments)]
    check_ranking("rank_by", spec.rank_by)
    entries = [e for f in [*map(Path, spec.entries), *folders] for e in find_entries(f)]
    if not experiments and not entries:
        raise UserError("Nothing to compare: give experiments, or a comparison ('gansuite list').")
    name = label or (files[0].stem if files else _joined(experiments, entries))
    if not re.fullmatch(r"\w[\w.+@=-]*", name):
        raise UserError(
            f"'name' is {name!r}; it names a folder and is made of letters, digits and _ - . + = @."
        )
    folder = out / name
    common = [*spec.set, *(f"{k}={v}" for k, v in given.items() if k not in _OWN)]
    for item in common:
        key = item.partition("=")[0]
        if key in {*_OWN, "seed", "out", "name"}:
            raise UserError(f"'{key}' is the comparison's own and cannot be set for its runs.")
    axis = next((Axis(k, v) for k in _BUDGET if (v := getattr(spec.budget, k)) is not None), None)
    runs: list[PlannedRun] = []
    for experiment in experiments:
        budget = _budget(experiment, common, axis, folder, say)
        for seed in spec.seeds:
            own = [*common, *budget, f"seed={seed}", f"out={address_of(folder) or folder}"]
            if not any(item.startswith("log.group=") for item in common):
                own.append(f"log.group={name}")
            loaded = load_experiment(experiment, own)
            runs.append(PlannedRun(loaded, (experiment, *own)))
    option = NEEDS.get(spec.rank_by)
    if runs and option and not _given(runs[0].experiment, option):
        if option in ("learned", "style"):  # no files are wanted for these
            missing = f"'evaluate.{option}', which is off here; give rank_by=fd_random"
        else:
            missing = (
                f"a network's weights; give evaluate.{option} ('gansuite fetch-metrics' gets the "
                f"files)"
            )
        raise UserError(f"rank_by is '{spec.rank_by}', which needs {missing}.")
    for planned in runs:
        Run(planned.path).refresh(checkpoints=False)
        Run(planned.path).refuse_changes(planned.experiment)

    from gansuite.evaluation.extractor import check_weights  # by now nothing is misspelt

    for planned in runs:
        if not planned.done:
            check_weights(planned.experiment.evaluate)
    if not allow_unequal:
        _refuse_unequal(name, [r for r in runs if r.experiment.seed == spec.seeds[0]], axis)
    changed = [f"{k}={v}" for k, v in given.items()]
    keep = ["--allow-unequal"] if allow_unequal else []
    own_name = [f"name={label}"] if label else []
    command = shlex.join(["gansuite", "compare", *names, *changed, *own_name, *keep])
    return Plan(name, folder, spec, axis, jobs, tuple(runs), tuple(entries), command)


def _given(experiment: Experiment, option: str) -> bool:
    """Whether ``evaluate.<option>`` gives a network; `auto` does for data that are downloaded."""
    value = getattr(experiment.evaluate, option)
    if value == "auto":
        from gansuite.data import SOURCES
        from gansuite.evaluation.extractor import is_downloaded

        return is_downloaded(SOURCES[experiment.data["name"]])
    return bool(value)


def _jobs(text: str) -> int | None:
    if text and (not text.isdigit() or int(text) < 1):
        raise UserError(f"'jobs' is {text}; it is how many runs go on at once, 1 or more.")
    return int(text) if text else None


def _sort(names: Sequence[str]) -> tuple[list[Path], list[str], list[Path]]:
    """The comparison files (one at most), the experiments and the folders among ``names``."""
    files: list[Path] = []
    experiments: list[str] = []
    folders: list[Path] = []
    comparisons, known = config.comparison_files(), config.experiment_files()
    for name in dict.fromkeys(names):
        path = Path(name)
        if name in comparisons:
            files.append(comparisons[name])
        elif path.suffix in {".yaml", ".yml"} and path.stem.startswith(config.COMPARISON):
            if not path.is_file():
                raise UserError(f"There is no comparison file {name}.")
            files.append(path)
        elif name in known or path.suffix in {".yaml", ".yml"}:
            experiments.append(name)
        elif is_address(name):
            folders.append(fetched(name, checkpoints=False))
        elif path.is_dir():
            folders.append(path)
        else:
            raise UserError(
                f"There is no experiment, comparison or folder '{name}'"
                f"{nearest(name, [*known, *comparisons])} ('gansuite list' shows all)."
            )
    if len(files) > 1:
        raise UserError(f"One comparison at a time: {files[0].stem} or {files[1].stem}.")
    return files, experiments, folders


def _own(given: dict[str, str]) -> list[str]:
    """The overrides of the comparison itself; a budget replaces the one of the file."""
    found = []
    for key in _OWN:
        if key not in given:
            continue
        value = given[key]
        if key == "seeds":
            value = f"[{value.strip('[]')}]"
        found.append(f"{key}={value}")
    if any(item.startswith("budget.") for item in found):
        named = {item.partition("=")[0] for item in found}
        found += [f"budget.{kind}=null" for kind in _BUDGET if f"budget.{kind}" not in named]
    return found


def _joined(experiments: Sequence[str], entries: Sequence[Entry]) -> str:
    stems = [Path(e).stem for e in experiments] or list(dict.fromkeys(e.row for e in entries))
    text = "+".join(re.sub(r"[^\w.+@=-]", "_", stem) for stem in stems)
    if len(text) <= _LONGEST:
        return text
    return f"compare-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


def _budget(
    experiment: str,
    common: Sequence[str],
    axis: Axis | None,
    folder: Path,
    say: Callable[[str], None],
) -> list[str]:
    """The overrides that give ``experiment`` its share of the budget."""
    if axis is None:
        return []
    if axis.kind == "seconds":
        return ["budget.kimg=null", f"budget.seconds={axis.value}"]
    if axis.kind == "kimg":
        return [f"budget.kimg={axis.value}", "budget.seconds=null"]
    flops, per_batch = _flops(experiment, common, folder, say)
    batches = max(1, round(axis.value * 1e15 / flops / per_batch))
    return [f"budget.kimg={batches * per_batch / 1000:.10g}", "budget.seconds=null"]


def _flops(
    experiment: str, common: Sequence[str], folder: Path, say: Callable[[str], None]
) -> tuple[int, int]:
    """FLOPs per picture and pictures per batch, from ``flops.json`` or measured now."""
    loaded = load_experiment(experiment, [*common, "trainer.devices=1", "trainer.num_nodes=1"])
    facts = {"method": loaded.method, "data": loaded.data}
    key = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8).hexdigest()
    file = folder / "flops.json"
    known: dict[str, Any] = {}
    if file.is_file():
        try:
            known = json.loads(file.read_text())
        except ValueError:
            known = {}  # cut off: measured again
    if key not in known:
        from gansuite import engine

        say(f"{loaded.name}: counting the FLOPs of a few batches")
        flops, per_batch = engine.measure_flops(loaded)
        known[key] = {
            "experiment": loaded.name,
            "flops_per_image": flops,
            "images_per_batch": per_batch,
        }
        write_json(file, known)
    return int(known[key]["flops_per_image"]), int(known[key]["images_per_batch"])


def _refuse_unequal(name: str, runs: Sequence[PlannedRun], axis: Axis | None) -> None:
    """Raise for what can be seen before anything runs: it would be refused at the end."""

    def refuse(key: str, a: PlannedRun, x: Any, b: PlannedRun, y: Any, way: str) -> None:
        if x != y:
            raise UserError(
                f"{name} is not fair: '{key}' is {_shown(x)} for {a.row} and {_shown(y)} for "
                f"{b.row}; {way}, or give --allow-unequal to have it noted in the table."
            )

    for other in runs[1:]:
        first = runs[0]
        a, b = first.experiment, other.experiment
        if axis is None:
            for key in ("kimg", "seconds"):
                x, y = getattr(a.budget, key), getattr(b.budget, key)
                refuse(
                    f"budget.{key}",
                    first,
                    x,
                    other,
                    y,
                    f"give one for all, such as budget.kimg={a.budget.kimg or 32:g}",
                )
        for key in ("pictures", "weights", "inception", "vgg"):
            x, y = getattr(a.evaluate, key), getattr(b.evaluate, key)
            refuse(f"evaluate.{key}", first, x, other, y, "give the same to all")
        for key in SHARED:
            x, y = setting(a.plain(), key), setting(b.plain(), key)
            refuse(key, first, x, other, y, f"give {key}={'null' if x is None else x}")
        for key in ("name", "size", "domains", "root", "train", "test"):
            if key in a.data and key in b.data:
                x, y = a.data[key], b.data[key]
                same = json.dumps(x).replace(" ", "")
                refuse(f"data.{key}", first, x, other, y, f"give data.{key}={same.strip(chr(34))}")
    from gansuite import engine

    # what the files themselves say; not of finished runs, whose results carry it
    facts = [(r, engine.build_data(r.experiment).spec) for r in runs if not r.done]
    for run, spec in facts[1:]:
        for key in ("channels", "domains", "digest"):
            x, y = getattr(facts[0][1], key), getattr(spec, key)
            refuse(f"data {key}", facts[0][0], x, run, y, "give them the same data")


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "null" if value is None else f"{value}"
