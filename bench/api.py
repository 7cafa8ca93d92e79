"""What the command line calls, and what a script or notebook imports: `import bench; bench.plan(...)`.

Every function takes names and paths as the command line does and raises BenchError, in one line, for what a user can
get wrong.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bench import estimate
from bench.baselines import compute as compute_baselines
from bench.errors import BenchError
from bench.files import one_line
from bench.folders import recall, remember
from bench.found import read_folders, suite_of
from bench.launch.executor import Executor
from bench.launch.sessions import in_progress, session
from bench.launch.worker import Outcome
from bench.manifest import read_manifest, suites_run, write_manifest
from bench.matrix import Experiment, Job, expand
from bench.measure.spec import Measure
from bench.plan import Plan, find_data, make_plan, restricted
from bench.settings import given, variant_name
from bench.store import DONE, FAILED, Store
from bench.suites import suite as suite_named
from bench.trails import Trail

Notify = Callable[[Outcome], None]
_LONGEST = 366 * 86400.0  # seconds of a time limit
_MOST_SEEDS = 1000


def plan(
    artefacts: Iterable[str] = (), suite: str = "quick", data: str | Path | None = None,
    results: str | Path = "results", seeds: int | None = None, only: str | None = None, settings: Sequence[str] = (),
    everything: bool = False, variant: str = "", baselines: bool = False,
) -> Plan:
    """The jobs that artefacts need in a suite, and the state of each. No artefact named: the suite's own, or, with
    `everything`, all there are. `settings`: as after --set, "train.max_epochs=5"; what they change stands beside the
    default's results, under the name `variant` where one is given. `baselines`: tables get
    rows of simple baselines (bench/baselines.py)."""
    from experiments import select

    s = suite_named(suite)
    data = None if data is None else Path(data)
    if data is not None and not data.is_dir():
        raise BenchError(f"--data {data}: no such folder")
    if Path(results).exists() and not Path(results).is_dir():
        raise BenchError(f"--results {results}: a file, not a folder; name another")
    if seeds is not None and not 1 <= seeds <= _MOST_SEEDS:
        raise BenchError(f"--seeds takes 1 to {_MOST_SEEDS}, got {seeds}")
    named = list(artefacts)
    chosen = select(named or (() if everything or s.artefacts == ("*",) else s.artefacts))
    if variant:
        variant_name(variant, settings)
    return make_plan(chosen, s, Store(results, indexed=True), data, seeds, only, settings, variant, baselines)


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
            )
    ended = {o.job.id: o.status for o in outcomes}
    failed = [j for j in wanted.jobs if wanted.status[j.id] != DONE and store.status(j, wanted.data) == FAILED]
    unmeasured = wanted.figures.failed(store)
    counted = {j.id for j in (*failed, *(j for j, _ in unmeasured))}
    failed += [o.job for o in outcomes if o.status == FAILED and o.job.id not in counted]
    return Finished(outcomes, failed, unmeasured, [j for j in jobs if j.id not in ended])


def _both(first: Notify, second: Notify) -> Notify:
    def heard(outcome: Outcome) -> None:
        first(outcome)
        second(outcome)

    return heard


def check_timeout(seconds: float) -> float:
    """A time limit in seconds. Raises BenchError for what is none."""
    if not 0 < seconds <= _LONGEST:  # false for NaN too
        raise BenchError(f"--timeout takes seconds above 0 and up to {_LONGEST:g}, got {seconds:g}")
    return seconds


def check_results(folder: str | Path) -> Path:
    """The results root, made where it is not there. Raises BenchError where it cannot be."""
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise BenchError(f"--results {path}: a file, not a folder; name another")
    with one_line(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


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


def tune(
    wanted: Plan, results: str | Path = "results", data: str | Path | None = None, budget: int = 12,
    sampler: str = "tpe", tuning_seeds: int = 1, objective: str = "loss", slots: Sequence[str] = ("",),
    timeout: float | None = None, progress: Callable[[Sequence[Job]], Notify] = lambda jobs: lambda outcome: None,
    executor: Executor | None = None, command: Sequence[str] = ("bench.tune",),
) -> list[Trail]:
    """Search the hyperparameters of every cell of a plan on validation, each with the same number of trials, on seeds
    that are not the evaluation's. Trails are stored in `results`; the same call after a kill goes on where it was.
    `progress` is asked before every round, with its jobs, for whom to tell of each as it ends."""
    from bench import tune as tuning

    store, folder = Store(results), None if data is None else Path(data)
    cells = [c for c in dict.fromkeys(j.config for j in wanted.jobs) if c.id not in wanted.blocked]
    if not cells:
        raise BenchError(next(iter(wanted.blocked.values()), "nothing to tune: no cell matches"))

    if timeout is not None:
        check_timeout(timeout)
    check_results(results)

    where = executor or Executor(slots=tuple(slots))

    def run_trials(jobs: Sequence[Job]) -> None:
        expected = estimate.seconds(jobs, {})
        with _terminable(), session(store, command, where.name, len(jobs)) as now:
            heard = _both(now.heard, progress(jobs))
            where.run(jobs, store, folder, expected, timeout=timeout, progress=heard, data=wanted.data)

    return tuning.tune(cells, store, run_trials, budget, sampler, tuning_seeds, objective, wanted.data)


def report(
    artefacts: Iterable[str] = (), results: str | Path = "results", suite: str | None = None,
    data: str | Path | None = None, out: str | Path | None = None, *, seeds: int | None = None, only: str | None = None,
    variants: bool = False, split: str = "test",
) -> Path:
    """Render what is stored; returns the path of index.html. `suite` None: the one that was run last. `seeds` and `only`
    show a part of it; `variants`: everything that ran with other settings is a row of its own."""
    from bench.report.build import build
    from bench.report.folder import claimed
    from bench.report.payload import Rerun

    store, artefacts = Store(results, indexed=True), list(artefacts)
    if fixed := _without_runs(artefacts, store):
        return build(fixed, store, claimed(store, suite or "paper", out), suite=suite or "paper")
    if not store.root.is_dir():
        raise BenchError(f"no results in {store.root}; `bench run` makes them, --results names another folder")
    name = suite or _last_suite(store)
    chosen, departures = as_run(artefacts, results, name, only, variants)
    hashes = {}
    if data is not None:
        found = find_data((c for e in chosen for c in e.configs()), Path(data))
        hashes = {k: f.sha256 for k, f in found.items() if f.sha256}
    folder = data or recall(store.root)
    rerun = Rerun(name, str(results), "DIR" if folder is None else str(folder))
    return build(
        chosen, store, claimed(store, name if split == "test" else f"{name}-{split}", out), suite=name, data_hashes=hashes, seeds=seeds, adapted=departures, rerun=rerun, split=split,
    )


def _without_runs(named: list[str], store: Store) -> list[Experiment]:
    """The artefacts that are named, where none of them trains anything and nothing was run yet: they can be rendered."""
    from experiments import select

    wanted = select(named) if named else []
    return [] if any(e.seeds for e in wanted) or suites_run(store) else wanted


def as_run(
    artefacts: Iterable[str] = (), results: str | Path = "results", suite: str | None = None, only: str | None = None,
    variants: bool = False,
) -> tuple[list[Experiment], list[str]]:
    """(artefacts as they were run, where that departs from their definition). Raises BenchError where nothing was run,
    or nothing of what is asked for."""
    from experiments import select

    store, named = Store(results, indexed=True), list(artefacts)
    name = suite or _last_suite(store)
    wanted, s = select(named), suite_named(name)
    if name in suites_run(store):
        chosen, departures = read_manifest(wanted, store, s, variants)
    elif not suites_run(store):
        chosen, departures = read_folders(wanted, store, s, variants)
    else:
        raise BenchError(f"suite '{name}' was not run into {store.root} yet; `bench run --suite {name}` does that")
    known = {e.id for e in chosen}
    chosen += [e for e in wanted if named and not e.seeds and e.id not in known]  # needs no run
    if not chosen:
        what = ", ".join(named) or "no artefact"
        raise BenchError(f"{what}: nothing of it was run into {store.root} in suite '{name}'; `bench list` says what there is")
    if only:
        chosen = [part for e in chosen if (part := restricted(e, only)).rows]
        if not chosen:
            raise BenchError(f"--only {only}: no cell that was run into {store.root} matches")
    return chosen, departures


def watch(
    seconds: float, artefacts: Iterable[str] = (), results: str | Path = "results", suite: str | None = None,
    data: str | Path | None = None, out: str | Path | None = None, say: Callable[[str], None] = print, **part: Any,
) -> Path:
    """Render every so many seconds until no job of the artefacts is missing, or until two looks in a row find nobody who
    runs anything: then none that is missing can come. `part`: as for report."""
    store, named, idle = Store(results, indexed=True), list(artefacts), False
    while True:
        busy = in_progress(store)  # asked first: what ends meanwhile is in the page
        page = report(named, results, suite, data, out, **part)
        chosen, _ = as_run(named, results, suite, part.get("only"), part.get("variants", False))
        jobs = expand(chosen, part.get("seeds"))
        ended = sum(store.status(j) in (DONE, FAILED) for j in jobs)
        say(f"{ended} of {len(jobs)} ended: {page}")
        if ended == len(jobs):
            return page
        if not busy and idle:
            say(f"nothing runs any more: {len(jobs) - ended} jobs have no result; `bench run` makes them, `bench plan` says which cannot run here")
            return page
        idle = not busy
        time.sleep(seconds)


def _last_suite(store: Store) -> str:
    found = suites_run(store)
    name = found[-1] if found else suite_of(store)
    if name is None:
        raise BenchError(f"no results in {store.root}; `bench run` makes them, --results names another folder")
    return name


def results(folder: str | Path = "results") -> pd.DataFrame:
    """One row per finished job, split and metric: job, config, dataset, features, backbone, mixer, seed, split, metric,
    value; the job's settings follow as columns ("train.lr", "backbone.rank", "mixer.p_mix", ...)."""
    store = Store(folder, indexed=True)
    jobs = store.scan()
    values, _ = store.frames(jobs)
    settings: list[dict[str, Any]] = [
        {"job": j.id, **{k: _scalar(v) for k, v in given(j.config).items() if k != "features"}} for j in jobs
    ]
    return values.merge(pd.DataFrame(settings), on="job", how="left") if settings else values


