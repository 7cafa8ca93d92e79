"""What `bench list`, `plan` and `run` print of artefacts and jobs. Everything here reads; nothing trains."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from bench.estimate import CPU, GPU
from bench.matrix import Experiment, Job
from bench.measure.spec import Measure, failure
from bench.plan import Plan
from bench.plural import count
from bench.records import read_failure
from bench.remarks import UNRUN, remarks
from bench.store import DAMAGED, DONE, FAILED, STALE, Store
from bench.terminal.console import clock, console, table

_NARROW = 100  # columns of a terminal
_TIGHT = 76  # those in which a plan's numbers have room
_SHOWN = 5  # artefacts named in a line before the rest is counted only


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
    out = console()
    narrow = out.width < _NARROW  # what an artefact is called comes first; the rest as far as there is room
    numbers = ("needed", "done") if narrow else ("needed", "done", "failed", "blocked")
    lines = table("artefact", "title", *numbers, *(() if narrow else ("data",)), right=numbers)
    for e in plan.experiments:
        r = _artefact_row(plan, e)
        counts = {"needed": r["needed"], "done": r["done"], "failed": r["failed"], "blocked": r["cannot_run"]}
        data = ", ".join(f"{d} {'+' if d.startswith('synthetic-') or tuple(d.split('/')) in plan.data else '-'}" for d in r["data"])
        lines.add_row(r["artefact"], r["title"], *(str(counts[n]) for n in numbers), *(() if narrow else (data,)))
    out.print(lines)
    blocked = "blocked: data or encoder missing (`bench doctor` says which)"
    out.print(f"\nfailed, blocked and data are shown from {_NARROW} columns on" if narrow else f"\ndata: + found or generated, - not found; {blocked}")
    _print_remarks(plan.experiments, out)


def _print_remarks(experiments: Sequence[Experiment], out: Console) -> None:
    """Rows that are not run, and why; rows that were built from a description, and of what."""
    for r in remarks(experiments):
        out.print(f"{r.kind if r.kind != UNRUN or r.text else 'not implemented'}: {r.name} ({_some(r.artefacts)}){f': {r.text}' if r.text else ''}")


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
        "remarks": [{"kind": r.kind, "row": r.name, "why": r.text, "artefacts": list(r.artefacts)} for r in remarks(plan.experiments)],
        "adapted": plan.adapted,
        "to_run": [j.folder for j in todo],
    }


def print_plan(plan: Plan, brief: bool = False) -> None:
    """`bench plan`, and the head of `bench run`."""
    d, out = as_json(plan), console()
    if not brief:
        _print_artefacts(d["artefacts"], out)
        _print_remarks(plan.experiments, out)
    jobs = d["jobs"]
    shared = jobs["before_deduplication"] - jobs["total"]
    line = f"suite {plan.suite.name}: {count(jobs['total'], 'job')}"
    if shared > 0:
        line += f" ({jobs['before_deduplication']:,} before shared runs are counted once)"
    out.print(
        f"{line}, by estimate {_hours(d['all_jobs_hours'][GPU])} GPU-hours "
        f"or {_hours(d['all_jobs_hours'][CPU])} CPU-core-hours"
    )
    hours = f": about {clock(3600 * d['estimated_hours'][GPU])} of one GPU or {clock(3600 * d['estimated_hours'][CPU])} of one CPU core"
    out.print(f"{jobs['done']} done, {jobs['failed']} failed, {jobs['to_run'] or 'none'} to run here{hours if jobs['to_run'] else ''}")
    if n := plan.count(DAMAGED):
        out.print(f"{count(n, 'stored result is', 'stored results are')} damaged and will be made again (`bench verify` says what is wrong)")
    for line in plan.figures.lines():
        out.print(line)
    for line in plan.notes:
        out.print(f"note: {line}")
    for line in plan.adapted:
        out.print(f"adapted: {line}")
    for reason in sorted(set(plan.blocked.values())):
        n = sum(plan.blocked.get(j.config.id) == reason for j in plan.jobs)
        out.print(f"cannot run {count(n, 'job')}: {reason}")


def _hours(n: float) -> str:
    return "less than 0.1" if 0 < n < 0.1 else f"{n:,.1f}"


def _print_artefacts(artefacts: Sequence[dict[str, Any]], out: Console) -> None:
    """One line per artefact: jobs it needs, those no earlier artefact brings in, and which artefacts share the rest."""
    numbers = {"needed": "needed", "new": "new", "GPU h": "new_gpu_hours", "done": "done", "failed": "failed",
               "blocked": "cannot_run", "not run": "not_implemented_rows"}
    narrow = out.width < _TIGHT
    if narrow:  # whole columns or none
        numbers = {k: numbers[k] for k in ("needed", "done", "blocked")}
    lines = table("artefact", *numbers, *(() if narrow else ("shares runs with",)), right=tuple(numbers))
    for r in artefacts:
        lines.add_row(r["artefact"], *(str(r[k]) for k in numbers.values()), *(() if narrow else (_some(r["shares_with"]),)))
    out.print(lines)
    if narrow:
        out.print(f"\nblocked: data or encoder missing; more columns on {_TIGHT} and more")
        return
    out.print(
        "\nneeded: jobs of the artefact; new: those that no artefact above needs, GPU h: their hours; blocked: data or "
        "encoder missing; not run: cells of systems that are not run here, shown with their reported number"
    )


def _some(artefacts: Sequence[str]) -> str:
    more = f" and {len(artefacts) - _SHOWN} more" if len(artefacts) > _SHOWN else ""
    return ", ".join(artefacts[:_SHOWN]) + more


def print_failures(
    jobs: Sequence[Job], store: Store, measures: Sequence[tuple[Job, Measure]] = (), errors: Mapping[str, str] | None = None,
) -> None:
    """The table of failed jobs and measures, with where to read more. `errors`: job id -> what its worker said, where
    that could not be stored."""
    if not jobs and not measures:
        return
    lines = table("failed job", "seed", "why", "log", right=("seed",))
    for j in jobs:
        c = j.config
        stored = read_failure(store.folder(j))
        error = stored["error"] if stored else (errors or {}).get(j.id, "")
        log = next((n for n in ("failed-log.txt", "log.txt") if (store.folder(j) / n).exists()), "")
        lines.add_row(f"{c.dataset} {c.backbone}+{c.mixer}", str(j.seed), error, f"{j.folder}/{log}" if stored and log else "")
    for j, m in measures:
        c = j.config
        file = f"{j.folder}/{m.stem}.failed.json"
        lines.add_row(f"{c.dataset} {c.backbone}+{c.mixer}", str(j.seed), failure(store, j, m), file)
    out = console()
    out.print(lines)
    out.print("`bench run --retry-failed` runs them again")
