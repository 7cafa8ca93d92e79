"""The same model on the same file, here and in MMSA 2.2.1: do the two give the same scores? Many seeds of LMF (or TFN).

    pip install MMSA==2.2.1            # by hand, anywhere on the path; it is no dependency of this project
    python -m benchmarks.mmsa_seeds --data DIR [--model lmf] [--seeds 20] [--workers 2]     # writes benchmarks/mmsa_seeds.json

DIR holds MOSI's unaligned file. Both frameworks read a copy of it whose texts are padded in front, so that the LSTM's
last state, which both read, is that of the last word (over zeros behind the text it forgets: docs/findings.md). The
seeds are the same numbers, but the two draw differently from them: the runs are independent, so the test is Welch's, Holm
over the metrics. MMSA runs by its own entry point and values; the shims it needs are those of benchmarks/peer.py.
"""

import argparse
import importlib.util
import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
METRICS = {  # ours -> theirs
    "non0_acc2": "Non0_acc_2", "non0_f1": "Non0_F1_score", "has0_acc2": "Has0_acc_2", "has0_f1": "Has0_F1_score",
    "acc5": "Mult_acc_5", "acc7": "Mult_acc_7", "mae": "MAE", "corr": "Corr",
}
COLLAPSED = 0.4  # Pearson correlation up to which a run has learned nothing; it is compared with and without those

_THEIRS = '''
import json, sys
import torch
torch.set_num_threads(1)
torch.cuda.set_device = lambda device: None
from MMSA import run as mmsa
model, file, folder, seeds = sys.argv[1], sys.argv[2], sys.argv[3], [int(s) for s in sys.argv[4].split(",")]
get = mmsa.ATIO.getTrain
def trainer(self, args):
    found = get(self, args)
    test, epochs = found.do_test, []
    def counted(*a, **k):
        result = test(*a, **k)
        epochs.append(1)
        if k.get("mode", "VAL") == "TEST":
            print("FOUND" + json.dumps({"epochs": len(epochs) - 1, **{n: float(v) for n, v in result.items()}}), flush=True)
        return result
    found.do_test = counted
    return found
mmsa.ATIO.getTrain = trainer
mmsa.MMSA_run(model, "mosi", seeds=seeds, custom_feature=file, gpu_ids=[], num_workers=0, verbose_level=0,
              model_save_dir=folder, res_save_dir=folder, log_dir=folder)
'''


def padded_in_front(source: Path, target: Path) -> None:
    """A copy of an M-SENA file of one's own (it is unpickled as it is: for MMSA) with the zero steps of a text before it."""
    with open(source, "rb") as file:
        data = pickle.load(file)
    for split in data.values():
        text = np.array(split["text"], np.float32)
        for i, clip in enumerate(text):
            used = int(np.flatnonzero(clip.any(1))[-1]) + 1 if clip.any() else 0
            text[i] = np.roll(clip, len(clip) - used, 0)
        split["text"] = text
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "wb") as file:
        pickle.dump(data, file, protocol=4)


