"""Attention matrices of one sample, the columns whose features were replaced by noise marked, one colour scale."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bench.report.plots.parts import EMPTY_HEIGHT, not_run, sheet
from bench.report.plots.style import MAP, WARNING, symbols
from bench.report.plots.view import Drawing, Measured, View, holes, n_text, provenance_text, sentences, unmeasured


def plot(view: View) -> Drawing:
    """Draw an artefact of kind "attention": two panels in a row, of the first seed that is measured."""
    places = [(p, view.experiment.rows[view.rows(p["rows"])[0]]) for p in view.panels]
    found = [view.measured(p, row) for p, row in places]
    pictures = [m.picture("matrix") for m in found]
    lines = [range(k, min(k + 2, len(places))) for k in range(0, len(places), 2)]
    heights = [2.75 if any(pictures[k] for k in line) else EMPTY_HEIGHT for line in lines]
    figure, axes = sheet(view, heights, 2, extra=0.2)
    highest = max((float(np.nanmax(p[1]["matrix"])) for p in pictures if p), default=1.0)
    points: list[dict[str, Any]] = []
    drawn = []
    for k, (panel, _) in enumerate(places):
        a, title = axes[k // 2, k % 2], symbols(panel["title"])
        if pictures[k] is None:
            not_run(a, title, found[k].why, found[k].head)
            continue
        mesh = _matrix(a, pictures[k][1], highest)
        a.set_xlabel(f"key: {panel['key']} position")
        a.set_ylabel(f"query: {panel['query']} position")
        a.set_title(f"{title}\n{_numbers(found[k])}", linespacing=1.35, pad=9)
        drawn.append(a)
        points += _points(title, pictures[k][1])
    for a in axes.flat[len(places):]:
        a.remove()
    if drawn:
        bar = figure.colorbar(mesh, ax=drawn, aspect=40, fraction=0.03, pad=0.015)
        bar.outline.set_visible(False)
        bar.set_label("weight, mean over heads")
    return Drawing(figure, pd.DataFrame(points), _caption(view, found, pictures), holes(view) + unmeasured(found))


def _matrix(axes: Axes, arrays: dict[str, np.ndarray], highest: float) -> Any:
    matrix, noised = arrays["matrix"], np.flatnonzero(arrays["noised"])
    queries, keys = matrix.shape
    edges = np.arange(keys + 1) - 0.5, np.arange(queries + 1) - 0.5
    mesh = axes.pcolormesh(*edges, matrix, cmap=MAP, vmin=0, vmax=highest, rasterized=True)
    axes.set_ylim(queries - 0.5, -0.5)
    axes.plot(
        noised, np.full(len(noised), 1.02), linestyle="", marker="v", markersize=3.6, color=WARNING, clip_on=False,
        transform=axes.get_xaxis_transform(),
    )
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)
    return mesh


def _numbers(m: Measured) -> str:
    noised, other = (m.number(k).mean for k in ("weight_noised", "weight_other"))
    return f"mean weight: noised {noised:.4f}, other {other:.4f}"


def _points(title: str, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    noised = arrays["noised"]
    return [
        {"panel": title, "query": q, "key": k, "weight": float(w), "noised": bool(noised[k])}
        for (q, k), w in np.ndenumerate(arrays["matrix"])
    ]


def _caption(view: View, found: list[Measured], pictures: list) -> str:
    if not any(pictures):
        return ""
    n = n_text(len(m.values) for m in found)
    return sentences(
        f"One sample of the {view.spec['settings']['split']} split; triangles: columns whose features were replaced by "
        f"noise. The same colour scale for all; {n}", provenance_text(view),
    )
