"""What a second worker gives on short cells, with workers that are started afresh and with ones forked from a warm process.

    python -m benchmarks.warm_workers [--jobs 6] [--rounds 2]     # prints JSON and writes benchmarks/warm_workers.json

Jobs: LMF on small generated data, four epochs, by the local launcher, 1 and 2 workers. Besides wall time, which on a
machine that does other things too says little, the CPU seconds on the longest path: those of the busiest worker, its
imports among them, and before them, where it was not warm yet, those of the process that it was forked from. On an idle machine
with a core for every worker that is the time to wait. "again" is the case of a script's next run or of a further round of
`bench tune`: the warm process is there already.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))


def cpu(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(jobs: list, workers: int, kind: str) -> dict:
    from bench.launch import local, process, warm
    from bench.store import Store

    if kind == "warm":
        warm.end()
    made: list = []
    real = process.Worker

    def start(device: str, seats: int = 1):
        made.append(real(device, seats, fresh=kind == "fresh"))
        return made[-1]

    local.Worker, used, nursery = start, {}, 0.0

    def heard(outcome) -> None:
        nonlocal nursery
        assert outcome.status == "done", outcome.error
        for w in made:
            used[w.process.pid] = cpu(w.process.pid)

    began = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            local.run_jobs(jobs, Store(folder), ("",) * workers, progress=heard)
    finally:
        local.Worker = real
    wall = time.perf_counter() - began
    if kind == "warm":
        nursery = cpu(warm._nursery.process.pid)
    return {"wall_s": round(wall, 2), "longest_path_cpu_s": round(max(used.values()) + nursery, 2), "all_cpu_s": round(sum(used.values()) + nursery, 2)}


def main() -> None:
    from bench.experiments.common import config
    from bench.matrix import Job

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    c = config("msmix", "lmf", "mosi").with_(dataset="synthetic-mosi", train={"max_epochs": 4, "batch_size": 32})
    jobs, rows = [Job(c, 1111 + i) for i in range(args.jobs)], {}
    for _ in range(args.rounds):
        for kind in ("fresh", "warm", "again"):
            for workers in (1, 2):
                rows.setdefault(kind, {}).setdefault(str(workers), []).append(measured(jobs, workers, kind))
    gain = {
        kind: round(median(r["longest_path_cpu_s"] for r in by["1"]) / median(r["longest_path_cpu_s"] for r in by["2"]), 2)
        for kind, by in rows.items()
    }
    found = {
        "jobs": args.jobs, "rows": rows, "second_worker_gives_times": gain, "load_average": round(os.getloadavg()[0], 2),
        "machine": f"CPU ({platform.machine()}), {os.cpu_count()} cores", "python": platform.python_version(),
    }
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