def _scalar(value: Any) -> Any:
    return str(value) if isinstance(value, (list, dict)) else value


def cell(
    folder: str | Path = "results", *, dataset: str, backbone: str, mixer: str = "none", metric: str,
    split: str = "test", config: str | None = None,
) -> pd.Series:
    """Values of one cell of the matrix by seed. Raises BenchError where several configs fit and none is named."""
    found = results(folder)
    fits = (found.dataset == dataset) & (found.backbone == backbone) & (found.mixer == mixer)
    found = found[fits & (found.metric == metric) & (found.split == split)]
    if config is not None:
        found = found[found.config == config]
    if found.config.nunique() > 1:
        raise BenchError(f"{dataset} {backbone}+{mixer}: {found.config.nunique()} settings here ({', '.join(sorted(set(found.config)))}); name one with config=")
    if found.empty:
        raise BenchError(f"no finished run of {dataset} {backbone}+{mixer} with {split} {metric} in {folder}")
    return found.set_index("seed").value.sort_index()


def predict(job: str | Path, data: str | Path, results: str | Path = "results") -> pd.DataFrame:
    """Scores of a feature file by a job's kept weights: split, id, prediction, label (NaN where the file has none).
    `job`: an id, the beginning of one, a job's folder, or a weights.safetensors."""
    from bench.export import find
    from bench.predict import predict as score

    if Path(job).is_file():
        return score(job, data)
    store = Store(results)
    return score(store.checkpoint(find(store, str(job))), data)


def export(job: str, results: str | Path = "results", out: str | Path | None = None) -> Path:
    """Write a job's weights, settings and a card into a folder (default: exported/<job>) and return it."""
    from bench import export as exporting

    store = Store(results)
    found = exporting.find(store, job)
    return exporting.export(store, found, out or Path("exported") / found.id)
