"""One Dataset type, whatever the file: found, checked, converted once, mapped into memory read-only. Torch-free.

    ds = load("mosi", "unaligned", "/path/to/features")
    ds = load("synthetic-mosi", "unaligned")        # generated, small;  "synthetic-mosi-full": the real sizes
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from bench import registry
from bench.data import cache, msena, synthetic
from bench.data.spec import SPLITS, DatasetSpec, FeatureFile
from bench.data.unpickle import load_pickle
from bench.errors import DataError

_SYNTHETIC, _FULL = "synthetic-", "-full"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A feature file, read. `splits[split]` holds, for N samples, read-only arrays: text [N, L, d_t],
    audio [N, T_a, d_a], vision [N, T_v, d_v], audio_mean [N, 1, d_a], vision_mean [N, 1, d_v], label [N], float32;
    audio_lengths, vision_lengths [N] int64; where the file has them text_bert [N, 3, L] int32 and
    label_text, label_audio, label_vision [N] float32."""

    name: str  # as asked for: "mosi", "synthetic-mosi"
    spec: DatasetSpec
    features: str  # "unaligned" or "aligned"
    provenance: str  # "official": the file's sha256 is the published one; "custom"; "synthetic"
    sha256: str  # of the file; under a synthetic name, of the arrays, whatever numpy pickled them
    path: Path  # the feature file
    splits: Mapping[str, Mapping[str, np.ndarray]]
    warnings: tuple[str, ...] = ()  # one line each
    nan: Mapping[str, str] = field(default_factory=dict)  # "audio", "vision" -> where NaN were found
    folder: Path | None = None  # of the cache

    @property
    def label_bound(self) -> float:
        return self.spec.label_bound

    @property
    def aligned(self) -> bool:
        return self.features == "aligned"

    @property
    def train_size(self) -> int:
        return self.size("train")

    @property
    def has_tokens(self) -> bool:
        return all("text_bert" in self.splits[s] for s in SPLITS)

    @property
    def has_unimodal(self) -> bool:
        return all("label_text" in self.splits[s] for s in SPLITS)

    def size(self, split: str) -> int:
        return len(self.splits[split]["label"])

    def ids(self, split: str) -> list[str]:
        """The samples' ids, in the arrays' order."""
        return self._strings[split]["ids"]

    def raw_text(self, split: str) -> list[str]:
        """The transcripts, in the arrays' order; empty strings where the file has none."""
        return self._strings[split]["raw_text"]

    def inputs(self, time_mean: bool = False) -> dict[str, object]:
        """What a model may know when it is built: shapes of one sample and facts about the labels, as keywords of
        models.base.Inputs. Raises DataError as `require_finite` does."""
        self.require_finite(time_mean)
        shapes = {name: self.splits["train"][name].shape[1:] for name in self.arrays(time_mean)}
        return {
            **{key.removesuffix("_mean"): tuple(map(int, shape)) for key, shape in shapes.items()},
            "label_bound": self.label_bound,
            "train_size": self.train_size,
            "aligned": self.aligned,
        }

    @staticmethod
    def arrays(time_mean: bool) -> tuple[str, str, str]:
        """Names of the three feature arrays of a model."""
        return ("text", "audio_mean", "vision_mean") if time_mean else ("text", "audio", "vision")

    def require_finite(self, time_mean: bool) -> None:
        """Raises DataError if a model that reads whole sequences would read NaN; M-SENA zeroes those only where it
        averages over time."""
        if not time_mean and self.nan:
            where = next(iter(self.nan.values()))
            raise DataError(f"{self.path}: {where}; only models that average over time can use this file")

    @cached_property
    def _strings(self) -> dict[str, dict[str, list[str]]]:
        if self.folder is None:
            raise DataError(f"dataset '{self.name}' was made in memory and carries no ids")
        return {s: json.loads((self.folder / f"{s}-strings.json").read_text(encoding="utf-8")) for s in SPLITS}


