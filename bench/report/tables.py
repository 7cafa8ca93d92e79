"""One artefact as a table: which cells stand where, and how each is written. HTML, LaTeX, CSV and Markdown (flat.py) share it."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from bench.analysis.grid import Grid, make_grid
from bench.analysis.results import DONE, NAN, NOT_RUN, UNDEFINED, Cell, Results, provenance
from bench.analysis.stats import paired
from bench.matrix import Column, Config, Experiment, Row, seeds
from bench.plural import named
from bench.report.layout import Layout, Line, layout_of, rates_as_rows
from bench.report.significance import Contrast, Contrasts, contrasts
from bench.report.verdict import Judged, Reported, judge_grid

MINUS = "\u2212"


@dataclass(frozen=True)
class Table:
    """An artefact with everything its printed forms need. Indices are (row, column) of the experiment."""

    grid: Grid
    results: Results
    judged: Mapping[tuple[int, int], Judged]
    versus: Mapping[str, Contrasts]

    @property
    def experiment(self) -> Experiment:
        return self.grid.experiment

    @cached_property
    def pivoted(self) -> bool:
        return rates_as_rows(self.experiment)

    @cached_property
    def layout(self) -> Layout:
        return layout_of(self.experiment)

    @cached_property
    def runs(self) -> list[dict]:
        """The runs behind the table, finished or not, each once."""
        return [self.results.run(c, s) | {"seed": s, "config": c.id} for c, n in self.wanted.items() for s in seeds(n)]

    @cached_property
    def wanted(self) -> Mapping[Config, int]:
        """Config -> how many seeds are wanted of it."""
        found: dict[Config, int] = {}
        for _, _, cell in self.grid:
            for c in cell.configs:
                found[c] = max(len(cell.seeds), found.get(c, 0))
        return found

    @cached_property
    def row_of(self) -> Mapping[Config, Row]:
        """Config -> the first row that it stands in."""
        found: dict[Config, Row] = {}
        for row in self.experiment.rows:
            for c in row.cells.values():
                if c is not None:
                    found.setdefault(c, row)
        return found

    def row_by_id(self, config: str) -> Row:
        """The first row that a config stands in, by its id."""
        return self._rows_by_id[config]

    @cached_property
    def _rows_by_id(self) -> Mapping[str, Row]:
        return {c.id: row for c, row in self.row_of.items()}

    @cached_property
    def progress(self) -> Counter:
        return Counter(r["status"] for r in self.runs)

    @cached_property
    def unlearned(self) -> list[str]:
        """Trainings that learned nothing, in words, a config each; none are said of generated data."""
        if self.provenance == "synthetic":
            return []
        configs = {c.id: c for c in self.wanted}
        found: dict[Config, list[int]] = {}
        for r in self.runs:
            if r["status"] == DONE and r.get("learned") is False:
                found.setdefault(configs[r["config"]], []).append(r["seed"])
        return [
            f"{runs_named(c, of)}: learned nothing, the validation loss is that of a constant prediction" for c, of in found.items()
        ]

    @cached_property
    def provenance(self) -> str:
        """Weakest provenance of the finished runs, or "" while there are none."""
        if any(c.dataset.startswith("synthetic-") for c in self.experiment.configs()):
            return "synthetic"
        return provenance(r for r in self.runs if r["status"] == DONE)

    @cached_property
    def test_only(self) -> bool:
        return any(r.get("test_only") for r in self.runs)

    def flagged(self, line: Line) -> bool:
        """Whether any run behind a printed line used a test-only encoder."""
        cells = (self.cell(at) for at in line.cells if at)
        return self.test_only and any(r.get("test_only") for c in cells for r in self.results.finished(c))

    def cell(self, at: tuple[int, int]) -> Cell:
        return self.grid.cells[at[0]][at[1]]

    def mark(self, at: tuple[int, int]) -> str:
        """"*" where the cell differs from the proposed method, "\u00b0" from the backbone alone (Holm p < 0.05)."""
        found = (self.versus[kind].get(at) for kind in ("proposed", "plain"))
        return "".join(sign for sign, c in zip("*\u00b0", found) if c and c.significant)

    def anchor(self, at: tuple[int, int]) -> str:
        """Identifier of a cell, the same in every report: "msmix-t1.tfn.ms-mix.mosi.avg"."""
        row, column = self.experiment.rows[at[0]], self.experiment.columns[at[1]]
        words = (self.experiment.id, *row.key, row.departs, column.group, column.metric)
        return ".".join(filter(None, map(slug, words)))


def make_table(e: Experiment, results: Results, reported: Reported, n_seeds: int | None = None) -> Table:
    """Aggregate, judge and test an experiment's cells."""
    grid = make_grid(e, results, n_seeds)
    versus = {k: contrasts(grid, k) for k in ("proposed", "plain")}
    return Table(grid, results, _apart(grid, judge_grid(grid, results, reported)), versus | {"default": _defaults(grid)})


