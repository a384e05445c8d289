"""Keys that have another name by now: read under the old one, with one line that says so."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from gansuite.config.messages import Layers

_SECTIONS = {"guard": "health"}
_SAID = "GANSUITE_RENAMED"  # what has been said, also to the processes that this one starts


def with_new_names(layers: Layers, loggers: list[str]) -> Layers:
    """``layers`` with today's keys; ``loggers`` are those of an experiment that names none."""
    found = []
    for where, content in layers:
        content = {**content}
        for old, new in _SECTIONS.items():
            if old in content:
                _say(where, old, new)
                value = content.pop(old)
                both = isinstance(value, Mapping) and isinstance(content.get(new, {}), Mapping)
                content[new] = {**value, **content.get(new, {})} if both else value
        log = content.get("log")
        if isinstance(log, Mapping):
            # a list replaces that of the layer below
            loggers = log["loggers"] if isinstance(log.get("loggers"), list) else loggers
            if isinstance(log.get("tensorboard"), bool):
                _say(where, "log.tensorboard", "log.loggers")
                more = ["tensorboard"] if log["tensorboard"] else []
                loggers = [*loggers, *more]
                rest = {k: v for k, v in log.items() if k != "tensorboard"}
                content["log"] = {**rest, "loggers": loggers} if more else rest
        found.append((where, content))
    return found


def _say(where: str, old: str, new: str) -> None:
    said = os.environ.get(_SAID, "").split()
    if old not in said:
        os.environ[_SAID] = " ".join([*said, old])
        print(f"gansuite: {where}: '{old}' is called '{new}' now.", file=sys.stderr)
