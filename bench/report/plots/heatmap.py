"""A map of means over two settings, numbers in its cells, the paper's setting boxed."""

import re
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from bench.analysis.results import Cell
from bench.report.plots.parts import EMPTY_HEIGHT, missing, not_run, plain_number, point, sheet
from bench.report.plots.style import INK, MAP, symbols
from bench.report.plots.view import (
    Drawing,
    Panel,
    View,
    axis_label,
    holes,
    interval,
    n_text,
    provenance_text,
    sentences,
)

_ON_DARK, _ON_LIGHT = "#fefefe", "#010101"  # numbers on the map, whatever the page's theme


def plot(view: View) -> Drawing:
    """Draw an artefact of kind "heatmap": one map per panel, of the first metric that its group has."""
    places = [
        (p, next(j for m in view.spec["metrics"] if (j := view.column(m, p["group"])) is not None)) for p in view.panels
    ]
    shown = [any(view.cell(i, j).shown for i in view.rows(p["rows"])) for p, j in places]
    figure, axes = sheet(view, [2.4 if any(shown) else EMPTY_HEIGHT], max(2, len(places)))
    points, cells = [], []
    for k, (p, j) in enumerate(places):
        if shown[k]:
            points += panel(view, axes[0, k], p, j, symbols(p["title"]), cells)
        else:
            configs = [view.config(i, p["group"]) for i in view.rows(p["rows"])]
            not_run(axes[0, k], symbols(p["title"]), missing(view, configs))
    for a in axes[0, len(places):]:
        a.remove()
    frame = pd.DataFrame(points)
    counts = frame["n"].astype(int) if len(frame) else ()
    words = f"Means over {n_text(counts)}; boxed: the paper's setting" if len(frame) else ""
    caption = sentences(words, provenance_text(view)) if words else ""
    return Drawing(figure, frame, caption, holes(view, cells))


def panel(view: View, axes: Axes, p: Panel, column: int, title: str, cells: list[Cell]) -> list[dict[str, Any]]:
    """One map: x and y are read from the rows' labels ("xi_1=0.3, xi_2=0.5"). Returns the points behind it."""
    every, values = view.experiment.rows, list(p["values"])
    grid, points = np.full((len(values), len(values)), np.nan), []
    for i in view.rows(p["rows"]):
        x, y = (float(re.search(rf"(?<!\w){re.escape(p[k])}=([\d.eE+-]+)", every[i].variant)[1]) for k in ("x", "y"))
        cell = view.cell(i, column)
        s = interval(cell)
        cells.append(cell)
        grid[values.index(y), values.index(x)] = s.mean
        metric = view.experiment.columns[column].metric
        points.append(point(title, "cell", every[i].method, every[i].variant, x, metric, s, cell.wanted, y))
    edges = np.arange(len(values) + 1) - 0.5
    low, high = np.nanmin(grid), np.nanmax(grid)
    if low == high:
        low, high = low - 0.5, high + 0.5
    axes.pcolormesh(edges, edges, np.ma.masked_invalid(grid), cmap=MAP, vmin=low, vmax=high)
    for (r, c), value in np.ndenumerate(grid):
        known = np.isfinite(value)
        colour = (_ON_DARK if value < low + 0.6 * (high - low) else _ON_LIGHT) if known else INK
        axes.text(c, r, f"{value:.1f}" if known else "\u2013", ha="center", va="center", fontsize=6, color=colour)
    if p.get("default"):
        x, y = (values.index(v) for v in p["default"])
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="#d04a00", linewidth=1.6, zorder=3))
    axes.set_xticks(range(len(values)), [plain_number(v) for v in values])
    axes.set_yticks(range(len(values)), [plain_number(v) for v in values])
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xlabel(symbols(p["x"]))
    axes.set_ylabel(symbols(p["y"]))
    axes.set_title(f"{title}: {axis_label(view.experiment.columns[column])}")
    return points
