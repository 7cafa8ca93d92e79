"""`bench merge`: one results folder out of several."""

import shutil
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench import records, trails
from bench.errors import BenchError
from bench.files import one_line, read_json, write_json
from bench.folder_swap import put_in_place
from bench.launch import owner
from bench.launch.litter import sweep_job
from bench.matrix import Config, Job
from bench.matrix import seeds as of_seeds
from bench.names import is_slug
from bench.records import Damaged
from bench.store import DONE, MISSING, Store
from bench.verify import job_folders, stored_job


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
        for folder in job_folders(other):
            where = folder.relative_to(other).as_posix()
            try:
                if records.read_metrics(folder, folder.name) is None:
                    continue
                job = stored_job(folder)
            except Damaged as e:
                found.damaged.append((f"{other}/{where}", str(e)))
                continue
            _copy(store, theirs, job, found)
        _merge_plans(store, other, found)
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


def _merge_plans(store: Store, other: Path, found: Merged) -> None:
    """Join what the records of each suite say was run; the other folder's jobs are copied by now."""
    for path in sorted((other / "plans").glob("*.json")):
        if not is_slug(path.stem):
            found.damaged.append((str(path), "no name of a suite"))
            continue
        target = store.root / "plans" / path.name
        theirs, mine = _plan(path), _plan(target)
        if theirs is None or mine is None:
            found.damaged.append((str(path if theirs is None else target), "the record of what was run is damaged"))
            continue
        artefacts = {**theirs.get("artefacts", {}), **mine.get("artefacts", {})}
        try:
            for name in sorted(set(theirs.get("artefacts", {})) & set(mine.get("artefacts", {}))):
                pair = mine["artefacts"][name], theirs["artefacts"][name]
                artefacts[name], differ = _joined(*pair, partial(_ran, store, of_seeds(max(r.get("seeds", 0) for r in pair))))
                found.conflicts += [f"plans/{path.name}: {name}, {what}" for what in differ]
        except (AttributeError, KeyError, TypeError, ValueError):
            found.damaged.append((f"{target} or {path}", "the record of what was run is damaged"))
            continue
        adapted = sorted({*theirs.get("adapted", []), *mine.get("adapted", [])})
        written = [p["written"] for p in (theirs, mine) if isinstance(p.get("written"), (int, float))]
        write_json(target, {**theirs, **mine, **({"written": max(written)} if written else {}), "artefacts": artefacts, "adapted": adapted})


def _ran(store: Store, seeds: Iterable[int], c: Config) -> bool:
    return any(store.status(Job(c, s)) != MISSING for s in seeds)


def _plan(path: Path) -> dict[str, Any] | None:
    try:
        found = read_json(path)
    except BenchError:
        return None
    shape = isinstance(found, dict) and isinstance(found.get("artefacts", {}), dict)
    return {} if found is None and not path.exists() else found if shape else None


def _joined(mine: dict[str, Any], theirs: dict[str, Any], ran: Callable[[Config], bool]) -> tuple[dict[str, Any], list[str]]:
    """One artefact's record out of two (all cells, the larger number of seeds), and what differs in them: cells that both ran
    with other settings, and variants that have other settings in each; of these the first folder's stay. ran: whether the
    merged folder has runs of a config."""
    variants = {**theirs.get("variants", {}), **mine.get("variants", {})}
    both = set(theirs.get("variants", {})) & set(mine.get("variants", {}))
    joined, differ = _together(mine, theirs, ran)
    for n in sorted(both):
        pair = mine["variants"][n], theirs["variants"][n]
        if sorted(pair[0]["settings"]) != sorted(pair[1]["settings"]):
            differ.append(f"--as {n}")
            continue
        variants[n], cells = _together(*pair, ran)
        differ += [f"--as {n}, {cell}" for cell in cells]
    return {**joined, **({"variants": variants} if variants else {})}, differ


def _together(mine: dict[str, Any], theirs: dict[str, Any], ran: Callable[[Config], bool]) -> tuple[dict[str, Any], list[str]]:
    """Cells of both. Where they name other settings for one, those that were run count: a plan names every cell of an
    artefact, run or not. The first folder's stay where both were, and the cell is among those returned, or none was."""
    cells: dict[tuple[str, ...], dict[str, Any]] = {tuple(key): c for *key, c in mine.get("cells", ())}
    differ = []
    for *key, c in theirs.get("cells", ()):
        own = cells.setdefault(tuple(key), c)
        a, b = Config.from_dict(own), Config.from_dict(c)
        if a.id == b.id or not ran(b):
            continue
        if ran(a):
            differ.append(" ".join(filter(None, key)))
        else:
            cells[tuple(key)] = c
    seeds = max(mine.get("seeds", 0), theirs.get("seeds", 0))
    return {**theirs, **mine, "seeds": seeds, "cells": [[*key, c] for key, c in cells.items()]}, differ
