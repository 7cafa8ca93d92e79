"""Is it the same number? Ours against a reported mean, and two methods within a margin that matters.

A reported mean is one draw from the paper's own seeds, so the question is not whether it equals ours but whether it
lies where another mean of so many runs would fall.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from bench.analysis.stats import paired, summary

NAN = float("nan")
USUAL_RUNS = 5  # of a mean whose source does not say how many runs it averages: M-SENA's, and the field's, number


@dataclass(frozen=True)
class Prediction:
    """Where a mean of `reported_runs` further runs would fall, seen from our n runs."""

    n: int
    reported_runs: int
    mean: float = NAN
    half_width: float = NAN
    low: float = NAN
    high: float = NAN
    note: str = ""  # what was assumed


@dataclass(frozen=True)
class Rope:
    """Posterior share of the true mean difference a - b below, inside and above (-margin, margin)."""

    n: int
    margin: float
    below: float = NAN
    inside: float = NAN
    above: float = NAN
    note: str = ""


def prediction_interval(
    ours: ArrayLike, reported_runs: float | None, confidence: float = 0.95, reported_std: float = NAN
) -> Prediction:
    """Interval for the mean of `reported_runs` = m further runs, seen from our n.

    mean +- t_{n-1} s sqrt(1/n + 1/m), with mean and s of our runs (Hahn & Meeker 1991, Ch. 4), where the paper prints no
    spread: its runs are taken to spread as ours do. Where it prints one, s_r, its own spread enters:
    mean +- t_v sqrt(s^2/n + s_r^2/m) with Welch's degrees of freedom v (at most n + m - 2). A paper that does not say how
    many runs it averaged is read as USUAL_RUNS, and the note says so. ours: [n].
    """
    stated = reported_runs is not None and reported_runs >= 1  # an empty table cell may arrive as NaN
    m = int(reported_runs) if stated else USUAL_RUNS
    s = summary(ours)
    unsaid = "" if stated else f"number of reported runs not stated: read as {USUAL_RUNS}, the usual number"
    if not np.isfinite(s.std):
        return Prediction(s.n, m, s.mean, note="; ".join(filter(None, (unsaid, s.note))))
    mine, df = s.std**2 / s.n, s.n - 1
    theirs = s.std**2 / m
    if np.isfinite(reported_std) and m > 1:
        theirs = reported_std**2 / m
        if mine + theirs > 0:
            df = (mine + theirs) ** 2 / (mine**2 / (s.n - 1) + theirs**2 / (m - 1))
        unsaid = "; ".join(filter(None, (unsaid, "the paper's own std enters the interval")))
    half = float(stats.t.ppf((1 + confidence) / 2, df) * np.sqrt(mine + theirs))
    return Prediction(s.n, m, s.mean, half, s.mean - half, s.mean + half, unsaid)


def status(interval: Prediction, reported: float, higher_is_better: bool = True, rounding: float = 0.0) -> str:
    """Where the reported mean lies: "inside" the interval, "better" (ours is, by more than the half-width),
    "within twice" the half-width or "beyond" it on the side where ours is worse; "undecided" without an interval.

    rounding: half a unit of the last printed digit, by which the reported number may be off.
    """
    shortfall = (reported - interval.mean) * (1 if higher_is_better else -1)  # how much better theirs is
    if not (np.isfinite(shortfall) and np.isfinite(interval.half_width)):
        return "undecided"
    if abs(shortfall) <= interval.half_width + rounding:
        return "inside"
    if shortfall < 0:
        return "better"
    return "within twice" if shortfall <= 2 * interval.half_width + rounding else "beyond"


def rope(a: ArrayLike | pd.Series, b: ArrayLike | pd.Series, margin: float) -> Rope:
    """Region of practical equivalence (Kruschke 2018): how probable a difference below, inside and above it is.

    Under the flat prior the true mean difference is d + e T with T from t_{n-1}, d the mean and e the standard
    error of the differences. This is the Bayesian t-test of Benavoli et al. 2017 for independent runs. NaN without spread: a
    tie is not certainty, and accuracies of a few hundred items tie easily. Arguments as stats.paired; margin > 0.
    """
    if not margin > 0:
        raise ValueError(f"an equivalence margin must be positive, got {margin}")
    result = paired(a, b)
    n, d, error = result.n, result.difference, result.std / np.sqrt(max(result.n, 1))
    if not error > 0:
        return Rope(n, margin, note=result.note)
    below = float(stats.t.cdf((-margin - d) / error, n - 1))
    above = float(stats.t.sf((margin - d) / error, n - 1))
    return Rope(n, margin, below, 1 - below - above, above, result.note)
