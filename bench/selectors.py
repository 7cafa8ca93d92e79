"""Selecting rows and cells by their labels, as experiments, claims and figures do. Pure."""

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import numpy as np

Selector = Mapping[str, Any]
Cell = Mapping[str, Any]  # one line of a frame of cells (analysis/cells.py)


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
