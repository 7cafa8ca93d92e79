"""Runs in progress, as files in the results folder: what `bench status` shows and `bench cancel` stops.

`<results>/runs/<id>.json` names a run's process, machine and command, counts how its jobs ended and is touched as a
heartbeat; `<id>.cancel` asks it to stop. So a grid can be looked at, and ended, from whatever machine sees the folder.
"""

import contextlib
import os
import shlex
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.files import read_json, write_json
from bench.launch import owner
from bench.launch.worker import Outcome
from bench.store import Store

BEAT = 5.0
DEAD = 90.0
RUNNING, DONE, STOPPED, LOST = "running", "done", "stopped", "lost"
_KEPT_FAILURES = 20


@dataclass(frozen=True)
class Session:
    """One `bench run` or `bench tune`, as its file says."""

    id: str
    pid: int
    host: str
    started: float  # seconds since the epoch
    command: str
    executor: str
    total: int  # jobs that it was to run
    done: int = 0
    failed: int = 0
    state: str = RUNNING
    ended: float | None = None
    began: str = ""  # when its process began, in the kernel's ticks: a number can be another process by now
    failures: tuple[str, ...] = ()  # the last ones
    seconds: float = 0.0  # of its finished jobs, added up
    log: str = ""  # of a detached run

    @property
    def left(self) -> int:
        return max(self.total - self.done - self.failed, 0)

    def rate(self, now: float) -> float:
        """Jobs per hour so far."""
        passed = (self.ended or now) - self.started
        return 3600.0 * (self.done + self.failed) / passed if passed > 0 else 0.0

    def eta(self, now: float) -> float | None:
        """Seconds left at the rate so far; None before the first job has ended."""
        rate = self.rate(now)
        return 3600.0 * self.left / rate if rate else None


class Running:
    """A session of this process: hears outcomes, beats, and ends the process where it was cancelled."""

    def __init__(self, store: Store, command: Sequence[str], executor: str, total: int) -> None:
        now = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
        self.store, self._dirty, self._over = store, False, threading.Event()
        self._lock = threading.Lock()
        self.session = Session(
            f"{stamp}-{os.getpid()}-{uuid.uuid4().hex[:4]}", os.getpid(), owner.host(), now, shlex.join(command), executor, total,
            began=owner.started(os.getpid()), log=os.environ.get("BENCH_DETACHED_LOG", ""),
        )
        self._write()
        self._thread = threading.Thread(target=self._beat, name="session", daemon=True)
        self._thread.start()

    @property
    def path(self) -> Path:
        return _folder(self.store) / f"{self.session.id}.json"

    def expect(self, jobs: int) -> None:
        """So many more are to be run."""
        with self._lock:
            self.session = replace(self.session, total=self.session.total + jobs)
            self._dirty = True

    def heard(self, outcome: Outcome) -> None:
        """Count how a job ended."""
        s, failed = self.session, outcome.status != "done"
        c = outcome.job.config
        line = f"{c.dataset} {c.backbone}+{c.mixer} seed {outcome.job.seed}: {outcome.error}"
        with self._lock:
            self.session = replace(
                s, done=s.done + (not failed), failed=s.failed + failed, seconds=s.seconds + outcome.seconds,
                failures=(*s.failures, line)[-_KEPT_FAILURES:] if failed else s.failures,
            )
            self._dirty = True

    def end(self, state: str) -> None:
        self._over.set()
        self._thread.join(timeout=2 * BEAT)
        self.session = replace(self.session, state=state, ended=time.time())
        self._write()
        _cancel_file(self.store, self.session.id).unlink(missing_ok=True)

    def _write(self) -> None:
        with self._lock:
            self._dirty = False
            session = self.session
        with contextlib.suppress(BenchError, OSError):  # a full disk must not end a run that could go on elsewhere
            write_json(self.path, asdict(session))

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            if self._dirty:
                self._write()
            else:
                with contextlib.suppress(OSError):
                    os.utime(self.path)
            if _cancel_file(self.store, self.session.id).exists():
                os.kill(os.getpid(), signal.SIGTERM)
                return


@contextlib.contextmanager
def session(store: Store, command: Sequence[str], executor: str, total: int) -> Iterator[Running]:
    """A run of `total` jobs, in its file from now to its end, however that comes."""
    running = Running(store, command, executor, total)
    state = STOPPED
    try:
        yield running
        state = DONE
    finally:
        running.end(state)


def _folder(store: Store) -> Path:
    return store.root / "runs"


def _cancel_file(store: Store, session_id: str) -> Path:
    return _folder(store) / f"{session_id}.cancel"


def sessions(store: Store) -> list[Session]:
    """All of a results folder, the oldest first; a run whose process is gone without a word is "lost"."""
    found = []
    for path in sorted(_folder(store).glob("*.json")):
        with contextlib.suppress(BenchError, TypeError, AttributeError):
            raw: dict[str, Any] = read_json(path) or {}
            s = Session(**{**raw, "failures": tuple(raw.get("failures", ()))})
            found.append(replace(s, state=LOST) if s.state == RUNNING and not _lives(s, path) else s)
    return sorted(found, key=lambda s: s.started)


def _lives(s: Session, path: Path) -> bool:
    if s.host == owner.host():
        now = owner.started(s.pid)
        return bool(now) and now == s.began
    probe = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:  # the file system's own clock: those of machines are not compared
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime < DEAD
    except OSError:
        return time.time() - path.stat().st_mtime < DEAD
    finally:
        probe.unlink(missing_ok=True)


@dataclass(frozen=True)
class Held:
    """A job that somebody is running now."""

    job_id: str
    cell: str  # "mosi/lmf+msmix"
    host: str
    line: str = ""  # the last line of its training: "epoch 7 train 1.0321 valid 1.1020 avg 0.6412"
    age: float = 0.0  # seconds since that line
    extra: dict[str, Any] = field(default_factory=dict)


def held(store: Store) -> list[Held]:
    """Jobs in training, by the locks beside their folders."""
    found = []
    for lock in sorted(store.root.glob("*/*/.*.lock")):
        name = lock.name[1:].removesuffix(".lock")
        who = owner.holder(lock)
        if not who or not owner.lives(lock):
            continue
        live = max(lock.parent.glob(f".{name}.*.new/live.txt"), key=lambda p: p.stat().st_mtime, default=None)
        line, age = "", 0.0
        with contextlib.suppress(OSError):
            if live is not None:
                line, age = live.read_text(encoding="utf-8").strip().rpartition("\n")[2], time.time() - live.stat().st_mtime
        found.append(Held(name, str(lock.parent.relative_to(store.root)), who, line, age))
    return found


def in_progress(store: Store) -> bool:
    """Whether any run, or any job by itself, is under way on a results folder."""
    return any(s.state == RUNNING for s in sessions(store)) or bool(held(store))


def cancel(store: Store, session_id: str = "") -> list[Session]:
    """Ask running sessions to stop: all, or the one whose id begins so. Returns which were asked. Raises BenchError where
    none runs."""
    wanted = [s for s in sessions(store) if s.state == RUNNING and s.id.startswith(session_id)]
    if not wanted:
        what = f"no run '{session_id}'" if session_id else "nothing"
        raise BenchError(f"{what} is running on {store.root}; `bench status` shows what was")
    for s in wanted:
        _cancel_file(store, s.id).touch()
    return wanted
