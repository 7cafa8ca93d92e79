"""What each way of mixing can generate from a few points of the plane, drawn by the mixers that the jobs use."""

import io
import json
import os
import subprocess
from functools import lru_cache

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.spatial import ConvexHull

from bench.interpreter import command
from bench.report.plots.parts import EMPTY_HEIGHT, legend, not_run, sheet
from bench.report.plots.style import INK, look
from bench.report.plots.view import Drawing, View, sentences


def plot(view: View) -> Drawing:
    """Draw an artefact of kind "illustration": its panels, and one of PowMix with its own number of points."""
    spec, points = view.spec, np.array(view.spec["points"], dtype=float)
    mixes = [p["mixes"] for p in view.panels] + [None]
    titles = [f"{_method(n, len(points))}\n{p['title']}" for n, p in zip(mixes, view.panels)]
    titles.append("PowMix\nn_I from U(2, 4)")
    wanted = {"points": points.tolist(), "mixes": mixes, "generated": spec["generated"], **spec["settings"]}
    pictures, why = generated(json.dumps(wanted, sort_keys=True))
    figure, axes = sheet(view, [1.6 if pictures else EMPTY_HEIGHT], len(mixes), extra=0.35)
    for k, (a, n, title) in enumerate(zip(axes[0], mixes, titles)):
        if pictures:
            _panel(a, points, pictures[k], _method(n, len(points)))
            a.set_title(title, linespacing=1.35)
        else:
            not_run(a, title, why)
    lines = [
        {"panel": title.replace("\n", ", "), "x": float(x), "y": float(y)}
        for title, found in zip(titles, pictures) for x, y in found
    ]
    legend(figure, [axes[0, 0]] if pictures else [])
    caption = sentences(
        f"{len(points)} points (black) and {spec['generated']:,} mixtures of them per panel, by the mixers that the "
        "jobs use; between 2 and all, those of PowMix that mix exactly so many; last: PowMix by default",
    ) if pictures else ""
    return Drawing(figure, pd.DataFrame(lines), caption, [] if pictures else [f"Not drawn: {why}"])


def _method(mixes: int | None, points: int) -> str:
    return {2: "Manifold Mix", points: "MultiMix"}.get(mixes, "PowMix")


@lru_cache(maxsize=4)
def generated(wanted: str) -> tuple[tuple[np.ndarray, ...], str]:
    """(pictures, ""), or ((), why there are none). A program of its own, because a report does not import torch."""
    done = subprocess.run(
        command("from bench.mixers.illustrate import main; main()"), input=wanted.encode(), capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        return (), (done.stderr.decode(errors="replace").strip().splitlines() or ["the mixers did not run"])[-1]
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as f:
        return tuple(f[str(k)] for k in range(len(f.files))), ""


def _panel(axes: Axes, points: np.ndarray, found: np.ndarray, method: str) -> None:
    hull = points[ConvexHull(points).vertices]
    axes.plot(*np.vstack([hull, hull[:1]]).T, color=INK, linewidth=0.7, alpha=0.6, label="convex hull")
    axes.scatter(*found.T, s=1.2, color=look(method).colour, alpha=0.35, linewidths=0, rasterized=True)
    axes.plot(*points.T, linestyle="", marker="o", markersize=3.2, color=INK, label="given points", zorder=3)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_axis_off()
