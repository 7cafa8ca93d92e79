"""Lines over a setting: mean over seeds with Student's 95 % interval, the paper's setting and printed points marked.

A metric that only some panels have fills one grid in reading order; otherwise there is a row of panels per metric.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from bench.analysis.results import Cell
from bench.matrix import Row
from bench.report.plots import heatmap
from bench.report.plots.parts import (
    DOTTED,
    EMPTY_HEIGHT,
    POINT,
    cross,
    curve,
    fit,
    legend,
    level,
    missing,
    not_run,
    point,
    remove,
    same_limits,
    sheet,
    x_axis,
)
from bench.report.plots.style import Look, look, steps, symbols
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

DEFAULT, PRINTED = "setting of the paper", "printed in the paper's text"


@dataclass(frozen=True)
class Line:
    name: str
    rows: list[int]
    look: Look
    thin: bool = False


@dataclass(frozen=True)
class Place:
    """One axes: a panel's picture of one metric, column j of the table."""

    panel: Panel
    metric: str
    column: int

    label: str  # of the metric

    @property
    def title(self) -> str:
        """The panel's title; a metric's name as the paper prints it."""
        return self.label if self.panel["title"] == self.metric else symbols(self.panel["title"])


def plot(view: View) -> Drawing:
    """Draw an artefact of kind "line"; panels may be of kind "heatmap"."""
    rows = _grid(view)
    shown = {id(p): _has_points(view, p) for line in rows for p in line if p}
    tall = {1: 2.1, 2: 1.95, 3: 1.75}.get(len(rows[0]), 1.65)
    heights = [tall if any(shown[id(p)] for p in line if p) else EMPTY_HEIGHT for line in rows]
    figure, axes = sheet(view, heights, len(rows[0]))
    points: list[dict[str, Any]] = []
    cells: list[Cell] = []
    same: dict[Any, list[Axes]] = {}
    for r, line in enumerate(rows):
        for c, place in enumerate(line):
            if place is None:
                remove([axes[r, c]])
            elif not shown[id(place)]:
                configs = [view.config(i, place.panel["group"]) for i in view.rows(place.panel["rows"])]
                not_run(axes[r, c], place.title, missing(view, configs))
            elif place.panel.get("kind") == "heatmap":
                points += heatmap.panel(view, axes[r, c], place.panel, place.column, place.title, cells)
            else:
                points += _panel(view, axes[r, c], place, cells, len(line))
                if r and (above := rows[r - 1][c]) and above.title == place.title and shown[id(above)]:
                    axes[r, c].set_title("")
                left = line[c - 1] if c else None
                if left is None or left.column != place.column or not shown[id(left)] or left.panel.get("kind"):
                    axes[r, c].set_ylabel(axis_label(view.experiment.columns[place.column]))
                if r and axes[r - 1, c].get_xlabel() == axes[r, c].get_xlabel():  # once, under the lowest of them
                    axes[r - 1, c].set_xlabel("")
                same.setdefault(place.column, []).append(axes[r, c])
    same_limits(same)
    legend(figure, [a for a in figure.axes])
    frame = pd.DataFrame(points, columns=list(POINT))
    return Drawing(figure, frame, _caption(view, frame), holes(view, cells))


def _panels(view: View) -> list[Panel]:
    """The artefact's panels; one with "split" becomes a panel per line, where several in one would cover each other."""
    found: list[Panel] = []
    for p in view.panels:
        if not p.get("split"):
            found.append(p)
            continue
        if each := p.get("each"):
            parts = [({**p, "each": [e], "rows": e["rows"], "look": k}, e["label"]) for k, e in enumerate(each)]
        else:
            every, label = view.experiment.rows, p.get("lines", "method")
            names = dict.fromkeys(getattr(every[i], label) for i in view.rows(p["rows"]) if every[i].x is not None)
            parts = [({**p, "rows": {**p["rows"], label: name}, "again": k > 0}, name) for k, name in enumerate(names)]
        found += [{**part, "title": f"{'' if p['title'] == p.get('metric') else p['title'] + ', '}{name}"} for part, name in parts]
    return found


def _grid(view: View) -> list[list[Place | None]]:
    """Rows of panels. None: an empty place."""
    metrics, panels = view.spec["metrics"], _panels(view)
    places = [
        [
            Place(p, m, j, view.experiment.columns[j].label) for p in panels
            if p.get("metric", m) == m and (j := view.column(m, p["group"])) is not None
        ]
        for m in metrics
    ]
    flat = sorted((p for line in places for p in line), key=lambda p: panels.index(p.panel))
    if len(flat) == len(panels) or len(panels) == 1:
        n = len(flat) if len(flat) <= 3 else len(panels) // len(view.panels) if len(panels) > len(view.panels) else 3
        lines = [flat[k:k + n] for k in range(0, len(flat), n)]
    else:
        n = max(map(len, places))
        lines = places
    return [line + [None] * (n - len(line)) for line in lines]


def lines_of(view: View, panel: Panel) -> list[Line]:
    """The lines of a panel: one per label of the panel's `lines`, those it names one by one, or one for all."""
    rows = [i for i in view.rows(panel["rows"]) if view.experiment.rows[i].x is not None]
    every: list[Row] = list(view.experiment.rows)
    if each := panel.get("each"):
        looks = steps(len(each) + panel.get("look", 0))[panel.get("look", 0):]
        return [Line(symbols(e["label"]), view.rows(e["rows"]), s) for e, s in zip(each, looks)]
    by: dict[str, list[int]] = {}
    for i in rows:
        by.setdefault(getattr(every[i], panel.get("lines", "method")), []).append(i)
    lines = [Line(name, mine, look(name)) for name, mine in by.items()]
    if thin := panel.get("thin"):
        mine = [i for i in view.rows(thin) if every[i].x is not None]
        lines.append(Line(every[mine[0]].method, mine, look(every[mine[0]].method), thin=True))
    return lines


