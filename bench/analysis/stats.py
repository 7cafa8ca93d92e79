"""Statistics over seeds and over cells.

A cell is one (dataset, backbone, method, metric); its values are one number per seed. Two methods under one seed share
split, initial weights and batch order (bench/seeds.py), so within a cell they are compared in pairs. Five values are
too few to resample: intervals here are Student's, and the bootstrap is kept for test items (samples.py).

A value that is not finite (a run that diverged, a metric that is undefined) makes the whole result NaN, and the note
says so: nothing is averaged around a hole.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

NAN = float("nan")
_ROUNDING = 1e-12  # spread below this share of the values' size is floating-point noise, not spread


@dataclass(frozen=True)
class Summary:
    """One cell: mean over n runs with its spread and Student's t interval of the mean."""

    n: int
    mean: float = NAN
    std: float = NAN  # sample standard deviation, ddof = 1
    std0: float = NAN  # population standard deviation, ddof = 0 (M-SENA prints this one)
    low: float = NAN
    high: float = NAN
    note: str = ""


@dataclass(frozen=True)
class Paired:
    """a minus b, matched by seed. The paired test is the primary one, Welch's the secondary."""

    n: int
    mean_a: float = NAN
    mean_b: float = NAN
    difference: float = NAN  # mean of a - b
    std: float = NAN  # of the paired differences, ddof = 1
    low: float = NAN  # t interval of the mean difference
    high: float = NAN
    t: float = NAN
    p: float = NAN
    d_z: float = NAN  # difference / std
    correlation: float = NAN  # of a and b over the seeds
    welch_t: float = NAN
    welch_p: float = NAN
    note: str = ""


@dataclass(frozen=True)
class Across:
    """One method against another over many cells; positive differences are wins."""

    n: int
    mean: float = NAN
    low: float = NAN  # t interval of the mean over cells
    high: float = NAN
    p: float = NAN  # Wilcoxon's signed-rank test over the cells
    wins: int = 0
    ties: int = 0
    losses: int = 0
    sign_p: float = NAN  # exact binomial test of wins against losses
    without: tuple[tuple[str, "Across"], ...] = ()  # the same with one dataset left out
    note: str = ""

    @property
    def worst_p(self) -> float:
        """The largest p when any one dataset is left out: small only if no single dataset carries the result."""
        return max((a.p for _, a in self.without), default=NAN)


def summary(values: ArrayLike, confidence: float = 0.95) -> Summary:
    """n, mean, std with ddof 1 and 0, and mean +- t_{n-1} std / sqrt(n) (Student 1908). values: [n], one per run."""
    x = np.asarray(values, dtype=float).ravel()
    n = len(x)
    if hole := _hole(x):
        return Summary(n, note=hole)
    if n == 0:
        return Summary(n, note="no runs")
    if n == 1:
        return Summary(n, mean=float(x[0]), note="one run: no spread")
    mean, std = x.mean(), x.std(ddof=1)
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * std / np.sqrt(n)
    return Summary(n, *map(float, (mean, std, x.std(), mean - half, mean + half)))


