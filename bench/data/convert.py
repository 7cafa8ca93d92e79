"""Other people's files rewritten in a format that is read here.

    python -m bench.data.convert IN.pkl OUT.pkl     an aligned M-SENA file (with raw_text) as a word-level pickle
    python -m bench.data.convert FOLDER OUT.pkl     train.pkl, dev.pkl and test.pkl (MISA, MMIM) as one word-level pickle
    python -m bench.data.convert IN.npz OUT.pkl     a pack of words as a word-level pickle
    python -m bench.data.convert IN.csv label.csv   a table with id, split, label and a text as M-SENA's label.csv

A pack has, for each split s of train, valid, test and W words in N clips, the arrays s_words [N] (transcripts),
s_offsets [N + 1] (first word of each clip), s_audio [N, d_a] (one vector per clip, repeated for its words) or [W, d_a],
s_timing or s_vision [W, d_v], s_label [N], s_id [N].

In a word-level pickle words are in lower case, and the columns of audio and vision are standardised over the words of
the training split: the published files are standardised clip by clip, where a vector per clip would become zero. What
was generated stays marked as generated.
"""

import argparse
import csv
import os
import pickle
import secrets
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.data.spec import SPLITS
from bench.data.unpickle import load_pickle
from bench.data.values import as_text, column
from bench.errors import BenchError, DataError
from bench.plural import count

_DEV = {"train": "train", "valid": "dev", "test": "test"}  # names of the splits in a word-level pickle
_EPSILON = 1e-6  # beneath a standard deviation


class Clip(NamedTuple):
    """words [n]; vision [n, d_v], audio [n, d_a] float32; label; name."""

    words: list[str]
    vision: np.ndarray
    audio: np.ndarray
    label: float
    name: str


def convert_file(source: str | os.PathLike, target: str | os.PathLike, text: str = "") -> Path:
    """Convert by the source's suffix; returns the target, which appears complete or not at all.

    text: name of the column that holds the transcripts, for tables that have several.
    Raises DataError, in one line, if the source cannot be read or its parts do not fit together.
    """
    source, target = Path(source), Path(target)
    kinds: dict[str, Callable[[], Callable[[Path], None]]] = {
        ".pkl": lambda: _pickled(_of_pickle(load_pickle(source), source)),
        ".npz": lambda: _pickled(word_pickle(_of_pack(_pack(source), source), {})),
        ".csv": lambda: _tabled(_label_table(source, text)),
    }
    if source.is_dir():
        write = _pickled(_of_folder(source))
    elif source.suffix not in kinds:
        raise DataError(f"{source}: cannot be converted; known: {', '.join(kinds)}")
    else:
        write = kinds[source.suffix]()
    part = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        part.replace(target)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror})") from None
    finally:
        part.unlink(missing_ok=True)
    return target


