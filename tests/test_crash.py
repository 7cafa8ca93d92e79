"""Crashes, hangs and orphans: whoever is to blame is charged, nobody else, and nothing is left behind."""

import json
import os
import signal
import subprocess
import threading
import time
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.errors import BenchError
from bench.interpreter import command
from bench.launch import local, process, worker
from bench.launch.worker import AGAIN, BUSY, Outcome, Task
from bench.matrix import Job
from bench.store import Store, read_json
from tests.test_launch import ONE_CELL, bench, quick_job, wait_for, workers_of  # noqa: F401 - bench is a fixture


def owner_of(store, job):
    """The process that has a job now."""
    try:
        started = list(store.folder(job).parent.glob(f".{job.id}.*.new"))  # its time limit runs
        return json.loads(store.lock(job).read_text())["pid"] if started else None
    except (OSError, ValueError, KeyError):
        return None


def litter(root):
    return [p for p in root.rglob(".*") if p.parent.name != "plans" or p.name.endswith(".tmp")]


def in_background(call, *arguments, **more):
    found = []
    thread = threading.Thread(target=lambda: found.extend(call(*arguments, **more)))
    thread.start()
    return thread, found


def test_a_crash_is_charged_to_the_job_that_crashed_and_a_hang_is_ended_from_outside(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_GRACE", 1.0)
    store = Store(tmp_path)
    crashing, hanging = (quick_job(seed=s, max_epochs=100_000, patience=100_000) for s in (1111, 1112))
    fine = quick_job(seed=1113)
    said = []
    thread, found = in_background(local.run_jobs, [crashing, hanging, fine], store, ("", ""), timeout=25.0, say=said.append)
    killed, stopped = set(), set()
    while thread.is_alive():
        time.sleep(0.05)
        for job, sent, which in ((crashing, killed, signal.SIGKILL), (hanging, stopped, signal.SIGSTOP)):
            pid = owner_of(store, job)
            if pid is not None and pid not in sent and pid != os.getpid():
                sent.add(pid)
                os.kill(pid, which)
    thread.join()
    status = {o.job: o for o in found}
    assert len(found) == 3 and status[fine].status == "done", found
    assert len(killed) == 2 and "was killed by SIGKILL twice, the second time alone" in status[crashing].error
    assert len(stopped) == 1 and "ran past --timeout 25 s and did not answer" in status[hanging].error
    assert {store.status(j) for j in (crashing, hanging)} == {"failed"} and store.time_limit(hanging) == 25.0
    assert len(said) == 1 and "will run again with its device for itself" in said[0]
    assert not litter(tmp_path)


def test_workers_end_with_a_parent_that_was_killed_and_the_next_run_cleans_up(tmp_path, bench):  # noqa: F811
    long = ("--set", "train.max_epochs=5000", "--set", "train.patience=5000")
    p = bench("run", "msmix-t1", *ONE_CELL, *long, "--workers", "2", results=tmp_path)
    wait_for(lambda: len(list(tmp_path.glob("*/*/.*.new/job.json"))) == 2)
    workers = workers_of(p.pid)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGSTOP)  # even one that cannot listen
    os.kill(p.pid, signal.SIGKILL)
    p.wait()
    wait_for(lambda: not [w for w in workers if alive(w)], seconds=10)
    assert litter(tmp_path)
    # a killed process is dead before all of its threads have let go of its files
    wait_for(lambda: local.run_jobs([], Store(tmp_path), ("",)) == [] and not litter(tmp_path), seconds=10)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_worker_whose_launcher_is_gone_ends(tmp_path):
    mine, theirs = process.socket.socketpair()
    p = subprocess.Popen(
        command(process._START, str(theirs.fileno()), str(os.getpid())), pass_fds=[theirs.fileno()],
    )
    theirs.close()
    time.sleep(0.5)
    mine.close()
    assert p.wait(60) == 0


class Scripted:
    """A worker that answers what the script says, in order, and never starts a process."""

    script: dict = {}
    log: list = []

    def __init__(self, device, seats=1):
        self.device, self.task, self.deadline = device, None, None
        self.connection, self.other = Pipe()
        self.process = SimpleNamespace(ended=None, poll=lambda: self.process.ended)
        self.others = [self._seat(device) for _ in range(seats - 1)]

    def _seat(self, device):
        seat = Scripted(device)
        seat.process = self.process
        return seat

    def send(self, task):
        self.task = task
        busy = sum(w.task is not None for w in self.pool.running.values())
        self.log.append((task.job.seed, task.alone, busy))
        self.other.send(self.script[task.job.seed].pop(0))

    def receive(self):
        status, error, spent = self.connection.recv()
        job, self.task = self.task.job, None
        return Outcome(job, status, 0.0, error, spent)

    def overdue(self):
        return False

    def kill(self):
        pass

    def end(self):
        self.process.ended = 0
        return "ended"


