"""Charts as inline SVG: no script, the page's own font, colours from the page's theme.

A series has the same colour, marker and dashes wherever it appears, by its number; colour is never
the only cue.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from gansuite.compare.format import Metric, human, tick

POINTS = 120  # of a loss curve; more cannot be told apart at this size
# Chosen by a search for the largest smallest distance under normal, red-, green- and blue-blind
# vision with a contrast of 3:1 or more against the page; for the dark page see style.css.
COLOURS = ("#0052cc", "#ff3c00", "#148d67", "#953782", "#499dc2", "#3d2d3f", "#668e21", "#7c3922")
_MARKERS = "os^DvPX*"
_GLYPHS = "●■▲◆▼✚✖★"
_INK, _RULE = "#123456", "#123457"  # replaced by what the page's theme says


@dataclass
class Line:
    """A curve: ``y`` over ``x``, with a band from ``low`` to ``high``.

    ``references`` are the levels of *do nothing* and *real vs real*, drawn in its colour.
    ``style`` is its number on the page; by default its place in the chart.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    references: tuple[float | None, float | None] = (None, None)
    style: int | None = None


@dataclass
class Dot:
    """A point of a scatter with the range of its height."""

    name: str
    x: float
    y: float
    low: float
    high: float
    style: int


def mark(style: int) -> dict[str, str]:
    """``colour`` (for CSS) and ``glyph`` of series number ``style``, for legends and tables."""
    colour, shape = _look(style)
    return {"colour": f"var(--c{colour})", "glyph": _GLYPHS[shape]}


def _look(style: int) -> tuple[int, int]:
    """The colour and the shape of series number ``style``: from the ninth on the same colours have
    another shape each, so that 64 can be told apart."""
    again, colour = divmod(style, len(COLOURS))
    return colour, (colour + again) % len(_MARKERS)


@dataclass
class _Sheet:
    """Axes to draw on, points to be named (data coordinates), levels that are named at the right
    border, and afterwards the SVG."""

    axes: Any
    levels: list[tuple[str, float]] = field(default_factory=list)
    names: list[tuple[str, float, float]] = field(default_factory=list)
    svg: Markup = field(default_factory=Markup)


@contextlib.contextmanager
def _drawing(size: tuple[float, float], salt: str) -> Iterator[_Sheet]:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    style: Any = {
        "svg.fonttype": "none",
        "text.parse_math": False,  # a name is a name, dollars and all
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
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.grid(axis="y", color=_RULE, lw=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(length=2.5)
        sheet = _Sheet(axes)
        yield sheet
        axes.xaxis.set_major_locator(MaxNLocator(5))
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
            axis.set_minor_formatter(NullFormatter())
        if sheet.names:
            _label(axes, sheet.names, sheet.levels)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    sheet.svg = _for_page(text.getvalue())


def _for_page(svg: str) -> Markup:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)  # figure_1, axes_1: the same in every figure
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    svg = re.sub(r"(font: [\d.]+px|font-family:) [^;\"]+", r"\1 system-ui, sans-serif", svg)
    svg = re.sub(r' d="[^"]*"', lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m[0]), svg)
    svg = svg.replace(_INK, "currentColor").replace(_RULE, "var(--line)")
    for index, colour in enumerate(COLOURS):
        svg = svg.replace(colour, f"var(--c{index})")
    return Markup(re.sub(r"\n\s*", "\n", svg.replace("<svg", '<svg aria-hidden="true"', 1)))


def _drawn(style: int) -> tuple[str, str, str]:
    """Colour, marker and dashes of series number ``style``."""
    colour, shape = _look(style)
    return COLOURS[colour], _MARKERS[shape], "-" if style < len(COLOURS) else "--"


def _label(
    axes: Any,
    points: Sequence[tuple[str, float, float]],
    levels: Sequence[tuple[str, float]] = (),
) -> None:
    """Names beside their points (data coordinates), moved up or down until none hides another."""
    high, wide = 10.5, 5.0  # points: one line of text, and about one letter
    figure = axes.figure
    figure.get_layout_engine().execute(figure)  # it decides where a point is
    figure.set_layout_engine("none")
    to_points = 72 / figure.dpi
    right = axes.bbox.x1 * to_points
    at = {name: axes.transData.transform((x, y)) * to_points for name, x, y in points}
    boxes = {name: (px - 4, px + 4, py) for name, (px, py) in at.items()}  # left, right, middle
    for name, level in levels:
        middle = axes.transData.transform((1, level))[1] * to_points + high / 2
        boxes[f"{name} (level)"] = (right - wide * len(name), right, middle)

    def free(name: str, left: float, length: float, y: float) -> bool:
        """Whether a text there lies on no other name and on no other point."""
        return all(
            abs(y - middle) >= high or left + length < start or left > end
            for other, (start, end, middle) in boxes.items()
            if other != name
        )

    for name, x, y in sorted(points, key=lambda p: -p[2]):
        px, py = at[name]
        length = wide * len(name)
        leftward = px + 6 + length > right + 6  # no room: on the other side
        start = px - 6 - length if leftward else px + 6
        moves = [sign * k * high / 4 for k in range(40) for sign in (-1, 1)]
        move = next((m for m in moves if free(name, start, length, py + m)), 0.0)
        boxes[f"{name} (text)"] = (start, start + length, py + move)
        axes.annotate(
            name,
            (x, y),
            (-6 if leftward else 6, move),
            textcoords="offset points",
            ha="right" if leftward else "left",
            va="center",
            annotation_clip=False,
            zorder=5,
        )


