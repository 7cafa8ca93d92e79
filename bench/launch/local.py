"""Local launcher: processes on this machine, one thread each on CPU, slots on GPUs.

A launcher is a function of a job list: `run_jobs(jobs, store, ...) -> list[Outcome]`, and a dry run is just one more
launcher. One failing job never stops the others; a worker that dies is replaced and its job is tried once more.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.launch.worker import Outcome, Task, run_task
from bench.matrix import Job
from bench.store import Store

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
    progress: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Run jobs in worker processes; `progress` is called as each ends. Ctrl-C ends the workers and is re-raised:
    finished jobs are kept, and the same call continues."""
    import joblib
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    outcomes: list[Outcome] = []
    left = {j.id: j for j in jobs}
    attempts: dict[str, int] = {}
    saved = {k: os.environ.get(k) for k in _ONE_THREAD}
    if not any(slots):
        os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        with tempfile.TemporaryDirectory(prefix="bench-slots-") as slot_folder:
            while left:
                for mark in Path(slot_folder).glob("*.started"):
                    mark.unlink()
                tasks = [
                    Task(j, str(store.root), str(data_dir) if data_dir else None, tuple(slots), slot_folder, timeout, keep(j))
                    for j in left.values()
                ]
                try:
                    pool = joblib.Parallel(
                        n_jobs=min(len(slots), len(tasks)), backend="loky", batch_size=1, pre_dispatch="n_jobs",
                        return_as="generator_unordered", max_nbytes=None,
                    )
                    for outcome in pool(joblib.delayed(run_task)(t) for t in tasks):
                        left.pop(outcome.job.id)
                        outcomes.append(outcome)
                        progress(outcome)
                        if fail_fast and outcome.status == "failed":
                            return outcomes
                except BrokenProcessPool:
                    _after_crash(left, attempts, store, Path(slot_folder), outcomes, progress)
    finally:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)
        for k, v in saved.items():
            os.environ.pop(k, None) if v is None else os.environ.__setitem__(k, v)
    return outcomes


def _after_crash(
    left: dict[str, Job], attempts: dict[str, int], store: Store, slot_folder: Path, outcomes: list[Outcome],
    progress: Callable[[Outcome], None],
) -> None:
    """A worker was killed. Jobs that ended in the meantime are taken from disk; those it was running get one more
    try, then count as failed."""
    for job in list(left.values()):
        if not (slot_folder / f"{job.id}.started").exists():
            continue
        status = store.status(job)
        attempts[job.id] = attempts.get(job.id, 0) + 1
        if (slot_folder / f"{job.id}.ended").exists() and status in ("done", "failed"):
            outcome = Outcome(job, status, 0.0)
        elif attempts[job.id] >= _ATTEMPTS:
            error = f"its worker was killed {_ATTEMPTS} times (out of memory?)"
            store.fail(job, error, "WorkerKilled")
            outcome = Outcome(job, "failed", 0.0, error)
        else:
            continue
        left.pop(job.id)
        outcomes.append(outcome)
        progress(outcome)
