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
    user's own may differ in both."""

    names: tuple[str, ...]  # paths relative to the data folder, the usual one first
    sha256: str  # of the published M-SENA file
    text: tuple[int, int]  # (L, d_t)
    audio: tuple[int, int]  # (T_a, d_a)
    vision: tuple[int, int]  # (T_v, d_v)

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
    metrics: str  # metric family: "msena" or "sims"
    label_bound: float  # labels lie in [-label_bound, label_bound]
    sizes: Mapping[str, int]  # samples per split of the official division
    features: Mapping[str, FeatureFile]  # kind ("unaligned", "aligned") -> file
    recipe: Recipe
    unimodal: bool = False  # has labels of each modality beside the multimodal one


def msena_names(name: str, file: str) -> tuple[str, ...]:
    """Where an M-SENA file of a dataset usually lies, relative to the data folder."""
    folder = name.upper()
    return (f"{folder}/Processed/{file}", f"{folder}/{file}", f"{name}_{file}", f"Processed/{folder}/{file}")


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
