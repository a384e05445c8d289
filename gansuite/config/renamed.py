"""Keys that have another name by now: read under the old one, with one line that says so."""

from __future__ import annotations

import os
import sys
from typing import Any

from gansuite.config.messages import Layers

_SECTIONS = {"guard": "health"}
_KNOWN = "GANSUITE_RENAMED"  # what has been said, also to the processes that this one starts


def with_new_names(layers: Layers, loggers: list[str]) -> Layers:
    """``layers`` with today's keys; ``loggers`` are those of an experiment that names none."""
    return [(where, _renamed(where, content, loggers)) for where, content in layers]


def _renamed(where: str, content: Any, loggers: list[str]) -> dict[str, Any]:
    found = dict(content)
    for old, new in _SECTIONS.items():
        if old in found:
            _say(where, old, new)
            value, given = found.pop(old), found.get(new)
            both = isinstance(value, dict) and isinstance(given, dict)
            found[new] = {**value, **given} if both else value if given is None else given
    log = found.get("log")
    if isinstance(log, dict):
        now = log.get("loggers", loggers)
        if isinstance(log.get("tensorboard"), bool):
            _say(where, "log.tensorboard", "log.loggers")
            log = {k: v for k, v in log.items() if k != "tensorboard"}
            if found["log"]["tensorboard"] and isinstance(now, list):
                now = log["loggers"] = [*now, "tensorboard"]
            found["log"] = log
        if isinstance(now, list):
            loggers[:] = now
    return found


def _say(where: str, old: str, new: str) -> None:
    said = os.environ.get(_KNOWN, "").split()
    if old not in said:
        os.environ[_KNOWN] = " ".join([*said, old])
        print(f"gansuite: {where}: '{old}' is called '{new}' now.", file=sys.stderr)
