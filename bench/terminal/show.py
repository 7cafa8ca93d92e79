"""`bench show JOB`: one job in full, as it lies on disk: settings and where they come from, metrics, files, and the tables
that use it."""

import re
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.manifest import read_manifest, suites_run
from bench.matrix import Experiment, Job, Row
from bench.report.settings import settings_of
from bench.settings import current
from bench.store import DONE, FAILED, Store, read_json
from bench.suites import suite
from bench.terminal.console import console, table


def find(store: Store, name: str) -> Job:
    """The job of an id, the beginning of one, or a folder. Raises BenchError where there is none, or several."""
    jobs = store.scan()
    wanted = Path(name).name
    exact = [j for j in jobs if j.id == wanted]
    found = exact or [j for j in jobs if j.id.startswith(wanted)]
    if not found:
        raise BenchError(f"no job '{name}' in {store.root}; runs.csv beside a report lists all of them")
    if len(found) > 1:
        raise BenchError(f"{len(found)} jobs in {store.root} begin with '{wanted}': {', '.join(j.id for j in found[:6])}{' ...' if len(found) > 6 else ''}")
    return found[0]


def uses(store: Store, job: Job) -> list[tuple[str, Experiment, Row]]:
    """(suite, artefact, row) of every table and figure, as they were run, that a job's config stands in."""
    from bench.experiments import select

    return [
        (name, e, row)
        for name in suites_run(store) for e in read_manifest(select(()), store, suite(name), True)[0]
        for row in e.rows if job.config in row.cells.values()
    ]


def print_job(store: Store, name: str, page: Path | None = None) -> None:
    """Print a job; with `page`, write a page of it there too (report/job_page.py)."""
    job = find(store, name)
    folder, c, out = store.folder(job), job.config, console()
    places = uses(store, job)
    env: dict[str, Any] = read_json(folder / "env.json") or {}
    state = store.status(job)
    print(f"{job.id}: {c.backbone} + {c.mixer} on {c.dataset} ({c.features}), seed {job.seed}: {state}")
    print(f"folder   {folder}")
    if state == FAILED:
        print(f"failed   {(read_json(folder / 'failed.json') or {}).get('error', '')}")
    for key in ("provenance", "data_sha256", "commit", "device", "wall_seconds", "parameters"):
        if env.get(key) not in (None, ""):
            print(f"{key:<8} {env[key]}")
    old = {k: v for k, v in c.versions.items() if current(c).versions[k] != v}
    if old:
        print("versions " + ", ".join(f"{k} {v} (here: {current(c).versions[k]})" for k, v in old.items()))

    print("\nsettings")
    lines = table("setting", "value", "from")
    suite_name, e, row = places[0] if places else ("", _bare(c.backbone), Row(c.backbone))
    for s in settings_of(e, row, c, suite_name):
        lines.add_row(s.name, s.value, s.source)
    out.print(lines)

    metrics = read_json(folder / "metrics.json") if state == DONE else None
    if metrics:
        print(f"\nmetrics (best epoch {metrics.get('best_epoch')} of {metrics.get('epochs')})")
        lines = table("metric", "valid", "test", right=("valid", "test"))
        for m in dict.fromkeys([*metrics["valid"], *metrics["test"]]):
            lines.add_row(m, *(_number(metrics[split].get(m)) for split in ("valid", "test")))
        out.print(lines)

    print("\nfiles")
    for path in sorted(p for p in folder.iterdir() if not p.name.startswith(".")):
        print(f"  {path.name:<28} {path.stat().st_size:>10,} bytes")
    print("\nused by")
    for suite_name, e, row in places:
        labels = row.title + (f" [{row.departs}]" if row.departs else "")
        print(f"  {e.id} (suite {suite_name}): {labels}")
    if not places:
        print("  no table or figure that was asked for here")
    if page is not None:
        from bench.report.job_page import write_page

        print(f"\n{write_page(store, job, places, page)}")


def _bare(backbone: str) -> Experiment:
    return Experiment("", "", backbone, "table")


def _number(value: Any) -> str:
    return "" if value is None else re.sub(r"^-", "\u2212", f"{value:.4f}")
