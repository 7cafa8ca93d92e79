"""One folder per job on disk, and tidy frames read back from them.

A folder holds job.json, history.csv, predictions.npz, env.json, log.txt and, written last, metrics.json: its presence
means done. A job is trained beside its folder, in `.<job>.<token>.new`, and put in place by rename: a killed worker, a
full disk or a failed repetition never costs a finished result. A failed job leaves failed.json, and no metrics.json but
that of an earlier success. What is read back is looked at with suspicion (records.py): a damaged result is none.
"""

import io
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import live, records
from bench.environment import code_hash
from bench.errors import BenchError
from bench.files import json_bytes, one_line, read_json, regular, write_atomic, write_json
from bench.folder_swap import put_in_place
from bench.frames import DAMAGED, DONE, FAILED, MISSING, STALE, Data, frames, of_another, one_file
from bench.index import Index, State, state
from bench.live import LIVE
from bench.matrix import Job
from bench.records import Damaged, Entry

__all__ = ["DAMAGED", "DONE", "Damaged", "FAILED", "LIVE", "MISSING", "STALE", "Store", "read_json", "write_atomic", "write_json"]

WEIGHTS = "weights.safetensors"
_OURS = {"job.json", "metrics.json", "failed.json", "failed-log.txt", "predictions.npz", "history.csv", "env.json",
         "log.txt", WEIGHTS}
_NOTHING = Entry()  # of a folder that is not there


