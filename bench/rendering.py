"""Rendering what is stored (`bench.report`): which artefacts were run, as they were run."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.folders import recall, remember_report
from bench.found import read_folders, suite_of
from bench.launch.sessions import in_progress
from bench.manifest import read_manifest, suites_run
from bench.matrix import Experiment, expand
from bench.plan import find_data, restricted
from bench.plural import count
from bench.selectors import Only
from bench.store import DONE, FAILED, Store
from bench.suites import suite as suite_named


def report(
    artefacts: Iterable[str] = (), results: str | Path = "results", suite: str | None = None,
    data: str | Path | None = None, out: str | Path | None = None, *, seeds: int | None = None, only: str | Sequence[str] | None = None,
    variants: bool = False, split: str = "test",
) -> Path:
    """Render what is stored; returns the path of index.html. `suite` None: the one that was run last. `seeds` and `only`
    show a part of it; `variants`: everything that ran with other settings is a row of its own."""
    from bench.report.build import build
    from bench.report.folder import claimed
    from bench.report.payload import Rerun

    store, artefacts = Store(results, indexed=True), list(artefacts)
    if fixed := _without_runs(artefacts, store):
        return _remembered(build(fixed, store, claimed(store, suite or "paper", out), suite=suite or "paper"))
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
    page = build(
        chosen, store, claimed(store, name if split == "test" else f"{name}-{split}", out), suite=name, data_hashes=hashes, seeds=seeds, adapted=departures, rerun=rerun, split=split,
    )
    return _remembered(page)


def _remembered(page: Path) -> Path:
    remember_report(page)
    return page


def _without_runs(named: list[str], store: Store) -> list[Experiment]:
    """The artefacts that are named, where none of them trains anything and nothing was run yet: they can be rendered."""
    from bench.experiments import select

    wanted = select(named) if named else []
    return [] if any(e.seeds for e in wanted) or suites_run(store) else wanted


def as_run(
    artefacts: Iterable[str] = (), results: str | Path = "results", suite: str | None = None, only: str | Sequence[str] | None = None,
    variants: bool = False,
) -> tuple[list[Experiment], list[str]]:
    """(artefacts as they were run, where that departs from their definition). Raises BenchError where nothing was run,
    or nothing of what is asked for."""
    from bench.experiments import select

    store, named = Store(results, indexed=True), list(artefacts)
    s = suite_named(suite or _last_suite(store))
    name, wanted = s.name, select(named)
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
    if picked := Only(only):
        chosen = [part for e in chosen if (part := restricted(e, picked)).rows]
        if not chosen:
            raise BenchError("; ".join([f"--only {picked.text}: no cell that was run into {store.root} matches", *picked.unmet()]))
        departures = [*departures, *picked.unmet()]
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
            say(f"nothing runs any more: {count(len(jobs) - ended, 'job has', 'jobs have')} no result; `bench run` makes them, `bench plan` says which cannot run here")
            return page
        idle = not busy
        time.sleep(seconds)


def _last_suite(store: Store) -> str:
    found = suites_run(store)
    name = found[-1] if found else suite_of(store)
    if name is None:
        raise BenchError(f"no results in {store.root}; `bench run` makes them, --results names another folder")
    return name