def spec(name: str) -> DatasetSpec:
    """The published facts of a dataset; those of "mosi" for "synthetic-mosi" too. BenchError if it is unknown."""
    return registry.load("datasets", name.removeprefix(_SYNTHETIC).removesuffix(_FULL)).SPEC


def is_synthetic(name: str) -> bool:
    return name.startswith(_SYNTHETIC)


def locate(name: str, features: str, data_dir: str | os.PathLike | None) -> Path | None:
    """The feature file of a dataset under a folder, or None if it is not there. Reads nothing."""
    return None if data_dir is None else _file(name, features).find(data_dir)


def load(
    name: str,
    features: str,
    data_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> Dataset:
    """Find a dataset's feature file, check and convert it once, and map its arrays.

    name: "mosi", or "synthetic-mosi" (generated, needs no data_dir), or "synthetic-mosi-full" (at the real sizes).
    features: "unaligned" or "aligned". cache_dir: else $BENCH_CACHE, else ~/.cache/msa-bench.
    Raises DataError, in one line, if the file is missing, unsafe, damaged or of the wrong shape, or the disk is full.
    """
    known, published = spec(name), _file(name, features)
    where = cache.root(cache_dir)
    path = _generated(name, features, where) if is_synthetic(name) else _found(name, features, data_dir)
    stat = path.stat()
    sha256 = cache.file_sha256(path, where)

    def write(folder: Path) -> dict:
        meta = msena.convert(load_pickle(path), known, features, path, folder)
        now = path.stat()
        if (now.st_size, now.st_mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            raise DataError(f"{path}: changed while it was being read")
        return meta

    key = f"{known.name}-{features}-{sha256[:24]}-r{msena.READER}"
    folder, meta = cache.folder(where, key, write)
    provenance = "synthetic" if meta["synthetic"] else "official" if sha256 == published.sha256 else "custom"
    return Dataset(
        name=name,
        spec=known,
        features=features,
        provenance=provenance,
        sha256=meta["digest"] if is_synthetic(name) else sha256,
        path=path,
        splits={s: _mapped(folder, s) for s in SPLITS},
        warnings=tuple(meta["warnings"]),
        nan=meta["nan"],
        folder=folder,
    )


def _file(name: str, features: str) -> FeatureFile:
    known = spec(name)
    if features not in known.features:
        raise DataError(f"{known.name} has no '{features}' features; known: {', '.join(known.features)}")
    return known.features[features]


def _found(name: str, features: str, data_dir: str | os.PathLike | None) -> Path:
    if data_dir is None:
        raise DataError(f"no data folder given for '{name}'; name one, or use 'synthetic-{name}'")
    if not Path(data_dir).is_dir():
        raise DataError(f"{data_dir}: no such folder")
    path = locate(name, features, data_dir)
    if path is None:
        names = ", ".join(_file(name, features).names)
        raise DataError(f"{data_dir}: no {features} features of {name}; looked for {names}")
    return path


def _generated(name: str, features: str, where: Path) -> Path:
    """The pickle of a synthetic dataset, generated into the cache if it is not there."""
    known, full = spec(name), name.endswith(_FULL)
    file = f"{features}.pkl"

    def write(folder: Path) -> dict:
        synthetic.write(folder / file, known, features, full)
        return {}

    key = f"synthetic-{known.name}-{features}{_FULL if full else ''}-g{synthetic.GENERATOR}"
    return cache.folder(where, key, write)[0] / file


def _mapped(folder: Path, split: str) -> dict[str, np.ndarray]:
    """The arrays of a split, mapped copy-on-write (so that torch takes them without a copy: resident.py) and then
    marked read-only. All workers share the pages."""
    arrays = {}
    for file in sorted(folder.glob(f"{split}-*.npy")):
        array = np.load(file, mmap_mode="c", allow_pickle=False)
        array.flags.writeable = False
        arrays[file.stem.removeprefix(f"{split}-")] = array
    return arrays
