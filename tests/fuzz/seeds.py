"""Small valid inputs of every format, which are then mutated."""

import csv
import io
import pickle
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import synthetic, synthetic_words
from bench.data.dataset import spec
from tests.formats import write_wav

SIZE = synthetic.Size({"train": 6, "valid": 4, "test": 4}, 12, 12, 12)
PLACES = {  # reader -> dataset, features, the file that is mutated
    "aligned": ("mosi", "aligned", "MOSI/Processed/aligned_50.pkl"),
    "unaligned": ("mosi", "unaligned", "MOSI/Processed/unaligned_50.pkl"),
    "word": ("mosi", "word", "mosi.pkl"),
    "hkt": ("ur_funny", "hkt", "ur_funny.pkl"),
    "csv": ("mosi", "audio", "MOSI/label.csv"),
    "wav": ("mosi", "audio", "MOSI/wav/train0000/1.wav"),
    "npz": ("mosi", "audio", "MOSI/audio_features.npz"),
}


def content(reader: str) -> Any:
    """What a pickle of the reader's format holds, without the mark of generated data."""
    return pickle.loads(_content(reader))


@lru_cache
def _content(reader: str) -> bytes:
    dataset, features, _ = PLACES[reader]
    known = spec(dataset)
    if reader in ("aligned", "unaligned"):
        small = replace(known.features[features], text=(12, 8), audio=(12, 5), vision=(12, 8))
        made = synthetic.generate(replace(known, features={features: small}), features, SIZE)
    elif reader == "word":
        small = replace(known.features[features], audio=(12, 6), vision=(12, 7))
        made = synthetic_words.word_file(replace(known, features={features: small}), features, SIZE)
    else:
        made = synthetic_words.hkt_file(known, features, SIZE)
    made.pop("synthetic")
    return pickle.dumps(made)


def rows() -> list[list[str]]:
    """A label.csv, its head first."""
    head = ["video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V", "annotation", "mode"]
    made = [head]
    for split, n in SIZE.samples.items():
        for i in range(n):
            made.append([f"{split}0000", str(i), f"so good {i}", f"{0.4 * i - 1:g}", "", "", "", "x", split])
    return made


def as_csv(table: list[list[str]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows(table)
    return out.getvalue().encode("utf-8", "surrogatepass")


def frames() -> dict[str, np.ndarray]:
    """Audio features of the same clips."""
    ids = np.array([f"{r[0]}$_${r[1]}" for r in rows()[1:]])
    rng = np.random.default_rng(3)
    features = rng.standard_normal((len(ids), 7, 6), dtype=np.float32)
    return {"id": ids, "features": features, "lengths": rng.integers(2, 8, len(ids))}


def put_sound(folder: Path, reader: str) -> None:
    """The files that lie beside the one that is mutated."""
    top = folder / "MOSI"
    top.mkdir(parents=True, exist_ok=True)
    if reader != "csv":
        (top / "label.csv").write_bytes(as_csv(rows()))
    if reader in ("csv", "wav"):
        rng = np.random.default_rng(4)
        for r in rows()[1:]:
            write_wav(top / "wav" / r[0] / f"{r[1]}.wav", rng.integers(-3000, 3000, 400).astype(np.int16))
