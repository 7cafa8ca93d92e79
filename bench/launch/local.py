"""Local launcher: processes on this machine, one thread each on CPU, slots on GPUs.

A launcher is a function of a job list: `run_jobs(jobs, store, ...) -> list[Outcome]`, and a dry run is just one more
launcher. One failing job never stops the others; a worker that dies is replaced and its job is tried once more.
"""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.launch.worker import Outcome, Task, run_task
from bench.matrix import Job
from bench.measure import spec
from bench.measure.needs import Measure
from bench.store import DONE, Store

_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_ATTEMPTS = 2


def device_slots(gpus: Sequence[int], per_gpu: int, workers: int | None) -> tuple[str, ...]:
    """One entry per worker: the value of its CUDA_VISIBLE_DEVICES ("" on CPU).

    With GPUs: per_gpu workers on each. Without: `workers`, by default one per core.
    """
    if per_gpu < 1 or (workers is not None and workers < 1):
        raise BenchError("--workers and --per-gpu must be at least 1")
    if gpus:
        slots = tuple(str(g) for _ in range(per_gpu) for g in gpus)
        return slots[:workers] if workers else slots
    return ("",) * (workers or len(os.sched_getaffinity(0)))


def run_jobs(
    jobs: Sequence[Job], store: Store, slots: Sequence[str], data_dir: Path | None = None, timeout: float | None = None,
    keep: Callable[[Job], tuple[str, ...]] = lambda job: (), fail_fast: bool = False,
    progress: Callable[[Outcome], None] = lambda outcome: None, data: Mapping[tuple[str, str], str] | None = None,
    measures: Callable[[Job], tuple[Measure, ...]] = lambda job: (),
) -> list[Outcome]:
    """Run jobs in worker processes; `progress` is called as each ends. Ctrl-C ends the workers and is re-raised:
    finished jobs are kept, and the same call continues. `data`: (dataset, features) -> sha256 of the file at hand; a
    job that another launcher has finished on it meanwhile is not run again. `measures`: what to compute from a job's
    weights, right after its training in the same worker; a job that is done and lacks them is given for them alone."""
    from concurrent.futures import FIRST_COMPLETED, wait

    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    outcomes: list[Outcome] = []
    left = {j.id: j for j in jobs}
    attempts: dict[str, int] = {}

    def ended(outcome: Outcome) -> None:
        left.pop(outcome.job.id)
        outcomes.append(outcome)
        progress(outcome)

    with tempfile.TemporaryDirectory(prefix="bench-slots-") as slot_folder:
        while left:  # once, and again after every crash of a worker
            tasks = [
                Task(
                    j, str(store.root), str(data_dir) if data_dir else None, tuple(slots), slot_folder, timeout, keep(j),
                    (data or {}).get((j.config.dataset, j.config.features)), measures(j),
                )
                for j in left.values()
            ]
            env = {} if any(slots) else dict.fromkeys(_ONE_THREAD, "1")
            pool = ProcessPoolExecutor(max_workers=min(len(slots), len(tasks)), env=env)
            try:
                waiting = {pool.submit(run_task, t) for t in tasks}
                while waiting:
                    finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in finished:
                        ended(future.result())
                        if fail_fast and outcomes[-1].status == "failed":
                            return outcomes
            except BrokenProcessPool:
                _after_crash(left, attempts, store, Path(slot_folder), ended, measures)
            finally:
                pool.shutdown(wait=True, kill_workers=True)
    return outcomes


def _after_crash(
    left: dict[str, Job], attempts: dict[str, int], store: Store, slot_folder: Path, ended: Callable[[Outcome], None],
    measures: Callable[[Job], tuple[Measure, ...]],
) -> None:
    """A worker was killed. Jobs that ended in the meantime are taken from disk; those it was running get one more
    try, then count as failed."""
    for job in list(left.values()):
        started, finished = (slot_folder / f"{job.id}.{mark}" for mark in ("started", "ended"))
        if not started.exists():
            continue
        started.unlink()
        attempts[job.id] = attempts.get(job.id, 0) + 1
        if finished.exists():
            outcome = Outcome(job, store.status(job), 0.0)
        elif attempts[job.id] >= _ATTEMPTS:
            error = f"its worker was killed {_ATTEMPTS} times (out of memory?)"
            if store.status(job) == DONE:  # it died in a measure: the first one that is not there
                lacking = [m for m in measures(job) if spec.load_numbers(store, job, m) is None]
                for m in lacking[:1]:
                    spec.fail(store, job, m, f"{m.kind}: {error}")
            else:
                store.fail(job, error, "WorkerKilled")
            outcome = Outcome(job, "failed", 0.0, error)
        else:
            continue
        ended(outcome)
