"""What the command line does with data: look at a folder of features, write a synthetic one. Torch-free."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench import registry
from bench.data import synthetic
from bench.data.dataset import load, locate, spec
from bench.data.spec import MODALITIES, SPLITS
from bench.errors import DataError


@dataclass(frozen=True)
class CheckRow:
    """What is known of one feature file, as text for a table."""

    dataset: str
    features: str
    state: str  # "ok", "missing", "unusable"
    file: str = ""
    provenance: str = ""  # "official", "custom", "synthetic"
    sizes: str = ""  # train / valid / test
    shapes: str = ""  # steps x width of text / audio / vision
    notes: tuple[str, ...] = ()  # warnings, or the one line that says why the file cannot be used


def check(data_dir: str | os.PathLike, cache_dir: str | os.PathLike | None = None) -> list[CheckRow]:
    """One row per dataset and feature kind that the harness knows. Reads and converts every file that it finds."""
    return [
        _check(name, features, data_dir, cache_dir)
        for name in registry.names("datasets")
        for features in spec(name).features
    ]


def _check(
    name: str, features: str, data_dir: str | os.PathLike, cache_dir: str | os.PathLike | None
) -> CheckRow:
    path = locate(name, features, data_dir)
    try:
        dataset = load(name, features, data_dir, cache_dir)
    except DataError as error:
        state = "missing" if path is None else "unusable"
        return CheckRow(name, features, state, str(path or ""), notes=(str(error),))
    arrays = dataset.splits["train"]
    return CheckRow(
        name,
        features,
        "ok",
        str(path),
        dataset.provenance,
        sizes=" / ".join(str(dataset.size(s)) for s in SPLITS),
        shapes=" / ".join("x".join(map(str, arrays[m].shape[1:])) for m in MODALITIES),
        notes=dataset.warnings,
    )


def write_synthetic(out_dir: str | os.PathLike, names: Iterable[str] | None = None, full: bool = False) -> list[Path]:
    """Write generated feature files of some datasets (default: all) where M-SENA has its own, and return their
    paths. `full`: the published sizes (MOSEI takes about 9 GB on disk and twice that in memory). Files carry a mark
    by which they stay recognisable as synthetic. An existing file is not overwritten: DataError."""
    targets = []
    for name in registry.names("datasets") if names is None else names:
        for features, file in spec(name).features.items():
            targets.append((Path(out_dir) / file.names[0], name, features))
    taken = [path for path, *_ in targets if path.exists()]
    if taken:
        raise DataError(f"{taken[0]}: exists already; choose another folder")
    for path, name, features in targets:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            synthetic.write(path, spec(name), features, full)
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror or error})") from None
    return [path for path, *_ in targets]
