"""The page of one job: what it was asked, what it came to, how its training went. One self-contained file."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.files import write_atomic
from bench.matrix import Experiment, Job, Row
from bench.report.curves import scatter, svg, told
from bench.report.html import asset, environment, rendered_at
from bench.report.settings import settings_of
from bench.report.words import pretty
from bench.store import DONE, FAILED, Store, read_json

_FACTS = {
    "provenance": "data", "data_sha256": "data hash", "commit": "commit", "code_hash": "code hash", "device": "device",
    "torch": "torch", "python": "Python", "precision": "precision", "parameters": "parameters", "gflops": "GFLOPs a sample",
    "train_seconds": "seconds of training", "wall_seconds": "seconds in all", "peak_memory_mb": "peak memory, MiB",
}


def write_page(store: Store, job: Job, uses: Sequence[tuple[str, Experiment, Row]], path: Path) -> Path:
    """Write the page of a job. uses: (suite, artefact, row) of the tables that it stands in. Raises BenchError where
    nothing of the job is there, or the file cannot be written."""
    state = store.status(job)
    lines = store.told().get(job.id, [])
    if state not in (DONE, FAILED) and not lines:
        raise BenchError(f"{job.id} is {state} and not being trained: there is nothing to show")
    text = environment().get_template("job.html").render(
        style=asset("style.css"), job=job, c=job.config, state=state, rendered=rendered_at(), **_content(store, job, uses, state, lines),
    )
    write_atomic(path, text.encode("utf-8"), "--html")
    return path


def _content(store: Store, job: Job, uses: Sequence[tuple[str, Experiment, Row]], state: str, lines: Sequence[str]) -> dict[str, Any]:
    folder = store.folder(job)
    env = (read_json(folder / "env.json") if (folder / "env.json").is_file() else None) or {}
    failed = read_json(folder / "failed.json") or {} if state == FAILED else {}
    metrics = store.metrics(job) if state == DONE else None
    suite, e, row = uses[0] if uses else ("", Experiment("", "", "", ""), Row(job.config.backbone))
    log = folder / ("failed-log.txt" if state == FAILED else "log.txt")
    return {
        "facts": [(label, str(env[key])) for key, label in _FACTS.items() if env.get(key) not in (None, "")],
        "settings": settings_of(e, row, job.config, suite),
        "metrics": _metrics(metrics), "best": (metrics or {}).get("best_epoch"), "epochs": (metrics or {}).get("epochs"),
        "curves": _curves(store, job, metrics, lines), "clouds": _clouds(folder) if metrics else [],
        "error": failed.get("error", ""), "test_only": bool(env.get("test_only")), "synthetic": env.get("provenance") == "synthetic",
        "log": log.read_text(encoding="utf-8", errors="replace").splitlines()[-60:] if log.is_file() else list(lines)[-60:],
        "uses": [(s, x.id, x.title, r.title) for s, x, r in uses],
    }


def _metrics(metrics: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    if metrics is None:
        return []
    names = dict.fromkeys([*metrics["valid"], *metrics["test"]])
    return [(m, *(_number(metrics[split].get(m)) for split in ("valid", "test"))) for m in names]


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4f}".replace("-", "\u2212")


def _curves(store: Store, job: Job, metrics: dict[str, Any] | None, lines: Sequence[str]) -> list[dict[str, str]]:
    """Loss of training and validation together, then every other column of history.csv by itself."""
    history = store.history(job)
    if history is None or history.empty or "epoch" not in history:
        found = told(lines)
        return [{"title": "loss so far", "svg": svg(found, "loss so far")}] if found["valid"] else []
    best, epochs = (metrics or {}).get("best_epoch"), history["epoch"].tolist()

    def points(column: str) -> list[tuple[float, float]]:
        return [(float(x), float(y)) for x, y in zip(epochs, history[column].tolist()) if y is not None and math.isfinite(y)]

    columns = [c for c in history.columns if c != "epoch" and history[c].dtype.kind in "fiu"]
    pair = {c: points(c) for c in ("train_total", "valid_loss") if c in columns}
    pictures = [{"title": "loss: training (thin) and validation", "svg": svg(pair, "loss of training and validation", best)}] if pair else []
    pictures += [{"title": pretty(c.replace("_", " ")), "svg": svg({c: points(c)}, c, best)} for c in columns if c not in pair and len(set(history[c])) > 1]
    return [p for p in pictures if p["svg"]]


def _clouds(folder: Path) -> list[dict[str, str]]:
    try:
        with np.load(folder / "predictions.npz", allow_pickle=False) as stored:
            pairs = {s: (stored[f"{s}_label"].ravel(), stored[f"{s}_prediction"].ravel()) for s in ("valid", "test")}
    except (OSError, KeyError, ValueError):  # handed on without its predictions
        return []
    return [{"title": f"{s}: prediction over label", "svg": scatter(a.tolist(), b.tolist(), f"{s}, prediction over label")}
            for s, (a, b) in pairs.items()]
