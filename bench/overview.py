"""What the verbs print: lists, plans, failures, checks. Everything here reads; nothing trains."""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import encoders, registry
from bench.errors import BenchError
from bench.estimate import CPU, GPU
from bench.matrix import Config, Experiment, Job, expand
from bench.measure.spec import Measure, failure
from bench.plan import Plan, find_data, read_manifest
from bench.progress import clock
from bench.store import DONE, FAILED, STALE, Store, read_json

_SHOWN = 5  # artefacts named in a line before the rest is counted only


def _console() -> Console:
    width = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 160
    return Console(width=width, highlight=False, emoji=False)


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for c in columns:
        table.add_column(c, justify="right" if c in right else "left", no_wrap=c in right or c == "artefact")
    return table


def _artefact_row(plan: Plan, e: Experiment) -> dict[str, Any]:
    jobs = plan.jobs_of(e)
    new = [j for j in jobs if plan.needed_by[j.id][0] == e.id]
    blocked = [j for j in jobs if j.config.id in plan.blocked and plan.status[j.id] != DONE]
    missing_rows = sum(c is None for r in e.rows for c in r.cells.values())
    return {
        "artefact": e.id, "title": e.title, "kind": e.kind, "needed": len(jobs), "new": len(new),
        "shares_with": list(dict.fromkeys(a for j in jobs for a in plan.needed_by[j.id] if a != e.id)),
        "done": plan.count(DONE, jobs), "failed": plan.count(FAILED, jobs), "stale": plan.count(STALE, jobs),
        "cannot_run": len(blocked), "not_implemented_rows": missing_rows,
        "new_gpu_hours": round(plan.remaining_seconds(new, GPU) / 3600, 2),
        "data": sorted({f"{c.dataset}/{c.features}" for c in e.configs()}) if e.seeds else [],
        "why": sorted({plan.blocked[j.config.id] for j in blocked}),
    }


def print_list(plan: Plan) -> None:
    """`bench list`: one line per artefact."""
    table = _table("artefact", "title", "needed", "done", "failed", "blocked", "data", right=("needed", "done", "failed", "blocked"))
    for e in plan.experiments:
        r = _artefact_row(plan, e)
        table.add_row(
            r["artefact"], r["title"], str(r["needed"]), str(r["done"]), str(r["failed"]), str(r["cannot_run"]),
            ", ".join(f"{d} {'+' if tuple(d.split('/')) in plan.data else '-'}" for d in r["data"]),
        )
    console = _console()
    console.print(table)
    console.print("\ndata: + found, - not found; blocked: data or encoder missing (`bench doctor` says which)")


def as_json(plan: Plan) -> dict[str, Any]:
    """`bench plan --json`. Hours are those of one worker: on one CPU core, or on one GPU."""
    todo = plan.todo()
    artefacts = [_artefact_row(plan, e) for e in plan.experiments]
    return {
        "suite": plan.suite.name,
        "artefacts": artefacts,
        "jobs": {"total": len(plan.jobs), "done": plan.count(DONE), "failed": plan.count(FAILED), "to_run": len(todo),
                 "before_deduplication": sum(a["needed"] for a in artefacts)},
        "estimated_hours": {d: round(plan.remaining_seconds(todo, d) / 3600, 3) for d in (CPU, GPU)},
        "all_jobs_hours": {d: round(plan.remaining_seconds(plan.jobs, d) / 3600, 3) for d in (CPU, GPU)},
        "measures": plan.figures.summary(),
        "adapted": plan.adapted,
        "to_run": [j.folder for j in todo],
    }


