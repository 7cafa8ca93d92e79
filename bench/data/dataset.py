"""One Dataset type, whatever the file: found, checked, converted once, mapped into memory read-only. Torch-free.

    ds = load("mosi", "unaligned", "/path/to/features")
    ds = load("synthetic-mosi", "unaligned")        # generated, small;  "synthetic-mosi-full": the real sizes
    ds = load("mosi", "word", "/path/to/features")  # words; prepare.py makes word pieces of a model's encoder of them
"""

import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bench import registry
from bench.data import audio, cache, generate, hkt, msena, word
from bench.data.contents import Dataset as Dataset
from bench.data.recognise import instead
from bench.data.spec import SPLITS, DatasetSpec, FeatureFile
from bench.data.unpickle import load_pickle
from bench.errors import DataError, TransientDataError
from bench.provenance import CUSTOM, OFFICIAL, SYNTHETIC, UNLISTED, of_file

_READERS = {"msena": msena, "word": word, "hkt": hkt, "audio": audio}
ALLOW_LEAK = "BENCH_ALLOW_LEAK"  # "1": as --allow-leak, for the workers too
LEAK = "allowed to leak: "  # how the warnings begin that only --allow-leak lets through
_SYNTHETIC, _FULL = "synthetic-", "-full"
_DROPPED = 0.05  # share of the published samples that a variant of a file may lack


def spec(name: str) -> DatasetSpec:
    """The published facts of a dataset; those of "mosi" for "synthetic-mosi" too. BenchError if it is unknown."""
    _own()
    return registry.load("datasets", name.removeprefix(_SYNTHETIC).removesuffix(_FULL)).SPEC


def _own() -> None:
    """The user's own dataset is known in every process of a run."""
    if os.environ.get("BENCH_DATASET_FROM"):
        from bench.data.own import register

        register()


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
    allow_leak: bool | None = None,
    verify: bool = True,
) -> Dataset:
    """Find a dataset's feature file, check and convert it once, and map its arrays. Called again, for a file that was
    refused too, it costs what looking at sizes and times costs: plans call it to know what a file is worth.

    name: "mosi", or "synthetic-mosi" (generated, needs no data_dir), or "synthetic-mosi-full" (at the real sizes).
    features: a kind of feature file that the dataset's spec names. cache_dir: else $BENCH_CACHE, else
    ~/.cache/msa-bench. allow_leak: go on where splits share ids, which is among the warnings then; None: as
    $BENCH_ALLOW_LEAK says. verify: compare the cached arrays with what was written, and an official file with its hash,
    once per process; a plan, which trains nothing, can do without.
    Raises DataError, in one line, if the file is missing, unsafe, damaged or of the wrong shape, or the disk is full.
    """
    known, file = spec(name), _file(name, features)
    reader, where = _READERS[file.format], cache.root(cache_dir)
    path = _generated(name, features, where) if is_synthetic(name) else _found(name, features, data_dir)
    stamp = _stamp(file, path)
    sha256 = _sha256(file, path, where)
    if verify and of_file(known.name, features, sha256, file.sha256) == OFFICIAL:
        sha256 = _sha256(file, path, where, fresh=True)  # a note in the cache makes no file official
    key = f"{known.name}-{features}-{sha256[:24]}-r{reader.READER}"

    def write(folder: Path) -> dict:
        try:
            content = audio.read_table(path) if file.format == "audio" else load_pickle(path)
            meta = reader.convert(content, known, features, path, folder)
        except TransientDataError:
            raise
        except DataError as error:
            if _stamp(file, path) == stamp:
                cache.refuse(where, f"{key}-{_readers()}", str(error).removeprefix(str(path)))
            raise
        except (OSError, MemoryError):
            raise
        except Exception as error:  # a fault of the reader: still no traceback for the user of a strange file
            what = " ".join(str(error).split())[:120]
            raise DataError(f"{path}: cannot be read as {features} features ({type(error).__name__}: {what})") from error
        if _stamp(file, path) != stamp:
            raise TransientDataError(f"{path}: changed while it was being read")
        return meta

    if (why := cache.refused(where, f"{key}-{_readers()}")) is not None:
        raise DataError(f"{path if why.startswith(':') else ''}{why}")
    folder, meta = cache.folder(where, key, write, verify)
    leaks = meta.get("leaks", [])
    if leaks and not (os.environ.get(ALLOW_LEAK) == "1" if allow_leak is None else allow_leak):
        raise DataError(f"{path}: {'; '.join(leaks)}; mend the splits, or say --allow-leak to go on, which reports show")
    splits = {s: mapped(folder, s) for s in SPLITS}
    provenance = SYNTHETIC if meta["synthetic"] else of_file(known.name, features, sha256, file.sha256)
    if provenance == UNLISTED and known.sizes_published and not _whole(known.sizes, splits):
        provenance = CUSTOM  # nobody's published file, hash or not
    return Dataset(
        name=name,
        spec=known,
        features=features,
        provenance=provenance,
        sha256=meta["digest"] if is_synthetic(name) else sha256,
        path=path,
        splits=splits,
        warnings=(*meta["warnings"], *(f"{LEAK}{line}" for line in leaks)),
        leaks=tuple(leaks),
        nan=meta["nan"],
        folder=folder,
        text_encoder=meta.get("text_encoder", ""),
        steps=meta.get("steps", {}),
    )


