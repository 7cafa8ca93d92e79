"""What a drawing reads of its artefact, and what it hands back."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bench.analysis.results import DONE, FAILED, MISSING, STALE, Cell
from bench.analysis.stats import Summary, summary
from bench.matrix import Column, Config, Experiment, Job, Row
from bench.measure import spec as measuring
from bench.plural import count
from bench.report.tables import Table, data_text
from bench.selectors import selects
from bench.store import Store

Panel = Mapping[str, Any]


@dataclass
class Drawing:
    """A drawn figure: what is seen, the points behind it, and the words that belong to it."""

    figure: Figure
    points: pd.DataFrame
    caption: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class View:
    """An artefact's definition, table and stored files."""

    table: Table
    store: Store

    @property
    def experiment(self) -> Experiment:
        return self.table.experiment

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.experiment.figure

    @property
    def panels(self) -> Sequence[Panel]:
        return self.spec.get("panels", ())

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.table.grid.seeds

    @property
    def compared(self) -> bool:
        """Whether printed points may stand beside ours: never on generated data or a test-only encoder's runs."""
        return self.table.provenance != "synthetic" and not self.table.test_only

    @cached_property
    def progress(self) -> Counter:
        """Status -> runs of the artefact."""
        return self.runs(self.experiment.configs())

    def rows(self, where: Mapping[str, Any]) -> list[int]:
        """The rows that a selector means."""
        test = selects(where)
        return [i for i, row in enumerate(self.experiment.rows) if test(_fields(row))]

    def column(self, metric: str, group: str) -> int | None:
        """The column of a metric in a group; None where the table has none."""
        return next(
            (j for j, c in enumerate(self.experiment.columns) if c.metric == metric and c.group in (group, "")), None
        )

    def cell(self, row: int, column: int) -> Cell:
        return self.table.cell((row, column))

    def config(self, row: int, group: str) -> Config | None:
        cells = self.experiment.rows[row].cells
        return cells.get(group) or (next(iter(cells.values())) if len(cells) == 1 else None)

    def runs(self, configs: Iterable[Config | None]) -> Counter:
        """Status -> runs of some configs over the wanted seeds; of a config that is not run here, none."""
        results = self.table.results
        return Counter(results.run(c, s)["status"] for c in configs if c is not None for s in self.seeds)

    def done(self, config: Config, seed: int) -> bool:
        return self.table.results.run(config, seed)["status"] == DONE

    def history(self, config: Config, seed: int) -> pd.DataFrame | None:
        """A finished run's curves; None where there is no such run."""
        return self.store.history(Job(config, seed)) if self.done(config, seed) else None

    def measured(self, panel: Panel, row: Row) -> "Measured":
        """What was measured on a row's runs for a panel, seed by seed; runs that are not done count as missing."""
        found = measuring.measure_of(self.experiment, row, panel)
        if found is None:
            return Measured(())
        config, measure = found
        values, failed = {}, []
        for s in self.seeds:
            job = Job(config, s)
            got = measuring.load(self.store, job, measure) if self.done(config, s) else None
            if got is not None:
                values[s] = got
            elif why := measuring.failure(self.store, job, measure):
                failed.append(why)
        return Measured(self.seeds, self.runs([config])[DONE], values, tuple(failed))


@dataclass(frozen=True)
class Measured:
    """The measures of one row in a panel. `values`: seed -> (numbers, arrays)."""

    seeds: tuple[int, ...]
    runs: int = 0  # finished
    values: Mapping[int, measuring.Values] = field(default_factory=dict)
    failed: tuple[str, ...] = ()  # why, one per failed measure

    def picture(self, name: str) -> tuple[int, dict[str, Any]] | None:
        """(seed, arrays) of the first seed that has arrays of this name (a prefix)."""
        return next(((s, a) for s, (_, a) in self.values.items() if any(k.startswith(name) for k in a)), None)

    def number(self, name: str, scale: float = 1.0) -> Summary:
        """Mean over the seeds of a number, with its interval; undefined ones are left out."""
        return summary([scale * v for v in self.by_seed(name).values()])

    def by_seed(self, name: str) -> dict[int, float]:
        """Seed -> number, where it is defined."""
        return {s: n[name] for s, (n, _) in self.values.items() if math.isfinite(n.get(name, math.nan))}

    @property
    def head(self) -> str:
        """The same in two words: whether the runs are missing or what is computed from them."""
        return "not measured" if self.seeds and self.runs == len(self.seeds) else "not run"

    @property
    def why(self) -> str:
        """What is missing, for a panel that cannot be drawn."""
        if not self.seeds:
            return "not run here: no implementation"
        text = f"{self.runs} of {count(len(self.seeds), 'run is', 'runs are')} there\n{len(self.values)} of {len(self.seeds)} measured"
        return text + (f"\n{len(self.failed)} failed" if self.failed else "")


