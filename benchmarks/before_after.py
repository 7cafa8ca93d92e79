"""CPU seconds of the same work before and after: an earlier commit beside this tree, in turns, as a ratio.

    python -m benchmarks.before_after COMMIT [--rounds 3] [--out benchmarks/before_after.json]

Each measurement is a process of its own (one thread), which says the CPU seconds that it used, children not counted:
robust against whatever else the machine does. Work: starting a worker (imports, settings), and a training of LMF and of
TFN with text_state=valid on generated data in the real sizes of MOSI's features (samples: 20 %), two epochs, end to end.
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
from statistics import median

ROOT = Path(__file__).parents[1]
_WORK = '''
import json, sys, tempfile, time
began = time.process_time()
import torch
torch.set_num_threads(1)
from bench.job import run, settle
settle("cpu")
found = {"start a worker": time.process_time() - began}
from bench.data.dataset import load
from bench.matrix import Job
from bench.store import Store
from bench.experiments.common import config
for backbone in ("lmf", "tfn"):
    c = config("msmix", backbone, "mosi").with_(dataset="synthetic-mosi-full", fraction=0.2, train={"max_epochs": 2}, backbone_params={"text_state": "valid"})
    load(c.dataset, c.features)
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        run(Job(c, 1111), Store(folder))
        found[f"{backbone}, two epochs"] = time.process_time() - began
print("FOUND" + json.dumps(found))
'''


def measured(tree: Path) -> dict[str, float]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(tree), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", _WORK], cwd=tree, env=env, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    if not lines:
        raise SystemExit(f"{tree}: {done.stderr[-800:]}")
    return json.loads(lines[-1].removeprefix("FOUND"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", args.commit], capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=True).stdout
        tarfile.open(fileobj=BytesIO(archive)).extractall(folder, filter="data")
        rounds = [(measured(Path(folder)), measured(ROOT)) for _ in range(args.rounds)]
    rows = {
        name: {
            "before_s": [round(b[name], 3) for b, _ in rounds], "after_s": [round(a[name], 3) for _, a in rounds],
            "times_as_fast": round(median(b[name] / a[name] for b, a in rounds), 3),
        }
        for name in rounds[0][0]
    }
    import torch

    found = {"before": commit, "machine": f"CPU ({platform.machine()})", "threads": 1, "torch": torch.__version__, "rows": rows}
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