def _whole(published: Mapping[str, int], splits: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a file has about as many samples as the published data set: variants drop a few, a part of it many."""
    return abs(sum(len(a["label"]) for a in splits.values()) / sum(published.values()) - 1) <= _DROPPED


@lru_cache
def _readers() -> str:
    """Fingerprint of the readers' source: what one version refuses the next may read."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def fingerprint(name: str, features: str, path: Path, cache_dir: str | os.PathLike | None = None) -> str:
    """sha256 of a feature file that `locate` found, with all files that belong to it."""
    return _sha256(_file(name, features), path, cache.root(cache_dir))


def _sources(file: FeatureFile, path: Path) -> list[Path]:
    return audio.sources(path) if file.format == "audio" else [path]


def _sha256(file: FeatureFile, path: Path, where: Path, fresh: bool = False) -> str:
    return cache.files_sha256(_sources(file, path), where, fresh)


def _stamp(file: FeatureFile, path: Path) -> list[tuple[int, int]]:
    try:
        return [(stat.st_size, stat.st_mtime_ns) for stat in (p.stat() for p in _sources(file, path))]
    except OSError as error:
        raise TransientDataError(f"{path}: cannot be read ({error.strerror or error})") from None


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
        names, other = ", ".join(_file(name, features).names), instead(Path(data_dir), _file(name, features))
        raise DataError(f"{data_dir}: no {features} features of {name}; looked for {names}{'; ' if other else ''}{other}")
    return path


def _generated(name: str, features: str, where: Path) -> Path:
    """The feature file of a synthetic dataset, generated into the cache if it is not there."""
    known, full = spec(name), name.endswith(_FULL)
    format = known.features[features].format
    file = "label.csv" if format == "audio" else f"{features}.pkl"

    def write(folder: Path) -> dict:
        generate.write(folder / file, known, features, full)
        return {}

    key = f"synthetic-{known.name}-{features}{_FULL if full else ''}-g{generate.version(format)}"
    return cache.folder(where, key, write)[0] / file


def mapped(folder: Path, split: str) -> dict[str, np.ndarray]:
    """The arrays of a split, mapped copy-on-write (so that torch takes them without a copy: resident.py) and then
    marked read-only. All workers share the pages."""
    arrays = {}
    for file in sorted(folder.glob(f"{split}-*.npy")):
        array = np.load(file, mmap_mode="c", allow_pickle=False)
        array.flags.writeable = False
        arrays[file.stem.removeprefix(f"{split}-")] = array
    return arrays
