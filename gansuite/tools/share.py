"""`gansuite share`: a finished run as a model folder, to be put anywhere and used from there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gansuite import __version__, engine
from gansuite.compare.format import metric
from gansuite.compare.report import HEADLINE
from gansuite.errors import UserError
from gansuite.files import read_json, write_json, write_text
from gansuite.runs import Run, find_checkpoint, read_checkpoint
from gansuite.runs.weights import NAME, describing, write_weights

NOT_STATED = "not stated"


def share(run: Path, folder: Path, *, licence: str = "") -> list[Path]:
    """Write the last checkpoint of ``run``, with the weights that its protocol scores (the averaged
    ones if there are any), to ``folder``: ``model.safetensors``, ``config.json``, the card
    ``README.md`` and ``samples.jpg``. Scores are those of the end, never the best on the way.

    ``licence``: of the pictures, as far as it is known. ``folder`` is then what `gansuite
    translate`, `sample`, `evaluate` and `export` take for a run.

    Raises:
        UserError: no finished run, or a folder that is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"'{folder}' is not empty; give a new folder.")
    if not Run(run).done:
        raise UserError(f"'{run}' is no finished run: it has no results.json.")
    file = find_checkpoint(run)
    content = read_checkpoint(file, needs=("experiment", "data", "method", "notes"))
    results = read_json(Run(run).results)
    weights = content["notes"]["protocol"].get("weights", "auto")
    method = engine.load_method(file, weights)
    used = "ema" if method.averages and weights != "raw" else "raw"
    describes = describing(content, used, results["final"])
    card = _card(describes, results, type(method).__name__, method.task, licence)
    try:
        write_weights(folder / NAME, method.state_dict(), describes)
        write_json(folder / "config.json", describes)
        grid = Run(run).path / "samples" / "final.jpg"
        if grid.is_file():
            shutil.copyfile(grid, folder / "samples.jpg")
        write_text(folder / "README.md", card)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return sorted(folder.iterdir())


def _card(
    describes: Mapping[str, Any], results: Mapping[str, Any], title: str, task: str, licence: str
) -> str:
    """The model card: a header that the Hugging Face hub reads, and text."""
    e, data, protocol = describes["experiment"], describes["data"], describes["protocol"]
    generates, cost = task == "generate", results.get("cost", {})
    kind = "unconditional-image-generation" if generates else "image-to-image"
    rows = [
        (name, key, value)
        for name, scores in results["final"].items()
        for key, value in scores.items()
        if value is not None
    ]
    measured = [
        {
            "task": {"type": kind},
            "dataset": {
                "name": data["name"],
                "type": data["name"],
                "config": f"digest {data['digest']}",
                "split": "test",
            },
            "metrics": [
                {
                    "name": f"{key}, {name} (protocol {protocol['id']})",
                    "type": key,
                    "value": round(value, 6),
                }
                for name, key, value in rows
                if key in HEADLINE
            ],
        }
    ]
    header = {
        "library_name": "gansuite",
        "pipeline_tag": kind,
        "tags": ["gan", e["method"]["name"]],
        "model-index": [{"name": e["name"], "results": measured}],
    }
    counts = {split: sum(by.values()) for split, by in data["counts"].items()}
    use = (
        "gansuite sample . OUT -n 64"
        if generates
        else "gansuite translate . PICTURES OUT"
        + (f" --to {data['domains'][-1]}" if len(data["domains"]) > 2 else "")
    )
    spent = {
        "pictures seen": f"{results['images_seen']:,}" if "images_seen" in results else None,
        "seconds of training": _number(cost.get("seconds")),
        "pictures per second": _number(cost.get("images_per_second")),
        "peak memory in MB": _number(cost.get("peak_memory_mb")),
        "parameters": ", ".join(f"{k} {v:,}" for k, v in (cost.get("parameters") or {}).items()),
    }
    scores = [f"| {n} | {k} | {metric(k).better} | {_number(v)} |" for n, k, v in rows]
    verdict = results.get("verdict")
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        f"# {e['name']}",
        "",
        _origin(describes, results, title),
        "",
        "![samples](samples.jpg)",
        "",
        "## Use",
        "",
        "```",
        use,
        "```",
        "",
        "## Data",
        "",
        f"- digest of the pictures: `{data['digest']}`",
        *(f"- {split}: {n:,} pictures" for split, n in counts.items()),
        f"- licence of the pictures: {licence or NOT_STATED}",
        "",
        "## Scores",
        "",
        f"At the end of training, on the test pictures, under protocol `{protocol['id']}`. Scores "
        f"of other protocols cannot be compared with these.",
        "",
        "| comparison | score | better | final |",
        "|---|---|---|---|",
        *scores,
        "",
        *([f"Verdict: {verdict}", ""] if verdict else []),
        "## Cost",
        "",
        *(f"- {name}: {value}" for name, value in spent.items() if value),
        "",
        "## Limits",
        "",
        f"Made for pictures like those of its training, at {data['size']} pixels; others were not "
        f"measured. What it makes is invented, not evidence of anything. Whoever trained on these "
        f"pictures answers for the right to do so.",
        "",
    ]
    return "\n".join(lines)


def _origin(describes: Mapping[str, Any], results: Mapping[str, Any], title: str) -> str:
    """What was trained on what, and what it began with."""
    e, data = describes["experiment"], describes["data"]
    on = f"{data['name']} ({', '.join(data['domains'])}) at {data['size']} pixels"
    if family := results.get("published"):
        return (
            f"{title} with weights that its authors published (gansuite import --as {family}); "
            f"gansuite {__version__} scored them on {on} and did not train them."
        )
    init = results.get("init")
    began = f", from the weights of {init['experiment']} ({init['digest']})" if init else ""
    which = "averages over training (EMA)" if describes["weights"] == "ema" else "the last ones"
    return (
        f"{title}, trained by gansuite {__version__} on {on}, seed {e['seed']}{began}. The "
        f"weights are {which}."
    )


def _number(value: Any) -> str | None:
    return None if value is None else f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}"
