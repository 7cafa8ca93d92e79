"""Comparisons on runs as pairs of p-values: that the comparison holds, and that its contrary does.

A comparison is a sum of cells taken seed by seed (the methods of one seed share split, weights and batch order), tested
with Student's t. Both p-values are one-sided, so that a comparison of equal methods is as often wrong on one side as on
the other. Without spread there is nothing to test: five accuracies of 656 items tie easily, and a tie is not certainty;
only what cannot vary (sizes, operation counts) is compared as it is.

Everything is computed for many sets of runs at once, [..., S sets, n seeds], which is what a simulation needs; a real
results folder is one set.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from bench.analysis.cells import FIXED, orientation, scale
from bench.analysis.claims.predicates import Comparison, Key

Array = NDArray[np.float64]
ROPE = 0.01  # a point of a percentage, 0.01 of any other metric: an absolute number is met within that
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Evidence:
    """Of C comparisons in S sets of runs."""

    sums: Array  # [S, C, n] the sum of the terms in every seed; NaN where a term has no run
    n: NDArray[np.int64]  # [S, C] seeds behind it
    holds: Array  # [S, C] p that the comparison holds; 1 where nothing can be tested
    contrary: Array  # [S, C] p that its contrary does
    tested: NDArray[np.bool_]  # [S, C]


def evidence(
    comparisons: Sequence[Comparison], rows: Mapping[Key, int], values: Array, reported_runs: Sequence[float] = ()
) -> Evidence:
    """Test every comparison. rows: cell -> its row in values [S, cells, n], NaN where a seed has no run.
    reported_runs: of each comparison with a quoted number, how many runs the paper's mean is of."""
    runs = np.array([*reported_runs] or [math.nan] * len(comparisons))
    sums = _sums(comparisons, rows, values)
    n = np.isfinite(sums).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(n > 0, np.nansum(sums, -1) / np.maximum(n, 1), np.nan)
        centred = sums - mean[..., None]
        std = np.sqrt(np.nansum(centred**2, -1) / np.maximum(n - 1, 1))
    size = np.nanmax(np.abs(np.where(np.isfinite(sums), sums, 0.0)), axis=-1, initial=1.0)
    flat = std <= _ROUNDING * size
    testable = (n > 1) & ~flat
    error = np.where(testable, std / np.sqrt(np.maximum(n, 1)), 1.0)
    df = np.maximum(n - 1, 1)

    low = np.array([c.low for c in comparisons], dtype=float)
    high = np.array([c.high for c in comparisons], dtype=float)
    above, below = stats.t.sf((mean - low) / error, df), stats.t.sf((high - mean) / error, df)  # mean > low, mean < high
    holds = np.maximum(above, below)
    under, over = 1 - above, 1 - below
    contrary = np.where(np.isinf(low), over, np.where(np.isinf(high), under, np.minimum(1, 2 * np.minimum(under, over))))

    quoted = np.array([math.nan if c.quoted is None else c.quoted for c in comparisons], dtype=float)
    for j in np.flatnonzero(np.isfinite(quoted)):
        of = (mean[:, j], std[:, j], n[:, j], error[:, j], df[:, j])
        holds[:, j], contrary[:, j] = _quoted(comparisons[j], *of, runs[j])
    for j, c in enumerate(comparisons):
        if c.spread:
            holds[:, j], contrary[:, j], testable[:, j] = _spread(c, rows, values)
    fixed = np.array([bool(c.terms) and all(k[-1] in FIXED for k in c.keys) for c in comparisons], dtype=bool)
    sure = fixed & (n > 0) & (flat | (n == 1))
    inside = np.where(np.array([c.strict for c in comparisons], dtype=bool), (low < mean) & (mean < high), (low <= mean) & (mean <= high))
    holds = np.where(sure, np.where(inside, 0.0, 1.0), np.where(testable, holds, 1.0))
    contrary = np.where(sure, np.where(inside, 1.0, 0.0), np.where(testable, contrary, 1.0))
    spread = np.array([c.spread for c in comparisons], dtype=bool)
    return Evidence(sums, n, holds, contrary, sure | np.where(spread, testable, n > 1))


def gains(c: Comparison, sums: Array) -> Array:
    """By how much an order is on the claimed side of its bound."""
    return sums - c.low if math.isinf(c.high) else c.high - sums


