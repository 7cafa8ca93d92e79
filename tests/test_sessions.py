"""Runs that can be looked at and stopped from elsewhere: `run --detach`, `status`, `cancel`."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.cli import main
from bench.launch import owner
from bench.launch.sessions import DONE, LOST, RUNNING, STOPPED, cancel, held, session, sessions
from bench.launch.worker import Outcome
from bench.matrix import Job
from bench.store import Store
from tests.golden import cell_config

ROOT = Path(__file__).parents[1]


def outcome(status, seed=1111, error=""):
    return Outcome(Job(cell_config("lmf", "none"), seed), status, 2.0, error)


def test_a_session_counts_what_it_hears_and_ends_as_it_ended(tmp_path):
    store = Store(tmp_path)
    with session(store, ["bench", "run", "x y"], "local", 3) as now:
        assert [s.state for s in sessions(store)] == [RUNNING]
        now.heard(outcome("done"))
        now.heard(outcome("failed", 1112, "no such thing"))
    (s,) = sessions(store)
    assert (s.state, s.done, s.failed, s.left, s.command) == (DONE, 1, 1, 1, "bench run 'x y'")
    assert s.failures == ("synthetic-mosi lmf+none seed 1112: no such thing",)
    with pytest.raises(KeyboardInterrupt), session(store, ["y"], "local", 1):
        raise KeyboardInterrupt
    assert [s.state for s in sessions(store)] == [DONE, STOPPED]


def test_a_session_whose_process_is_gone_is_lost(tmp_path):
    store = Store(tmp_path)
    with session(store, ["x"], "local", 1) as now:
        path = now.path
        text = json.loads(path.read_text())
        path.write_text(json.dumps({**text, "pid": 2**22 + 5}))
        assert [s.state for s in sessions(store)] == [LOST]
        path.write_text(json.dumps({**text, "host": "elsewhere/x/y"}))
        assert [s.state for s in sessions(store)] == [RUNNING]  # its heartbeat is fresh
        os.utime(path, (time.time() - 500, time.time() - 500))
        assert [s.state for s in sessions(store)] == [LOST]


@pytest.mark.parametrize("content", [b"", b"null", b"5", b"{}", b'{"id": 3}', b"{cut"])
def test_damaged_session_files_are_passed_over(tmp_path, content):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "x.json").write_bytes(content)
    assert sessions(Store(tmp_path)) == []


def test_nothing_to_cancel_is_one_line(tmp_path, capsys):
    assert main(["cancel", "--results", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "nothing is running" in err and err.count("\n") == 1
    assert main(["status", "--results", str(tmp_path / "no")]) == 2


def test_jobs_in_training_are_seen_with_their_last_line(tmp_path):
    store, job = Store(tmp_path), outcome("done").job
    with owner.take(store.lock(job)):
        store.begin(job)
        store.tell(job, "epoch 7 train 1.0 valid 1.1")
        (h,) = held(store)
        assert h.cell == "synthetic-mosi/lmf+none" and h.job_id == job.id and h.line == "epoch 7 train 1.0 valid 1.1"
        assert h.host.startswith(f"process {os.getpid()} on ")
    assert held(store) == []


def test_a_finished_job_keeps_no_live_line(tmp_path):
    from bench.job import run

    store, job = Store(tmp_path), Job(cell_config("lmf", "none").with_(fraction=0.2), 1111)
    run(job, store, report=lambda line: store.tell(job, line))
    assert "live.txt" not in {p.name for p in store.folder(job).iterdir()}


@pytest.mark.parametrize(("flags", "line"), [
    (["--scheduler", "tcp://x:1"], "go with --executor dask"), (["--partition", "gpu"], "go with --executor slurm"),
    (["--results-on", "caller"], "go with --executor dask"),
])
def test_cluster_flags_without_a_cluster_are_one_line(tmp_path, flags, line, capsys):
    assert main(["run", "msmix-t1", "--only", "synthetic-mosi/lmf+none", "--results", str(tmp_path), *flags]) == 2
    err = capsys.readouterr().err
    assert line in err and err.count("\n") == 1


@pytest.mark.slow
def test_detach_status_cancel_and_go_on(tmp_path):
    def bench(*arguments):
        return subprocess.run([sys.executable, "-m", "bench", *arguments, "--results", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)

    what = ["run", "msmix-t1", "--only", "synthetic-mosi/lmf+*", "--seeds", "4", "--workers", "1"]
    began = bench(*what, "--detach")
    assert began.returncode == 0 and "began" in began.stdout, began.stdout + began.stderr
    store = Store(tmp_path)
    until = time.time() + 120
    while not list(tmp_path.glob("*/*/*/metrics.json")) and time.time() < until:
        time.sleep(0.2)
    assert "running" in bench("status").stdout
    asked = cancel(store)
    while any(s.state == RUNNING for s in sessions(store)) and time.time() < until:
        time.sleep(0.2)
    assert [s.state for s in sessions(store)] == [STOPPED] and asked[0].total >= 6
    done = len(list(tmp_path.glob("*/*/*/metrics.json")))
    assert 1 <= done < asked[0].total
    assert bench(*what).returncode == 0
    assert sessions(store)[-1].done == asked[0].total - done


@pytest.mark.slow
def test_a_detached_run_that_cannot_begin_says_why(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "bench", "run", "msmix-t1", "--set", "lr=3", "--detach", "--results", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True,
    )
    assert found.returncode == 2 and "--set cannot change 'lr'" in found.stdout


def _watched(tmp_path, monkeypatch, more=lambda look: None):
    """Lines that `report --watch` says on a folder with one result of two; `more` is called at every rendering."""
    from bench import rendering
    from tests.test_store import finish, job

    store, here, other = Store(tmp_path), job(1111), job(1112)
    finish(store, here)
    said, looks = [], []

    def render(*arguments, **part):
        looks.append(None)
        more(len(looks))
        return tmp_path / "index.html"

    monkeypatch.setattr(rendering, "report", render)
    monkeypatch.setattr(rendering, "as_run", lambda *arguments: (["an artefact"], []))
    monkeypatch.setattr(rendering, "expand", lambda chosen, seeds: [here, other])
    rendering.watch(0.01, results=tmp_path, say=said.append)
    return said


def test_a_watched_report_ends_when_nothing_runs_and_nothing_can(tmp_path, monkeypatch):
    said = _watched(tmp_path, monkeypatch)
    assert [line.split(":")[0] for line in said] == ["1 of 2 ended"] * 2 + ["nothing runs any more"]


def test_a_watched_report_goes_on_while_somebody_runs(tmp_path, monkeypatch):
    with contextlib.ExitStack() as running:
        running.enter_context(session(Store(tmp_path), ["bench"], "local", 1))
        said = _watched(tmp_path, monkeypatch, lambda look: running.close() if look == 5 else None)
    assert said[:-1] == [said[0]] * 7 and "nothing runs any more: 1 job has no result" in said[-1]


def test_a_watched_report_ends_with_the_last_job(tmp_path, monkeypatch):
    from tests.test_store import finish, job

    said = _watched(tmp_path, monkeypatch, lambda look: finish(Store(tmp_path), job(1112)) if look == 2 else None)
    assert len(said) == 2 and said[1].startswith("2 of 2 ended")
