"""Experiment files: YAML -> one typed, frozen, strict `Experiment`.

No torch here: the schemas of the ``method:`` and ``data:`` sections are the `Signature`s of the
classes that `Schemas` names.
"""

from gansuite.config.files import (
    COMPARISON,
    comparison_files,
    experiment_files,
    find_experiment,
    package_folder,
    read_layers,
    read_overrides,
)
from gansuite.config.loader import (
    Schemas,
    checked_options,
    difference,
    load,
    load_comparison,
    resolve,
)
from gansuite.config.messages import COMMAND_LINE, Layers
from gansuite.config.schema import (
    Budget,
    Compare,
    CompareBudget,
    DataOptions,
    Ema,
    Evaluate,
    Experiment,
    FrozenDict,
    Health,
    Log,
    Optim,
    Section,
    Trainer,
    out_path,
    user_path,
)

__all__ = [
    "COMMAND_LINE",
    "COMPARISON",
    "Budget",
    "Compare",
    "CompareBudget",
    "DataOptions",
    "Ema",
    "Evaluate",
    "Experiment",
    "FrozenDict",
    "Health",
    "Layers",
    "Log",
    "Optim",
    "Schemas",
    "Section",
    "Trainer",
    "checked_options",
    "comparison_files",
    "difference",
    "experiment_files",
    "find_experiment",
    "load",
    "load_comparison",
    "out_path",
    "package_folder",
    "read_layers",
    "read_overrides",
    "resolve",
    "user_path",
]
