"""Rows that print the same numbers under different names, and rows that should be the same and are not."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd

from bench.analysis.audit.finding import Finding
from bench.analysis.cells import ROW, SCORES, label, paper
from bench.analysis.claims.ledger import FOLDER, document
from bench.selectors import selects

_RARE = 1e-3  # expected number of such coincidences in the tables, below which they are reported
_SOME = 0.05  # the same for rows that share some cells only


def check(frame: pd.DataFrame) -> Iterator[Finding]:
    scores = frame[frame["metric"].isin(SCORES) & (frame["metric"] != "avg")]
    for _, cells in scores.groupby([scores["artefact"].map(paper), "dataset"], sort=False):
        table = _Rows(cells)
        one = one_training(table.rows.to_dict("records"))
        for i, j in combinations(range(len(table.rows)), 2):
            if (i, j) not in one:
                yield from _pair(table, i, j)
    yield from _units(scores)


def one_training(rows: list[dict]) -> set[tuple[int, int]]:
    """Pairs of rows that the ledger calls one configuration ([[same]] in quotes.toml): that they agree is no oddity."""
    found: set[tuple[int, int]] = set()
    for entry in document(FOLDER / "quotes.toml").get("same", []):
        inside = selects(entry["of"])
        a, b = (
            [i for i, r in enumerate(rows) if inside(r) and selects(entry[side])(r)] for side in ("row", "other")
        )
        found |= {(min(i, j), max(i, j)) for i in a for j in b if i != j}
    return found


class _Rows:
    """Rows of one paper and dataset as [rows, metrics] arrays: value in units of 1 and half a printed unit."""

    def __init__(self, cells: pd.DataFrame) -> None:
        keys = list(ROW)
        self.rows = cells[keys].drop_duplicates().reset_index(drop=True)
        index = {tuple(r): i for i, r in enumerate(self.rows.itertuples(index=False, name=None))}
        metrics = list(dict.fromkeys(cells["metric"]))
        self.metrics = metrics
        shape = (len(self.rows), len(metrics))
        self.value, self.half, self.cell = np.full(shape, np.nan), np.zeros(shape), np.empty(shape, dtype=object)
        self.text = np.full(shape, "", dtype=object)
        scale = np.where(cells["unit"] == "%", 0.01, 1.0)
        for key, metric, value, unit, digits, cell, text in zip(
            cells[keys].itertuples(index=False, name=None), cells["metric"], cells["mean"], scale, cells["decimals"],
            cells["cell_id"], cells["mean_text"],
        ):
            at = index[key], metrics.index(metric)
            self.value[at], self.half[at] = value * unit, 0.5 * 10.0 ** -digits * unit
            self.cell[at], self.text[at] = cell, text
        # chance that two rows agree in a metric: share of other pairs that do, at least one over the values' range
        self.chance = [_chance(self.value[:, k], self.half[:, k]) for k in range(len(metrics))]

    def label(self, i: int) -> str:
        return f"{label(self.rows.loc[i])} ({self.rows.loc[i, 'artefact']})"


def _chance(value: np.ndarray, half: np.ndarray) -> float:
    known = np.isfinite(value)
    spread = np.subtract(*np.percentile(value[known], [90, 10])) if known.sum() > 1 else 0.0
    return float(np.clip(2 * half[known].mean() / spread if spread > 0 else 1.0, 1e-6, 1.0))


def _pair(table: _Rows, i: int, j: int) -> Iterator[Finding]:
    shared = np.flatnonzero(np.isfinite(table.value[i]) & np.isfinite(table.value[j]))
    coarser = np.maximum(table.half[i], table.half[j])
    equal = [k for k in shared if abs(table.value[i, k] - table.value[j, k]) <= coarser[k] + 1e-9]
    if len(equal) < 2:
        return
    a, b = table.rows.loc[i], table.rows.loc[j]
    pairs = len(table.rows) * (len(table.rows) - 1) / 2
    coincidence = pairs * float(np.prod([table.chance[k] for k in equal]))
    same_table = a["artefact"] == b["artefact"]
    everything = len(equal) == len(shared)
    if coincidence > (_RARE if everything or not same_table else _SOME):
        return
    if everything and (not same_table or _repeats_another(table, i, j, equal)):
        return  # a row of another table printed again is no oddity
    cells = tuple(table.cell[r, k] for k in equal for r in (i, j))
    rows = f"{table.label(i)} and {table.label(j)}"
    odds = f"by coincidence about {coincidence:.1g} such pairs in this paper's tables of the dataset"
    if everything:
        yield Finding(
            check="identical-rows", level="implausible", artefact=a["artefact"], cells=cells,
            printed=", ".join(table.text[i, equal]), expected="different numbers",
            arithmetic=f"{rows} agree in all {len(equal)} metrics; {odds}",
            assumption="the two labels name different trainings",
        )
        return
    differing = [k for k in shared if k not in equal]
    if same_table or len(differing) > len(equal):
        if len(equal) >= 2:
            yield Finding(
                check="shared-cells", level="note", artefact=a["artefact"], cells=cells,
                printed=", ".join(f"{table.metrics[k]} {table.text[i, k]}" for k in equal),
                expected="different numbers",
                arithmetic=f"{rows} agree in {len(equal)} of {len(shared)} metrics; {odds}",
                assumption="the two labels name different trainings",
            )
        return
    yield Finding(
        check="repeated-row", level="disagrees", artefact=b["artefact"],
        cells=tuple(table.cell[r, k] for k in differing for r in (i, j)),
        printed=", ".join(f"{table.metrics[k]} {table.text[i, k]} and {table.text[j, k]}" for k in differing),
        expected="the same number in both tables",
        arithmetic=f"{rows} agree in {len(equal)} of {len(shared)} metrics, and differ in these; {odds}",
        assumption="the two rows are one training printed twice",
    )


def _repeats_another(table: _Rows, i: int, j: int, equal: list[int]) -> bool:
    """Whether both rows are one row of another table, such as the default in an ablation."""
    return any(
        table.rows.loc[r, "artefact"] != table.rows.loc[i, "artefact"]
        and np.allclose(table.value[r, equal], table.value[i, equal], atol=1e-9)
        for r in range(len(table.rows)) if r not in (i, j)
    )


def _units(scores: pd.DataFrame) -> Iterator[Finding]:
    """One metric, two units in one paper."""
    used: dict[tuple[str, str], dict[str, list[pd.Series]]] = defaultdict(lambda: defaultdict(list))
    for _, cell in scores.iterrows():
        used[paper(cell["artefact"]), cell["metric"]]["%" if cell["unit"] == "%" else "1"].append(cell)
    for (name, metric), units in used.items():
        if len(units) < 2:
            continue
        artefacts = {unit: sorted({c["artefact"] for c in cells}) for unit, cells in units.items()}
        fewest = min(units.values(), key=len)
        yield Finding(
            check="units", level="note", artefact=fewest[0]["artefact"], cells=tuple(c["cell_id"] for c in fewest),
            printed=fewest[0]["mean_text"], expected="one unit per metric",
            arithmetic=f"{metric} is a fraction in {', '.join(artefacts['1'])} and a percentage in "
            + ", ".join(artefacts["%"]),
            assumption=f"both tables of {name} mean the same metric",
        )
