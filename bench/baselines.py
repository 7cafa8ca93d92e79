"""Rows of simple baselines in every table (`bench run --baselines`), outside every verdict. Torch-free.

    Majority        the median of the training labels (the more frequent class where the task is a decision)
    Ridge on text   ridge regression on the text's mean, its penalty chosen on validation (data/baselines.py)
    X, text only    the table's first plain system trained on one modality (modalities.py), likewise audio and vision

The first two are computed from the feature file in seconds and kept in <results>/baselines/<dataset>-<features>.json.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.data.baselines import scores
from bench.data.dataset import load
from bench.errors import BenchError
from bench.matrix import Column, Experiment, Row
from bench.modalities import keep, read_by
from bench.store import Store, read_json, write_json

BLOCK = "Baselines"
_FIXED = {"Majority": "majority", "Ridge on text": "ridge on text"}  # label -> name in data/baselines.py


def with_rows(e: Experiment) -> Experiment:
    """A table with rows for baselines at its end; figures and what trains nothing stay as they are."""
    plain = _plain(e)
    if plain is None:
        return e
    rows = [Row(label, block=BLOCK, beside=True, note="computed from the features, no training") for label in _FIXED]
    for m in ("text", "audio", "vision"):
        cells = {g: keep(c, (m,)) for g, c in plain.cells.items() if c is not None and m in read_by(c) and len(read_by(c)) > 1}
        if cells:
            rows.append(Row(plain.backbone, f"{m} only", plain.variant, cells, BLOCK, beside=True, points=plain.points))
    return replace(e, rows=(*e.rows, *rows))


def with_values(e: Experiment, store: Store) -> Experiment:
    """The table with what was computed for the rows that need no training; those without values are left out."""
    plain = _plain(e)
    if plain is None:
        return e
    read: dict[tuple[str, str], Mapping[str, Any]] = {}
    rows = []
    for row in e.rows:
        if row.block != BLOCK or row.backbone not in _FIXED:
            rows.append(row)
            continue
        found = {}
        for column in e.columns:
            c = plain.cells.get(column.group) or (next(iter(plain.cells.values())) if not column.group else None)
            if c is None or column.source:
                continue
            key = c.dataset, c.features
            if key not in read:
                read[key] = _read(store, *key)
            value = read[key].get(_FIXED[row.backbone], {}).get(column.key(c))
            if isinstance(value, (int, float)):
                found[_name(column)] = (100.0 if column.percent else 1.0) * value
        if found:
            rows.append(replace(row, stated=found))
    return replace(e, rows=tuple(rows))


def compute(experiments: Iterable[Experiment], store: Store, data_dir: Path | None) -> None:
    """Compute and keep the values of the feature files that the rows of some artefacts are about; files that cannot be
    read are passed over: the plan has said why."""
    plain = [row for e in experiments if (row := _plain(e))]
    for dataset, features in dict.fromkeys((c.dataset, c.features) for row in plain for c in row.cells.values() if c is not None):
        try:
            data = load(dataset, features, data_dir, verify=False)
            if _recorded(store, dataset, features).get("sha256") != data.sha256:
                write_json(_path(store, dataset, features), {"sha256": data.sha256, "values": scores(data)})
        except BenchError:
            continue


def _plain(e: Experiment) -> Row | None:
    """The row whose system is trained on single modalities: the first plain one, else the first that runs."""
    if e.kind != "table" or not e.seeds:
        return None
    runs = [r for r in e.rows if r.block != BLOCK and not r.apart and any(r.cells.values())]
    return next((r for r in runs if r.baseline == "plain"), runs[0] if runs else None)


def _name(column: Column) -> str:
    return f"{column.group}/{column.metric}" if column.group else column.metric


def _path(store: Store, dataset: str, features: str) -> Path:
    return store.root / "baselines" / f"{dataset}-{features}.json"


def _recorded(store: Store, dataset: str, features: str) -> Mapping[str, Any]:
    found = read_json(_path(store, dataset, features))
    return found if isinstance(found, Mapping) else {}


def _read(store: Store, dataset: str, features: str) -> Mapping[str, Any]:
    values = _recorded(store, dataset, features).get("values")
    return {k: v for k, v in values.items() if isinstance(v, Mapping)} if isinstance(values, Mapping) else {}