def test_who_starved_runs_again_alone_and_who_is_elsewhere_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "Worker", Scripted)
    monkeypatch.setattr(local, "_POLL", 0.05)
    Scripted.script = {
        1: [(AGAIN, "CUDA out of memory", False), ("failed", "CUDA out of memory", False)], 2: [("done", "", False)],
        3: [(BUSY, "process 7 on x has it", False), (BUSY, "", False), ("done", "", False)],
        4: [(AGAIN, "CUDA error: an illegal memory access", True), ("done", "", False)],
    }
    Scripted.log = []
    said, tasks = [], [Task(Job(quick_job().config, s), str(tmp_path)) for s in (1, 2, 3, 4)]
    with local._Pool(("0", "0")) as pool:
        Scripted.pool = pool
        pool.queue.extend(tasks)
        outcomes = {o.job.seed: o.status for o in pool.run(said.append)}
    assert outcomes == {1: "failed", 2: "done", 3: "done", 4: "done"}
    again = [(s, busy) for s, alone, busy in Scripted.log if alone]
    assert sorted(again) == [(1, 1), (4, 1)], "each once, with nothing beside it"
    assert len([s for s, *_ in Scripted.log if s == 3]) == 3
    assert len(said) == 3 and "out of memory; it will run again with its device for itself" in said[0]


ACCELERATOR = getattr(torch, "AcceleratorError", RuntimeError)  # of torch from 2.8


@pytest.mark.parametrize(("error", "again", "spent"), [
    (MemoryError(), True, False), (RuntimeError("CUDA error: an illegal memory access was encountered"), True, True),
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True, False), (RuntimeError("shapes differ"), False, False),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True, False),
    (BenchError("training diverged"), False, False),
    (ACCELERATOR("CUDA error: out of memory"), True, False),  # of a graph, or of the host's pinned memory
    (ACCELERATOR("CUDA error: unspecified launch failure"), True, True),
    (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True, False),
])
def test_running_out_of_memory_is_a_failure_only_when_alone(tmp_path, monkeypatch, error, again, spent):
    def fail(job, store, *arguments, on, **more):
        store.fail(job, str(error), type(error).__name__, on=on)
        raise error

    monkeypatch.setattr("bench.job.running", fail)
    store, job = Store(tmp_path), quick_job()
    beside = worker.run_task(Task(job, str(tmp_path)))
    assert (beside.status, beside.spent) == (AGAIN if again else "failed", spent)
    assert store.status(job) == ("missing" if again else "failed")
    alone = worker.run_task(Task(job, str(tmp_path), alone=True))
    assert alone.status == "failed" == store.status(job) and not litter(tmp_path)


def test_a_full_disk_fails_the_job_in_the_outcome_and_leaves_nothing(tmp_path, monkeypatch):
    real = os.fsync

    def full(fd):
        if "lmf" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(28, "No space left on device")
        real(fd)

    monkeypatch.setattr(os, "fsync", full)
    outcome = worker.run_task(Task(quick_job(), str(tmp_path)))
    assert outcome.status == "failed" and outcome.error.startswith("disk full while writing")
    assert not litter(tmp_path) and Store(tmp_path).status(quick_job()) == "missing"


def test_a_failing_repetition_for_a_figure_leaves_the_finished_result(tmp_path, monkeypatch):
    from bench.measure import spec
    from bench.measure.needs import Measure

    monkeypatch.setattr(worker.signal, "setitimer", lambda *_: None)
    store, job, m = Store(tmp_path), quick_job(max_epochs=1), Measure("labels", {"bins": 3})
    assert worker.run_task(Task(job, str(tmp_path))).status == "done"
    before = {p.name: p.read_bytes() for p in store.folder(job).iterdir()}

    def fail(job, store, *arguments, on, **more):
        store.begin(job)
        store.fail(job, "boom", "ValueError", ["trace"], on=on)
        store.drop(job)
        raise ValueError("boom")

    monkeypatch.setattr("bench.job.running", fail)
    assert worker.run_task(Task(job, str(tmp_path), measures=(m,))).status == "failed"
    assert store.status(job) == "done" and spec.failure(store, job, m) == "labels: ValueError: boom"
    assert {n: (store.folder(job) / n).read_bytes() for n in before} == before
    assert read_json(store.folder(job) / "failed.json") is None


def test_a_job_that_another_process_has_is_waited_for_not_run_twice(tmp_path):
    store, job = Store(tmp_path), quick_job()
    mine = worker.owner.take(store.lock(job))
    assert worker.run_task(Task(job, str(tmp_path))).status == BUSY
    said = []
    thread, found = in_background(local.run_jobs, [job], store, ("",), say=said.append)
    wait_for(lambda: said)
    assert not found and f"process {os.getpid()} on" in said[0]
    mine.release()
    thread.join(60)
    assert [o.status for o in found] == ["done"]


@pytest.mark.slow
def test_a_full_shared_memory_loses_nothing(tmp_path):
    """/dev/shm without a byte to spare: workers here need none; a Dask cluster cannot start and says so in one line."""
    import shutil
    import sys

    inside = ["unshare", "-m", "bash", "-c", 'mount -t tmpfs -o size=16k tmpfs /dev/shm && head -c 16384 /dev/zero > /dev/shm/full && "$@"', "-"]
    if not shutil.which("unshare") or subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("a /dev/shm of one's own takes the rights to mount")
    run = [sys.executable, "-m", "bench", "run", "msmix-t1", *ONE_CELL[:2], "--seeds", "1", "--set", "train.max_epochs=1",
           "--results", str(tmp_path / "results")]
    refused = subprocess.run([*inside, *run, "--executor", "dask", "--workers", "1"], capture_output=True, text=True, timeout=300)
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr.strip().splitlines()[-1] == "bench: no Dask cluster starts on this machine: [Errno 28] No space left on device"
    done = subprocess.run([*inside, *run, "--workers", "2"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "results").rglob("metrics.json"))) == 1
