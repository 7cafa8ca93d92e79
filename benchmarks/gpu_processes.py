"""The same jobs in one process or in several that share a GPU."""

import multiprocessing
import time
from typing import Any

from bench.job import settle
from benchmarks.gpu_run import Run
from benchmarks.gpu_service import mps
from benchmarks.gpu_speed import rate_jobs, speed


def _process(device: str, job_args: tuple[str, str], size: int, tiny: bool, seconds: float, barrier: Any, results: Any) -> None:
    settle(device)
    run = Run(device, tiny, time.monotonic() + 600)
    jobs = rate_jobs(run, *job_args)[:size]
    results.put(speed(run, jobs, "auto", seconds, barrier.wait)["steps_per_s"])


def processes(run: Run) -> dict[str, Any]:
    """The same jobs in one process or shared out over several, which take turns on a GPU unless its Multi-Process Service
    runs (where its daemon can be started for this test, it is, in a folder of its own, and ended)."""
    found: dict[str, Any] = {}
    seconds, shapes = (0.3, ((2, 1),)) if run.tiny else (2.0, ((1, 16), (4, 4), (4, 8)))
    for service in (False, True) if run.cuda else (False,):
        with mps(service) as state:
            if service:
                found["service"] = state
                if state != "on":
                    break
            for backbone in run.backbones or (("lmf",) if run.tiny else ("lmf", "mult")):
                for n, size in shapes[1:] if service else shapes:
                    name = f"{backbone}, {n} x {size}" + (", service" if service else "")
                    found[name] = {"skipped": "out of time"}
                    if run.left > 15 or run.tiny:
                        found[name] = _together(run, backbone, n, size, seconds)
                        run.keep(found)
    return found


def _together(run: Run, backbone: str, n: int, size: int, seconds: float) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(n), context.Queue()
    those = [
        context.Process(target=_process, args=(run.device, (backbone, "msmix"), size, run.tiny, seconds, barrier, results), daemon=True)
        for _ in range(n)
    ]
    for p in those:
        p.start()
    try:
        each = [results.get(timeout=60 if run.cuda else 300) for _ in those]
    except Exception as e:  # noqa: BLE001 - an empty queue: one of them died
        for p in those:
            p.kill()
        return {"error": f"{type(e).__name__}"}
    for p in those:
        p.join(10)
    return {"steps_per_s": round(sum(each), 1), "each": each}
