"""What a GPU box gives: correctness on the device, steps per second, a real slice, the projection of the paper suite.

    python -m benchmarks.gpu                       # on a CUDA machine: at most eight minutes; on a CPU: tiny sizes
    python -m benchmarks.gpu --parts rates,slice --minutes 3 --out benchmarks/gpu.json

Runs straight from the tree, on generated data. Every part stands alone: what fails is recorded with its error and the
rest runs. What a part has measured is written as it comes: a run that is ended from outside leaves it, marked unfinished.
Parts, in order (benchmarks/gpu_parts.py):

    machine     measured matmul rates (float32, bf16), copy rate
    company     a job in company = the job alone, bit for bit
    rates       steps per second of each backbone: eager, as graphs, as graphs in company; memory, utilisation, floor
    peer        the same model and data in a loop as peers write it: DataLoader, .item() every step, seeds in turn
    encoder     fine-tuning a BERT-base-sized encoder in bf16, as a share of the measured matmul rate
    kernels     kernels of a step and the time the device takes for them
    launch      captured steps of sixteen jobs and nothing else: host time of a launch, one host thread or several
    slice       msmix-t1's three frozen-text backbones x six methods x five seeds on MOSI-sized data, end to end
    real        the same cells on real MOSI by `bench run` itself (--data DIR)
    cells       every backbone and system x mixer: graph = eager, bit for bit, weights and history, dropout and mixing
                included, and what was not captured, why; a short training on the device and on the CPU, without dropout and
                with the CPU's draws: float64 close to rounding, float32 within TOLERANCE or ten times what rounding does
                to the CPU's own training (float32_rounding); a cell whose package is not there is skipped
    parity      the reference implementations' fixtures, on the device ($BENCH_PARITY_DIR)
    processes   the same jobs in one process or several, with and without the Multi-Process Service
    projection  hours of the whole paper suite at the measured rates
"""

import argparse
import json
import os
import time
import traceback
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")  # queues of the device, one a stream; read when CUDA begins


def main(arguments: list[str] | None = None) -> int:
    import torch

    from bench import environment
    from bench.job import settle
    from benchmarks import gpu_parts

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", help="cuda or cpu (default: cuda where there is one)")
    parser.add_argument("--minutes", type=float, default=8.0, help="when no further part begins and running ones wind up")
    parser.add_argument("--parts", default=",".join(gpu_parts.PARTS))
    parser.add_argument("--cells", default="", help="of the part cells, such as lmf+none,tfn+msmix (default: all)")
    parser.add_argument("--backbones", default="", help="of the parts about speed (default: those of the papers)")
    parser.add_argument("--processes", type=int, default=0, help="that check cells at once (default: on CUDA, a quarter of the cores)")
    parser.add_argument("--data", default="", help="folder with real MOSI, for the part real")
    parser.add_argument("--results", default="", help="where the runs on it are kept")
    parser.add_argument("--found", default="", help="raw files of earlier runs, a comma between them: what later parts build on")
    parser.add_argument("--out", type=Path, help="json to write (default: benchmarks/gpu.json on CUDA, else gpu_cpu.json)")
    args = parser.parse_args(arguments)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda":
        device = "cuda:0"
    else:
        torch.set_num_threads(1)
    settle(device)
    before: dict[str, Any] = {}
    for path in (f for f in args.found.split(",") if f):
        before |= {k: v for k, v in json.loads(Path(path).read_text()).items() if k in gpu_parts.PARTS}
    end = time.monotonic() + 60 * args.minutes
    several = args.processes or (max(1, (os.cpu_count() or 1) // 4) if device != "cpu" else 1)
    run = gpu_parts.Run(
        device, device == "cpu", end, [c for c in args.cells.split(",") if c], [b for b in args.backbones.split(",") if b],
        several, args.data, args.results, before,
    )
    found: dict[str, Any] = {
        "command": "python -m benchmarks.gpu" + (f" --parts {args.parts} --found {args.found}" if before else ""),
        "environment": {**environment.device(device), **environment.code()},
        "sizes": "tiny" if run.tiny else "as published",
    }
    parts = args.parts.split(",")
    shares = gpu_parts.shares(parts)
    out = args.out or Path(__file__).with_name("gpu_cpu.json" if run.tiny else "gpu.json")

    def write() -> None:
        new = out.with_name(f".{out.name}.new")  # never half a file, whenever the run is ended
        new.write_text(json.dumps(found, indent=1, default=str) + "\n")
        new.replace(out)

    for name in parts:
        began = time.monotonic()

        def kept(so_far: dict[str, Any], name: str = name) -> None:
            found[name] = {**so_far, "unfinished": True}
            write()

        run.kept, run.said = kept, False
        print(f"== {name}", flush=True)
        if began > end and name != "projection":  # which needs no device
            found[name] = {"skipped": f"{args.minutes:g} minutes were over"}
        else:
            run.end = min(end, began + 60 * args.minutes * shares[name])
            try:
                found[name] = gpu_parts.PARTS[name](run)
            except Exception as e:  # noqa: BLE001 - a part that fails must not take the others along
                found[name] = {**found.get(name, {}), "error": f"{type(e).__name__}: {e}"[:500], "where": traceback.format_exc().splitlines()[-6:]}
        run.found[name] = found[name]
        found[name]["seconds"] = round(time.monotonic() - began, 1)
        print("" if run.said else f"{gpu_parts.table(name, found[name])}\n", f"  ({found[name]['seconds']} s)", sep="", flush=True)
        write()
    print(out)
    failed = [n for n in parts if "error" in found[n] or found[n].get("failed")]
    print("all parts well" if not failed else f"to look at: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
