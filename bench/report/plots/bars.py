"""Groups of categories: a marker per method with its 95 % interval, the runs beside it as small dots.

The papers draw bars. A bar shows its number as a length from zero, and differences of a point of accuracy cannot be
seen on one; cut off, it misleads. Markers on an axis that fits the data say the same without either.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bench.analysis.results import Cell
from bench.analysis.stats import Summary
from bench.report.plots.line import point, printed_value
from bench.report.plots.parts import EMPTY_HEIGHT, cross, fit, legend, missing, not_run, same_limits, sheet
from bench.report.plots.style import look, symbols
from bench.report.plots.view import (
    Drawing,
    Panel,
    View,
    axis_label,
    holes,
    interval,
    means_text,
    provenance_text,
    sentences,
)


def plot(view: View) -> Drawing:
    """Draw an artefact of kind "bars": a row of panels per metric."""
    metrics, panels = view.spec["metrics"], view.panels
    shown = [[_has_points(view, p, m) for p in panels] for m in metrics]
    heights = [1.95 if any(line) else EMPTY_HEIGHT for line in shown]
    figure, axes = sheet(view, heights, max(2, len(panels)))
    points: list[dict[str, Any]] = []
    cells: list[Cell] = []
    same: dict[Any, list[Axes]] = {}
    for r, m in enumerate(metrics):
        for c, p in enumerate(panels):
            rows = view.rows(p["rows"])
            if not shown[r][c]:
                configs = [config for i in rows for config in view.experiment.rows[i].cells.values()]
                not_run(axes[r, c], symbols(p["title"]), missing(view, configs))
                continue
            points += _panel(view, axes[r, c], p, m, view.column(m, p["group"]), cells)
            same.setdefault(m, []).append(axes[r, c])
            if r and shown[r - 1][c]:
                axes[r, c].set_title("")
                axes[r - 1, c].set_xlabel("")
    same_limits(same)
    for a in axes[:, len(panels):].ravel():
        a.remove()
    legend(figure, figure.axes)
    frame = pd.DataFrame(points)
    return Drawing(figure, frame, _caption(view, frame), holes(view, cells))


def _has_points(view: View, panel: Panel, metric: str) -> bool:
    j = view.column(metric, panel["group"])
    return j is not None and any(view.cell(i, j).shown for i in view.rows(panel["rows"]))


def _panel(view: View, axes: Axes, panel: Panel, metric: str, j: int, cells: list[Cell]) -> list[dict[str, Any]]:
    every, names, points = view.experiment.rows, list(panel["categories"]), []
    drawn: list[Summary] = []
    rows = view.rows(panel["rows"])
    methods = list(dict.fromkeys(getattr(every[i], panel["lines"]) for i in rows))
    title = symbols(panel["title"])
    for i in rows:
        method, category = getattr(every[i], panel["lines"]), names.index(every[i].variant)
        style, cell = look(method), view.cell(i, j)
        s = interval(cell)
        cells.append(cell)
        drawn.append(s)
        x = category + 0.34 * (methods.index(method) - (len(methods) - 1) / 2)
        if s.n:
            mark = {"linestyle": "", "color": style.colour}
            axes.plot([x], [s.mean], marker=style.marker, markersize=4.5, label=method, zorder=3, **mark)
            if np.isfinite(s.low):
                axes.vlines([x], [s.low], [s.high], color=style.colour, linewidth=1)
            axes.plot([x + 0.1] * cell.n, cell.finite, marker="o", markersize=1.6, alpha=0.5, **mark)
        points.append(point(title, "cell", method, every[i].variant, x, metric, s, cell.wanted))
        for given in view.spec.get("printed", ()) if view.compared else ():
            if given["metric"] != metric or i not in view.rows(given["at"]):
                continue
            found = printed_value(view, given, i, j)
            if found:
                cross(axes, x - 0.1, *found, marker="x" if "value" in given else "+")
                points.append(point(title, "printed", method, every[i].variant, x, metric, value=found[0]))
    for k, name in enumerate(names):
        if not any(view.cell(i, j).shown for i in rows if every[i].variant == name):
            axes.text(k, 0.04, "not run", ha="center", fontsize=6.5, transform=axes.get_xaxis_transform())
    axes.set_xticks(range(len(names)), names)
    values = [v for i in rows if view.cell(i, j).shown for v in view.cell(i, j).finite]
    fit(axes, drawn, [*values, *(p["mean"] for p in points if p["what"] == "printed")])
    axes.set_xlim(-0.5, len(names) - 0.5)
    probes = "linear heads on text (T), audio (A), vision (V); the model (F)"
    axes.set_xlabel(probes if panel.get("probed") else symbols(panel["x"]))
    axes.set_ylabel(axis_label(view.experiment.columns[j]))
    axes.set_title(title)
    return points


def _caption(view: View, points: pd.DataFrame) -> str:
    if not len(points) or not (points["n"] > 0).any():
        return ""
    mean = f"{means_text(points['n'].dropna().astype(int))}; small dots: the runs"
    printed = "black crosses: given in the paper's text" if (points["what"] == "printed").any() else ""
    return sentences("; ".join(filter(None, (mean, printed))), provenance_text(view))
