"""Side by side with MMSA 2.2.1, the field's framework: the same feature file, batch size and epochs, one core, in turns.

    pip install MMSA==2.2.1            # by hand, anywhere on the path; it is no dependency of this project
    python -m benchmarks.peer [--models lmf,tfn,mult] [--epochs 3] [--rounds 3] [--data FILE] [--small]

Says the CPU seconds of an epoch (training and validation, the first one left out) of either, their ratio, and the peak
memory. Without --data, the file is generated in M-SENA's format at MOSI's sizes (--small: a few samples, to see that it
runs). MMSA needs two shims on a machine like this one, applied here in its own process and nowhere else:

    torch.cuda.set_device is skipped: it is called whatever the device is, and refuses the CPU
    ReduceLROnPlateau(verbose=) is dropped: torch 2.7 has no such argument, and MulT's trainer passes it
"""

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]

_THEIRS = '''
import json, resource, sys, time
import torch
torch.set_num_threads(1)
torch.cuda.set_device = lambda device: None
real = torch.optim.lr_scheduler.ReduceLROnPlateau
class Plateau(real):
    def __init__(self, *args, verbose=None, **kwargs):
        super().__init__(*args, **kwargs)
torch.optim.lr_scheduler.ReduceLROnPlateau = Plateau
from MMSA import run as mmsa
for name, module in list(sys.modules.items()):
    if name.startswith("MMSA") and hasattr(module, "ReduceLROnPlateau"):
        module.ReduceLROnPlateau = Plateau
model, file, epochs, batch, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
times = []
class Enough(Exception):
    pass
get = mmsa.ATIO.getTrain
def trainer(self, args):
    found = get(self, args)
    test = found.do_test
    def counted(*a, **k):
        result = test(*a, **k)
        times.append(time.process_time())
        if len(times) == epochs:
            raise Enough
        return result
    found.do_test = counted
    return found
mmsa.ATIO.getTrain = trainer
try:
    config = {"batch_size": batch, "update_epochs": 1, "early_stop": 1000, "need_data_aligned": sys.argv[6] == "aligned"}
    # a file given as custom_feature makes MMSA skip its own data folder
    mmsa.MMSA_run(model, "mosi", config=config, seeds=[1111], custom_feature=file, gpu_ids=[], num_workers=0,
                  verbose_level=0, model_save_dir=folder, res_save_dir=folder, log_dir=folder)
except Enough:
    pass
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print("FOUND" + json.dumps({"epoch_s": (times[-1] - times[0]) / (len(times) - 1), "peak_mb": peak}))
'''

_OURS = '''
import json, resource, sys, tempfile, time
import torch
torch.set_num_threads(1)
from bench.job import run
from bench.matrix import Job
from bench.store import Store
from bench.experiments.common import config
model, data, epochs, batch, dataset, features = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5], sys.argv[6]
c = config("msmix", model, "mosi").with_(features=features, train={"max_epochs": epochs, "patience": 1000, "batch_size": batch, "accumulate": 1})
times = []
with tempfile.TemporaryDirectory() as folder:
    run(Job(c, 1111), Store(folder), data, report=lambda line: times.append(time.process_time()) if line.startswith("epoch ") else None)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print("FOUND" + json.dumps({"epoch_s": (times[-1] - times[0]) / (len(times) - 1), "peak_mb": peak}))
'''


def measured(code: str, *arguments: object) -> dict[str, float]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
           "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], env=env, cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    if not lines:
        raise SystemExit(f"no measurement: {done.stderr[-1500:]}")
    return json.loads(lines[-1].removeprefix("FOUND"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="lmf,tfn,mult")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="a data folder as of bench run, with MOSI's file in it")
    parser.add_argument("--small", action="store_true", help="few samples")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    if importlib.util.find_spec("MMSA") is None:
        print("benchmarks.peer: MMSA is not installed; `pip install MMSA==2.2.1` (it is compared with, not used)", file=sys.stderr)
        return 2
    from bench.data.dataset import locate
    from bench.data.tools import write_synthetic

    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        if args.data is None:
            write_synthetic(Path(folder), ["mosi"], not args.small)
        data = args.data or Path(folder)
        for model in args.models.split(","):
            features = "aligned" if model == "mult" else "unaligned"
            file, batch = locate("mosi", features, data), {"lmf": 64, "tfn": 32, "mult": 16}.get(model, 32)
            if file is None:
                raise SystemExit(f"no {features} features of mosi in {data}")
            rounds = [
                (measured(_THEIRS, model, file, args.epochs, batch, folder, features), measured(_OURS, model, data, args.epochs, batch, "mosi", features))
                for _ in range(args.rounds)
            ]
            rows[model] = {
                "batch": batch, "features": features,
                "theirs_epoch_s": [round(t["epoch_s"], 3) for t, _ in rounds], "ours_epoch_s": [round(o["epoch_s"], 3) for _, o in rounds],
                "times_as_fast": round(median(t["epoch_s"] / o["epoch_s"] for t, o in rounds), 3),
                "theirs_peak_mb": round(median(t["peak_mb"] for t, _ in rounds)), "ours_peak_mb": round(median(o["peak_mb"] for _, o in rounds)),
            }
            print(model, rows[model], flush=True)
    import torch

    found = {"mmsa": "2.2.1", "torch": torch.__version__, "machine": f"CPU ({platform.machine()})", "threads": 1, "epochs": args.epochs,
             "data": "generated, MOSI's " + ("small" if args.small else "real") + " sizes" if args.data is None else "the user's", "rows": rows}
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
