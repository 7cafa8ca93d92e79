"""One folder per job on disk, and tidy frames read back from them.

A folder holds job.json, history.csv, predictions.npz, env.json, log.txt and, written last and by rename, metrics.json:
its presence means done. A failed job leaves failed.json and never a metrics.json. Everything is written to a
temporary name in the same folder first, so a killed worker or a full disk leaves no half file behind.
"""

import errno
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.matrix import Job

DONE, FAILED, MISSING, STALE = "done", "failed", "missing", "stale"


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file or nothing. Raises BenchError on a full or read-only disk, leaving the old file as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except OSError as e:
        temporary.unlink(missing_ok=True)
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BenchError(f"disk full while writing {path}; free some space and run again: finished jobs are kept") from None
        if e.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise BenchError(f"cannot write {path}: {e.strerror.lower()}; choose another folder with --results") from None
        raise


def write_json(path: Path, value: Any) -> None:
    """Deterministic JSON. NaN becomes null: a file that a strict reader can load."""
    write_atomic(path, (json.dumps(_plain(value), indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def read_json(path: Path) -> Any | None:
    """The file's content, or None where there is no such file. Raises BenchError naming a damaged file."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise BenchError(f"{path} is damaged; remove its folder and run again") from None


class Store:
    """The results root. Safe to read while jobs are still being written."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def folder(self, job: Job) -> Path:
        return self.root / job.folder

    def status(self, job: Job, data: Mapping[tuple[str, str], str] | None = None) -> str:
        """"done", "failed", "missing", or "stale": done on data whose hash differs from `data[dataset, features]`,
        the hash of the file at hand."""
        folder = self.folder(job)
        if (folder / "metrics.json").exists():
            at_hand = (data or {}).get((job.config.dataset, job.config.features))
            if at_hand and (read_json(folder / "env.json") or {}).get("data_sha256", at_hand) != at_hand:
                return STALE
            return DONE
        return FAILED if (folder / "failed.json").exists() else MISSING

    def begin(self, job: Job) -> Path:
        """Open (or re-open) a job's folder: job.json is there, traces of an earlier attempt are gone."""
        folder = self.folder(job)
        write_json(folder / "job.json", job.as_dict())
        for name in ("metrics.json", "failed.json", "predictions.npz", "history.csv", "env.json", "log.txt"):
            (folder / name).unlink(missing_ok=True)
        for leftover in (*folder.glob(".*.tmp"), *folder.glob("*.partial.npz"), self.checkpoint(job)):
            leftover.unlink(missing_ok=True)
        return folder

    def checkpoint(self, job: Job) -> Path:
        """Where a job's weights lie (bench/weights.py) while a measure still needs them, or for good."""
        return self.folder(job) / "weights.safetensors"

    def finish(
        self, job: Job, metrics: Mapping[str, Any], history: pd.DataFrame, predictions: Mapping[str, np.ndarray],
        env: Mapping[str, Any], log: Sequence[str],
    ) -> None:
        """Write a finished job; metrics.json last."""
        folder = self.folder(job)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **predictions)
        write_atomic(folder / "predictions.npz", buffer.getvalue())
        write_atomic(folder / "history.csv", history.to_csv(index=False, lineterminator="\n").encode())
        write_json(folder / "env.json", env)
        write_atomic(folder / "log.txt", ("\n".join(log) + "\n").encode())
        (folder / "failed.json").unlink(missing_ok=True)
        write_json(folder / "metrics.json", metrics)

    def fail(self, job: Job, error: str, kind: str, log: Sequence[str] = (), env: Mapping[str, Any] | None = None) -> None:
        """Record a failure: one line in failed.json, the traceback in log.txt."""
        folder = self.folder(job)
        write_json(folder / "job.json", job.as_dict())
        if log:
            write_atomic(folder / "log.txt", ("\n".join(log) + "\n").encode())
        if env:
            write_json(folder / "env.json", env)
        write_json(folder / "failed.json", {"error": error, "type": kind})

    def predictions(self, job: Job) -> dict[str, np.ndarray] | None:
        """Arrays valid_id, valid_prediction, valid_label, test_id, ... or None where they were not kept."""
        path = self.folder(job) / "predictions.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as f:
            return {k: f[k] for k in f.files}

    def history(self, job: Job) -> pd.DataFrame | None:
        path = self.folder(job) / "history.csv"
        return pd.read_csv(path) if path.exists() else None

    def scan(self) -> list[Job]:
        """Every job that has a folder here, in order of its path."""
        found = []
        for path in sorted(self.root.glob("*/*/*/job.json")):
            try:
                found.append(Job.from_dict(read_json(path)))
            except (KeyError, TypeError):
                raise BenchError(f"{path} is not a job description; remove its folder") from None
        return found

    def frames(
        self, jobs: Iterable[Job], data: Mapping[tuple[str, str], str] | None = None
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(values, runs) of some jobs.

        values: one row per (job, split, metric) of done jobs: job, config, dataset, features, backbone, mixer, seed,
            split, metric, value. Failed and stale jobs have no rows here, so they cannot be aggregated.
        runs: one row per job, whatever its status: job, config, ..., seed, status, error, best_epoch, epochs and all
            fields of env.json.
        """
        values, runs = [], []
        for job in jobs:
            c, folder = job.config, self.folder(job)
            key = {"job": job.id, "config": c.id, "dataset": c.dataset, "features": c.features,
                   "backbone": c.backbone, "mixer": c.mixer, "seed": job.seed}
            metrics = read_json(folder / "metrics.json")
            env = read_json(folder / "env.json") or {}
            run = {**key, "folder": job.folder, "status": MISSING, "error": ""}
            if metrics is not None:
                at_hand = (data or {}).get((c.dataset, c.features))
                stale = bool(at_hand) and env.get("data_sha256", at_hand) != at_hand
                run |= {"status": STALE if stale else DONE, "best_epoch": metrics["best_epoch"], "epochs": metrics["epochs"]}
                if not stale:
                    values += [
                        {**key, "split": split, "metric": m, "value": np.nan if v is None else v}
                        for split in ("valid", "test") for m, v in metrics[split].items()
                    ]
            elif (failed := read_json(folder / "failed.json")) is not None:
                run |= {"status": FAILED, "error": failed["error"]}
            runs.append({**env, **run})
        columns = ["job", "config", "dataset", "features", "backbone", "mixer", "seed"]
        return (
            pd.DataFrame(values, columns=[*columns, "split", "metric", "value"]),
            pd.DataFrame(runs) if runs else pd.DataFrame(columns=[*columns, "folder", "status", "error"]),
        )
