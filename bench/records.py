"""The files of a job folder, read with suspicion: types, keys, ranges, whose they are, and whether they are as written.

metrics.json carries digests: of itself, and of the files that a repeated run writes byte by byte alike (job.json,
history.csv, predictions.npz). A folder without digests, written by an earlier version, is read and "not sealed".
"""

import hashlib
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.files import json_bytes, read_json, regular
from bench.metrics import METRICS

SEALED = ("job.json", "history.csv", "predictions.npz")
PREDICTIONS = "predictions.npz"
DIGESTS, ITSELF = "digests", "metrics.json"
SEAL = "sealed"  # in env.json: metrics.json was written with digests
_KINDS = {name: m.kind for family in METRICS.values() for name, m in family.items()}
_RANGES = {"accuracy": (0.0, 1.0), "f1": (0.0, 1.0), "mean": (0.0, 1.0), "corr": (-1.0, 1.0), "mae": (0.0, math.inf)}
_ROUNDING = 1e-6
_MOST, _RATIO = 64_000_000, 50  # bytes that an npz may always inflate to, and times its own size beyond that


class Damaged(BenchError):
    """A stored result is not what a run writes: cut, edited, of another job, out of range."""


class Unreadable(Damaged):
    """A stored file cannot be read now: what is wrong is the disk, or the rights on it."""


@dataclass(frozen=True)
class Entry:
    """What a job's folder says: the content of metrics.json, or why that is no result; env.json; failed.json.

    seal: hash of metrics.json as it lies there, "" where there is none. lasting: nothing of it could not be read just now.
    """

    metrics: dict[str, Any] | None = None
    damage: str = ""
    env: Mapping[str, Any] = field(default_factory=dict)
    failure: dict[str, Any] | None = None
    seal: str = ""
    lasting: bool = True


FILES = (ITSELF, "env.json", "failed.json", *SEALED)  # what an entry depends on


def read_entry(folder: Path, job_id: str) -> Entry:
    """Read a job's folder with suspicion. Raises nothing for what is wrong with it."""
    lasting, found = True, {}
    for name, read in (("metrics", lambda: read_metrics(folder, job_id)), ("env", lambda: _env(folder)), ("failure", lambda: _failure(folder))):
        try:
            found[name] = read()
        except Damaged as e:
            lasting = lasting and not isinstance(e, Unreadable)
            if name == "metrics":
                found["damage"] = str(e)
            elif name == "failure":
                found[name] = {"error": str(e), "type": "Damaged", "on": {}}
    try:
        seal = hashlib.sha256(regular(folder / ITSELF).read_bytes()).hexdigest()[:16]
    except OSError:
        seal = ""
    return Entry(**found, seal=seal, lasting=lasting)


