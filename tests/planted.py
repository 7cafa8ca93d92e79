"""A results folder whose truth is known, written without training.

Backbones A and B of a small mixer table. In block A the proposed method is better than every other by one standard
deviation of the seeds; in block B all methods are equal. Each kind of hole is planted once.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from bench.matrix import Column, Config, Experiment, Job, Row, seeds
from bench.store import Store, read_json, write_json

METHODS = ("plain", "Manifold Mix", "MultiMix", "PowMix", "MS-Mix")
COLUMNS = (
    Column("non0_acc2", "w-ACC2 (%)", "MOSI", "non-0"),
    Column("mae", "MAE", "MOSI", "unclipped", percent=False, decimals=3, higher_is_better=False),
    Column("corr", "Corr", "MOSI", "Pearson", percent=False, decimals=3),
    Column("avg", "Avg. (%)", "MOSI", "mean of the accuracies"),
)
SD = 0.01  # of a metric over seeds, as a fraction
DATA_HASH = "a" * 64
OLD_HASH = "b" * 64


def config(backbone: str, method: str, dataset: str = "mosi") -> Config:
    return Config(dataset, "unaligned", backbone.lower(), method.lower().replace(" ", ""), train={"lr": 1e-3})


def experiment(
    dataset: str = "mosi", backbones: tuple[str, ...] = ("TFN", "LMF", "MulT"), id: str = "msmix-t1"
) -> Experiment:
    """TFN: MS-Mix better by one SD. LMF: all equal. MulT: holes. GLoMo's rows are not run here."""
    rows = tuple(
        Row(b, m, block=b, baseline={"plain": "plain", "MS-Mix": "proposed"}.get(m, ""),
            cells={"MOSI": config(b, m, dataset) if b != "GLoMo" else None})
        for b in (*backbones, "GLoMo") for m in METHODS
    )
    return Experiment(
        id=id,
        paper="msmix",
        title="Results of mixup methods on MOSI",
        kind="table",
        columns=COLUMNS,
        rows=rows,
        primary="avg",
        family="MS-Mix against every other method of its block, on Avg.",
        notes=("The batch size is not printed: 32.",),
        doc="MS-Mix Table 1: planted.\n\nClaim: MS-Mix is first.\nExpected: 66.8.\nCommand: bench run msmix-t1",
    )


def metrics(rng: np.random.Generator, seed: int, gain: float) -> dict[str, float]:
    """One run: a seed effect shared by all methods, a little noise of its own, and the planted gain in SDs."""
    shared = np.random.default_rng(seed).normal(0, SD, 4)
    own = rng.normal(0, SD / 5, 4)
    level, sign = np.array([0.79, 0.95, 0.65, 0.65]), np.array([1, -1, 1, 1])
    return dict(zip([c.metric for c in COLUMNS], map(float, level + shared + own + sign * gain * SD)))


def env(seed: int, provenance: str = "official", **changes) -> dict:
    return {
        "commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False, "code_hash": "c0de" * 4,
        "torch": "2.9.0", "python": "3.12.1", "device": "NVIDIA H200", "driver": "570.1", "data_sha256": DATA_HASH,
        "provenance": provenance, "wall_seconds": 12.5 + seed % 7, "train_seconds": 11.0, "peak_memory_mb": 512.0,
        "parameters": 1234567, "test_only": False, "cpu_threads": 1, "alone": True, **changes,
    }


def searched_in_rounds(cells, store, run, *more, **named):
    """bench.tune.tune with a launcher that is given a round of jobs at a time."""
    from bench.tune import tune

    def rounds(jobs, after):
        while jobs:
            run(jobs)
            jobs = [j for ended in jobs for j in after(ended)]

    return tune(cells, store, rounds, *more, **named)


def finish(store: Store, job: Job, test: dict[str, float], environment: dict, predictions: dict | None = None) -> None:
    store.begin(job)
    store.finish(
        job, {"valid": test, "test": test, "best_epoch": 7, "epochs": 15, "updates": 600, "n": {"test": 686}},
        pd.DataFrame({"epoch": [0]}), predictions or {"test_id": np.arange(3)}, environment, ["done"],
    )


def unseal(store: Store, job: Job) -> None:
    """Take a result's digests away, as earlier versions wrote it: the test may change its files."""
    path = store.folder(job) / "metrics.json"
    write_json(path, {k: v for k, v in read_json(path).items() if k != "digests"})
    env = path.with_name("env.json")
    write_json(env, {k: v for k, v in read_json(env).items() if k != "sealed"})


def write(
    root: Path, provenance: str = "official", dataset: str = "mosi", holes: bool = True, **changes
) -> SimpleNamespace:
    """Fill a results folder. Holes, all in block MulT: plain has 3 of 5 seeds, Manifold Mix one failed run, MultiMix
    only stale runs, PowMix one undefined correlation."""
    e, store = experiment(dataset), Store(root)
    for k, row in enumerate(e.rows):
        c = row.cells["MOSI"]
        if c is None:
            continue
        rng = np.random.default_rng(k)
        for n, seed in enumerate(seeds(5)):
            job, gain = Job(c, seed), float(row.backbone == "TFN" and row.method == "MS-Mix")
            values, environment = metrics(rng, seed, gain), env(seed, provenance, **changes)
            if holes and row.backbone == "MulT":
                if row.method == "plain" and n >= 3:
                    continue
                if row.method == "Manifold Mix" and n == 0:
                    store.begin(job)
                    store.fail(job, "loss is not finite in epoch 3", "FloatingPointError")
                    continue
                if row.method == "MultiMix":
                    environment["data_sha256"] = OLD_HASH
                if row.method == "PowMix" and n == 1:
                    values["corr"] = float("nan")
            finish(store, job, values, environment)
    return SimpleNamespace(experiment=e, store=store, hashes={("mosi", "unaligned"): DATA_HASH}, reported=reported())


def reported() -> pd.DataFrame:
    """TFN, Avg.: plain as the truth, Manifold Mix 3 points above it, MultiMix 3 below, PowMix 1.9 above; GLoMo printed
    though not run; one line with no place in the table."""
    shift = {"plain": 0.0, "Manifold Mix": 6.0, "MultiMix": -6.0, "PowMix": 1.9, "MS-Mix": 1.0}
    lines = [("TFN", m, "avg", 65.0 + d) for m, d in shift.items()]
    lines += [("LMF", m, "avg", 65.0) for m in METHODS] + [("GLoMo", m, "avg", 72.0) for m in METHODS]
    lines += [("TFN", "MS-Mix", "mae", 0.94), ("BERT", "plain", "avg", 60.0)]
    frame = pd.DataFrame(lines, columns=["backbone", "method", "metric", "mean"])
    return frame.assign(
        artefact="msmix-t1",
        dataset="mosi",
        variant="",
        convention="msena",
        unit=frame["metric"].map({"mae": "1"}).fillna("%"),
        mean_text=[f"{m:.3f}" if k == "mae" else f"{m:.2f}" for m, k in zip(frame["mean"], frame["metric"])],
        std_text="",
        std=float("nan"),
        n=pd.array([5] * len(frame), dtype="Int64"),
        decimals=[3 if k == "mae" else 2 for k in frame["metric"]],
        elsewhere=frame["method"] == "plain",
        bold=frame["method"] == "MS-Mix",
        underline=False,
        cell_id="",
    )
