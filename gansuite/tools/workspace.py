"""A saved W&B workspace for some runs: the panels that compare them, with nothing to click."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gansuite.compare.schema import read_config, read_results
from gansuite.errors import UserError
from gansuite.evaluation.protocol import HIGHER_IS_BETTER
from gansuite.evaluation.table import DISTANCES
from gansuite.loggers.account import NO_KEY, has_wandb_key, load_wandb
from gansuite.runs import Run

COST = ("images_per_second", "seconds", "peak_memory_mb", "flops_per_image")


def finished(folders: Sequence[Path]) -> list[Run]:
    """The runs in and below ``folders`` that have results.

    Raises:
        UserError: there is none.
    """
    found = sorted(p.parent for f in folders for p in f.glob("**/results.json"))
    runs = [Run(path) for path in dict.fromkeys(found) if (path / "config.yaml").is_file()]
    if not runs:
        raise UserError(f"There is no finished run in {', '.join(map(str, folders))}.")
    return runs


def build_workspace(name: str, runs: Sequence[Run], entity: str) -> Any:
    """The workspace ``name``, a `wandb_workspaces.workspaces.Workspace`, not saved yet.

    It shows the runs of the W&B groups of ``runs``, grouped by method, with panels for the keys
    that they have: scores over images and over seconds, final scores, pictures, cost, losses.

    Raises:
        UserError: the package is missing, or the runs belong to several W&B projects.
    """
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise UserError(
            "A saved workspace needs wandb-workspaces: pip install 'gansuite[workspace]'."
        )
    import wandb_workspaces.reports.v2 as reports
    import wandb_workspaces.workspaces as spaces

    configs = [read_config(run.path / "config.yaml") for run in runs]
    for run, config in zip(runs, configs, strict=True):
        if not isinstance((config.get("log") or {}).get("project"), str):
            raise UserError(f"{run.path / 'config.yaml'} names no W&B project (log.project).")
    projects = sorted({c["log"]["project"] for c in configs})
    if len(projects) > 1:
        raise UserError(f"These runs belong to the W&B projects {', '.join(projects)}; name one's.")
    groups = sorted({str(c["log"].get("group") or c["data"].get("name")) for c in configs})
    results = [read_results(run.results) for run in runs]
    scores = [
        f"{n}/{m}"
        for m in HIGHER_IS_BETTER
        for n in dict.fromkeys(n for r in results for n in r["final"])
        if any(m in r["final"].get(n, {}) for r in results)
    ]
    costs = [r.get("cost", {}) for r in results]
    cost = [f"cost/{k}" for k in COST if any(k in c for c in costs)]
    players = dict.fromkeys(p for c in costs for p in c.get("parameters") or {})

    def lines(keys: Sequence[str], x: str = "images_seen") -> list[Any]:
        return [reports.LinePlot(title=key, x=x, y=[key]) for key in keys]

    def bars(keys: Sequence[str]) -> list[Any]:
        return [reports.BarPlot(title=key, metrics=[key]) for key in keys]

    ranked = [key for key in scores if key.endswith(tuple(f"/{m}" for m in DISTANCES))]
    pictures = [
        reports.MediaBrowser(title="samples", media_keys=["samples"]),
        reports.WeavePanelSummaryTable(table_name="pictures"),
    ]
    panels = {
        "Scores over images": lines(scores),
        "Scores over seconds": lines(ranked, "cost/seconds"),
        "Final scores": bars([f"final/{key}" for key in scores]),
        "Pictures": pictures,
        "Cost": bars(cost),
        "Losses": lines([f"loss/{player}/total" for player in players]),
    }
    return spaces.Workspace(
        name=name,
        entity=entity,
        project=projects[0],
        sections=[
            spaces.Section(name=title, panels=found, is_open=i < 4)
            for i, (title, found) in enumerate(panels.items())
            if found
        ],
        settings=spaces.WorkspaceSettings(x_axis="images_seen"),
        runset_settings=spaces.RunsetSettings(
            filters=" or ".join(f"Metric('Group') == '{group}'" for group in groups),
            groupby=[spaces.Metric("JobType")],
        ),
    )


def save_workspace(name: str, folders: Sequence[Path]) -> str:
    """Save `build_workspace` on the server; returns its address.

    Raises:
        UserError: there is no key or no run, or the server does not take it.
    """
    runs = finished(folders)
    if not has_wandb_key():
        raise UserError(f"A workspace lies on the server, but {NO_KEY}.")
    wandb = load_wandb()
    try:
        entity = wandb.Api().default_entity
        workspace = build_workspace(name, runs, str(entity))
        workspace.save()
    except (wandb.Error, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(f"The workspace could not be saved ({reason}).") from error
    return str(workspace.url)
