"""The word-level pickle of the MAG-BERT line (MAG-BERT, MIB, ITHP; SAM-LML, CP+SL): one vector per word.

A dict train / dev / test of lists of samples ((words, visual, acoustic), label, segment): n words, visual [n, 47 or
35], acoustic [n, 74], label [1, 1]. Where the inner tuple has a fourth element (MISA's files), the words are there
and the first holds their numbers. It may be a dict instead (words, visual or facet, acoustic or covarep).

Rules: every sample has words, and one row of visual and acoustic for each of them. The scripts that write such files
set NaN to 0; a NaN, or an -inf in acoustic (COVAREP's log of silence), that is left is set to 0 and counted. Any other
value that is not finite is an error. Words become word pieces in prepare.py, when an encoder is chosen.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.reader import Reader
from bench.data.spec import DatasetSpec
from bench.data.values import as_id, as_list, as_numbers, as_text
from bench.errors import DataError
from bench.plural import count

READER = 2  # version of what is written here; part of every cache folder's name
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
        reader.note_word_copies(split, words, visual, acoustic, ids)
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


def label_of(label: Any) -> np.ndarray:
    """A sample's label, stored as a number or as an array of one (or of seven: reader.py). Raises ValueError."""
    return as_numbers(label, words=True).reshape(-1)


def as_words(value: Any) -> list[str]:
    """A sample's words. Raises ValueError where they are one string, or anything but strings."""
    if isinstance(value, (str, bytes)):
        raise ValueError("words that are one string; split it at its blanks")
    return [as_text(w) for w in as_list(value, "a list of words")]


def _named(inner: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """words, visual and acoustic of a sample that names its parts. Raises ValueError where one is missing."""
    found = []
    for names in (("words", "text"), ("visual", "vision", "facet"), ("acoustic", "audio", "covarep")):
        if (name := next((n for n in names if n in inner), None)) is None:
            raise ValueError(f"none of {', '.join(map(repr, names))} among its parts")
        found.append(inner[name])
    return found[0], found[1], found[2]


def _sample(sample: Any) -> tuple[list[str], Any, Any, np.ndarray, str]:
    inner, label, segment = sample
    words, visual, acoustic, *actual = _named(inner) if isinstance(inner, Mapping) else inner
    return as_words(actual[0] if actual else words), visual, acoustic, label_of(label), as_id(segment)


class WordReader(Reader):
    """A reader of samples that have one row of features per word."""

    def parsed(self, split: str, samples: Sequence[Any], parse: Callable[[Any], Any], shape: str) -> list[Any]:
        """parse(sample) of every sample; DataError where one is not built as `shape` says or has no words."""
        found = []
        for i, sample in enumerate(samples):
            if isinstance(sample, (str, bytes, Mapping)):
                raise DataError(f"{self.source}: {split} sample {i} is not {shape}")
            try:
                found.append(parse(sample))
            except TypeError:
                raise DataError(f"{self.source}: {split} sample {i} is not {shape}") from None
            except ValueError as error:
                why = "" if "unpack" in str(error) else f": it has {error}"
                raise DataError(f"{self.source}: {split} sample {i} is not {shape}{why}") from None
            if not found[-1][0]:
                raise DataError(f"{self.source}: {split} sample {i} ({found[-1][-1]!r}) has no words")
        return found

    def note_word_copies(self, split: str, words: list[list[str]], visual: list, acoustic: list, ids: list[str]) -> None:
        """`note_copies` of samples that are lists of words."""
        said = [np.frombuffer(" ".join(w).encode(), np.uint8) for w in words]
        self.note_copies(split, (said, visual, acoustic), ids)

    def rows(
        self, split: str, name: str, values: list[Any], counts: list[int], ids: list[str], spare: bool = False
    ) -> np.ndarray:
        """(W, d) float32: the rows of all samples, one per word; d is that of the other splits.

        spare: more rows than words are cut off and counted; otherwise they are an error, as fewer always are.
        """
        parts, owners = [], np.repeat(np.arange(len(counts)), counts)
        for i, (value, n) in enumerate(zip(values, counts)):
            if n == 0:
                continue
            try:
                array = as_numbers(value)
            except ValueError as error:
                raise self.error(split, name, f"of {ids[i]!r} is no table of numbers: it has {error}") from None
            if array.ndim != 2:
                shape = f"shape {list(array.shape)}, {array.dtype}"
                raise self.error(split, name, f"of {ids[i]!r} is no table of numbers ({shape})")
            if len(array) < n or len(array) > n and not spare:
                raise self.error(split, name, f"of {ids[i]!r} has {count(len(array), 'row')} for {count(n, 'word')}")
            if len(array) > n:
                rest = "more rows than words; the last ones are not read"
                self.tally(name, 1, f"sample has {rest}", f"samples have {rest}")
            self.same_shape(split, name, array.shape[1:])
            parts.append(array[:n])
        rows, names = np.concatenate(parts), [ids[i] for i in owners]
        return self.single(split, name, rows, names, audio=name == "acoustic", nan="zero")
