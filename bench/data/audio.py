"""Transcripts and labels in a table, sound beside it (M-SENA's and MMML's raw layout; SLaD).

    label.csv            video_id, clip_id, text, label, mode (train, valid, test); label_T, label_A, label_V where
                         the dataset has labels of single modalities
    wav/VIDEO/CLIP.wav   sound tracks (CH-SIMS pads its clip ids to four digits)
    audio_features.npz   or .pkl: features computed before, id [N] "video$_$clip", features [N, T, d], lengths [N]

Waves are 16 kHz, mono, 16 bit, cut to 6 s = 96,000 samples (SLaD, 4.2): other rates are resampled, channels averaged.
Both kinds of sound may lie there, or neither; what a model reads is its own choice (prepare.py). Rows are sorted by
video and clip. Context (MMML; SLaD Table 4: two clips on MOSI and MOSEI): the transcripts and the joined waves or
features of up to two rows before a row, of the same video and split, oldest first; the joined waves are cut from the
start, so that the clip nearest in time is the first to be lost. Waves and features lie in one flat array per split,
where a context is a slice too.

label_text, label_audio and label_vision are the table's own, or the clip's label where it has none (MMML).
"""

import json
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.archive import load_npz
from bench.data.reader import UNIMODAL, Reader
from bench.data.spec import SPLITS, DatasetSpec
from bench.data.table import Row, read_rows
from bench.data.unpickle import load_pickle
from bench.data.values import as_id, as_list, as_numbers, column
from bench.data.waves import SAMPLES, read_wave
from bench.errors import DataError
from bench.plural import count

READER = 2  # version of what is written here; part of every cache folder's name
FEATURES = ("audio_features.npz", "audio_features.pkl")
MARK = "synthetic.json"  # lies beside a generated table
_NEEDED = ("video_id", "clip_id", "text", "label", "mode")
_MODES = {"train": "train", "valid": "valid", "dev": "valid", "val": "valid", "test": "test"}


def sources(path: Path) -> list[Path]:
    """The table and every file that is read with it, wherever links lead, in a fixed order."""
    beside = [p for name in (*FEATURES, MARK) if (p := path.parent / name).is_file()]
    if not (path.parent / "wav").is_dir():
        return [path, *beside]
    try:
        rows = read_table(path)
    except DataError:
        rows = []  # reading it says what is wrong
    return [path, *beside, *sorted({p for r in rows if (p := _wav(path, r)) is not None})]


def _wav(source: Path, row: Row) -> Path | None:
    """A row's sound track, if it is there; CH-SIMS pads its clip ids to four digits."""
    folder = source.parent / "wav" / row["video_id"]
    names = dict.fromkeys((row["clip_id"], row["clip_id"].zfill(4)))
    return next((p for n in names if (p := folder / f"{n}.wav").is_file()), None)


def read_table(path: Path) -> list[Row]:
    """The rows of a label.csv. Raises DataError, in one line, if it is no such table."""
    rows = read_rows(path, _NEEDED)
    for n, row in enumerate(rows, start=2):
        for key in ("video_id", "clip_id"):
            _check_name(path, n, key, row[key])
        if row["mode"].strip().lower() not in _MODES:
            raise DataError(f"{path}: line {n} has mode '{row['mode'][:20]}'; expected train, valid or test")
    return rows


def _check_name(path: Path, line: int, key: str, name: str) -> None:
    """Ids become names of folders and files: they must not lead anywhere else."""
    try:
        as_id(name)
    except ValueError as error:
        raise DataError(f"{path}: line {line} has {error} as its {key}") from None
    if any(mark in name for mark in "/\\\0") or name in (".", ".."):
        raise DataError(f"{path}: line {line} has {name[:40]!r} as its {key}, which is a path; expected a plain name")


