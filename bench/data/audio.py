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

import csv
import json
import zipfile
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.reader import UNIMODAL, Reader, as_text
from bench.data.spec import SPLITS, DatasetSpec
from bench.data.unpickle import load_pickle
from bench.data.waves import SAMPLES, read_wave
from bench.errors import DataError

READER = 1  # version of what is written here; part of every cache folder's name
FEATURES = ("audio_features.npz", "audio_features.pkl")
MARK = "synthetic.json"  # lies beside a generated table
_NEEDED = ("video_id", "clip_id", "text", "label", "mode")
_MODES = {"train": "train", "valid": "valid", "dev": "valid", "test": "test"}

Row = dict[str, str]


def sources(path: Path) -> list[Path]:
    """The table and every file that belongs to it, in a fixed order."""
    beside = [p for name in (*FEATURES, MARK) if (p := path.parent / name).is_file()]
    return [path, *beside, *sorted((path.parent / "wav").rglob("*.wav"))]


def read_table(path: Path) -> list[Row]:
    """The rows of a label.csv. Raises DataError, in one line, if it is no such table."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, strict=True)
            missing = [c for c in _NEEDED if c not in (table.fieldnames or ())]
            if missing:
                raise DataError(f"{path}: no column '{missing[0]}'; expected {', '.join(_NEEDED)}")
            rows = list(table)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a table in UTF-8 ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    for n, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise DataError(f"{path}: line {n} has not as many cells as the head has columns")
        if row["mode"].strip().lower() not in _MODES:
            raise DataError(f"{path}: line {n} has mode '{row['mode']}'; expected train, valid or test")
    return rows


def convert(rows: list[Row], spec: DatasetSpec, features: str, source: Path, folder: Path) -> dict[str, Any]:
    """Write what Dataset lists under "audio" into a folder; the strings are ids, raw_text and context (the preceding
    transcripts of each row). Returns the reader's meta data and "steps". Raises DataError with one line."""
    mark = source.parent / MARK
    generated = mark.is_file()
    samples = json.loads(mark.read_text(encoding="utf-8"))["samples"] if generated else SAMPLES
    reader = _Reader(spec, generated, source, folder)
    kept = [r for r in rows if sample_id(r) not in spec.unusable_audio]
    if len(kept) < len(rows):
        reader.warnings.append(f"{len(rows) - len(kept)} clips whose sound track is known to be broken are left out")
    frames = _features(source)
    steps = {}
    for split in SPLITS:
        mine = sorted((r for r in kept if _MODES[r["mode"].strip().lower()] == split), key=_order)
        if not mine:
            raise DataError(f"{source}: {split} is empty")
        reader.table(split, mine)
        if (source.parent / "wav").is_dir():
            steps["wave"] = samples
            reader.sound(split, "wave", reader.waves(mine, samples), mine, samples)
        if frames:
            steps["frames"] = max(map(len, frames.values()))
            reader.sound(split, "frames", reader.frames(split, mine, frames), mine, steps["frames"])
    return reader.meta(steps=steps)


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
        texts = [r["text"].strip() for r in rows]
        context = {"context": [texts[i - n : i] for i, n in enumerate(before)]} if self.spec.context else {}
        self.save_strings(split, ids, texts, **context)

    def _column(self, split: str, key: str, rows: list[Row]) -> list[float]:
        try:
            return [float(r[key]) for r in rows]
        except ValueError as error:
            raise self.error(split, key, f"holds what is no number ({error})") from None

    def waves(self, rows: list[Row], samples: int) -> list[np.ndarray]:
        """The clips' sound, [<= samples] int16 each."""
        top = self.source.parent / "wav"
        names = [[top / r["video_id"] / f"{c}.wav" for c in (r["clip_id"], r["clip_id"].zfill(4))] for r in rows]
        paths = [next((p for p in pair if p.is_file()), None) for pair in names]
        if None in paths:
            first = names[paths.index(None)][0]
            raise DataError(f"{first}: no such file; {paths.count(None)} of {len(paths)} clips have no wav")
        found = [read_wave(p, samples) for p in paths]
        if empty := sum(not len(w) for w in found):
            self.counts["audio: {} clips without a sample"] += empty
        return found

    def frames(self, split: str, rows: list[Row], given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The clips' features, [T_i, d] each."""
        missing = [i for r in rows if (i := sample_id(r)) not in given]
        if missing:
            what = f"lack {len(missing)} of {len(rows)} clips (first {missing[0]!r})"
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


def _features(source: Path) -> dict[str, np.ndarray]:
    """id -> features [T_i, d] of the file beside a table; empty without one. Raises DataError."""
    path = next((p for name in FEATURES if (p := source.parent / name).is_file()), None)
    if path is None:
        return {}
    if path.suffix == ".pkl":
        given = load_pickle(path)
    else:
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                given = {k: file[k] for k in file.files}
        except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            raise DataError(f"{path}: truncated or damaged ({error})") from None
    if not isinstance(given, Mapping) or not {"id", "features"} <= set(given):
        raise DataError(f"{path}: no audio features: expected id [N], features [N, T, d] and lengths [N]")
    ids, table = [as_text(i) for i in given["id"]], np.asarray(given["features"])
    lengths = np.asarray(given.get("lengths", np.full(len(ids), table.shape[1] if table.ndim == 3 else 0)))
    if table.ndim != 3 or table.dtype.kind != "f" or len(table) != len(ids) or lengths.shape != (len(ids),):
        shapes = f"{len(ids)} ids, features {list(table.shape)} {table.dtype}, lengths {list(lengths.shape)}"
        raise DataError(f"{path}: {shapes} do not fit together; expected [N], float [N, T, d], [N]")
    if not np.isfinite(table).all():
        raise DataError(f"{path}: features hold values that are not finite; mend the file")
    if ((lengths < 1) | (lengths > table.shape[1])).any():
        raise DataError(f"{path}: lengths lie outside 1..{table.shape[1]}")
    table = table.astype(np.float32) if table.dtype.itemsize > 4 else table
    return {i: row[:n] for i, row, n in zip(ids, table, lengths.astype(int))}