def _apart(grid: Grid, judged: Mapping[tuple[int, int], Judged]) -> dict[tuple[int, int], Judged]:
    """Variants, and systems built from a description, stand outside of every verdict: the difference to a reported number
    is shown, and why it is no more."""
    found = dict(judged)
    for i, row in enumerate(grid.experiment.rows):
        for j in range(len(grid.experiment.columns)) if row.departs else ():
            if not grid.cells[i][j].configs:
                found[i, j] = Judged()
            elif found[i, j].printed:
                found[i, j] = replace(found[i, j], half_width=NAN, status="", why=f"ran with other settings ({row.departs}): no verdict")
        for j in range(len(grid.experiment.columns)) if row.described and not row.departs else ():
            if found[i, j].status:
                found[i, j] = replace(found[i, j], status="", why="built from the description, which leaves parts open: no verdict")
    return found


def _defaults(grid: Grid) -> dict[tuple[int, int], Contrast]:
    """Every cell of a variant minus that of its default, paired by seed."""
    found = {}
    for i, row in enumerate(grid.experiment.rows):
        at = grid.default_of(i) if row.departs else None
        for j, cell in enumerate(grid.cells[i]) if at is not None else ():
            other = grid.cells[at][j]
            if cell.shown and other.shown and not (cell.derived or other.derived):
                r = paired(cell.by_seed(), other.by_seed())
                if r.n > 1:
                    found[i, j] = Contrast(r.n, r.difference, r.low, r.high, r.p, r.d_z)
    return found


# --- words and numbers ----------------------------------------------------------------------------------------------

def slug(text: str) -> str:
    """Lower-case letters, digits and single hyphens."""
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")


def number(value: float, column: Column, sign: bool = False) -> str:
    """A value as its column prints it; "" for NaN."""
    if not math.isfinite(value):
        return ""
    if column.source:
        text = f"{value:g}".replace("e-0", "e-")
    elif column.metric.endswith("_p_value"):
        text = f"{value:.3f}" if value >= 1e-3 else f"{value:.1e}".replace("e-0", "e-")
    else:
        text = f"{value:{'+' if sign else ''}{',' if column.decimals == 0 else ''}.{column.decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-+")
    return text.replace("-", MINUS) if "e-" not in text else text


def p_text(p: float) -> str:
    """A p-value in words short enough for a table."""
    return "" if not math.isfinite(p) else "<0.001" if p < 1e-3 else f"{p:.3f}"


def state_text(cell: Cell) -> str:
    """What stands in a cell that has no mean: never a blank."""
    if cell.state == UNDEFINED:
        return f"undefined in {cell.undefined} of {cell.wanted}"
    return {NOT_RUN: "not run here", "missing": "not set" if cell.derived else "not run yet"}.get(
        cell.state, cell.state
    )


def runs_named(c: Config, of: Sequence[int] = ()) -> str:
    """A cell, or the runs of some seeds, as lists of what went wrong name it: "mosi lmf+none (1f0c6a2b3d4e), seed 1112"."""
    return ", ".join([f"{c.dataset} {c.backbone}+{c.mixer} ({c.id})", *([named("seed", of)] if of else [])])


def runs_text(cell: Cell) -> str:
    """"5", or "3/5" where runs are missing."""
    return str(cell.n) if cell.n == cell.wanted else f"{cell.n}/{cell.wanted}"


def holes(cell: Cell) -> str:
    """Why a cell has fewer runs than wanted: "1 failed, 1 not run"."""
    words = {"failed": "failed", "stale": "stale", "missing": "not run"}
    parts = [f"{k} {w}" for s, w in words.items() if (k := cell.count(s))]
    return ", ".join(parts + [f"{cell.undefined} undefined"] * bool(cell.undefined))


def data_text(table: Table) -> str:
    """Where the data of a table come from, for its caption."""
    hashes = sorted({str(r["data_sha256"])[:12] for r in table.runs if r["status"] == DONE and r.get("data_sha256")})
    kind = {
        "official": "the published files", "unlisted": "files of a format for which nobody has published a hash",
        "custom": "custom files, not the published ones",
        "synthetic": "SYNTHETIC data, generated: nothing here is a result", "": "no finished runs",
    }[table.provenance]
    return kind + (f" (sha256 {', '.join(hashes)})" if hashes and table.provenance else "")