def convert(rows: list[Row], spec: DatasetSpec, features: str, source: Path, folder: Path) -> dict[str, Any]:
    """Write what Dataset lists under "audio" into a folder; the strings are ids, raw_text and context (the preceding
    transcripts of each row). Returns the reader's meta data and "steps". Raises DataError with one line."""
    mark = source.parent / MARK
    generated = mark.is_file()
    samples = _samples(mark) if generated else SAMPLES
    reader = _Reader(spec, generated, source, folder)
    kept = [r for r in rows if sample_id(r) not in spec.unusable_audio]
    if len(kept) < len(rows):
        said = "whose sound track is known to be broken"
        reader.warnings.append(count(len(rows) - len(kept), f"clip {said} is left out", f"clips {said} are left out"))
    frames = reader.given_frames()
    steps = {}
    for split in SPLITS:
        mine = sorted((r for r in kept if _MODES[r["mode"].strip().lower()] == split), key=_order)
        if not mine:
            raise DataError(f"{source}: {split} is empty")
        reader.table(split, mine)
        if (source.parent / "wav").is_dir():
            steps["wave"] = samples
            waves = reader.waves(mine, samples)
            said = [np.frombuffer(r["text"].encode(), np.uint8) for r in mine]
            reader.note_copies(split, (said, waves), [sample_id(r) for r in mine])
            reader.sound(split, "wave", waves, mine, samples)
        if frames:
            steps["frames"] = max(map(len, frames.values()))
            reader.sound(split, "frames", reader.frames(split, mine, frames), mine, steps["frames"])
    return reader.meta(steps=steps)


