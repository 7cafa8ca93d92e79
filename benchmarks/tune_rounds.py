"""What a search gains by letting every row go on by itself, beside rounds of all rows together.

    python -m benchmarks.tune_rounds [--workers 2] [--budget 8] [--repeats 2]     # writes benchmarks/tune_rounds.json

The same search twice, one after the other, in turns: LMF plain, + MultiMix and + MS-Mix on small generated data; MultiMix's
trials have up to a thousand mixtures a step and are the longest. In rounds, as `bench tune` did: four trials of every row,
then the next four once the last of them has ended. The trails are compared: they must be the same.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))


def main() -> None:
    from bench import environment
    from bench.experiments.common import config
    from bench.launch.local import run_jobs
    from bench.store import Store
    from bench.tune import tune

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--budget", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    train = {"max_epochs": 20, "batch_size": 16}
    cells = [config("msmix", "lmf", "mosi", m).with_(dataset="synthetic-mosi", train=train) for m in ("none", "multimix", "msmix")]
    walls: dict[str, list[float]] = {"rounds": [], "each by itself": []}
    trails = []
    for _ in range(args.repeats):
        for how, found in walls.items():
            with tempfile.TemporaryDirectory() as folder:
                store, began = Store(folder), time.perf_counter()

                def run(jobs, after, store=store, how=how):
                    if how != "rounds":
                        run_jobs(jobs, store, ("",) * args.workers, more=after)
                        return
                    while jobs:
                        run_jobs(jobs, store, ("",) * args.workers)
                        jobs = [j for ended in jobs for j in after(ended)]

                trails.append(tune(cells, store, run, args.budget))
                found.append(round(time.perf_counter() - began, 1))
    assert all(t == trails[0] for t in trails)
    ratios = [a / b for a, b in zip(*walls.values(), strict=True)]
    result = {
        "workers": args.workers, "trials": args.budget * len(cells), "wall_s": walls, "times_as_fast": round(median(ratios), 2),
        "machine": {**environment.device("cpu"), **environment.code()},
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
