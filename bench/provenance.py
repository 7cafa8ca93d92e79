"""Where data come from, from the strongest evidence to none, and what may be compared with a reported number.

official    the file's sha256 is a published one: that of bench/data/datasets, or of a list that users extend,
            experiments/provenance.toml
unlisted    a real file of a format for which nobody has published a hash, with about as many samples as the published data
            set has (bench/data/dataset.py)
custom      any other real file
synthetic   generated
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench import EXPERIMENTS
from bench.errors import BenchError
from bench.matrix import dataset_name

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

OFFICIAL, UNLISTED, CUSTOM, SYNTHETIC = PROVENANCES = ("official", "unlisted", "custom", "synthetic")
COMPARABLE = (OFFICIAL, UNLISTED)  # unlisted files are compared too, and marked
LIST = EXPERIMENTS / "provenance.toml"
_FIELDS = {"dataset", "features", "file", "sha256", "source"}


def weakest(kinds: Iterable[str]) -> str:
    """The weakest of some provenances, an unknown one being custom; "" where there are none."""
    found = [PROVENANCES.index(k) if k in PROVENANCES else PROVENANCES.index(CUSTOM) for k in kinds]
    return PROVENANCES[max(found)] if found else ""


def of_file(dataset: str, features: str, sha256: str, published: str = "") -> str:
    """Provenance of a real feature file. published: the hash that the dataset's spec knows, if any. Raises BenchError
    where the list cannot be read."""
    hashes = {published, *(h for d, f, h in listed() if (d, f) == (dataset, features))} - {""}
    return UNLISTED if not hashes else OFFICIAL if sha256 in hashes else CUSTOM


def of_run(run: Mapping[str, Any]) -> str:
    """Provenance of a finished run as the list says today: a file that was listed after the run is official now. What is
    generated says so in its name too; of a run that has lost its env.json nothing more is known."""
    if dataset_name(str(run.get("dataset", ""))) != run.get("dataset", ""):
        return SYNTHETIC
    kind = run.get("provenance") or CUSTOM
    known = (str(run.get(k, "")) for k in ("dataset", "features", "data_sha256"))
    return OFFICIAL if kind in (UNLISTED, CUSTOM) and tuple(known) in listed() else kind


def listed(path: Path | None = None) -> frozenset[tuple[str, str, str]]:
    """(dataset, features, sha256) of every file of the list that has a hash."""
    path = path or LIST
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        return frozenset()
    return _read(path, stamp)


@lru_cache(maxsize=8)
def _read(path: Path, stamp: int) -> frozenset[tuple[str, str, str]]:
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("file", [])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} is not valid TOML: {error}; mend the entry") from None
    found = set()
    for n, entry in enumerate(entries, 1):
        hash_ = str(entry.get("sha256", "")).lower()
        if unknown := sorted(set(entry) - _FIELDS):
            raise BenchError(f"{path}, file {n}: unknown field '{unknown[0]}'; an entry has {', '.join(sorted(_FIELDS))}")
        if not all(isinstance(entry.get(k), str) for k in ("dataset", "features", "source")):
            raise BenchError(f"{path}, file {n}: an entry needs dataset, features and source, each a text")
        if hash_ and (len(hash_) != 64 or set(hash_) - set("0123456789abcdef")):
            raise BenchError(f"{path}, file {n}: sha256 is 64 hexadecimal digits, or left out where none is published")
        if hash_:
            found.add((entry["dataset"], entry["features"], hash_))
    return frozenset(found)
