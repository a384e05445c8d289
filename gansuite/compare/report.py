"""The page of one run: a run directory in, one self-contained ``report.html`` out.

The page needs no network and no script: pictures are embedded, curves are SVG. Every figure on it
is computed here; the template only lays it out.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from gansuite.errors import UserError
from gansuite.runs import read_lines, write_text

MAX_PICTURE_BYTES = 3_000_000  # of all pictures together; base64 makes 4 MB of it
MAX_GRIDS = 8  # grids over time on the page
_POINTS = 120  # of a loss curve; more cannot be told apart at this size


@dataclass(frozen=True)
class Metric:
    """What a reader needs to know about a score: its name, its good direction, its meaning."""

    label: str
    better: str  # "lower", "higher" or "" (neither: it is read, not ranked)
    meaning: str

    @property
    def arrow(self) -> str:
        return {"lower": "↓", "higher": "↑", "": ""}[self.better]


METRICS: dict[str, Metric] = {
    "fd_random": Metric(
        "Fréchet distance, random VGG",
        "lower",
        "How far the made pictures are, as a set, from real ones in a random network's eyes. "
        "Not FID.",
    ),
    "kd_random": Metric(
        "Kernel distance, random VGG",
        "lower",
        "The same question with a measure that few pictures do not bias.",
    ),
    "fid": Metric("FID", "lower", "Fréchet distance in the eyes of the Inception network of 2015."),
    "kid": Metric("KID", "lower", "Kernel distance in the eyes of the Inception network of 2015."),
    "is": Metric(
        "Inception score", "higher", "Are the pictures clear and varied, as ImageNet sees them?"
    ),
    "swd": Metric(
        "Sliced Wasserstein distance",
        "lower",
        "How different texture and shapes are, from fine detail to coarse.",
    ),
    "psnr_mask": Metric(
        "PSNR inside the mask, dB", "higher", "How close the animal is to the true translation."
    ),
    "psnr_outside": Metric(
        "PSNR outside the mask, dB", "higher", "How well the background is left alone."
    ),
    "psnr": Metric("PSNR, dB", "higher", "How close the whole picture is to the true translation."),
    "ssim": Metric("SSIM", "higher", "Likeness of structure to the true translation; 1 is equal."),
    "l1": Metric("L1 to the truth", "lower", "Mean difference from the true translation."),
    "lpips": Metric("LPIPS", "lower", "Perceived difference from the true translation."),
    "precision": Metric("Precision", "higher", "Share of made pictures that pass for real."),
    "recall": Metric("Recall", "higher", "Share of real pictures that the model could have made."),
    "density": Metric("Density", "higher", "How deep inside the real ones the made pictures lie."),
    "coverage": Metric(
        "Coverage", "higher", "Share of real pictures with a made one close by; low is collapse."
    ),
    "diversity": Metric(
        "Diversity", "higher", "How much made pictures differ from one another; low is collapse."
    ),
    "cycle_l1": Metric("Cycle error, L1", "lower", "What is lost on the way there and back."),
    "identity_l1": Metric(
        "Identity error, L1", "lower", "How much a picture changes that needed no change."
    ),
    "correlation": Metric(
        "Correlation with the input",
        "",
        "1: nothing changed; near -1: colours are inverted.",
    ),
    "ppl": Metric("Perceptual path length", "lower", "How smoothly pictures follow the noise."),
}
_SUMMARY = ("fd_random", "fid", "swd", "psnr_mask", "psnr_outside", "psnr", "diversity")


def metric(name: str) -> Metric:
    """The entry of :data:`METRICS`, or a bare one for a score it does not know."""
    return METRICS.get(name, Metric(name, "", ""))


# Numbers for people


def human(value: float | int | None, missing: str = "–") -> str:
    """Three significant digits, whole numbers in full; ``missing`` for None and for NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return missing
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}" if math.isfinite(value) else f"{value}"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3:
        return f"{value:.2e}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(size)))}f}"


