"""What there is: methods, data sets, experiments and comparisons, by name.

Neither PyTorch nor a method or source is imported, so that a misspelt name, key or value is
answered at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gansuite import config
from gansuite.config import Experiment, Schemas
from gansuite.data.catalogue import SOURCES, describe_sources, joint_options, source_signature
from gansuite.errors import UserError, nearest
from gansuite.evaluation.table import HIGHER_IS_BETTER
from gansuite.methods import describe_methods, method_names, method_signature


def schemas() -> Schemas:
    """The options of all methods and sources, for `config.resolve`."""
    return Schemas(method_names(), method_signature, list(SOURCES), source_signature)


def load_experiment(name: str, overrides: Sequence[str] = ()) -> Experiment:
    """The validated experiment of that name with ``key=value`` overrides.

    Raises:
        UserError: one sentence that names the file, the key and the nearest match.
    """
    experiment = config.load(name, overrides, schemas())
    if experiment.data["name"] == "joint":  # whose sets have options of their own
        joint_options(experiment.data["sets"])
    check_ranking("evaluate.best_by", experiment.evaluate.best_by)
    return experiment


def check_ranking(key: str, metric: str) -> None:
    """Raise `UserError` for the value of ``key`` if that metric has no better and worse, or is
    unknown."""
    known = [m for m, better in HIGHER_IS_BETTER.items() if better is not None]
    if metric not in known:
        raise UserError(
            f"'{key}' is '{metric}', by which nothing can be ranked{nearest(metric, known)} "
            f"(possible: {', '.join(known)})."
        )


def experiment_of(data: Sequence[str]) -> Experiment:
    """The experiment that says which data and protocol: an experiment, or a comparison (the first
    of its experiments), followed by overrides; raises as `load_experiment` does."""
    name, overrides = data[0], list(data[1:])
    comparisons = config.comparison_files()
    if name in comparisons:
        spec = config.load_comparison(comparisons[name])
        if not spec.experiments:
            raise UserError(f"{name} names no experiments; give one of its own.")
        name, overrides = spec.experiments[0], [*spec.set, *overrides]
    return load_experiment(name, overrides)


def inventory() -> dict[str, list[tuple[str, str]]]:
    """What ``gansuite list`` shows: methods, data sets and experiments with one line each."""
    return {
        "Methods (method.name)": describe_methods(),
        "Data sets (data.name)": describe_sources(),
        "Experiments (gansuite exp NAME)": _first_lines(config.experiment_files()),
        "Comparisons (gansuite compare NAME)": _first_lines(config.comparison_files()),
    }


def _first_lines(files: Mapping[str, Path]) -> list[tuple[str, str]]:
    """What each file is, as its first comment says."""
    found = []
    for name, path in files.items():
        try:
            first = (path.read_text(encoding="utf-8").splitlines() or [""])[0]
        except (OSError, UnicodeDecodeError) as error:
            text = isinstance(error, OSError)
            first = f"({path} {'cannot be read' if text else 'is not a text file in UTF-8'})"
        found.append((name, first.lstrip("# ").partition("  ")[0]))
    return found
