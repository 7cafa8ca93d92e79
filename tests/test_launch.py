"""Workers: one failing or killed job never stops the others, and nothing finished is lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from bench.errors import BenchError
from bench.experiments import select
from bench.experiments.common import config
from bench.launch.local import device_slots, run_jobs
from bench.matrix import Job
from bench.plan import make_plan
from bench.running import timed
from bench.store import Store, read_json
from bench.suites import suite

ROOT = Path(__file__).parents[1]


def quick_job(seed=1111, mixer="none", **train):
    base = config("msmix", "lmf", "mosi", mixer)
    return Job(base.with_(dataset="synthetic-mosi", train={"max_epochs": 2, **train}), seed)


def test_slots():
    assert device_slots([0, 1], 2, None) == ("0", "1", "0", "1")
    assert device_slots([0, 1], 2, 3) == ("0", "1", "0")
    assert device_slots([], 1, 3) == ("", "", "")
    with pytest.raises(BenchError, match="at least 1"):
        device_slots([], 1, 0)


def test_a_failing_job_a_timeout_and_a_good_job_side_by_side(tmp_path):
    store = Store(tmp_path)
    good = quick_job()
    bad = Job(good.config.with_(backbone_params={"rank": "three"}), 1111)
    unknown = Job(good.config.with_(train={"no_such_setting": 1}), 1111)
    slow = quick_job(max_epochs=100_000, patience=100_000)
    seen = []
    outcomes = run_jobs([bad, unknown, slow, good], store, ("", ""), timeout=25.0, progress=seen.append)
    status = {o.job: o for o in outcomes}
    assert len(seen) == 4 and status[good].status == "done"
    assert [status[j].status for j in (bad, unknown, slow)] == ["failed"] * 3
    assert "unknown parameter 'no_such_setting'" in status[unknown].error
    assert read_json(store.folder(slow) / "failed.json")["error"] == "ran past --timeout 25 s"
    assert "Traceback" in (store.folder(bad) / "log.txt").read_text()
    assert not any((store.folder(j) / "metrics.json").exists() for j in (bad, unknown, slow))


def test_a_job_that_another_launcher_finished_is_not_run_again(tmp_path):
    store, job = Store(tmp_path), quick_job()
    here = {("synthetic-mosi", "unaligned"): "aa"}
    split = {"non0_acc2": 0.5}
    store.begin(job)
    store.finish(job, {"valid": split, "test": split, "best_epoch": 1, "epochs": 1, "n": {}}, pd.DataFrame([{"epoch": 1}]), {}, {"data_sha256": "aa"}, [])
    assert [o.status for o in run_jobs([job], store, ("",), data=here)] == ["done"]
    assert read_json(store.folder(job) / "metrics.json")["test"] == split, "left as it was"
    assert [o.status for o in run_jobs([job], store, ("",), data={k: "bb" for k in here})] == ["done"]
    assert "loss" in read_json(store.folder(job) / "metrics.json")["test"], "stale: run again"


def test_a_timed_job_runs_after_the_others_with_its_device_for_itself(tmp_path):
    """And says so; where a run has one place, every job has."""
    store, timed, *others = Store(tmp_path), *(quick_job(s) for s in (1111, 1112, 1113))
    assert [o.status for o in run_jobs([timed, *others], store, ("", ""), apart={timed}.__contains__)] == ["done"] * 3
    assert [store.entry(j).env["alone"] for j in (timed, *others)] == [True, False, False]
    written = [(store.folder(j) / "metrics.json").stat().st_mtime for j in (timed, *others)]
    assert (store.folder(timed) / "job.json").stat().st_mtime >= max(written[1:]), "it began when they had ended"
    run_jobs([quick_job(1114)], store, ("",))
    assert store.entry(quick_job(1114)).env["alone"] is True


def test_the_jobs_that_are_timed_are_those_of_tables_of_times():
    found = timed(select(()))
    assert {(j.config.dataset, j.config.backbone, j.seed) for j in found} == {("mosei", "ithp", 1111), ("mosei", "samlml", 1111)} and len(found) == 3
    plan = make_plan(select(("samlml-t8",)), suite("quick"), Store("results"))  # which has two seeds for each
    assert timed(plan.experiments, plan.n_seeds) == set(plan.jobs) and len(plan.jobs) == 6


@pytest.fixture
def bench(tmp_path):
    """Start the command line in a process group of its own, which is gone when the test ends, however it ends."""
    started = []

    def start(*arguments, results):
        p = subprocess.Popen(
            [sys.executable, "-m", "bench", *arguments, "--results", str(results)], cwd=ROOT, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        started.append(p)
        return p

    yield start
    for p in started:
        try:
            os.killpg(p.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        p.wait()
        p.stdout.close()


def wait_for(condition, seconds=240):  # a busy machine takes its time
    end = time.time() + seconds
    while time.time() < end:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("timed out waiting")


def workers_of(pid):
    """Worker processes: children of the launcher."""
    out = subprocess.run(["ps", "-eo", "pid,ppid,comm"], capture_output=True, text=True).stdout.splitlines()[1:]
    rows = [line.split(None, 2) for line in out]
    return [int(p) for p, parent, name in rows if int(parent) == pid and name == "bench-worker"]


ONE_CELL = ("--only", "synthetic-mosi/lmf+none", "--seeds", "3")


def test_killed_worker_is_replaced_and_killed_launcher_resumes(tmp_path, bench):
    long = ("--set", "train.max_epochs=40", "--set", "train.patience=40")
    p = bench("run", "msmix-t1", *ONE_CELL, *long, "--workers", "1", results=tmp_path)
    wait_for(lambda: list(tmp_path.glob("*/*/*/job.json")))  # in the folder that it is trained in
    workers = workers_of(p.pid)
    assert len(workers) == 1
    os.kill(workers[0], signal.SIGKILL)  # kill -9 in mid-job
    wait_for(lambda: len(list(tmp_path.glob("*/*/[!.]*/metrics.json"))) >= 1)
    os.killpg(p.pid, signal.SIGKILL)  # now the launcher and everything below it
    p.wait()
    done = {f: f.stat().st_mtime_ns for f in tmp_path.glob("*/*/[!.]*/metrics.json")}
    again = bench("run", "msmix-t1", *ONE_CELL, *long, "--workers", "1", results=tmp_path)
    out, _ = again.communicate(timeout=400)
    assert again.returncode == 0, out
    assert len(list(tmp_path.glob("*/*/[!.]*/metrics.json"))) == 3
    assert all(f.stat().st_mtime_ns == t for f, t in done.items()), "finished jobs must not run again"
    assert f"{len(done)} were done before" in out


@pytest.mark.parametrize("stop", [
    lambda pid: os.killpg(pid, signal.SIGINT),  # Ctrl-C reaches the whole group
    lambda pid: os.kill(pid, signal.SIGTERM),  # a scheduler tells the launcher alone
])
def test_ctrl_c_says_how_to_resume(tmp_path, bench, stop):
    p = bench("run", "msmix-t1", *ONE_CELL, "--set", "train.max_epochs=5000", "--set", "train.patience=5000", "--workers", "1", results=tmp_path)
    wait_for(lambda: list(tmp_path.glob("*/*/*/job.json")))
    workers = workers_of(p.pid)
    assert len(workers) == 1
    stop(p.pid)
    out, _ = p.communicate(timeout=60)
    wait_for(lambda: not [w for w in workers if Path(f"/proc/{w}").exists()], seconds=20)  # none is left behind
    assert p.returncode == 130 and "the same command continues" in out and "Traceback" not in out
    assert not list(tmp_path.glob("*/*/[!.]*/metrics.json")) and not list(tmp_path.glob("*/*/*/failed.json"))
