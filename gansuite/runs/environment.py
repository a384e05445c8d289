"""What a run ran on: ``environment.json``, a list of every environment it saw, oldest first."""

from __future__ import annotations

import contextlib
import itertools
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("gansuite", "torch", "torchvision", "lightning", "torchmetrics", "numpy", "wandb")
# what the bits of a result may depend on
_DECIDES = (*(f"packages.{name}" for name in _PACKAGES[:-1]), "commit", "device", "threads")


def environment(device: str) -> dict[str, Any]:
    """Versions, commit and machine, for ``environment.json``."""
    import torch

    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "python": platform.python_version(),
        "packages": versions,
        "commit": _commit(),
        "device": device,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "command": shlex.join(["gansuite", *sys.argv[1:]]),
    }


def _commit() -> str | None:
    folder = Path(__file__).resolve().parents[2]
    try:
        text = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return text.strip() or None


def environments(run: Path) -> list[dict[str, Any]]:
    """The environments that the run in folder ``run`` saw, oldest first; [] when that is unknown.

    Each has ``from_images``, the pictures seen when it took over. Earlier versions wrote the last
    one alone.
    """
    try:
        content = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    listed = content if isinstance(content, list) else [content]
    return [entry for entry in listed if isinstance(entry, dict)]


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """``torch 2.9.0 -> 2.9.1`` for everything that the bits of a result may depend on."""

    def of(environment: Mapping[str, Any], key: str) -> Any:
        head, _, name = key.partition(".")
        value = environment.get(head, "unknown")
        return (value.get(name) if isinstance(value, Mapping) else "unknown") if name else value

    pairs = [(key.rpartition(".")[2], of(before, key), of(after, key)) for key in _DECIDES]
    return [f"{name} {a} -> {b}" for name, a, b in pairs if a != b]


def mixtures(seen: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence for each time the environment changed in a way that may change the bits."""
    found = []
    for before, after in itertools.pairwise(seen):
        if changed := changes(before, after):
            images = after.get("from_images", 0)
            at = images / 1000 if isinstance(images, int) else 0
            found.append(f"resumed at {at:g} kimg under {', '.join(changed)}")
    return found
