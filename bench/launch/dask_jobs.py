"""Jobs on a Dask cluster, with the guarantees of local runs: one owner per job, results whole or not at all.

A worker that is lost in a job costs that job one more try elsewhere; a scheduler that is lost ends the run with a line,
and the same command goes on. What was asked for is cancelled, and what runs is ended, when the caller stops.
"""

import contextlib
import math
import shutil
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.data.dataset import locate
from bench.errors import BenchError
from bench.folder_swap import put_in_place
from bench.launch import owner
from bench.launch.litter import sweep_results
from bench.launch.remote import NO_DATA, Reply, end_children, run_remote, store_chunk
from bench.launch.worker import AGAIN, BUSY, Outcome, Task, record_failure
from bench.matrix import Job
from bench.measure.needs import Measure
from bench.store import DONE, Store

_CHUNK = 32 * 2**20
_AHEAD = 512  # jobs that the scheduler knows of at a time: what a job costs does not grow with how many there are
_LOST = 2  # how often a job's worker may be lost before the job has failed


def run_jobs(
    jobs: Sequence[Job], store: Store, client: Any, data_dir: Path | None = None, timeout: float | None = None,
    keep: Callable[[Job], tuple[str, ...]] = lambda job: (), fail_fast: bool = False,
    progress: Callable[[Outcome], None] = lambda outcome: None, data: Mapping[tuple[str, str], str] | None = None,
    measures: Callable[[Job], tuple[Measure, ...]] = lambda job: (), say: Callable[[str], None] = lambda line: None,
    expected: Mapping[str, float] | None = None, bring_back: bool = False, send_data: bool = False,
    engine: str = "auto", memory: Mapping[str, float] | None = None, offers: Mapping[str, float] | None = None,
) -> list[Outcome]:
    """As bench.launch.local.run_jobs, on the workers of a Dask client. expected: config id -> seconds; the longest start
    first, and the scheduler hears how long they take. memory: config id -> bytes, which a job asks of workers that offer
    a resource MEMORY. offers: the resources of one worker, where none may be there yet. bring_back: workers do not see the results folder, this process writes it. send_data: a feature file that a
    worker's machine lacks is sent there, once."""
    _same_code(client)
    sweep_results(store.root)
    tasks = {
        j.id: Task(
            j, str(store.root.absolute()), str(data_dir.absolute()) if data_dir else None, None, timeout, keep(j),
            (data or {}).get((j.config.dataset, j.config.features)), measures(j), engine=engine,
        )
        for j in jobs
    }
    run = _Run(client, store, tasks, dict(expected or {}), bring_back, send_data, say, dict(memory or {}), offers or _offers(client))
    outcomes: list[Outcome] = []
    try:
        for outcome in run.outcomes():
            outcomes.append(outcome)
            progress(outcome)
            if fail_fast and outcome.status == "failed":
                break
    finally:
        run.stop()
    return outcomes


