"""CPU training steps with and without two speed-ups that change no result, side by side in one run.

memory   keep_freed_memory (bench/launch/memory.py): freed tensors stay in the process. A property of the process, so
         each side runs in processes of its own, alternating.
outer    TFN's first fusion layer rebuilt chunk by chunk (bench/models/parts/outer.py) against the stored outer product.

    python benchmarks/cpu_step.py            # writes benchmarks/cpu_step.json

MOSI's sizes (text 50 x 768, audio 5, vision 20), random features, one thread; CPU milliseconds (user and system) of
one training step (forward, backward, Adam), median over the rounds.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

ROUNDS, STEPS = 3, 4
CASES = (("lmf", 64), ("tfn", 32), ("tfn", 256))  # backbone, batch; 256 rows is what a PowMix step fuses


def measure(backbone: str, batch: int, keep: bool, store_product: bool) -> float:
    """CPU milliseconds of one step in this process."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import resource

    import torch

    from bench import registry
    from bench.launch.memory import keep_freed_memory
    from bench.models.base import Inputs

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if keep and not keep_freed_memory():
        raise SystemExit("this needs glibc")
    torch.manual_seed(0)
    module = registry.load("models", backbone)
    model = module.Model(module.Params(), Inputs(text=(50, 768), audio=(1, 5), vision=(1, 20))).train()
    model.store_product = store_product
    optimiser = torch.optim.Adam(model.parameters(), fused=True)
    data = {"text": torch.randn(batch, 50, 768), "audio": torch.randn(batch, 1, 5), "vision": torch.randn(batch, 1, 20)}
    target = torch.randn(batch)

    def step() -> None:
        (model(data).prediction - target).abs().mean().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    step(), step()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(STEPS):
        step()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return 1e3 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / STEPS


def in_process(*arguments: object) -> float:
    command = [sys.executable, __file__, "--measure", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--measure", nargs=4, metavar=("BACKBONE", "BATCH", "KEEP", "STORE"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    if args.measure:
        backbone, batch, keep, store = args.measure
        print(measure(backbone, int(batch), keep == "True", store == "True"))
        return
    import torch

    rows = []
    for backbone, batch in CASES:
        sides = {"plain": (False, True), "memory": (True, True)}
        if backbone == "tfn":
            sides["memory_and_outer"] = (True, False)
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(ROUNDS):
            for name, (keep, store) in sides.items():
                times[name].append(in_process(backbone, batch, keep, store))
        medians = {name: round(statistics.median(t), 1) for name, t in times.items()}
        ratios = {name: round(medians["plain"] / m, 2) for name, m in medians.items() if name != "plain"}
        rows.append({"backbone": backbone, "batch": batch, "cpu_ms": medians, "times_as_fast": ratios, "rounds": times})
        print(backbone, batch, medians, ratios, flush=True)
    result = {"machine": f"{os.cpu_count()}-core CPU", "threads": 1, "torch": torch.__version__, "python": platform.python_version(), "rows": rows}
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