def duration(seconds: float) -> str:
    """``7.5 s``, ``5 min 32 s``, ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _large(value: float, unit: str) -> str:
    for power, prefix in ((12, "T"), (9, "G"), (6, "M")):
        if value >= 10**power:
            return f"{value / 10**power:.3g} {prefix}{unit}"
    return f"{value:,.0f} {unit}"


def gap_closed(
    results: Mapping[str, Any], comparison: str, name: str = "fd_random"
) -> float | None:
    """(do nothing - final) / (do nothing - real vs real); None where one of the three is missing.

    1 means as close to the target's pictures as other real pictures are, 0 means no better than
    handing back the input.
    """
    references = results.get("references", {})
    nothing = references.get("do_nothing", {}).get(comparison, {}).get(name)
    floor = references.get("real_vs_real", {}).get(comparison, {}).get(name)
    final = results.get("final", {}).get(comparison, {}).get(name)
    if nothing is None or floor is None or final is None or nothing == floor:
        return None
    return float((nothing - final) / (nothing - floor))


def summary_table(results: Mapping[str, Any]) -> str:
    """Plain ASCII table of the main scores for the end of a run: final beside both references."""
    lines: list[tuple[str, ...]] = [
        ("", "score", "better", "final", "do nothing", "real vs real", "gap closed")
    ]
    references = results.get("references", {})
    for comparison, final in results.get("final", {}).items():
        nothing, floor = (
            references.get(row, {}).get(comparison, {}) for row in ("do_nothing", "real_vs_real")
        )
        gap = gap_closed(results, comparison)
        start = comparison
        for name in (n for n in _SUMMARY if n in final):
            numbers = [human(row.get(name), "-") for row in (final, nothing, floor)]
            share = f"{100 * gap:.0f} %" if gap is not None and name == "fd_random" else ""
            lines.append((start, name, metric(name).better, *numbers, share))
            start = ""
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


# Reading a run directory


@dataclass
class _Run:
    path: Path
    config_text: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    train: list[dict[str, Any]] = field(default_factory=list)
    evals: list[dict[str, Any]] = field(default_factory=list)
    timing: list[dict[str, Any]] = field(default_factory=list)
    grids: list[tuple[int, Path]] = field(default_factory=list)
    final: Path | None = None

    @property
    def finished(self) -> bool:
        return bool(self.results.get("final"))

    def get(self, *keys: str) -> Any:
        """An entry of the config, None when it is not there."""
        here: Any = self.config
        for key in keys:
            here = here.get(key) if isinstance(here, dict) else None
        return here


def _read(path: Path) -> _Run:
    if not path.is_dir():
        raise UserError(f"'{path}' is no run directory; give runs/<experiment>/seed<k>")
    run = _Run(path)
    if (path / "config.yaml").is_file():
        run.config_text = (path / "config.yaml").read_text(encoding="utf-8")
        try:
            loaded = yaml.safe_load(run.config_text)
        except yaml.YAMLError as error:
            raise UserError(f"'{path / 'config.yaml'}' is not YAML ({error})") from error
        run.config = loaded if isinstance(loaded, dict) else {}
    run.environment = _json(path / "environment.json")
    run.results = _json(path / "results.json")
    metrics = read_lines(path / "metrics.jsonl")
    run.train = _by_images(line for line in metrics if line.get("kind") == "train")
    run.evals = _by_images(line for line in metrics if line.get("kind") == "eval")
    run.timing = read_lines(path / "timing.jsonl")
    if not (run.config or run.results or metrics):
        raise UserError(f"'{path}' is no run directory: it has neither config.yaml nor metrics")
    pictures = path / "samples"
    run.grids = sorted((int(p.stem), p) for p in pictures.glob("*.jpg") if p.stem.isdigit())
    if (pictures / "final.jpg").is_file():
        run.final = pictures / "final.jpg"
    elif run.grids:
        run.final = run.grids[-1][1]
    return run


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"'{path}' is not JSON ({error}); delete it and resume the run") from error
    return content if isinstance(content, dict) else {}


def _by_images(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """In order of images seen, the last of equals (a resumed run may have written one twice)."""
    return [r for _, r in sorted({r["images_seen"]: r for r in records}.items())]


# Pictures


def _embed(path: Path, limit: int) -> dict[str, Any] | None:
    """A data address of at most ``limit`` bytes before base64, re-encoded only where it must be."""
    try:
        with Image.open(path) as image:
            form, (width, height) = image.format, image.size
            data = path.read_bytes()
            scale, quality = 1.0, 88
            if len(data) > limit or form not in ("JPEG", "PNG"):
                rgb = image.convert("RGB")
                while True:
                    small = (max(1, round(width * scale)), max(1, round(height * scale)))
                    out = io.BytesIO()
                    rgb.resize(small, Image.Resampling.LANCZOS).save(out, "JPEG", quality=quality)
                    data, form = out.getvalue(), "JPEG"
                    if len(data) <= limit or min(small) == 1:
                        break
                    scale, quality = scale * 0.85, max(70, quality - 6)
                width, height = small
    except OSError:
        return None
    kind = "jpeg" if form == "JPEG" else "png"
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return {"src": source, "width": width, "height": height}


def _pictures(run: _Run) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    final = _embed(run.final, MAX_PICTURE_BYTES // 3) if run.final else None
    shown = run.final.read_bytes() if run.final else b""
    earlier = [(images, path) for images, path in run.grids if path.read_bytes() != shown]
    steps = np.linspace(0, len(earlier) - 1, MAX_GRIDS) if earlier else ()
    history = []
    for images, path in (earlier[i] for i in sorted({round(step) for step in steps})):
        picture = _embed(path, 2 * MAX_PICTURE_BYTES // 3 // MAX_GRIDS)
        if picture is not None:
            caption = f"{images:,} images seen" if images else "before training"
            history.append({**picture, "caption": caption, "alt": f"Sample grid, {caption}"})
    return final, history


# Curves

_INK, _RULE = "#123456", "#123457"  # replaced in the SVG by what the page's theme says
_COLOURS = ("#2f7ed8", "#e07b39", "#2e9d6a", "#b45fc4", "#c59b22", "#d2497a", "#5f8a99", "#8a6d5b")


@dataclass
class _Line:
    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    references: tuple[float | None, float | None] = (None, None)  # do nothing, real vs real


def _chart(lines: Sequence[_Line], x_label: str, salt: str, from_zero: bool) -> Markup:
    """One inline SVG; its text follows the page's font, its ink the page's colours."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,  # ids differ between the figures of a page and not between two runs
        "font.size": 8.5,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _RULE,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "path.simplify": True,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(3.5, 2.1), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        every: list[float] = []
        for index, line in enumerate(lines):
            colour = _COLOURS[index % len(_COLOURS)]
            marker = "o" if len(line.x) <= 24 else None
            dashes = "-" if index < len(_COLOURS) else "--"
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, lw=0)
            axes.plot(line.x, line.y, dashes, color=colour, lw=1.5, marker=marker, ms=3)
            every += [*line.y]
            for value, dash in zip(line.references, ((5, 3), (1, 2)), strict=True):
                if value is not None and math.isfinite(value):
                    axes.axhline(value, color=colour, lw=1, dashes=dash, alpha=0.8)
                    every.append(value)
        if every and min(every) > 0 and max(every) > 30 * min(every):
            axes.set_yscale("log")
        elif from_zero:
            axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=_RULE, lw=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(length=2.5)
        axes.set_xlabel(x_label)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)  # figure_1, axes_1: the same in every figure
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    svg = re.sub(r"(font: [\d.]+px) [^;\"]+", r"\1 system-ui, sans-serif", svg)
    svg = re.sub(r' d="[^"]*"', lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m[0]), svg)
    svg = svg.replace(_INK, "currentColor").replace(_RULE, "var(--line)")
    return Markup(re.sub(r"\n\s*", "\n", svg.replace("<svg", '<svg aria-hidden="true"', 1)))


