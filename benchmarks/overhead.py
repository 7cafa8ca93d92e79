"""What the harness itself costs per job, and whether that grows with their number: thousands of tiny jobs through the
local executor and through Dask on this machine, two workers each.

    python -m benchmarks.overhead [--jobs 10000] [--trained 300]    # writes benchmarks/overhead.json and docs/overhead.svg
    python -m benchmarks.overhead --draw                            # the figure again, from the JSON

Two kinds of job. "finished": its result is there already, so a worker takes its lock, looks and answers; this is the path
of a job without its training, and cheap enough for 10,000. "trained": one linear layer, six samples, one epoch, all
files written; from start to end it is nearly all overhead too. CPU seconds, which hardly depend on what else the machine
does: of the launcher (with Dask, its client and the scheduler) and of the processes below it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
POINTS = 40
_TINY = '''"""A linear layer on the mean text feature: as little of a model as there can be."""
from dataclasses import dataclass
from torch import nn
from bench.models.base import Backbone, Encoded, Output
VERSION = 1
@dataclass(frozen=True)
class Params:
    width: int = 1
class Model(Backbone):
    def __init__(self, params, inputs):
        super().__init__()
        self.label_bound, self.latent_dims = inputs.label_bound, {"text": (1,)}
        self.net = nn.Linear(inputs.text[1], 1)
    def encode(self, batch):
        return Encoded({"text": self.net(batch["text"].mean(1))}, {})
    def fuse(self, latents):
        return Output(latents["text"].squeeze(-1), {})
'''


def tiny_jobs(n: int) -> list:
    from bench.matrix import Config, Job

    c = Config("synthetic-mosi", "unaligned", "tiny_linear", "none", train={"max_epochs": 1, "batch_size": 16}, fraction=0.05)
    return [Job(c, 1111 + i) for i in range(n)]


def finish(root: Path, jobs: list) -> None:
    """Leave the folder of a finished run for every job."""
    from bench.records import sealed
    from bench.store import Store

    split = {"has0_acc2": 0.78, "mae": 0.95}
    for job in jobs:
        folder = Store(root).folder(job)
        folder.mkdir(parents=True)
        files = {"job.json": json.dumps(job.as_dict()).encode(), "history.csv": b"epoch,loss\n1,1.0\n", "predictions.npz": bytes(2000)}
        metrics = sealed({"valid": split, "test": split, "best_epoch": 1, "epochs": 1, "n": {}}, files)
        for name, content in {**files, "env.json": b"{}", "metrics.json": json.dumps(metrics).encode()}.items():
            (folder / name).write_bytes(content)


def below(pid: int) -> float:
    """CPU seconds of the processes below one, the ended and awaited ones among them."""
    tick, stats = os.sysconf("SC_CLK_TCK"), {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        stats[int(path.parent.name)] = int(fields[1]), sum(map(int, fields[11:15])) / tick
    found, family = 0.0, {pid}
    while family:
        family = {p for p, (parent, _) in stats.items() if parent in family}
        found += sum(stats[p][1] for p in family)
    return found


def measure(executor: str, kind: str, n: int, plugin: str) -> dict:
    from bench import plugins
    from bench.launch.executor import Executor
    from bench.store import Store

    plugins.use(Path(plugin))
    jobs, curve = tiny_jobs(n), []
    began, cpu, every = time.perf_counter(), 0.0, max(1, n // POINTS)

    def heard(outcome) -> None:
        nonlocal ended, looking
        if outcome.status != "done":
            raise SystemExit(f"{outcome.job.id}: {outcome.error}")
        ended += 1
        if ended % every == 0:
            now = time.process_time()
            curve.append([ended, round(now - cpu - looking, 4), round(below(os.getpid()), 2), round(time.perf_counter() - began, 3)])
            looking += time.process_time() - now

    ended, looking = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        if kind == "finished":
            finish(Path(folder), jobs)
        began, cpu = time.perf_counter(), time.process_time()
        Executor(executor, ("", "")).run(jobs, Store(folder), None, {}, progress=heard)
        total = time.process_time() - cpu - looking
    half = len(curve) // 2

    def per_job(a: list, b: list, what: int) -> float:
        return round(1000 * (b[what] - a[what]) / (b[0] - a[0]), 3)

    return {
        "executor": executor, "kind": kind, "jobs": n, "launcher_cpu_s": round(total, 2), "workers_cpu_s": curve[-1][2],
        "wall_s": curve[-1][3],
        "launcher_ms_per_job": {"first half": per_job(curve[0], curve[half - 1], 1), "second half": per_job(curve[half - 1], curve[-1], 1)},
        "workers_ms_per_job": {"first half": per_job(curve[0], curve[half - 1], 2), "second half": per_job(curve[half - 1], curve[-1], 2)},
        "columns": ["jobs ended", "launcher CPU s", "workers CPU s", "wall s"], "curve": curve,
    }


def draw(found: dict, path: Path) -> None:
    """Milliseconds of CPU per job, over the jobs that have ended."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "overhead", "svg.fonttype": "none", "font.size": 9})
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axis, kind, title in zip(axes, ("finished", "trained"), ("jobs whose result is there", "jobs of one step, all files written")):
        for r in (r for r in found["runs"] if r["kind"] == kind):
            colour = {"local": "C0", "dask": "C1"}[r["executor"]]
            for column, who, line in ((1, "launcher", "-"), (2, "workers", "--")):
                points = [(b[0], 1000 * (b[column] - a[column]) / (b[0] - a[0])) for a, b in zip(r["curve"][::4], r["curve"][4::4])]
                axis.plot(*zip(*points), line, color=colour, label=f"{r['executor']}, {who}")
        axis.set(title=title, xlabel="jobs ended", ylabel="CPU ms per job", ylim=(0, None))
        if axis.lines:
            axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--trained", type=int, default=300)
    parser.add_argument("--only", default="", help="executor:kind, as dask:finished; the other runs stay as they are in the JSON")
    parser.add_argument("--draw", action="store_true", help="draw the figure from the JSON, and measure nothing")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "overhead.svg")
    args = parser.parse_args()
    if args.measure:
        executor, kind, n, plugin = args.measure
        print("FOUND" + json.dumps(measure(executor, kind, int(n), plugin)))
        return
    if not args.draw:
        runs = json.loads(args.out.read_text())["runs"] if args.only and args.out.exists() else []
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "models").mkdir()
            (Path(folder) / "models" / "tiny_linear.py").write_text(_TINY)
            for kind, n in (("finished", args.jobs), ("trained", args.trained)):
                for executor in ("local", "dask"):
                    if args.only not in ("", f"{executor}:{kind}"):
                        continue
                    runs = [r for r in runs if (r["executor"], r["kind"]) != (executor, kind)]
                    command = [sys.executable, __file__, "--measure", executor, kind, str(n), folder]
                    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
                    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
                    if not lines:
                        raise SystemExit(done.stderr[-1500:])
                    runs.append(json.loads(lines[-1].removeprefix("FOUND")))
                    runs[-1]["load_average"] = round(os.getloadavg()[0], 2)
                    print({k: v for k, v in runs[-1].items() if k not in ("curve", "columns")}, flush=True)
        found = {"machine": f"CPU ({platform.machine()}), {os.cpu_count()} cores", "python": platform.python_version(), "runs": runs}
        args.out.write_text(json.dumps(found) + "\n")
    draw(json.loads(args.out.read_text()), args.figure)


if __name__ == "__main__":
    main()
