"""Where jobs run, as one object: `Executor().run(jobs, ...)` for this machine, or a cluster (cluster.py)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.launch.worker import Outcome
from bench.matrix import Job
from bench.store import Store


@dataclass(frozen=True)
class Executor:
    """slots: workers on this machine, "" for a CPU core, else the number of a GPU. scheduler: address of a running Dask
    cluster. queue: options of a queueing system (cluster.Queue). bring_back: workers do not see the results folder, the
    caller writes it. send_data: a feature file that a worker's machine lacks is sent there."""

    name: str = "local"
    slots: tuple[str, ...] = ("",)
    scheduler: str = ""
    queue: Any = None
    bring_back: bool = False
    send_data: bool = False

    def __post_init__(self) -> None:
        if self.name == "local" and (self.scheduler or self.bring_back or self.send_data):
            raise BenchError("--scheduler, --results-on and --send-data go with --executor dask or a queueing system")
        if self.scheduler and self.queue:
            raise BenchError("--scheduler goes with --executor dask; a queueing system starts a scheduler of its own")

    @property
    def workers(self) -> int:
        """How many jobs run at once, as far as this process knows."""
        return self.queue.workers if self.queue else len(self.slots)

    def run(
        self, jobs: Sequence[Job], store: Store, data_dir: Path | None, expected: Mapping[str, float],
        memory: Mapping[str, float] | None = None, **how: Any,
    ) -> list[Outcome]:
        """Run jobs; `how` is what bench.launch.local.run_jobs takes. expected, memory: config id -> seconds, and bytes of
        a worker's process, which tell a cluster what to start first and where."""
        if self.name == "local":
            from bench.launch.local import run_jobs

            return run_jobs(jobs, store, self.slots, data_dir, **how)
        from bench.launch import cluster, dask_jobs

        how.pop("apart", None)  # who else is on the machine of a cluster's worker, nobody knows
        more = how.pop("more", lambda job: ())

        where = cluster.queued(self.queue) if self.queue else (
            cluster.joined(self.scheduler) if self.scheduler else cluster.here(self.slots)
        )
        outcomes: list[Outcome] = []
        with where as client:
            while jobs:  # in rounds, where one job's end gives rise to others
                ended = dask_jobs.run_jobs(
                    jobs, store, client, data_dir, expected=expected, memory=memory, bring_back=self.bring_back,
                    send_data=self.send_data, offers=self.queue.offers if self.queue else None, **how,
                )
                outcomes += ended
                jobs = [j for o in ended for j in more(o.job)]
        return outcomes