class Store:
    """The results root. Safe to read while jobs are still being written."""

    def __init__(self, root: str | Path, mine: Callable[[], bool] = lambda: True, indexed: bool = False) -> None:
        """`mine`: asked before a result is put in place: whether whoever writes here still owns the job. indexed: what
        folders say is looked up in the index beside them and kept there (index.py), for whoever reads many."""
        self.root, self._mine = Path(root), mine
        self._attempts: dict[str, Path] = {}  # job id -> where it is trained now
        self._read: dict[str, tuple[State, Entry]] = {}  # job id -> (state of its files, what they say)
        self._index = Index(self.root) if indexed else None

    def folder(self, job: Job) -> Path:
        return self.root / job.folder

    def lock(self, job: Job) -> Path:
        """The file that says who runs a job (launch/owner.py)."""
        return self.folder(job).with_name(f".{job.id}.lock")

    def entry(self, job: Job) -> Entry:
        """What a job's folder says now. Read anew, with suspicion, where any of its files has changed."""
        now = state(f"{self.root}/{job.folder}", records.FILES)
        if now is None:
            return _NOTHING
        known = self._read.get(job.id)
        if known is not None and known[0] == now:
            return known[1]
        stored = self._index.get(job.folder, now) if self._index is not None else None
        entry = _entry(stored)
        if entry is None:
            entry = records.read_entry(self.folder(job), job.id)
            if self._index is not None and entry.lasting:
                self._index.put(job.folder, now, [entry.metrics, entry.damage, entry.env, entry.failure, entry.seal])
        self._read[job.id] = now, entry
        return entry

    def noted(self, job: Job, name: str) -> dict[str, Any]:
        """A JSON file beside a job's result, a measure's say; {} where it holds no object, or is not there."""
        key, now = f"{job.folder}/{name}", state(f"{self.root}/{job.folder}", [name])
        if now is None or now[0] is None:
            return {}
        found = self._index.get(key, now) if self._index is not None else None
        if found is None:
            try:
                found = read_json(self.folder(job) / name)
            except (BenchError, OSError):
                return {}
            if self._index is not None:
                self._index.put(key, now, found)
        return found if isinstance(found, dict) else {}

    def keep_index(self) -> None:
        """Write what was read of new or changed folders into the index, where this store has one."""
        if self._index is not None:
            self._index.flush()

    def metrics(self, job: Job) -> dict[str, Any] | None:
        """metrics.json of a done job, else None. Raises Damaged, saying why, for a result that is none."""
        entry = self.entry(job)
        if entry.damage:
            raise Damaged(entry.damage)
        return entry.metrics

    def status(self, job: Job, data: Data | None = None) -> str:
        """"done", "failed", "missing", "damaged", or "stale": done on data whose hash differs from
        `data[dataset, features]`, the hash of the file at hand. A failure on other data or of other code is forgotten.
        """
        entry = self.entry(job)
        if entry is _NOTHING:
            return MISSING
        at_hand = (data or {}).get((job.config.dataset, job.config.features))
        otherwise = DAMAGED if entry.damage else MISSING
        if entry.metrics is not None:
            if not of_another(entry, at_hand):
                return DONE
            otherwise = STALE
        return FAILED if entry.failure is not None and _still_holds(entry.failure["on"], at_hand) else otherwise

    def time_limit(self, job: Job) -> float | None:
        """The --timeout that a failed job ran into, None where it failed otherwise."""
        failed = self.entry(job).failure or {}
        limit = failed["on"].get("timeout") if failed.get("type") == "JobTimeout" else None
        return float(limit) if isinstance(limit, (int, float)) and not isinstance(limit, bool) else None

    def begin(self, job: Job) -> Path:
        """Open the folder that a job is trained in, beside its own; it holds job.json."""
        self.drop(job)
        folder = self.folder(job).with_name(f".{job.id}.{uuid.uuid4().hex[:8]}.new")
        self._attempts[job.id] = folder
        try:
            write_json(folder / "job.json", job.as_dict())
        except BaseException:
            self.drop(job)
            raise
        return folder

    def drop(self, job: Job) -> None:
        """Remove what an attempt has left, of this store."""
        if attempt := self._attempts.pop(job.id, None):
            shutil.rmtree(attempt, ignore_errors=True)

    def tell(self, job: Job, line: str) -> None:
        """Leave a line on how a training is going, for whoever looks (`bench status`, `bench report --watch`)."""
        if attempt := self._attempts.get(job.id):
            live.tell(attempt, line)

    def told(self) -> dict[str, list[str]]:
        """Job id -> the lines of its training so far, of the jobs that are being trained."""
        return live.told(self.root)

    def checkpoint(self, job: Job) -> Path:
        """Where a job's weights lie (bench/weights.py) while a measure still needs them, or for good: beside its other
        files, and so in the attempt's folder while it is trained."""
        return self._attempts.get(job.id, self.folder(job)) / WEIGHTS

    def finish(
        self, job: Job, metrics: Mapping[str, Any], history: pd.DataFrame, predictions: Mapping[str, np.ndarray],
        env: Mapping[str, Any], log: Sequence[str],
    ) -> None:
        """Write a finished job beside its folder, metrics.json last, and put it in place."""
        attempt = self._attempts.get(job.id) or self.begin(job)
        (attempt / LIVE).unlink(missing_ok=True)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **predictions)
        files = {
            "job.json": json_bytes(job.as_dict()), "predictions.npz": buffer.getvalue(),
            "history.csv": history.to_csv(index=False, lineterminator="\n").encode(),
        }
        for name, content in files.items():
            write_atomic(attempt / name, content)
        write_json(attempt / "env.json", {**env, records.SEAL: True})
        write_atomic(attempt / "log.txt", ("\n".join(log) + "\n").encode("utf-8", "backslashreplace"))
        write_json(attempt / "metrics.json", records.sealed(metrics, files))
        folder = self.folder(job)
        if not self._mine():
            raise BenchError("another run has taken this job over, since this one gave no sign of life; its result counts")
        with one_line(folder):
            for kept in folder.iterdir() if folder.is_dir() else ():  # measures of it: they know which training they are of
                if kept.name not in _OURS and not kept.name.startswith(".") and not kept.name.endswith(".partial.npz"):
                    shutil.copy2(kept, attempt / kept.name)
            put_in_place(attempt, folder)
        self._attempts.pop(job.id, None)

    def fail(
        self, job: Job, error: str, kind: str, log: Sequence[str] = (), env: Mapping[str, Any] | None = None,
        on: Mapping[str, Any] | None = None,
    ) -> None:
        """Record a failure: one line in failed.json, with what it happened `on` (data_sha256, timeout), the traceback
        in log.txt; beside a result of the job on other data in failed-log.txt."""
        folder, env = self.folder(job), env or {}
        kept = (folder / "metrics.json").exists()
        if not kept:
            write_json(folder / "job.json", job.as_dict())
            if env:
                write_json(folder / "env.json", env)
        if log:
            name = "failed-log.txt" if kept else "log.txt"
            write_atomic(folder / name, ("\n".join(log) + "\n").encode("utf-8", "backslashreplace"))
        known = {"data_sha256": env.get("data_sha256"), "code": code_hash(), **(on or {})}
        write_json(folder / "failed.json", {"error": error, "type": kind, "on": {k: v for k, v in known.items() if v is not None}})

    def forget_failure(self, job: Job) -> None:
        """Remove failed.json: the job is to be tried again."""
        for name in ("failed.json", "failed-log.txt"):
            (self.folder(job) / name).unlink(missing_ok=True)

    def predictions(self, job: Job) -> dict[str, np.ndarray] | None:
        """Arrays valid_id, valid_prediction, valid_label, test_id, ... or None where they were not kept or are damaged
        (`status` and `frames` say so)."""
        try:
            return records.read_predictions(self.folder(job))
        except Damaged:
            return None

    def history(self, job: Job) -> pd.DataFrame | None:
        """One row per epoch, or None where there is no history that can be read."""
        path = self.folder(job) / "history.csv"
        try:
            found = pd.read_csv(regular(path))
        except (OSError, ValueError, pd.errors.ParserError):
            return None
        return found if "epoch" in found and all(found.dtypes.map(pd.api.types.is_numeric_dtype)) else None

    def scan(self) -> list[Job]:
        """Every job that has a folder here, in order of its path; folders whose job.json cannot be read are left out."""
        found = []
        for path in sorted(self.root.glob("*/*/*/job.json")):
            if path.parent.name.startswith("."):
                continue
            try:
                job = Job.from_dict(read_json(path))
            except (BenchError, ArithmeticError, AttributeError, KeyError, OSError, TypeError, ValueError):
                continue
            if self.folder(job) == path.parent:
                found.append(job)
        return found

    def one_file(self, jobs: Iterable[Job], data: Data | None = None) -> tuple[dict[tuple[str, str], str], list[str]]:
        """Of which data file the results of some jobs count, where none is at hand (frames.py), and lines that say so."""
        return one_file([(job, self.entry(job)) for job in jobs], data or {})

    def frames(self, jobs: Iterable[Job], data: Data | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(values, runs) of some jobs, as tidy frames (frames.py)."""
        found = frames([(job, self.entry(job)) for job in jobs], data or {})
        self.keep_index()
        return found


def _entry(stored: Any) -> Entry | None:
    """An entry as the index keeps it; None where there is none, or another version's."""
    fits = isinstance(stored, list) and [type(v) for v in stored[1:3] + stored[4:]] == [str, dict, str]
    return Entry(*stored) if fits else None


def _still_holds(on: Mapping[str, Any], at_hand: str | None) -> bool:
    """Whether a failure on this data and code (where it says so) is one on the data and code at hand."""
    return on.get("data_sha256", at_hand) in (None, at_hand or on.get("data_sha256")) and on.get("code", code_hash()) == code_hash()
