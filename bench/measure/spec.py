"""What figures and sweeps compute from a job's kept weights, on disk. Torch-free: plans, reports and figures read it.

A measure (needs.py) lies in the folder of its job: <kind>-<id>.npz (arrays) and then, by rename, <kind>-<id>.json: its
presence means done. A failed one leaves <kind>-<id>.failed.json.

    landscape  alpha [P], beta [P] float64: offsets in units of the two directions; loss [P, P] float64, a row per alpha.
               centre, loss_rise, rise_at_radius, curvature, evaluations
    tsne       embedding_<perplexity> [n, 2] float32 of the first seed alone; label [n] float32, mixed [n] bool.
               silhouette, knn_accuracy; where rows are mixed also silhouette_original, silhouette_mixed, ...
    labels     label [N], mixed [M] float32. kl
    probe      no arrays. <modality>:<metric>, as "text:non0_acc2"
    sweep      no arrays. <point>:<metric> of the test split, as "frame_drop-correlated-0.10:mae"
    attention  matrix [queries, keys] float32, noised [keys] bool, columns [k] int64. weight_noised, weight_other,
               weight_std

docs/figures.md says how each number is defined.
"""

from pathlib import Path
from typing import Any

import numpy as np

from bench.environment import code_hash
from bench.matrix import Job
from bench.measure.needs import VERSIONS, Measure, Need, Panel, measure_of, measures, panel_rows, point, sweeps
from bench.records import Damaged, read_arrays
from bench.store import Store, write_json

__all__ = [
    "Measure", "Need", "Panel", "Values", "describe", "fail", "failure", "load", "load_numbers", "measure_of",
    "measures", "panel_rows", "point", "seal", "sweeps",
]

Values = tuple[dict[str, float], dict[str, np.ndarray]]  # (numbers, arrays)


def seal(store: Store, job: Job) -> str:
    """Hash of the job's metrics: a measure of another training of the same job does not count."""
    return store.entry(job).seal


def load(store: Store, job: Job, measure: Measure) -> Values | None:
    """(numbers, arrays) of a measure, None where it was not run on the job as it is now. An undefined number is NaN."""
    numbers = load_numbers(store, job, measure)
    try:
        return None if numbers is None else (numbers, read_arrays(_path(store, job, measure, ".npz")))
    except Damaged:
        return None


def load_numbers(store: Store, job: Job, measure: Measure) -> dict[str, float] | None:
    """The numbers of a measure alone; None too where what is stored is damaged: it is measured again then."""
    found = store.noted(job, f"{measure.stem}.json")
    numbers = found.get("numbers")
    if not isinstance(numbers, dict) or found.get("seal") != seal(store, job):
        return None
    if not all(v is None or isinstance(v, (int, float)) and not isinstance(v, bool) for v in numbers.values()):
        return None
    return {k: float("nan") if v is None else float(v) for k, v in numbers.items()}


def failure(store: Store, job: Job, measure: Measure) -> str:
    """Why a measure failed, or "" where it did not, or did on another training or with other code."""
    found = store.noted(job, f"{measure.stem}.failed.json")
    on, now = found.get("on", {}), _circumstances(store, job)
    forgotten = isinstance(on, dict) and any(on.get(k, v) != v for k, v in now.items())
    return "" if forgotten else str(found.get("error", ""))


def fail(store: Store, job: Job, measure: Measure, error: str) -> None:
    """Record a failed measure."""
    write_json(_path(store, job, measure, ".failed.json"), {"error": error, "on": _circumstances(store, job), **describe(measure)})


def _circumstances(store: Store, job: Job) -> dict[str, str]:
    return {"code": code_hash(), "seal": seal(store, job)}


def describe(measure: Measure) -> dict[str, Any]:
    """What a measure's files say of it."""
    return {"kind": measure.kind, "settings": measure.settings, "version": VERSIONS[measure.kind]}


def _path(store: Store, job: Job, measure: Measure, suffix: str) -> Path:
    return store.folder(job) / f"{measure.stem}{suffix}"
