"""Distributions of labels: what a mixer generates over what the data have, with the divergence of the two."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bench.report.plots.parts import EMPTY_HEIGHT, legend, not_run, sheet
from bench.report.plots.style import INK, look, symbols
from bench.report.plots.view import (
    Drawing,
    Measured,
    View,
    holes,
    means_text,
    provenance_text,
    sentences,
    spread,
    unmeasured,
)


def plot(view: View) -> Drawing:
    """Draw an artefact of kind "density": a panel per row, of the first seed that is measured."""
    places = [(p, view.experiment.rows[i]) for p in view.panels for i in view.rows(p["rows"])]
    found = [view.measured(p, row) for p, row in places]
    pictures = [m.picture("mixed") for m in found]
    figure, axes = sheet(view, [2.0 if any(pictures) else EMPTY_HEIGHT], max(2, len(places)))
    points: list[dict[str, Any]] = []
    for a, (panel, row), m, picture in zip(axes[0], places, found, pictures):
        if picture is None:
            not_run(a, row.method, m.why, m.head)
            continue
        points += _panel(view, a, row.method, picture[1])
        a.set_title(f"{row.method}: KL {spread(m.number('kl'), bounds=(0, math.inf))}")
        a.set_xlabel(symbols(panel["x"]))
    for a in axes[0, len(places):]:
        a.remove()
    drawn = [a for a, picture in zip(axes[0], pictures) if picture]
    top = max((a.get_ylim()[1] for a in drawn), default=1.0)
    for a in drawn:
        a.set_ylim(0, top)
    if drawn:
        drawn[0].set_ylabel("share of the labels (%)")
    legend(figure, drawn)
    frame = pd.DataFrame(points)
    return Drawing(figure, frame, _caption(view, found, pictures), holes(view) + unmeasured(found))


def _panel(view: View, axes: Axes, method: str, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    settings = view.spec["settings"]
    edges = np.linspace(*settings["range"], settings["bins"] + 1)
    counts = {name: np.histogram(np.clip(arrays[name], *settings["range"]), edges)[0] for name in ("label", "mixed")}
    real, mixed = (100 * counts[k] / max(1, counts[k].sum()) for k in ("label", "mixed"))
    axes.stairs(real, edges, fill=True, color=INK, alpha=0.22, linewidth=0, label="labels of the data")
    axes.stairs(mixed, edges, color=look(method).colour, linewidth=1.1, label=method, zorder=3)
    axes.set_xlim(*settings["range"])
    return [
        {"panel": method, "from": low, "to": high, "data_percent": r, "generated_percent": g}
        for low, high, r, g in zip(edges[:-1], edges[1:], real, mixed)
    ]


def _caption(view: View, found: list[Measured], pictures: list) -> str:
    if not any(pictures):
        return ""
    settings, seed = view.spec["settings"], next(p[0] for p in pictures if p)
    meaning = next((c.convention for c in view.experiment.columns if c.metric == "kl" and c.convention), "in nats")
    mean = means_text(len(m.by_seed("kl")) for m in found).lower()
    first = "first seed" if seed == view.seeds[0] else f"seed {seed}"
    return sentences(
        f"Histograms of {settings['bins']} bins, {first}; KL divergence ({meaning}): {mean}", provenance_text(view),
    )
