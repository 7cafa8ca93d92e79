"""From comparisons to a verdict: three-valued, so that "cannot tell" is never counted as "no"."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

TRUE, FALSE, OPEN, MISSING = "true", "false", "open", "missing"
HOLDS, FAILS, UNDECIDED, UNTESTABLE = "holds", "fails", "undecided", "untestable"
VERDICTS = (HOLDS, FAILS, UNDECIDED, UNTESTABLE)


def of_group(states: Sequence[str], allowed: int) -> str:
    """State of a group whose comparisons have these states, when `allowed` of them may fail."""
    count = Counter(states)
    if count[FALSE] > allowed:
        return FALSE
    if count[FALSE] + count[OPEN] + count[MISSING] <= allowed or len(states) == count[TRUE]:
        return TRUE
    return MISSING if count[MISSING] else OPEN


def of_claim(states: Sequence[str], need: Any) -> str:
    """Verdict of a claim from the states of its groups.

    need: "all", "majority" (more than half), "any", a whole number (exactly so many), or {"share", "within"}.
    """
    n, count = len(states), Counter(states)
    yes, unsure = count[TRUE], count[OPEN] + count[MISSING]
    if n == 0 or count[MISSING] == n:
        return UNTESTABLE
    unknown = UNTESTABLE if count[MISSING] else UNDECIDED
    if need == "all":
        return FAILS if count[FALSE] else HOLDS if yes == n else unknown
    if need == "any":
        return HOLDS if yes else unknown if unsure else FAILS
    if need == "majority":
        return HOLDS if 2 * yes > n else FAILS if 2 * (yes + unsure) <= n else unknown
    if isinstance(need, Mapping):
        if unsure:
            return unknown
        return HOLDS if abs(yes / n - need["share"]) <= need["within"] + 1e-9 else FAILS
    if yes > need or yes + unsure < need:
        return FAILS
    return HOLDS if not unsure else unknown
