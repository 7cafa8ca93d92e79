"""What a file of a data folder is that no dataset asks for, by what is in it, and what to do with it; and where a file
that is looked for lies instead."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import csd
from bench.data.spec import FeatureFile
from bench.data.unpickle import load_pickle
from bench.errors import DataError

_DEEP, _MANY = 3, 400  # folders below the data folder, and files, that are looked at
_ENDS = (".pkl", ".pickle", ".p", ".npz", *csd.ENDS)
_SPLITS = ("train", "valid", "dev", "test")
_LARGEST = 4 << 30  # bytes of a pickle that is opened only to say what it is


def files(folder: Path) -> Iterator[Path]:
    """Files of a folder that may hold features, three levels deep, in a fixed order; 400 at most."""
    found = 0
    for top, folders, names in os.walk(folder):
        depth = len(Path(top).relative_to(folder).parts)
        folders[:] = sorted(f for f in folders if f != "wav" and not f.startswith(".")) if depth < _DEEP else []
        for name in sorted(names):
            if name.lower().endswith(_ENDS) and found < _MANY:
                found += 1
                yield Path(top) / name


def recognise(path: Path) -> tuple[str, str]:
    """(what a file is, what to do with it), each in words."""
    end = path.suffix.lower()
    if end in csd.ENDS:
        try:
            return csd.describe(path)
        except (DataError, OSError) as error:
            return "an HDF5 file", str(error).removeprefix(f"{path}: ")
    if end == ".npz":
        return "a numpy archive", "`bench data convert` reads packs of words; audio_features.npz belongs beside a label.csv"
    try:
        if path.stat().st_size > _LARGEST:
            return "a pickle too large to be opened for this", "put it where the dataset's file is looked for"
        return _of_content(load_pickle(path))
    except (DataError, OSError) as error:
        return "unusable", str(error).removeprefix(f"{path}: ")
    except (ValueError, TypeError, KeyError, IndexError):  # numpy's, of ragged contents
        return "a pickle of a structure that no reader knows", "no reader for it"


def _of_content(data: Any) -> tuple[str, str]:
    if isinstance(data, (list, tuple)) and data and "word-level" in (what := _of_samples(data)[0]):
        return f"one split of {what}", "`bench data convert FOLDER OUT.pkl` joins train.pkl, dev.pkl and test.pkl"
    if not isinstance(data, Mapping):
        return f"a pickle of a {type(data).__name__}", "no reader for it"
    parts = [data[s] for s in _SPLITS if s in data]
    if not parts:
        keys = ", ".join(repr(k)[:20] for k in list(data)[:6])
        if {"id", "features"} <= set(data):
            return "audio features", "put it beside a label.csv as audio_features.pkl"
        return f"a pickle of {keys}", "no split among its keys: no reader for it"
    if all(isinstance(p, Mapping) for p in parts):
        return _of_arrays(parts[0])
    if all(isinstance(p, (list, tuple)) for p in parts):
        return _of_samples(parts[0])
    return "a pickle of splits of different kinds", "no reader for it"


def _of_arrays(part: Mapping[str, Any]) -> tuple[str, str]:
    keys = set(part)
    if "regression_labels" in keys:
        return "an M-SENA pickle (MMSA, MMSA-FET, SIMS v2)", "put it at DATASET/Processed/unaligned_50.pkl or aligned_50.pkl"
    modalities = keys & {"text", "audio", "vision"}
    if "labels" in keys and len(modalities) == 3:
        if np.ndim(part["labels"]) > 1 and np.shape(part["labels"])[-1] > 1:
            return "MulT's or MultiBench's pickle of classes (IEMOCAP)", "no dataset of emotion classes is supported"
        return "MulT's or MultiBench's pickle", "put it at DATASET/Processed/unaligned_50.pkl (or aligned_50.pkl); read as it is"
    if len(modalities) == 1:
        return f"features of one modality ({min(modalities)})", f"`bench data convert FILE OUT --{min(modalities)}-from THIS`"
    return f"a pickle of arrays per split ({', '.join(sorted(map(str, keys)))[:80]})", "it lacks labels or features"


def _of_samples(samples: Any) -> tuple[str, str]:
    first = samples[0] if samples else None
    if isinstance(first, (list, tuple)) and len(first) == 3 and isinstance(first[0], (list, tuple)):
        n = len(first[0])
        line = {3: "MAG-BERT, ITHP", 4: "MISA, MMIM"}.get(n)
        if line:
            return f"a word-level pickle ({line})", "put it into the data folder as mosi.pkl or mosei.pkl"
        return f"a word-level pickle whose samples have {n} parts in place of 3 or 4", "no reader for it"
    if isinstance(first, (list, tuple)) and len(first) == 4:
        return "HKT's pickle", "put it into the data folder as ur_funny.pkl or mustard.pkl"
    return "a pickle of lists of samples of another kind", "no reader for it"


def instead(data_dir: Path, file: FeatureFile) -> str:
    """Where a file that looks like the one wanted lies instead; "" where nothing does."""
    wanted = {Path(n).name.lower() for n in file.names}
    folders = {p.lower() for n in file.names for p in Path(n).parts[:-1]} - {"processed", "raw", "audio"}
    for path in files(data_dir):
        plain = re.sub(r"( ?\(\d+\)|[ _-]copy)(?=\.\w+$)", "", path.name).lower()
        inside = bool(folders & {p.lower() for p in path.parts}) or not folders
        if inside and (plain in wanted or plain in ("feature.pkl", "features.pkl")):
            return f"found {path}: move or rename it"
    above = file.find(data_dir.parent)
    return f"found {above}: give --data {data_dir.parent}" if above is not None else ""
