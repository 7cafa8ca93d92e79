"""Which differences inside a table are more than noise.

Every cell is compared, seed by seed, with the proposed method and with the backbone alone of its block. The primary
metric's comparisons form the family that Holm adjusts; they alone carry marks in the tables.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as scipy_stats

from bench.analysis.agreement import Rope, rope
from bench.analysis.grid import Grid
from bench.analysis.power import seeds_needed
from bench.analysis.stats import Across, Paired, across, holm, paired, paired_t
from bench.matrix import Row, dataset_name

KINDS = ("proposed", "plain")
ALPHA = 0.05
ROPE = 1.0  # points of a percentage, 0.01 of any other metric: differences that nobody would act on (Benavoli 2017)
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Contrast:
    """A cell minus its baseline, paired by seed. `holm` is NaN outside the family."""

    n: int
    difference: float
    low: float
    high: float
    p: float
    d_z: float
    holm: float = float("nan")

    @property
    def significant(self) -> bool:
        return self.holm < ALPHA


Contrasts = Mapping[tuple[int, int], Contrast]  # by (row, column)


@dataclass(frozen=True)
class Line:
    """One comparison of the family: the proposed method minus another row of its block, in the primary metric."""

    block: str
    group: str
    metric: str
    proposed: Row
    other: Row
    paired: Paired
    holm: float
    rope: Rope  # how probable a difference too small to matter is
    needed: float  # seeds for 80 % power at Holm's first level, if the true difference were the one observed
    dataset: str
    sign: int  # +1 where a higher metric is better


def contrasts(grid: Grid, kind: str) -> dict[tuple[int, int], Contrast]:
    """(row, column) -> the cell minus the "proposed" or "plain" row of its block, wherever both have two seeds in
    common and no undefined value. The arithmetic is that of stats.paired, over all cells at once."""
    at = {i: b for i in range(len(grid.cells)) if (b := grid.baseline(i, kind)) is not None}
    pairs = [
        (i, j) for i, b in at.items() for j, cell in enumerate(grid.cells[i])
        if cell.shown and not cell.derived and grid.cells[b][j].shown and not grid.cells[b][j].derived
    ]
    if not pairs:
        return {}
    ours = np.array([grid.cells[i][j].values for i, j in pairs], dtype=float)  # (C, S)
    base = np.array([grid.cells[at[i]][j].values for i, j in pairs], dtype=float)  # (C, S)
    found: dict[tuple[int, int], Contrast] = {}
    both = np.isfinite(ours) & np.isfinite(base)
    for n in np.unique(both.sum(axis=1)):
        if n < 2:
            continue
        lines = np.flatnonzero(both.sum(axis=1) == n)
        chosen = both[lines]
        d = (ours[lines] - base[lines])[chosen].reshape(-1, n)  # (C', n)
        scale = np.abs(np.concatenate([ours[lines][chosen], base[lines][chosen]]).reshape(2, -1, n)).max(axis=(0, 2))
        std, mean = d.std(axis=1, ddof=1), d.mean(axis=1)
        flat = std <= _ROUNDING * scale
        same = flat & (np.abs(d).max(axis=1) <= _ROUNDING * scale)
        _, p = paired_t(d)
        p = np.where(flat, np.where(same, 1.0, np.nan), p)
        half = scipy_stats.t.ppf(1 - ALPHA / 2, n - 1) * std / np.sqrt(n)
        half = np.where(flat & ~same, np.nan, half)
        d_z = np.divide(mean, std, out=np.full(len(d), np.nan), where=~flat)
        for k, line in enumerate(lines):
            numbers = (mean[k], mean[k] - half[k], mean[k] + half[k], p[k], d_z[k])
            found[pairs[line]] = Contrast(int(n), *map(float, numbers))
    return _adjusted(grid, found)


def _adjusted(grid: Grid, found: dict[tuple[int, int], Contrast]) -> dict[tuple[int, int], Contrast]:
    """Holm over the cells of the primary metric."""
    columns = grid.experiment.columns
    family = [key for key in found if columns[key[1]].metric == grid.experiment.primary]
    for key, p in zip(family, holm([found[key].p for key in family])):
        c = found[key]
        found[key] = Contrast(c.n, c.difference, c.low, c.high, c.p, c.d_z, float(p))
    return found


def family(grid: Grid, against: Contrasts) -> list[Line]:
    """The proposed method against every other row of its block in the primary metric, in print order, with all that
    stats.paired says and the seeds a decision would need. `against`: contrasts(grid, "proposed"). Rows without two
    common seeds are left out."""
    e, lines = grid.experiment, []
    level = ALPHA / max(1, sum(np.isfinite(c.holm) for c in against.values()))
    for j, column in enumerate(e.columns):
        if column.metric != e.primary:
            continue
        for i, row in enumerate(e.rows):
            if (i, j) not in against:
                continue
            p = grid.baseline(i, "proposed")
            full, other = grid.cells[p][j], grid.cells[i][j]
            a, b = full.by_seed(), other.by_seed()
            result, margin = paired(a, b), ROPE if column.percent else ROPE / 100
            lines.append(Line(
                row.block, column.group, column.metric, e.rows[p], row, result, against[i, j].holm,
                rope(a, b, margin), seeds_needed(result.difference, result.std, alpha=level), dataset_name(other.configs[0].dataset),
                1 if column.higher_is_better else -1,
            ))
    return lines


def across_cells(lines: Iterable[Line]) -> dict[str, Across]:
    """Method -> the proposed method against it over all datasets and backbones in which both ran, one test per method.

    One value per independent unit, dataset x backbone: what several tables, rates or blocks say about one unit is
    averaged, because they share trainings, baselines and test items. Only rows that are told apart by their method are
    counted: variants are ablations, not rivals.
    """
    found: dict[str, dict[tuple[str, str], list[float]]] = {}
    for line in lines:
        if line.other.method and not line.other.variant and np.isfinite(line.paired.difference):
            unit = (line.dataset, line.proposed.backbone)
            found.setdefault(line.other.method, {}).setdefault(unit, []).append(line.sign * line.paired.difference)
    return {
        m: across([float(np.mean(d)) for d in units.values()], [dataset for dataset, _ in units])
        for m, units in found.items() if len(units) > 2
    }


def p_table(grid: Grid, against: Contrasts) -> tuple[Sequence[str], list[tuple[str, str, list[Contrast | None]]]]:
    """Two-sided p of paired t-tests against the proposed method, every metric: (column labels, [(block, row label,
    contrast per column)]), the layout of SAM-LML's Table 10."""
    e = grid.experiment
    rows = sorted({i for i, _ in against})
    several = len({c.group for c in e.columns}) > 1
    labels = [f"{c.group} {c.label}".strip() if several else c.label for c in e.columns]
    return labels, [
        (e.rows[i].block, " ".join(filter(None, (e.rows[i].method, e.rows[i].variant))) or e.rows[i].backbone,
         [against.get((i, j)) for j in range(len(e.columns))])
        for i in rows
    ]