def _samples(mark: Path) -> int:
    """How many samples the waves of a generated folder are padded to."""
    try:
        samples = json.loads(mark.read_text(encoding="utf-8"))["samples"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        samples = None
    if type(samples) is not int or not 0 < samples <= SAMPLES:
        raise DataError(f"{mark}: is not what marks generated sound; remove it, or write the folder anew (`bench data synth`)")
    return samples


def sample_id(row: Row) -> str:
    return f"{row['video_id']}$_${row['clip_id']}"


def _order(row: Row) -> tuple:
    clip = row["clip_id"]
    return row["video_id"], (0, int(clip), clip) if clip.isdecimal() else (1, 0, clip)


class _Reader(Reader):
    def table(self, split: str, rows: list[Row]) -> None:
        """Labels, ids, transcripts."""
        ids = [sample_id(r) for r in rows]
        self.note_ids(split, ids)
        label = self.labels(split, "label", self._column(split, "label", rows), ids)  # (N,)
        self.save(split, "label", label)
        columns = {name: f"label_{t}" for name, t in UNIMODAL.items()}
        own = {n: c for n, c in columns.items() if all(r.get(c, "").strip() for r in rows)}
        if self.spec.unimodal and len(own) < len(columns):
            self.warnings.append(f"{split}: no labels of single modalities; the clip's label stands for them")
            own = {}
        for name in columns:
            key = own.get(name)
            self.save(split, name, self.labels(split, key, self._column(split, key, rows), ids) if key else label)
        before = _before(rows, self.spec.context)
        texts = [t.strip() for t in self.transcripts(split, "text", [r["text"] for r in rows], ids)]
        if empty := sum(not r["text"].strip() for r in rows):
            self.tally("text", empty, "transcript is empty", "transcripts are empty")
        context = {"context": [texts[i - n : i] for i, n in enumerate(before)]} if self.spec.context else {}
        self.save_strings(split, ids, texts, **context)

    def _column(self, split: str, key: str, rows: list[Row]) -> list[float]:
        try:
            return [float(r[key]) for r in rows]
        except ValueError as error:
            raise self.error(split, key, f"holds what is no number ({error})") from None

    def waves(self, rows: list[Row], samples: int) -> list[np.ndarray]:
        """The clips' sound, [<= samples] int16 each."""
        paths = [_wav(self.source, r) for r in rows]
        if None in paths:
            first = rows[paths.index(None)]
            name = self.source.parent / "wav" / first["video_id"] / f"{first['clip_id']}.wav"
            raise DataError(f"{name}: no such file; {paths.count(None)} of {count(len(paths), 'clip has', 'clips have')} no wav")
        found = [read_wave(p, samples) for p in paths if p is not None]
        if empty := sum(not len(w) for w in found):
            self.tally("audio", empty, "clip without a sample", "clips without a sample")
        if silent := sum(len(w) > 0 and not w.any() for w in found):
            self.tally("audio", silent, "clip is silent", "clips are silent")
        return found

    def given_frames(self) -> dict[str, np.ndarray]:
        """id -> features [T_i, d] of the file beside the table; empty without one. Raises DataError."""
        path = next((p for name in FEATURES if (p := self.source.parent / name).is_file()), None)
        if path is None:
            return {}
        given = load_pickle(path) if path.suffix == ".pkl" else load_npz(path)
        if not isinstance(given, Mapping) or not {"id", "features"} <= set(given):
            raise DataError(f"{path}: no audio features: expected id [N], features [N, T, d] and lengths [N]")
        try:
            ids, table = [as_id(i) for i in as_list(given["id"], "a list of ids")], as_numbers(given["features"])
            full = np.full(len(ids), table.shape[1] if table.ndim == 3 else 0)
            lengths = column(as_numbers(given.get("lengths", full)))
        except ValueError as error:
            raise DataError(f"{path}: has {error}") from None
        if table.ndim != 3 or table.dtype.kind != "f" or len(table) != len(ids) or lengths.shape != (len(ids),):
            shapes = f"{len(ids)} ids, features {list(table.shape)} {table.dtype}, lengths {list(lengths.shape)}"
            raise DataError(f"{path}: {shapes} do not fit together; expected [N], float [N, T, d], [N]")
        if not table.size:
            raise DataError(f"{path}: features of shape {list(table.shape)} are empty")
        if len(set(ids)) < len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise DataError(f"{path}: {count(len(ids) - len(set(ids)), 'id occurs', 'ids occur')} more than once, first {twice!r}")
        if not ((lengths >= 1) & (lengths <= table.shape[1]) & (lengths == np.floor(lengths))).all():  # NaN too
            raise DataError(f"{path}: lengths are not whole numbers within 1..{table.shape[1]}")
        single = self.single(path.name, "features", table, ids, audio=False, nan="refuse")
        table = single if table.dtype.itemsize > 4 else table
        return {i: row[:n] for i, row, n in zip(ids, table, lengths.astype(int))}

    def frames(self, split: str, rows: list[Row], given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The clips' features, [T_i, d] each."""
        missing = [i for r in rows if (i := sample_id(r)) not in given]
        if missing:
            what = f"lack {len(missing)} of {count(len(rows), 'clip')} (first {missing[0]!r})"
            raise self.error(split, "audio features", what)
        return [given[sample_id(r)] for r in rows]

    def sound(self, split: str, name: str, clips: list[np.ndarray], rows: list[Row], steps: int) -> None:
        """Save clips [T_i, ...] flat, and where each and its context lie."""
        length = np.array([len(c) for c in clips])  # (N,)
        start = np.cumsum(length) - length
        self.save(split, name, np.concatenate(clips))
        self.save(split, f"{name}_start", start)
        self.save(split, f"{name}_length", length)
        if self.spec.context:
            first = np.arange(len(rows)) - _before(rows, self.spec.context)  # (N,) the oldest row of the context
            self.save(split, f"{name}_context_start", start[first])
            self.save(split, f"{name}_context_length", np.minimum(start - start[first], steps))


def _before(rows: list[Row], most: int) -> np.ndarray:
    """(N,) how many rows of the same video stand before each row, `most` at most. Rows are sorted by video."""
    counts = [min(i, most) for _, group in groupby(rows, lambda r: r["video_id"]) for i, _ in enumerate(group)]
    return np.array(counts, int)
