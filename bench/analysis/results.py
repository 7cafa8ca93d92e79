"""The cells behind a table: one metric of one config, over its seeds.

A cell aggregates only what may be aggregated: failed and stale runs have no value, and one undefined value makes the
whole cell undefined, because a mean around a hole would flatter the method that broke.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from bench.matrix import Column, Config
from bench.metrics import is_time
from bench.provenance import of_run, weakest

NAN = float("nan")
DONE, PARTIAL, UNDEFINED, FAILED, STALE, MISSING, NOT_RUN, NOT_RECORDED, NOT_ALONE = (
    "done", "partial", "undefined", "failed", "stale", "missing", "not run", "not recorded", "not timed alone"
)
_FROM_RUN = {"params": "parameters", "params_ours": "parameters", "gflops_ours": "gflops"}  # metric -> field of env.json, where the names differ


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
    text: str = ""  # of a setting that is not a number
    recorded: bool = True  # False: finished runs do not know this metric
    alone: bool = True  # False: a time, of a run that had others beside it on its device
    valid: tuple[float, ...] = ()  # the same metric on the validation split, where the runs know it

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
        if self.derived and (math.isfinite(self.fixed) or self.text):
            return DONE
        if not self.configs:
            return NOT_RUN
        if self.derived:
            return MISSING
        if not self.recorded:
            return NOT_RECORDED
        if not self.alone:
            return NOT_ALONE
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

    @property
    def valid_mean(self) -> float:
        """Mean over the seeds on the validation split; NaN where a run has none."""
        found = [v for v in self.valid if math.isfinite(v)]
        return math.fsum(found) / len(found) if found and self.shown and len(found) == self.n else NAN

    def by_seed(self) -> pd.Series:
        """Finite values, indexed by seed."""
        return pd.Series({s: v for s, v in zip(self.seeds, self.values) if math.isfinite(v)}, dtype=float)


class Results:
    """The two frames of Store.frames, looked up by cell."""

    def __init__(self, values: pd.DataFrame, runs: pd.DataFrame, split: str = "test") -> None:
        """split: whose values the cells hold. Validation values are kept beside them in any case."""
        self.split = split
        self._values = _by_cell(values[values["split"] == split])
        self._valid = self._values if split == "valid" else _by_cell(values[values["split"] == "valid"])
        self.runs: dict[tuple[str, int], dict[str, Any]] = {
            (r["config"], r["seed"]): {k: v for k, v in r.items() if not (isinstance(v, float) and math.isnan(v))}
            for r in runs.to_dict("records")
        }
        for r in self.runs.values():
            if r["status"] == DONE:
                r["provenance"] = of_run(r)

    def run(self, config: Config, seed: int) -> dict[str, Any]:
        return self.runs.get((config.id, seed), {"status": MISSING})

    def finished(self, cell: Cell) -> list[dict[str, Any]]:
        """The finished runs behind a cell."""
        runs = (self.run(c, s) for c in cell.configs for s in cell.seeds)
        return [r for r in runs if r["status"] == DONE]

    def cell(
        self, config: Config | None, column: Column, wanted: tuple[int, ...], points: Sequence[str] = (),
        late: bool = False,
    ) -> Cell:
        """The cell of a config in a column. points: of its sweep, to be averaged seed by seed. late: the value
        is computed after the run, which counts as missing until then."""
        if config is None:
            return Cell((), wanted)
        if column.source:
            return _setting(config, column)
        states = tuple(self.run(config, s)["status"] for s in wanted)
        metric = column.key(config)
        keys = [f"{metric}@{p}" for p in points] or [metric]
        found = [self._values.get((config.id, k)) or self._cost(config, k, wanted) for k in keys]
        if late:
            states = tuple(
                MISSING if s == DONE and any(seed not in f for f in found) else s for seed, s in zip(wanted, states)
            )
        scale = (100.0 if column.percent else 1.0) / len(keys)
        values = tuple(
            scale * math.fsum(f.get(s, NAN) for f in found) if state == DONE else NAN
            for s, state in zip(wanted, states)
        )
        valid: tuple[float, ...] = ()
        if kept := self._valid.get((config.id, metric)) if not points else None:
            valid = tuple(scale * kept.get(s, NAN) if state == DONE else NAN for s, state in zip(wanted, states))
        # what a run took beside others says something about them; older runs do not say whether they were alone
        alone = not is_time(metric) or all(self.run(config, s).get("alone") is True for s, state in zip(wanted, states) if state == DONE)
        return Cell((config,), wanted, states, values, recorded=DONE not in states or all(found), alone=alone, valid=valid)

    def _cost(self, config: Config, metric: str, wanted: tuple[int, ...]) -> dict[int, float]:
        """Costs are fields of the run, not metrics: parameters, seconds."""
        found = {}
        for s in wanted:
            run = self.run(config, s)
            value = run.get(_FROM_RUN.get(metric, metric))
            if value is None and metric == "train_seconds_per_epoch" and run.get("epochs"):
                value = run["train_seconds"] / run["epochs"] if "train_seconds" in run else None
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                found[s] = float(value)
        return found


def _by_cell(values: pd.DataFrame) -> dict[tuple[str, str], dict[int, float]]:
    found: dict[tuple[str, str], dict[int, float]] = {}
    for config, metric, seed, value in zip(values["config"], values["metric"], values["seed"], values["value"]):
        found.setdefault((config, metric), {})[seed] = float(value)
    return found


def _setting(config: Config, column: Column) -> Cell:
    """A column that is read from the config: "train.lr". What the config does not set is a default, and not shown."""
    value: Any = config.as_dict()
    for part in column.source.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if column.words:
        value = column.words.get(str(value), column.words.get("*", value)) if value else "\u2013"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Cell((config,), (), derived=True, fixed=(100.0 if column.percent else 1.0) * value)
    return Cell((config,), (), derived=True, text="" if value is None else str(value))


def stated(value: Any) -> Cell:
    """A cell that needs no run and no config: what the code is."""
    return Cell((), (), derived=True, **({"text": value} if isinstance(value, str) else {"fixed": float(value)}))


def provenance(runs: Iterable[Mapping[str, Any]]) -> str:
    """Provenance of some finished runs taken together: the weakest of them, or "" where there are none."""
    return weakest(str(r.get("provenance")) for r in runs)
