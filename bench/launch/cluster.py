"""Clusters: a running Dask cluster, one on this machine, or a queueing system's nodes through dask-jobqueue.

One engine for all. A worker is a pilot: it takes one place in the queue and runs job after job in it, longest first, so
that a training of twenty seconds does not cost a queue slot of its own; it leaves before its allocation ends, and what it
was running goes back to Dask's queue. docs/cluster.md has examples.
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import BenchError

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

QUEUES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster", "oar": "OARCluster",
          "htcondor": "HTCondorCluster", "moab": "MoabCluster"}
EXECUTORS = ("local", "dask", *QUEUES)
_MARGIN = 120  # seconds before the end of an allocation in which its worker leaves
_OPTIONS = {"partition", "account", "cores", "memory", "gpus", "time", "workers", "setup", "directives", "python", "interface", "env"}


@dataclass(frozen=True)
class Queue:
    """What to ask a queueing system for, per worker. From `--cluster-config FILE` (TOML) and flags, which win."""

    system: str  # a key of QUEUES
    partition: str = ""
    account: str = ""
    cores: int = 1
    memory: str = "8GB"
    gpus: int = 0
    time: str = "04:00:00"  # of an allocation, hours:minutes:seconds
    workers: int = 4  # at most so many at once; none while there is nothing to do
    setup: tuple[str, ...] = ()  # shell commands before a worker starts: module load, source activate
    directives: tuple[str, ...] = ()  # further lines of the batch script's header
    python: str = sys.executable
    interface: str = ""  # network interface that nodes and this machine share
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def offers(self) -> dict[str, float]:
        """What one worker has, as Dask resources: the GPUs, else the memory that its jobs share. Raises BenchError where
        `memory` is none."""
        from dask.utils import parse_bytes

        try:
            return {"GPU": self.gpus} if self.gpus else {"MEMORY": parse_bytes(self.memory)}
        except ValueError:
            raise BenchError(f"cluster memory is a size, as 32GB, not '{self.memory}'") from None

    @property
    def seconds(self) -> int:
        """Length of an allocation. Raises BenchError where `time` is none."""
        try:
            h, m, s = (int(x) for x in self.time.split(":"))
        except ValueError:
            raise BenchError(f"cluster time is hours:minutes:seconds, as 04:00:00, not '{self.time}'") from None
        return 3600 * h + 60 * m + s


def read_queue(system: str, file: Path | None, flags: Mapping[str, Any]) -> Queue:
    """The options of a queue. Raises BenchError, in one line, for a file that cannot be read or an unknown option."""
    found: dict[str, Any] = {}
    if file is not None:
        try:
            found = tomllib.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BenchError(f"--cluster-config {file}: no such file") from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
            raise BenchError(f"--cluster-config {file}: {str(e).splitlines()[0]}") from None
    unknown = sorted(set(found) - _OPTIONS)
    if unknown:
        raise BenchError(f"--cluster-config {file}: unknown option '{unknown[0]}'; known: {', '.join(sorted(_OPTIONS))}")
    merged = {**found, **{k: v for k, v in flags.items() if v}}
    for key in ("setup", "directives"):
        if key in merged:
            merged[key] = tuple([merged[key]] if isinstance(merged[key], str) else merged[key])
    q = Queue(system, **merged)
    if q.seconds <= 2 * _MARGIN and q.seconds < 60:
        raise BenchError(f"cluster time {q.time} is too short: a worker leaves {_MARGIN} s before its end")
    return q


@contextlib.contextmanager
def joined(address: str) -> Iterator[Any]:
    """A client of a running scheduler. Raises BenchError where nobody answers."""
    distributed = _dask()
    try:
        client = distributed.Client(address, timeout="20s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as e:
        raise BenchError(f"no Dask scheduler answers at {address} ({str(e).splitlines()[0] if str(e) else type(e).__name__})") from None
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):
            client.close()


@contextlib.contextmanager
def here(slots: Sequence[str]) -> Iterator[Any]:
    """A Dask cluster on this machine: one worker process per slot, "" a CPU core, else the number of its GPU."""
    distributed = _dask()
    workers = {
        i: {
            "cls": distributed.Nanny,
            "options": {
                "nthreads": 1, "memory_limit": 0, "dashboard_address": None,
                "resources": {"GPU": 1} if device else {},
                "env": {"CUDA_VISIBLE_DEVICES": device, "OMP_NUM_THREADS": "1"},
            },
        }
        for i, device in enumerate(slots)
    }
    scheduler = {"cls": distributed.Scheduler, "options": {"port": 0, "host": "127.0.0.1", "dashboard": False}}
    try:
        cluster = distributed.SpecCluster(workers, scheduler, silence_logs=False)
    except (RuntimeError, OSError) as e:  # a full /dev/shm, say, has no room for the semaphores of its processes
        raise BenchError(f"no Dask cluster starts on this machine: {' '.join(str(_root(e)).split())}") from None
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


def _root(e: BaseException) -> BaseException:
    """What an exception was raised from, first of all."""
    while below := e.__cause__ or e.__context__:
        e = below
    return e


@contextlib.contextmanager
def queued(q: Queue) -> Iterator[Any]:
    """A cluster of a queueing system's nodes that grows from none to q.workers while there is work."""
    try:
        import dask_jobqueue
    except ImportError:
        raise BenchError("this executor needs dask-jobqueue: pip install 'msa-bench[cluster]'") from None
    distributed = _dask()
    kind = getattr(dask_jobqueue, QUEUES[q.system])
    directives = list(q.directives)
    if q.gpus and q.system == "slurm":
        directives.append(f"--gres=gpu:{q.gpus}")
    prologue = [*(f"export {k}={v}" for k, v in q.env.items()), *q.setup]
    life = max(q.seconds - _MARGIN, q.seconds // 2)
    more = ["--lifetime", f"{life}s", "--lifetime-stagger", f"{min(60, life // 10)}s", "--no-dashboard"]
    more += ["--resources", ",".join(f"{k}={v}" for k, v in q.offers.items())]
    options: dict[str, Any] = {
        "cores": q.cores, "memory": q.memory, "processes": 1, "walltime": q.time, "python": q.python,
        "job_script_prologue": prologue, "job_extra_directives": directives, "worker_extra_args": more,
        "log_directory": str(Path("cluster-logs").absolute()), "scheduler_options": {"dashboard": False},
    }
    if q.partition:
        options["queue"] = q.partition
    if q.account:
        options["account" if q.system in ("slurm", "pbs", "lsf") else "project"] = q.account
    if q.interface:
        options["interface"] = q.interface
    try:
        cluster = kind(**options)
    except (ValueError, TypeError, OSError) as e:
        raise BenchError(f"{q.system}: {str(e).splitlines()[0]}") from None
    with cluster:
        cluster.adapt(minimum=0, maximum=q.workers, interval="5s", wait_count=6)
        with distributed.Client(cluster, set_as_default=False) as client:
            yield client


def _dask() -> Any:
    os.environ.setdefault("DASK_DISTRIBUTED__DIAGNOSTICS__NVML", "False")  # it would hold a context on every GPU
    try:
        import distributed
    except ImportError:
        raise BenchError("this executor needs Dask: pip install 'msa-bench[cluster]'") from None
    return distributed
