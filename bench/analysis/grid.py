"""The cells of one artefact: what was run, what came out, what is missing.

A Grid lays the runs of an Experiment out as rows x columns. It aggregates only what may be aggregated: failed and
stale runs have no value, and one undefined value makes the whole cell undefined, because a mean around a hole would
flatter the method that broke.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from bench.analysis.stats import paired
from bench.matrix import Column, Config, Experiment, Row, seeds

NAN = float("nan")
DONE, PARTIAL, UNDEFINED, FAILED, STALE, MISSING, NOT_RUN = (
    "done", "partial", "undefined", "failed", "stale", "missing", "not run"
)
PROVENANCES = ("official", "custom", "synthetic")  # from the strongest evidence to none
_FROM_RUN = {"params": "parameters"}  # metric -> field of env.json, where the names differ
AVERAGE = "Avg."  # variant of a row that averages the other variants of its system
_GRAVITY = (DONE, STALE, MISSING, FAILED)
_CHANGE, _P_VALUE = "_change", "_p_value"  # columns computed from two cells


@dataclass(frozen=True)
class Cell:
    """One printed number: the runs behind it, one entry per wanted seed, values in the printed unit."""

    configs: tuple[Config, ...]  # one; none where the row is not run here; several where the cell averages rows
    seeds: tuple[int, ...]
    states: tuple[str, ...] = ()  # "done", "failed", "stale" or "missing"
    values: tuple[float, ...] = ()  # NaN where a run has none
    best: bool = False  # first of its block
    second: bool = False
    derived: bool = False  # a number computed from two cells, `fixed`: it has no spread of its own
    fixed: float = NAN

    @cached_property
    def finite(self) -> tuple[float, ...]:
        return tuple(v for v in self.values if math.isfinite(v))

    def count(self, state: str) -> int:
        return self.states.count(state)

    @property
    def n(self) -> int:
        """Runs behind the mean."""
        return len(self.finite)

    @property
    def wanted(self) -> int:
        return len(self.seeds)

    @property
    def undefined(self) -> int:
        """Finished runs whose metric is not a number."""
        return self.count(DONE) - len(self.finite)

    @cached_property
    def state(self) -> str:
        if not self.configs:
            return NOT_RUN
        if self.derived:
            return DONE if math.isfinite(self.fixed) else MISSING
        if self.undefined:
            return UNDEFINED
        if done := self.count(DONE):
            return DONE if done == self.wanted else PARTIAL
        return FAILED if self.count(FAILED) else STALE if self.count(STALE) else MISSING

    @property
    def shown(self) -> bool:
        """Whether there is a mean to print."""
        return self.state in (DONE, PARTIAL)

    @cached_property
    def mean(self) -> float:
        if self.derived:
            return self.fixed
        return math.fsum(self.finite) / self.n if self.shown else NAN

    def spread(self, ddof: int = 1) -> float:
        """Standard deviation over the seeds; NaN below two runs."""
        if not self.shown or self.derived or self.n < 2:
            return NAN
        return math.sqrt(math.fsum((v - self.mean) ** 2 for v in self.finite) / (self.n - ddof))

    @cached_property
    def std(self) -> float:
        """Sample standard deviation, ddof = 1."""
        return self.spread()

    def by_seed(self) -> pd.Series:
        """Finite values, indexed by seed."""
        return pd.Series({s: v for s, v in zip(self.seeds, self.values) if math.isfinite(v)}, dtype=float)


class Results:
    """The two frames of Store.frames, looked up by cell."""

    def __init__(self, values: pd.DataFrame, runs: pd.DataFrame) -> None:
        test = values[values["split"] == "test"]
        self._values: dict[tuple[str, str], dict[int, float]] = {}
        for config, metric, seed, value in zip(test["config"], test["metric"], test["seed"], test["value"]):
            self._values.setdefault((config, metric), {})[seed] = float(value)
        self.runs: dict[tuple[str, int], dict[str, Any]] = {
            (r["config"], r["seed"]): {k: v for k, v in r.items() if not (isinstance(v, float) and math.isnan(v))}
            for r in runs.to_dict("records")
        }

    def run(self, config: Config, seed: int) -> dict[str, Any]:
        return self.runs.get((config.id, seed), {"status": MISSING})

    def finished(self, cell: Cell) -> list[dict[str, Any]]:
        """The finished runs behind a cell."""
        runs = (self.run(c, s) for c in cell.configs for s in cell.seeds)
        return [r for r in runs if r["status"] == DONE]

    def cell(self, config: Config | None, column: Column, wanted: tuple[int, ...]) -> Cell:
        """The cell of a config in a column. A finished run without that metric counts as undefined."""
        if config is None:
            return Cell((), wanted)
        states = tuple(self.run(config, s)["status"] for s in wanted)
        found = self._values.get((config.id, column.metric))
        if found is None:  # costs are fields of the run, not metrics
            name = _FROM_RUN.get(column.metric, column.metric)
            found = {s: v for s in wanted if isinstance(v := self.run(config, s).get(name), (int, float))}
        scale = 100.0 if column.percent else 1.0
        values = tuple(
            scale * found.get(s, NAN) if state == DONE else NAN for s, state in zip(wanted, states)
        )
        return Cell((config,), wanted, states, values)


@dataclass(frozen=True)
class Grid:
    """An experiment's cells: cells[row][column]."""

    experiment: Experiment
    seeds: tuple[int, ...]
    cells: tuple[tuple[Cell, ...], ...]

    @cached_property
    def blocks(self) -> dict[str, list[int]]:
        """Block name -> its row numbers, in print order."""
        found: dict[str, list[int]] = {}
        for i, row in enumerate(self.experiment.rows):
            found.setdefault(row.block, []).append(i)
        return found

    @cached_property
    def baselines(self) -> dict[tuple[str, str], int]:
        """(block, "plain" or "proposed") -> row number."""
        return {(r.block, r.baseline): i for i, r in reversed(list(enumerate(self.experiment.rows))) if r.baseline}

    def baseline(self, row: int, kind: str) -> int | None:
        """The row that `row` is compared with, or None where its block has none or it is that row itself."""
        found = self.baselines.get((self.experiment.rows[row].block, kind))
        return None if found == row else found

    def __iter__(self) -> Iterable[tuple[int, int, Cell]]:
        return ((i, j, c) for i, line in enumerate(self.cells) for j, c in enumerate(line))