def _tick(value: float) -> str:
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


def _series(records: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """(images seen, value) of the records that have a finite value for ``key``."""
    points = [
        (float(r["images_seen"]), float(r[key]))
        for r in records
        if isinstance(r.get(key), int | float) and math.isfinite(r[key])
    ]
    return [x for x, _ in points], [y for _, y in points]


def _thinned(name: str, x: Sequence[float], y: Sequence[float]) -> _Line:
    """The mean of each of at most ``_POINTS`` stretches, with the range inside it."""
    if len(x) <= _POINTS:
        return _Line(name, x, y)
    step = math.ceil(len(x) / _POINTS)
    parts = [np.asarray(y[i : i + step]) for i in range(0, len(y), step)]
    middles = [float(np.mean(x[i : i + step])) for i in range(0, len(x), step)]
    low, high = ([float(f(p)) for p in parts] for f in (np.min, np.max))
    return _Line(name, middles, [float(p.mean()) for p in parts], low, high)


def _figure(
    title: str,
    lines: Sequence[_Line],
    x_label: str,
    score: Metric | None = None,
    from_zero: bool = False,
) -> dict[str, Any]:
    words = [
        f"{line.name or title} from {human(line.y[0])} to {human(line.y[-1])}" for line in lines
    ]
    legend = [
        {"name": line.name, "colour": _COLOURS[i % len(_COLOURS)]}
        for i, line in enumerate(lines)
        if line.name
    ]
    return {
        "title": title,
        "score": score,
        "legend": legend,
        "label": f"{title} over {x_label}: {'; '.join(words)}",
        "svg": _chart(lines, x_label, f"{title}/{x_label}", from_zero),
    }


def _ordered(names: Iterable[str]) -> list[str]:
    """Scores in the order of :data:`METRICS`, unknown ones behind."""
    order = list(METRICS)
    return sorted(set(names), key=lambda n: (order.index(n) if n in order else len(order), n))


def _score_lines(run: _Run, name: str, clock: Callable[[float], float] | None) -> list[_Line]:
    references = run.results.get("references", {})
    found = []
    keys = [k for r in run.evals[:1] + run.evals[-1:] for k in r if k.endswith(f"/{name}")]
    for key in dict.fromkeys(keys):
        comparison = key.rsplit("/", 1)[0]
        x, y = _series(run.evals, key)
        if x:
            nothing, floor = (
                references.get(row, {}).get(comparison, {}).get(name)
                for row in ("do_nothing", "real_vs_real")
            )
            x = [clock(value) for value in x] if clock else x
            found.append(_Line(comparison, x, y, references=(nothing, floor)))
    return found


def _clock(run: _Run) -> Callable[[float], float] | None:
    """Images seen to training seconds, by straight lines between the records."""
    seconds = {float(r["images_seen"]): float(r["seconds"]) for r in run.timing if "seconds" in r}
    if len(seconds) < 2:
        return None
    images = sorted(seconds)
    return lambda x: float(np.interp(x, images, [seconds[i] for i in images]))


def _curves(run: _Run) -> list[dict[str, Any]]:
    """Groups of figures: scores, losses of each player and learning rates, and the clock."""
    names = _ordered(
        k.rsplit("/", 1)[1] for r in run.evals for k in r if "/" in k and not k.startswith("_")
    )
    note = "Dashed: do nothing. Dotted: real vs real." if run.results.get("references") else ""
    scores = {}
    for name in names:
        lines = _score_lines(run, name, None)
        if lines:
            scores[name] = _figure(metric(name).label, lines, "images seen", metric(name))
    groups: dict[str, list[str]] = {}
    for key in dict.fromkeys(k for r in run.train[:1] + run.train[-1:] for k in r if "/" in k):
        groups.setdefault(key.rsplit("/", 1)[0], []).append(key)
    losses = []
    for group, keys in groups.items():
        lines = [_thinned(k[len(group) + 1 :], *_series(run.train, k)) for k in keys]
        lines = [line for line in lines if line.x]
        if lines:
            title = {"lr": "Learning rate"}.get(group, group.replace("loss/", "Losses of "))
            losses.append(_figure(title, lines, "images seen", from_zero=group == "lr"))
    clock = _clock(run)
    times = []
    if clock is not None:
        for name in [n for n in _SUMMARY if n in names][:2]:
            lines = _score_lines(run, name, clock)
            if lines:
                times.append(_figure(metric(name).label, lines, "training seconds", metric(name)))
        images, speed = _series(
            _by_images(r for r in run.timing if r.get("kind") == "train"), "images_per_second"
        )
        if images:
            x = [clock(i) for i in images]
            line = _thinned("", x, speed)
            times.append(_figure("Images per second", [line], "training seconds", from_zero=True))
    main = [scores[n] for n in _SUMMARY if n in scores][:6] or [*scores.values()][:3]
    rest = [figure for figure in scores.values() if figure not in main]
    found = [
        {"title": "Scores over images", "note": note, "figures": main, "more": rest},
        {"title": "Losses and learning rates", "note": "", "figures": losses, "more": []},
        {"title": "Over time", "note": "Evaluation is not counted.", "figures": times, "more": []},
    ]
    return [group for group in found if group["figures"]]


# Tables


def _scores(run: _Run) -> list[dict[str, Any]]:
    """One table per comparison; of an unfinished run, with its last evaluation as the score."""
    results = run.results
    final = results.get("final") or {}
    if not final and run.evals:
        for key, value in run.evals[-1].items():
            if "/" in key:
                comparison, name = key.rsplit("/", 1)
                final.setdefault(comparison, {})[name] = value
    references = results.get("references", {})
    tables = []
    for comparison, values in final.items():
        best = results.get("best", {}).get(comparison, {})
        nothing = references.get("do_nothing", {}).get(comparison, {})
        floor = references.get("real_vs_real", {}).get(comparison, {})
        gap = gap_closed({**results, "final": final}, comparison)
        rows = [
            {
                "name": name,
                "metric": metric(name),
                "cells": [human(row.get(name)) for row in (values, best, nothing, floor)],
            }
            for name in _ordered(values)
            if isinstance(values[name], int | float)
        ]
        seen = best.get("images_seen")
        tables.append(
            {
                "name": comparison,
                "title": _comparison_title(run, comparison),
                "best_at": f"at {seen:,} images" if isinstance(seen, int) else "",
                "gap": None if gap is None else f"{100 * gap:.0f} %",
                "bar": 0 if gap is None else round(100 * min(1, max(0, gap))),
                "rows": rows,
            }
        )
    return tables


def _comparison_title(run: _Run, comparison: str) -> str:
    domains = run.get("data", "domains")
    a, b = domains if isinstance(domains, list) and len(domains) == 2 else ("A", "B")
    titles = {"a2b": f"From {a} to {b}", "b2a": f"From {b} to {a}", "gen": "Pictures from noise"}
    return titles.get(comparison, f"To {comparison.removeprefix('to_')}")


def _cost(run: _Run) -> list[tuple[str, str]]:
    cost = run.results.get("cost") or {}
    if not cost and run.timing:
        last: dict[str, Any] = {}
        for record in run.timing:
            last.update(record)
        cost = {k: last[k] for k in last if k not in ("kind", "images_seen")}
    rows: list[tuple[str, str]] = []

    def add(label: str, key: str, show: Callable[[Any], str]) -> None:
        if cost.get(key) is not None:
            rows.append((label, show(cost[key])))

    add("Training", "seconds", duration)
    add("Evaluation", "eval_seconds", duration)
    add("Share of evaluation", "evaluation_share", lambda v: f"{100 * v:.1f} %")
    add("Images per second", "images_per_second", human)
    add("Peak memory", "peak_memory_mb", lambda v: _large(1e6 * v, "B"))
    parameters = cost.get("parameters") or {}
    for player, count in parameters.items() if isinstance(parameters, dict) else ():
        rows.append((f"Parameters of {player}", human(count)))
    add("Floating-point operations per image", "flops_per_image", lambda v: _large(v, "FLOP"))
    return rows


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            rows.append((f"{prefix}{key}", " ".join(str(v) for v in value)))
        else:
            rows.append((f"{prefix}{key}", "–" if value is None else str(value)))
    return rows


def _command(run: _Run, experiment: str, seed: Any) -> str:
    said = run.environment.get("command")
    if said:
        return said if isinstance(said, str) else " ".join(str(word) for word in said)
    return f"make exp NAME={experiment}" + (f' ARGS="seed={seed}"' if seed else "")


def _facts(run: _Run, tables: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The few numbers that stand at the top."""
    cost = run.results.get("cost") or {}
    records = [*run.train[-1:], *run.evals[-1:]]
    facts = [(f"of the gap closed, {t['name']}", t["gap"]) for t in tables if t["gap"]]
    if records:
        facts.append(("images seen", human(max(int(r["images_seen"]) for r in records))))
    if cost.get("seconds") is not None:
        facts.append(("of training", duration(cost["seconds"])))
    if cost.get("images_per_second") is not None:
        facts.append(("images per second", human(cost["images_per_second"])))
    return facts


def _context(run: _Run) -> dict[str, Any]:
    results = run.results
    experiment = str(results.get("experiment") or run.path.resolve().parent.name)
    seed = results.get("seed", run.get("seed"))
    tables = _scores(run)
    final, history = _pictures(run)
    about = " · ".join(
        str(part)
        for part in (
            run.get("method", "name"),
            run.get("data", "name"),
            f"{run.get('data', 'size')} pixels" if run.get("data", "size") else None,
            f"seed {seed}" if seed is not None else None,
        )
        if part is not None
    )
    unfinished = "" if run.finished else "This run has not finished; the page shows it so far."
    return {
        "experiment": experiment,
        "about": about,
        "verdict": str(results.get("verdict") or unfinished),
        "finished": run.finished,
        "facts": _facts(run, tables),
        "final": final,
        "final_alt": f"Sample grid of {experiment}, rows labelled in the picture",
        "history": history,
        "tables": tables,
        "curves": _curves(run),
        "cost": _cost(run),
        "budget": _flat(results.get("budget") or run.get("budget") or {}),
        "protocol": _flat(results.get("protocol") or {}),
        "environment": _flat(run.environment),
        "config": run.config_text,
        "command": _command(run, experiment, seed),
    }


def write_report(run: Path) -> Path:
    """Read the run directory ``run`` and write its ``report.html``; returns the page's path.

    Works on a run that is still going or was stopped, with what there is. Raises UserError when
    ``run`` is no run directory, one of its files is damaged or the page cannot be written.
    """
    read = _read(Path(run))
    loader = PackageLoader("gansuite.compare", "")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup(loader.get_source(environment, "report.css")[0])
    page = environment.get_template("report.html").render(style=style, **_context(read))
    target = Path(run) / "report.html"
    write_text(target, page)
    return target
