"""What the command line does with data: look at a folder of features, write a synthetic one. Torch-free."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import registry
from bench.data import generate, variants
from bench.data.audio import FEATURES
from bench.data.baselines import baselines
from bench.data.contents import Dataset
from bench.data.dataset import load, locate, spec
from bench.data.recognise import files, recognise
from bench.data.spec import MODALITIES, SPLITS
from bench.data.survey import survey
from bench.errors import DataError
from bench.provenance import OFFICIAL, SYNTHETIC


@dataclass(frozen=True)
class CheckRow:
    """What is known of one feature file, as text for a table."""

    dataset: str
    features: str
    state: str  # "ok", "missing", "unusable"
    file: str = ""
    provenance: str = ""  # bench/provenance.py
    sizes: str = ""  # train / valid / test
    shapes: str = ""  # steps x width of text / audio / vision (and hcf); "words" where each word has a row
    notes: tuple[str, ...] = ()  # warnings, or the one line that says why the file cannot be used
    layout: str = ""  # what the file is, in words
    variant: str = ""  # the published variant that it is (variants.py); "" for none that is known
    differs: tuple[str, ...] = ()  # from the file that the papers used
    facts: Mapping[str, Any] = field(default_factory=dict)  # survey.py
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # baselines.py


_LAYOUTS = {
    "msena": "M-SENA pickle: arrays per split", "word": "word-level pickle (MAG-BERT): a list of samples per split",
    "hkt": "HKT pickle: punchlines after their contexts", "audio": "table of transcripts and labels (label.csv)",
}  # fmt: skip


def check(
    data_dir: str | os.PathLike, cache_dir: str | os.PathLike | None = None, full: bool = False
) -> list[CheckRow]:
    """One row per dataset and feature kind that the harness knows. Reads and converts every file that it finds.
    full: look at what is in them too, and fit the baselines."""
    return [
        _check(name, features, data_dir, cache_dir, full)
        for name in registry.names("datasets")
        for features in spec(name).features
    ]


def _check(
    name: str, features: str, data_dir: str | os.PathLike, cache_dir: str | os.PathLike | None, full: bool
) -> CheckRow:
    path = locate(name, features, data_dir)
    try:
        dataset = load(name, features, data_dir, cache_dir, allow_leak=True if full else None)
    except DataError as error:
        state = "missing" if path is None else "unusable"
        return CheckRow(name, features, state, str(path or ""), notes=(str(error),))
    made = dataset.provenance == SYNTHETIC
    return CheckRow(
        name,
        features,
        "ok",
        str(path),
        dataset.provenance,
        sizes=" / ".join(str(dataset.size(s)) for s in SPLITS),
        shapes=" / ".join(_shapes(dataset)),
        notes=(*dataset.warnings, *_listing(dataset)),
        layout=_LAYOUTS[dataset.format] + (f", {features}" if dataset.format == "msena" else ""),
        variant="" if made else variants.title(variants.variant(dataset)),
        differs=() if made else tuple(variants.differences(dataset)),
        facts=survey(dataset) if full else {},
        baselines=baselines(dataset) if full else {},
    )


def others(data_dir: Path, rows: Iterable[CheckRow]) -> list[tuple[str, str, str]]:
    """(file, what it is, what to do with it) of the files of a folder that no dataset asks for."""
    known = {Path(r.file) for r in rows if r.file}
    beside = {p.parent / name for p in known for name in FEATURES}
    return [(str(p), *recognise(p)) for p in files(data_dir) if p not in known | beside]


def _listing(dataset: Dataset) -> list[str]:
    """What a user who knows where a file came from would list of it."""
    if dataset.provenance in (OFFICIAL, SYNTHETIC):
        return []
    return [f"sha256 {dataset.sha256}; list it in experiments/provenance.toml if you know who published the file"]


def _shapes(dataset: Dataset) -> list[str]:
    arrays = dataset.splits["train"]
    if dataset.format == "msena":
        return ["x".join(map(str, arrays[m].shape[1:])) for m in MODALITIES]
    if dataset.format == "audio":
        width = {name: 1 if name == "wave" else arrays[name].shape[1] for name in dataset.steps}
        kinds = [f"{name} {steps}x{width[name]}" for name, steps in dataset.steps.items()]
        return ["transcripts", ", ".join(kinds) or "no sound", "-"]
    return ["words", *(f"words x{arrays[k].shape[1]}" for m in (*MODALITIES, "hcf") if (k := f"word_{m}") in arrays)]


def write_synthetic(
    out_dir: str | os.PathLike, names: Iterable[str] | None = None, full: bool = False,
    formats: Iterable[str] | None = None,
) -> list[Path]:
    """Write generated feature files of some datasets and formats (default: all) where the published ones usually lie,
    and return their paths. `full`: the published sizes (MOSEI's pickles take about 10 GB on disk and twice that in
    memory, its wav files 4 GB more). Files carry a mark by which they stay recognisable as synthetic. An existing file
    is not overwritten: DataError."""
    wanted = None if formats is None else set(formats)
    targets = []
    for name in registry.names("datasets") if names is None else names:
        for features, file in spec(name).features.items():
            if wanted is None or file.format in wanted:
                targets.append((Path(out_dir) / file.names[0], name, features))
    taken = [path for path, *_ in targets if path.exists()]
    if taken:
        raise DataError(f"{taken[0]}: exists already; choose another folder")
    for path, name, features in targets:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            generate.write(path, spec(name), features, full)
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror or error})") from None
    return [path for path, *_ in targets]