def _has_points(view: View, place: Place) -> bool:
    rows = view.rows(place.panel["rows"])
    return any(view.cell(i, place.column).shown for i in rows if view.experiment.rows[i].x is not None)


def _panel(view: View, axes: Axes, place: Place, cells: list[Cell], columns: int) -> list[dict[str, Any]]:
    panel, j, every = place.panel, place.column, view.experiment.rows
    lines, points, drawn = lines_of(view, panel), [], []
    band = len(lines) <= 2
    xs = [every[i].x for line in lines for i in line.rows]
    names = None
    if panel.get("categories") is True:
        names = [every[i].variant for i in lines[0].rows]
    x_axis(axes, xs, panel.get("scale", "linear"), names, columns)
    for k, line in enumerate(lines):
        mine = sorted(line.rows, key=lambda i: every[i].x)
        cells += [view.cell(i, j) for i in mine]
        found = [interval(view.cell(i, j)) for i in mine]
        drawn += found
        if any(s.n for s in found):
            shift = 0.0 if band else 1.6 * (k - (len(lines) - 1) / 2)
            own = line.look if names is None else replace(line.look, line="none")  # nothing lies between categories
            curve(axes, [every[i].x for i in mine], found, own, line.name, band and names is None, shift, line.thin)
        points += [
            point(place.title, "line", line.name, every[i].variant, every[i].x, place.metric, s, view.cell(i, j).wanted)
            for i, s in zip(mine, found) if not (line.thin and panel.get("again"))  # the same in every part
        ]
    if panel.get("default") is not None:
        axes.axvline(panel["default"], label=DEFAULT, **DOTTED)
    for i in view.rows(panel["reference"]) if "reference" in panel else ():
        cell, name = view.cell(i, j), every[i].method
        cells.append(cell)
        s = interval(cell)
        drawn.append(s)
        if s.n:
            level(axes, s, look(name), f"{name} (level)")
        points.append(point(place.title, "level", name, every[i].variant, None, place.metric, s, cell.wanted))
    printed = _printed(view, axes, place) if view.compared else []
    points += printed
    fit(axes, drawn, [p["mean"] for p in printed])
    axes.set_xlabel(symbols(panel["x"]))
    axes.set_title(place.title)
    return points


def _printed(view: View, axes: Axes, place: Place) -> list[dict[str, Any]]:
    """Points that the paper's text gives: a value, or a gain over the plain row of the same block."""
    points, every, rows = [], view.experiment.rows, set(view.rows(place.panel["rows"]))
    for given in view.spec.get("printed", ()):
        if given["metric"] != place.metric:
            continue
        for i in rows.intersection(view.rows(given["at"])):
            if every[i].x is None:
                continue
            found = printed_value(view, given, i, place.column)
            if found is None:
                continue
            row = every[i]
            cross(axes, row.x, *found)
            points.append(point(place.title, "printed", row.method, row.variant, row.x, place.metric, value=found[0]))
    return points


def printed_value(view: View, given: Mapping[str, Any], row: int, column: int) -> tuple[float, str] | None:
    """(value, what it is) of a printed point at a row; a gain is put on the plain row's mean of ours, and drawn at the
    proposed row only. None where there is nothing to put it on."""
    if "value" in given:
        return given["value"], PRINTED
    base = view.table.grid.baseline(row, "plain")
    if base is None or view.experiment.rows[row].baseline != "proposed" or not view.cell(base, column).shown:
        return None
    sign = 1 if view.experiment.columns[column].higher_is_better else -1
    return view.cell(base, column).mean + sign * given["gain"], "our plain mean + the gain printed in the text"


def _caption(view: View, points: pd.DataFrame) -> str:
    """What the marks mean, n, and where the data come from."""
    ours = points[points["what"].isin(["line", "level", "cell"])]
    if not (ours["n"] > 0).any():
        return ""
    panels = [p for p in view.panels if p.get("kind") != "heatmap"]
    bars = any(len(lines_of(view, p)) > 2 for p in panels)
    mean = means_text(ours["n"].dropna().astype(int)) + (" (bars)" if bars and (ours["n"] > 1).any() else "")
    marks = []
    if any(p.get("default") is not None for p in panels):
        marks.append("dotted: the paper's setting")
    if (points["what"] == "level").any():
        names = dict.fromkeys(points.loc[points["what"] == "level", "line"])
        marks.append(f"dashed: {' and '.join(names)} as a level")
    if any("thin" in p for p in panels):
        marks.append("thin: " + " and ".join(dict.fromkeys(p["thin"]["method"] for p in panels if "thin" in p)))
    if (points["what"] == "printed").any():
        places = dict.fromkeys(g["where"] for g in view.spec["printed"])
        marks.append(f"crosses: given in the paper's text ({', '.join(places)})")
    if (points["what"] == "cell").any():
        marks.append("map: means, the paper's setting boxed")
    if (ours["n"] == 2).any():
        marks.append("an interval of two runs may leave its panel")
    text = "; ".join(marks)
    return sentences(mean, text[:1].upper() + text[1:], provenance_text(view))