def sealed(metrics: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    """metrics.json with the digests of `files` (name -> content) and its own."""
    content = {**metrics, DIGESTS: {name: _sha(data) for name, data in files.items()}}
    content[DIGESTS][ITSELF] = _own_digest(content)
    return content


def _own_digest(metrics: Mapping[str, Any]) -> str:
    others = {k: v for k, v in metrics[DIGESTS].items() if k != ITSELF}
    return _sha(json_bytes({**metrics, DIGESTS: others}))


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_metrics(folder: Path, job_id: str) -> dict[str, Any] | None:
    """The content of metrics.json, None where there is none.

    Raises Damaged, in one line, where it is not what a run of the job writes: not an object of the right keys and
    types, a value out of its metric's range, a digest that differs, a job.json of another job.
    """
    metrics = _object(folder / ITSELF)
    if metrics is None:
        return None
    is_sealed = DIGESTS in metrics
    if is_sealed:
        _check_digests(folder, metrics)
    elif read_env(folder).get(SEAL):
        raise Damaged("metrics.json has lost its digests")
    for key in ("best_epoch", "epochs"):
        if not _is_count(metrics.get(key)):
            raise Damaged(f"metrics.json: '{key}' is no whole number")
    for split in ("valid", "test"):
        _check_values(metrics.get(split), split)
    _check_values({"constant_loss": metrics.get("constant_loss")}, "validation:")
    sweep = metrics.get("sweep", {})
    if not isinstance(sweep, Mapping):
        raise Damaged("metrics.json: 'sweep' is no object")
    for point, values in sweep.items():
        _check_values(values, f"sweep {point}")
    _check_owner(folder, job_id)
    if not is_sealed:
        read_predictions(folder)
    return metrics


def _check_digests(folder: Path, metrics: Mapping[str, Any]) -> None:
    digests = metrics[DIGESTS]
    if not isinstance(digests, Mapping) or digests.get(ITSELF) != _own_digest(metrics):
        raise Damaged("metrics.json is not as it was written (its own digest differs)")
    for name in SEALED:
        try:
            found = _sha(regular(folder / name).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            found = None
        except OSError as e:
            raise Unreadable(f"{name} cannot be read: {str(e.strerror).lower()}") from None
        if found is None and name == PREDICTIONS:
            continue  # taken out before a folder was handed on: they hold the data's ids and labels
        if found is None and name in digests:
            raise Damaged(f"{name} is gone")
        if found != digests.get(name):
            raise Damaged(f"{name} is not as it was written (its digest in metrics.json differs)")


def _check_owner(folder: Path, job_id: str) -> None:
    job = _object(folder / "job.json")
    if job is None:
        raise Damaged("job.json is gone")
    if job.get("id") != job_id or folder.name != job_id:
        raise Damaged(f"job.json is of {str(job.get('id'))[:40]}, the folder of {job_id}")


def _check_values(values: Any, where: str) -> None:
    if not isinstance(values, Mapping):
        raise Damaged(f"metrics.json: no metrics of '{where}'")
    for name, v in values.items():
        if v is None:
            continue
        if isinstance(v, bool) or not isinstance(v, (int, float)) or not math.isfinite(v):
            raise Damaged(f"metrics.json: {where} {name} is no number")
        low, high = _RANGES.get(_KINDS.get(name, ""), (-math.inf, math.inf))
        if not low - _ROUNDING <= v <= high + _ROUNDING:
            raise Damaged(f"metrics.json: {where} {name} = {v:g} is outside [{low:g}, {high:g}]")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _object(path: Path) -> dict[str, Any] | None:
    try:
        found = read_json(path)
    except BenchError:
        raise Damaged(f"{path.name} is cut or damaged") from None
    except OSError as e:
        raise Unreadable(f"{path.name} cannot be read: {str(e.strerror).lower()}") from None
    if found is None and not path.exists():
        return None
    if not isinstance(found, dict):
        raise Damaged(f"{path.name} holds no object")
    return found


def read_env(folder: Path) -> dict[str, Any]:
    """env.json: the plain values and lists of texts under string keys, whatever else is there. {} where there is none that can be read.
    Known numbers and texts of another type are left out."""
    try:
        return _env(folder)
    except Damaged:
        return {}


def _env(folder: Path) -> dict[str, Any]:
    found = _object(folder / "env.json") or {}
    return {_clean(k): _clean(v) for k, v in found.items() if _fits(k, v)}


def _clean(value: Any) -> Any:
    """Text that any file can hold: a lone surrogate is shown as what it is."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


_TEXTS = {"commit", "code_hash", "torch", "python", "device", "driver", "data_sha256", "provenance", "precision"}
_FLAGS = {"alone", "dirty", "test_only", SEAL}


def _fits(key: str, value: Any) -> bool:
    if key in _TEXTS:
        return value is None or isinstance(value, str)
    if key in _FLAGS:
        return value is None or isinstance(value, bool)
    if key.endswith(("_seconds", "_per_epoch", "_mb", "gflops", "parameters", "_paper", "cpu_threads")):
        return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300)
    if isinstance(value, list):
        return all(isinstance(v, str) for v in value)
    return value is None or isinstance(value, (str, int, float, bool))


def read_failure(folder: Path) -> dict[str, Any] | None:
    """failed.json: {"error", "type", "on"}; None where the job has not failed. A damaged one still says failed."""
    try:
        return _failure(folder)
    except Damaged as e:
        return {"error": str(e), "type": "Damaged", "on": {}}


def _failure(folder: Path) -> dict[str, Any] | None:
    found = _object(folder / "failed.json")
    if found is None:
        return None
    on = found.get("on")
    error = " ".join(_clean(str(found.get("error", "")))[:1000].split())
    return {"error": error, "type": _clean(str(found.get("type", ""))), "on": on if isinstance(on, dict) else {}}


def read_predictions(folder: Path) -> dict[str, np.ndarray] | None:
    """The arrays of predictions.npz, or None where they were not kept. Raises Damaged where they cannot be used."""
    path = folder / "predictions.npz"
    if not path.exists():
        return None
    found = read_arrays(path)
    for split in ("valid", "test"):
        lengths = {len(np.atleast_1d(found[k])) for k in found if k.startswith(f"{split}_")}
        if len(lengths) > 1:
            raise Damaged(f"predictions.npz: arrays of '{split}' of different lengths")
    for k, v in found.items():
        if k.endswith(("_prediction", "_label")) and not np.issubdtype(v.dtype, np.number):
            raise Damaged(f"predictions.npz: {k} holds no numbers")
    return found


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file. Raises Damaged where it cannot be read, or declares more than it can hold."""
    try:
        with zipfile.ZipFile(regular(path)) as f:
            if sum(i.file_size for i in f.infolist()) > _MOST + _RATIO * path.stat().st_size:
                raise Damaged(f"{path.name} declares more than it can hold")
        with np.load(path, allow_pickle=False) as f:
            return {k: f[k] for k in f.files}
    except Damaged:
        raise
    except MemoryError:
        raise Damaged(f"{path.name} declares more than fits into memory") from None
    except Exception as e:  # noqa: BLE001 - zip, zlib and numpy each have errors of their own for a damaged file
        raise Damaged(f"{path.name} is cut or damaged ({type(e).__name__})") from None
