"""What is done with one job, wherever it runs: a worker of this machine (local.py) or of a cluster calls `run_task`.

Imports torch only after the process's devices are fixed.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.launch import owner
from bench.launch.litter import sweep_job
from bench.matrix import Job
from bench.measure import spec
from bench.measure.needs import Measure
from bench.store import DONE, Store
from bench.train.turns import drive

BUSY, AGAIN = "busy", "again"  # outcomes after which a job is still to be run; "done" and "failed" are the others


@dataclass(frozen=True)
class Task:
    """Everything a worker needs, as plain picklable values."""

    job: Job
    results: str
    data_dir: str | None = None
    device: str | None = ""  # CUDA_VISIBLE_DEVICES, "" for CPU; None: whatever the process has
    timeout: float | None = None  # seconds of the training, and of each measure
    keep: tuple[str, ...] = ()
    data_sha256: str | None = None  # of the feature file at hand: results on another one are run again
    measures: tuple[Measure, ...] = ()  # what figures want computed from the job's weights
    engine: str = "auto"  # train/engine.py
    alone: bool = False  # no other job beside it on the device: out of memory is its own fault
    only: bool = False  # nor on the machine, where the device is the CPU: its seconds are its own


@dataclass(frozen=True)
class Outcome:
    """How a task ended. "busy": another run owns the job, ask again later. "again": it ran out of memory, or its GPU
    failed, beside other jobs; run it again alone."""

    job: Job
    status: str  # "done", "failed", BUSY or AGAIN
    seconds: float
    error: str = ""
    spent: bool = False  # the process cannot be used for another job


def run_task(task: Task, limit: Callable[[float | None], None] = lambda seconds: None) -> Outcome:
    """Train one job, unless that is done, and make the measures that it lacks; never raises for a job's own failure.

    The job is owned meanwhile (owner.py), and looked at again once it is: another run may have finished it. Its weights
    stay in its folder until all its measures are there, or for good where the task asks to keep them. `limit` hears
    when a section with a time limit begins (its seconds) and ends (None), for whoever watches from outside.
    """
    return drive(task_turns(task, limit))


def task_turns(
    task: Task, limit: Callable[[float | None], None] = lambda seconds: None, signals: bool = True
) -> Generator[Any, None, Outcome]:
    """`run_task` in turns, for a process that does several at once (company.py). signals: time limits strike by a
    signal, which a process has only one of; else whoever hears `limit` throws JobTimeout in."""
    began = time.perf_counter()
    if task.device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = task.device
    try:
        lock = Store(task.results).lock(task.job)
        owned = owner.take(lock)
        if owned is None:
            return Outcome(task.job, BUSY, 0.0, f"{owner.holder(lock) or 'another run'} has it")
        with owned:
            store = Store(task.results, owned.mine)
            if owned.inherited:  # it lists the cell's folder, which may hold thousands of jobs
                sweep_job(store.folder(task.job))
            return (yield from _run_owned(task, store, limit, began, signals))
    except BenchError as e:  # the disk, before there was anything to train
        return Outcome(task.job, "failed", time.perf_counter() - began, _first_line(e))


def _run_owned(
    task: Task, store: Store, limit: Callable[[float | None], None], began: float, signals: bool
) -> Generator[Any, None, Outcome]:
    config = task.job.config
    at_hand = {(config.dataset, config.features): task.data_sha256} if task.data_sha256 else {}
    trained = store.status(task.job, at_hand) == DONE  # another launcher may have run it meanwhile

    def lacking() -> list[Measure]:
        return [m for m in task.measures if spec.load_numbers(store, task.job, m) is None]

    if trained and not lacking():
        return Outcome(task.job, "done", 0.0)
    try:
        import torch

        from bench.job import running
        from bench.launch.memory import keep_freed_memory

        gpu = bool(task.device) or task.device is None and torch.cuda.is_available()
        if not gpu:
            torch.set_num_threads(1)
            keep_freed_memory()
        on = "cuda" if gpu else "cpu"
        if not trained or lacking() and not store.checkpoint(task.job).exists():
            circumstances = {"data_sha256": task.data_sha256, "timeout": task.timeout}
            with _time_limit(task.timeout, limit, signals):
                yield from running(
                    task.job, store, task.data_dir, on, ("checkpoint",) if task.measures else task.keep,
                    lambda line: store.tell(task.job, line), on=circumstances, engine=task.engine, alone=task.only,
                )
        error = _measure(task, store, lacking(), on, limit, signals)
        if not lacking() and "checkpoint" not in task.keep:
            store.checkpoint(task.job).unlink(missing_ok=True)
        return Outcome(task.job, "failed" if error else "done", time.perf_counter() - began, error)
    except Exception as e:  # noqa: BLE001 - recorded in failed.json and reported by the launcher
        outcome = failure(task, e, time.perf_counter() - began)
        if outcome.status == AGAIN:
            store.forget_failure(task.job)
        elif trained:  # a repetition for the sake of measures: the result stands, they are what failed
            for m in lacking()[:1]:
                spec.fail(store, task.job, m, f"{m.kind}: {outcome.error}")
            store.forget_failure(task.job)
        return outcome


def _measure(
    task: Task, store: Store, lacking: list[Measure], device: str, limit: Callable[[float | None], None], signals: bool
) -> str:
    """Make the measures a job lacks, each under the time limit of its own; "" or the first error. A failed measure is
    recorded and stops no other, but one that starved is not: it is for the caller."""
    from bench.measure.run import run
    from bench.measure.trained import restore

    errors: list[str] = []
    trained: Any = None
    for m in lacking:
        try:
            with _time_limit(task.timeout, limit, signals):
                trained = trained or restore(task.job, store, task.data_dir, device)
                run(task.job, m, store, task.data_dir, device, trained)
        except Exception as e:  # noqa: BLE001 - recorded beside the job and reported by the launcher
            if any(_starved(e)) and not task.alone:
                raise
            errors.append(f"{m.kind}: {_first_line(e)}")
            spec.fail(store, task.job, m, errors[-1])
    return errors[0] if errors else ""


@contextlib.contextmanager
def _time_limit(
    seconds: float | None, limit: Callable[[float | None], None], signals: bool = True
) -> Iterator[None]:
    """Raise JobTimeout inside the block after so many seconds: by a signal, in the main thread of a process. What does
    not answer it (native code, a stopped process) is for whoever listens to `limit`."""
    from bench.job import JobTimeout

    def expire(signum: int, frame: object) -> None:
        raise JobTimeout(f"ran past --timeout {seconds:g} s")

    if seconds is None:
        yield
        return
    limit(seconds)
    signalled = signals and threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGALRM, expire) if signalled else None
    if signalled:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        if signalled:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        limit(None)


_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "STATUS_ALLOC_FAILED", "ALLOCATION_FAILED")
GPU_BROKEN = ("CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS", "CUSOLVER_STATUS", "device-side assert", "illegal memory access")


def _starved(e: BaseException) -> tuple[bool, bool]:
    """(whether the neighbours on its device may be to blame for a failure, whether the process is unusable after it)."""
    text = str(e)
    memory = isinstance(e, MemoryError) or type(e).__name__ == "OutOfMemoryError" or (
        isinstance(e, (RuntimeError, OSError)) and any(w in text for w in _NO_MEMORY))
    broken = isinstance(e, RuntimeError) and not memory and any(w in text for w in GPU_BROKEN)
    return memory or broken, broken


def failure(task: Task, e: BaseException, seconds: float = 0.0) -> Outcome:
    """How a task ended that raised: to be run again, alone, where its neighbours may be to blame."""
    starved, spent = _starved(e)
    return Outcome(task.job, AGAIN if starved and not task.alone else "failed", seconds, _first_line(e), spent)


def _first_line(e: BaseException) -> str:
    first = str(e).splitlines()[0] if str(e) else ""
    return first if isinstance(e, BenchError) and first else f"{type(e).__name__}: {first}".removesuffix(": ")


def record_failure(task: Task, error: str, kind: str) -> bool:
    """Charge a job with a failure that its own process could not record: it was killed, or hung and was ended. False
    where another run owns the job by now: then it is that one's. Raises BenchError where the disk does not take it."""
    store = Store(task.results)
    owned = owner.take(store.lock(task.job))
    if owned is None:
        return False
    with owned:
        sweep_job(store.folder(task.job))
        config = task.job.config
        data = {(config.dataset, config.features): task.data_sha256} if task.data_sha256 else {}
        if store.status(task.job, data) == DONE:  # it died in a measure: the first one that is not there
            lacking = [m for m in task.measures if spec.load_numbers(store, task.job, m) is None]
            for m in lacking[:1]:
                spec.fail(store, task.job, m, f"{m.kind}: {error}")
        else:
            store.fail(task.job, error, kind, on={"data_sha256": task.data_sha256, "timeout": task.timeout})
    return True


def sweep(results: str | Path, job: Job) -> None:
    """Remove what an ended process has left of an attempt at a job, unless another owns the job by now."""
    store = Store(results)
    with contextlib.suppress(BenchError):
        if (owned := owner.take(store.lock(job))) is not None:
            with owned:
                sweep_job(store.folder(job))
