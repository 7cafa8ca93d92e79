"""Curves over the epochs of training: the first seed as a line, as the papers draw one run, and the mean of all seeds
with its 95 % interval as a band behind it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bench.analysis.stats import Summary, summary
from bench.matrix import Config
from bench.report.plots.parts import DOTTED, EMPTY_HEIGHT, fit, legend, missing, not_run, sheet
from bench.report.plots.style import MODALITIES, Look, look, symbols
from bench.report.plots.view import Drawing, Panel, View, holes, n_text, provenance_text, sentences

POINT = ("panel", "curve", "epoch", "n", "mean", "low", "high", "first_seed")
RANGE = "printed range"
_MODALITY = {"visual": "vision", "acoustic": "audio", "language": "text"}


def plot(view: View) -> Drawing:
    """Draw an artefact of kind "dynamics". A panel of a metric (and those in its `also`) is read from the history of
    the runs, as the sum of the columns that the definition names."""
    curves = [_curves(view, p) for p in view.panels]
    columns = 2 if len(curves) <= 2 else 3
    grid = [curves[k:k + columns] for k in range(0, len(curves), columns)]
    heights = [(1.9 if columns == 2 else 1.6) if any(any(c.values()) for c in line) else EMPTY_HEIGHT for line in grid]
    figure, axes = sheet(view, heights, columns)
    points: list[dict[str, Any]] = []
    incomplete: list[str] = []
    for a, panel, found in zip(axes.flat, view.panels, curves):
        title = symbols(panel["title"])
        if any(found.values()):
            points += _panel(view, a, panel, found)
            incomplete += [name.replace("_", " ") for name, runs in found.items() if not runs]
        else:
            configs = [view.config(i, panel["group"]) for i in view.rows({})]
            done = view.runs(configs)["done"]
            why = missing(view, configs) + ("\nwithout these curves in their history" if done else "")
            not_run(a, title, why, "not recorded" if done else "not run")
    for a in axes.flat[len(curves):]:
        a.remove()
    legend(figure, figure.axes)
    frame = pd.DataFrame(points, columns=list(POINT))
    notes = holes(view) + ([f"Not in the runs' history: {', '.join(incomplete)}"] if incomplete else [])
    return Drawing(figure, frame, _caption(view, frame), notes)


def _curves(view: View, panel: Panel) -> dict[str, dict[int, pd.Series]]:
    """Curve -> seed -> its values by epoch. A seed whose history lacks a column is left out."""
    found: dict[str, dict[int, pd.Series]] = {}
    for name in (panel["metric"], *panel.get("also", ())):
        columns = list(view.spec["computed"][name])
        found[name] = {}
        for config in _configs(view, panel):
            for s in view.seeds:
                history = view.history(config, s)
                if history is not None and {"epoch", *columns} <= set(history.columns):
                    values = history.set_index("epoch")[columns].sum(axis=1, skipna=False).dropna()
                    if len(values):
                        found[name][s] = values
    return found


def _configs(view: View, panel: Panel) -> list[Config]:
    """The one config whose curves the panel shows: its rows are the ends of the same curve."""
    return list(dict.fromkeys(c for i in view.rows({}) if (c := view.config(i, panel["group"]))))[:1]


def _panel(view: View, axes: Axes, panel: Panel, curves: dict[str, dict[int, pd.Series]]) -> list[dict[str, Any]]:
    points, first = [], view.seeds[0]
    drawn, values = [], [panel["level"]] if "level" in panel else []
    for name, runs in curves.items():
        if not runs:
            continue
        style, label = _look(view, panel, name)
        epochs = sorted(set().union(*(r.index for r in runs.values())))
        means = [summary([r[t] for r in runs.values() if t in r.index]) for t in epochs]
        seed = first if first in runs else next(iter(runs))
        line = runs[seed].reindex(epochs)
        axes.plot(epochs, line, color=style.colour, linestyle=style.line, label=label, linewidth=1.0, zorder=3)
        _band(axes, epochs, means, style)
        drawn += means
        values += line.dropna().tolist()
        for given in view.spec.get("printed", ()) if view.compared else ():
            if given["metric"] == name:
                low, high = given["value"]
                values += [low, high]
                axes.axhspan(
                    low, high, facecolor="none", edgecolor=style.colour, hatch="////", linewidth=0, alpha=0.75,
                    label=f"{label}, {RANGE}", zorder=0.6,
                )
        points += [
            dict(zip(POINT, (symbols(panel["title"]), name, t, m.n, m.mean, m.low, m.high, v)))
            for t, m, v in zip(epochs, means, line)
        ]
    if "level" in panel:
        axes.axhline(panel["level"], label=f"level {panel['level']:g}", **DOTTED)
    fit(axes, drawn, values)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel(panel["x"])
    axes.set_ylabel("loss" if panel["metric"].endswith("loss") else "mean over an epoch's steps")
    axes.set_title(symbols(panel["title"]))
    return points


def _band(axes: Axes, epochs: Sequence[int], means: Sequence[Summary], style: Look) -> None:
    low, high = (np.array([getattr(m, k) for m in means]) for k in ("low", "high"))
    if np.isfinite(low).any():
        known = np.isfinite(low)
        axes.fill_between(epochs, low, high, where=known, color=style.colour, alpha=0.18, linewidth=0, zorder=1)


def _look(view: View, panel: Panel, name: str) -> tuple[Look, str]:
    """(look, label): training and validation of one loss share the system's colour; modalities have their own."""
    tail = name.rpartition("_")[2]
    if modality := _MODALITY.get(tail, tail if tail in MODALITIES else ""):
        return MODALITIES[modality], modality
    own = look(view.experiment.rows[0].method)
    if name.startswith("valid_"):
        return Look(own.colour, own.marker, (0, (3, 1.5))), "validation"
    both = any(k.startswith("valid_") for p in view.panels for k in p.get("also", ()))
    return own, "training" if both else name if view.spec.get("printed") else view.experiment.rows[0].method


def _caption(view: View, points: pd.DataFrame) -> str:
    if not len(points):
        return ""
    n = n_text(points["n"].astype(int))
    printed = "hatched: the range given in the paper's text" if view.compared and view.spec.get("printed") else ""
    band = f"Line: the first seed; band: 95 % t interval of the mean over the seeds that train in that epoch ({n})"
    return sentences("; ".join(filter(None, (band, printed))), provenance_text(view))
