"""What nothing and what a line can do on a feature file, in seconds: a floor under every number of a report.

majority         the median of the training labels (the more frequent class where the task is a decision)
ridge on text    ridge regression on the text's mean over its tokens (words: counts of the training split's words)
ridge on all     the same with the means of all modalities

The penalty is the one of five with the lowest validation error; features are standardised over the training split.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.data.contents import Dataset
from bench.data.spec import SPLITS
from bench.metrics import evaluate

_PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10000.0)
_WORDS = 2000  # most frequent words that are counted
_SHOWN = {"msena": ("non0_acc2", "acc7", "mae", "corr"), "mag": ("non0_acc2", "acc7", "mae", "corr"),
          "sims": ("acc2", "acc5", "mae", "corr"), "binary": ("accuracy", "f1")}  # fmt: skip


def baselines(dataset: Dataset) -> dict[str, dict[str, float | None]]:
    """Name -> metrics on the test split, those of the file's family that papers print; None where undefined."""
    shown = _SHOWN.get(dataset.spec.family(dataset.features), ())
    return {name: {k: None if v is None else round(v, 4) for k, v in s.items() if k in shown} for name, s in scores(dataset).items()}


def scores(dataset: Dataset) -> dict[str, dict[str, float | None]]:
    """Name -> every metric of the file's family on the test split, unrounded; None where undefined."""
    family = dataset.spec.family(dataset.features)
    y = {s: np.asarray(dataset.splits[s]["label"], np.float64) for s in SPLITS}
    centre = 0.5 if dataset.spec.binary else 0.0  # a logit is right above 0, a class above 1/2
    parts = _features(dataset)
    guesses = {"majority": np.full(len(y["test"]), np.median(y["train"]) - centre)}
    if "text" in parts:
        guesses["ridge on text"] = _ridge(parts["text"], y) - centre
    if len(parts) > 1:
        joined = {s: np.concatenate([p[s] for p in parts.values()], 1) for s in SPLITS}
        guesses["ridge on all"] = _ridge(joined, y) - centre
    return {name: {k: float(v) if np.isfinite(v) else None for k, v in evaluate(p, y["test"], family).items()}
            for name, p in guesses.items()}


def _features(dataset: Dataset) -> dict[str, dict[str, np.ndarray]]:
    """modality -> split -> [N, d]."""
    if dataset.format == "msena":
        return {
            "text": {s: _text_means(dataset.splits[s]) for s in SPLITS},
            **{m: {s: np.nan_to_num(dataset.splits[s][f"{m}_mean"][:, 0].astype(np.float64)) for s in SPLITS}
               for m in ("audio", "vision")},
        }  # fmt: skip
    found = {"text": _counts(dataset)}
    for name in ("word_audio", "word_vision", "word_hcf"):
        if name in dataset.splits["train"]:
            found[name] = {s: _per_clip(dataset.splits[s][name], dataset.splits[s]["word_start"]) for s in SPLITS}
    if "frames" in dataset.splits["train"]:
        ends = {s: np.append(dataset.splits[s]["frames_start"], len(dataset.splits[s]["frames"])) for s in SPLITS}
        found["frames"] = {s: _per_clip(dataset.splits[s]["frames"], ends[s]) for s in SPLITS}
    return found


def _text_means(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N, d) the text's mean over the steps that carry a token and are not zero."""
    text, tokens = arrays["text"], arrays.get("text_bert")
    means = np.zeros((len(text), text.shape[2]))
    for i, row in enumerate(text):
        used = row.any(-1)
        if tokens is not None:
            used &= np.arange(len(row)) < int(tokens[i, 1].sum())
        if used.any():
            means[i] = np.asarray(row[used], np.float64).mean(0)
    return means


def _per_clip(rows: np.ndarray, start: np.ndarray) -> np.ndarray:
    sums = np.add.reduceat(np.asarray(rows, np.float64), start[:-1], axis=0)
    return sums / np.maximum(np.diff(start), 1)[:, None]


def _counts(dataset: Dataset) -> dict[str, np.ndarray]:
    words = {s: [t.lower().split() for t in dataset.raw_text(s)] for s in SPLITS}
    if all(len(w) < 3 for w in words["train"]):  # written without blanks: letters stand for words
        words = {s: [list(t) for t in dataset.raw_text(s)] for s in SPLITS}
    known = [w for w, _ in Counter(w for line in words["train"] for w in set(line)).most_common(_WORDS)]
    place = {w: i for i, w in enumerate(known)}
    made = {}
    for split, lines in words.items():
        made[split] = np.zeros((len(lines), max(len(known), 1)))
        for row, line in zip(made[split], lines):
            for w in line:
                if w in place:
                    row[place[w]] += 1
    return made


def _ridge(x: dict[str, np.ndarray], y: dict[str, np.ndarray]) -> np.ndarray:
    """Predictions on test [N]."""
    mean, std = x["train"].mean(0), x["train"].std(0)
    z = {s: (x[s] - mean) / np.where(std > 1e-9, std, 1) for s in SPLITS}
    centre = y["train"].mean()
    values, vectors = np.linalg.eigh(z["train"].T @ z["train"])
    turned = vectors.T @ (z["train"].T @ (y["train"] - centre))
    fits = {p: vectors @ (turned / (np.maximum(values, 0) + p)) for p in _PENALTIES}
    error = {p: np.abs(z["valid"] @ w + centre - y["valid"]).mean() for p, w in fits.items()}
    best: Any = min(error, key=error.__getitem__)
    return z["test"] @ fits[best] + centre
