"""What one worker process does with one job. Imports torch only after the process's devices are fixed."""

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.matrix import Job
from bench.measure import spec
from bench.measure.needs import Measure
from bench.store import DONE, Store

_slot: int | None = None  # this process's device slot, held until it dies
_slot_file: object = None


@dataclass(frozen=True)
class Task:
    """Everything a worker needs, as plain picklable values."""

    job: Job
    results: str
    data_dir: str | None
    slots: tuple[str, ...]  # one entry per worker: the CUDA_VISIBLE_DEVICES of that slot, "" for CPU
    slot_folder: str
    timeout: float | None
    keep: tuple[str, ...]
    data_sha256: str | None = None  # of the feature file at hand: results on another one are run again
    measures: tuple[Measure, ...] = ()  # what figures want computed from the job's weights


@dataclass(frozen=True)
class Outcome:
    job: Job
    status: str  # "done" or "failed"
    seconds: float
    error: str = ""


def _take_slot(slots: tuple[str, ...], folder: str) -> str:
    """The device of a free slot. A slot is a file lock: the kernel frees it when a worker dies, however it dies."""
    global _slot, _slot_file
    if _slot is None:
        for i in range(len(slots)):
            handle = open(Path(folder) / f"slot-{i}", "w")
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.close()
                continue
            _slot, _slot_file = i, handle
            break
        else:
            _slot = 0
    return slots[_slot]


@contextlib.contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    from bench.job import JobTimeout

    def expire(signum: int, frame: object) -> None:
        raise JobTimeout(f"ran past --timeout {seconds:g} s")

    if seconds is None:
        yield
        return
    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_task(task: Task) -> Outcome:
    """Train one job, unless that is done, and make the measures that it lacks; never raises for a job's own failure.

    The job's weights stay in its folder until all its measures are there, or for good where the task asks to keep them.
    """
    import time

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to handle: it ends the workers
    device = _take_slot(task.slots, task.slot_folder)
    os.environ["CUDA_VISIBLE_DEVICES"] = device
    (Path(task.slot_folder) / f"{task.job.id}.started").touch()
    began = time.perf_counter()
    config = task.job.config
    at_hand = {(config.dataset, config.features): task.data_sha256} if task.data_sha256 else {}
    store = Store(task.results)
    trained = store.status(task.job, at_hand) == DONE  # another launcher may have run it meanwhile

    def lacking() -> list[Measure]:
        return [m for m in task.measures if spec.load_numbers(store, task.job, m) is None]

    if trained and not lacking():
        (Path(task.slot_folder) / f"{task.job.id}.ended").touch()
        return Outcome(task.job, "done", 0.0)
    import torch

    from bench.job import run
    from bench.launch.memory import keep_freed_memory

    if not device:
        torch.set_num_threads(1)
        keep_freed_memory()
    on = "cuda" if device else "cpu"
    try:
        if not trained or lacking() and not store.checkpoint(task.job).exists():
            with _time_limit(task.timeout):
                run(task.job, store, task.data_dir, on, ("checkpoint",) if task.measures else task.keep)
        error = _measure(task, store, lacking(), on)
        if not lacking() and "checkpoint" not in task.keep:
            store.checkpoint(task.job).unlink(missing_ok=True)
        outcome = Outcome(task.job, "failed" if error else "done", time.perf_counter() - began, error)
    except Exception as e:  # noqa: BLE001 - recorded in failed.json and reported by the launcher
        outcome = Outcome(task.job, "failed", time.perf_counter() - began, _first_line(e))
    (Path(task.slot_folder) / f"{task.job.id}.ended").touch()
    return outcome


def _measure(task: Task, store: Store, lacking: list[Measure], device: str) -> str:
    """Make the measures a job lacks, each under the time limit of its own; "" or the first error. A failed measure is
    recorded and stops no other."""
    from bench.measure.run import run
    from bench.measure.trained import restore

    errors, trained = [], None
    for m in lacking:
        try:
            with _time_limit(task.timeout):
                trained = trained or restore(task.job, store, task.data_dir, device)
                run(task.job, m, store, task.data_dir, device, trained)
        except Exception as e:  # noqa: BLE001 - recorded beside the job and reported by the launcher
            errors.append(f"{m.kind}: {_first_line(e)}")
            spec.fail(store, task.job, m, errors[-1])
    return errors[0] if errors else ""


def _first_line(e: Exception) -> str:
    from bench.errors import BenchError

    first = str(e).splitlines()[0] if str(e) else ""
    return first if isinstance(e, BenchError) and first else f"{type(e).__name__}: {first}".removesuffix(": ")
