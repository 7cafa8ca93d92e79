"""What a cluster's worker does with one job: the same `run_task` as on this machine, in a process of its own.

A Dask worker keeps one child process per thread and sends it one task at a time: native code that hangs, a kill by the
kernel or a broken GPU ends the child and not the worker, and jobs never share a process (torch's global random state).
Where workers do not see the results folder, a job is made in a temporary one and its files travel back as bytes.
"""

import os
import socket
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from bench.data.dataset import fingerprint, is_synthetic, locate
from bench.errors import BenchError
from bench.launch.process import Worker
from bench.launch.worker import AGAIN, BUSY, Outcome, Task
from bench.store import Store

NO_DATA = "no data"  # outcome of a job whose feature file is not on the worker's machine
_WAIT = 20.0  # seconds that a worker waits for a job that another run has, before it asks its caller again
_PATIENCE = 0.5
_children = threading.local()
_every: set[Worker] = set()


@dataclass(frozen=True)
class Reply:
    outcome: Outcome
    host: str
    files: dict[str, bytes] | None = None  # of the job's folder, where the caller writes it


def run_remote(task: Task, bring_back: bool) -> Reply:
    """Run one task in this thread's child process."""
    host, task = socket.gethostname(), replace(task, device=_device())
    try:
        task = replace(task, data_dir=_data_dir(task))
    except BenchError as e:
        return Reply(Outcome(task.job, NO_DATA, 0.0, f"{host}: {e}"), host)
    if not bring_back:
        return Reply(_on(host, _run(task)), host)
    with tempfile.TemporaryDirectory(prefix="bench-job-") as folder:
        outcome = _on(host, _run(replace(task, results=folder)))
        found = Store(folder).folder(task.job)
        files = {p.name: p.read_bytes() for p in found.iterdir() if p.is_file()} if found.is_dir() else {}
    return Reply(outcome, host, files)


def _on(host: str, outcome: Outcome) -> Outcome:
    return replace(outcome, error=f"{host}: {outcome.error}") if outcome.error else outcome


def _device() -> str:
    """The devices that this worker was started with; "" for a worker without a GPU."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")


def _run(task: Task) -> Outcome:
    until = time.monotonic() + _WAIT
    while True:
        outcome = _once(task)
        if outcome.status != BUSY or time.monotonic() > until:
            return outcome
        time.sleep(_PATIENCE)


def _once(task: Task) -> Outcome:
    child = getattr(_children, "worker", None)
    if child is None or child.process.poll() is not None:
        child = _children.worker = Worker(task.device or "", fresh=True)
        _every.add(child)
    began = time.perf_counter()
    try:
        child.send(task)
        while True:
            if child.connection.poll(_PATIENCE):
                outcome = child.receive()
                if outcome is not None:
                    if outcome.spent:
                        _forget(child)
                    return outcome
            elif child.overdue():
                _forget(child)
                error = f"ran past --timeout {task.timeout:g} s and did not answer; its process was ended"
                return Outcome(task.job, "failed", time.perf_counter() - began, error)
    except (EOFError, OSError):
        how = _forget(child)
        status = "failed" if task.alone else AGAIN
        return Outcome(task.job, status, time.perf_counter() - began, f"its process {how}")


def _forget(child: Worker) -> str:
    """End a child, and say how it ended."""
    _children.worker = None
    _every.discard(child)
    child.kill()
    return child.end()


def end_children() -> int:
    """Kill what this worker is running: the caller was told to stop. Returns how many there were."""
    found = list(_every)
    for child in found:
        child.kill()
    return len(found)


# --- data ----------------------------------------------------------------------------------------------------------

def sent_folder(sha256: str) -> Path:
    """Where a file that a caller sent lies on a worker's machine, by its content's hash."""
    from bench.data import cache

    return cache.root(None) / "sent" / sha256[:24]


def _data_dir(task: Task) -> str | None:
    """The folder on this machine with the very file that the caller planned with. Raises BenchError where there is none.

    Looked for in the caller's own folder (a shared file system), in $BENCH_DATA of the worker, and among what was sent.
    """
    c = task.job.config
    if is_synthetic(c.dataset) or task.data_sha256 is None:
        return task.data_dir
    places = [p for p in (task.data_dir, os.environ.get("BENCH_DATA"), str(sent_folder(task.data_sha256))) if p]
    other = ""
    for place in places:
        path = locate(c.dataset, c.features, place) if Path(place).is_dir() else None
        if path is None:
            continue
        if fingerprint(c.dataset, c.features, path) == task.data_sha256:
            return place
        other = f"; {path} is another file"
    raise BenchError(f"no {c.features} features of {c.dataset} with the caller's hash in {', '.join(places)}{other}")


def store_chunk(sha256: str, name: str, offset: int, data: bytes, last: bool) -> None:
    """Take a piece of a feature file that the caller sends; the file appears under its name with its last piece."""
    target = sent_folder(sha256) / name
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    with open(part, "r+b" if offset else "wb") as f:
        f.seek(offset)
        f.write(data)
    if last:
        part.replace(target)