def paired_t(differences: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two-sided one-sample t-tests along the last axis: t = mean / (std / sqrt(n)), p from t_{n-1}.

    differences: [..., n] with n >= 2. Returns t and p [...]; both NaN where there is exactly no spread
    (`paired` also sees through rounding).
    """
    d = np.asarray(differences, dtype=float)
    n = d.shape[-1]
    error = d.std(axis=-1, ddof=1) / np.sqrt(n)
    t = np.divide(d.mean(axis=-1), error, out=np.full(d.shape[:-1], NAN), where=error > 0)
    return t, 2 * stats.t.sf(np.abs(t), n - 1)


def paired(a: ArrayLike | pd.Series, b: ArrayLike | pd.Series, confidence: float = 0.95) -> Paired:
    """Paired comparison of two methods over the same seeds.

    Two Series are matched by their index (the seed), and seeds that only one side has are left out and named in the
    note; two plain arrays [n] are matched by position. Effect size d_z = mean / std of the differences (Lakens 2013);
    Welch 1947 ignores the pairing. Without spread there is nothing to test: p is 1 if the runs are identical in every
    seed, else NaN, and the note says which.
    Raises ValueError for plain arrays of different length and for a seed that occurs twice.
    """
    x, y, unmatched = _matched(a, b)
    n = len(x)
    result = Paired(n, note=unmatched)
    if hole := _hole(x, "runs of a") or _hole(y, "runs of b"):
        return _noted(result, hole)
    if n == 0:
        return _noted(result, "no pairs")
    d = x - y
    result = replace(result, mean_a=float(x.mean()), mean_b=float(y.mean()), difference=float(d.mean()))
    if n == 1:
        return _noted(result, "one pair: no spread")
    rounding = _ROUNDING * max(np.abs(x).max(), np.abs(y).max())
    result = replace(result, **_welch(x, y, rounding))
    if d.std(ddof=1) <= rounding:
        if np.abs(d).max() <= rounding:
            identical = replace(result, difference=0.0, std=0.0, low=0.0, high=0.0, p=1.0)
            return _noted(identical, "identical in every seed")
        return _noted(replace(result, std=0.0), "the same difference in every seed: no spread to test against")
    t, p = paired_t(d)
    s = summary(d, confidence)
    return replace(result, std=s.std, low=s.low, high=s.high, t=float(t), p=float(p), d_z=s.mean / s.std)


def holm(pvalues: ArrayLike) -> NDArray[np.float64]:
    """Holm-adjusted p-values (Holm 1979) of one family, in the given shape and order.

    p_(i) becomes max_{j <= i} min(1, (m - j + 1) p_(j)), which keeps the chance of any false positive in the family at
    the level. NaN (a comparison that could not be tested) stays NaN and does not count into m.
    Raises ValueError for a value outside [0, 1].
    """
    p = np.asarray(pvalues, dtype=float)
    tested = ~np.isnan(p)
    if ((p[tested] < 0) | (p[tested] > 1)).any():
        raise ValueError("a p-value lies outside [0, 1]")
    # not statsmodels' multipletests: it collects garbage at every call, a tenth of a second each in a large process
    order = np.argsort(p[tested], kind="stable")
    steps = np.maximum.accumulate((len(order) - np.arange(len(order))) * p[tested][order])
    known = np.empty(len(order))
    known[order] = np.minimum(1.0, steps)
    adjusted = np.full(p.shape, NAN)
    adjusted[tested] = known
    return adjusted


def across(differences: ArrayLike, datasets: Sequence[str] | None = None, confidence: float = 0.95) -> Across:
    """Does one method beat another over many cells? One test over the cell means, and k-of-n wins.

    differences: [n] mean difference of each cell in one metric, oriented so that positive is better. Wilcoxon's
    signed-rank test is the one test (Demsar 2006, Sec. 3.1.3; exact for few cells), the binomial sign test of wins
    against losses goes with it (Sec. 3.1.4; ties left out). datasets: [n] the dataset of each cell; each is left out
    in turn, because cells of one dataset share its test items and are not independent. Cells must be independent
    trainings: metrics of one run, or settings of one system, are to be averaged first. The note says so where no result
    of so few cells could be significant.
    """
    d = np.asarray(differences, dtype=float).ravel()
    if datasets is not None and len(datasets) != len(d):
        raise ValueError(f"{len(datasets)} dataset names for {len(d)} cells")
    cells = summary(d, confidence)
    wins, losses = int((d > 0).sum()), int((d < 0).sum())
    if np.isnan(cells.mean):
        return Across(len(d), note=_hole(d, "cells") or "no cells")
    result = Across(
        len(d), cells.mean, cells.low, cells.high, wins=wins, ties=len(d) - wins - losses, losses=losses,
        p=float(stats.wilcoxon(d).pvalue) if wins + losses else 1.0,
        sign_p=float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0,
        note=smallest_note(wins + losses),
    )
    names = np.asarray(datasets if datasets is not None else [], dtype=object)
    distinct = list(dict.fromkeys(names))
    if len(distinct) < 2:
        return result
    return replace(result, without=tuple((name, across(d[names != name], None, confidence)) for name in distinct))


def smallest_note(n: int) -> str:
    """What to say beside a rank or sign test of n differences that cannot reach 0.05, else ""."""
    least = 2.0 ** (1 - n)
    return f"p = {least:.3g} is the smallest that {n} cells can give" if 1 <= n and least >= 0.05 else ""


def compare(
    frame: pd.DataFrame, value: str, method: str = "mixer", by: Sequence[str] = ("dataset", "backbone"),
    seed: str = "seed", proposed: str | None = None,
) -> pd.DataFrame:
    """Paired comparisons in every cell of a tidy frame (one line per run), Holm-adjusted over all of them.

    Compares `proposed` with each other method, or every two methods where it is None. Returns one line per cell and
    pair: the columns `by`, "a", "b", those of Paired, and "p_holm".
    """
    lines = []
    for cell, group in frame.groupby(list(by), sort=False, dropna=False):
        runs = {m: g.set_index(seed)[value] for m, g in group.groupby(method, sort=False, dropna=False)}
        pairs = combinations(runs, 2) if proposed is None else ((proposed, m) for m in runs if m != proposed)
        none = pd.Series(dtype=float)
        for a, b in pairs:
            lines.append({**dict(zip(by, cell)), "a": a, "b": b, **asdict(paired(runs.get(a, none), runs[b]))})
    table = pd.DataFrame(lines, columns=[*by, "a", "b", *Paired.__dataclass_fields__])
    return table.assign(p_holm=holm(table["p"].to_numpy(dtype=float)))


def _hole(x: NDArray[np.float64], what: str = "runs") -> str:
    """Says how many values are not finite; empty if all are."""
    bad = int((~np.isfinite(x)).sum())
    return f"{bad} of {len(x)} {what} not finite" if bad else ""


def _noted(result: Paired, note: str) -> Paired:
    return replace(result, note="; ".join(filter(None, (result.note, note))))


def _matched(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """The values of a and b in pairs, and a note on what had no partner."""
    if isinstance(a, pd.Series) != isinstance(b, pd.Series):
        raise ValueError("match two Series by seed or two arrays by position, not one of each")
    if not isinstance(a, pd.Series):
        x, y = np.asarray(a, dtype=float).ravel(), np.asarray(b, dtype=float).ravel()
        if len(x) != len(y):
            raise ValueError(f"{len(x)} and {len(y)} runs cannot be paired by position")
        return x, y, ""
    if not (a.index.is_unique and b.index.is_unique):
        raise ValueError("a seed occurs twice in one cell")
    both = a.index.intersection(b.index, sort=False)
    alone = sorted(a.index.symmetric_difference(b.index))
    note = f"seeds on one side only, left out: {', '.join(map(str, alone))}" if alone else ""
    return a.loc[both].to_numpy(dtype=float), b.loc[both].to_numpy(dtype=float), note


def _welch(x: NDArray[np.float64], y: NDArray[np.float64], rounding: float) -> dict[str, float]:
    """Welch's test and the correlation over seeds, NaN where a side that they need has no spread."""
    sx, sy = (0.0 if v.std(ddof=1) <= rounding else float(v.std(ddof=1)) for v in (x, y))
    found = {}
    if sx or sy:
        t, p = stats.ttest_ind_from_stats(x.mean(), sx, len(x), y.mean(), sy, len(y), equal_var=False)
        found |= {"welch_t": float(t), "welch_p": float(p)}
    if sx and sy:
        found["correlation"] = float(np.corrcoef(x, y)[0, 1])
    return found
