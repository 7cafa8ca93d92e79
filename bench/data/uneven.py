"""Samples of different lengths in a list, as extractors write them: padded with zeros at the end, their lengths kept."""

from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.spec import MODALITIES, SPLITS
from bench.errors import DataError

_FACTOR, _SLACK = 64, 1 << 26  # bytes after padding per byte before, and bytes that any file may have


def pad_splits(splits: MutableMapping[str, MutableMapping[str, Any]], source: Path) -> list[str]:
    """Put arrays [N, T, d] in place of lists of [T_i, d], T the longest over all splits, and <modality>_lengths [N] where
    there are none; returns a note for each modality that it did this to. Anything else stays as it is, for the checks that
    follow. Raises DataError where padding would take far more than the file holds."""
    notes = []
    for m in MODALITIES:
        given = {s: splits[s][m] for s in SPLITS if m in splits[s]}
        rows = {s: _sequences(v) for s, v in given.items()}
        lengths = {s: [len(r) for r in found] for s, found in rows.items() if found}
        every = sorted(n for found in lengths.values() for n in found)
        if len(lengths) < len(given) or len(set(every)) < 2 or not any(_listed(v) for v in given.values()):
            continue
        widths = {r.shape[1] for found in rows.values() for r in found or ()}
        if len(widths) > 1:
            continue
        steps = every[-1]
        before = sum(r.nbytes for found in rows.values() for r in found or ())
        if steps * len(every) * max(widths) * 8 > _FACTOR * before + _SLACK:
            raise DataError(f"{source}: {m} has samples of {every[len(every) // 2]} steps (median) and one of {steps}: padding "
                            "all to one length takes far more than the file holds; cut the longest")
        for s, found in rows.items():
            splits[s][m] = pad(found or (), steps)
            splits[s].setdefault(f"{m}_lengths", np.array(lengths[s], np.int64))
        notes.append(f"{m}: samples of {every[0]} to {steps} steps, padded with zeros at the end")
    return notes


def pad(rows: Sequence[np.ndarray], steps: int) -> np.ndarray:
    """[N, steps, d] of arrays [T_i, d], zero after their ends."""
    out = np.zeros((len(rows), steps, rows[0].shape[1]), np.result_type(*{r.dtype for r in rows}))
    for row, one in zip(out, rows):
        row[: len(one)] = one
    return out


def _listed(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or isinstance(value, np.ndarray) and value.dtype.hasobject


def _sequences(value: Any) -> list[np.ndarray] | None:
    """The samples of a list, or of an array [N, T, d], as arrays [T_i, d] of numbers; None where they are none."""
    if not _listed(value) and not (isinstance(value, np.ndarray) and value.ndim == 3):
        return None
    try:
        found = [np.asarray(v) for v in value]
    except (ValueError, TypeError, OverflowError):
        return None
    return found if found and all(r.ndim == 2 and r.dtype.kind in "iuf" for r in found) else None