def _sums(comparisons: Sequence[Comparison], rows: Mapping[Key, int], values: Array) -> Array:
    """[S, C, n] weighted sums of cells; NaN where a comparison has no cells or a cell is not known."""
    s, k, n = values.shape
    lines, columns, weights, odd = [], [], [], []
    constants = np.zeros(len(comparisons))
    for j, c in enumerate(comparisons):
        if not c.keys or any(key not in rows for key in c.keys):
            constants[j] = np.nan
        elif c.percent or any(t.choices for t in c.terms) or c.spread:
            odd.append(j)
        else:
            for t in c.terms:
                if t.key is None:
                    constants[j] += t.weight * t.constant
                else:
                    lines.append(j), columns.append(rows[t.key]), weights.append(t.weight)
    matrix = sparse.csr_matrix((weights, (lines, columns)), shape=(len(comparisons), k))
    flat = matrix @ values.transpose(1, 0, 2).reshape(k, s * n)
    sums = flat.reshape(len(comparisons), s, n).transpose(1, 0, 2) + constants[:, None]
    for j in odd:
        sums[:, j] = _odd(comparisons[j], rows, values)
    return sums


def _odd(c: Comparison, rows: Mapping[Key, int], values: Array) -> Array:
    """[S, n] of a relative change, or of a sum in which a term is the best of several cells."""
    if c.spread:
        wide, narrow = (values[:, rows[k]] for k in c.keys)
        return _deviation(wide) - _deviation(narrow)
    terms = [_best(t.choices, rows, values) if t.choices else
             np.full(values.shape[::2], t.constant) if t.key is None else values[:, rows[t.key]] for t in c.terms]
    if c.percent:
        return 100 * (terms[0] - terms[1]) / terms[1]
    return sum(t.weight * v for t, v in zip(c.terms, terms))


def _best(choices: Sequence[Key], rows: Mapping[Key, int], values: Array) -> Array:
    every = values[:, [rows[k] for k in choices]]  # (S, choices, n)
    mean = orientation(choices[0][-1]) * every.mean(-1)
    return np.take_along_axis(every, np.nanargmax(np.nan_to_num(mean, nan=-np.inf), axis=1)[:, None, None], 1)[:, 0]


def _deviation(x: Array) -> Array:
    return np.abs(x - np.nanmean(x, axis=-1, keepdims=True))


def _quoted(
    c: Comparison, mean: Array, std: Array, n: Array, error: Array, df: Array, runs: float
) -> tuple[Array, Array]:
    """A quoted number against our runs. It is contradicted where the paper's mean of `runs` runs would hardly fall there
    (prediction interval; Hahn & Meeker 1991). A quoted difference is met where it is not contradicted at 5 % and ours
    has its sign; an absolute number where ours is shown to lie within ROPE of it: not being far off is no evidence."""
    slack = (c.high - c.low) / 2
    m = runs if math.isfinite(runs) and runs >= 1 else 1
    wide = std * np.sqrt(1 / np.maximum(n, 1) + 1 / m)
    off = np.maximum(np.abs(mean - c.quoted) - slack, 0.0)
    contrary = 2 * stats.t.sf(off / np.where(wide > 0, wide, 1.0), df)
    if len(c.keys) > 1:
        holds = stats.t.sf(mean * math.copysign(1.0, c.quoted) / error, df)
    else:
        margin = slack + (ROPE if not c.percent else 1.0)
        holds = stats.t.sf((margin - np.abs(mean - c.quoted)) / error, df)
    return np.where(contrary < 0.05, 1.0, holds), contrary


