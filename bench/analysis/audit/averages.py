"""Averages against their parts: the mean, and the spread of the mean."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bench.analysis.audit.finding import Finding, some
from bench.analysis.cells import BINARY, ROW, label

_COMOVING = {f1: accuracy for accuracy, f1 in BINARY.items()}


def check(frame: pd.DataFrame) -> Iterator[Finding]:
    yield from _across_columns(frame)
    yield from _across_rows(frame)
    yield from _spread(frame)


def _across_columns(frame: pd.DataFrame) -> Iterator[Finding]:
    """A column `avg` against the percentages of its row."""
    for _, row in frame.groupby(list(ROW), sort=False):
        for _, average in row[row["metric"] == "avg"].iterrows():
            parts = row[(row["unit"] == average["unit"]) & (row["metric"] != "avg")]
            yield from _compare(average, parts, "metric")


def _across_rows(frame: pd.DataFrame) -> Iterator[Finding]:
    """A row "Avg." against the other variants of the same system, column by column."""
    is_average = frame["variant"].str.lower().str.startswith("avg")
    keys = ["artefact", "dataset", "backbone", "method", "metric"]
    for _, column in frame[frame["artefact"].isin(frame["artefact"][is_average])].groupby(keys, sort=False):
        averaged = is_average[column.index]
        for _, average in column[averaged].iterrows():
            yield from _compare(average, column[~averaged], "variant")


def _compare(average: pd.Series, parts: pd.DataFrame, over: str) -> Iterator[Finding]:
    if len(parts) < 2:
        return
    value, slack = parts["mean"].mean(), _half(parts).mean()
    allowed = slack + 0.5 * 10.0 ** -average["decimals"]
    if abs(average["mean"] - value) <= allowed + 1e-9:
        return
    digits = int(average["decimals"]) + 1
    yield Finding(
        check="average", level="impossible", artefact=average["artefact"],
        cells=(average["cell_id"], *parts["cell_id"]), printed=average["mean_text"],
        expected=f"[{value - allowed:.{digits}f}, {value + allowed:.{digits}f}]",
        arithmetic=f"{label(average)}, {average['metric']}: the {len(parts)} parts ({some(parts[over], 8)}) have the mean "
        f"{value:.{digits}f}, the printed average is {average['mean'] - value:+.{digits}f} away",
        assumption="the average is the plain mean of these parts, computed before or after rounding",
    )


def _half(parts: pd.DataFrame) -> pd.Series:
    return 0.5 * 10.0 ** -parts["decimals"].astype(float)


def _spread(frame: pd.DataFrame) -> Iterator[Finding]:
    """std of an average of k columns lies between what cancelling and what perfectly joined columns give."""
    low = []
    ratios = []
    for _, row in frame[frame["std"].notna()].groupby(list(ROW), sort=False):
        average = row[row["metric"] == "avg"]
        if average.empty:
            continue
        average = average.iloc[0]
        parts = row[(row["unit"] == average["unit"]) & (row["metric"] != "avg")]
        std, slack = parts["std"], 0.5 * 10.0 ** -average["decimals"]
        most = std.mean() + 2 * slack  # all columns move together
        least = max(0.0, 2 * std.max() - std.sum()) / len(std) - 2 * slack  # all others move against the widest
        if not least <= average["std"] <= most:
            yield Finding(
                check="average-spread", level="impossible", artefact=average["artefact"],
                cells=(average["cell_id"], *parts["cell_id"]), printed=average["std_text"],
                expected=f"[{max(least, 0):.2f}, {most:.2f}]",
                arithmetic=f"{label(average)}: the std of a mean of {len(std)} columns is at most the mean of their std "
                f"({std.mean():.3f}) and at least (2 max - sum)/{len(std)}",
                assumption="the average is taken per run, and its std over the same runs as the columns'",
            )
        pairs = std.groupby(parts["metric"].map(lambda m: _COMOVING.get(m, m))).sum()
        joined = float(np.sqrt((pairs**2).sum()) / len(std))
        ratios.append((average["artefact"], average["std"] / std.mean(), average["std"] / (np.sqrt((std**2).sum()) / len(std))))
        low.append((average, joined, average["std"] < joined - 2 * slack))
    yield from _low_spread(low, pd.DataFrame(ratios, columns=["artefact", "of_mean", "of_independent"]))


def _low_spread(rows: list[tuple[pd.Series, float, bool]], ratios: pd.DataFrame) -> Iterator[Finding]:
    for artefact, ratio in ratios.groupby("artefact", sort=False):
        here = [(average, joined, below) for average, joined, below in rows if average["artefact"] == artefact]
        below = [(average, joined) for average, joined, is_below in here if is_below]
        if len(below) * 4 < len(here):
            continue
        yield Finding(
            check="average-spread", level="implausible", artefact=artefact,
            cells=tuple(average["cell_id"] for average, _ in below),
            printed=some(f"{average['std_text']} ({label(average)})" for average, _ in below),
            expected=f"at least {some((f'{joined:.2f}' for _, joined in below), 6)}",
            arithmetic=f"{len(below)} of {len(here)} rows print a std of the average below what independent columns give once "
            f"each accuracy moves with its F1; the std of the average is {ratio['of_mean'].mean():.2f} of the mean std "
            f"of its columns and {ratio['of_independent'].mean():.2f} of what fully independent columns give",
            assumption="accuracy and F1 of the same predictions move together, other columns are independent or move "
            "with them",
        )