def word_pickle(clips: Mapping[str, Sequence[Clip]], more: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a word-level pickle (word.py), audio and vision standardised over the training words."""
    scales = {}
    for stream in ("vision", "audio"):
        rows = np.concatenate([getattr(c, stream) for c in clips["train"]]).astype(np.float64)  # (W, d)
        scales[stream] = rows.mean(0), np.maximum(rows.std(0), _EPSILON)

    def scaled(clip: Clip, stream: str) -> np.ndarray:
        mean, std = scales[stream]
        return ((getattr(clip, stream) - mean) / std).astype(np.float32)

    data = {
        _DEV[split]: [
            ((c.words, scaled(c, "vision"), scaled(c, "audio")), np.array([[c.label]], np.float32), c.name)
            for c in clips[split]
        ]
        for split in SPLITS
    }
    return {**data, **more}


def _of_pack(pack: Mapping[str, np.ndarray], source: Path) -> dict[str, list[Clip]]:
    found = {}
    for s in SPLITS:
        vision = next((f"{s}_{k}" for k in ("vision", "timing") if f"{s}_{k}" in pack), f"{s}_vision")
        for key in (f"{s}_words", f"{s}_offsets", f"{s}_audio", vision, f"{s}_label", f"{s}_id"):
            if key not in pack:
                raise DataError(f"{source}: not a pack of words: no '{key}'")
        start, audio = pack[f"{s}_offsets"], pack[f"{s}_audio"]
        per_clip = len(audio) == len(start) - 1
        found[s] = []
        for i, (text, label, name) in enumerate(zip(pack[f"{s}_words"], pack[f"{s}_label"], pack[f"{s}_id"])):
            words, rows, given = as_text(text).lower().split(), slice(start[i], start[i + 1]), start[i + 1] - start[i]
            clip = "$_$".join(as_text(name).rsplit("_", 1))
            if len(words) != given:
                raise DataError(f"{source}: {s}_offsets give {clip!r} {count(given, 'word')}, its transcript has {len(words)}")
            sound = np.repeat(audio[i : i + 1], len(words), 0) if per_clip else audio[rows]
            seen = pack[vision][rows].astype(np.float32)
            found[s].append(Clip(words, seen, sound.astype(np.float32), float(label), clip))
    return found


def _pack(source: Path) -> dict[str, np.ndarray]:
    try:
        with open(source, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {k: file[k] for k in file.files if not k.endswith(("_text", "_text_bert"))}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{source}: cannot be read ({error})") from None


def _of_folder(source: Path) -> dict[str, Any]:
    """A split per file, as MISA and MMIM keep theirs, as one word-level file; the samples stay as they are."""
    found = {}
    for split, names in {"train": ("train",), "dev": ("dev", "valid"), "test": ("test",)}.items():
        path = next((p for n in names if (p := source / f"{n}.pkl").is_file()), source / f"{names[0]}.pkl")
        found[split] = load_pickle(path)
        if not isinstance(found[split], (list, tuple)):
            raise DataError(f"{path}: holds a {type(found[split]).__name__}; expected a list of samples")
    return found


def _of_pickle(data: Any, source: Path) -> dict[str, Any]:
    mark = {"synthetic": data["synthetic"]} if isinstance(data, Mapping) and "synthetic" in data else {}
    return word_pickle(_of_msena(data, source), mark)


def _of_msena(data: Any, source: Path) -> dict[str, list[Clip]]:
    """Clips of an aligned file whose used rows of text are its words, with or without [CLS] and [SEP] around them.
    Words beyond the file's length have no features and are left out."""
    found: dict[str, list[Clip]] = {}
    for s in SPLITS:
        part = data.get(s) if isinstance(data, Mapping) else None
        keys = ("raw_text", "text", "audio", "vision", "regression_labels", "id")
        if missing := [k for k in keys if k not in (part or {})]:
            raise DataError(f"{source}: not an aligned M-SENA file with transcripts: {s} has no '{missing[0]}'")
        text, audio, vision = (np.asarray(part[k]) for k in ("text", "audio", "vision"))
        if not text.shape[1] == audio.shape[1] == vision.shape[1]:
            steps = f"{text.shape[1]}, {audio.shape[1]} and {vision.shape[1]} steps"
            raise DataError(f"{source}: {s} is not aligned: text, audio and vision have {steps}")
        found[s] = []
        for i, label in enumerate(column(part["regression_labels"])):
            words, name = as_text(part["raw_text"][i]).lower().split(), as_text(part["id"][i])
            used = int(np.flatnonzero(text[i].any(-1)).max(initial=-1)) + 1
            cut = 0 if used == len(text[i]) < len(words) else None
            first = next((k for k in (0, 1) if len(words) == used - 2 * k), cut)
            if first is None:
                found_here = f"{s}/{name!r} has {count(len(words), 'word')} and {count(used, 'row')} of text"
                raise DataError(f"{source}: {found_here}; expected a row per word, or those and [CLS] and [SEP]")
            rows = slice(first, first + min(len(words), used))
            sound = np.where(np.isneginf(audio[i, rows]), 0, audio[i, rows])
            found[s].append(Clip(words[:used], vision[i, rows], sound, float(label), name))
    return found


def _label_table(source: Path, text: str) -> list[list[str]]:
    """Rows of a label.csv from a table with id, split, label, label_T, label_A, label_V and a column of transcripts."""
    try:
        with open(source, encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            head, rows = list(table.fieldnames or ()), list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{source}: cannot be read ({error})") from None
    texts = [c for c in head if c not in ("id", "split") and not c.startswith("label")]
    text = text or next(iter(texts), "text")
    for needed in ("id", "split", "label", text):
        if needed not in head:
            raise DataError(f"{source}: no column '{needed}'; found {', '.join(head)}")
    out = [["video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V", "annotation", "mode"]]
    for row in rows:
        video, _, clip = row["id"].replace("$_$", "_").rpartition("_")
        single = [row.get(f"label_{t}") or "" for t in "TAV"]
        out.append([video, clip, row[text], row["label"], *single, "", row["split"]])
    return out


def _pickled(data: Any) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(pickle.dumps(data, protocol=4))


def _tabled(rows: list[list[str]]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)

    return write


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m bench.data.convert IN OUT`; 2 and one line on stderr if it cannot be done."""
    parser = argparse.ArgumentParser(prog="bench.data.convert", description=__doc__.splitlines()[0])
    what = "an aligned M-SENA pickle, a pack of words (npz) or a table (csv)"
    parser.add_argument("source", type=Path, metavar="IN", help=what)
    parser.add_argument("target", type=Path, metavar="OUT", help="word-level pickle, or label.csv")
    parser.add_argument("--text", default="", metavar="COLUMN", help="of a table: the column with the transcripts")
    args = parser.parse_args(arguments)
    try:
        print(convert_file(args.source, args.target, args.text))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