def print_plan(plan: Plan, brief: bool = False) -> None:
    """`bench plan`, and the head of `bench run`."""
    d, console = as_json(plan), _console()
    if not brief:
        _print_artefacts(d["artefacts"], console)
    jobs = d["jobs"]
    shared = jobs["before_deduplication"] - jobs["total"]
    line = f"suite {plan.suite.name}: {jobs['total']:,} jobs"
    if shared > 0:
        line += f" ({jobs['before_deduplication']:,} before shared runs are counted once)"
    console.print(
        f"{line}, by estimate {d['all_jobs_hours'][GPU]:,.1f} GPU-hours "
        f"or {d['all_jobs_hours'][CPU]:,.1f} CPU-core-hours"
    )
    console.print(
        f"{jobs['done']} done, {jobs['failed']} failed, {jobs['to_run']} to run here: about "
        f"{clock(3600 * d['estimated_hours'][GPU])} of one GPU "
        f"or {clock(3600 * d['estimated_hours'][CPU])} of one CPU core"
    )
    for line in plan.figures.lines():
        console.print(line)
    for line in plan.adapted:
        console.print(f"adapted: {line}")
    for reason in sorted(set(plan.blocked.values())):
        n = sum(plan.blocked.get(j.config.id) == reason for j in plan.jobs)
        console.print(f"cannot run {n} jobs: {reason}")


def _print_artefacts(artefacts: Sequence[dict[str, Any]], console: Console) -> None:
    """One line per artefact: jobs it needs, those no earlier artefact brings in, and which artefacts share the rest."""
    numbers = {"needed": "needed", "new": "new", "GPU h": "new_gpu_hours", "done": "done", "failed": "failed",
               "blocked": "cannot_run", "not run": "not_implemented_rows"}
    table = _table("artefact", *numbers, "shares runs with", right=tuple(numbers))
    for r in artefacts:
        shares = r["shares_with"]
        more = f" and {len(shares) - _SHOWN} more" if len(shares) > _SHOWN else ""
        table.add_row(r["artefact"], *(str(r[k]) for k in numbers.values()), ", ".join(shares[:_SHOWN]) + more)
    console.print(table)
    console.print(
        "\nneeded: jobs of the artefact; new: those that no artefact above needs, GPU h: their hours; blocked: data or "
        "encoder missing; not run: cells of systems that are not implemented, shown with their reported number"
    )


def print_failures(jobs: Sequence[Job], store: Store, measures: Sequence[tuple[Job, Measure]] = ()) -> None:
    """The table of failed jobs and measures, with where to read more."""
    if not jobs and not measures:
        return
    table = _table("failed job", "seed", "why", "log", right=("seed",))
    for j in jobs:
        c = j.config
        error = (read_json(store.folder(j) / "failed.json") or {}).get("error", "")
        table.add_row(f"{c.dataset} {c.backbone}+{c.mixer}", str(j.seed), error, f"{j.folder}/log.txt")
    for j, m in measures:
        c = j.config
        file = f"{j.folder}/{m.stem}.failed.json"
        table.add_row(f"{c.dataset} {c.backbone}+{c.mixer}", str(j.seed), failure(store, j, m), file)
    console = _console()
    console.print(table)
    console.print("`bench run --retry-failed` runs them again")


def build_report(args: argparse.Namespace) -> Path:
    """Render what is stored; returns the path of index.html."""
    from bench.report.build import build
    from experiments import select

    store = Store(args.results)
    name = args.suite or _last_suite(store)
    chosen, adapted = read_manifest(select(args.artefacts), store, name)
    if not chosen:
        raise BenchError(f"suite '{name}' was not run into {args.results} yet; `bench run --suite {name}` does that")
    hashes = {}
    if args.data is not None:
        found = find_data((c for e in chosen for c in e.configs()), args.data)
        hashes = {k: f.sha256 for k, f in found.items() if f.sha256}
    return build(chosen, store, args.out or Path("reports") / name, suite=name, data_hashes=hashes, adapted=adapted)


def _last_suite(store: Store) -> str:
    plans = sorted((store.root / "plans").glob("*.json"), key=lambda p: p.stat().st_mtime)
    if not plans:
        raise BenchError(f"no results in {store.root}; `bench run` makes them, --results names another folder")
    return plans[-1].stem


