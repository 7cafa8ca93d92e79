"""Local launcher: processes on this machine, one thread each on CPU, slots on GPUs.

A launcher is a function of a job list: `run_jobs(jobs, store, ...) -> list[Outcome]`, and a dry run is just one more
launcher. One failing job never stops the others. A worker that dies is replaced and the job it ran becomes a suspect:
suspects run last and alone on their device, and one whose worker dies again there has failed. So it is with a job that
ran out of memory, or whose GPU failed, beside others. Jobs whose times a table shows run alone from the start. Each ended
job costs the launcher the same, however many there are.
"""

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path

from bench.errors import BenchError
from bench.launch.litter import sweep_results
from bench.launch.process import Worker
from bench.launch.worker import AGAIN, BUSY, Outcome, Task, record_failure, sweep
from bench.matrix import Job
from bench.measure.needs import Measure
from bench.store import Store

SEATS = 16  # jobs at once that a GPU is offered where nobody says how many; company.py takes as many as pay (its MOST)
_POLL = 2.0  # seconds after which a job that another run has is asked for again


def device_slots(gpus: Sequence[int], per_gpu: int, workers: int | None) -> tuple[str, ...]:
    """One entry per worker: the value of its CUDA_VISIBLE_DEVICES ("" on CPU).

    With GPUs: per_gpu on each, which share a process (company.py). Without: `workers`, by default one per core.
    """
    if per_gpu < 1 or (workers is not None and workers < 1):
        raise BenchError("--workers and --per-gpu must be at least 1")
    if gpus and min(gpus) < 0:
        raise BenchError(f"--gpus takes numbers from 0, got {min(gpus)}")
    if len(set(gpus)) != len(gpus):
        raise BenchError("--gpus names a GPU twice; --per-gpu N puts several workers on each")
    if gpus:
        slots = tuple(str(g) for _ in range(per_gpu) for g in gpus)
        return slots[:workers] if workers else slots
    return ("",) * (workers or len(os.sched_getaffinity(0)))


def run_jobs(
    jobs: Sequence[Job], store: Store, slots: Sequence[str], data_dir: Path | None = None, timeout: float | None = None,
    keep: Callable[[Job], tuple[str, ...]] = lambda job: (), fail_fast: bool = False,
    progress: Callable[[Outcome], None] = lambda outcome: None, data: Mapping[tuple[str, str], str] | None = None,
    measures: Callable[[Job], tuple[Measure, ...]] = lambda job: (), say: Callable[[str], None] = lambda line: None,
    engine: str = "auto", apart: Callable[[Job], bool] = lambda job: False,
    more: Callable[[Job], Sequence[Job]] = lambda job: (),
) -> list[Outcome]:
    """Run jobs in worker processes; `progress` is called as each ends, `say` hears why one is put off. Ctrl-C ends the
    workers and is re-raised: finished jobs are kept, and the same call continues. `data`: (dataset, features) -> sha256
    of the file at hand. A job that another run on the same results has is waited for, and not run again once it is
    done. `measures`: what to compute from a job's weights, right after its training in the same worker; a job that is
    done and lacks them is given for them alone. `apart`: jobs that get their device for themselves, after all others (on
    the CPU, the machine): those that are timed. `more`: jobs that a job's end gives rise to, asked for before `progress`
    hears of it."""
    def task(j: Job) -> Task:
        return Task(
            j, str(store.root), str(data_dir) if data_dir else None, "", timeout, keep(j),
            (data or {}).get((j.config.dataset, j.config.features)), measures(j), engine=engine, alone=apart(j),
        )

    sweep_results(store.root)
    outcomes: list[Outcome] = []
    with _Pool(slots) as pool:
        pool.put(map(task, jobs))
        for outcome in pool.run(say):
            outcomes.append(outcome)
            pool.put(map(task, more(outcome.job)))
            progress(outcome)
            if fail_fast and outcome.status == "failed":
                break
    return outcomes


