"""Running and tuning what a plan lacks (`bench.run`, `bench.tune`): the record of what was asked for, the session that others
can see and stop, and what is left at the end."""

import difflib
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import calibration, estimate
from bench.baselines import compute as compute_baselines
from bench.data.dataset import spec
from bench.errors import BenchError
from bench.files import one_line
from bench.folders import remember
from bench.launch.executor import Executor
from bench.launch.sessions import session
from bench.launch.worker import Outcome
from bench.manifest import write_manifest
from bench.matrix import Config, Experiment, Job, expand
from bench.measure.spec import Measure
from bench.metrics import METRICS, is_time
from bench.plan import Plan
from bench.spaces import swept
from bench.store import DONE, FAILED, Store
from bench.trails import Trail

Notify = Callable[[Outcome], None]
_LONGEST = 366 * 86400.0  # seconds of a time limit


@dataclass
class Finished:
    """What a run left: how each job ended now, and every failure that its plan still holds.

    A failure counts whether or not it could be stored: a full disk takes no failed.json.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    failed: list[Job] = field(default_factory=list)
    unmeasured: list[tuple[Job, Measure]] = field(default_factory=list)
    unrun: list[Job] = field(default_factory=list)  # what was to be run and was not: --fail-fast

    @property
    def errors(self) -> dict[str, str]:
        """Job id -> what its worker said, of the jobs that failed now."""
        return {o.job.id: o.error for o in self.outcomes if o.status == FAILED}

    @property
    def ok(self) -> bool:
        return not self.failed and not self.unmeasured and not self.unrun


def run(
    wanted: Plan, results: str | Path = "results", data: str | Path | None = None, slots: Sequence[str] = ("",),
    seeds: int | None = None, timeout: float | None = None, retry_failed: bool = False, fail_fast: bool = False,
    keep_checkpoints: bool = False, progress: Notify = lambda outcome: None, say: Callable[[str], None] = lambda line: None,
    executor: Executor | None = None, command: Sequence[str] = ("bench.run",),
    engine: str = "auto",
) -> Finished:
    """Run what a plan lacks; `progress` hears of every job as it ends, `say` why one is put off. `slots`: one entry per
    worker, "" for a CPU worker or the number of its GPU; `executor` (a cluster, say) takes their place. `timeout`: seconds
    of a job; a job that failed for another limit is tried again. `engine`:
    train/engine.py; it changes no number. Ctrl-C, SIGTERM and SIGHUP end the workers; what was
    finished is kept."""
    if timeout is not None:
        check_timeout(timeout)
    where = executor or Executor(slots=tuple(slots))
    store = Store(check_results(results), indexed=True)
    with _manifest_lock(store, wanted.suite.name):
        write_manifest(wanted, store, seeds)
        remember(store.root, None if data is None else Path(data))
    if wanted.baselines:
        compute_baselines(wanted.base, store, None if data is None else Path(data))
    jobs = [*wanted.todo(retry_failed, timeout), *wanted.figures.to_measure(retry_failed)]
    outcomes: list[Outcome] = []
    if jobs:
        with _terminable(), session(store, command, where.name, len(jobs)) as now:
            outcomes = where.run(
                jobs, store, None if data is None else Path(data),
                wanted.seconds["gpu" if any(where.slots) else "cpu"], timeout=timeout,
                keep=lambda j: ("checkpoint",) if keep_checkpoints else (), fail_fast=fail_fast,
                progress=_both(now.heard, progress), data=wanted.data,
                measures=lambda j: wanted.figures.lacking(j, retry_failed), say=say, engine=engine, memory=wanted.memory,
                apart=timed(wanted.experiments, wanted.n_seeds).__contains__,
            )
    calibration.add(
        found for o in outcomes if o.status == DONE and o.seconds and (found := calibration.speed(o.job.config, store.entry(o.job)))
    )
    ended = {o.job.id: o.status for o in outcomes}
    failed = [j for j in wanted.jobs if wanted.status[j.id] != DONE and store.status(j, wanted.data) == FAILED]
    unmeasured = wanted.figures.failed(store)
    counted = {j.id for j in (*failed, *(j for j, _ in unmeasured))}
    failed += [o.job for o in outcomes if o.status == FAILED and o.job.id not in counted]
    return Finished(outcomes, failed, unmeasured, [j for j in jobs if j.id not in ended])


def timed(experiments: Iterable[Experiment], seeds: int | None = None) -> frozenset[Job]:
    """Jobs whose seconds a table shows: they get their device for themselves."""
    return frozenset(expand((e for e in experiments if any(is_time(c.metric) for c in e.columns)), seeds))


def tune(
    wanted: Plan, results: str | Path = "results", data: str | Path | None = None, budget: int = 12,
    sampler: str = "tpe", tuning_seeds: int = 1, objective: str = "loss", slots: Sequence[str] = ("",),
    timeout: float | None = None, progress: Callable[[Sequence[Job]], Notify] = lambda jobs: lambda outcome: None,
    executor: Executor | None = None, command: Sequence[str] = ("bench.tune",),
) -> list[Trail]:
    """Search the hyperparameters of every cell of a plan on validation, each with the same number of trials, on seeds
    that are not the evaluation's. Trails are stored in `results`; the same call after a kill goes on where it was.
    `progress` is asked, whenever jobs are given out, for whom to tell of each of them as it ends."""
    from bench.tune import tune as search

    store, folder = Store(results), None if data is None else Path(data)
    for e in wanted.experiments:
        if names := swept(e):
            raise BenchError(f"{e.id} shows what {', '.join(names)} does, which tuning would choose; tune an artefact that does not vary it")
    cells = [c for c in dict.fromkeys(j.config for j in wanted.jobs) if c.id not in wanted.blocked]
    if not cells:
        raise BenchError(next(iter(wanted.blocked.values()), "nothing to tune: no cell matches"))
    check_objective(objective, cells)
    if timeout is not None:
        check_timeout(timeout)
    check_results(results)

    where = executor or Executor(slots=tuple(slots))

    expected: dict[str, float] = {}
    hears: dict[str, Notify] = {}

    def run_trials(jobs: Sequence[Job], after: Callable[[Job], Sequence[Job]]) -> None:
        def given(jobs: Sequence[Job]) -> Sequence[Job]:
            if jobs:
                now.expect(len(jobs))
                expected.update(estimate.seconds(jobs, {}))
                hears.update(dict.fromkeys((j.id for j in jobs), progress(jobs)))
            return jobs

        def heard(outcome: Outcome) -> None:
            now.heard(outcome)
            hears[outcome.job.id](outcome)

        with _terminable(), session(store, command, where.name, 0) as now:
            where.run(
                given(jobs), store, folder, expected, timeout=timeout, progress=heard, data=wanted.data, more=lambda j: given(after(j)),
            )

    return search(cells, store, run_trials, budget, sampler, tuning_seeds, objective, wanted.data)


def check_objective(name: str, cells: Iterable[Config]) -> None:
    """Raises BenchError where a validation metric is none that these cells have: every trial would end without a value."""
    for family in dict.fromkeys(spec(c.dataset).family(c.features) for c in cells):
        known = ["loss", *METRICS[family]]
        if name not in known:
            near = [k for k in known if k.endswith(f"_{name}")] or difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise BenchError(f"--objective '{name}' is no metric of these cells ({family}): {', '.join(known)}{hint}")


def check_timeout(seconds: float) -> float:
    """A time limit in seconds. Raises BenchError for what is none."""
    if not 0 < seconds <= _LONGEST:  # false for NaN too
        raise BenchError(f"--timeout takes seconds above 0 and up to {_LONGEST:,.0f} (a year), got {seconds:g}")
    return seconds


def check_results(folder: str | Path) -> Path:
    """The results root, made where it is not there. Raises BenchError where it cannot be."""
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise BenchError(f"--results {path}: a file, not a folder; name another")
    with one_line(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def _both(first: Notify, second: Notify) -> Notify:
    def heard(outcome: Outcome) -> None:
        first(outcome)
        second(outcome)

    return heard


@contextmanager
def _manifest_lock(store: Store, suite: str):
    """One run at a time adds to a suite's record of what was run."""
    from bench.launch import owner

    end, lock = time.monotonic() + 60.0, store.root / "plans" / f".{suite}.lock"
    while (owned := owner.take(lock)) is None:
        if time.monotonic() > end:
            raise BenchError(f"{lock} has been held for a minute by {owner.holder(lock) or 'another run'}; end that or remove the file")
        time.sleep(0.05)
    with owned:
        yield


@contextmanager
def _terminable():
    """`kill` and the end of the terminal end the workers as Ctrl-C does (but `nohup` is respected)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) is not signal.SIG_IGN]
    before = {s: signal.signal(s, signal.default_int_handler) for s in signals}
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