def watch_report(args: argparse.Namespace) -> Path:
    """Render again and again until no job of the artefacts is missing."""
    from experiments import select

    while True:
        page = build_report(args)
        store = Store(args.results)
        chosen, _ = read_manifest(select(args.artefacts), store, args.suite or _last_suite(store))
        jobs = expand(chosen)
        ended = sum(store.status(j) in (DONE, FAILED) for j in jobs)
        print(f"{ended} of {len(jobs)} ended: {page}", flush=True)
        if ended == len(jobs):
            return page
        time.sleep(args.watch)


def print_audit(out: Path) -> None:
    """`bench audit`: findings on the papers' own numbers, as a table and a csv."""
    from bench.analysis.audit import audit, summary, write_csv
    from bench.analysis.reported import load

    findings = audit(load())
    console = _console()
    console.print(summary(findings))
    console.print(f"{len(findings)} findings: {write_csv(findings, out)}")


def print_data_check(folder: Path) -> int:
    """`bench data check DIR`: 0 where at least one file can be used, else 2."""
    from bench.data.tools import check

    if not folder.is_dir():
        raise BenchError(f"{folder}: no such folder")
    rows = check(folder)
    table = _table("dataset", "features", "state", "file", "provenance", "sizes", "text / audio / vision")
    for r in rows:
        table.add_row(r.dataset, r.features, r.state, r.file, r.provenance, r.sizes, r.shapes)
    console = _console()
    console.print(table)
    for r in rows:
        for line in r.notes:
            console.print(f"{r.dataset}/{r.features}: {line}")
    return 0 if any(r.state == "ok" for r in rows) else 2


def print_doctor(data_dir: Path | None) -> int:
    """`bench doctor`: device, versions, memory, data and encoders found, and what follows from that."""
    import os
    import platform
    from importlib import metadata

    import torch

    from bench import environment
    from bench.plan import make_plan
    from bench.suites import suite
    from experiments import select

    console = _console()
    code = environment.code()
    commit = f"{(code['commit'] or 'no git checkout')[:12]}{' (modified)' if code['dirty'] else ''}"
    console.print(f"bench {metadata.version('msa-bench') if _installed('msa-bench') else 'from its source folder'}, commit {commit}")
    console.print(f"python {platform.python_version()}, torch {torch.__version__}, {len(os.sched_getaffinity(0))} cores, {_memory_gib():.0f} GiB memory")
    n = torch.cuda.device_count()
    for i in range(n):
        p = torch.cuda.get_device_properties(i)
        console.print(f"GPU {i}: {p.name}, {p.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")
    if not n:
        console.print("no usable GPU: jobs run on CPU, one thread each")
    console.print("\nencoders")
    for name in encoders.SPECS:
        present, reason = encoders.available(name)
        console.print(f"  {'+' if present else '-'} {name}{'' if present else ': ' + reason}")
    console.print("\ndata" + (f" in {data_dir}" if data_dir else " (no --data given)"))
    for name in registry.names("datasets"):
        for features in registry.load("datasets", name).SPEC.features:
            found = find_data([Config(name, features, "")], data_dir)[name, features]
            console.print(f"  {'+' if found.path else '-'} {name}/{features}: {found.provenance or found.reason}")
    plan = make_plan(select(()), suite("paper"), Store("results"), data_dir)
    runnable = {j.config.id for j in plan.jobs} - set(plan.blocked)
    console.print(f"\nsuite paper: {sum(j.config.id in runnable for j in plan.jobs)} of {len(plan.jobs)} jobs can run here")
    for reason in sorted(set(plan.blocked.values())):
        console.print(f"  {sum(plan.blocked.get(j.config.id) == reason for j in plan.jobs)} jobs cannot: {reason}")
    return 0


def _installed(name: str) -> bool:
    from importlib import metadata

    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _memory_gib() -> float:
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
