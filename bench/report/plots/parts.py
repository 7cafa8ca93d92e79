"""Parts that every kind of figure is made of: the sheet, axes that are not run, ticks, levels, legends."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from bench.analysis.stats import Summary
from bench.plural import count
from bench.report.plots.style import INK, WARNING, WIDTH, Look
from bench.report.plots.view import View

EMPTY_HEIGHT = 1.15  # inches, of a row in which nothing is run
DOTTED = {"color": INK, "alpha": 0.55, "linestyle": (0, (1, 1.5)), "linewidth": 0.9, "zorder": 0.8}


def sheet(view: View, heights: Sequence[float], columns: int, extra: float = 0.45) -> tuple[Figure, np.ndarray]:
    """(figure, axes [rows, columns]) at text width. heights: of the rows, in inches; extra: for legend and banner."""
    banner = view.table.provenance == "synthetic"
    gap = 0.06 if len(heights) > 1 else 0.0  # a title must not be read as the axis label above it
    size = (WIDTH, sum(heights) + extra + 0.15 * banner + 2 * gap * (len(heights) - 1))
    figure = Figure(size, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.03 + gap)
    if banner:
        figure.suptitle("SYNTHETIC DATA: not a result", color=WARNING)
    axes = figure.subplots(len(heights), columns, squeeze=False, height_ratios=list(heights))
    return figure, axes


def not_run(axes: Axes, title: str, why: str, head: str = "not run") -> None:
    """A panel that says what is missing; `head`: in two words."""
    axes.set_axis_off()
    axes.set_title(title)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.add_patch(FancyBboxPatch(
        (0.03, 0.04), 0.94, 0.9, boxstyle="round,pad=0,rounding_size=0.03", fill=False, edgecolor=INK, alpha=0.45,
        linestyle=(0, (4, 3)), mutation_aspect=1,
    ))
    axes.text(0.5, 0.58, head, ha="center", va="center", fontsize=9)
    axes.text(0.5, 0.36, why, ha="center", va="center", fontsize=6.5, linespacing=1.3)


def missing(view: View, configs: Iterable[Any]) -> str:
    """"0 of 35 runs are there", with what failed or is stale."""
    configs = list(dict.fromkeys(configs))
    if not any(c is not None for c in configs):
        return "not run here: no implementation"
    runs = view.runs(configs)
    text = f"{runs['done']} of {count(sum(runs.values()), 'run is', 'runs are')} there"
    rest = [f"{runs[s]} {s}" for s in ("failed", "stale") if runs[s]]
    return text + (f"\n({', '.join(rest)})" if rest else "")


def remove(axes: Iterable[Axes]) -> None:
    for a in axes:
        a.remove()


def plain_number(value: float, _: Any = None) -> str:
    return f"{value:g}".replace("-", "\u2212").replace("e\u22120", "e\u2212")


def x_axis(
    axes: Axes, values: Sequence[float], scale: str = "linear", names: Sequence[str] | None = None, columns: int = 2,
) -> None:
    """Scale and ticks: names of categories, every value where they are few or powers of 2, decades on a log scale.
    columns: of the sheet; in a narrow panel fewer labels fit."""
    values = sorted(set(values))
    if names:
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
        return
    low, high = values[0], values[-1]
    if scale in ("log", "log2"):
        margin = (high / low) ** 0.06
        axes.set_xlim((low / margin, high * margin) if high > low else (low / 2, high * 2))
        axes.set_xscale("log", base=2 if scale == "log2" else 10)
        axes.xaxis.set_major_locator(FixedLocator(values) if scale == "log2" else LogLocator(10))
    else:
        margin = 0.06 * (high - low) or 0.5
        axes.set_xlim(low - margin, high + margin)
    if scale == "linear" and len(values) <= 7:
        axes.xaxis.set_major_locator(FixedLocator(_apart(values, 0.04 * columns)))
    elif scale == "linear":
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(plain_number))


def _apart(values: Sequence[float], share: float) -> list[float]:
    """The values without those whose labels would touch their left neighbour's, less than a share of the axis away."""
    least, kept = share * (values[-1] - values[0]), [values[0]]
    for v in values[1:]:
        if v - kept[-1] >= least:
            kept.append(v)
        elif v == values[-1]:
            kept[-1] = v
    return kept


