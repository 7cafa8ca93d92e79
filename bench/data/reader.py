"""What the readers of all formats do alike: check, count, warn, write arrays and strings into a cache folder."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.spec import DatasetSpec
from bench.errors import DataError

UNIMODAL = {  # our name -> the suffix of the files' columns
    "label_text": "T",
    "label_audio": "A",
    "label_vision": "V",
}


class Reader:
    """Base of the readers. Writes `<split>-<array>.npy` and `<split>-strings.json`; every complaint is one line that
    names the file, the split, the key and the first sample concerned."""

    def __init__(self, spec: DatasetSpec, generated: bool, source: Path, folder: Path) -> None:
        self.spec, self.generated, self.source, self.folder = spec, generated, source, folder
        self.nan: dict[str, str] = {}  # "audio", "vision" -> where NaN were kept
        self.digest = hashlib.sha256()  # of all arrays, whatever wrote the file
        self.counts: Counter[str] = Counter()  # text of a warning -> how many values
        self.warnings: list[str] = []
        self._widths: dict[str, tuple[str, tuple[int, ...]]] = {}  # array -> (split seen first, sample shape)
        self._seen: dict[str, str] = {}  # id -> split

    def meta(self, **more: Any) -> dict[str, Any]:
        """What is kept beside the arrays: "synthetic", "warnings", "nan", "digest", and what a format adds."""
        notes = [text.format(n) for text, n in self.counts.items()] + self.warnings
        own = {"synthetic": self.generated, "warnings": notes, "nan": self.nan, "digest": self.digest.hexdigest()}
        return {**own, **more}

    def error(self, split: str, key: str, what: str) -> DataError:
        return DataError(f"{self.source}: {split}/{key} {what}")

    def note_ids(self, split: str, ids: list[str]) -> None:
        """Raises DataError for an empty split; warns of an unofficial size and of ids that occur twice."""
        if not ids:
            raise DataError(f"{self.source}: {split} is empty")
        if self.spec.sizes_published and len(ids) != self.spec.sizes[split] and not self.generated:
            self.warnings.append(f"{split}: {len(ids)} samples, the official split has {self.spec.sizes[split]}")
        twice = [i for i, n in Counter(ids).items() if n > 1]
        if twice:
            self.warnings.append(f"{split}: {len(twice)} ids occur more than once, first {twice[0]!r}")
        shared = [i for i in ids if i in self._seen]
        if shared:
            self.warnings.append(
                f"{len(shared)} ids of {split} occur in {self._seen[shared[0]]} too, first {shared[0]!r}"
            )
        self._seen.update((i, split) for i in ids if i not in self._seen)

    def same_shape(self, split: str, key: str, shape: tuple[int, ...]) -> None:
        """Raises DataError if a sample's shape is empty or not that of the other splits."""
        first, known = self._widths.setdefault(key, (split, shape))
        if 0 in shape or shape != known:
            raise self.error(split, key, f"has samples of shape {list(shape)}; in {first}: {list(known)}")

    def numbers(self, split: str, key: str, value: Any, rank: int, n: int) -> np.ndarray:
        """An array of numbers of a given rank whose first axis has n entries; same sample shape in all splits."""
        try:
            array = np.asarray(value)
        except ValueError:
            raise self.error(split, key, "is ragged: its samples differ in shape") from None
        if array.dtype.kind not in "biuf":
            raise self.error(split, key, f"is not numeric (dtype {array.dtype})")
        if array.ndim != rank:
            raise self.error(split, key, f"has shape {list(array.shape)}; expected {rank} axes")
        if len(array) != n:
            raise self.error(split, key, f"has {len(array)} samples for {n} ids")
        self.same_shape(split, key, array.shape[1:])
        return array

    def labels(self, split: str, key: str, values: Any, ids: list[str]) -> np.ndarray:
        """(N,) float32 within the dataset's bound; 0 or 1 where the task is a decision."""
        labels = self.numbers(split, key, column(values), 1, len(ids)).astype(np.float32)
        bound = self.spec.label_bound
        if self.spec.binary:
            if (wrong := (labels != 0) & (labels != 1)).any():
                raise self.error(split, key, f"has {where(wrong, ids)} that are neither 0 nor 1")
        elif (wrong := ~(np.abs(labels) <= bound * (1 + 1e-6))).any():  # NaN too
            raise self.error(split, key, f"has {where(wrong, ids)} that are NaN or outside [-{bound:g}, {bound:g}]")
        return labels

    def save(self, split: str, name: str, array: np.ndarray) -> None:
        array = np.ascontiguousarray(array)
        self.digest.update(f"{split}/{name} {array.shape} {array.dtype}".encode())
        self.digest.update(array.data)
        np.save(self.folder / f"{split}-{name}.npy", array)

    def save_strings(self, split: str, ids: list[str], raw_text: list[str], **more: list[Any]) -> None:
        """One list per key, all in the arrays' order."""
        text = json.dumps({"ids": ids, "raw_text": raw_text, **more}, ensure_ascii=False)
        (self.folder / f"{split}-strings.json").write_text(text, encoding="utf-8")
        self.digest.update(text.encode())


def where(bad: np.ndarray, ids: list[str]) -> str:
    """How many values of a mask [N, ...] are set, in how many samples, and the first sample's id."""
    rows = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
    return f"{int(bad.sum())} values in {len(rows)} samples (first {ids[rows[0]]!r})"


def column(value: Any) -> Any:
    """One number per sample, whether stored as [N] or as [N, 1]."""
    array = value if isinstance(value, np.ndarray) else np.array(value)
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (list, tuple, np.ndarray)):  # an id given as its parts
        return "$_$".join(as_text(part) for part in np.asarray(value).tolist()) if np.ndim(value) else str(value)
    return str(value)
