"""What the measured speed means: a slice of msmix-t1 end to end, the same on real data, the hours of the paper suite."""

import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.store import Store
from benchmarks.gpu_run import FROZEN, METHODS, Run, job_of, members_of

EPOCHS = 20

def slice_(run: Run) -> dict[str, Any]:
    """End to end: data, training with early stopping, test, job folders. Fewer seeds where the time is short; the wall
    time of all 90 jobs is then scaled, and says so."""
    backbones, methods = (("lmf",), ("none", "msmix")) if run.tiny else (FROZEN, METHODS)
    sizes = run.found.get("rates", {}).get("backbones", {})
    best = [max((int(k.split("_")[1]) for k in e if k.startswith("company")), default=4) for e in sizes.values()]
    size = max(best, default=4)
    seeds = range(1111, 1112 if run.tiny else 1116)
    ended, began, errors = 0, time.monotonic(), []
    train = {"max_epochs": 1} if run.tiny else {"max_epochs": 40}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        for seed in seeds:  # whole rounds, so that a shorter one is a fair share of all
            if ended and run.left < (time.monotonic() - began) / ended * len(backbones) * len(methods):
                break
            jobs = [job_of(run, b, m, seed, **train) for b in backbones for m in methods]
            errors += members_of(jobs, store, run, size)
            ended += len(jobs)
            run.keep({"jobs": ended, "company": size, "wall_s": round(time.monotonic() - began, 1), "errors": errors[:5]})
    wall, all_jobs = time.monotonic() - began, len(backbones) * len(methods) * len(seeds)
    return {"jobs": ended, "of": all_jobs, "company": size, "wall_s": round(wall, 1), "errors": errors[:5],
            "wall_s_of_all": round(wall * all_jobs / max(ended, 1), 1), "scaled": ended < all_jobs, "failed": bool(errors)}


def real(run: Run) -> dict[str, Any]:
    """The same cells on real MOSI from the command line: `bench run` with its own launcher, a backbone after the other.
    Needs --data."""
    if not run.data:
        return {"skipped": "no real data: --data DIR"}
    found: dict[str, Any] = {"backbones": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for backbone in run.backbones or (("lmf",) if run.tiny else FROZEN):
            if run.left <= 10:
                found["backbones"][backbone] = {"skipped": "out of time"}
                continue
            found["backbones"][backbone] = _bench_run(run, backbone, Path(run.results or scratch))
            run.keep(found)
    whole = [e for e in found["backbones"].values() if e.get("exit") == 0]
    return {
        **found, "wall_s": round(sum(e["wall_s"] for e in whole), 1), "jobs": sum(e["jobs"] for e in whole),
        "failed": [f for e in found["backbones"].values() for f in e.get("failed", ())],
    }


def _bench_run(run: Run, backbone: str, results: Path) -> dict[str, Any]:
    """exit None: it was stopped when the time was over."""
    line = ["bench", "run", "msmix-t1", "--suite", "real", "--data", "DIR", "--only", f"mosi/{backbone}+*"]
    command = [sys.executable, "-m", *(run.data if w == "DIR" else w for w in line), "--results", str(results)]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said, code = process.communicate(timeout=max(run.left - 5, 1))[0], process.returncode
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            said, code = process.communicate()[0], None
    wall = time.monotonic() - began
    folders = [p.parent for p in results.glob(f"mosi/{backbone}+*/*/job.json")]
    envs = [json.loads((f / "env.json").read_text()) for f in folders if (f / "metrics.json").exists()]
    failed = [json.loads((f / "failed.json").read_text()) for f in folders if (f / "failed.json").exists()]
    return {
        "command": " ".join(line), "exit": code, "jobs": len(envs), "wall_s": round(wall, 1),
        "train_s": round(sum(e["train_seconds"] for e in envs), 1), "engines": sorted({e["engine"] for e in envs}),
        "reasons": sorted({e["engine_reason"] for e in envs if "engine_reason" in e}),
        "failed": [str(f.get("error"))[:200] for f in failed], "said": said.splitlines()[-6:],
    }


def projection(run: Run) -> dict[str, Any]:
    """GPU-hours of the paper suite, as if every training stopped after EPOCHS epochs: steps at the best measured rate of
    the backbone (MS-Mix, batch 32), or the slowest measured where there is none; fine-tuned text encoders on top, by the
    part encoder's time of a step at batch 32 in company, times what cost.toml says of larger ones (half of a step is its
    own, half goes with its rows). Systems with an audio encoder are in no measurement: their hours are the table's."""
    from bench import estimate
    from bench.experiments import select
    from bench.plan import make_plan
    from bench.suites import suite

    rates = run.found.get("rates", {}).get("backbones", {})
    best = {b: max(e["steps_per_s"] for e in entry.values() if isinstance(e, dict) and "steps_per_s" in e) for b, entry in rates.items() if "graph" in entry}
    texts = [e["sentences_per_s"] for k, e in run.found.get("encoder", {}).items() if k.startswith("batch 32") and "sentences_per_s" in e]
    if not best or not texts:
        return {"skipped": "needs the parts rates and encoder"}
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(select(()), suite("paper"), Store(folder))
    hours: dict[str, float] = {}
    table: dict[str, float] = {}
    for j in plan.jobs:
        c = j.config
        if c.backbone_params.get("audio_encoder", "none") != "none":
            table[c.backbone] = table.get(c.backbone, 0.0) + estimate.guess(c, estimate.GPU) / 3600
            continue
        steps = EPOCHS * math.ceil(c.fraction * estimate.rows_of(c) / c.train["batch_size"])
        seconds = 1 / best.get(c.backbone, min(best.values()))
        if c.backbone_params.get("encoder", "none") != "none":
            seconds += estimate.encoder_factor(c) * 32 / max(texts) * (0.5 + 0.5 * c.train["batch_size"] / 32)
        hours[c.backbone] = hours.get(c.backbone, 0.0) + steps * seconds / 3600

    def sorted_(of: dict[str, float]) -> dict[str, float]:
        return {b: round(h, 2) for b, h in sorted(of.items(), key=lambda kv: -kv[1])}

    return {
        "jobs": len(plan.jobs), "epochs_assumed": EPOCHS, "gpu_hours": round(sum(hours.values()), 1), "by_backbone": sorted_(hours),
        "gpu_hours_by_table": round(sum(table.values()), 1), "by_table": sorted_(table), "steps_per_s": best, "sentences_per_s": max(texts),
        "of_sizes": "as published" if run.found["rates"].get("batch") == 32 else "tiny: no projection of anything",
    }
