"""Reported against reproduced, cell by cell.

A verdict is given only where the data are the published ones, as far as anybody can tell: on any other file the two
numbers answer different questions. Files of a format without a published hash get one, marked; custom data show the
difference without a verdict; generated data and test-only encoders show nothing.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.analysis.agreement import prediction_interval, status
from bench.analysis.grid import Grid
from bench.analysis.results import Cell, Results, provenance
from bench.matrix import Column, Config, Row, dataset_name
from bench.provenance import COMPARABLE, UNLISTED

_log = logging.getLogger("bench.report")
NAN = float("nan")

INSIDE, NEAR, BEYOND, BETTER, UNDECIDED = "inside", "within twice", "beyond", "better", "undecided"
STATUSES = (INSIDE, NEAR, BEYOND, BETTER, UNDECIDED)
MEANING = {
    INSIDE: "the reported number lies inside the prediction interval of our runs",
    NEAR: "ours is worse, by one to two half-widths of that interval",
    BEYOND: "ours is worse, by more than two half-widths",
    BETTER: "ours is better, by more than one half-width",
    UNDECIDED: "too few runs for an interval",
}


@dataclass(frozen=True)
class Printed:
    """A number as the paper prints it, in the unit of our column."""

    mean: float
    std: float  # NaN where none is printed
    text: str
    std_text: str
    n: int | None
    elsewhere: bool  # copied by the paper from another publication
    bold: bool
    underline: bool
    rounding: float  # half a unit of the last printed digit


@dataclass(frozen=True)
class Judged:
    """A cell beside what the paper prints. `status` is one of STATUSES, or "" where no verdict may be given."""

    printed: Printed | None = None
    delta: float = NAN  # ours minus reported
    half_width: float = NAN  # of the 95 % prediction interval
    status: str = ""
    why: str = ""  # why there is no verdict, or what it assumes

    @property
    def ratio(self) -> float:
        """Difference over half-width."""
        return self.delta / self.half_width if self.half_width > 0 else NAN


class Reported:
    """Reported cells, found by the labels of a table. Labels are compared without case and runs of spaces."""

    def __init__(self, frame: pd.DataFrame | None) -> None:
        self._cells: dict[tuple[str, ...], dict[str, Any]] = {}
        self._used: set[tuple[str, ...]] = set()
        for r in [] if frame is None else frame.to_dict("records"):
            self._cells[_key(r["artefact"], r["dataset"], r["backbone"], r["method"], r["variant"], r["metric"])] = r

    def find(self, artefact: str, row: Row, column: Column, configs: Iterable[Config]) -> Printed | None:
        """What the paper prints in a cell, in the column's unit."""
        own = (dataset_name(c.dataset) for c in configs)
        for dataset in dict.fromkeys((column.group, *own, "")):
            for method in dict.fromkeys((row.method, {"": "plain", "plain": ""}.get(row.method, row.method))):
                key = _key(artefact, dataset, row.backbone, method, row.variant, column.metric)
                if key in self._cells:
                    self._used.add(key)
                    return _printed(self._cells[key], column)
        return None

    def unmatched(self, artefacts: Iterable[str]) -> list[dict[str, Any]]:
        """Reported cells of these artefacts that no table cell asked for; each is logged."""
        wanted = {a.lower() for a in artefacts}
        left = [r for key, r in self._cells.items() if key[0] in wanted and key not in self._used]
        for r in left:
            _log.info("reported cell without a place in our tables: %s", "/".join(_labels(r)))
        return left


def _labels(r: Mapping[str, Any]) -> list[str]:
    return [str(r[k]) for k in ("artefact", "dataset", "backbone", "method", "variant", "metric")]


def _key(*labels: Any) -> tuple[str, ...]:
    return tuple(" ".join(str(label).split()).lower() for label in labels)


def _printed(r: Mapping[str, Any], column: Column) -> Printed:
    scale = {("fraction", True): 100.0, ("%", False): 0.01}.get((r["unit"], column.percent), 1.0)
    if column.metric.endswith("_change"):  # in per cent on both sides
        scale = 1.0
    decimals, n, std = int(r["decimals"]), r["n"], r["std"]
    text, std_text = str(r["mean_text"]), str(r["std_text"] or "")
    if scale != 1.0:
        text = f"{float(r['mean']) * scale:.{max(decimals - round(math.log10(scale)), 0)}f}"
        std_text = f"{float(std) * scale:.{column.decimals}f}" if std_text else ""
    return Printed(
        mean=float(r["mean"]) * scale, std=float(std) * scale if std_text else NAN, text=text, std_text=std_text,
        n=None if pd.isna(n) or n == "" else int(n), elsewhere=bool(r["elsewhere"]), bold=bool(r["bold"]),
        underline=bool(r["underline"]), rounding=0.5 * 10.0**-decimals * scale,
    )


def judge(cell: Cell, column: Column, printed: Printed | None, runs: Iterable[Mapping[str, Any]]) -> Judged:
    """Compare a cell with its reported number; `runs` are the finished runs behind the cell."""
    runs = list(runs)
    kind = provenance(runs)
    if kind == "synthetic" or any(c.dataset.startswith("synthetic-") for c in cell.configs):
        return Judged(why="synthetic data: no comparison")
    if any(r.get("test_only") for r in runs):
        return Judged(why="made with a test-only encoder: no comparison")
    if printed is None:
        return Judged(why="no number reported")
    if column.source or cell.derived and not cell.configs:
        return Judged(printed, cell.fixed - printed.mean or NAN, why="a setting, not a result")
    if column.metric.endswith("_p_value"):
        return Judged(printed, why="a p-value: to be read side by side")
    if not cell.shown:
        return Judged(printed, why="no result of ours")
    delta = cell.mean - printed.mean
    if cell.derived:
        return Judged(printed, delta, why="computed from other cells: no interval")
    interval = prediction_interval(cell.finite, printed.n, reported_std=printed.std)
    if kind not in COMPARABLE:
        return Judged(printed, delta, interval.half_width, why="data file is not the published one: no verdict")
    marked = "nobody has published a hash of this data file" if kind == UNLISTED else ""
    return Judged(
        printed, delta, interval.half_width,
        status(interval, printed.mean, column.higher_is_better, printed.rounding),
        "; ".join(filter(None, (marked, interval.note))),
    )


def judge_grid(grid: Grid, results: Results, reported: Reported) -> dict[tuple[int, int], Judged]:
    """Every cell of a table beside its reported number. A table of generated data shows none, not even in rows that
    were not run."""
    e, found = grid.experiment, {}
    synthetic = any(c.dataset.startswith("synthetic-") for c in e.configs())
    for i, j, cell in grid:
        printed = reported.find(e.id, e.rows[i], e.columns[j], cell.configs)
        if synthetic:
            printed = None
        found[i, j] = judge(cell, e.columns[j], printed, results.finished(cell))
    return found


def tally(judged: Iterable[Judged]) -> dict[str, int]:
    """Status -> number of cells, in the order of STATUSES."""
    counts = Counter(j.status for j in judged if j.status)
    return {s: counts[s] for s in STATUSES}
