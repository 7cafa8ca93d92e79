"""t-SNE of latents in two perplexities: signs of the label in blue and red, mixed rows paler than originals.

A picture depends on its perplexity; what is judged are the silhouette and the nearest-neighbour accuracy of the sign in
the original space, which stand under each panel.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bench.report.plots.parts import EMPTY_HEIGHT, not_run, remove, sheet
from bench.report.plots.style import INK, NEGATIVE, NEUTRAL, POSITIVE, symbols
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

_PREFIX = "embedding_"
_SIGNS = ((1, "positive", POSITIVE), (-1, "negative", NEGATIVE), (0, "neutral", NEUTRAL))


def plot(view: View) -> Drawing:
    """Draw an artefact of kind "tsne": per panel one picture per perplexity, of the first seed."""
    places = [(p, view.experiment.rows[view.rows(p["rows"])[0]]) for p in view.panels]
    found = [view.measured(p, row) for p, row in places]
    pictures = [m.picture(_PREFIX) for m in found]
    perplexities = [float(p) for p in view.spec["settings"]["perplexities"]]
    across = len(places) <= 2  # both perplexities side by side
    columns = max(1, len(perplexities)) * len(places) if across and any(pictures) else min(3, len(places))
    grid, figure, axes = _sheet(view, len(places), pictures, perplexities, across, columns)
    points: list[dict[str, Any]] = []
    signs, both = set(), False
    for k, (panel, _) in enumerate(places):
        mine, title = [axes[at] for at in grid[k]], symbols(panel["title"])
        if pictures[k] is None:
            not_run(mine[0], title, found[k].why, found[k].head)
            remove(mine[1:])
            continue
        arrays = pictures[k][1]
        for a, perplexity in zip(mine, perplexities):
            embedding = arrays[f"{_PREFIX}{perplexity:g}"]
            signs |= _scatter(a, embedding, arrays["label"], arrays["mixed"])
            a.set_title(f"{title}, {'perpl.' if across else 'perplexity'} {perplexity:g}")
            points += _points(title, perplexity, embedding, arrays["label"], arrays["mixed"])
        both = both or bool(arrays["mixed"].any())
        mine[0 if across else -1].set_xlabel(_numbers(found[k]), linespacing=1.4)
        if across:
            for a in mine[1:]:
                a.set_xlabel("\n", linespacing=1.4)
    for at in set(np.ndindex(axes.shape)) - {at for line in grid for at in line}:
        axes[at].remove()
    _legend(figure, signs, both)
    frame = pd.DataFrame(points)
    return Drawing(figure, frame, _caption(view, found, pictures), holes(view) + unmeasured(found))


def _sheet(view: View, n: int, pictures: list, perplexities: list[float], across: bool, columns: int):
    """(axes of each panel as [row, column] places, figure, axes)."""
    k = max(1, len(perplexities))
    if not any(pictures):
        rows = -(-n // columns)
        figure, axes = sheet(view, [EMPTY_HEIGHT] * rows, columns)
        return [[(i // columns, i % columns)] for i in range(n)], figure, axes
    if across:
        figure, axes = sheet(view, [1.95], columns)
        return [[(0, i * k + j) for j in range(k)] for i in range(n)], figure, axes
    rows = -(-n // columns)
    figure, axes = sheet(view, [1.7] * rows * k, columns)
    return [[(i // columns * k + j, i % columns) for j in range(k)] for i in range(n)], figure, axes


def _scatter(axes: Axes, places: np.ndarray, label: np.ndarray, mixed: np.ndarray) -> set[str]:
    """Draw the points; returns the signs that occur. One call each for mixed and original rows, in random order, so
    that no class hides another."""
    colour = np.select([label > 0, label < 0], [POSITIVE, NEGATIVE], NEUTRAL)
    order = np.random.default_rng(0).permutation(len(label))
    for kind, alpha, size in ((True, 0.35, 5.0), (False, 0.9, 5.0)):
        mine = order[mixed[order] == kind]
        axes.scatter(*places[mine].T, c=list(colour[mine]), s=size, alpha=alpha, linewidths=0, rasterized=True)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[["left", "bottom", "top", "right"]].set_visible(True)
    axes.spines[["left", "bottom", "top", "right"]].set_alpha(0.35)
    return {name for sign, name, _ in _SIGNS if (np.sign(label) == sign).any()}


def _numbers(m: Measured) -> str:
    accuracy = m.number("knn_accuracy", 100.0)
    return f"silhouette {spread(m.number('silhouette'), bounds=(-1, 1))}\nkNN {spread(accuracy, 1, (0, 100))} %"


def _points(
    title: str, perplexity: float, places: np.ndarray, label: np.ndarray, mixed: np.ndarray
) -> list[dict[str, Any]]:
    return [
        {"panel": title, "perplexity": perplexity, "x": float(x), "y": float(y), "label": float(v), "mixed": bool(w)}
        for (x, y), v, w in zip(places, label, mixed)
    ]


def _legend(figure: Any, signs: set[str], both: bool) -> None:
    def dot(colour: str, alpha: float = 0.9) -> Line2D:
        return Line2D([], [], linestyle="", marker="o", markersize=3.5, color=colour, alpha=alpha, markeredgewidth=0)

    handles = [(dot(c), name) for _, name, c in _SIGNS if name in signs]
    if both:
        handles += [(dot(INK), "original"), (dot(INK, 0.3), "mixed (pale)")]
    if handles:
        figure.legend(*zip(*handles), loc="outside lower center", ncols=len(handles))


def _caption(view: View, found: list[Measured], pictures: list) -> str:
    if not any(pictures):
        return ""
    seed = next(p[0] for p in pictures if p)
    first = "first seed" if seed == view.seeds[0] else f"seed {seed}"
    mean = means_text(len(m.by_seed("silhouette")) for m in found).lower()
    return sentences(
        f"Pictures of the {first}; axes of t-SNE have no unit. Silhouette and kNN, the accuracy of the "
        f"{view.spec['settings']['neighbours']} nearest neighbours, are of the sign of the label, in the original "
        f"space: {mean}", provenance_text(view),
    )
