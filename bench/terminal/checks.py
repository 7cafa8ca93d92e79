"""What `bench audit`, `data check` and `doctor` print."""

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from rich.console import Console

from bench import encoders, registry
from bench.errors import BenchError
from bench.matrix import Config
from bench.plan import find_data
from bench.plural import count
from bench.store import Store
from bench.terminal.console import console, table


def print_audit(folder: Path) -> None:
    """`bench audit`: findings on the papers' own numbers, as a table and a csv."""
    from bench.analysis.audit import audit, summary, write_csv
    from bench.analysis.reported import load

    findings = audit(load())
    out = console()
    out.print(summary(findings))
    out.print(f"{count(len(findings), 'finding')}: {write_csv(findings, folder)}")


def print_data_check(folder: Path, as_json: bool = False, page: Path | None = None, quick: bool = False) -> int:
    """`bench data check DIR`: 0 where at least one file can be used, else 2."""
    from bench.data.tools import check, others
    from bench.terminal import data_page

    if not folder.is_dir():
        raise BenchError(f"{folder}: no such folder")
    rows = check(folder, full=not quick)
    rest = others(folder, rows)
    if as_json:
        print(data_page.as_json(folder, rows, rest))
    else:
        data_page.print_rows(rows, rest)
    if page is not None:
        try:
            data_page.write_html(page, folder, rows, rest)
        except OSError as error:
            raise BenchError(f"{page}: cannot be written ({error.strerror})") from None
        if not as_json:
            print(page)
    return 0 if any(r.state == "ok" for r in rows) else 2


def print_verified(results: Path, deep: bool) -> int:
    """`bench verify`: 0 where every stored result is what a run wrote, else 1."""
    from bench.verify import verify

    if not results.is_dir():
        raise BenchError(f"no results in {results}; --results names another folder")
    found = verify(Store(results), deep)
    out = console()
    if found.wrong:
        lines = table("damaged result", "why")
        for folder, why in found.wrong:
            lines.add_row(folder, why)
        out.print(lines)
        if len(found.hidden) < len(found.wrong):
            out.print("`bench run` makes " + ("the others" if found.hidden else "them") + " again")
        if found.hidden:
            out.print(f"to a run these are finished: remove their folders, and `bench run` makes them again: {', '.join(found.hidden)}")
    said = f"{count(found.results, 'result')}: {found.sealed} sealed, {found.results - found.sealed} not sealed (of an earlier version)"
    out.print(f"{said}, {len(found.wrong)} damaged" + (f"; metrics of {found.recomputed} recomputed from their predictions" if deep else ""))
    return 1 if found.wrong else 0


def print_merged(into: Path, others: Sequence[Path]) -> int:
    """`bench merge`: 0 where all could be joined, 1 where results contradict each other or are damaged."""
    from bench.merge import merge

    found = merge(into, others)
    out = console()
    for job in found.conflicts:
        out.print(f"conflict: {job} is another in {into}, which stays")
    for folder, why in found.damaged:
        out.print(f"left out: {folder}: {why}")
    out.print(f"{count(found.copied, 'result')} copied into {into}, {found.present} there before, {count(len(found.conflicts), 'conflict')}, {len(found.damaged)} damaged")
    return 1 if found.conflicts or found.damaged else 0


def print_doctor(data_dir: Path | None) -> int:
    """`bench doctor`: device, versions, memory, data and encoders found, and what follows from that."""
    import torch

    from bench import environment
    from bench.experiments import select
    from bench.plan import make_plan
    from bench.suites import suite

    if data_dir is not None and not data_dir.is_dir():
        raise BenchError(f"--data {data_dir}: no such folder")
    out = console()
    code = environment.code()
    commit = f"{(code['commit'] or 'no git checkout')[:12]}{' (modified)' if code['dirty'] else ''}"
    out.print(f"bench {metadata.version('msa-bench') if _installed('msa-bench') else 'from its source folder'}, commit {commit}")
    out.print(f"python {platform.python_version()}, torch {torch.__version__}, {count(len(os.sched_getaffinity(0)), 'core')}, {_memory_gib():.0f} GiB memory")
    n = torch.cuda.device_count()
    for i in range(n):
        p = torch.cuda.get_device_properties(i)
        out.print(f"GPU {i}: {p.name}, {p.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")
        _print_selftest(out, f"cuda:{i}")
    if not n:
        out.print("no usable GPU: jobs run on CPU, one thread each")
    out.print("\nencoders")
    for name in encoders.SPECS:
        present, reason = encoders.available(name)
        out.print(f"  {'+' if present else '-'} {name}{'' if present else ': ' + reason}")
    out.print("\ndata" + (f" in {data_dir}" if data_dir else " (no --data given)"))
    for name in registry.names("datasets"):
        for features in registry.load("datasets", name).SPEC.features:
            found = find_data([Config(name, features, "")], data_dir)[name, features]
            out.print(f"  {'+' if found.path else '-'} {name}/{features}: {found.provenance or found.reason}")
    plan = make_plan(select(()), suite("paper"), Store("results"), data_dir)
    runnable = {j.config.id for j in plan.jobs} - set(plan.blocked)
    out.print(f"\nsuite paper: {sum(j.config.id in runnable for j in plan.jobs)} of {count(len(plan.jobs), 'job')} can run here")
    for reason in sorted(set(plan.blocked.values())):
        out.print(f"  {count(sum(plan.blocked.get(j.config.id) == reason for j in plan.jobs), 'job')} cannot: {reason}")
    return 0


def _print_selftest(out: Console, device: str) -> None:
    from bench.selftest import check

    for finding in check(device):
        out.print(f"  {'+' if finding.well else '-'} {finding.what}: {finding.line}")


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