def config_of(row: Row, column: Column) -> Config | None:
    """The config behind a cell: the row's cell of the column's group, or its only cell where columns have no groups."""
    if column.group in row.cells:
        return row.cells[column.group]
    return next(iter(row.cells.values())) if not column.group and len(row.cells) == 1 else None


def make_grid(e: Experiment, results: Results, n_seeds: int | None = None) -> Grid:
    """Lay out an experiment's cells, mark the best and second of each block, and fill what other cells give: rows
    "Avg." (mean over the other variants of their system, seed by seed), columns "<metric>_change" (percent against the
    block's proposed row) and "<metric>_p_value" (paired t-test against it)."""
    wanted = seeds(e.seeds if n_seeds is None else n_seeds)
    lines = [[results.cell(config_of(row, c), c, wanted) for c in e.columns] for row in e.rows]
    for i, row in enumerate(e.rows):
        if row.variant == AVERAGE and not any(c.configs for c in lines[i]):
            parts = [lines[k] for k, r in enumerate(e.rows) if k != i and (r.backbone, r.method) == row.key[:2]]
            lines[i] = [_average([p[j] for p in parts if p[j].configs], wanted) for j in range(len(e.columns))]
    grid = Grid(e, wanted, tuple(map(tuple, lines)))
    for j, column in enumerate(e.columns):
        for suffix, compute in ((_CHANGE, _change), (_P_VALUE, _p_value)):
            if column.metric.endswith(suffix) and all(line[j].n == 0 for line in lines):
                base = replace(column, metric=column.metric.removesuffix(suffix), percent=False)
                for i, row in enumerate(e.rows):
                    at = grid.baseline(i, "proposed")
                    mine = results.cell(config_of(row, column), base, wanted)
                    full = results.cell(config_of(e.rows[at], column), base, wanted) if at is not None else None
                    lines[i][j] = replace(mine, derived=True, fixed=compute(mine, full) if full else NAN)
        _mark(lines, j, column, grid.blocks)
    return Grid(e, wanted, tuple(map(tuple, lines)))


def _average(cells: list[Cell], wanted: tuple[int, ...]) -> Cell:
    """Mean over cells, seed by seed; a seed counts where all of them have a value."""
    if not cells:
        return Cell((), wanted)
    states = tuple(max((c.states[k] for c in cells), key=_GRAVITY.index) for k in range(len(wanted)))
    values = tuple(math.fsum(c.values[k] for c in cells) / len(cells) for k in range(len(wanted)))
    return Cell(tuple(c for cell in cells for c in cell.configs), wanted, states, values)


def _change(cell: Cell, full: Cell) -> float:
    return 100 * (cell.mean - full.mean) / full.mean if cell.shown and full.shown and full.mean else NAN


def _p_value(cell: Cell, full: Cell) -> float:
    return paired(full.by_seed(), cell.by_seed()).p if cell.shown and full.shown and cell.n > 1 else NAN


def _mark(lines: list[list[Cell]], j: int, column: Column, blocks: Mapping[str, list[int]]) -> None:
    """Bold and underline: first and second of each block as printed, so ties share their place. A cell with fewer runs
    than another of its block does not compete: a lucky few seeds must not win a table."""
    for rows in blocks.values():
        most = max(lines[i][j].n for i in rows)
        ranked = [i for i in rows if lines[i][j].shown and not lines[i][j].derived and lines[i][j].n == most]
        printed = {i: round(lines[i][j].mean, column.decimals) for i in ranked}
        places = sorted(set(printed.values()), reverse=column.higher_is_better)
        if len(printed) < 2 or len(places) < 2:
            continue
        for i, value in printed.items():
            if value in places[:2]:
                lines[i][j] = replace(lines[i][j], **{"best" if value == places[0] else "second": True})


def dataset_name(dataset: str) -> str:
    """The published dataset behind a name: "mosi" of "synthetic-mosi-full"."""
    return dataset.removeprefix("synthetic-").removesuffix("-full") if dataset.startswith("synthetic-") else dataset


def provenance(runs: Iterable[Mapping[str, Any]]) -> str:
    """Provenance of some finished runs taken together: the weakest of them, or "" where there are none."""
    found = [PROVENANCES.index(p) if (p := r.get("provenance")) in PROVENANCES else 1 for r in runs]
    return PROVENANCES[max(found)] if found else ""
