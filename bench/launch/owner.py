"""One owner per job: a lock beside its folder, on this machine and on every other that sees the same file system.

The lock is a file `.<job>.lock` that names its owner (host, process, start time) and is touched every few seconds. The
kernel's flock decides where it works: it is freed when its owner dies, however it dies. Where a file system has no
flock, or keeps one per machine only, what the file says decides: an owner on this machine lives while its process does,
one elsewhere while its heartbeat does, and a dead owner is taken over. Clocks of machines are not compared: "now" is the
time stamp that the file system gives to a file of ours.
"""

import errno
import fcntl
import json
import os
import platform
import threading
import time
import uuid
from functools import lru_cache
from pathlib import Path

from bench.errors import BenchError

BEAT = 10.0  # seconds between two heartbeats
DEAD = 90.0  # an owner elsewhere counts as dead after so many seconds without one
_SETTLE = 0.3  # seconds after which whoever took a dead owner's place looks whether nobody else did
_NO_FLOCK = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}
_FULL = {errno.ENOSPC: "disk full", errno.EDQUOT: "disk quota used up", errno.EACCES: "permission denied",
         errno.EROFS: "read-only file system"}


@lru_cache
def host() -> str:
    """This machine, boot and process namespace: two containers that share a host name are two hosts."""
    parts = [platform.node()]
    for read in (lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(), lambda: os.readlink("/proc/self/ns/pid")):
        try:
            parts.append(read())
        except OSError:
            parts.append("")
    return "/".join(parts)


def started(pid: int) -> str:
    """When a process here began, in the kernel's ticks; "" where there is no such process or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
        return "unknown"
    return "" if fields[0] in "ZX" else fields[19]


class Owned:
    """A lock that is held until `release`, and kept alive by a thread until then. Use as a context manager. inherited: an
    owner that died had it before, and may have left something behind."""

    def __init__(self, path: Path, fd: int, token: str, inherited: bool = False) -> None:
        self.path, self.token, self._fd, self.inherited = path, token, fd, inherited
        self._over = threading.Event()
        threading.Thread(target=self._beat, name=f"owner of {path.name}", daemon=True).start()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            if self.mine():
                try:
                    os.utime(self.path)
                except OSError:
                    pass

    def mine(self) -> bool:
        """Whether the lock still names this owner: looked at again before results are put in place."""
        found = _read(self.path)
        return found is not None and found.get("token", self.token) == self.token

    def release(self) -> None:
        self._over.set()
        if self._fd < 0:
            return
        if self.mine():
            self.path.unlink(missing_ok=True)  # before the lock is let go: nobody waits on a file that is gone
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> "Owned":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def take(path: Path) -> Owned | None:
    """Own what the lock file stands for, or None where another lives that owns it.

    Raises BenchError, in one line, where the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            before = path.exists()
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return None
            except OSError as e:
                os.close(fd)
                if e.errno not in _NO_FLOCK:
                    raise
                return _take_by_record(path, before)
            if not _is(fd, path):  # its owner has just ended and removed it
                os.close(fd)
                continue
            other = _read(path)
            if other and other.get("host") != host() and _beats(path):
                os.close(fd)  # this file system's flock does not reach the other machine
                return None
            return Owned(path, fd, _write(fd), before)
    except OSError as e:
        what = _FULL.get(e.errno, str(e.strerror).lower())
        raise BenchError(f"{what} while locking {path.parent}; mend that or choose another folder with --results") from None


def holder(path: Path) -> str:
    """Who owns it, in words: "process 4711 on node7"; "" where nobody is named."""
    found = _read(path) or {}
    return f"process {found['pid']} on {str(found['host']).partition('/')[0]}" if {"pid", "host"} <= set(found) else ""


def lives(path: Path) -> bool:
    """Whether somebody who lives has it, without taking it."""
    found = _read(path)
    return bool(found) and "pid" in found and _lives(found, path)


def _take_by_record(path: Path, inherited: bool) -> Owned | None:
    """Without flock. `take` has made the file where there was none: an empty one is whoever's makes it first."""
    claim = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    fd = os.open(claim, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    token = _write(fd)
    try:
        if (other := _read(path)) is not None and other and _lives(other, path):
            os.close(fd)
            return None
        os.replace(claim, path)
        time.sleep(_SETTLE)
        if (_read(path) or {}).get("token") != token:
            os.close(fd)
            return None
        return Owned(path, fd, token, inherited)
    finally:
        claim.unlink(missing_ok=True)


def _lives(record: dict, path: Path) -> bool:
    if record.get("host") == host():
        now = started(int(record.get("pid", 0)))
        return bool(now) and now == record.get("started")
    return _beats(path)


def _beats(path: Path) -> bool:
    """Whether its owner's heartbeat is fresh, by the file system's own clock."""
    probe = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime < DEAD
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)


def _is(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _write(fd: int) -> str:
    """Name this process in the file; returns the token that tells this owning from every other. A full disk keeps the
    record out, not the lock."""
    token = uuid.uuid4().hex
    record = {"host": host(), "pid": os.getpid(), "started": started(os.getpid()), "token": token}
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(record).encode(), 0)
    except OSError:
        pass
    return token


def _read(path: Path) -> dict | None:
    """What the file says: {} where it says nothing (yet), None where there is no file."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
