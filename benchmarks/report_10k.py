"""Time and peak memory of a report on 10,000 job folders.

    python benchmarks/report_10k.py [--before COMMIT]     # prints JSON and writes benchmarks/report_10k.json

56 tables of 36 rows x 8 columns (16,128 cells, 10,080 jobs), each job with all its files and predictions of 686 items.
The folders are generated in a temporary directory; only the report is timed, in a process of its own: once without an
index beside the results, which makes it, and once with it; --before: an earlier commit on the same folders.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, os.environ.get("BENCH_TREE", str(ROOT)))  # which tree's code is measured

import numpy as np  # noqa: E402

from bench.files import json_bytes  # noqa: E402
from bench.matrix import Column, Config, Experiment, Row, expand  # noqa: E402
from bench.records import sealed  # noqa: E402
from bench.store import Store  # noqa: E402

METRICS = ("non0_acc2", "has0_acc2", "non0_f1", "has0_f1", "acc5", "acc7", "mae", "avg")
METHODS = ("plain", "Manifold Mix", "MultiMix", "AdvMixUp", "PowMix", "MS-Mix")
BACKBONES = ("TFN", "LMF", "MulT", "MISA", "ALMT", "GLoMo")
ITEMS = 686


def experiments(tables: int) -> list[Experiment]:
    columns = tuple(Column(m, m, "MOSI", "msena", m != "mae", 3 if m == "mae" else 2, m != "mae") for m in METRICS)
    return [
        Experiment(
            id=f"bench-t{k + 1}",
            paper="bench",
            title=f"Table {k + 1}",
            kind="table",
            columns=columns,
            primary="avg",
            rows=tuple(
                Row(
                    b,
                    m,
                    block=b,
                    baseline={"plain": "plain", "MS-Mix": "proposed"}.get(m, ""),
                    cells={
                        "MOSI": Config("mosi", "unaligned", b.lower(), m.lower().replace(" ", ""), train={"lr": k + 1})
                    },
                )
                for b in BACKBONES
                for m in METHODS
            ),
        )
        for k in range(tables)
    ]


def generate(root: Path, tables: int) -> int:
    """Write the job folders, without flushing each to disk; returns how many."""
    rng, store, os.fsync = np.random.default_rng(0), Store(root), lambda _: None
    label = rng.normal(0, 1.5, ITEMS).round(1).astype(np.float32)
    ids = np.array([f"clip_{i}" for i in range(ITEMS)])
    jobs = expand(experiments(tables))
    env = {
        "commit": "0" * 40,
        "dirty": False,
        "code_hash": "c0de" * 4,
        "torch": "2.9.0",
        "python": platform.python_version(),
        "device": "generated",
        "driver": "none",
        "data_sha256": "a" * 64,
        "provenance": "custom",
        "wall_seconds": 30.5,
        "train_seconds": 29.5,
        "peak_memory_mb": 512.0,
        "parameters": 10**6,
        "test_only": False,
        "cpu_threads": 1,
    }
    history = "epoch,loss\n" + "".join(f"{e},{1 / (e + 1):.4f}\n" for e in range(20))
    for k, job in enumerate(jobs):
        folder = store.folder(job)
        folder.mkdir(parents=True)
        values = dict(zip(METRICS, (0.7 + 0.1 * rng.random(len(METRICS))).tolist()))
        metrics = {"valid": values, "test": values, "best_epoch": 9, "epochs": 20, "updates": 800, "n": {"test": ITEMS}}
        if k % 100 == 0:  # fresh predictions are slow to draw; a hundred jobs share theirs
            prediction = label + rng.normal(0, 1, ITEMS).astype(np.float32)
        np.savez(folder / "predictions.npz", test_id=ids, test_prediction=prediction, test_label=label)
        files = {"job.json": json.dumps(job.as_dict(), indent=1).encode(), "history.csv": history.encode()}
        for name, content in files.items():
            (folder / name).write_bytes(content)
        files["predictions.npz"] = (folder / "predictions.npz").read_bytes()
        for name, value in (("env", {**env, "sealed": True}), ("metrics", sealed(metrics, files))):
            (folder / f"{name}.json").write_bytes(json_bytes(value))
        (folder / "log.txt").write_text("done\n")
    return len(jobs)


def measure(root: Path, tables: int, reading: bool) -> dict:
    from bench.report.build import build

    began, cpu = time.perf_counter(), time.process_time()
    store = Store(root)
    if hasattr(store, "keep_index"):  # as the command line makes it
        store = Store(root, indexed=True)
    if reading:
        store.frames(expand(experiments(tables)))
        return {"cpu_seconds": round(time.process_time() - cpu, 2)}
    page = build(experiments(tables), store, root / "report", "paper")
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "report_seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "index_html_mb": round(page.stat().st_size / 1e6, 2),
    }


def measured(tree: Path, results: Path, tables: int, *more: str) -> dict:
    command = [sys.executable, __file__, "--measure", str(results), "--tables", str(tables), *more]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "BENCH_TREE": str(tree), "OMP_NUM_THREADS": "1"})
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=56)
    parser.add_argument("--before", help="a commit")
    parser.add_argument("--reading", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.tables, args.reading)))
        return
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        jobs, rows = generate(results, args.tables), {}
        time.sleep(3)  # entries of fresher files are not kept
        if args.before:
            archive = subprocess.run(["git", "-C", str(ROOT), "archive", args.before], capture_output=True, check=True).stdout
            tarfile.open(fileobj=BytesIO(archive)).extractall(Path(folder) / "before", filter="data")
            rows["before, reading alone"] = measured(Path(folder) / "before", results, args.tables, "--reading")
            rows["before"] = measured(Path(folder) / "before", results, args.tables)
        rows["without index, reading alone"] = measured(ROOT, results, args.tables, "--reading")
        (results / ".index.sqlite").unlink()
        rows["without index"] = measured(ROOT, results, args.tables)
        rows["with index, reading alone"] = measured(ROOT, results, args.tables, "--reading")
        rows["with index"] = measured(ROOT, results, args.tables)
    found = {
        "jobs": jobs,
        "tables": args.tables,
        "cells": args.tables * len(BACKBONES) * len(METHODS) * len(METRICS),
        "before": args.before,
        "rows": rows,
        "load_average": round(os.getloadavg()[0], 2),  # above the number of cores, wall time is waiting time too
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
    }
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
