"""Scores of a feature file by a trained job: `bench predict --job JOB --data FILE`."""

import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.data.corruption import Corruption, parse
from bench.data.dataset import load as load_data
from bench.data.dataset import spec
from bench.data.spec import SPLITS
from bench.data.unpickle import load_pickle
from bench.errors import BenchError, DataError
from bench.job import build_data, corrupt
from bench.matrix import Job
from bench.train.loop import predict as scores
from bench.weights import build, load

_LABEL = "regression_labels"


def predict(weights: str | Path, data: str | Path) -> pd.DataFrame:
    """One row per sample of a feature file: split, id, prediction, label (NaN where the file has none).

    The file is of the kind that the job was trained on. An M-SENA pickle may hold any of the splits, or the arrays of
    one split without a name, and needs no labels: clips of one's own. Raises BenchError, in one line, where file and
    weights do not belong together.
    """
    w, path = load(weights), Path(data)
    c = w.job.config
    known = spec(c.dataset)
    file = known.features.get(c.features)
    if file is None:
        raise BenchError(f"{weights}: trained on '{c.features}' features, which {known.name} has not")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with tempfile.TemporaryDirectory(prefix="bench-predict-") as folder:
        place = Path(folder) / file.names[0]
        place.parent.mkdir(parents=True)
        given, labelled = SPLITS, True
        if file.format == "msena":
            content, given, labelled = _whole(load_pickle(path), path)
            place.write_bytes(pickle.dumps(content))
        elif file.format == "audio":
            place.parent.rmdir()
            place.parent.symlink_to(path.resolve().parent)
        else:
            place.symlink_to(path.resolve())
        dataset = load_data(known.name, c.features, folder, Path(folder) / "cache")
        model = build(weights)
        whole = Job(c.with_(fraction=1.0), w.job.seed)  # every clip of the file, whatever part the job trained on
        resident = build_data(whole, dataset, type(model), "cpu")
        _fits(resident.inputs(), w.inputs, path)
        if dropped := parse(c.corruption).dropped:  # what it was trained without it is scored without
            resident = corrupt(w.job, resident, resident.dataset, model, Corruption(dropped=dropped))
        frames = []
        for split in given:
            frame = pd.DataFrame({"split": split, "id": dataset.ids(split), "prediction": scores(model, resident, split)})
            frame["label"] = resident.labels(split) if labelled else np.nan
            frames.append(frame)
    found = pd.concat(frames, ignore_index=True)
    found["id"] = found["id"].str.removeprefix(_PREFIX)
    return found


_PREFIX = "\u2063"  # invisible: keeps the ids of splits that only fill the file apart from the real ones


def _whole(content: Any, path: Path) -> tuple[dict, tuple[str, ...], bool]:
    """(a pickle with all three splits, the splits that were given, whether they have labels)."""
    if not isinstance(content, Mapping):
        raise DataError(f"{path}: not an M-SENA pickle (a mapping of splits, or of the arrays of one)")
    parts = {s: content[s] for s in SPLITS if isinstance(content.get(s), Mapping)} or {"test": content}
    labelled = True
    for split, part in parts.items():
        part = {k: v.view(np.ndarray) if isinstance(v, np.ndarray) else v for k, v in part.items()}
        n = next((len(v) for k, v in part.items() if k in ("text", "text_bert", "audio", "vision")), 0)
        if not n:
            raise DataError(f"{path}: no text, audio or vision in '{split}'")
        if not any(k in part for k in (_LABEL, f"{_LABEL}_T", "classification_labels")):
            labelled = False
            part[_LABEL] = np.linspace(-1, 1, n).astype(np.float32)  # never read: predictions do not see labels
        part.setdefault("id", [f"clip{i}" for i in range(n)])
        part.setdefault("raw_text", [""] * n)
        parts[split] = part
    given = tuple(parts)
    for split in SPLITS:
        if split not in parts:
            parts[split] = {**parts[given[0]], "id": [f"{_PREFIX}{split}${i}" for i in range(len(parts[given[0]]["id"]))]}
    return {s: parts[s] for s in SPLITS}, given, labelled


def _fits(mine: Mapping[str, Any], theirs: Any, path: Path) -> None:
    for modality in ("text", "audio", "vision"):
        here, there = mine[modality][1], getattr(theirs, modality)[1]
        if here != there:
            raise DataError(f"{path}: {modality} has {here} columns, the model was trained on {there}")
