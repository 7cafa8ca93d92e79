"""A user's own data set, without a line of code: what it is, is inferred from its M-SENA-like file.

`--dataset-from DIR` (or $BENCH_DATASET_FROM, which workers inherit) names a folder with one such pickle, in it or in its
folder Processed. Its name is the folder's; shapes, the bound of the labels and the metric family follow from the file. A
file dataset.toml beside the pickle overrules what was inferred:

    name = "mydata"                 # letters, digits, _
    title = "My data"               # as printed in tables
    file = "features.pkl"           # where several lie there
    metrics = "msena"               # msena (-3 to 3), sims (-1 to 1) or binary (0 or 1)
    label_bound = 3.0
    vocabulary = "bert-base-uncased"  # of text_bert
    nearest = "mosi"                # dataset whose hyperparameters are taken

A dataset that needs more than that is a module in bench/data/datasets (docs/formats.md).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench import registry
from bench.data.layouts import as_msena
from bench.data.spec import MODALITIES, SPLITS, DatasetSpec, FeatureFile, Recipe
from bench.data.unpickle import load_pickle
from bench.data.values import as_numbers, column
from bench.errors import BenchError, DataError

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

FROM = "BENCH_DATASET_FROM"
_BOUNDS = {"msena": 3.0, "sims": 1.0, "binary": 1.0}
_LARGE = 5000  # training samples from which MOSEI is nearer than MOSI
_CHINESE = 21_128  # word pieces of bert-base-chinese
_KEYS = {"name", "title", "file", "metrics", "label_bound", "vocabulary", "nearest"}


@dataclass(frozen=True)
class Own:
    """spec: what the dataset is taken to be; inferred: how that was seen, one line each."""

    spec: DatasetSpec
    folder: Path
    inferred: tuple[str, ...]


def register(folder: str | os.PathLike | None = None) -> Own | None:
    """Make the dataset of a folder (else of $BENCH_DATASET_FROM) known by name; None where none is named.

    Raises BenchError, in one line, where no file is there, it cannot be read, or its name is taken.
    """
    folder = folder or os.environ.get(FROM)
    if not folder:
        return None
    found = _look(Path(folder).resolve())
    registry.add("datasets", found.spec.name, SimpleNamespace(SPEC=found.spec, VERSION=1))
    return found


@lru_cache
def _look(folder: Path) -> Own:
    if not folder.is_dir():
        raise BenchError(f"--dataset-from {folder}: no such folder")
    said = _said(folder / "dataset.toml")
    path = _file(folder, said.get("file"))
    name = str(said.get("name") or re.sub(r"\W+", "_", folder.name.lower()).strip("_"))
    if not re.fullmatch(r"[a-z]\w{0,30}", name):
        raise BenchError(f"{folder}: '{name}' is no name for a dataset; say name = \"...\" in {folder / 'dataset.toml'}")
    splits, notes = as_msena(load_pickle(path), path)
    y = {s: _labels(path, s, splits[s]["regression_labels"]) for s in SPLITS}
    every = np.concatenate(list(y.values()))
    family, bound, why = _family(path, every)
    family = str(said.get("metrics", family))
    if family not in _BOUNDS:
        raise BenchError(f"{folder / 'dataset.toml'}: metrics is {', '.join(_BOUNDS)}, got '{family}'")
    bound = float(said.get("label_bound", _BOUNDS[family] if "metrics" in said else bound))
    shapes = {m: _shape(path, m, splits["train"].get(m)) for m in MODALITIES}
    vocabulary, why_vocabulary = _vocabulary(splits)
    nearest = str(said.get("nearest") or _nearest(family, len(y["train"])))
    kinds = ["unaligned"] + ["aligned"] * (len({t for t, _ in shapes.values()}) == 1 and "audio_lengths" not in splits["train"])
    place = str(path.relative_to(folder))
    spec = DatasetSpec(
        name=name,
        title=str(said.get("title", name)),
        metrics=family,
        label_bound=bound,
        sizes={s: len(v) for s, v in y.items()},
        features={k: FeatureFile(names=(place,), **shapes) for k in kinds},
        recipe=Recipe(tuple(np.histogram(every, 2 * round(5 * bound) + 1, (-bound, bound))[0].tolist()), 0.3, (0.5, 0.5)),
        unimodal=all(f"regression_labels_{t}" in splits[s] for t in "TAV" for s in SPLITS),
        vocabulary=str(said.get("vocabulary", vocabulary)),
        sizes_published=False,
        nearest=nearest,
    )
    sizes, shown = " / ".join(str(n) for n in spec.sizes.values()), ", ".join(f"{m} {t} x {d}" for m, (t, d) in shapes.items())
    lines = (
        f"dataset '{name}' from {path}: {sizes} samples; {shown}",
        f"labels {every.min():g} to {every.max():g}: bound {bound:g}, metrics '{family}' ({why})",
        f"word pieces of {spec.vocabulary} ({why_vocabulary}); hyperparameters of {nearest}; features: {', '.join(kinds)}",
        *notes, *(f"{k} = {v!r} by dataset.toml" for k, v in said.items()),
    )
    return Own(spec, folder, lines)


def _said(path: Path) -> Mapping[str, Any]:
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BenchError(f"{path}: cannot be read ({error})") from None
    if odd := set(said) - _KEYS:
        raise BenchError(f"{path}: unknown key '{min(odd)}'; known: {', '.join(sorted(_KEYS))}")
    if not isinstance(said.get("label_bound", 1.0), (int, float)) or not 0 < said.get("label_bound", 1.0) < 1e6:
        raise BenchError(f"{path}: label_bound is a number above 0")
    return said


def _file(folder: Path, named: Any) -> Path:
    if named is not None:
        path = folder / str(named)
        if not path.is_file() or folder not in path.resolve().parents:
            raise BenchError(f"{folder}: no file '{named}' in it")
        return path
    found = sorted((p for place in (folder, folder / "Processed") for p in place.glob("*.pkl") if p.is_file()), key=lambda p: p.name)
    if not found:
        raise BenchError(f"--dataset-from {folder}: no .pkl in it or in its folder Processed")
    unaligned = [p for p in found if "unaligned" in p.name]
    if len(found) > 1 and len(unaligned) != 1:
        names = ", ".join(p.name for p in found[:6])
        raise BenchError(f"--dataset-from {folder}: several files ({names}); say file = \"...\" in {folder / 'dataset.toml'}")
    return unaligned[0] if len(found) > 1 else found[0]


def _labels(path: Path, split: str, value: Any) -> np.ndarray:
    try:
        y = column(as_numbers(value, words=True)).astype(np.float64)
    except ValueError as error:
        raise DataError(f"{path}: {split}/regression_labels has {error}") from None
    if y.ndim != 1 or not len(y) or not np.isfinite(y).all():
        raise DataError(f"{path}: {split}/regression_labels is no list of finite numbers (shape {list(y.shape)})")
    return y


def _family(path: Path, y: np.ndarray) -> tuple[str, float, str]:
    most = float(np.abs(y).max())
    if set(np.unique(y)) <= {0.0, 1.0}:
        return "binary", 1.0, "labels are 0 and 1"
    if y.min() > 0:
        raise DataError(f"{path}: labels lie in {y.min():g} to {y.max():g}, not around 0; subtract their middle")
    if most <= 1:
        return "sims", 1.0, "labels within 1, as in CH-SIMS"
    return "msena", 3.0 if most <= 3 else float(np.ceil(most)), "labels as in MOSI" + (", but wider" if most > 3 else "")


def _shape(path: Path, modality: str, value: Any) -> tuple[int, int]:
    if value is None:
        return (1, 1)
    shape = np.shape(value) if isinstance(value, np.ndarray) else np.shape(value[0]) and (len(value), *np.shape(value[0]))
    if not shape or len(shape) != 3:
        raise DataError(f"{path}: train/{modality} has shape {list(shape or ())}; expected [N, T, d]")
    return int(shape[1]), int(shape[2])


def _vocabulary(splits: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    tokens = splits["train"].get("text_bert")
    texts = splits["train"].get("raw_text")
    if texts is not None and any("\u4e00" <= c <= "\u9fff" for t in list(texts)[:50] for c in str(t)):
        return "bert-base-chinese", "transcripts are Chinese"
    try:
        largest = int(np.max(np.asarray(tokens)[:, 0])) if tokens is not None else 0
    except (ValueError, TypeError, IndexError):
        largest = 0
    return "bert-base-uncased", f"ids up to {largest}" if largest >= _CHINESE else "transcripts are not Chinese"


def _nearest(family: str, train: int) -> str:
    return {"sims": "sims", "binary": "mustard"}.get(family, "mosei" if train >= _LARGE else "mosi")


