"""What job folders say, as tidy frames."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.matrix import Job, dataset_name
from bench.records import Entry

DONE, FAILED, MISSING, STALE = "done", "failed", "missing", "stale"
DAMAGED = "damaged"
Data = Mapping[tuple[str, str], str]  # (dataset, features) -> sha256 of the file at hand
LEARNED = 0.95  # of the best constant prediction's validation loss: a training that is left with more has learned nothing
_KEY = ["job", "config", "dataset", "features", "backbone", "mixer", "seed"]


def of_another(entry: Entry, at_hand: str | None) -> bool:
    """Whether a finished result is not known to be of the data file with this hash. A result whose env.json was lost, or
    does not say, is of nobody knows which file."""
    return bool(at_hand) and entry.env.get("data_sha256") != at_hand


def one_file(entries: Sequence[tuple[Job, Entry]], data: Data) -> tuple[dict[tuple[str, str], str], list[str]]:
    """(data, lines): `data`, and for real features whose file is not at hand, where results of several files lie beside
    each other, the hash that most of them have; a line says so. A mean, and a pair of methods, is of one file."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for job, entry in entries:
        key = job.config.dataset, job.config.features
        if entry.metrics is not None and not data.get(key) and dataset_name(key[0]) == key[0]:
            counts.setdefault(key, Counter())[str(entry.env.get("data_sha256") or "")] += 1
    chosen, lines = dict(data), []
    for (dataset, features), found in sorted(counts.items()):
        known = sorted((-n, sha256) for sha256, n in found.items() if sha256)
        if len(found) < 2 or not known:
            continue
        n, sha256 = known[0]
        chosen[dataset, features] = sha256
        lines.append(
            f"{dataset}/{features}: the runs are of {len(found)} data files; the {-n} of {sha256[:12]} count, being most, and "
            f"the other {sum(found.values()) + n} are stale; --data says which file is meant"
        )
    return chosen, lines


def frames(entries: Iterable[tuple[Job, Entry]], data: Data) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(values, runs) of some jobs and what their folders say.

    values: one row per (job, split, metric) of done jobs: job, config, dataset, features, backbone, mixer, seed,
        split, metric, value. Failed, damaged and stale jobs have no rows here, so they cannot be aggregated.
    runs: one row per job, whatever its status: job, config, ..., seed, status, error, best_epoch, epochs, learned
        and all fields of env.json. learned: whether the validation loss is clearly below that of the best constant
        prediction; None of results that do not say. A damaged result is a failed one whose error begins with "damaged".
    """
    values: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    for job, entry in entries:
        c, metrics = job.config, entry.metrics
        key = dict(zip(_KEY, (job.id, c.id, c.dataset, c.features, c.backbone, c.mixer, job.seed)))
        run = {**key, "folder": job.folder, "status": MISSING, "error": ""}
        if entry.damage:
            run |= {"status": FAILED, "error": f"damaged: {entry.damage}; `bench run` makes it again"}
        if metrics is not None:
            stale = of_another(entry, data.get((c.dataset, c.features)))
            run |= {"status": STALE if stale else DONE, "best_epoch": metrics["best_epoch"], "epochs": metrics["epochs"]}
            run["learned"] = _learned(metrics)
            if not stale:
                values += [
                    {**key, "split": split, "metric": m, "value": np.nan if v is None else v}
                    for split in ("valid", "test") for m, v in metrics[split].items()
                ]
        elif run["status"] == MISSING and entry.failure is not None:
            run |= {"status": FAILED, "error": entry.failure["error"]}
        runs.append({**entry.env, **run})
    return (
        pd.DataFrame(values, columns=[*_KEY, "split", "metric", "value"]),
        pd.DataFrame(runs) if runs else pd.DataFrame(columns=[*_KEY, "folder", "status", "error"]),
    )


def _learned(metrics: Mapping[str, Any]) -> bool | None:
    constant, loss = metrics.get("constant_loss"), metrics["valid"].get("loss")
    return None if constant is None or loss is None else loss < LEARNED * constant
