"""What `bench status`, `cancel` and `run --detach` print."""

import os
import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.interpreter import command
from bench.launch.sessions import RUNNING, Session, held, sessions
from bench.plural import count
from bench.store import Store
from bench.terminal.console import clock, console, table

_SHOWN = 5  # ended runs that are listed
_LINES = 8  # failures that are listed
_PATIENCE = 120.0  # seconds in which a detached run must have planned


def print_status(results: Path) -> bool:
    """Runs, what they are training now, and their last failures; returns whether any runs."""
    store, out, now = Store(results), console(), time.time()
    every = sessions(store)
    live = [s for s in every if s.state == RUNNING]
    shown = [*[s for s in every if s.state != RUNNING][-_SHOWN:], *live]
    lines = table("run", "state", "done", "failed", "left", "jobs/h", "time left", "where", "command", right=("done", "failed", "left", "jobs/h", "time left"))
    for s in shown:
        eta = s.eta(now) if s.state == RUNNING else None
        lines.add_row(
            s.id, s.state, str(s.done), str(s.failed), str(s.left), f"{s.rate(now):.1f}", "" if eta is None else clock(eta),
            f"{s.host.partition('/')[0]}, {s.executor}", s.command,
        )
    out.print(lines if shown else f"nothing was run into {results} yet")
    jobs = held(store)
    if jobs:
        working = table("in training", "seed", "by", "last line")
        for j in jobs:
            seed = j.job_id.rpartition("-s")[2]
            stale = f" ({clock(j.age)} ago)" if j.line and j.age > 60 else ""
            working.add_row(j.cell, seed, j.host, j.line + stale)
        out.print()
        out.print(working)
    failures = [line for s in shown for line in s.failures][-_LINES:]
    if failures:
        out.print("\nlast failures")
        for line in failures:
            out.print(f"  {line}")
    return bool(live)


def watch_status(results: Path, seconds: float) -> None:
    """Print again and again until nothing runs."""
    while print_status(results):
        time.sleep(seconds)
        console().print()


def detach(arguments: Sequence[str], results: Path) -> int:
    """Start the same command in the background, without this terminal; returns once it has planned and begun, or with
    its exit code where it ended before. Raises BenchError where its log cannot be written."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    log = results / "runs" / f"{stamp}.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = open(log, "ab")
    except OSError as e:
        raise BenchError(f"cannot write {log}: {str(e.strerror).lower()}; choose another folder with --results") from None
    with file:
        process = subprocess.Popen(
            command("from bench.cli import main; sys.exit(main())", *arguments), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            env={**os.environ, "BENCH_DETACHED_LOG": str(log)}, start_new_session=True,
        )
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        code = process.poll()
        if code is not None:
            print(log.read_text(encoding="utf-8", errors="replace").rstrip())
            return code
        begun: list[Session] = [s for s in sessions(Store(results)) if s.pid == process.pid]
        if begun:
            print(f"run {begun[0].id} began, {count(begun[0].total, 'job')}; its output goes to {log}")
            break
        time.sleep(0.2)
    else:
        print(f"process {process.pid} is still planning; its output goes to {log}")
    where = f"--results {shlex.quote(str(results))}"
    print(f"look: bench status {where}    stop: bench cancel {where}")
    return 0
