"""Compute one measure of one finished job and write its files."""

import importlib
import io
import time
from pathlib import Path

import numpy as np

from bench import environment
from bench.errors import BenchError
from bench.matrix import Job
from bench.measure.needs import VERSIONS, Measure
from bench.measure.spec import Values, describe, load, seal
from bench.measure.trained import Trained, restore
from bench.store import Store, write_atomic, write_json


def run(
    job: Job, measure: Measure, store: Store, data_dir: str | Path | None = None, device: str = "cpu",
    trained: Trained | None = None,
) -> Values:
    """(numbers, arrays) of a measure, from disk where it is there. `trained`: the restored job, where the caller has it.

    Raises BenchError, in one line, where the measure cannot be computed; nothing is written then but finished rows of a
    landscape.
    """
    found = load(store, job, measure)
    if found is not None:
        return found
    if measure.kind not in VERSIONS:
        raise BenchError(f"unknown measure '{measure.kind}'; known: {', '.join(VERSIONS)}")
    began = time.perf_counter()
    t = trained or restore(job, store, data_dir, device)
    folder, sealed = store.folder(job), seal(store, job)
    compute = importlib.import_module(f"bench.measure.{measure.kind}").compute
    partial = folder / f"{measure.stem}.partial.npz"
    more = {"partial": partial} if measure.kind == "landscape" else {}
    numbers, arrays = compute(t, measure.settings, **more)
    env = {
        **environment.code(), **environment.device(device), "data_sha256": t.dataset.sha256,
        "wall_seconds": round(time.perf_counter() - began, 3),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(folder / f"{measure.stem}.npz", buffer.getvalue())
    write_json(folder / f"{measure.stem}.json", {**describe(measure), "numbers": numbers, "env": env, "seal": sealed})
    for leftover in (partial, folder / f"{measure.stem}.failed.json"):
        leftover.unlink(missing_ok=True)
    return numbers, arrays
