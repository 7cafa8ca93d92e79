"""What figures compute, as lines of a frame of values (store.py): from the measures on disk, or from history.csv.

A value's metric is named <metric>@<point>, with the point of needs.py. Torch-free.
"""

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from bench.matrix import Config, Experiment, Job, seeds
from bench.measure.spec import load_numbers, measures, sweeps
from bench.store import DONE, Store

_SPLIT = "test"  # where tables look; which data a number is of is said with its definition


def values(experiments: Iterable[Experiment], store: Store, n_seeds: int | None = None) -> pd.DataFrame:
    """One line per (job, computed metric, point) of finished jobs, with the columns of Store.frames' values."""
    lines = []
    for e in experiments:
        wanted = seeds(e.seeds if n_seeds is None or not e.seeds else n_seeds)
        lines += _swept(e, store, wanted)
        if not e.figure.get("computed"):
            continue
        found = _dynamics if e.figure["kind"] == "dynamics" else _measured
        lines += found(e, store, wanted)
    columns = ["job", "config", "dataset", "features", "backbone", "mixer", "seed", "split", "metric", "value"]
    return pd.DataFrame(list(dict.fromkeys(lines)), columns=columns)


def _line(job: Job, metric: str, at: str, value: float) -> tuple:
    c = job.config
    return (job.id, c.id, c.dataset, c.features, c.backbone, c.mixer, job.seed, _SPLIT, f"{metric}@{at}", value)


def _done(config: Config, wanted: Sequence[int], store: Store) -> list[Job]:
    return [j for s in wanted if store.status(j := Job(config, s)) == DONE]


def _measured(e: Experiment, store: Store, wanted: Sequence[int]) -> list[tuple]:
    lines = []
    for need in measures(e):
        probed = need.panel.get("probed", {}).get(need.row.variant)
        for job in _done(need.config, wanted, store):
            numbers = load_numbers(store, job, need.measure)
            if numbers is None:
                continue
            for metric in e.figure["computed"]:
                name = f"{probed}:{metric}" if probed else metric
                at = need.measure.stem + (f":{probed}" if probed else "")
                if name in numbers:
                    lines.append(_line(job, metric, at, numbers[name]))
    return lines


def _swept(e: Experiment, store: Store, wanted: Sequence[int]) -> list[tuple]:
    lines = []
    for config, measure in sweeps(e):
        for job in _done(config, wanted, store):
            for name, value in (load_numbers(store, job, measure) or {}).items():
                at, _, metric = name.partition(":")
                lines.append(_line(job, metric, at, value))
    return lines


def _dynamics(e: Experiment, store: Store, wanted: Sequence[int]) -> list[tuple]:
    lines = []
    for row in e.rows:
        for config in dict.fromkeys(c for c in row.cells.values() if c is not None):
            for job in _done(config, wanted, store):
                history = store.history(job)
                for metric, parts in e.figure["computed"].items():
                    if history is not None:
                        lines.append(_line(job, metric, f"{e.id}:{row.variant}", curve_number(history, parts, row.variant)))
    return lines


def curve(history: pd.DataFrame, parts: Sequence[str]) -> pd.Series:
    """A curve, indexed by epoch: the sum of columns of history.csv over the epochs that have them all; empty where a
    column is missing."""
    if not set(parts) <= set(history):
        return pd.Series(dtype=float)
    return history.set_index("epoch")[list(parts)].dropna().sum(axis=1)


def curve_number(history: pd.DataFrame, parts: Sequence[str], end: str) -> float:
    """The number of a curve: its "first" or "last" point, else the mean over its epochs; NaN for an empty one."""
    found = curve(history, parts)
    if found.empty:
        return math.nan
    return float(found.iloc[0] if end == "first" else found.iloc[-1] if end == "last" else found.mean())
