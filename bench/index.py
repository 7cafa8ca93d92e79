"""What job folders say, kept beside them in `<results>/.index.sqlite`, so that a report need not read them all again.

The index is never the truth: an entry counts only while the files that it was read from are, by inode, size and times,
those that are there, and while the rules that read them (records.py, metrics.py) are as they were. It is made again
wherever it is missing, damaged or of other rules, and whoever cannot write or lock it does without. Several processes
may use one at once. Removing the file costs nothing but time.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

try:
    import sqlite3
except ImportError:  # a Python that was built without it
    sqlite3 = None  # type: ignore[assignment]

NAME = ".index.sqlite"
FEW = 200  # entries below which no index is begun: reading so few folders is quick
_RULES = ("records.py", "metrics.py", "index.py")
_BUFFER = 4000  # entries that are written in one transaction
_SETTLED = 2_000_000_000  # ns: files that changed later than this before now may change again within one tick of their clock
_PATIENCE = 2.0  # seconds to wait for another process's transaction
_TABLES = (
    "CREATE TABLE IF NOT EXISTS rules (rules TEXT)",
    "CREATE TABLE IF NOT EXISTS entries (name TEXT PRIMARY KEY, state BLOB, content TEXT, seal BLOB)",
)
State = tuple[tuple[int, ...] | None, ...]


def state(folder: str, names: Iterable[str]) -> State | None:
    """The state of files in a folder: (inode, size, modified, changed) each, None for one that is not there; None where
    there is no such folder."""
    return tuple(_stamp(f"{folder}/{n}") for n in names) if _stamp(folder) else None


def _stamp(path: str) -> tuple[int, ...] | None:
    try:
        s = os.stat(path)
    except (OSError, ValueError):  # a name that no file can have
        return None
    return s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns


@lru_cache
def _rules() -> str:
    digest = hashlib.sha256()
    for name in _RULES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()


class Index:
    """`get` and `put` JSON values by a name and the state of the files behind them; `flush` writes what was put."""

    def __init__(self, root: Path) -> None:
        self.path, self._db, self._new, self._off = root / NAME, None, {}, sqlite3 is None
        self._opened = False
        self._damaged = False

    def get(self, name: str, now: State) -> Any:
        """The value, or None where none is known for this state."""
        name = _name(name)
        if name in self._new and self._new[name][0] == now:
            return self._new[name][1]
        if (db := self._reading()) is None:
            return None
        key = _digest(repr(now))
        try:
            row = db.execute("SELECT content, seal FROM entries WHERE name = ? AND state = ?", (name, key)).fetchone()
        except sqlite3.Error as e:
            self._fail(e)
            return None
        if row is None or not isinstance(row[0], str) or row[1] != _seal(name, key, row[0]):
            return None
        try:
            return json.loads(row[0])
        except ValueError:
            return None

    def put(self, name: str, now: State, value: Any) -> None:
        """Remember a value, unless its files are so fresh that another change could look the same."""
        if self._off or max((s[3] for s in now if s), default=0) > time.time_ns() - _SETTLED:
            return
        self._new[_name(name)] = now, value
        if len(self._new) >= _BUFFER:
            self.flush()

    def flush(self) -> None:
        """Write what was put. A folder that cannot be written, a full disk and another process in the way cost the
        entries and nothing else."""
        new, self._new = self._new, {}
        if self._off or not new or len(new) < FEW and not self.path.exists():
            return
        rows = [(name, key := _digest(repr(now)), text := json.dumps(value), _seal(name, key, text)) for name, (now, value) in new.items()]
        for _ in range(2):
            try:
                self._write(rows)
                return
            except sqlite3.Error as e:
                self._fail(e)
                if not self._damaged:
                    return
                with contextlib.suppress(OSError):  # begun anew, once
                    self.path.unlink(missing_ok=True)
                self._damaged = self._off = False

    def close(self) -> None:
        """Write what was put, and let go of the file."""
        self.flush()
        if self._db is not None:
            self._db.close()
        self._db, self._opened = None, False

    def _write(self, rows: list[tuple[str, bytes, str, bytes]]) -> None:
        with contextlib.closing(_connect(self.path, "rwc")) as db:
            # No journal on disk: a process that is killed within a write leaves entries whose seals are wrong, or a file
            # that is damaged, and both are read anew; a journal beside a file that was replaced would do worse.
            db.execute("PRAGMA journal_mode = MEMORY")
            db.execute("PRAGMA synchronous = OFF")
            db.execute("BEGIN IMMEDIATE")
            for line in _TABLES:
                db.execute(line)
            if db.execute("SELECT rules FROM rules").fetchall() != [(_rules(),)]:
                db.execute("DELETE FROM entries")
                db.execute("DELETE FROM rules")
                db.execute("INSERT INTO rules VALUES (?)", (_rules(),))
            db.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", rows)
            db.execute("COMMIT")
        self._opened = self._db is not None  # where there was none to read, there is one now

    def _reading(self) -> Any:
        """A connection to read by, or None where there is no index that can be used."""
        if self._off or self._opened:
            return self._db
        self._opened = True
        if not self.path.exists():
            return None
        try:
            db = _connect(self.path, "ro")
            if db.execute("SELECT rules FROM rules").fetchall() == [(_rules(),)]:
                self._db = db
            else:
                db.close()
        except sqlite3.Error as e:
            self._fail(e)
        return self._db

    def _fail(self, e: Exception) -> None:
        """Do without from here on; a damaged file is made anew by the next `flush`, a locked or closed one is left alone."""
        if self._db is not None:
            self._db.close()
        self._db = None
        missing = "no such table" in str(e)  # an empty file, or another program's
        self._damaged = self._damaged or missing or not isinstance(e, sqlite3.OperationalError)
        self._off = not self._damaged


def _connect(path: Path, mode: str) -> Any:
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode={mode}", uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)


def _name(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _seal(name: str, key: bytes, content: str) -> bytes:
    """What tells an entry as it was written from one that a damaged file makes up."""
    return hashlib.blake2b(key + name.encode() + b"\0" + content.encode(), digest_size=16).digest()