def _spread(c: Comparison, rows: Mapping[Key, int], values: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Is the second cell's spread smaller than the first's? Pitman's test of paired variances (Pitman 1939, Morgan 1939):
    the correlation of sum and difference, with n - 2 degrees of freedom. An F test would take them for independent."""
    if any(k not in rows for k in c.keys):
        nothing = np.ones(len(values))
        return nothing, nothing, nothing < 0
    wide, narrow = (values[:, rows[k]] for k in c.keys)
    both = np.isfinite(wide) & np.isfinite(narrow)
    n = both.sum(-1)
    a, b = (np.where(both, x, 0.0) for x in (wide + narrow, wide - narrow))
    a, b = (np.where(both, x - x.sum(-1, keepdims=True) / np.maximum(n, 1)[:, None], 0.0) for x in (a, b))
    size = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    usable = (n > 2) & (size > _ROUNDING)
    r = np.clip(np.where(usable, (a * b).sum(-1) / np.where(usable, size, 1.0), 0.0), -1 + 1e-12, 1 - 1e-12)
    df = np.maximum(n - 2, 1)
    t = r * np.sqrt(df / (1 - r**2))
    return stats.t.sf(t, df), stats.t.cdf(t, df), usable


# --- one value per independent unit ---------------------------------------------------------------------------------

@dataclass(frozen=True)
class Pooled:
    """The mean gain of a claim over independent units: trainings that share nothing, usually dataset x backbone."""

    units: int
    mean: Array  # [S]
    below: Array  # [S] p that the mean gain is negative: then not every comparison can hold
    above: Array  # [S]
    metrics: tuple[str, ...]


_PREFERRED = ("avg", "non0_acc2", "acc2", "accuracy", "has0_acc2", "acc7", "acc5", "f1", "non0_f1", "mae", "corr")


def pooled(comparisons: Sequence[Comparison], found: Evidence, runs: Mapping[Key, str]) -> Pooled | None:
    """One value per unit and seed: the mean gain of its orders in one metric; then a stratified t-test over the units
    (Satterthwaite 1946 degrees of freedom). Metrics of one run, and rows that share a baseline, are one unit: `runs`
    names the training behind a cell, and comparisons that share one belong together. None where there is nothing."""
    orders = [j for j, c in enumerate(comparisons) if c.order and not c.missing and (found.n[:, j] > 1).all()
              and not all(k[-1] in FIXED for k in c.keys)]
    means, variances, dfs, used = [], [], [], []
    for unit in _units([comparisons[j] for j in orders], runs):
        members = [orders[i] for i in unit]
        metric = min({comparisons[j].keys[0][-1] for j in members}, key=_rank)
        members = [j for j in members if {k[-1] for k in comparisons[j].keys} == {metric}]
        gain = [gains(comparisons[j], found.sums[:, j]) / scale(metric) for j in members]
        gain = np.mean(gain or [np.full(found.sums[:, 0].shape, np.nan)], axis=0)  # (S, n), seeds that all have
        n = np.isfinite(gain).sum(-1)
        if (n < 2).any():
            continue
        mean = np.nansum(gain, -1) / n
        means.append(mean), dfs.append(n - 1), used.append(metric)
        variances.append(np.nansum((gain - mean[:, None]) ** 2, -1) / (n - 1) / n)  # of the unit's mean
    if not means:
        return None
    mean, variance, df = np.stack(means), np.stack(variances), np.stack(dfs)  # (U, S)
    spread = variance > _ROUNDING**2  # a unit whose differences tie has nothing to be tested against
    units = np.maximum(spread.sum(0), 1)
    total = np.where(spread, variance, 0.0).sum(0)
    some, error = total > 0, np.sqrt(np.where(total > 0, total, 1.0))
    freedom = np.where(some, total**2, 1.0) / np.where(some, (np.where(spread, variance, 0.0) ** 2 / df).sum(0), 1.0)
    t = np.where(spread, mean, 0.0).sum(0) / error
    below, above = (np.where(some, tail(t, freedom), 1.0) for tail in (stats.t.cdf, stats.t.sf))
    return Pooled(len(means), np.where(some, np.where(spread, mean, 0.0).sum(0) / units, mean.mean(0)), below, above,
                  tuple(dict.fromkeys(used)))


def _rank(metric: str) -> tuple[int, str]:
    return (_PREFERRED.index(metric) if metric in _PREFERRED else len(_PREFERRED), metric)


def _units(comparisons: Sequence[Comparison], runs: Mapping[Key, str]) -> Iterator[list[int]]:
    """Comparisons that are linked by trainings they share."""
    root: dict[str, str] = {}

    def top(name: str) -> str:
        while root.setdefault(name, name) != name:
            name = root[name]
        return name

    for c in comparisons:
        first, *others = (runs[k] for k in c.keys)
        for other in others:
            root[top(other)] = top(first)
    units: dict[str, list[int]] = {}
    for i, c in enumerate(comparisons):
        units.setdefault(top(runs[c.keys[0]]), []).append(i)
    yield from units.values()
