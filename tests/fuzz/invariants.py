"""What must hold of a dataset that was read, whatever the file was. Written without looking at the readers: it sees the
arrays, the strings and the warnings alone."""

import unicodedata
from collections import Counter
from typing import Any

import numpy as np

SPLITS = ("train", "valid", "test")
_VOCABULARY = 30_522  # of bert-base-uncased
_FEATURES = ("text", "audio", "vision", "word_audio", "word_vision", "word_hcf", "frames")


def silent(ds: Any) -> list[str]:
    """What was accepted in silence: one line each; empty where the dataset is sound or says what is not."""
    said, found = " | ".join(ds.warnings), []
    every: Counter[str] = Counter()
    shapes: dict[str, tuple] = {}
    for split in SPLITS:
        arrays, ids, texts = ds.splits[split], ds.ids(split), ds.raw_text(split)
        n = len(arrays["label"])
        claim = lambda ok, what, split=split: None if ok else found.append(f"{split}: {what}")
        claim(n > 0, "empty")
        claim(len(ids) == n == len(texts), "ids, texts and labels differ in number")
        for i in ids:
            claim(isinstance(i, str) and i.strip().lower() not in ("", "none", "nan", "null"), f"id {i!r:.20}")
            claim(len(i) <= 300 and not any(unicodedata.category(c) in ("Cc", "Cs") for c in i), f"odd id {i!r:.30}")
        claim(len(set(ids)) == n or "more than once" in said, "ids twice")
        every.update(set(ids))
        for t in texts:
            claim(isinstance(t, str) and t.strip() not in ("nan", "NaN", "None"), f"transcript {t!r:.20}")
            claim(not any(unicodedata.category(c) == "Cs" for c in t), "half a surrogate pair")
        _labels(ds, arrays, split, said, claim)
        for key in (k for k in _FEATURES if k in arrays):
            value = np.asarray(arrays[key], np.float64)
            bad = ~np.isfinite(value)
            claim(not bad.any() or (np.isnan(value[bad]).all() and key in ds.nan), f"{key} not finite")
            claim(not (np.abs(value[~bad]) > 1e15).any() or "beyond 1e+15" in said, f"{key} huge")
            claim(value[~bad].any() or "zero everywhere" in said or f"no {key}" in said, f"{key} all zero")
            claim(0 not in value.shape, f"{key} of shape {value.shape}")
            claim(shapes.setdefault(key, value.shape[1:])[-1] == value.shape[-1], f"{key} changes its width")
        _tokens(arrays, claim)
        _lengths(ds, arrays, n, claim)
    claim(max(every.values()) == 1 or "allowed to leak" in said, "ids in two splits")
    return found


def _labels(ds: Any, arrays: Any, split: str, said: str, claim: Any) -> None:
    for key in ("label", "label_text", "label_audio", "label_vision"):
        if key in arrays:
            y = np.asarray(arrays[key], np.float64)
            claim(np.isfinite(y).all() and (np.abs(y) <= ds.label_bound * 1.001).all(), f"{key} out of bounds")
            claim(not ds.spec.binary or np.isin(y, (0, 1)).all(), f"{key} no class")
            claim(len(y) < 2 or np.ptp(y) > 0 or "every label is" in said, f"{key} constant")


def _tokens(arrays: Any, claim: Any) -> None:
    if "text_bert" in arrays:
        ids, mask, segments = np.moveaxis(np.asarray(arrays["text_bert"]), 1, 0)
        claim(ids.min() >= 0 and ids.max() < _VOCABULARY, "token beyond the vocabulary")
        claim(np.isin(mask, (0, 1)).all() and mask.any(-1).all(), "token mask")
        claim(np.isin(segments, (0, 1)).all(), "segments")


def _lengths(ds: Any, arrays: Any, n: int, claim: Any) -> None:
    for key in ("audio", "vision"):
        if f"{key}_lengths" in arrays:
            lengths = arrays[f"{key}_lengths"]
            claim(lengths.min() >= 1 and lengths.max() <= max(arrays[key].shape[1], 1), f"{key}_lengths")
    if "word_start" in arrays:
        start = arrays["word_start"]
        claim(start[0] == 0 and (np.diff(start) > 0).all() and start[-1] == len(arrays["word_audio"]), "word_start")
    for name in ("wave", "frames"):
        if name in arrays:
            start, length = arrays[f"{name}_start"], arrays[f"{name}_length"]
            claim((start >= 0).all() and (length >= 0).all() and (start + length <= len(arrays[name])).all(), name)
            claim(len(start) == n, f"{name} rows")


def changed(ds: Any, content: Any) -> list[str]:
    """Where features were altered in silence: the arrays of a file of arrays per split, read here by numpy alone, are
    what was loaded, unless a warning says that something was set to 0, moved or is not there."""
    said = " | ".join(ds.warnings)
    if any(mark in said for mark in ("set to 0", "moved to the front", "zeros stand for it")):
        return []
    found = []
    for split in SPLITS:
        for key in ("text", "audio", "vision"):
            try:
                with np.errstate(all="ignore"):
                    given = np.asarray(np.asarray(content[split][key]).tolist(), np.float32)
            except (ValueError, TypeError, KeyError):
                continue
            if not np.array_equal(given, ds.splits[split][key], equal_nan=True):
                found.append(f"{split}/{key} is not what the file holds")
    return found
