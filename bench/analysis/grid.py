"""The cells of one artefact, laid out as rows and columns, with what some cells say about others.

Best and second of each block, averages over rates, relative changes and p-values are computed here, from the runs.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from bench.analysis.results import DONE, FAILED, MISSING, NAN, STALE, Cell, Results, stated
from bench.analysis.stats import paired
from bench.matrix import Column, Config, Experiment, Row, seeds
from bench.measure.needs import point

AVERAGE = "Avg."  # variant of a row that averages the other variants of its system
_GRAVITY = (DONE, STALE, MISSING, FAILED)
_CHANGE, _P_VALUE = "_change", "_p_value"  # columns computed from two cells


@dataclass(frozen=True)
class Grid:
    """An experiment's cells: cells[row][column]."""

    experiment: Experiment
    seeds: tuple[int, ...]
    cells: tuple[tuple[Cell, ...], ...]

    @cached_property
    def blocks(self) -> dict[str, list[int]]:
        """Block name -> its row numbers, in print order, without those that stand apart."""
        found: dict[str, list[int]] = {}
        for i, row in enumerate(self.experiment.rows):
            if not row.apart:
                found.setdefault(row.block, []).append(i)
        return found

    @cached_property
    def baselines(self) -> dict[tuple[str, str], int]:
        """(block, "plain" or "proposed") -> row number."""
        rows = reversed(list(enumerate(self.experiment.rows)))
        return {(r.block, r.baseline): i for i, r in rows if r.baseline and not r.apart}

    def baseline(self, row: int, kind: str) -> int | None:
        """The row that `row` is compared with, or None where its block has none, it is that row itself or it stands
        apart."""
        found = self.baselines.get((self.experiment.rows[row].block, kind))
        return None if found == row or self.experiment.rows[row].apart else found

    def default_of(self, row: int) -> int | None:
        """The row that a variant differs from in its settings alone."""
        rows = self.experiment.rows
        return next((i for i, r in enumerate(rows) if r.key == rows[row].key and r.block == rows[row].block and not r.departs), None)

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
    wanted = seeds(e.seeds if n_seeds is None or not e.seeds else n_seeds)
    lines = [[_cell(e, row, c, results, seeds(e.seeds_of(row, n_seeds))) for c in e.columns] for row in e.rows]
    for i, row in enumerate(e.rows):
        if row.variant == AVERAGE and not any(c.configs for c in lines[i]):
            parts = [lines[k] for k, r in enumerate(e.rows) if k != i and not r.departs and (r.backbone, r.method) == row.key[:2]]
            lines[i] = [_average([p[j] for p in parts if p[j].configs], wanted) for j in range(len(e.columns))]
    grid = Grid(e, wanted, tuple(map(tuple, lines)))
    for j, column in enumerate(e.columns):
        for suffix, compute in ((_CHANGE, _change), (_P_VALUE, _p_value)):
            if column.metric.endswith(suffix) and not any(line[j].n for line in lines):
                base = replace(column, metric=column.metric.removesuffix(suffix), percent=False)
                for i, row in enumerate(e.rows):
                    at = grid.baseline(i, "proposed")
                    mine = results.cell(config_of(row, column), base, lines[i][j].seeds or wanted)
                    full = results.cell(config_of(e.rows[at], column), base, wanted) if at is not None else None
                    lines[i][j] = replace(mine, derived=True, fixed=compute(mine, full) if full else NAN)
        _mark(lines, j, column, grid.blocks)
    return Grid(e, wanted, tuple(map(tuple, lines)))


def _cell(e: Experiment, row: Row, column: Column, results: Results, wanted: tuple[int, ...]) -> Cell:
    for name in (f"{column.group}/{column.metric}", column.metric):
        if name in row.stated:
            return stated(row.stated[name])
    computed = point(e, row, column)
    config = config_of(row, column)
    if computed is None:
        return results.cell(config, column, wanted, row.points, late=bool(row.points))
    return results.cell(config, column, wanted, (computed,), late=True)


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
    than another of its block does not compete, and where nobody has two there is no first: luck must not win a table."""
    for rows in blocks.values():
        most = max(lines[i][j].n for i in rows)
        ranked = [i for i in rows if lines[i][j].shown and not lines[i][j].derived and lines[i][j].n == most]
        printed = {i: round(lines[i][j].mean, column.decimals) for i in ranked}
        places = sorted(set(printed.values()), reverse=column.higher_is_better)
        if len(printed) < 2 or len(places) < 2 or 0 < most < 2:  # one run each orders nothing
            continue
        for i, value in printed.items():
            if value in places[:2]:
                lines[i][j] = replace(lines[i][j], **{"best" if value == places[0] else "second": True})