def unmeasured(found: Iterable[Measured]) -> list[str]:
    """Notes on measures that are missing or failed, and on numbers that are undefined."""
    found = list(found)
    notes, wanted, there = [], sum(len(m.seeds) for m in found), sum(len(m.values) for m in found)
    failed = [w for m in found for w in m.failed]
    if open_ := wanted - there - len(failed):
        notes.append(f"Not measured yet: {open_} of {wanted}")
    if failed:
        notes.append(f"Failed to measure: {len(failed)} of {wanted} ({failed[0].rstrip('.')})")
    if bad := sum(any(not math.isfinite(v) for v in n.values()) for m in found for n, _ in m.values.values()):
        notes.append(f"Left out: undefined numbers of {bad} of {count(there, 'measure')}")
    return notes


def _fields(row: Row) -> dict[str, Any]:
    found = {"backbone": row.backbone, "method": row.method, "variant": row.variant}
    return found if row.x is None else found | {"x": row.x}


def interval(cell: Cell) -> Summary:
    """Mean over a cell's runs with Student's 95 % interval; empty where the table shows no mean either."""
    if not cell.shown:
        return Summary(0, note=cell.state)
    return Summary(cell.n, cell.mean) if cell.derived else summary(cell.finite)


def spread(s: Summary, digits: int = 3, bounds: tuple[float, float] = (-math.inf, math.inf)) -> str:
    """"0.123 [0.110, 0.136]", or the mean alone where there is one run. The interval is cut at the bounds of what is measured."""
    if not s.n or not math.isfinite(s.mean):
        return "undefined"
    text = f"{s.mean:.{digits}f}"
    if math.isfinite(s.low):
        text += f" [{max(s.low, bounds[0]):.{digits}f}, {min(s.high, bounds[1]):.{digits}f}]"
    return text.replace("-", "\u2212")


def axis_label(column: Column) -> str:
    """"Acc2 (%) \u2191": metric, unit, and which way is better."""
    unit = " (%)" if column.percent and "%" not in column.label else ""
    return f"{column.label}{unit} " + ("\u2191" if column.higher_is_better else "\u2193")


def n_text(counts: Iterable[int]) -> str:
    """"n = 5 seeds", or "n = 2 to 5 seeds"."""
    found = sorted({k for k in counts if k})
    if not found:
        return "no finished seed"
    if len(found) > 1:
        return f"n = {found[0]} to {found[-1]} seeds"
    return f"n = {count(found[0], 'seed')}"


def means_text(counts: Iterable[int]) -> str:
    """"Mean over n = 5 seeds with 95 % t intervals"; one run has no interval."""
    found = [k for k in counts if k]
    return f"Mean over {n_text(found)}" + (" with 95 % t intervals" if max(found, default=0) > 1 else "")


def sentences(*parts: str) -> str:
    """Parts that are not empty, as sentences."""
    return " ".join(p if p.endswith((".", "?")) else p + "." for p in parts if p)


def provenance_text(view: View) -> str:
    """Where the data are from, as in the tables' captions; "" where nothing is trained or finished."""
    if not view.progress[DONE]:
        return ""
    return f"Data: {data_text(view.table)}" + (". Made with a test-only encoder" if view.table.test_only else "")


def holes(view: View, cells: Iterable[Cell] = ()) -> list[str]:
    """What is not in the picture: runs that failed, are stale or missing, and points that are undefined."""
    runs, found = view.progress, []
    out = [f"{runs[s]} {s}" for s in (FAILED, STALE) if runs[s]]
    if out:
        found.append(f"Left out: {', '.join(out)} of {count(sum(runs.values()), 'run')}")
    if runs[MISSING]:
        found.append(f"Not run yet: {runs[MISSING]} of {count(sum(runs.values()), 'run')}")
    cells = list(cells)
    if undefined := sum(c.state == "undefined" for c in cells):
        found.append(f"Left out: {count(undefined, 'point')} whose metric is undefined in a run")
    if absent := sum(c.state == "not recorded" for c in cells):
        found.append(f"Left out: {count(absent, 'point')} of runs that did not record the metric")
    return found
