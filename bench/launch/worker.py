"""What one worker process does with one job. Imports torch only after the process's devices are fixed."""

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.matrix import Job
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
    """Run one job; never raises for a job's own failure."""
    import time

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to handle: it ends the workers
    device = _take_slot(task.slots, task.slot_folder)
    os.environ["CUDA_VISIBLE_DEVICES"] = device
    (Path(task.slot_folder) / f"{task.job.id}.started").touch()
    began = time.perf_counter()
    config = task.job.config
    at_hand = {(config.dataset, config.features): task.data_sha256} if task.data_sha256 else {}
    if Store(task.results).status(task.job, at_hand) == DONE:  # another launcher has run it meanwhile
        (Path(task.slot_folder) / f"{task.job.id}.ended").touch()
        return Outcome(task.job, "done", 0.0)
    import torch

    from bench.job import run
    from bench.launch.memory import keep_freed_memory

    if not device:
        torch.set_num_threads(1)
        keep_freed_memory()
    try:
        with _time_limit(task.timeout):
            run(task.job, Store(task.results), task.data_dir, "cuda" if device else "cpu", task.keep)
        outcome = Outcome(task.job, "done", time.perf_counter() - began)
    except Exception as e:  # noqa: BLE001 - recorded in failed.json and reported by the launcher
        first = str(e).splitlines()[0] if str(e) else type(e).__name__
        outcome = Outcome(task.job, "failed", time.perf_counter() - began, first)
    (Path(task.slot_folder) / f"{task.job.id}.ended").touch()
    return outcome
