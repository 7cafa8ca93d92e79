"""Cells of tables: which direction is better, what rounding hides, how rows are named and selected.

A frame of cells has one line per (artefact, dataset, backbone, method, variant, metric). Reported frames add what the
paper prints (`mean`, `mean_text`, `std`, `decimals`, `unit`, ...), frames of runs add `seed` and `value`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import numpy as np

ROW = ("artefact", "dataset", "backbone", "method", "variant")
KEY = (*ROW, "metric")
BINARY = {"non0_acc2": "non0_f1", "has0_acc2": "has0_f1", "acc2": "f1"}  # accuracy -> F1 of the same predictions
CLASSES = ("acc3", "acc5", "acc7", "accuracy")  # accuracies without an F1 beside them
ACCURACY = (*BINARY, *CLASSES)
SCORES = (*ACCURACY, *BINARY.values(), "mae", "corr", "avg")  # what a model is judged by
_LOWER = {"mae", "params", "gflops", "kl", "loss_rise", "drop", "loss"}

Selector = Mapping[str, Any]
Cell = Mapping[str, Any]  # one line of a frame of cells


def higher_is_better(metric: str) -> bool:
    """False for errors, costs, losses and p-values."""
    return not (metric in _LOWER or metric.endswith(("_p_value", "seconds_per_epoch", "_loss", "_drop")))


def orientation(metric: str) -> int:
    """+1 where more is better, -1 where less is."""
    return 1 if higher_is_better(metric) else -1


def half_unit(text: str) -> float:
    """Half a unit of the last printed digit: what rounding may have taken or added."""
    mantissa, _, exponent = str(text).lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 0.5 * 10.0 ** (int(exponent or 0) - decimals)


def paper(artefact: str) -> str:
    """ "msmix" of "msmix-t1"."""
    return artefact.partition("-")[0]


def label(row: Cell) -> str:
    """Readable name of a row: "mosi LMF + MS-Mix", "sims SLaD L_con + L_ml"."""
    system = " + ".join(str(row[p]) for p in ("backbone", "method") if row[p])
    return " ".join(str(w) for w in (row["dataset"], system, row["variant"]) if w) or "(unnamed row)"


@lru_cache(maxsize=None)
def number(text: str) -> float:
    """The first number in a variant's label: 0.3 of "MR=0.3", 0.7 of "xi_1=0.7"; NaN where there is none."""
    found = re.search(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?", text)
    return float(found.group()) if found else float("nan")


def selects(where: Selector) -> Callable[[Cell], bool]:
    """A test of cells: the ones a selector means.

    Values are texts, with * and ? as wildcards, or lists of them; "" is the empty label and "!SLaD" all but SLaD. `x`
    selects by number: the field `x` where a cell has one, else the first number of its variant. Testing raises KeyError
    for a field that cells do not have.
    """
    texts = [(k, tuple([v] if isinstance(v, str) else v)) for k, v in where.items() if k != "x"]
    numbers = {round(float(v), 9) for v in np.atleast_1d(where["x"])} if "x" in where else None

    def test(cell: Cell) -> bool:
        if not all(_means(cell[field], patterns) for field, patterns in texts):
            return False
        return numbers is None or round(float(cell.get("x", number(cell["variant"]))), 9) in numbers

    return test


@lru_cache(maxsize=None)
def _means(value: str, patterns: tuple[str, ...]) -> bool:
    if any(fnmatchcase(value, p[1:]) for p in patterns if p.startswith("!")):
        return False
    wanted = [p for p in patterns if not p.startswith("!")]
    return not wanted or any(fnmatchcase(value, p) for p in wanted)


def groups(cells: Iterable[Cell], by: Sequence[str]) -> dict[tuple[str, ...], list[Cell]]:
    """Cells that agree in the given fields, in the order of their first."""
    found: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        found.setdefault(tuple(cell[field] for field in by), []).append(cell)
    return found


def key(cell: Cell) -> tuple[str, ...]:
    """What identifies a cell."""
    return tuple(cell[field] for field in KEY)
