"""The word-level pickle of the MAG-BERT line (MAG-BERT, MIB, ITHP; SAM-LML, CP+SL): one vector per word.

A dict train / dev / test of lists of samples ((words, visual, acoustic), label, segment): n words, visual [n, 47 or
35], acoustic [n, 74], label [1, 1]. Where the inner tuple has a fourth element (MISA's files), the words are there
and the first holds their numbers.

Rules: every sample has words, and one row of visual and acoustic for each of them. The scripts that write such files
set NaN to 0; a NaN, or an -inf in acoustic (COVAREP's log of silence), that is left is set to 0 and counted. Any other
value that is not finite is an error. Words become word pieces in prepare.py, when an encoder is chosen.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.reader import Reader, as_text, where
from bench.data.spec import DatasetSpec
from bench.errors import DataError

READER = 1  # version of what is written here; part of every cache folder's name
_SPLITS = {"train": ("train",), "valid": ("dev", "valid"), "test": ("test",)}


def convert(data: Any, spec: DatasetSpec, features: str, source: Path, folder: Path) -> dict[str, Any]:
    """Write word_audio [W, d_a], word_vision [W, d_v] float32, word_start [N + 1] int64, label [N] float32 and the
    strings ids, raw_text, words of each split into a folder; returns the reader's meta data.

    Raises DataError with one line that says what is wrong and where.
    """
    reader = WordReader(spec, isinstance(data, Mapping) and "synthetic" in data, source, folder)
    for split, samples in sample_lists(data, source, "a word-level file").items():
        found = reader.parsed(split, samples, _sample, "((words, visual, acoustic), label, segment)")
        words, visual, acoustic, labels, ids = map(list, zip(*found))
        reader.note_ids(split, ids)
        counts = [len(w) for w in words]
        reader.save(split, "word_vision", reader.rows(split, "visual", visual, counts, ids))
        reader.save(split, "word_audio", reader.rows(split, "acoustic", acoustic, counts, ids))
        reader.save(split, "word_start", np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
        reader.save(split, "label", reader.labels(split, "label", labels, ids))
        reader.save_strings(split, ids, [" ".join(w) for w in words], words=words)
    return reader.meta()


def sample_lists(data: Any, source: Path, kind: str) -> dict[str, Sequence[Any]]:
    """The three lists of samples of a file whose validation split is called "dev". Raises DataError."""
    if not isinstance(data, Mapping):
        raise DataError(f"{source}: not {kind}: expected a dict of splits, found {type(data).__name__}")
    found = {}
    for split, names in _SPLITS.items():
        samples = next((data[n] for n in names if n in data), None)
        if not isinstance(samples, (list, tuple)):
            what = f"'{names[0]}' is no list" if samples is not None else f"no split '{names[0]}'"
            raise DataError(f"{source}: not {kind}: {what}; found {', '.join(map(repr, data)) or 'nothing'}")
        if not samples:
            raise DataError(f"{source}: {split} is empty")
        found[split] = samples
    return found


def one_number(label: Any) -> float:
    """A label stored as a number or as an array of one. Raises ValueError otherwise."""
    return float(np.asarray(label).reshape(()) if np.size(label) == 1 else np.nan)


def _sample(sample: Any) -> tuple[list[str], Any, Any, float, str]:
    inner, label, segment = sample
    words, visual, acoustic, *actual = inner
    return [as_text(w) for w in (actual[0] if actual else words)], visual, acoustic, one_number(label), as_text(segment)


class WordReader(Reader):
    """A reader of samples that have one row of features per word."""

    def parsed(self, split: str, samples: Sequence[Any], parse: Callable[[Any], Any], shape: str) -> list[Any]:
        """parse(sample) of every sample; DataError where one is not built as `shape` says or has no words."""
        found = []
        for i, sample in enumerate(samples):
            try:
                found.append(parse(sample))
            except (TypeError, ValueError):
                raise DataError(f"{self.source}: {split} sample {i} is not {shape}") from None
            if not found[-1][0]:
                raise DataError(f"{self.source}: {split} sample {i} ({found[-1][-1]!r}) has no words")
        return found

    def rows(
        self, split: str, name: str, values: list[Any], counts: list[int], ids: list[str], spare: bool = False
    ) -> np.ndarray:
        """(W, d) float32: the rows of all samples, one per word; d is that of the other splits.

        spare: more rows than words are cut off and counted; otherwise they are an error, as fewer always are.
        """
        parts, owners = [], np.repeat(np.arange(len(counts)), counts)
        for i, (value, n) in enumerate(zip(values, counts)):
            array = np.asarray(value)
            if n == 0:
                continue
            if array.dtype.kind not in "biuf" or array.ndim != 2:
                shape = f"shape {list(array.shape)}, {array.dtype}"
                raise self.error(split, name, f"of {ids[i]!r} is no table of numbers ({shape})")
            if len(array) < n or len(array) > n and not spare:
                raise self.error(split, name, f"of {ids[i]!r} has {len(array)} rows for {n} words")
            if len(array) > n:
                self.counts[name + ": {} samples have more rows than words; the last ones are not read"] += 1
            self.same_shape(split, name, array.shape[1:])
            with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf and is reported below
                parts.append(array[:n].astype(np.float32))
        return self._finite(split, name, np.concatenate(parts), [ids[i] for i in owners])

    def _finite(self, split: str, name: str, array: np.ndarray, owners: list[str]) -> np.ndarray:
        """NaN, and -inf in acoustic, become 0. owners [W]: the id of each row's sample."""
        for what, bad in (("NaN", np.isnan(array)), ("-inf", np.isneginf(array) if name == "acoustic" else None)):
            if bad is not None and bad.any():
                array = np.where(bad, np.float32(0), array)
                self.counts[f"{name}: {{}} values of {what} set to 0"] += int(bad.sum())
        if (infinite := np.isinf(array)).any():
            raise self.error(split, name, f"has {where(infinite, owners)} of inf; mend the file")
        if not array.any():
            self.warnings.append(f"{split}/{name} is zero everywhere")
        return array
