"""How far estimates are off: every stored run predicted from the others, as a plan would.

    python -m benchmarks.estimates [--results results/reference]     # prints JSON and writes benchmarks/estimates.json

Each cell is estimated from what ran beside it, with the cell's own runs left out: from other methods of its backbone,
and with all runs of its backbone left out too, from the machine's pace alone. The ratio of estimate to what the run took,
per run; runs of one results folder may come from a machine that did other things at times, which is in the ratios too.
Runs that shared a GPU are left out: what one of them took is mostly what the others did.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))


def main() -> None:
    from bench import calibration, estimate
    from bench.store import DONE, Store

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "reference")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    store, runs = Store(args.results), []
    for job in store.scan():
        if store.status(job) == DONE and (found := calibration.speed(job.config, store.entry(job))):
            if calibration.is_gpu(found[0]) and not store.entry(job).env.get("alone"):
                continue
            runs.append((job, store.entry(job), *found))
    ratios: dict[str, list[float]] = {"other methods of the backbone": [], "no run of the backbone": [], "nothing ran yet": []}
    for job, entry, device, _ in runs:
        kind = estimate.GPU if calibration.is_gpu(device) else estimate.CPU
        rows = {(job.config.dataset, job.config.features): entry.metrics["n"]["train"]}
        for what, kept in (
            ("other methods of the backbone", [r for r in runs if r[0].config != job.config]),
            ("no run of the backbone", [r for r in runs if r[0].config.backbone != job.config.backbone]),
            ("nothing ran yet", []),
        ):
            known: dict[str, dict] = {}
            for _, _, where, s in kept:
                mine = known.setdefault(where, {})
                mine[s.key] = mine[s.key].joined(s) if s.key in mine else s
            if what.startswith("other") and not any(r[0].config.backbone == job.config.backbone for r in kept):
                continue
            ratios[what].append(estimate.seconds([job], {}, kind, rows, known)[job.config.id] / entry.env["wall_seconds"])
    rows = {
        what: {"runs": len(r), "median ratio": round(median(r), 2), "within a factor of two": round(sum(0.5 <= x <= 2 for x in r) / len(r), 3),
               "ratios": [round(x, 3) for x in sorted(r)]}
        for what, r in ratios.items() if r
    }
    args.out.write_text(json.dumps({"results": args.results.name, "rows": rows}, indent=1) + "\n")
    print(json.dumps({k: {n: v for n, v in r.items() if n != "ratios"} for k, r in rows.items()}, indent=1))


if __name__ == "__main__":
    main()
