"""What the command line calls, and what a script or notebook imports: `import bench; bench.plan(...)`.

Every function takes names and paths as the command line does and raises BenchError, in one line, for what a user can
get wrong.
"""

import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.folders import recall, remember
from bench.found import read_folders, suite_of
from bench.launch.worker import Outcome
from bench.manifest import read_manifest, suites_run, write_manifest
from bench.matrix import Experiment, Job, expand
from bench.measure.spec import Measure
from bench.plan import Plan, find_data, make_plan, restricted
from bench.settings import variant_name
from bench.store import DONE, FAILED, Store
from bench.suites import suite as suite_named
from bench.trails import Trail

Notify = Callable[[Outcome], None]


def plan(
    artefacts: Iterable[str] = (), suite: str = "quick", data: str | Path | None = None,
    results: str | Path = "results", seeds: int | None = None, only: str | None = None, settings: Sequence[str] = (),
    everything: bool = False, variant: str = "",
) -> Plan:
    """The jobs that artefacts need in a suite, and the state of each. No artefact named: the suite's own, or, with
    `everything`, all there are. `settings`: as after --set, "train.max_epochs=5"; what they change stands beside the
    default's results, under the name `variant` where one is given."""
    from experiments import select

    s = suite_named(suite)
    data = None if data is None else Path(data)
    if data is not None and not data.is_dir():
        raise BenchError(f"--data {data}: no such folder")
    named = list(artefacts)
    chosen = select(named or (() if everything or s.artefacts == ("*",) else s.artefacts))
    if variant:
        variant_name(variant, settings)
    return make_plan(chosen, s, Store(results), data, seeds, only, settings, variant)


@dataclass
class Finished:
    """What a run left: how each job ended now, and every failure that its plan still holds."""

    outcomes: list[Outcome] = field(default_factory=list)
    failed: list[Job] = field(default_factory=list)
    unmeasured: list[tuple[Job, Measure]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.failed and not self.unmeasured


def run(
    wanted: Plan, results: str | Path = "results", data: str | Path | None = None, slots: Sequence[str] = ("",),
    seeds: int | None = None, timeout: float | None = None, retry_failed: bool = False, fail_fast: bool = False,
    keep_checkpoints: bool = False, progress: Notify = lambda outcome: None,
) -> Finished:
    """Run what a plan lacks; `progress` hears of every job as it ends. `slots`: one entry per worker, "" for a CPU
    worker or the number of its GPU. Ctrl-C and SIGTERM end the workers; what was finished is kept."""
    from bench.launch.local import run_jobs

    store = Store(results)
    write_manifest(wanted, store, seeds)
    remember(store.root, None if data is None else Path(data))
    jobs = [*wanted.todo(retry_failed), *wanted.figures.to_measure(retry_failed)]
    outcomes: list[Outcome] = []
    if jobs:
        with _terminable():
            outcomes = run_jobs(
                jobs, store, slots, None if data is None else Path(data), timeout,
                lambda j: ("checkpoint",) if keep_checkpoints else (), fail_fast,
                progress, wanted.data, lambda j: wanted.figures.lacking(j, retry_failed),
            )
    failed = [j for j in wanted.jobs if store.status(j) == FAILED]
    return Finished(outcomes, failed, wanted.figures.failed(store))


@contextmanager
def _terminable():
    """`kill` ends the workers as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def tune(
    wanted: Plan, results: str | Path = "results", data: str | Path | None = None, budget: int = 12,
    sampler: str = "tpe", tuning_seeds: int = 1, objective: str = "loss", slots: Sequence[str] = ("",),
    timeout: float | None = None, progress: Callable[[Sequence[Job]], Notify] = lambda jobs: lambda outcome: None,
) -> list[Trail]:
    """Search the hyperparameters of every cell of a plan on validation, each with the same number of trials, on seeds
    that are not the evaluation's. Trails are stored in `results`; the same call after a kill goes on where it was.
    `progress` is asked before every round, with its jobs, for whom to tell of each as it ends."""
    from bench import tune as tuning
    from bench.launch.local import run_jobs

    store, folder = Store(results), None if data is None else Path(data)
    cells = [c for c in dict.fromkeys(j.config for j in wanted.jobs) if c.id not in wanted.blocked]
    if not cells:
        raise BenchError(next(iter(wanted.blocked.values()), "nothing to tune: no cell matches"))

    def run_trials(jobs: Sequence[Job]) -> None:
        with _terminable():
            run_jobs(jobs, store, slots, folder, timeout, progress=progress(jobs), data=wanted.data)

    return tuning.tune(cells, store, run_trials, budget, sampler, tuning_seeds, objective, wanted.data)


def report(
    artefacts: Iterable[str] = (), results: str | Path = "results", suite: str | None = None,
    data: str | Path | None = None, out: str | Path | None = None, *, seeds: int | None = None, only: str | None = None,
    variants: bool = False,
) -> Path:
    """Render what is stored; returns the path of index.html. `suite` None: the one that was run last. `seeds` and `only`
    show a part of it; `variants`: everything that ran with other settings is a row of its own."""
    from bench.report.build import build
    from bench.report.folder import claimed
    from bench.report.payload import Rerun

    store = Store(results)
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
        chosen, store, claimed(store, name, out), suite=name, data_hashes=hashes, seeds=seeds, adapted=departures, rerun=rerun,
    )


def as_run(
    artefacts: Iterable[str] = (), results: str | Path = "results", suite: str | None = None, only: str | None = None,
    variants: bool = False,
) -> tuple[list[Experiment], list[str]]:
    """(artefacts as they were run, where that departs from their definition). Raises BenchError where nothing was run,
    or nothing of what is asked for."""
    from experiments import select

    store, named = Store(results), list(artefacts)
    name = suite or _last_suite(store)
    wanted, s = select(named), suite_named(name)
    if name in suites_run(store):
        chosen, departures = read_manifest(wanted, store, s, variants)
    elif not suites_run(store):
        chosen, departures = read_folders(wanted, store, s, variants)
    else:
        raise BenchError(f"suite '{name}' was not run into {store.root} yet; `bench run --suite {name}` does that")
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
    """Render every so many seconds until no job of the artefacts is missing. `part`: as for report."""
    store, named = Store(results), list(artefacts)
    while True:
        page = report(named, results, suite, data, out, **part)
        chosen, _ = as_run(named, results, suite, part.get("only"), part.get("variants", False))
        jobs = expand(chosen, part.get("seeds"))
        ended = sum(store.status(j) in (DONE, FAILED) for j in jobs)
        say(f"{ended} of {len(jobs)} ended: {page}")
        if ended == len(jobs):
            return page
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
    store = Store(folder)
    jobs = store.scan()
    values, _ = store.frames(jobs)
    rooms = {"train": "train", "backbone": "backbone_params", "mixer": "mixer_params", "corruption": "corruption"}
    settings: list[dict[str, Any]] = [
        {"job": j.id, "fraction": j.config.fraction,
         **{f"{room}.{k}": _scalar(v) for room, name in rooms.items() for k, v in getattr(j.config, name).items()}}
        for j in jobs
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
