"""Cells of tables: which direction is better, what rounding hides, how rows are named.

A frame of cells has one line per (artefact, dataset, backbone, method, variant, metric). Reported frames add what the
paper prints (`mean`, `mean_text`, `std`, `decimals`, `unit`, ...), frames of runs add `seed` and `value`. Two tables may
print one metric in two units (CP+SL has Corr as 0.864 and as 86.44): `as_fraction` makes them one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.metrics import METRICS, higher_is_better
from bench.selectors import Cell

ROW = ("artefact", "dataset", "backbone", "method", "variant")
KEY = (*ROW, "metric")
BINARY = {"non0_acc2": "non0_f1", "has0_acc2": "has0_f1", "acc2": "f1"}  # accuracy -> F1 of the same predictions
CLASSES = ("acc3", "acc5", "acc7", "accuracy")  # accuracies without an F1 beside them
ACCURACY = (*BINARY, *CLASSES)
SCORES = (*ACCURACY, *BINARY.values(), "mae", "corr", "avg")  # what a model is judged by
FIXED = ("params", "gflops", "params_ours", "gflops_ours")  # the same in every run of a config: these alone are compared without a test
_PERCENT = {key for family in METRICS.values() for key, metric in family.items() if metric.percent}


def orientation(metric: str) -> int:
    """+1 where more is better, -1 where less is."""
    return 1 if higher_is_better(metric) else -1


def half_unit(text: str) -> float:
    """Half a unit of the last printed digit: what rounding may have taken or added."""
    mantissa, _, exponent = str(text).lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 0.5 * 10.0 ** (int(exponent or 0) - decimals)


def scale(metric: str) -> float:
    """0.01 for metrics that texts quote in points of a percentage ("gains 0.75 Acc-2"), else 1: to fractions."""
    return 0.01 if metric in _PERCENT else 1.0


def as_fraction(cell: Cell) -> dict[str, Any]:
    """A printed cell in the one unit that is computed with: fractions, whatever its table prints. Adds `half` and
    `std_half`, what rounding may have taken from mean and std. Relative changes stay in per cent."""
    factor = 0.01 if cell["unit"] == "%" and not cell["metric"].endswith("_change") else 1.0
    halves = {"half": half_unit(cell["mean_text"]), "std_half": half_unit(cell.get("std_text") or "0")}
    scaled = {k: v * factor for k, v in {"mean": cell["mean"], "std": cell.get("std", math.nan), **halves}.items()}
    return {**cell, **scaled}


def by_key(reported: Iterable[Mapping[str, Any]]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Printed cells, as fractions, by what identifies them."""
    return {key(cell): as_fraction(cell) for cell in reported}


def paper(artefact: str) -> str:
    """ "msmix" of "msmix-t1"."""
    return artefact.partition("-")[0]


def label(row: Cell) -> str:
    """Readable name of a row: "mosi LMF + MS-Mix", "sims SLaD L_con + L_ml"."""
    system = " + ".join(str(row[p]) for p in ("backbone", "method") if row[p])
    return " ".join(str(w) for w in (row["dataset"], system, row["variant"]) if w) or "(unnamed row)"


def groups(cells: Iterable[Cell], by: Sequence[str]) -> dict[tuple[str, ...], list[Cell]]:
    """Cells that agree in the given fields, in the order of their first."""
    found: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        found.setdefault(tuple(cell[field] for field in by), []).append(cell)
    return found


def metric_words(metric: str) -> str:
    """A metric's name as tables print it: "Acc2 (non-0)"; the key itself for what is no test metric."""
    return next((family[metric].label for family in METRICS.values() if metric in family), metric)


def cell_words(identity: Sequence[str]) -> str:
    """A cell's key in words: "msmix-t1 mosi MISA + MS-Mix, Avg."."""
    cell = dict(zip(KEY, identity))
    return f"{cell['artefact']} {label(cell)}, {metric_words(cell['metric'])}"


def key(cell: Cell) -> tuple[str, ...]:
    """What identifies a cell."""
    return tuple(cell[field] for field in KEY)
