"""`bench verify`: whether stored results are what runs wrote."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import records
from bench.data.dataset import spec
from bench.errors import BenchError
from bench.files import read_json
from bench.matrix import Job, dataset_name, stored_id
from bench.metrics import evaluate
from bench.provenance import OFFICIAL, of_file
from bench.records import Damaged
from bench.store import Store
from bench.train.protocol import Protocol

_CLOSE = 1e-6  # a metric recomputed from float32 predictions
_CLOSE_LOSS = 1e-4  # relative: the loss was a float32 sum


@dataclass
class Verified:
    """What `verify` found: how many results there are, and what is wrong, (folder, reason) in order of the path."""

    results: int = 0
    sealed: int = 0
    recomputed: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)  # folders of those that a run takes for finished


def verify(store: Store, deep: bool = False) -> Verified:
    """Read every stored result with suspicion. `deep`: recompute every metric from the stored predictions too."""
    found, same = Verified(), {}
    for folder in job_folders(store.root):
        where, readable = folder.relative_to(store.root).as_posix(), False
        try:
            metrics = records.read_metrics(folder, folder.name)
            if metrics is None:
                continue
            readable = True
            found.results += 1
            digests = metrics.get(records.DIGESTS)
            found.sealed += digests is not None
            job = stored_job(folder)
            _check_origin(job, records.read_env(folder))
            seen = [("numbers", _values(metrics))]
            if digests and "predictions.npz" in digests:
                seen.insert(0, ("predictions", digests["predictions.npz"]))
            for what, content in seen:
                if content and (first := same.setdefault((job.config.id, content), where)) != where:
                    raise Damaged(f"the same {what} as {first}, to the last digit: another seed cannot give them")
            if deep:
                _check_choice(store, job, metrics)
                found.recomputed += _recompute(folder, job, metrics)
        except Damaged as e:
            found.wrong.append((where, str(e)))
            found.hidden += [where] if readable else []
    return found


def _check_origin(job: Job, env: Mapping[str, Any]) -> None:
    """Raises Damaged where env.json calls data official whose hash nobody has published."""
    c, sha256 = job.config, str(env.get("data_sha256", ""))
    try:
        published = spec(c.dataset).features[c.features].sha256
    except (BenchError, KeyError):
        return  # a data set that is not known here
    if env.get("provenance") == OFFICIAL and of_file(dataset_name(c.dataset), c.features, sha256, published) != OFFICIAL:
        raise Damaged("env.json calls its data official, whose hash is none that was published")


def _values(metrics: Mapping[str, Any]) -> str:
    """The values of both splits as one text; "" where there is no loss among them, without which they could well be equal."""
    lossy = [split for split in ("valid", "test") if metrics[split].get("loss") is not None]
    return repr([sorted(metrics[split].items()) for split in lossy]) if lossy else ""


def job_folders(root: Path) -> Iterator[Path]:
    """Job folders, in order of their path."""
    for cell in sorted(root.glob("*/*")):
        if cell.is_dir() and cell.parent.name not in ("plans", "tuning"):
            yield from (f for f in sorted(cell.iterdir()) if f.is_dir() and not f.name.startswith("."))


def stored_job(folder: Path) -> Job:
    """The job that a folder is of. Raises Damaged where job.json does not say, or says another one."""
    try:
        d = read_json(folder / "job.json")
        job = Job.from_dict(d)
    except (BenchError, ArithmeticError, AttributeError, KeyError, OSError, TypeError, ValueError):
        raise Damaged("job.json is not the description of a job") from None
    if stored_id(d) != job.config.id:
        raise Damaged("the settings in job.json do not give its id: they were edited")
    if Path(job.folder).parent.as_posix() != "/".join(folder.parts[-3:-1]):
        raise Damaged(f"it lies in {folder.parent.name}, but is of {job.config.backbone}+{job.config.mixer}")
    return job


def _check_choice(store: Store, job: Job, metrics: Mapping[str, Any]) -> None:
    """Raises Damaged where the epoch that was kept is not the one that the stored history chooses, on validation."""
    history = store.history(job)
    if history is None or "valid_loss" not in history:
        return
    chosen, least = 0, math.inf
    delta = float(job.config.train.get("min_delta", Protocol.min_delta))
    counted = history[history["epoch"] >= 1]  # preparation epochs come before
    for epoch, loss in zip(counted["epoch"], counted["valid_loss"]):
        if loss < least - delta:
            chosen, least = int(epoch), float(loss)
    if len(counted) and metrics.get("best_epoch") != chosen:
        raise Damaged(f"best_epoch is {metrics.get('best_epoch')} in metrics.json, but {chosen} by the validation losses of history.csv")


def _recompute(folder: Path, job: Job, metrics: dict[str, Any]) -> bool:
    """Compare every metric with that of the stored predictions; False where they were not kept."""
    kept = records.read_predictions(folder)
    if kept is None or "test_prediction" not in kept:
        return False
    try:
        family = spec(job.config.dataset).family(job.config.features)
    except (BenchError, KeyError):
        return False  # a data set that is not known here
    loss = job.config.train.get("loss", Protocol.loss)
    for split in ("valid", "test"):
        p, y = (kept.get(f"{split}_{what}") for what in ("prediction", "label"))
        if p is None or y is None:
            continue
        for name, value in {**evaluate(p, y, family), **_loss(p, y, loss)}.items():
            stored = metrics[split].get(name, value)
            undefined = stored is None or not math.isfinite(value)
            close = (stored is None) == (not math.isfinite(value)) if undefined else math.isclose(
                stored, value, rel_tol=_CLOSE_LOSS if name == "loss" else 0, abs_tol=_CLOSE)
            if not close:
                raise Damaged(f"{split} {name} is {stored} in metrics.json, but {value:.6g} by the stored predictions")
    return True


def _loss(p: np.ndarray, y: np.ndarray, name: str) -> dict[str, float]:
    difference = np.asarray(p, np.float64).ravel() - np.asarray(y, np.float64).ravel()
    if name == "l1":
        return {"loss": float(np.abs(difference).mean())}
    return {"loss": float((difference**2).mean())} if name == "mse" else {}
