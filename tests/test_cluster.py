"""Dask executors on this machine: real schedulers and workers on loopback, killed and cut off on purpose."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

distributed = pytest.importorskip("distributed")

from bench.errors import BenchError  # noqa: E402
from bench.launch import cluster, dask_jobs, local  # noqa: E402
from bench.matrix import Job  # noqa: E402
from bench.store import DONE, Store  # noqa: E402
from tests.golden import cell_config  # noqa: E402

ROOT = Path(__file__).parents[1]
FILES = ("metrics.json", "history.csv", "job.json")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Dask's own warnings are not ours to mend


def jobs(n, epochs=2):
    c = cell_config("lmf", "none").with_(train={"max_epochs": epochs, "patience": epochs}, fraction=0.3)
    return [Job(c, 1111 + i) for i in range(n)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same jobs, run by the local launcher."""
    store = Store(tmp_path_factory.mktemp("local"))
    assert all(o.status == "done" for o in local.run_jobs(jobs(4), store, ("", "")))
    return store


def same(a, b, some):
    for j in some:
        for name in FILES:
            assert (a.folder(j) / name).read_bytes() == (b.folder(j) / name).read_bytes(), (j.id, name)


class Machines:
    """A scheduler and workers as a user starts them: `dask scheduler`, `dask worker`."""

    def __init__(self, folder, workers=2):
        self.folder, self.processes = folder, []
        port = self._scheduler()
        self.address = f"tcp://127.0.0.1:{port}"
        self.workers = [self.worker(i) for i in range(workers)]

    def _start(self, *arguments):
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__WORKER__DAEMON": "False"}
        log = open(self.folder / "machines.log", "ab")
        p = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]], env=env,
                             stdout=log, stderr=log, cwd=self.folder, start_new_session=True)
        self.processes.append(p)
        return p

    def _scheduler(self):
        import socket

        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        return port

    def worker(self, i):
        return self._start("worker", self.address, "--nthreads", "1", "--no-dashboard", "--name", f"w{i}", "--no-nanny",
                           "--local-directory", str(self.folder))

    def stop(self):
        for p in self.processes:
            try:
                os.killpg(p.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            p.wait()


@pytest.fixture
def machines(tmp_path):
    (tmp_path / "machines").mkdir()
    m = Machines(tmp_path / "machines")
    yield m
    m.stop()


def ready(client, n):
    client.wait_for_workers(n, timeout=60)


def test_a_cluster_on_this_machine_gives_the_same_bytes(tmp_path, alone):
    store, heard = Store(tmp_path / "r"), []
    with cluster.here(("", "")) as client:
        outcomes = dask_jobs.run_jobs(jobs(4), store, client, progress=heard.append)
    assert [o.status for o in outcomes] == ["done"] * 4 and len(heard) == 4
    same(store, alone, jobs(4))


def test_results_come_back_as_bytes_where_workers_do_not_see_the_folder(tmp_path, alone, machines):
    store = Store(tmp_path / "mine")
    with cluster.joined(machines.address) as client:
        ready(client, 2)
        outcomes = dask_jobs.run_jobs(jobs(3), store, client, bring_back=True)
    assert [o.status for o in outcomes] == ["done"] * 3
    same(store, alone, jobs(3))
    assert not list(store.root.rglob(".*")), "nothing temporary is left"


def test_a_worker_killed_in_a_job_costs_nothing_but_time(tmp_path, alone, machines):
    store, some = Store(tmp_path / "r"), jobs(4)
    killed = []

    def heard(outcome):
        if not killed:
            os.killpg(machines.workers[0].pid, signal.SIGKILL)
            killed.append(outcome)

    with cluster.joined(machines.address) as client:
        ready(client, 2)
        outcomes = dask_jobs.run_jobs(some, store, client, progress=heard)
    assert killed and sorted(o.job.id for o in outcomes) == sorted(j.id for j in some)
    assert all(o.status == "done" for o in outcomes)
    same(store, alone, some)


def test_a_lost_scheduler_is_one_line_and_the_same_call_goes_on(tmp_path, alone, machines):
    store, some = Store(tmp_path / "r"), jobs(4)

    def heard(outcome):
        os.killpg(machines.scheduler.pid, signal.SIGKILL)

    with pytest.raises(BenchError) as e, cluster.joined(machines.address) as client:
        ready(client, 2)
        dask_jobs.run_jobs(some, store, client, progress=heard)
    assert "\n" not in str(e.value) and "the same command continues" in str(e.value)
    machines.stop()
    with cluster.here(("", "")) as client:
        left = [j for j in some if store.status(j) != DONE]
        assert len(left) < 4
        dask_jobs.run_jobs(left, store, client)
    same(store, alone, some)


def test_failures_name_their_host_and_stop_nobody(tmp_path):
    store = Store(tmp_path / "r")
    bad = Job(jobs(1)[0].config.with_(backbone_params={"rank": -1}), 1111)
    with cluster.here(("",)) as client:
        outcomes = dask_jobs.run_jobs([bad, *jobs(1)], store, client)
    by = {o.job.id: o for o in outcomes}
    assert by[bad.id].status == "failed" and os.uname().nodename.split(".")[0] in by[bad.id].error
    assert by[jobs(1)[0].id].status == "done" and store.status(bad) == "failed"
    assert "Traceback" in (store.folder(bad) / "log.txt").read_text()


def test_nobody_answers(tmp_path):
    began = time.time()
    with pytest.raises(BenchError, match="no Dask scheduler answers at tcp://127.0.0.1:9") as e, cluster.joined("tcp://127.0.0.1:9"):
        pass
    assert "\n" not in str(e.value) and time.time() - began < 40


@pytest.mark.parametrize(("text", "line"), [
    ("time = '4h'", "hours:minutes:seconds"), ("tiem = 1", "unknown option 'tiem'"), ("x = [", "--cluster-config"),
])
def test_wrong_cluster_files_are_one_line(tmp_path, text, line):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(BenchError, match=line) as e:
        cluster.read_queue("slurm", tmp_path / "c.toml", {})
    assert "\n" not in str(e.value)


def test_flags_win_over_the_file(tmp_path):
    (tmp_path / "c.toml").write_text("partition = 'a'\ncores = 4\nsetup = 'module load x'\n")
    q = cluster.read_queue("slurm", tmp_path / "c.toml", {"partition": "b", "gpus": None})
    assert (q.partition, q.cores, q.setup) == ("b", 4, ("module load x",))


def test_the_scheduler_hears_how_long_jobs_take_and_what_memory_they_want(tmp_path, monkeypatch):
    short, long = jobs(1)[0], Job(jobs(1)[0].config.with_(train={"lr": 0.002}), 1111)
    store = Store(tmp_path / "r")
    monkeypatch.setattr(dask_jobs, "_AHEAD", 1)  # one after the other
    with cluster.here(("",)) as client:
        seen = client.run_on_scheduler
        outcomes = dask_jobs.run_jobs([short, long], store, client, expected={short.config.id: 3.0, long.config.id: 500.0})
        told = seen(lambda: __import__("dask").config.get("distributed.scheduler.default-task-durations"))
        prefixes = seen(lambda dask_scheduler: sorted(p for p in dask_scheduler.task_prefixes if p.startswith("bench")))
        sizes, room = {long.config.id: 1e15, short.config.id: 1e9}, {"MEMORY": 8e9}
        asking = dask_jobs._Run(client, store, {}, {}, False, False, print, sizes, room)
    assert [o.job for o in outcomes] == [long, short], "the longest first"
    assert told["bench4s"] == "4s" and told["bench512s"] == "512s" and prefixes == ["bench4s", "bench512s"]
    assert asking._asked(long) == room and asking._asked(short) == {"MEMORY": 1e9}, "never more than a worker has"


def test_a_queue_worker_offers_its_gpus_or_the_memory_that_its_jobs_share():
    assert cluster.Queue("slurm", gpus=2).offers == {"GPU": 2}
    assert cluster.Queue("slurm", memory="32GB").offers == {"MEMORY": 32e9}
    with pytest.raises(BenchError, match="cluster memory is a size"):
        assert cluster.Queue("slurm", memory="much").offers