def theirs(model: str, file: Path, seeds: list[int], workers: int, folder: Path) -> list[dict[str, float]]:
    """Test metrics of each seed in MMSA, seeds shared out over processes."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    shares = [seeds[i::workers] for i in range(workers) if seeds[i::workers]]
    running = [
        subprocess.Popen([sys.executable, "-c", _THEIRS, model, str(file), str(folder / f"theirs-{i}"), ",".join(map(str, share))],
                         env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for i, share in enumerate(shares)
    ]
    rows = []
    for process, share in zip(running, shares):
        out, err = process.communicate()
        found = [json.loads(line.removeprefix("FOUND")) for line in out.splitlines() if line.startswith("FOUND")]
        if len(found) != len(share):
            raise SystemExit(f"MMSA ended after {len(found)} of {len(share)} seeds: {err[-1500:]}")
        rows += [{"seed": seed, "epochs": f["epochs"], **{ours: f[name] for ours, name in METRICS.items()}} for seed, f in zip(share, found)]
    return sorted(rows, key=lambda row: row["seed"])


def ours(model: str, data: Path, seeds: int, workers: int, folder: Path) -> list[dict[str, float]]:
    """The same from this harness, by its command line."""
    command = [sys.executable, "-m", "bench", "run", "msmix-t1", "--suite", "real", "--data", str(data), "--only", f"mosi/{model}+none",
               "--seeds", str(seeds), "--set", "train.max_epochs=200", "--workers", str(workers), "--results", str(folder / "ours"), "--gpus", "none"]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    rows = []
    for path in sorted((folder / "ours").glob(f"mosi/{model}+none/*/metrics.json")):
        job, found = json.loads((path.parent / "job.json").read_text()), json.loads(path.read_text())
        assert job["backbone_params"].get("text_state", "padded") == "padded"
        rows.append({"seed": job["seed"], "epochs": found["epochs"], **{m: found["test"][m] for m in METRICS}})
    return rows


def compared(a: list[dict[str, float]], b: list[dict[str, float]]) -> dict[str, Any]:
    """Per metric: mean and standard deviation of either, their difference with its 95 % interval, Welch's p and Holm's, and
    the p of the rank test, which a collapsed run cannot sway."""
    from scipy.stats import mannwhitneyu, ttest_ind

    from bench.analysis.stats import holm

    found: dict[str, Any] = {}
    for metric in (*METRICS, "epochs"):
        x, y = (np.array([row[metric] for row in rows], float) for rows in (a, b))
        test = ttest_ind(x, y, equal_var=False)
        low, high = test.confidence_interval(0.95)
        found[metric] = {
            "ours": [float(x.mean()), float(x.std(ddof=1))], "theirs": [float(y.mean()), float(y.std(ddof=1))],
            "difference": float(x.mean() - y.mean()), "interval": [float(low), float(high)], "p": float(test.pvalue), "p_rank": float(mannwhitneyu(x, y).pvalue),
        }
    for kind in ("p", "p_rank"):
        for metric, p in zip(METRICS, holm([found[m][kind] for m in METRICS])):
            found[metric][f"{kind}_holm"] = float(p)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="lmf", choices=("lmf", "tfn"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    if importlib.util.find_spec("MMSA") is None:
        print("benchmarks.mmsa_seeds: MMSA is not installed; `pip install MMSA==2.2.1` (it is compared with, not used)", file=sys.stderr)
        return 2
    from bench.data.dataset import locate

    source = locate("mosi", "unaligned", args.data)
    if source is None:
        print(f"benchmarks.mmsa_seeds: no unaligned features of mosi in {args.data}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        file = folder / "data" / "MOSI" / "Processed" / "unaligned_50.pkl"
        padded_in_front(source, file)
        seeds = list(range(1111, 1111 + args.seeds))
        mine = ours(args.model, folder / "data", args.seeds, args.workers, folder)
        peer = theirs(args.model, file, seeds, args.workers, folder)
    import torch

    tests = compared(mine, peer)
    learned = [[row for row in rows if row["corr"] > COLLAPSED] for rows in (mine, peer)]
    found = {"mmsa": "2.2.1", "torch": torch.__version__, "machine": f"CPU ({platform.machine()})", "model": args.model,
             "n": [len(mine), len(peer)], "metrics": tests, "learned": {"n": [len(x) for x in learned], "metrics": compared(*learned)}, "ours": mine, "theirs": peer}
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"all {len(mine)} and {len(peer)} runs; {len(learned[0])} and {len(learned[1])} of them learned (Corr > {COLLAPSED})")
    for metric, t in tests.items():
        print(f"{metric:10} ours {t['ours'][0]:.4f} ± {t['ours'][1]:.4f}  theirs {t['theirs'][0]:.4f} ± {t['theirs'][1]:.4f}  "
              f"p {t['p']:.3f}  of ranks {t['p_rank']:.3f}  Holm {t.get('p_holm', float('nan')):.3f}")
    print(args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
