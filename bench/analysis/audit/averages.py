"""Averages against their parts: the mean, and the spread of the mean."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bench.analysis.audit.finding import Finding, gather, some
from bench.analysis.cells import BINARY, ROW, groups, half_unit, label
from bench.selectors import Cell

_COMOVING = {f1: accuracy for accuracy, f1 in BINARY.items()}
_EPS = 1e-9


def check(frame: pd.DataFrame) -> Iterator[Finding]:
    cells = frame.to_dict("records")
    columns = [_parts_in_row(row) for row in groups(cells, ROW).values()]
    columns = [c for c in columns if c is not None]
    for average, parts in columns:
        yield from _mean(average, parts, "metric")
    for average, parts in _parts_in_column(cells):
        yield from _mean(average, parts, "variant")
    yield from _spread(columns)


def _parts_in_row(row: list[Cell]) -> tuple[Cell, list[Cell]] | None:
    """The column `avg` and the other percentages of its row."""
    average = next((c for c in row if c["metric"] == "avg"), None)
    parts = [c for c in row if average and c["unit"] == average["unit"] and c["metric"] != "avg"]
    return (average, parts) if len(parts) > 1 else None


def _parts_in_column(cells: list[Cell]) -> Iterator[tuple[Cell, list[Cell]]]:
    """A row "Avg." and the other variants of the same system, column by column."""
    for column in groups(cells, ["artefact", "dataset", "backbone", "method", "metric"]).values():
        parts = [c for c in column if not c["variant"].lower().startswith("avg")]
        for average in column:
            if average not in parts and len(parts) > 1:
                yield average, parts


def _mean(average: Cell, parts: list[Cell], over: str) -> Iterator[Finding]:
    value = float(np.mean([c["mean"] for c in parts]))
    allowed = float(np.mean([half_unit(c["mean_text"]) for c in parts])) + half_unit(average["mean_text"])
    if abs(average["mean"] - value) <= allowed + _EPS:
        return
    digits = int(average["decimals"]) + 1
    yield Finding(
        check="average", level="impossible", artefact=average["artefact"],
        cells=(average["cell_id"], *(c["cell_id"] for c in parts)), printed=average["mean_text"],
        expected=f"[{value - allowed:.{digits}f}, {value + allowed:.{digits}f}]",
        arithmetic=f"{label(average)}, {average['metric']}: the {len(parts)} parts "
        f"({some((c[over] for c in parts), 8)}) have the mean {value:.{digits}f}, "
        f"the printed average is {average['mean'] - value:+.{digits}f} away",
        assumption="the average is the plain mean of these parts, computed before or after rounding",
    )


def _spread(columns: list[tuple[Cell, list[Cell]]]) -> Iterator[Finding]:
    """std of an average of k columns lies between what cancelling and what perfectly joined columns give."""
    printed = [(a, p) for a, p in columns if all(c["std"] == c["std"] for c in (a, *p))]
    for artefact, rows in gather(printed, lambda row: row[0]["artefact"]).items():
        low, of_mean, of_independent = [], [], []
        for average, parts in rows:
            yield from _bounds(average, parts)
            std = np.array([c["std"] for c in parts])
            joined = _joined(parts)
            of_mean.append(average["std"] / std.mean())
            of_independent.append(average["std"] * len(std) / np.sqrt((std**2).sum()))
            if average["std"] < joined - 2 * half_unit(average["std_text"]):
                low.append((average, joined))
        if 4 * len(low) < len(rows):
            continue
        yield Finding(
            check="average-spread", level="implausible", artefact=artefact, cells=tuple(a["cell_id"] for a, _ in low),
            printed=some(f"{a['std_text']} ({label(a)})" for a, _ in low),
            expected="at least " + some(f"{joined:.2f}" for _, joined in low),
            arithmetic=f"{len(low)} of {len(rows)} rows print a std of the average below what independent columns "
            "give once each accuracy moves with its F1; the std of the average is "
            f"{np.mean(of_mean):.2f} of the mean std of its columns and "
            f"{np.mean(of_independent):.2f} of what fully independent columns give",
            assumption="accuracy and F1 of the same predictions move together, other columns are independent or "
            "move with them",
        )


def _joined(parts: list[Cell]) -> float:
    """std of the mean of columns that are independent but for accuracy and F1, which move together."""
    together: dict[str, float] = {}
    for c in parts:
        name = _COMOVING.get(c["metric"], c["metric"])
        together[name] = together.get(name, 0.0) + c["std"]
    return float(np.sqrt(sum(s**2 for s in together.values())) / len(parts))


def _bounds(average: Cell, parts: list[Cell]) -> Iterator[Finding]:
    std, slack = np.array([c["std"] for c in parts]), 2 * half_unit(average["std_text"])
    most = std.mean() + slack  # all columns move together
    least = max(0.0, 2 * std.max() - std.sum()) / len(std) - slack  # all others move against the widest
    if least <= average["std"] <= most:
        return
    yield Finding(
        check="average-spread", level="impossible", artefact=average["artefact"],
        cells=(average["cell_id"], *(c["cell_id"] for c in parts)), printed=average["std_text"],
        expected=f"[{max(least, 0):.2f}, {most:.2f}]",
        arithmetic=f"{label(average)}: the std of a mean of {len(std)} columns is at most the mean of their std "
        f"({std.mean():.3f}) and at least (2 max - sum)/{len(std)}",
        assumption="the average is taken per run, and its std over the same runs as the columns'",
    )
