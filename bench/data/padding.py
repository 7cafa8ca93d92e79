"""Where the data are in padded sequences. Published files pad at the end; MMSA-FET and MulT can pad at the start."""

from collections.abc import Mapping
from typing import Any

import numpy as np

_MOST, _FEW = 0.5, 0.05  # shares of samples


def at_start(value: Any, modality: str, part: Mapping[str, Any]) -> bool:
    """Whether a file pads a modality at the start. value: its array [N, T, d] of the training split, or anything.

    The text's token mask says so where it begins with 0 and ends with 1 in most samples. Otherwise at least half of
    the samples begin with steps of zeros and hardly any ends with one; where the file has lengths, the zeros at the
    start are also as many as the lengths leave.
    """
    try:
        if modality == "text" and (tokens := part.get("text_bert")) is not None:
            mask = np.asarray(tokens)[:, 1]  # (N, L)
            ends = (mask[:, 0] == 0) & (mask[:, -1] == 1)
            return bool(len(ends)) and bool(ends.mean() > _MOST or (ends.any() and (mask[:, 0] == 0).all()))
        array = np.asarray(value)
        if array.ndim != 3 or array.dtype.kind not in "iuf" or array.shape[1] < 2 or not len(array):
            return False
        first, last = (~array[:, step].any(-1) for step in (0, -1))  # (N,)
        if first.mean() < _MOST or last.mean() > _FEW:
            return False
        lengths = part.get(f"{modality}_lengths")
        if lengths is None:
            return True
        lengths = np.asarray(lengths, np.float64).reshape(len(array))
        zeros = leading(array.astype(np.float32), None)
        return bool((zeros[first] + lengths[first] >= array.shape[1]).mean() > _MOST)
    except (ValueError, TypeError, IndexError, ZeroDivisionError):
        return False  # the checks that follow say what is wrong with it


def leading(sequence: np.ndarray, tokens: np.ndarray | None) -> np.ndarray:
    """(N,) steps before a sample's data: zeros of the token mask, else steps of zeros; 0 for a sample without data."""
    used = sequence.any(-1) if tokens is None else tokens[:, 1] != 0  # (N, T)
    return np.where(used.any(1), np.argmax(used, axis=1), 0)


def moved(sequence: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Each sample of [N, T, d] moved `shift` [N] steps to the front, what stood there following at the end."""
    steps = (np.arange(sequence.shape[1]) + shift[:, None]) % sequence.shape[1]  # (N, T)
    return np.take_along_axis(sequence, steps[..., None], axis=1)
