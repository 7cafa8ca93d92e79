"""CPU seconds of `bench plan` on 100,000 jobs: an earlier commit beside this tree, in turns.

    python -m benchmarks.plan_100k [--before COMMIT] [--rounds 2]     # prints JSON and writes benchmarks/plan_100k.json

The matrix: 20 noise figures of 50 rates x 5 backbones x 4 methods, five seeds each, on generated data; every second
figure also asks for a sweep of the test split, which is a measure of each of its jobs. Planned into an empty results
folder, and into one that holds every tenth job (10,000 folders), twice: the first time the index beside the results is
made, where there is one. What is timed is what `bench plan --json` does after its imports, in a process of its own.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIGURES, RATES, SEEDS = 20, 50, 5
BACKBONES = ("lmf", "tfn", "mult", "misa", "almt")
MIXERS = ("none", "manifold", "powmix", "msmix")
_WORK = '''
import json, os, resource, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from plan_100k_matrix import experiments
from bench.plan import make_plan
from bench.store import Store
from bench.suites import suite
from bench.terminal.plans import as_json
if sys.argv[1] == "generate":
    from plan_100k_matrix import generate
    print("FOUND" + json.dumps(generate(Path(sys.argv[2]), int(sys.argv[3]))))
    sys.exit()
wanted = experiments(int(sys.argv[3]))
began, cpu = time.perf_counter(), time.process_time()
store = Store(sys.argv[2], indexed=True) if hasattr(Store, "keep_index") else Store(sys.argv[2])  # as the command line makes it
plan = make_plan(wanted, suite("paper"), store)
made = time.process_time() - cpu
told = as_json(plan)
print("FOUND" + json.dumps({
    "jobs": told["jobs"]["total"], "done": told["jobs"]["done"], "measures": told["measures"]["wanted"],
    "make_plan_cpu_s": round(made, 2), "cpu_s": round(time.process_time() - cpu, 2),
    "wall_s": round(time.perf_counter() - began, 2),
    "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
}))
'''


def experiments(figures: int = FIGURES) -> list:
    """The planted noise figures."""
    from bench.experiments.common import config
    from bench.matrix import Column, Experiment, Row

    found = []
    base = {(b, m): config("msmix", b, "mosi", m).with_(dataset="synthetic-mosi", backbone_params={"encoder": "tiny"} if b in ("misa", "almt") else {})
            for b in BACKBONES for m in MIXERS}
    for k in range(figures):
        rows = [
            Row(
                b, m, f"NR={rate / 100:g}", x=rate / 100, points=("frame_drop-correlated-0.10",) if k % 2 else (),
                cells={"": c.with_(corruption={"kind": "feature_noise", "rate": rate / 100, "noise": "gaussian"}, train={"patience": 5 + k})},
            )
            for (b, m), c in base.items() for rate in range(1, RATES + 1)
        ]
        found.append(Experiment(f"bench-f{k + 1}", "bench", f"Noise {k + 1}", "figure", (Column("mae", "MAE"),), tuple(rows), SEEDS))
    return found


def generate(root: Path, figures: int = FIGURES, every: int = 10) -> int:
    """Write the folders of every tenth job, as runs do but without flushing each to disk; returns how many."""
    from bench.matrix import expand
    from bench.records import sealed
    from bench.store import Store

    store, n = Store(root), 0
    split = {"has0_acc2": 0.78, "non0_acc2": 0.8, "mae": 0.95, "corr": 0.65, "acc5": 0.4, "acc7": 0.35, "loss": 1.1}
    env = {"code_hash": "c0de" * 4, "device": "CPU (generated)", "wall_seconds": 12.5, "train_seconds": 12.0,
           "train_seconds_per_epoch": 0.6, "parameters": 10**6, "provenance": "synthetic", "sealed": True}
    for job in expand(experiments(figures))[::every]:
        folder = store.folder(job)
        folder.mkdir(parents=True)
        files = {"job.json": json.dumps(job.as_dict()).encode(), "history.csv": b"epoch,loss\n1,1.0\n", "predictions.npz": bytes(8000)}
        metrics = sealed({"valid": split, "test": split, "best_epoch": 9, "epochs": 20, "n": {"test": 686}}, files)
        for name, content in {**files, "env.json": json.dumps(env).encode(), "log.txt": b"done\n", "metrics.json": json.dumps(metrics).encode()}.items():
            (folder / name).write_bytes(content)
        n += 1
    return n


def planned(tree: Path, results: Path, figures: int, what: str = "plan") -> dict:
    """Run the work in a tree's code."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "plan_100k_matrix.py").write_bytes(Path(__file__).read_bytes())
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree), "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-c", _WORK, what, str(results), str(figures), folder]
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    if not lines:
        raise SystemExit(f"{tree}: {done.stderr[-800:]}")
    return json.loads(lines[-1].removeprefix("FOUND"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", help="a commit")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--figures", type=int, default=FIGURES)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trees = {"after": ROOT}
        if args.before:
            commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", args.before], capture_output=True, text=True, check=True).stdout.strip()
            archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=True).stdout
            tarfile.open(fileobj=BytesIO(archive)).extractall(Path(folder) / "before", filter="data")
            trees = {"before": Path(folder) / "before", **trees}
        kept = Path(folder) / "results"
        planned(ROOT, kept, args.figures, "generate")
        rows: dict[str, dict[str, list]] = {}
        for _ in range(args.rounds):
            for name, tree in trees.items():
                (kept / ".index.sqlite").unlink(missing_ok=True)
                for where, results in (("empty", Path(folder) / "none"), ("10 % done", kept), ("10 % done, again", kept)):
                    rows.setdefault(where, {}).setdefault(name, []).append(planned(tree, results, args.figures))
    found = {
        "before": commit if args.before else None, "machine": f"CPU ({platform.machine()}), {os.cpu_count()} cores",
        "python": platform.python_version(), "load_average": round(os.getloadavg()[0], 2), "rows": rows,
    }
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