def curve(
    axes: Axes, x: Sequence[float], points: Sequence[Summary], look: Look, label: str, band: bool, shift: float = 0.0,
    thin: bool = False,
) -> None:
    """Means joined by a line with their intervals: as a band, or as bars moved aside by `shift` points and where an
    interval is over two runs, whose band would fill the panel."""
    mean, low, high = (np.array([getattr(p, k) for p in points]) for k in ("mean", "low", "high"))
    data = axes.transData
    if shift:
        data = data + ScaledTranslation(shift / 72, 0, axes.figure.dpi_scale_trans)
    axes.plot(
        x, mean, color=look.colour, linestyle=look.line, marker=look.marker, label=label, transform=data,
        linewidth=0.7 if thin else None, markersize=2.2 if thin else None, zorder=3,
    )
    known = np.isfinite(low)
    if band and all(p.n > 2 for p in points if p.n):
        axes.fill_between(x, low, high, where=known, color=look.colour, alpha=0.16, linewidth=0, zorder=1)
    else:
        bars = np.asarray(x)[known], low[known], high[known]
        axes.vlines(*bars, color=look.colour, linewidth=0.7, alpha=0.8, transform=data, zorder=2)


def level(axes: Axes, s: Summary, look: Look, label: str) -> None:
    """A reference mean as a dashed line across the panel, with its interval."""
    axes.axhline(s.mean, color=look.colour, linestyle=(0, (4, 2)), linewidth=0.9, label=label, zorder=1.5)
    if np.isfinite(s.low):
        axes.axhspan(s.low, s.high, color=look.colour, alpha=0.1, linewidth=0, zorder=0.5)


def cross(axes: Axes, x: float, y: float, label: str, marker: str = "x") -> None:
    """A point that a paper gives."""
    size = {"markersize": 4.5, "markeredgewidth": 1.1}
    axes.plot([x], [y], linestyle="", marker=marker, color=INK, label=label, zorder=4, **size)


def fit(axes: Axes, points: Iterable[Summary], values: Iterable[float] = ()) -> None:
    """A y range for some means and values, and for intervals over three or more runs; those over two are six times
    wider in units of the standard error, and may leave the panel."""
    points = list(points)
    wanted = [*values, *(p.mean for p in points), *(v for p in points if p.n > 2 for v in (p.low, p.high))]
    wanted = [v for v in wanted if np.isfinite(v)]
    if wanted:
        low, high = min(wanted), max(wanted)
        margin = 0.06 * (high - low) or 0.01 * abs(high) or 0.5
        axes.set_ylim(low - margin, high + margin)


def legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend for all panels, below them; each label once, in as few lines as fit the sheet."""
    found: dict[str, Any] = {}
    for a in axes:
        for handle, label in zip(*a.get_legend_handles_labels()):
            found.setdefault(label, handle)
    if found:
        figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=_legend_columns(list(found)))


def _legend_columns(labels: Sequence[str]) -> int:
    """The most columns whose widest labels fit the sheet: 0.052 inches a letter, 0.45 for handle and gap."""
    for n in range(len(labels), 1, -1):
        height = -(-len(labels) // n)
        columns = [labels[k:k + height] for k in range(0, len(labels), height)]
        if sum(0.45 + 0.052 * max(map(len, c)) for c in columns) <= WIDTH - 0.1:
            return len(columns)
    return 1


def same_limits(groups: Mapping[Any, Sequence[Axes]]) -> None:
    """One y range for panels that show the same quantity."""
    for axes in groups.values():
        limits = [a.get_ylim() for a in axes]
        low, high = min(lo for lo, _ in limits), max(hi for _, hi in limits)
        margin = 0.03 * (high - low)  # of a panel whose points are all alike, its own margin is next to nothing
        for a in axes:
            a.set_ylim(low - margin, high + margin)


POINT = ("panel", "what", "line", "label", "x", "y", "metric", "n", "wanted", "mean", "low", "high", "std")


def point(
    panel: str, what: str, line: str, label: str, x: float | None, metric: str, s: Summary | None = None,
    wanted: int = 0, y: float | None = None, value: float = math.nan,
) -> dict[str, Any]:
    """A line of the points' csv: a mean over runs, or a printed value."""
    numbers = (s.n, wanted, s.mean, s.low, s.high, s.std) if s else (None, None, value, None, None, None)
    return dict(zip(POINT, (panel, what, line, label, x, y, metric, *numbers)))
