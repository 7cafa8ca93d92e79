"""`bench verify` and `bench merge`: whether stored results are what runs wrote, and one results folder out of several."""

import math
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import records, trails
from bench.data.dataset import spec
from bench.errors import BenchError
from bench.files import one_line, read_json, write_json
from bench.folder_swap import put_in_place
from bench.launch import owner
from bench.launch.litter import sweep_job
from bench.matrix import Job, dataset_name, stored_id
from bench.metrics import evaluate
from bench.names import is_slug
from bench.provenance import OFFICIAL, of_file
from bench.records import Damaged
from bench.store import DONE, Store
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
    for folder in _folders(store.root):
        where, readable = folder.relative_to(store.root).as_posix(), False
        try:
            metrics = records.read_metrics(folder, folder.name)
            if metrics is None:
                continue
            readable = True
            found.results += 1
            digests = metrics.get(records.DIGESTS)
            found.sealed += digests is not None
            job = _job(folder)
            _check_origin(job, records.read_env(folder))
            seen = [("numbers", _values(metrics))]
            if digests and "predictions.npz" in digests:
                seen.insert(0, ("predictions", digests["predictions.npz"]))
            for what, content in seen:
                if content and (first := same.setdefault((job.config.id, content), where)) != where:
                    raise Damaged(f"the same {what} as {first}, to the last digit: another seed cannot give them")
            if deep:
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


def _folders(root: Path) -> Iterator[Path]:
    """Job folders, in order of their path."""
    for cell in sorted(root.glob("*/*")):
        if cell.is_dir() and cell.parent.name not in ("plans", "tuning"):
            yield from (f for f in sorted(cell.iterdir()) if f.is_dir() and not f.name.startswith("."))


def _job(folder: Path) -> Job:
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


# --- several folders into one ---------------------------------------------------------------------------------------

@dataclass
class Merged:
    """What `merge` did: results copied, already there, and left out because they differ or are damaged."""

    copied: int = 0
    present: int = 0
    conflicts: list[str] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)


def merge(into: Path, others: Iterable[Path]) -> Merged:
    """Copy the done jobs of other results folders, with their measures, into the first, and what their plans say was run
    and their searches (`bench tune`) found.

    A job that both have with the same metrics is left as it is; where the metrics differ the first folder's stays and
    the conflict is named. Failed and damaged jobs are not copied. Raises BenchError for a folder that is none.
    """
    found, store = Merged(), Store(into)
    for other in others:
        if not other.is_dir():
            raise BenchError(f"{other}: no such folder")
        if other.resolve() == into.resolve():
            raise BenchError(f"{other}: is the folder to merge into")
        theirs = Store(other)
        for folder in _folders(other):
            where = folder.relative_to(other).as_posix()
            try:
                if records.read_metrics(folder, folder.name) is None:
                    continue
                job = _job(folder)
            except Damaged as e:
                found.damaged.append((f"{other}/{where}", str(e)))
                continue
            _copy(store, theirs, job, found)
        _merge_plans(into, other, found)
        differ, damaged = trails.merge(store, theirs)
        found.conflicts += differ
        found.damaged += damaged
    return found


def _copy(store: Store, theirs: Store, job: Job, found: Merged) -> None:
    target = store.folder(job)
    owned = owner.take(store.lock(job))
    if owned is None:
        raise BenchError(f"{target}: {owner.holder(store.lock(job)) or 'a run'} is working on it; merge when it has ended")
    with owned, one_line(target):
        sweep_job(target)
        if store.status(job) == DONE:
            if _without_digests(store.metrics(job)) == _without_digests(theirs.metrics(job)):
                found.present += 1
            else:
                found.conflicts.append(job.folder)
            return
        new = target.with_name(f".{job.id}.{uuid.uuid4().hex[:8]}.new")
        try:
            shutil.copytree(theirs.folder(job), new, ignore=shutil.ignore_patterns(".*", "failed*", "*.partial.npz"))
            put_in_place(new, target)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    found.copied += 1


def _without_digests(metrics: dict[str, Any] | None) -> dict[str, Any]:
    return {k: v for k, v in (metrics or {}).items() if k != records.DIGESTS}


def _merge_plans(into: Path, other: Path, found: Merged) -> None:
    """Artefacts that the first folder's record of a suite lacks are added to it."""
    for path in sorted((other / "plans").glob("*.json")):
        if not is_slug(path.stem):
            found.damaged.append((str(path), "no name of a suite"))
            continue
        target = into / "plans" / path.name
        theirs, mine = _plan(path), _plan(target)
        if theirs is None or mine is None:
            found.damaged.append((str(path if theirs is None else target), "the record of what was run is damaged"))
            continue
        artefacts = {**theirs.get("artefacts", {}), **mine.get("artefacts", {})}
        try:
            for name in sorted(set(theirs.get("artefacts", {})) & set(mine.get("artefacts", {}))):
                artefacts[name], differ = _joined(mine["artefacts"][name], theirs["artefacts"][name])
                found.conflicts += [f"plans/{path.name}: {name}, --as {variant}" for variant in differ]
        except (AttributeError, KeyError, TypeError, ValueError):
            found.damaged.append((f"{target} or {path}", "the record of what was run is damaged"))
            continue
        adapted = sorted({*theirs.get("adapted", []), *mine.get("adapted", [])})
        written = [p["written"] for p in (theirs, mine) if isinstance(p.get("written"), (int, float))]
        write_json(target, {**theirs, **mine, **({"written": max(written)} if written else {}), "artefacts": artefacts, "adapted": adapted})


def _plan(path: Path) -> dict[str, Any] | None:
    try:
        found = read_json(path)
    except BenchError:
        return None
    shape = isinstance(found, dict) and isinstance(found.get("artefacts", {}), dict)
    return {} if found is None and not path.exists() else found if shape else None


def _joined(mine: dict[str, Any], theirs: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """One artefact's record out of two (all cells, the first folder's where both have one, the larger number of seeds), and
    the variants that have other settings in each: the first folder's stay."""
    variants = {**theirs.get("variants", {}), **mine.get("variants", {})}
    both = set(theirs.get("variants", {})) & set(mine.get("variants", {}))
    differ = sorted(n for n in both if sorted(mine["variants"][n]["settings"]) != sorted(theirs["variants"][n]["settings"]))
    variants |= {n: _together(mine["variants"][n], theirs["variants"][n]) for n in both.difference(differ)}
    return {**_together(mine, theirs), **({"variants": variants} if variants else {})}, differ


def _together(mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    cells = {tuple(key): c for *key, c in (*theirs.get("cells", ()), *mine.get("cells", ()))}
    return {
        **theirs, **mine, "seeds": max(mine.get("seeds", 0), theirs.get("seeds", 0)),
        "cells": [[*key, c] for key, c in cells.items()],
    }
