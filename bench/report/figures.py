"""The papers' figures, drawn from stored jobs: SVG for the page, vector PDF for LaTeX, the points behind as csv."""

import importlib
import math
from pathlib import Path

import pandas as pd

from bench.matrix import Experiment
from bench.names import csv_text
from bench.report.plots import render
from bench.report.plots.style import drawing
from bench.report.plots.view import View, sentences
from bench.report.records import Figure
from bench.report.tables import Table, slug
from bench.store import Store, write_atomic

KINDS = ("line", "heatmap", "bars", "dynamics", "density", "tsne", "landscape", "attention", "illustration")


def draw(experiment: Experiment, table: Table, store: Store, out_dir: str | Path) -> list[Figure]:
    """Draw an artefact into a folder: <id>.pdf and, where points are known, <id>.csv. Nothing for a table.

    What is not run is drawn as a panel that says so. Raises ValueError for a kind of figure that nothing draws.
    """
    spec, out = experiment.figure, Path(out_dir)
    if experiment.kind != "figure" or not spec:
        return []
    if spec["kind"] not in KINDS:
        raise ValueError(f"{experiment.id}: no figure of kind '{spec['kind']}'")
    module = importlib.import_module(f"bench.report.plots.{spec['kind']}")
    with drawing():
        made = module.plot(View(table, store))
        render.freeze(made.figure)
        svg, pdf = render.svg(made.figure, f"{experiment.id}: {experiment.title}"), render.pdf(made.figure)
    stem = f"{experiment.id}-figure" + (f"-{slug(experiment.variant)}" if experiment.variant else "")
    names = {kind: f"{stem}.{kind}" for kind in ("pdf", "csv")}
    other = f"Drawn from runs with other settings: {experiment.variant}" if experiment.variant else ""
    write_atomic(out / names["pdf"], pdf)
    if len(made.points):
        write_atomic(out / names["csv"], _csv(made.points).encode())
    else:
        (out / names["csv"]).unlink(missing_ok=True)
    return [Figure(
        id=stem, title=experiment.title, svg=svg, caption=made.caption,
        csv=names["csv"] if len(made.points) else "", note=sentences(other, *made.notes), pdf=names["pdf"],
    )]


def _csv(points: pd.DataFrame) -> str:
    """Numbers in six significant digits; columns that say nothing are left out."""
    told = points.dropna(axis="columns", how="all")
    text = told.map(lambda v: f"{v:.6g}" if isinstance(v, float) and math.isfinite(v) else v)
    return csv_text(text)
