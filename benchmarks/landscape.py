"""A 41 x 41 loss landscape of LMF on MOSI: points together (bench/measure/surface.py) against one after another.

    python benchmarks/landscape.py --data DIR [--threads 2] [--share 1.0]    # writes benchmarks/landscape.json

DIR holds MOSI's unaligned feature file. One epoch of LMF + MS-Mix gives the weights; the whole test split is evaluated at
every point. `--share` evaluates that share of the grid's rows and scales up. The naive side loads the weights of a point
and predicts, on 24 points. Wall seconds and CPU seconds (all threads); on a machine that does other work too, CPU seconds
over the number of threads say what an idle one would take.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROWS = COLUMNS = 41
NAIVE = 24  # points of the naive side
SETTINGS = {
    "normalise": "filter", "vectors": "fixed", "range": [-1.0, 1.0], "points": ROWS, "samples": None, "split": "test",
    "loss": "task", "radius": 0.5, "step": 0.1, "seed": 0,
}


def timed(what: Callable[[], object]) -> tuple[object, float, float]:
    """(result, wall seconds, CPU seconds)."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = what()
    return found, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import numpy as np
    import torch

    from bench.experiments.common import config
    from bench.job import run
    from bench.launch.memory import keep_freed_memory
    from bench.matrix import Job
    from bench.measure import landscape
    from bench.measure.trained import restore
    from bench.store import Store
    from bench.suites import fit_to_data

    torch.set_num_threads(args.threads)
    keep_freed_memory()
    fitted, _ = fit_to_data(config("msmix", "lmf", "mosi", "msmix"), args.data)
    job = Job(fitted.with_(train={"max_epochs": 1}), 1111)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        run(job, store, args.data, keep=("checkpoint",))
        t = restore(job, store, args.data)
    offsets = np.linspace(*SETTINGS["range"], ROWS)
    rows = np.unique(np.linspace(0, ROWS - 1, max(1, round(args.share * ROWS))).round().astype(int))
    grid = [torch.from_numpy(np.stack([np.full(COLUMNS, offsets[i]), offsets], 1)) for i in rows]
    together = landscape.surface(t, SETTINGS)
    ours, wall, cpu = timed(lambda: torch.stack([together.losses(points) for points in grid]))
    naive = landscape.surface(t, SETTINGS, batched=False)
    points = grid[0][:NAIVE]
    one_by_one, naive_wall, naive_cpu = timed(lambda: naive.losses(points))
    scale, naive_scale = ROWS / len(rows), ROWS * COLUMNS / NAIVE
    result = {
        "machine": f"{os.cpu_count()}-core CPU", "threads": args.threads, "torch": torch.__version__,
        "python": platform.python_version(), "samples": t.data.size("test"),
        "text": list(t.data.inputs()["text"]), "grid": [ROWS, COLUMNS], "rows_measured": len(rows),
        "points_together": together.chunk, "batched": together.batched,
        "load": list(os.getloadavg()),
        "seconds": {"wall": round(scale * wall, 1), "cpu": round(scale * cpu, 1), "cpu_per_thread": round(scale * cpu / args.threads, 1)},
        "naive_seconds": {"wall": round(naive_scale * naive_wall, 1), "cpu": round(naive_scale * naive_cpu, 1)},
        "times_as_fast": {"wall": round(naive_scale * naive_wall / (scale * wall), 2), "cpu": round(naive_scale * naive_cpu / (scale * cpu), 2)},
        "largest_difference": float((ours[0][:NAIVE] - one_by_one).abs().max()),
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
