"""The M-SENA pickle: a dict of splits, each a dict of arrays. Checks it and writes it out as .npy files.

Rules, as in M-SENA's own loader:
* -inf in audio becomes 0, always. Where audio or vision is averaged over time, padding counts, and a NaN of the mean
  becomes 0; the mean has length 1.
* Own lengths are read from unaligned files only; in aligned files every stream has the text's length, which is the
  number of ones in the token mask.
Where M-SENA has no rule: NaN in audio or vision is kept and recorded, and only the path that reads whole sequences
refuses it; any other value that is not finite (in text or labels, +inf anywhere, -inf in vision) is an error. The
mean is taken in float64 and stored in float32 (M-SENA: float32 throughout; the difference is rounding).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.spec import SPLITS, DatasetSpec
from bench.errors import DataError

READER = 1  # version of what is written here; part of every cache folder's name
UNIMODAL = {  # our name -> the file's
    "label_text": "regression_labels_T",
    "label_audio": "regression_labels_A",
    "label_vision": "regression_labels_V",
}


def convert(data: Any, spec: DatasetSpec, features: str, source: Path, folder: Path) -> dict[str, Any]:
    """Write `<split>-<array>.npy` and `<split>-strings.json` into a folder; `data` is emptied on the way, so that a
    large file is in memory only once.

    Arrays (N samples): text [N, L, d_t], audio [N, T_a, d_a], vision [N, T_v, d_v], audio_mean [N, 1, d_a],
    vision_mean [N, 1, d_v], label [N], label_text, label_audio, label_vision [N] float32; text_bert [N, 3, L] int32;
    audio_lengths, vision_lengths [N] int64. Returns {"synthetic", "warnings", "nan", "digest"}. Raises DataError
    with one line that says what is wrong and where.
    """
    if not isinstance(data, dict):
        raise DataError(f"{source}: not an M-SENA file: expected a dict of splits, found {type(data).__name__}")
    missing = [s for s in SPLITS if not isinstance(data.get(s), Mapping)]
    if missing:
        raise DataError(f"{source}: no split '{missing[0]}'; found {', '.join(map(repr, data)) or 'nothing'}")
    reader = _Reader(spec, features == "aligned", "synthetic" in data, source, folder)
    for split in SPLITS:
        reader.split(split, dict(data.pop(split)))
    return {
        "synthetic": reader.generated,
        "warnings": reader.notes(),
        "nan": reader.nan,
        "digest": reader.digest.hexdigest(),
    }


class _Reader:
    def __init__(self, spec: DatasetSpec, aligned: bool, generated: bool, source: Path, folder: Path) -> None:
        self.spec, self.aligned, self.generated, self.source, self.folder = spec, aligned, generated, source, folder
        self.nan: dict[str, str] = {}  # "audio", "vision" -> where NaN were seen first
        self.digest = hashlib.sha256()  # of all arrays, whatever wrote the pickle
        self._counts: Counter[str] = Counter()  # text of a warning -> how many values
        self._warnings: list[str] = []
        self._widths: dict[str, tuple[str, tuple[int, ...]]] = {}  # array -> (split seen first, sample shape)
        self._seen: dict[str, str] = {}  # id -> split

    def notes(self) -> list[str]:
        return [text.format(n) for text, n in self._counts.items()] + self._warnings

    def split(self, split: str, raw: dict[str, Any]) -> None:
        for key in ("id", "text", "audio", "vision", "regression_labels"):
            if key not in raw:
                raise DataError(f"{self.source}: {split} has no '{key}'")
        ids = [_as_text(i) for i in raw["id"]]
        if not ids:
            raise DataError(f"{self.source}: {split} is empty")
        if len(ids) != self.spec.sizes[split] and not self.generated:
            self._warnings.append(f"{split}: {len(ids)} samples, the official split has {self.spec.sizes[split]}")
        self._note_duplicates(split, ids)
        words = [_as_text(t) for t in raw.get("raw_text", [""] * len(ids))]
        if len(words) != len(ids):
            raise self._error(split, "raw_text", f"has {len(words)} entries for {len(ids)} ids")

        text = self._features(split, "text", raw.pop("text"), ids)  # (N, L, d_t)
        tokens = self._tokens(split, raw.get("text_bert"), ids)  # (N, 3, L) or None
        text_lengths = _text_lengths(text, tokens)  # (N,)
        self._save(split, "text", text)
        if tokens is not None:
            self._save(split, "text_bert", tokens)
        for name in ("audio", "vision"):
            sequence = self._features(split, name, raw.pop(name), ids)  # (N, T, d)
            if self.aligned and sequence.shape[1] != text.shape[1]:
                raise self._error(
                    split, name, f"has {sequence.shape[1]} steps and text {text.shape[1]}: not an aligned file"
                )
            mean = sequence.mean(axis=1, keepdims=True, dtype=np.float64)  # (N, 1, d), padding included
            self._save(split, f"{name}_mean", np.nan_to_num(mean, nan=0.0).astype(np.float32))
            lengths = text_lengths if self.aligned else self._lengths(split, name, raw, len(ids), sequence.shape[1])
            self._save(split, name, sequence)
            self._save(split, f"{name}_lengths", lengths)
        self._save(split, "label", self._labels(split, "regression_labels", raw, ids))
        own = {name: key for name, key in UNIMODAL.items() if key in raw}
        if len(own) == len(UNIMODAL):
            for name, key in own.items():
                self._save(split, name, self._labels(split, key, raw, ids))
        elif own:
            raise self._error(split, next(iter(own.values())), "stands alone: all of _T, _A and _V are needed")
        elif self.spec.unimodal:
            self._warnings.append(f"{split}: no labels of single modalities")
        strings = json.dumps({"ids": ids, "raw_text": words}, ensure_ascii=False)
        (self.folder / f"{split}-strings.json").write_text(strings, encoding="utf-8")
        self.digest.update(strings.encode())

    def _error(self, split: str, key: str, what: str) -> DataError:
        return DataError(f"{self.source}: {split}/{key} {what}")

    def _numbers(self, split: str, key: str, value: Any, rank: int, n: int) -> np.ndarray:
        """An array of numbers of a given rank whose first axis has n entries; same sample shape in all splits."""
        try:
            array = np.asarray(value)
        except ValueError:
            raise self._error(split, key, "is ragged: its samples differ in shape") from None
        if array.dtype.kind not in "biuf":
            raise self._error(split, key, f"is not numeric (dtype {array.dtype})")
        if array.ndim != rank:
            raise self._error(split, key, f"has shape {list(array.shape)}; expected {rank} axes")
        if len(array) != n:
            raise self._error(split, key, f"has {len(array)} samples for {n} ids")
        first, shape = self._widths.setdefault(key, (split, array.shape[1:]))
        if 0 in array.shape[1:] or array.shape[1:] != shape:
            raise self._error(split, key, f"has samples of shape {list(array.shape[1:])}; in {first}: {list(shape)}")
        return array

    def _features(self, split: str, name: str, value: Any, ids: list[str]) -> np.ndarray:
        """(N, T, d) float32 after the rules for values that are not finite."""
        array = self._numbers(split, name, value, 3, len(ids))
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf and is reported below
            array = array.astype(np.float32, copy=False)
        if np.isfinite(array).all():
            return array
        if name == "audio" and (zeroed := np.isneginf(array)).any():
            array = np.where(zeroed, np.float32(0), array)
            self._counts["audio: {} values of -inf set to 0"] += int(zeroed.sum())
        if (infinite := np.isinf(array)).any():
            raise self._error(split, name, f"has {_where(infinite, ids)} of inf; mend the file")
        if (nan := np.isnan(array)).any():
            if name == "text":
                raise self._error(split, name, f"has {_where(nan, ids)} of NaN; mend the file")
            self.nan.setdefault(name, f"{split}/{name} has {_where(nan, ids)} of NaN")
            self._counts[name + ": {} values of NaN; only models that average over time can use this file"] += int(
                nan.sum()
            )
        return array

    def _tokens(self, split: str, value: Any, ids: list[str]) -> np.ndarray | None:
        if value is None:
            self._warnings.append(f"{split}: no text_bert; models that fine-tune a text encoder cannot use this file")
            return None
        array = self._numbers(split, "text_bert", value, 3, len(ids))
        if array.shape[1] != 3:
            raise self._error(split, "text_bert", f"has shape {list(array.shape)}; expected [N, 3, L]")
        whole = (array >= 0) & (array < 2**31) & (array == np.floor(array))  # stored as float in some files
        if not whole.all():
            raise self._error(split, "text_bert", f"has {_where(~whole, ids)} that are no token ids")
        return array.astype(np.int32)

    def _lengths(self, split: str, name: str, raw: Mapping[str, Any], n: int, steps: int) -> np.ndarray:
        key = f"{name}_lengths"
        if key not in raw:
            return np.full(n, steps, np.int64)
        lengths = self._numbers(split, key, _column(raw[key]), 1, n)
        clipped = np.nan_to_num(np.clip(lengths, 1, steps), nan=1).astype(np.int64)
        if (changed := clipped != lengths).any():
            self._counts[f"{key}: {{}} values outside 1..{steps} clipped"] += int(changed.sum())
        return clipped

    def _labels(self, split: str, key: str, raw: Mapping[str, Any], ids: list[str]) -> np.ndarray:
        labels = self._numbers(split, key, _column(raw[key]), 1, len(ids)).astype(np.float32)
        bound = self.spec.label_bound
        outside = ~(np.abs(labels) <= bound * (1 + 1e-6))  # NaN too
        if outside.any():
            raise self._error(split, key, f"has {_where(outside, ids)} that are NaN or outside [-{bound:g}, {bound:g}]")
        return labels

    def _note_duplicates(self, split: str, ids: list[str]) -> None:
        twice = [i for i, n in Counter(ids).items() if n > 1]
        if twice:
            self._warnings.append(f"{split}: {len(twice)} ids occur more than once, first {twice[0]!r}")
        shared = [i for i in ids if i in self._seen]
        if shared:
            self._warnings.append(
                f"{len(shared)} ids of {split} occur in {self._seen[shared[0]]} too, first {shared[0]!r}"
            )
        self._seen.update((i, split) for i in ids if i not in self._seen)

    def _save(self, split: str, name: str, array: np.ndarray) -> None:
        array = np.ascontiguousarray(array)
        self.digest.update(f"{split}/{name} {array.shape} {array.dtype}".encode())
        self.digest.update(array.data)
        np.save(self.folder / f"{split}-{name}.npy", array)


def _text_lengths(text: np.ndarray, tokens: np.ndarray | None) -> np.ndarray:
    """(N,) steps that carry a token: ones of the mask; without tokens, up to the last row that is not all zero."""
    if tokens is not None:
        lengths = np.minimum(tokens[:, 1].sum(axis=-1), text.shape[1])
    else:
        used = text.any(axis=-1)  # (N, L)
        lengths = text.shape[1] - np.argmax(used[:, ::-1], axis=1)
        lengths = np.where(used.any(axis=1), lengths, 1)
    return np.maximum(lengths, 1).astype(np.int64)


def _where(bad: np.ndarray, ids: list[str]) -> str:
    """How many values of a mask [N, ...] are set, in how many samples, and the first sample's id."""
    rows = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
    return f"{int(bad.sum())} values in {len(rows)} samples (first {ids[rows[0]]!r})"


def _column(value: Any) -> Any:
    """One number per sample, whether stored as [N] or as [N, 1]."""
    array = value if isinstance(value, np.ndarray) else np.array(value)
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (list, tuple, np.ndarray)):  # an id given as its parts
        return "$_$".join(_as_text(part) for part in np.asarray(value).tolist()) if np.ndim(value) else str(value)
    return str(value)