class _Run:
    def __init__(
        self, client: Any, store: Store, tasks: Mapping[str, Task], expected: Mapping[str, float], bring_back: bool,
        send_data: bool, say: Callable[[str], None], memory: Mapping[str, float], offers: Mapping[str, float],
    ) -> None:
        from distributed import as_completed

        self.client, self.store, self.tasks, self.expected = client, store, dict(tasks), expected
        self.bring_back, self.send_data, self.say = bring_back, send_data, say
        self.open: dict[Any, str] = {}  # future -> job id
        self.tries: dict[str, int] = {}
        self.sent: set[tuple[str, str]] = set()
        self.memory = memory
        self.resources = {"GPU": 1} if "GPU" in offers else {}
        self.room = 0.0 if self.resources else offers.get("MEMORY", 0.0)  # bytes; on a GPU's worker, a job's are on the GPU
        _say_how_long(client, {_length(s) for s in expected.values()})
        self.done = as_completed([], loop=client.loop)

    def outcomes(self):
        """Every job's outcome, as it ends."""
        waiting = deque(sorted(self.tasks, key=lambda i: -self._seconds(i)))
        while waiting or self.open:
            while waiting and len(self.open) < _AHEAD:
                self._submit(waiting.popleft())
            future = next(self.done)
            job_id = self.open.pop(future)
            outcome = self._heard(job_id, future)
            if outcome is not None:
                yield outcome

    def _submit(self, job_id: str) -> None:
        task = self.tasks[job_id]
        seconds = self._seconds(job_id)
        future = self.client.submit(
            run_remote, task, self.bring_back, key=f"{_prefix(_length(seconds))}-{job_id}-{uuid.uuid4().hex[:8]}", pure=False,
            priority=seconds, resources=self._asked(task.job) or None,
        )
        self.open[future] = job_id
        self.done.add(future)

    def _seconds(self, job_id: str) -> float:
        return self.expected.get(self.tasks[job_id].job.config.id, 0.0)

    def _asked(self, job: Job) -> dict[str, float]:
        """Resources that a job asks of its worker; never more memory than the largest worker has, so that every job runs
        somewhere."""
        size = min(self.memory.get(job.config.id, 0.0), self.room)
        return {**self.resources, **({"MEMORY": size} if size else {})}

    def _heard(self, job_id: str, future: Any) -> Outcome | None:
        task = self.tasks[job_id]
        if future.status == "error":
            return self._lost(job_id, future.exception())
        if future.status != "finished":
            raise BenchError("the Dask scheduler is gone; finished jobs are kept, the same command continues once there is one")
        reply: Reply = future.result()
        outcome = reply.outcome
        if outcome.status == BUSY:
            self._submit(job_id)
        elif outcome.status == NO_DATA and self.send_data:
            self._send(task, future)
            self._submit(job_id)
        elif outcome.status == NO_DATA:
            error = f"{outcome.error}; set BENCH_DATA on the workers, or give --send-data"
            self._record(task, error, "DataError")
            return replace(outcome, status="failed", error=error)
        elif outcome.status == AGAIN:
            self.say(f"{job_id}: {outcome.error}; it will run once more")
            self.tasks[job_id] = replace(task, alone=True)
            self._submit(job_id)
        else:
            if outcome.status == "failed" and not self.bring_back and self.store.status(task.job) not in (DONE, "failed"):
                self._record(task, outcome.error, "WorkerKilled")
            return self._kept(task, reply) if self.bring_back else outcome
        return None

    def _lost(self, job_id: str, error: BaseException) -> Outcome | None:
        """Its worker is gone, or the call itself failed there."""
        task = self.tasks[job_id]
        self.tries[job_id] = self.tries.get(job_id, 0) + 1
        killed = type(error).__name__ == "KilledWorker"
        if not killed and self.tries[job_id] < _LOST:
            self._submit(job_id)
            return None
        words = "its workers were lost in it, twice" if killed else f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        self._record(task, words, "WorkerLost")
        return Outcome(task.job, "failed", 0.0, words)

    def _record(self, task: Task, error: str, kind: str) -> None:
        with contextlib.suppress(BenchError):  # a full disk: the outcome says that it failed
            record_failure(task, error, kind)

    def _kept(self, task: Task, reply: Reply) -> Outcome:
        """Write a job's files that came as bytes, by rename and as its owner."""
        outcome, folder = reply.outcome, self.store.folder(task.job)
        owned = owner.take(self.store.lock(task.job))
        if owned is None:
            return replace(outcome, status="failed", error=f"{owner.holder(self.store.lock(task.job))} has {folder}")
        with owned:
            if self.store.status(task.job) == DONE and outcome.status != "done":
                return outcome
            new = Path(tempfile.mkdtemp(prefix=f".{task.job.id}.", suffix=".new", dir=folder.parent))
            try:
                for name, content in (reply.files or {}).items():
                    (new / name).write_bytes(content)
                put_in_place(new, folder)
            except OSError as e:
                return replace(outcome, status="failed", error=f"cannot write {folder}: {e.strerror}")
            finally:
                shutil.rmtree(new, ignore_errors=True)
        return outcome

    def _send(self, task: Task, future: Any) -> None:
        """Send the feature file of a task to the machine that lacked it, in pieces."""
        c, sha = task.job.config, task.data_sha256 or ""
        host, path = future.result().host, locate(c.dataset, c.features, task.data_dir)
        if path is None or (host, sha) in self.sent:
            raise BenchError(f"{host}: no data of {c.dataset}, and none to send from {task.data_dir}")
        names = self.client.run(_hostname)
        address = next((a for a, h in names.items() if h == host), None)
        if address is None:
            return  # that machine has left meanwhile
        if path.name == "label.csv":
            raise BenchError(f"{path}: a folder of sounds is not sent; put it on the workers and set BENCH_DATA there")
        self.say(f"sending {path.name} to {host}")
        name, size, offset = str(path.relative_to(task.data_dir or path.parent)), path.stat().st_size, 0
        with open(path, "rb") as f:
            while piece := f.read(_CHUNK):
                last = offset + len(piece) >= size
                self.client.run(store_chunk, sha, name, offset, piece, last, workers=[address])
                offset += len(piece)
        self.sent.add((host, sha))

    def stop(self) -> None:
        """Cancel what is queued and end what runs."""
        if not self.open:
            return
        with contextlib.suppress(Exception):
            self.client.cancel(list(self.open), force=True)
            self.client.run(end_children)
        sweep_results(self.store.root)


def _hostname() -> str:
    import socket

    return socket.gethostname()


def _offers(client: Any) -> dict[str, float]:
    """The resources that workers offer, each as the most that one of them has."""
    found: dict[str, float] = {}
    for w in client.scheduler_info(n_workers=-1)["workers"].values():
        for name, amount in (w.get("resources") or {}).items():
            found[name] = max(float(amount), found.get(name, 0.0))
    return found


def _length(seconds: float) -> int:
    """Expected seconds of a job, as a power of two: jobs of one length share a kind of task on the scheduler."""
    return 2 ** max(0, round(math.log2(max(seconds, 1.0))))


def _prefix(length: int) -> str:
    """The kind of task, by the beginning of its keys, as dask.utils.key_split reads it."""
    return f"bench{length}s"


def _say_how_long(client: Any, lengths: set[int]) -> None:
    """Tell the scheduler how long each kind of task takes, before it has seen one: an adaptive cluster grows by that, and
    work is not stolen from one worker by another for nothing. A scheduler that cannot be told does without."""
    durations = {_prefix(n): f"{n}s" for n in lengths}

    def told(durations: dict[str, str]) -> None:
        import dask

        key = "distributed.scheduler.default-task-durations"
        dask.config.set({key: {**dask.config.get(key, {}), **durations}})

    with contextlib.suppress(Exception):
        client.run_on_scheduler(told, durations)


def _code() -> str:
    from bench import environment

    return str(environment.code()["code_hash"])


def _same_code(client: Any) -> None:
    """Raises BenchError where the workers that are there cannot import the harness or have another version of it."""
    mine = _code()
    try:
        theirs = client.run(_code, on_error="return")
    except Exception as e:  # noqa: BLE001 - whatever a foreign scheduler answers
        raise BenchError(f"the workers cannot be asked: {type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}") from None
    for address, found in theirs.items():
        if isinstance(found, BaseException):
            raise BenchError(f"worker {address} cannot import this package ({type(found).__name__}: {found}); install it there")
        if found != mine:
            raise BenchError(f"worker {address} has another version of this package (code {found[:12]}, here {mine[:12]}); install the same one")
