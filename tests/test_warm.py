"""Workers forked from a warm process are workers like any other: same numbers, same ends, nobody left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.launch import process, warm
from bench.launch.process import Worker
from bench.launch.worker import Task
from bench.store import Store
from tests.test_launch import quick_job, wait_for
from tests.test_store import finish

pytestmark = pytest.mark.skipif(not warm.enabled, reason="this system has no warm starts")
ROOT = Path(__file__).parents[1]


@pytest.fixture
def worker():
    w = Worker("")
    assert isinstance(w.process, warm.Forked)
    yield w
    w.kill()
    w.end()


def children(pid):
    out = subprocess.run(["ps", "-eo", "pid,ppid,stat"], capture_output=True, text=True).stdout.splitlines()[1:]
    return [int(p) for p, parent, state in map(str.split, out) if int(parent) == pid and state[0] != "Z"]


def test_it_is_this_processs_child_with_its_present_paths_and_environment(worker, tmp_path, monkeypatch):
    assert worker.process.pid in children(os.getpid())
    job = quick_job()
    finish(Store(tmp_path / "results"), job)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    here = Worker("")
    try:
        deadline = time.time() + 30
        while os.readlink(f"/proc/{here.process.pid}/cwd") != str(tmp_path) and time.time() < deadline:
            time.sleep(0.05)  # it moves there first of all
        assert os.readlink(f"/proc/{here.process.pid}/cwd") == str(tmp_path)
        here.send(Task(job, "results"))  # a path below the present folder
        assert here.receive().status == "done"
        here.send(Task(quick_job(seed=1112), "results"))
        assert here.receive().status == "done"
        assert (tmp_path / "cache").is_dir(), "generated data are cached where the environment says now"
    finally:
        here.kill()
        here.end()


def test_it_gives_the_bytes_of_one_that_was_started_afresh(worker, tmp_path):
    fresh = Worker("", fresh=True)
    try:
        assert isinstance(fresh.process, subprocess.Popen)
        job = quick_job(mixer="msmix")
        for w, name in ((worker, "warm"), (fresh, "fresh")):
            w.send(Task(job, str(tmp_path / name)))
            assert w.receive().status == "done"
    finally:
        fresh.kill()
        fresh.end()
    for name in ("metrics.json", "history.csv", "predictions.npz", "job.json"):
        a, b = (Store(tmp_path / where).folder(job) / name for where in ("warm", "fresh"))
        assert a.read_bytes() == b.read_bytes(), name


def test_its_end_is_told_as_it_was():
    for sent, said in ((signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGTERM, "was killed by SIGTERM")):
        w = Worker("")
        assert w.process.poll() is None
        os.kill(w.process.pid, sent)
        with pytest.raises((EOFError, OSError)):
            w.receive()
        assert w.end() == said and w.process.poll() == -sent
    w = Worker("")
    w.connection.close()  # the launcher lets go: the worker ends by itself
    assert w.process.wait(30) == 0
    w = Worker("")
    with pytest.raises(subprocess.TimeoutExpired):
        w.process.wait(0.01)
    w.kill()
    w.kill()
    assert w.end() == "was killed by SIGKILL"


def test_a_nursery_that_died_is_replaced_and_one_that_cannot_be_is_done_without(monkeypatch):
    warm._nursery.process.kill()
    warm._nursery.process.wait()
    first = Worker("")
    assert isinstance(first.process, warm.Forked)
    first.kill()
    first.end()
    with monkeypatch.context() as m:
        m.setattr(warm, "_nursery", None)
        m.setattr(warm, "_START", "import sys; sys.exit(3)")
        m.setattr(warm, "enabled", True)
        _fresh_only()


def _fresh_only():
    w = Worker("")
    assert isinstance(w.process, subprocess.Popen) and not warm.enabled
    w.kill()
    w.end()


def test_nobody_outlives_a_launcher_that_was_killed(tmp_path):
    code = "from bench.launch.process import Worker; import time; w = [Worker(''), Worker('')]; print(*(x.process.pid for x in w), flush=True); time.sleep(600)"
    p = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    workers = [int(n) for n in p.stdout.readline().split()]
    every = children(p.pid)
    assert len(workers) == 2 and set(workers) < set(every) and len(every) == 3, "two workers and their nursery"
    os.kill(workers[0], signal.SIGSTOP)  # even one that cannot listen
    p.kill()
    p.wait()
    p.stdout.close()
    wait_for(lambda: not [w for w in every if Path(f"/proc/{w}/stat").exists() and Path(f"/proc/{w}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"], 30)


def test_it_was_asked_for_ahead(monkeypatch):
    monkeypatch.setattr(warm, "_nursery", None)
    process.prepare()
    nursery = warm._nursery
    w = Worker("")
    assert warm._nursery is nursery and isinstance(w.process, warm.Forked)
    w.kill()
    w.end()
    warm.end()
    assert nursery.process.poll() is not None