def _room_for_names(axes: Any) -> None:
    """Makes the x axis longer, so that names stand to the right of their points."""
    start, end = axes.get_xlim()
    more = (end / start) ** 0.26 * end if axes.get_xscale() == "log" else end + 0.26 * (end - start)
    axes.set_xlim(start, more)


def chart(
    lines: Sequence[Line],
    x_label: str,
    salt: str,
    from_zero: bool = False,
    levels: Sequence[tuple[str, float]] = (),
    direct: bool = False,
) -> Markup:
    """Curves in one SVG. ``levels`` are named horizontal lines; ``direct`` names the curves at
    their ends, on a larger chart."""
    with _drawing((4.6, 3.1) if direct else (3.5, 2.1), salt) as sheet:
        axes = sheet.axes
        every: list[float] = []
        for index, line in enumerate(lines):
            colour, marker, dashes = _drawn(index if line.style is None else line.style)
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, lw=0)
            shown = marker if len(line.x) <= 24 else None
            axes.plot(line.x, line.y, dashes, color=colour, lw=1.5, marker=shown, ms=3.5)
            every += [*line.y]
            for value, dash in zip(line.references, ((5, 3), (1, 2)), strict=True):
                if value is not None and math.isfinite(value):
                    axes.axhline(value, color=colour, lw=1, dashes=dash, alpha=0.8)
                    every.append(value)
        for (_, value), dash in zip(levels, ((5, 3), (1, 2)), strict=False):
            axes.axhline(value, color=_INK, lw=1, dashes=dash, alpha=0.55)
            every.append(value)
        if every and min(every) > 0 and max(every) > 30 * min(every):
            axes.set_yscale("log")
        elif from_zero:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(x_label)
        if direct:
            _room_for_names(axes)
            sheet.levels += levels[:1]
            for (name, value), side in zip(levels, ("right", "left"), strict=False):
                place = (1 if side == "right" else 0, value)
                axes.annotate(
                    name, place, (2, 2), ("axes fraction", "data"), "offset points",
                    ha=side, va="bottom", fontsize=7.5, alpha=0.8,
                )  # fmt: skip
            sheet.names += [(line.name, line.x[-1], line.y[-1]) for line in lines]
    return sheet.svg


def scatter(
    dots: Sequence[Dot],
    x_label: str,
    y_label: str,
    salt: str,
    levels: Sequence[tuple[str, float]] = (),
) -> Markup:
    """Named points with their intervals in one SVG; an axis is logarithmic over a wide range."""
    with _drawing((3.5, 2.6), salt) as sheet:
        axes = sheet.axes
        for dot in dots:
            colour, marker, _ = _drawn(dot.style)
            if dot.low < dot.high:
                axes.plot([dot.x, dot.x], [dot.low, dot.high], color=colour, lw=1.2, alpha=0.6)
            axes.plot([dot.x], [dot.y], marker, color=colour, ms=6.5)
        for (_, value), dash in zip(levels, ((5, 3), (1, 2)), strict=False):
            axes.axhline(value, color=_INK, lw=1, dashes=dash, alpha=0.55)
        for values, scale in (
            ([d.x for d in dots], axes.set_xscale),
            ([d.y for d in dots] + [v for _, v in levels], axes.set_yscale),
        ):
            if min(values) > 0 and max(values) > 8 * min(values):
                scale("log")
        axes.margins(x=0.08, y=0.12)
        _room_for_names(axes)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        sheet.names += [(dot.name, dot.x, dot.y) for dot in dots]
    return sheet.svg


def series(
    records: Sequence[Mapping[str, Any]], key: str, over: str = "images_seen"
) -> tuple[list[float], list[float]]:
    """(``over``, ``key``) of the records that have both, with a finite value."""
    points = [
        (float(r[over]), float(r[key]))
        for r in records
        if over in r and isinstance(r.get(key), int | float) and math.isfinite(r[key])
    ]
    return [x for x, _ in points], [y for _, y in points]


def thinned(name: str, x: Sequence[float], y: Sequence[float]) -> Line:
    """The mean of each of at most ``POINTS`` stretches, with the range inside it."""
    if len(x) <= POINTS:
        return Line(name, x, y)
    step = math.ceil(len(x) / POINTS)
    parts = [np.asarray(y[i : i + step]) for i in range(0, len(y), step)]
    middles = [float(np.mean(x[i : i + step])) for i in range(0, len(x), step)]
    low, high = ([float(f(p)) for p in parts] for f in (np.min, np.max))
    return Line(name, middles, [float(p.mean()) for p in parts], low, high)


def figure(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    score: Metric | None = None,
    about: str = "",
    **options: Any,
) -> dict[str, Any]:
    """What the template's macro ``figures`` takes: a chart of ``lines`` with its words.

    ``about`` is what its title leaves unsaid. ``options`` are those of `chart`; lines that are
    named in the chart need no legend.
    """
    words = [
        f"{line.name or title} from {human(line.y[0])} to {human(line.y[-1])}" for line in lines
    ]
    legend = [
        {"name": line.name, **mark(i if line.style is None else line.style)}
        for i, line in enumerate(lines)
        if line.name and not options.get("direct")
    ]
    return {
        "title": title,
        "score": score,
        "legend": legend,
        "label": f"{title}{about} over {x_label}: {'; '.join(words)}",
        "svg": chart(lines, x_label, f"{title}{about}/{x_label}", **options),
    }
