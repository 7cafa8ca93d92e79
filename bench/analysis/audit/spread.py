"""Printed standard deviations: can they exist, are they out of line, do they repeat?

GRIMMER (Anaya 2016) for n accuracies on N samples: with k_i right answers in run i, the sum of k_i is known from the
mean, the sum of k_i squared is a whole number of the same parity, and the std follows from both.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import binom, poisson

from bench.analysis.audit.finding import Finding, some
from bench.analysis.audit.grim import fits
from bench.analysis.audit.testsets import samples
from bench.analysis.cells import ACCURACY, half_unit, label, paper

_OUTLIER = 5.0  # times the column's median
_NEIGHBOURS = 5  # ticks on either side, at most, that say how often two std coincide by chance
_RARE = 1e-3  # chance below which a column is reported


def check(frame: pd.DataFrame) -> Iterator[Finding]:
    spread = frame[frame["std"].notna()]
    if spread.empty:
        return
    yield from _outliers(spread)
    yield from _repeats(spread)
    yield from _grimmer(spread)


def std_fits(mean_text: str, std_text: str, size: int, runs: int, ddof: int = 1, slack: float = 0.0) -> bool:
    """Whether `runs` accuracies (%) on `size` samples can have this printed mean and std.

    `slack` widens the std's interval on both sides, in points. A necessary condition, not a sufficient one.
    """
    half, unit = half_unit(mean_text), 100 / size
    low, high = (np.array([-half, half]) + float(mean_text)) * size * runs / 100
    std, std_half = float(std_text), half_unit(std_text) + slack
    squares = (np.array([max(0.0, std - std_half), std + std_half]) / unit) ** 2 * (runs - ddof)
    for total in range(int(np.ceil(low - 1e-9)), int(np.floor(high + 1e-9)) + 1):
        first, last = np.ceil(squares[0] + total**2 / runs - 1e-9), np.floor(squares[1] + total**2 / runs + 1e-9)
        if first <= last and (last > first or (int(first) - total) % 2 == 0):
            return True
    return False


def _grimmer(spread: pd.DataFrame) -> Iterator[Finding]:
    """Only cells whose mean passes GRIM strictly; judged with either definition of the std."""
    known = spread[spread["metric"].isin(ACCURACY) & spread["n"].notna()]
    for artefact, cells in known.groupby("artefact", sort=False):
        passed, rates, failing = 0, [], []
        for _, cell in cells.iterrows():
            size, runs = samples(cell["dataset"], cell["metric"]), int(cell["n"])
            if size is None or not fits(cell["mean_text"], size, runs):
                continue
            one = _either(cell["mean_text"], cell["std_text"], size, runs)
            near = [f"{cell['std'] + d / 100:.2f}" for d in range(-10, 11) if cell["std"] + d / 100 > 0]
            rates.append(np.mean([_either(cell["mean_text"], s, size, runs) for s in near]))
            passed += one
            failing += [] if one else [cell]
        if not failing:
            continue
        rate, p = float(np.mean(rates)), float(binom.cdf(passed, len(rates), np.mean(rates)))
        if p > _RARE:
            continue
        exact = f"{passed} of {len(rates)} cells whose mean passes have a std that so many runs can have"
        yield Finding(
            check="grimmer", level="implausible", artefact=artefact, cells=tuple(c["cell_id"] for c in failing),
            printed=some(f"{c['mean_text']} +- {c['std_text']}" for c in failing),
            expected="a std of whole numbers of right answers, ddof 0 or 1",
            arithmetic=f"{exact}; chance {rate:.0%} (p = {p:.2g} of so few by chance)",
            assumption="runs not rounded before the std was taken; the stated n; the usual test file",
        )


def _either(mean: str, std: str, size: int, runs: int) -> bool:
    return any(std_fits(mean, std, size, runs, ddof) for ddof in (0, 1))


def _outliers(spread: pd.DataFrame) -> Iterator[Finding]:
    """A std far above its column's, or printed with other precision: a digit may have been lost."""
    for (_, metric), column in spread.groupby([spread["artefact"].map(paper), "metric"], sort=False):
        usual, digits = column["std"].median(), column["std_text"].map(half_unit)
        for index, cell in column.iterrows():
            wide = len(column) >= 5 and cell["std"] > _OUTLIER * usual
            coarse = digits[index] > 1.5 * digits.median()
            if not (wide or coarse):
                continue
            yield Finding(
                check="std-outlier", level="implausible", artefact=cell["artefact"], cells=(cell["cell_id"],),
                printed=f"{cell['mean_text']} +- {cell['std_text']}", expected=f"near {usual:.3g}",
                arithmetic=f"{label(cell)}, {metric}: {cell['std'] / usual:.1f} times the median std of {len(column)} "
                f"cells (next largest {column['std'].drop(index).max():.3g})"
                + ("; printed with fewer decimals than the others" if coarse else ""),
                assumption="seeds scatter alike for all rows of a metric",
            )


def _repeats(spread: pd.DataFrame) -> Iterator[Finding]:
    """More equal std in a column than its near misses suggest."""
    for (artefact, metric), column in spread.groupby(["artefact", "metric"], sort=False):
        ticks = np.round(column["std"] / (2 * column["std_text"].map(half_unit).min())).astype(int).to_numpy()
        width = min(_NEIGHBOURS, int(np.subtract(*np.percentile(ticks, [75, 25]))) // 4)
        if len(ticks) < 10 or width < 1:  # too few, or printed too coarsely to tell repeats from rounding
            continue
        apart = np.array([abs(a - b) for a, b in combinations(ticks, 2)])
        near = ((apart > 0) & (apart <= width)).sum() / (2 * width)  # ordered differences: two sides
        equal = int((apart == 0).sum())
        p = float(poisson.sf(equal - 1, max(near, 0.5)))
        if p > _RARE:
            continue
        common = column["std_text"].value_counts()
        yield Finding(
            check="std-repeats", level="implausible", artefact=artefact, cells=tuple(column["cell_id"]),
            printed=some(f"{text} x {count}" for text, count in common[common > 1].items()),
            expected=f"about {near:.1f} equal pairs",
            arithmetic=f"{metric}: {equal} pairs of equal std among {len(ticks)} rows; std one to {width} units apart "
            f"suggest {near:.1f} (p = {p:.1g})",
            assumption="std of different rows are independent and spread smoothly",
        )
