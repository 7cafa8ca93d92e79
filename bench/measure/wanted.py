"""Which measures a plan's figures want, what is there of them, and the weights that they need. Torch-free.

A job's weights are kept from its training until all its wanted measures are made, which its worker does at once; one
checkpoint per worker is all that lies on disk then. A finished job whose weights are gone is trained again when a figure
wants another measure of it: the same job gives the same weights.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import estimate
from bench.matrix import Config, Experiment, Job, expand
from bench.measure.needs import Measure, measures, sweeps
from bench.measure.spec import failure, load_numbers
from bench.plural import count
from bench.store import DONE, FAILED, MISSING, Store


@dataclass
class Wanted:
    """Measures by job, for the jobs of a plan."""

    jobs: Sequence[Job] = ()  # those that a measure is wanted of
    status: Mapping[str, str] = field(default_factory=dict)  # job id -> done, failed, missing, stale
    blocked: Mapping[str, str] = field(default_factory=dict)  # config id -> why it cannot run here
    of: dict[str, tuple[Measure, ...]] = field(default_factory=dict)  # job id -> its measures
    states: dict[tuple[str, str], str] = field(default_factory=dict)  # (job id, stem) -> done, failed, missing
    sizes: dict[str, float] = field(default_factory=dict)  # job id -> bytes of its weights, expected
    kept: set[str] = field(default_factory=set)  # ids of the jobs whose weights are on disk

    def lacking(self, job: Job, retry_failed: bool = False) -> tuple[Measure, ...]:
        """The measures of a job to make now: all that are not there, failed ones on request."""
        settled = {DONE} if retry_failed else {DONE, FAILED}
        found = (m for m in self.of.get(job.id, ()) if self.states[job.id, m.stem] not in settled)
        return () if job.config.id in self.blocked else tuple(found)

    def to_measure(self, retry_failed: bool = False) -> list[Job]:
        """Finished jobs that lack a measure."""
        return [j for j in self.jobs if self.status[j.id] == DONE and self.lacking(j, retry_failed)]

    def to_retrain(self, retry_failed: bool = False) -> list[Job]:
        """Those of them whose weights are gone."""
        return [j for j in self.to_measure(retry_failed) if j.id not in self.kept]

    def failed(self, store: Store) -> list[tuple[Job, Measure]]:
        """Measures that have failed by now."""
        return [
            (j, m) for j in self.jobs if store.status(j) == DONE for m in self.of[j.id]
            if load_numbers(store, j, m) is None and failure(store, j, m)
        ]

    def summary(self) -> dict[str, Any]:
        """Counts, and sizes of the weights that the measures still to make keep on disk."""
        states = Counter(self.states.values())
        open_jobs = [j for j in self.jobs if self.lacking(j) and self.status[j.id] != FAILED]
        sizes = [self.sizes[j.id] for j in open_jobs]
        return {
            "wanted": len(self.states), "done": states[DONE], "failed": states[FAILED],
            "to_make": sum(len(self.lacking(j)) for j in open_jobs), "jobs_trained_again": len(self.to_retrain()),
            "checkpoints": len(sizes), "largest_checkpoint_mb": round(max(sizes, default=0.0) / 1e6, 1),
            "all_checkpoints_gb": round(sum(sizes) / 1e9, 2),
        }

    def lines(self) -> list[str]:
        """What a plan says of them."""
        if not self.states:
            return []
        s = self.summary()
        found = [
            f"measures of figures: {s['wanted']} wanted, {s['done']} done, {s['failed']} failed, {s['to_make']} to make "
            "here (their time is not in the estimates)"
        ]
        if n := s["jobs_trained_again"]:
            found.append(f"{count(n, 'finished job is', 'finished jobs are')} trained again: the weights, which measures need, are gone")
        if n := s["checkpoints"]:
            found.append(
                f"weights on disk: up to {s['largest_checkpoint_mb']:,g} MB per worker, removed when a job's measures are "
                f"made; {s['all_checkpoints_gb']:,g} GB for {count(n, 'job')} with --keep-checkpoints"
            )
        return found


def wanted(
    experiments: Iterable[Experiment], n_seeds: int | None, jobs: Iterable[Job], status: Mapping[str, str],
    blocked: Mapping[str, str], store: Store, entries: estimate.Entries,
) -> Wanted:
    """What the experiments' figures and rows want of some jobs, and what is there of it. entries: job id -> what its
    finished run left."""
    of: dict[str, tuple[Measure, ...]] = {}
    for e in experiments:
        by_config: dict[Config, list[Measure]] = {}
        for config, measure in [*((need.config, need.measure) for need in measures(e)), *sweeps(e)]:
            by_config.setdefault(config, []).append(measure)
        for j in expand([e], n_seeds) if by_config else ():
            if j.id in status and j.config in by_config:
                of[j.id] = tuple(dict.fromkeys((*of.get(j.id, ()), *by_config[j.config])))
    mine = [j for j in jobs if j.id in of]
    states = {}
    for j in mine:
        for m in of[j.id]:
            done = status[j.id] == DONE
            there = done and load_numbers(store, j, m) is not None
            states[j.id, m.stem] = DONE if there else FAILED if done and failure(store, j, m) else MISSING
    kept = {j.id for j in mine if status[j.id] == DONE and store.checkpoint(j).exists()}
    return Wanted(mine, status, blocked, of, states, estimate.checkpoint_bytes(mine, entries), kept)
