"""What the readers of all formats do alike: check, count, warn, write arrays and strings into a cache folder."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.spec import DatasetSpec
from bench.data.values import as_id, as_list, as_numbers, as_transcript, column, video_of
from bench.errors import DataError
from bench.plural import count

UNIMODAL = {  # our name -> the suffix of the files' columns
    "label_text": "T",
    "label_audio": "A",
    "label_vision": "V",
}
HUGE = 1e15  # no feature extractor makes larger values
_SINGLE = float(np.finfo(np.float32).max)
_ROWS = 4096  # samples looked at in one go


class Reader:
    """Base of the readers. Writes `<split>-<array>.npy` and `<split>-strings.json`; every complaint is one line that
    names the file, the split, the key and the first sample concerned."""

    def __init__(self, spec: DatasetSpec, generated: bool, source: Path, folder: Path) -> None:
        self.spec, self.generated, self.source, self.folder = spec, generated, source, folder
        self.nan: dict[str, str] = {}  # "audio", "vision" -> where NaN were kept
        self.leaks: list[str] = []  # ids that two splits share, one line per pair of splits
        self.digest = hashlib.sha256()  # of all arrays, whatever wrote the file
        self.counts: Counter[tuple[str, str, str]] = Counter()  # as `tally` takes them -> how many
        self.warnings: list[str] = []
        self._widths: dict[str, tuple[str, tuple[int, ...]]] = {}  # array -> (split seen first, sample shape)
        self._seen: dict[str, str] = {}  # id -> split
        self._videos: dict[str, set[str]] = {}  # split -> videos
        self._prints: dict[bytes, tuple[str, str]] = {}  # fingerprint of a sample's features -> split, id

    def meta(self, **more: Any) -> dict[str, Any]:
        """What is kept beside the arrays: "synthetic", "warnings", "leaks", "nan", "digest", and what a format adds."""
        notes = [f"{key}: {count(n, *words)}" for (key, *words), n in self.counts.items()] + self.warnings
        own = {"synthetic": self.generated, "warnings": notes, "leaks": self.leaks, "nan": self.nan}
        return {**own, "digest": self.digest.hexdigest(), **more}

    def tally(self, key: str, n: int, one: str, several: str) -> None:
        """Warn of n values of all splits together, in words for one and for more of them."""
        self.counts[key, one, several] += n

    def error(self, split: str, key: str, what: str) -> DataError:
        return DataError(f"{self.source}: {split}/{key} {what}")

    def ids(self, split: str, key: str, value: Any) -> list[str]:
        """The samples' ids as text. Raises DataError as `note_ids` does, and for what is no id."""
        found = self.each(split, key, value, as_id, "ids")
        self.note_ids(split, found)
        return found

    def each(self, split: str, key: str, value: Any, read: Callable[[Any], Any], what: str) -> list[Any]:
        """read(item) of every item of a list; DataError says which sample could not be read."""
        try:
            items = as_list(value, f"a list of {what}")
        except ValueError as error:
            raise self.error(split, key, f"has {error}") from None
        found = []
        for i, item in enumerate(items):
            try:
                found.append(read(item))
            except ValueError as error:
                raise self.error(split, key, f"has {error} (sample {i})") from None
        return found

    def transcripts(self, split: str, key: str, value: Any, ids: Sequence[str]) -> list[str]:
        """The samples' transcripts; those that are None, NaN or the word "nan" are empty and counted."""
        found = self.each(split, key, value, as_transcript, "transcripts")
        if len(found) != len(ids):
            raise self.error(split, key, f"has {count(len(found), 'entry', 'entries')} for {count(len(ids), 'id')}")
        if missing := sum(t is None for t in found):
            self.tally(key, missing, "transcript is None or NaN; it is read as empty", "transcripts are None or NaN; they are read as empty")
        return [t or "" for t in found]

    def note_ids(self, split: str, ids: list[str]) -> None:
        """Raises DataError for an empty split; warns of an unofficial size, of ids that occur twice and of videos that
        two splits share; ids that two splits share are kept in `leaks`."""
        if not ids:
            raise DataError(f"{self.source}: {split} is empty")
        if self.spec.sizes_published and len(ids) != self.spec.sizes[split] and not self.generated:
            self.warnings.append(f"{split}: {count(len(ids), 'sample')}, the official split has {self.spec.sizes[split]}")
        twice = [i for i, n in Counter(ids).items() if n > 1]
        if twice:
            self.warnings.append(f"{split}: {count(len(twice), 'id occurs', 'ids occur')} more than once, first {twice[0]!r}")
        shared = [i for i in ids if i in self._seen]
        for other in dict.fromkeys(self._seen[i] for i in shared):
            own = [i for i in shared if self._seen[i] == other]
            self.leaks.append(f"{count(len(own), f'id of {split} occurs', f'ids of {split} occur')} in {other} too, first {own[0]!r}")
        videos = {v for i in ids if (v := video_of(i))}
        for other, known in self._videos.items():
            if both := sorted(videos & known):
                what = f"{len(both)} of {count(len(videos), f'video of {split} occurs', f'videos of {split} occur')} in {other} too, first {both[0]!r}"
                self.warnings.append(f"{what}: speaker and scene are known from there")
        self._videos[split] = videos
        self._seen.update((i, split) for i in ids if i not in self._seen)

    def note_copies(self, split: str, arrays: Sequence[np.ndarray], ids: list[str]) -> None:
        """Warns where samples of two splits have the same features under different ids. arrays: of N rows each."""
        copies = []
        for i, sample in enumerate(ids):
            mark = hashlib.blake2b(digest_size=8)
            for array in arrays:
                mark.update(np.ascontiguousarray(array[i]))
            other, name = self._prints.setdefault(mark.digest(), (split, sample))
            if other != split and name != sample:
                copies.append((sample, other, name))
        for other in dict.fromkeys(o for _, o, _ in copies):
            own = [(a, b) for a, o, b in copies if o == other]
            what = f"{count(len(own), f'sample of {split} has', f'samples of {split} have')} the features of samples of {other}"
            self.warnings.append(f"{what} under another id, first {own[0][0]!r} = {own[0][1]!r}")

    def same_shape(self, split: str, key: str, shape: tuple[int, ...]) -> None:
        """Raises DataError if a sample's shape is empty or not that of the other splits."""
        first, known = self._widths.setdefault(key, (split, shape))
        if 0 in shape or shape != known:
            raise self.error(split, key, f"has samples of shape {list(shape)}; in {first}: {list(known)}")

    def array(self, split: str, key: str, value: Any, words: bool = False) -> np.ndarray:
        """An array of numbers; `words`: strings that spell numbers will do."""
        try:
            return as_numbers(value, words)
        except ValueError as error:
            raise self.error(split, key, f"has {error}") from None

    def numbers(self, split: str, key: str, value: Any, rank: int, n: int) -> np.ndarray:
        """An array of numbers of a given rank whose first axis has n entries; same sample shape in all splits."""
        array = self.array(split, key, value)
        if array.ndim != rank:
            raise self.error(split, key, f"has shape {list(array.shape)}; expected {rank} axes")
        if len(array) != n:
            raise self.error(split, key, f"has {count(len(array), 'sample')} for {count(n, 'id')}")
        self.same_shape(split, key, array.shape[1:])
        return array

    def labels(self, split: str, key: str, values: Any, ids: list[str]) -> np.ndarray:
        """(N,) float32 within the dataset's bound; 0 or 1 where the task is a decision."""
        given = column(self.array(split, key, values, words=True))
        if given.ndim == 2 and given.shape[1] == 7 and not self.spec.binary:
            given = self._first_of_seven(split, key, given)
        if given.ndim != 1:
            several = "several numbers per sample (a class per column?); expected one"
            raise self.error(split, key, f"has shape {list(given.shape)}: {several}")
        if len(given) != len(ids):
            raise self.error(split, key, f"has {count(len(given), 'sample')} for {count(len(ids), 'id')}")
        if (bad := ~np.isfinite(given)).any():
            raise self.error(split, key, f"has {where(bad, ids)} of NaN or infinity")
        bound = self.spec.label_bound
        if self.spec.binary:
            if (wrong := (given != 0) & (given != 1)).any():
                raise self.error(split, key, f"has {where(wrong, ids)} other than 0 and 1")
        elif (wrong := np.abs(given.astype(np.float64)) > bound * (1 + 1e-6)).any():
            raise self.error(split, key, f"has {where(wrong, ids)} outside [-{bound:g}, {bound:g}]")
        labels = given.astype(np.float32)
        if len(labels) > 1 and (labels == labels[0]).all():
            self.warnings.append(f"{split}/{key}: every label is {labels[0]:g}")
        return labels

    def _first_of_seven(self, split: str, key: str, given: np.ndarray) -> np.ndarray:
        """MOSEI's labels as its SDK gives them: sentiment, then happy, sad, anger, surprise, disgust, fear (0 to 3)."""
        if not ((given[:, 1:] >= 0) & (given[:, 1:] <= 3)).all():
            what = "7 numbers per sample, which are not sentiment and six emotions from 0 to 3; keep the sentiment only"
            raise self.error(split, key, f"has {what}")
        rest = "7 labels; the first, the sentiment, is read and six emotions are not"
        self.tally(key, len(given), f"sample has {rest}", f"samples have {rest}")
        return given[:, 0]

    def single(self, split: str, key: str, array: np.ndarray, owners: Sequence[str], audio: bool, nan: str) -> np.ndarray:
        """An array of features [N, ...] in float32, after the field's rules for what is not finite.

        audio: -inf becomes 0 (COVAREP's log of silence), as every loader of the field does after its cast to single
        precision; so does, for the same reason, a double below what single precision holds. nan: "keep" it and say
        so in `nan`, set it to "zero", or "refuse" it. owners [N]: the id of each row's sample. Warns of values beyond
        1e15 and of an array that is zero everywhere. Raises DataError for what is left that is not finite.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            cast = np.ascontiguousarray(array, np.float32)
        if not all(np.isfinite(cast[i : i + _ROWS]).all() for i in range(0, len(cast), _ROWS)):
            cast = self._finite(split, key, array, cast, owners, audio, nan)
        parts = (np.abs(cast[i : i + _ROWS]) for i in range(0, len(cast), _ROWS))
        largest = max((float(np.fmax.reduce(p, axis=None, initial=0)) for p in parts), default=0.0)
        if largest > HUGE:
            found = where(np.abs(cast) > HUGE, owners)
            what = f"beyond {HUGE:g}, up to {largest:.3g}; no feature extractor makes them: download or extract it again"
            self.warnings.append(f"{split}/{key}: {found} {what}")
        elif not largest:
            self.warnings.append(f"{split}/{key} is zero everywhere{self._without(key)}")
        return cast

    def _without(self, key: str) -> str:
        named = {"visual": "vision", "acoustic": "audio"}.get(key, key)
        others = [m for m in ("text", "audio", "vision") if m != named]
        return f": models run as {' and '.join(others)} only; with --modalities {','.join(others)} reports say so" if len(others) == 2 else ""

    def _finite(
        self, split: str, key: str, array: np.ndarray, cast: np.ndarray, owners: Sequence[str], audio: bool, nan: str
    ) -> np.ndarray:
        beyond = np.isinf(cast) & np.isfinite(array)  # doubles that single precision does not hold
        if audio and (zeroed := np.isneginf(cast)).any():
            cast = np.where(zeroed, np.float32(0), cast)
            if n := int((zeroed & ~beyond).sum()):
                self.tally(key, n, "value of -inf set to 0", "values of -inf set to 0")
            if n := int((zeroed & beyond).sum()):
                self.tally(key, n, *(f"{word} below -{_SINGLE:.2g} set to 0, as -inf is" for word in ("value", "values")))
        if (infinite := np.isinf(cast)).any():
            if (infinite & beyond).any():
                worst = float(array[infinite & beyond].flat[0])
                what = f"of {worst:g} or so, beyond what single precision holds ({_SINGLE:.2g})"
                raise self.error(split, key, f"has {where(infinite, owners)} {what}; mend the file")
            raise self.error(split, key, f"has {where(infinite, owners)} of inf; mend the file")
        if (missing := np.isnan(cast)).any():
            if nan == "refuse":
                raise self.error(split, key, f"has {where(missing, owners)} of NaN; mend the file")
            if nan == "zero":
                cast = np.where(missing, np.float32(0), cast)
                self.tally(key, int(missing.sum()), "value of NaN set to 0", "values of NaN set to 0")
            else:
                self.nan.setdefault(key, f"{split}/{key} has {where(missing, owners)} of NaN")
                only = "only models that average over time can use this file"
                self.tally(key, int(missing.sum()), f"value of NaN; {only}", f"values of NaN; {only}")
        return cast

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


def where(bad: np.ndarray, ids: Sequence[str]) -> str:
    """How many values of a mask [N, ...] are set, in how many samples, and the first sample's id. ids [N]: of the
    sample that each row belongs to."""
    rows = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
    return f"{count(int(bad.sum()), 'value')} in {count(len({ids[r] for r in rows}), 'sample')} (first {ids[rows[0]]!r})"
