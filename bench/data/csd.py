"""Computational sequences (.csd, HDF5) of the CMU Multimodal SDK, one modality of many clips:

    /<name>/data/<id>/features [T, d], intervals [T, 2] seconds;  /<name>/metadata/...

h5py is needed, and optional. A file is untrusted: nothing outside it is followed (no link, no external or virtual storage),
only the library's own filters run, and what it declares is measured against its size before anything is read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import DataError
from bench.plural import count

ENDS = (".csd", ".h5", ".hdf5")
_FACTOR, _SLACK = 16, 1 << 26  # bytes of arrays per byte of the file (gzip), and bytes that any file may have
_ENTRY = 64  # bytes that an entry takes in a file at least
_FILTERS = {1, 2, 3, 4, 32000}  # deflate, shuffle, fletcher32, szip, lzf; any other would load a plug-in


def describe(path: Path) -> tuple[str, str]:
    """(what a file is, what to do with it), in words. Raises DataError where it cannot be read."""
    with _sequence(path) as (name, entries):
        first = next(_arrays(entries, path))[1] if len(entries) else None
        if first is None:
            return f"a computational sequence without entries ('{name}')", "no reader for it"
        what = f"a computational sequence of the CMU SDK: '{name}', {count(len(entries), 'entry', 'entries')}"
        if first.dtype.kind not in "iuf":
            return f"{what} of text", "not read; transcripts come from an M-SENA file or a table"
        line = "`bench data convert FILE OUT --audio-from THIS` (or --vision-from, --text-from) puts it into an M-SENA file"
        return f"{what}, {count(first.shape[1], 'column')}", line


def read(path: Path) -> dict[str, np.ndarray]:
    """id -> features [T, d] of one modality. Raises DataError, in one line, for what is no such file."""
    with _sequence(path) as (name, entries):
        chosen = dict(_arrays(entries, path))
        if not chosen:
            raise DataError(f"{path}: the computational sequence '{name}' has no entries")
        asked = sum(d.size * d.dtype.itemsize for d in chosen.values())
        if asked > _FACTOR * path.stat().st_size + _SLACK:
            raise DataError(f"{path}: declares {asked / 1e9:.1f} GB of features, far more than the file is large")
        if odd := next((k for k, d in chosen.items() if d.dtype.kind not in "iuf"), None):
            raise DataError(f"{path}: {odd[:40]!r} holds text, not numbers; features are read, words come from the base file")
        if len(widths := {d.shape[1] for d in chosen.values()}) > 1:
            raise DataError(f"{path}: entries of {', '.join(map(str, sorted(widths)[:4]))} columns; expected one width")
        return {k: d[()] for k, d in chosen.items()}


@contextmanager
def _sequence(path: Path) -> Iterator[tuple[str, Any]]:
    """(name, group of the entries) of a file that is open meanwhile."""
    try:
        import h5py
    except ImportError:
        raise DataError(f"{path}: an HDF5 file, which h5py reads, and that is not installed: pip install h5py") from None
    try:
        with h5py.File(path, "r") as file:
            roots = [k for k in file if _is(file, k, h5py.Group) and _is(file[k], "data", h5py.Group)]
            if len(roots) != 1:
                keys = ", ".join(map(repr, list(file)[:6])) or "nothing"
                raise DataError(f"{path}: no computational sequence (one group with 'data' in it); found {keys}")
            entries = file[roots[0]]["data"]
            if len(entries) > path.stat().st_size // _ENTRY:
                raise DataError(f"{path}: declares {count(len(entries), 'entry', 'entries')}, more than the file can hold")
            yield str(roots[0]), entries
    except DataError:
        raise
    except Exception as error:  # a damaged file may raise anything in the library
        raise DataError(f"{path}: truncated or damaged, or no HDF5 file ({' '.join(str(error).split())[:100]})") from None


def _is(group: Any, key: str, kind: type) -> bool:
    """Whether a group holds something of a kind itself: a link elsewhere is not followed."""
    import h5py

    return isinstance(group.get(key, getlink=True), h5py.HardLink) and group.get(key, getclass=True) is kind


def _arrays(entries: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """(id, dataset of its features [T, d]), not read yet."""
    import h5py

    for key in entries:
        found = entries[key] if _is(entries, key, h5py.Group) else None
        if found is None or not _is(found, "features", h5py.Dataset):
            raise DataError(f"{path}: entry {str(key)[:40]!r} has no 'features' of its own")
        array = found["features"]
        plan = array.id.get_create_plist()
        if array.external or array.is_virtual:
            raise DataError(f"{path}: entry {str(key)[:40]!r} lies in another file; nothing outside is read")
        if any(plan.get_filter(i)[0] not in _FILTERS for i in range(plan.get_nfilters())):
            raise DataError(f"{path}: entry {str(key)[:40]!r} is compressed by a plug-in; write it with gzip")
        if array.ndim != 2:
            raise DataError(f"{path}: entry {str(key)[:40]!r} has {array.ndim} axes; expected steps and columns")
        yield str(key), array
