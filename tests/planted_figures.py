"""Stored jobs and measures of a figure whose numbers are known, written without training."""

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from bench.analysis.results import Results
from bench.matrix import Experiment, Job, expand, seeds
from bench.measure import numbers, spec
from bench.report.tables import Table, make_table
from bench.report.verdict import Reported
from bench.store import Store, write_json
from tests import planted

SIDE = 9  # points per axis of a planted landscape


def experiment(artefact: str) -> Experiment:
    """A figure of the papers, as they define it."""
    from bench.experiments import all_experiments

    return all_experiments()[artefact]


def table(e: Experiment, store: Store, n: int | None = None) -> Table:
    """The artefact's table from what is stored, beside no printed number."""
    values, runs = store.frames(expand([e], n))
    values = pd.concat([values, numbers.values([e], store, n)], ignore_index=True)
    return make_table(e, Results(values, runs), Reported(planted.reported().iloc[:0]), n)


def rng(*words: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(words).encode()))


def test_metrics(e: Experiment, job: Job) -> dict[str, float]:
    """Fractions between 0.7 and 0.85 for what is printed as a percentage, a MAE of 0.5 to 0.65; seeds 0.01 apart."""
    level = rng(job.config.id).uniform(0, 0.15)
    names = {c.metric for c in e.columns} | {"non0_acc2", "acc2", "mae"}
    values = {m: (0.5 if m == "mae" else 0.7) + level + 0.01 * rng(job.id, m).normal() for m in sorted(names)}
    points = sorted({p for row in e.rows for p in row.points})
    return values | {f"{m}@{p}": v - 0.2 * float(p.rpartition("-")[2]) for m, v in values.items() for p in points}


def history(e: Experiment, job: Job, epochs: int = 12) -> pd.DataFrame:
    """Columns that a figure of dynamics sums: falling curves, 0.01 apart per seed; valid columns above training's."""
    t = np.arange(1, epochs + 1)
    found = {"epoch": t}
    computed = e.figure.get("computed", {})
    for column in sorted({c for m in computed for c in computed[m]} if isinstance(computed, Mapping) else ()):
        shift = 0.1 * column.startswith("valid") + 0.05 * rng(job.id, column).normal()
        found[column] = 0.5 + shift + np.exp(-t / 4)
    return pd.DataFrame(found)


def arrays(what: spec.Measure, draws: np.random.Generator, first: bool) -> spec.Values:
    """(numbers, arrays) of a planted measure."""
    kind = what.kind
    if kind == "landscape":
        at, bend = np.linspace(-1, 1, SIDE), draws.uniform(0.5, 1.5)
        loss = 0.4 + bend * (at[:, None] ** 2 + at ** 2)
        return {"centre": 0.4, "loss_rise": float(loss.mean() - 0.4), "rise_at_radius": bend, "curvature": 2 * bend}, {
            "alpha": at, "beta": at, "loss": loss}
    if kind == "tsne":
        label = draws.normal(0, 1, 160).astype(np.float32).round(1)
        place = np.stack([label, draws.normal(size=160)], 1).astype(np.float32) * 12
        pictures = {f"embedding_{p}": place * [1, p / 30] for p in what.settings["perplexities"]} if first else {}
        return {"silhouette": draws.uniform(0.1, 0.3), "knn_accuracy": draws.uniform(0.6, 0.9)}, {
            **pictures, "label": label, "mixed": (np.arange(160) >= 80) & ("mixed" in what.settings)}
    if kind == "labels":
        real = np.clip(draws.normal(0, 1, 500).round(), -3, 3).astype(np.float32)
        return {"kl": draws.uniform(0.01, 0.2)}, {"label": real, "mixed": real[::-1] * 0.7 + 0.1}
    if kind == "attention":
        matrix, columns = draws.random((50, 50)).astype(np.float32), np.array([7, 17, 18, 35, 41])
        matrix[:, columns] *= 0.3
        matrix /= matrix.sum(1, keepdims=True)
        noised = np.isin(np.arange(50), columns)
        return {"weight_noised": float(matrix[:, noised].mean()), "weight_other": float(matrix[:, ~noised].mean()),
                "weight_std": float(matrix.std())}, {"matrix": matrix, "noised": noised, "columns": columns}
    return {f"{m}:{k}": draws.uniform(0.6, 0.8) for m in ("text", "audio", "vision") for k in ("non0_acc2", "mae")}, {}


def write(root: Path, e: Experiment, n: int = 3, provenance: str = "official", measured: bool = True) -> Store:
    """Fill a results folder with n seeds of every job of an artefact, and the measures of its figure."""
    store = Store(root)
    for job in expand([e], n):
        store.begin(job)
        values = test_metrics(e, job)
        plain = {k: v for k, v in values.items() if "@" not in k}
        record = {"valid": plain, "test": plain, "best_epoch": 7, "epochs": 12, "updates": 600, "n": {"test": 686}}
        store.finish(job, record, history(e, job), {"test_id": np.arange(3)},
                     planted.env(job.seed, provenance), ["done"])
    for config, what in spec.sweeps(e):
        for job in (Job(config, seed) for seed in seeds(n)):
            names = ((k.split("@"), v) for k, v in test_metrics(e, job).items() if "@" in k)
            put(store, job, what, {f"{at}:{m}": v for (m, at), v in names if at in what.settings["points"]}, {})
    for need in spec.measures(e) if measured else ():
        for k, seed in enumerate(seeds(n)):
            measure(store, Job(need.config, seed), need.measure, first=k == 0)
    return store


def measure(store: Store, job: Job, what: spec.Measure, first: bool = True) -> None:
    """Plant one measure."""
    put(store, job, what, *arrays(what, rng(job.id, what.stem), first))


def put(store: Store, job: Job, what: spec.Measure, values: dict[str, float], found: dict[str, np.ndarray]) -> None:
    folder = store.folder(job)
    np.savez_compressed(folder / f"{what.stem}.npz", **found)
    write_json(folder / f"{what.stem}.json", {"numbers": values, "seal": spec.seal(store, job), **spec.describe(what)})
