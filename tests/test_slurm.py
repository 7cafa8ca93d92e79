"""`--executor slurm` on a real SLURM of one node (tests/cluster/slurm.sh), where its packages are installed."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("dask_jobqueue")

from bench.launch import cluster, dask_jobs, local  # noqa: E402
from bench.matrix import Job  # noqa: E402
from bench.store import Store  # noqa: E402
from tests.golden import cell_config  # noqa: E402

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "cluster" / "slurm.sh"
LACKING = [n for n in ("slurmctld", "slurmd", "sbatch", "munged") if shutil.which(n) is None]
pytestmark = [
    pytest.mark.slow, pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(bool(LACKING) or os.geteuid() != 0, reason=f"needs root and slurm-wlm, munge; lacking {LACKING}"),
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    conf = subprocess.run(["bash", SCRIPT, "start", folder], check=True, capture_output=True, text=True).stdout.strip()
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = conf
    yield conf
    os.environ.pop("SLURM_CONF") if before is None else os.environ.update(SLURM_CONF=before)
    subprocess.run(["bash", SCRIPT, "stop", folder], check=False)


def queue(time="01:00:00", **more):
    return cluster.Queue("slurm", memory="1GB", time=time, workers=2, python=sys.executable, interface="lo",
                         env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SLURM_CONF": os.environ["SLURM_CONF"]}, **more)


def jobs(n):
    c = cell_config("lmf", "none").with_(train={"max_epochs": 2}, fraction=0.3)
    return [Job(c, 1111 + i) for i in range(n)]


def running():
    return subprocess.run(["squeue", "-h", "-t", "RUNNING", "-o", "%i"], capture_output=True, text=True).stdout.split()


def test_jobs_survive_the_end_of_an_allocation(slurm, tmp_path, monkeypatch):
    """One worker's allocation is ended as a time limit ends it, in the middle: all jobs are done once, byte for byte as
    they are locally, and another allocation was used."""
    monkeypatch.chdir(tmp_path)
    some, store, here = jobs(6), Store(tmp_path / "r"), Store(tmp_path / "local")
    local.run_jobs(some, here, ("",))
    seen, ended = set(), []

    def heard(outcome):
        seen.update(running())
        if not ended:
            ended.extend(running()[:1])
            subprocess.run(["scancel", "--signal=KILL", "--full", *ended], check=True)

    stop = threading.Event()
    watcher = threading.Thread(target=lambda: [seen.update(running()) or time.sleep(0.5) for _ in iter(stop.is_set, True)])
    watcher.start()
    try:
        with cluster.queued(queue()) as client:
            outcomes = dask_jobs.run_jobs(some, store, client, progress=heard)
    finally:
        stop.set()
        watcher.join()
    assert ended and sorted(o.job.id for o in outcomes) == sorted(j.id for j in some)
    assert all(o.status == "done" for o in outcomes) and len(seen) >= 2
    for j in some:
        for name in ("metrics.json", "history.csv"):
            assert (store.folder(j) / name).read_bytes() == (here.folder(j) / name).read_bytes()
    deadline = time.time() + 60
    while running() and time.time() < deadline:
        time.sleep(1)
    assert not running(), "no allocation is left behind"
