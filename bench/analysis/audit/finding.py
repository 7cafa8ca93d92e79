"""What a check says: which numbers, printed as what, expected where, by which arithmetic, under which assumption."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from typing import TypeVar

import pandas as pd

T = TypeVar("T")

LEVELS = {
    "impossible": "not consistent with arithmetic under the assumption named",
    "disagrees": "two places of the papers, or a mark and the numbers, say different things",
    "implausible": "possible, but far from what the assumption named would give",
    "note": "worth knowing before comparing with this number",
}


@dataclass(frozen=True)
class Finding:
    """One oddity in printed numbers. Transcription, rounding and undisclosed protocol can each explain it."""

    check: str
    level: str  # a key of LEVELS
    artefact: str
    cells: tuple[str, ...]  # cell ids
    printed: str
    expected: str  # the interval or value that the arithmetic gives
    arithmetic: str  # in words
    assumption: str


Check = Callable[[pd.DataFrame], Iterable[Finding]]


def table(findings: Iterable[Finding]) -> pd.DataFrame:
    """One line per finding, the gravest level first; `cells` is joined with "; "."""
    lines = [{**asdict(f), "cells": "; ".join(f.cells)} for f in findings]
    frame = pd.DataFrame(lines, columns=[f.name for f in fields(Finding)])
    order = frame["level"].map({level: i for i, level in enumerate(LEVELS)})
    return frame.iloc[order.argsort(kind="stable")].reset_index(drop=True)


def gather(items: Iterable[T], by: Callable[[T], str]) -> dict[str, list[T]]:
    """Items of equal name together, in the order of their first."""
    found: dict[str, list[T]] = {}
    for item in items:
        found.setdefault(by(item), []).append(item)
    return found


def some(names: Iterable[str], at_most: int = 6) -> str:
    """The first few of a list, and how many more there are."""
    names = list(names)
    return ", ".join(names[:at_most]) + (f" and {len(names) - at_most} more" if len(names) > at_most else "")
