"""What a dataset is known to be: its name, its published files, its sizes. Torch-free, no array is read here."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "valid", "test")
MODALITIES = ("text", "audio", "vision")


@dataclass(frozen=True)
class FeatureFile:
    """One published feature file of a dataset. Widths and lengths are those of the published file; a file of the
    user's own may differ in both. `format`, each with a reader of its own:

        msena  M-SENA pickle: arrays of frozen text features, tokens, audio, vision (msena.py)
        word   MAG pickle: words with one audio and one vision vector each (word.py)
        hkt    HKT pickle: context and punchline, words with audio, vision and human-centric features (hkt.py)
        audio  label.csv beside a folder of wav files or a file of audio features (audio.py)
    """

    names: tuple[str, ...]  # paths relative to the data folder, the usual one first
    text: tuple[int, int]  # (L, d_t); word, hkt, audio: (word pieces that the papers' models read, 0)
    audio: tuple[int, int]  # (T_a, d_a); audio: (samples of a wave, 1)
    vision: tuple[int, int]  # (T_v, d_v); audio: (0, 0)
    sha256: str = ""  # of the published M-SENA file; for other formats see experiments/provenance.toml
    format: str = "msena"
    hcf: tuple[int, int] | None = None  # (L, d_h), hkt only
    metrics: str = ""  # metric family of the papers that use this file, where it is not the dataset's

    def find(self, data_dir: str | os.PathLike) -> Path | None:
        """The first of `names` that exists under a folder, whatever the case of its letters; None if none does."""
        found = (_resolve(Path(data_dir), name) for name in self.names)
        return next((path for path in found if path is not None), None)


@dataclass(frozen=True)
class Recipe:
    """What generated data of a dataset are drawn from (synthetic.py)."""

    label_counts: tuple[int, ...]  # the real label histogram, from -label_bound to label_bound in equal steps
    text_noise: float  # spread of the words' sentiment around the label, in units of the label bound
    strength: tuple[float, float]  # of the sentiment in the voice's and in the face's mood, whose spread is 1


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset of the field, as published."""

    name: str
    title: str  # as printed in tables
    metrics: str  # metric family: "msena", "sims" or "binary"
    label_bound: float  # labels lie in [-label_bound, label_bound]
    sizes: Mapping[str, int]  # samples per split of the official division
    features: Mapping[str, FeatureFile]  # kind ("unaligned", "aligned") -> file
    recipe: Recipe
    unimodal: bool = False  # has labels of each modality beside the multimodal one
    vocabulary: str = "bert-base-uncased"  # of the published files' text_bert
    context: int = 0  # preceding clips of the same video that a model of raw audio may read (SLaD, Table 4)
    unusable_audio: frozenset[str] = frozenset()  # ids of clips whose sound track is broken
    nearest: str = ""  # dataset whose hyperparameters are taken where nobody has tuned any on this one
    sizes_published: bool = True  # False: `sizes` are ours, and a file of another division is none the worse

    def family(self, features: str) -> str:
        """Metric family of results on one of the feature files (bench/metrics.py)."""
        return self.features[features].metrics or self.metrics

    @property
    def binary(self) -> bool:
        """Labels are 0 or 1."""
        return self.metrics == "binary"


def msena_names(name: str, file: str) -> tuple[str, ...]:
    """Where an M-SENA file of a dataset usually lies, relative to the data folder."""
    folder = name.upper()
    return (f"{folder}/Processed/{file}", f"{folder}/{file}", f"{name}_{file}", f"Processed/{folder}/{file}")


def word_names(name: str) -> tuple[str, ...]:
    """Where a MAG pickle lies: under its published name, or among the dataset's other files."""
    folder = name.upper()
    return (f"{name}.pkl", f"{folder}/word.pkl", f"{folder}/{name}.pkl", f"{folder}/Processed/word.pkl")


def hkt_names(name: str) -> tuple[str, ...]:
    """Where an HKT pickle lies."""
    folder = name.upper()
    return (f"{name}.pkl", f"{folder}/{name}.pkl", f"{folder}/hkt.pkl", f"{folder}/Processed/{name}.pkl")


def audio_names(name: str) -> tuple[str, ...]:
    """Where the table of transcripts and labels lies; sound is looked for beside it."""
    folder = name.upper()
    return (f"{folder}/label.csv", f"{folder}/Raw/label.csv", f"{folder}/audio/label.csv")


def _resolve(folder: Path, name: str) -> Path | None:
    """`folder/name`, each part matched exactly if possible, else without regard to case; None if it is no file."""
    path = folder
    for part in Path(name).parts:
        try:
            entries = sorted(entry.name for entry in os.scandir(path))
        except OSError:
            return None
        match = part if part in entries else next((e for e in entries if e.lower() == part.lower()), None)
        if match is None:
            return None
        path = path / match
    return path if path.is_file() else None
