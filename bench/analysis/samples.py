"""Comparing two methods sample by sample: bootstrap over seeds and test items, McNemar's test.

These ask whether a difference would hold on other test items of the same kind, where stats.py asks whether it would
hold under other seeds. Predictions are [S, N]: S seeds, N test items in one order; labels [N]; metric definitions come
from bench/metrics.py.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bench.metrics import METRICS, Floats, Metric, as_float32

NAN = float("nan")
_CHUNK = 250  # resamples per matrix product; bounds memory at _CHUNK x N counts


@dataclass(frozen=True)
class Bootstrap:
    """Difference a - b of a metric's mean over seeds, with a percentile interval."""

    seeds: int
    items: int
    difference: float = NAN
    low: float = NAN
    high: float = NAN
    error: float = NAN  # bootstrap standard error
    p: float = NAN  # two-sided: twice the smaller share of resamples on either side of 0
    note: str = ""


@dataclass(frozen=True)
class McNemar:
    """Two classifiers on the same items: the items that only one of them gets right."""

    items: int
    only_a: int = 0
    only_b: int = 0
    p: float = NAN
    note: str = ""


def bootstrap(
    a: ArrayLike, b: ArrayLike, label: ArrayLike, family: str, metric: str, *, groups: ArrayLike | None = None,
    resamples: int = 2000, confidence: float = 0.95, seed: int = 0,
) -> Bootstrap:
    """Two-level bootstrap of metric(a) - metric(b), resampling seeds and test items independently.

    a, b: predictions [S, N] under the same S seeds; label [N]; groups [N]: what is drawn in place of single items
    (the video of each clip: clips of one video are not independent). One draw of items serves both methods and all
    seeds, one draw of seeds both methods: the pigeonhole bootstrap (Owen 2007). It is conservative where seed and item
    interact. It is too narrow where seeds alone make the difference (with five, a 95 % interval then covers about
    85 %); that is the question of stats.paired.
    Percentile interval (Efron & Tibshirani 1993, Ch. 13). `seed` fixes the draws.
    Raises ValueError if the shapes do not fit.
    """
    pa, pb, y = _predictions(a), _predictions(b), as_float32(label).ravel()
    if pa.shape != pb.shape or pa.shape[1] != len(y):
        raise ValueError(f"predictions {pa.shape} and {pb.shape} for {len(y)} labels")
    n_seeds, n_items = pa.shape
    if not (n_seeds and n_items and np.isfinite(pa).all() and np.isfinite(pb).all() and np.isfinite(y).all()):
        note = "a prediction or label is not finite" if pa.size else "nothing to compare"
        return Bootstrap(n_seeds, n_items, note=note)
    group = np.arange(n_items) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].ravel()
    if len(group) != n_items:
        raise ValueError(f"{len(group)} groups for {n_items} labels")

    both = np.concatenate([pa, pb])  # (2S, N)
    per_seed = _gain(resampled(both, y, np.ones((1, n_items)), family, metric))  # (1, S)
    rng = np.random.default_rng(seed)
    draws = []
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        counts = _counts(rng, size, int(group.max()) + 1)[:, group]  # (R, N): how often each item is drawn
        gain = _gain(resampled(both, y, counts, family, metric))  # (R, S)
        draws.append((gain * _counts(rng, size, n_seeds)).mean(axis=1))
    drawn = np.concatenate(draws)
    difference = float(per_seed.mean())
    if undefined := int(np.isnan(drawn).sum()):
        note = f"{metric} is undefined in {undefined} of {resamples} resamples"
        return Bootstrap(n_seeds, n_items, difference, note=note)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    one_side = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * (1 + one_side) / (resamples + 1))
    note = "one seed: the spread between seeds is not in the interval" if n_seeds == 1 else ""
    return Bootstrap(n_seeds, n_items, difference, float(low), float(high), float(drawn.std(ddof=1)), float(p), note)


