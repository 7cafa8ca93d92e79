"""One modality of a feature file replaced by features computed elsewhere (MMSA's -Ft, -Fa, -Fv; MMSA-FET's outputs).

A file of features has, for each split, the modality's array [N, T, d] under its name, and may have id [N], <name>_lengths
[N] and, with text, text_bert [N, 3, L]. Samples are matched by id where both files have ids, else by their order. Sequences
of different lengths, and computational sequences of the CMU SDK (csd.py), are padded.
"""

import os
import pickle
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import csd
from bench.data.layouts import as_msena
from bench.data.spec import MODALITIES, SPLITS
from bench.data.uneven import pad_splits
from bench.data.unpickle import load_pickle
from bench.data.values import as_id, as_list, video_of
from bench.errors import DataError
from bench.plural import count


def join_files(base: str | os.PathLike, target: str | os.PathLike, features: Mapping[str, str | os.PathLike]) -> Path:
    """Write `base` with some modalities replaced (modality -> file) to `target`, complete or not at all, and return it.

    Raises DataError, in one line, where a file cannot be read, lacks the modality, or has other samples.
    """
    base, target = Path(base), Path(target)
    content = load_pickle(base)
    data, _ = as_msena(content, base)
    for modality, file in features.items():
        _replace(data, modality, Path(file), base)
    marks = {k: v for k, v in content.items() if k == "synthetic"}
    part = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as out:
            pickle.dump({**data, **marks}, out, protocol=4)
        part.replace(target)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror})") from None
    finally:
        part.unlink(missing_ok=True)
    return target


def _replace(data: dict[str, dict[str, Any]], modality: str, file: Path, base: Path) -> None:
    if modality not in MODALITIES:
        raise DataError(f"no modality '{modality}'; known: {', '.join(MODALITIES)}")
    given = _of_sequence(file, modality, data, base) if file.suffix.lower() in csd.ENDS else load_pickle(file)
    if isinstance(given, dict):
        given = {s: dict(part) if isinstance(part, Mapping) else part for s, part in given.items()}
        if all(isinstance(given.get(s), dict) for s in SPLITS):
            pad_splits(given, file)
    for split in SPLITS:
        names = ("valid", "dev") if split == "valid" else (split,)
        part = next((given[n] for n in names if isinstance(given, Mapping) and isinstance(given.get(n), Mapping)), None)
        if part is None or modality not in part:
            raise DataError(f"{file}: {split} has no '{modality}'; expected a dict of splits with arrays [N, T, d]")
        order = _order(data[split], part, split, file, base)
        own = ("text_bert",) if modality == "text" else ()
        for key in (modality, f"{modality}_lengths", *own):
            if key in part:
                data[split][key] = _rows(part[key], order, split, key, file)
            elif key != modality:
                data[split].pop(key, None)  # the replaced features' own


def _of_sequence(file: Path, modality: str, data: Mapping[str, Mapping[str, Any]], base: Path) -> dict[str, dict[str, Any]]:
    """split -> the modality's sequences, in the order of the base's samples, and their ids, of a computational sequence
    whose entries are clips ("video[3]"). Raises DataError where they are whole videos, or other clips."""
    entries = csd.read(file)
    clips = {_clip(k): v for k, v in entries.items()}
    found: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        try:
            ids = [as_id(i) for i in as_list(data[split]["id"], "a list of ids")]
        except ValueError as error:
            raise DataError(f"{base}: {split}/id has {error}") from None
        missing = [i for i in ids if _clip(i) not in clips]
        if missing and {video_of(i) for i in missing} & set(entries):
            raise DataError(f"{file}: its entries are whole videos; align it to the labels first (the SDK's align), so that they are clips as 'video[3]'")
        if missing:
            first = f"first {missing[0]!r}; the file has {next(iter(entries))!r} and others"
            raise DataError(f"{file}: lacks {len(missing)} of {count(len(ids), 'sample')} of {split} of {base} ({first})")
        found[split] = {modality: [clips[_clip(i)] for i in ids], "id": ids}
    return found


def _clip(name: str) -> tuple[str, str]:
    """(video, clip) of "video[3]", "video$_$3" or "video_3"."""
    video = video_of(name)
    return video, name[len(video) :].strip("$_[]") if video else name


def _order(mine: Mapping[str, Any], theirs: Mapping[str, Any], split: str, file: Path, base: Path) -> np.ndarray:
    """(N,) the row of `theirs` for each sample of `mine`."""
    try:
        ids = [as_id(i) for i in as_list(mine["id"], "a list of ids")]
        if "id" not in theirs:
            return np.arange(len(ids))
        place = {as_id(i): k for k, i in enumerate(as_list(theirs["id"], "a list of ids"))}
    except ValueError as error:
        raise DataError(f"{file}: {split}/id has {error}") from None
    if missing := [i for i in ids if i not in place]:
        raise DataError(f"{file}: {split} lacks {len(missing)} of {count(len(ids), 'sample')} of {base} (first {missing[0]!r})")
    return np.array([place[i] for i in ids], int)


def _rows(value: Any, order: np.ndarray, split: str, key: str, file: Path) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:
        raise DataError(f"{file}: {split}/{key} has samples of different shapes; pad them to one length") from None
    if not array.ndim or len(array) <= order.max(initial=-1) or len(array) < len(order):
        n = len(array) if array.ndim else 0
        raise DataError(f"{file}: {split}/{key} has {count(n, 'sample')} for {count(len(order), 'id')}")
    return array[order]