class _Pool:
    """Workers on slots, and what is still to be run. Leaving it kills the workers and removes what they had begun."""

    def __init__(self, slots: Sequence[str]) -> None:
        self.queue: deque[Task] = deque()
        self.apart: deque[Task] = deque()  # to be run alone: they are timed, or died, or starved, beside others
        self.again: set[str] = set()  # jobs that had a worker die before
        self.places = {d: slots.count(d) for d in slots}
        self.elsewhere: deque[tuple[float, Task]] = deque()  # when to ask again, what another run has
        self.idle: list[Worker] = []
        self.free = list(reversed(slots))  # slots without a worker
        self.running: dict[object, Worker] = {}  # by connection
        self.waited = False  # whether any job was found to be another run's

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, *_: object) -> None:
        workers = [*self.idle, *self.running.values()]
        for w in workers:
            w.kill()
        for w in workers:
            task = w.task
            w.end()
            if task is not None:
                sweep(task.results, task.job)

    def put(self, tasks: Iterable[Task]) -> None:
        for t in tasks:
            (self.apart if t.alone else self.queue).append(t)

    def run(self, say: Callable[[str], None]) -> Iterator[Outcome]:
        """Every task's outcome, as it ends; tasks that are put in meanwhile, too."""
        while self.queue or self.apart or self.elsewhere or self.running:
            while (task := self._next()) is not None:
                yield from self._start(task, say)
            for connection in wait(list(self.running), self._patience()):
                yield from self._hear(self.running[connection], say)
            for w in [w for w in self.running.values() if w.overdue()]:
                yield from self._hung(w)

    def _patience(self) -> float | None:
        """Seconds until something is due though nobody says anything."""
        now = time.monotonic()
        due = [w.deadline for w in self.running.values() if w.deadline is not None]
        due += [t for t, _ in list(self.elsewhere)[:1]]
        return max(0.0, min(due) - now) + 0.01 if due else None

    def _next(self) -> Task | None:
        """The task to start now, on the device that `_start` will give it; None where none can be."""
        alone = {w.device for w in self.running.values() if w.task.alone}
        open_slots = [d for d in (*(w.device for w in self.idle), *self.free) if d not in alone]
        if not open_slots:
            return None
        if self.queue:
            return self._on(self.queue.popleft(), open_slots[0])
        if self.elsewhere and (self.elsewhere[0][0] <= time.monotonic()):
            task = self.elsewhere.popleft()[1]
            if not task.alone:
                return self._on(task, open_slots[0])
            self.apart.append(task)
        if self.apart:
            busy = {w.device for w in self.running.values()}
            for device in open_slots:
                if device not in busy:
                    return replace(self.apart.popleft(), device=device, alone=True, only=True)
        return None

    def _on(self, task: Task, device: str) -> Task:
        return replace(task, device=device, only=self.places[device] == 1)

    def _start(self, task: Task, say: Callable[[str], None]) -> Iterator[Outcome]:
        for w in [i for i in self.idle if i.process.poll() is not None]:  # its process died with another's task
            self.idle.remove(w)
            w.end()
            self.free.append(w.device)
        for w in self.idle:
            if w.device == task.device and not (task.alone and task.device):
                self.idle.remove(w)
                break
        else:
            w = self._worker(task)
        self.running[w.connection] = w
        try:
            w.send(task)
        except OSError:
            yield from self._died(w, say)

    def _worker(self, task: Task) -> Worker:
        """A new worker on a device; where several share a GPU, one process for all of them (company.py). A suspect has
        a process of its own, and the device for itself: the others' is ended."""
        if task.alone and task.device:
            for idle in [i for i in self.idle if i.device == task.device]:
                self.idle.remove(idle)
                idle.end()
                self.free.append(idle.device)
        seats = self.free.count(task.device) if task.device and not task.alone else 1
        self.free.remove(task.device)
        w = Worker(task.device, seats)
        for other in w.others:
            self.free.remove(task.device)
            self.idle.append(other)
        return w

    def _hear(self, w: Worker, say: Callable[[str], None]) -> Iterator[Outcome]:
        task = w.task
        try:
            outcome = w.receive()
        except (EOFError, OSError):
            yield from self._died(w, say)
            return
        if outcome is None:
            return
        del self.running[w.connection]
        if outcome.spent:
            w.end()
            self.free.append(w.device)
        else:
            self.idle.append(w)
        if outcome.status == BUSY:
            if not self.waited:
                say(f"{_named(task)}: {outcome.error}; what other runs have is waited for")
            self.waited = True
            self.elsewhere.append((time.monotonic() + _POLL, task))
        elif outcome.status == AGAIN:
            say(f"{_named(task)}: {outcome.error}; it will run again with its device for itself")
            self.apart.append(task)
        else:
            yield outcome

    def _died(self, w: Worker, say: Callable[[str], None]) -> Iterator[Outcome]:
        """Its worker is gone, and nothing else was running there: the job that it ran is the one to look at."""
        task = self._remove(w)
        how = w.end()
        if not task.alone:
            say(f"{_named(task)}: its worker {how}; it will run again with its device for itself")
            sweep(task.results, task.job)
            self.again.add(task.job.id)
            self.apart.append(task)
            return
        times = " twice, the second time" if task.job.id in self.again else ""
        yield from self._charge(task, f"its worker {how}{times} alone on its device (out of memory?)", "WorkerKilled")

    def _hung(self, w: Worker) -> Iterator[Outcome]:
        task = self._remove(w)
        w.kill()
        w.end()
        error = f"ran past --timeout {task.timeout:g} s and did not answer; its worker was ended"
        yield from self._charge(task, error, "JobTimeout")

    def _remove(self, w: Worker) -> Task:
        del self.running[w.connection]
        self.free.append(w.device)
        return w.task

    def _charge(self, task: Task, error: str, kind: str) -> Iterator[Outcome]:
        with contextlib.suppress(BenchError):  # a full disk: the outcome says that it failed
            if not record_failure(task, error, kind):
                self.elsewhere.append((time.monotonic() + _POLL, task))
                return
        yield Outcome(task.job, "failed", 0.0, error)


def _named(task: Task) -> str:
    c = task.job.config
    return f"{c.dataset} {c.backbone}+{c.mixer} seed {task.job.seed}"