def mcnemar(a: ArrayLike, b: ArrayLike, label: ArrayLike, family: str, metric: str) -> McNemar:
    """Exact McNemar test of two runs' hits in an accuracy metric (McNemar 1947; Dietterich 1998).

    a, b: predictions [N] of one run each. Under equal accuracy the items that only one run gets right are a fair
    coin's throws: two-sided binomial p of only_a among only_a + only_b; 1 if there are none.
    Raises ValueError for a metric that is not an accuracy, and for different lengths.
    """
    rule = METRICS[family][metric]
    if rule.kind != "accuracy":
        raise ValueError(f"McNemar's test needs hits and misses, and {metric} has none")
    pa, pb, y = as_float32(a).ravel(), as_float32(b).ravel(), as_float32(label).ravel()
    if not len(pa) == len(pb) == len(y):
        raise ValueError(f"{len(pa)} and {len(pb)} predictions for {len(y)} labels")
    if not (np.isfinite(pa).all() and np.isfinite(pb).all() and np.isfinite(y).all()):
        return McNemar(len(y), note="a prediction or label is not finite")
    keep = rule.keep(y)
    truth, hit_a, hit_b = (rule.classes(rule.clipped(v[keep])) for v in (y, pa, pb))
    hit_a, hit_b = hit_a == truth, hit_b == truth
    only_a, only_b = int((hit_a & ~hit_b).sum()), int((hit_b & ~hit_a).sum())
    p = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    note = "" if only_a + only_b else "both right or both wrong on every item"
    return McNemar(int(keep.sum()), only_a, only_b, float(p), note)


def resampled(
    prediction: Floats, label: Floats, counts: NDArray[np.float64], family: str, metric: str
) -> NDArray[np.float64]:
    """A metric on weighted items, for all resamples at once: sums over items are matrix products.

    prediction [S, N], label [N] float32 and finite; counts [R, N]: how often each item occurs. Returns [R, S], NaN
    where the metric is undefined. With counts of 1 it is metrics.evaluate.
    """
    rule = METRICS[family][metric]
    if rule.kind == "mean":
        return np.mean([resampled(prediction, label, counts, family, part) for part in rule.of], axis=0)
    keep = rule.keep(label)
    p, y, w = rule.clipped(prediction[:, keep]), rule.clipped(label[keep]), counts[:, keep]
    with np.errstate(divide="ignore", invalid="ignore"):  # an empty resample is 0 / 0 = NaN
        return _KINDS[rule.kind](rule, p, y, w)


def _accuracy(rule: Metric, p: Floats, y: Floats, w: NDArray[np.float64]) -> NDArray[np.float64]:
    hits = rule.classes(p) == rule.classes(y)  # (S, N)
    return w @ hits.T.astype(float) / w.sum(axis=1, keepdims=True)


def _mae(rule: Metric, p: Floats, y: Floats, w: NDArray[np.float64]) -> NDArray[np.float64]:
    return w @ np.abs(p - y).T.astype(float) / w.sum(axis=1, keepdims=True)


def _f1(rule: Metric, p: Floats, y: Floats, w: NDArray[np.float64]) -> NDArray[np.float64]:
    predicted, truth = rule.classes(p), rule.classes(y)
    total = np.zeros((len(w), len(p)))  # (R, S)
    for c in np.unique(truth):
        n = w @ (truth == c).astype(float)[:, None]  # (R, 1)
        m = w @ (predicted == c).T.astype(float)  # (R, S)
        hits = w @ ((predicted == c) & (truth == c)).T.astype(float)
        total += n * 2 * hits / np.maximum(n + m, 1)
    return total / w.sum(axis=1, keepdims=True)


def _corr(rule: Metric, p: Floats, y: Floats, w: NDArray[np.float64]) -> NDArray[np.float64]:
    p64, y64 = p - p.mean(axis=1, keepdims=True, dtype=float), y - y.mean(dtype=float)  # centred: no cancellation
    total = w.sum(axis=1, keepdims=True)
    mean_p, mean_y = w @ p64.T / total, w @ y64[:, None] / total  # (R, S), (R, 1)
    cov = w @ (p64 * y64).T / total - mean_p * mean_y
    var_p, var_y = w @ (p64**2).T / total - mean_p**2, w @ (y64**2)[:, None] / total - mean_y**2
    flat = (var_p <= 1e-12 * mean_p**2) | (var_y <= 1e-12 * mean_y**2)  # constant in this resample, up to rounding
    return np.where(flat, NAN, cov / np.sqrt(var_p * var_y))


_KINDS = {"accuracy": _accuracy, "mae": _mae, "f1": _f1, "corr": _corr}


def _predictions(values: ArrayLike) -> Floats:
    """[S, N]; a vector is one seed."""
    return np.atleast_2d(as_float32(values))


def _gain(both: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R, 2S) metric of a's and b's seeds -> (R, S) difference per seed."""
    n = both.shape[1] // 2
    return both[:, :n] - both[:, n:]


def _counts(rng: np.random.Generator, size: int, n: int) -> NDArray[np.float64]:
    """(size, n): how often each of n things occurs in n draws with replacement."""
    drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(float)
