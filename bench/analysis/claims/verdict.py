"""From comparisons to a verdict.

On printed numbers a comparison is true, false, or cannot be told ("cannot tell" is never counted as "no"). On runs it
has two p-values, one that it holds and one that its contrary does, and "k of n" is a partial conjunction of them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

TRUE, FALSE, OPEN, MISSING = "true", "false", "open", "missing"
HOLDS, FAILS, UNDECIDED, UNTESTABLE = "holds", "fails", "undecided", "untestable"
VERDICTS = (HOLDS, FAILS, UNDECIDED, UNTESTABLE)  # on printed numbers
REPRODUCED, PARTLY, CONTRADICTED = "reproduced", "partly reproduced", "contradicted"
STATES = (REPRODUCED, PARTLY, CONTRADICTED, UNDECIDED, UNTESTABLE)  # on runs
# Chance of a wrong verdict on runs, half for "reproduced" and half for "contradicted". Below the field's 5 %, because
# accuracies are whole numbers of items and not normal: so 5 % is kept, not only aimed at (benchmarks/null_claims.json).
ALPHA = 0.04


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

    need: "all", "majority" (more than half), "any", a whole number (at least so many), or {"share", "within"}.
    """
    n, count = len(states), Counter(states)
    yes, unsure = count[TRUE], count[OPEN] + count[MISSING]
    if n == 0 or count[MISSING] == n:
        return UNTESTABLE
    unknown = UNTESTABLE if count[MISSING] else UNDECIDED
    if isinstance(need, Mapping):
        if unsure:
            return unknown
        return HOLDS if share_met(yes / n, need) else FAILS
    least = needed(need, n)
    return HOLDS if yes >= least else FAILS if yes + unsure < least else unknown


def needed(need: Any, n: int) -> int:
    """How many of n groups must hold at least."""
    return {"all": n, "any": 1, "majority": n // 2 + 1}.get(need, need)


def of_share(least: int, most: int, n: int, need: Mapping[str, float]) -> str:
    """Verdict on runs of "so large a share holds", when at least `least` and at most `most` of n groups are known to."""
    met = [share_met(k / n, need) for k in range(least, most + 1)]
    return REPRODUCED if all(met) else UNDECIDED if any(met) else CONTRADICTED


def share_met(share: float, need: Mapping[str, float]) -> bool:
    return abs(share - need["share"]) <= need["within"] + 1e-9


def conjunction(p: ArrayLike, k: int) -> NDArray[np.float64]:
    """p-value of "at least k of these c statements are true" (Benjamini & Heller 2008, with Bonferroni's bound: valid
    under any dependence): (c - k + 1) times the k-th smallest. k = c is the largest p, the intersection-union test, which
    needs no correction; k = 1 is Bonferroni's. 1 where k > c, 0 where k < 1. p: [..., c]. Returns [...]."""
    p = np.asarray(p, dtype=float)
    c = p.shape[-1]
    if k < 1 or k > c:
        return np.full(p.shape[:-1], float(k > c))
    return np.minimum(1.0, (c - k + 1) * np.sort(p, axis=-1)[..., k - 1])


def shown(p: ArrayLike, level: float = ALPHA / 2) -> NDArray[np.bool_]:
    """Which of some statements are shown one by one, with Holm's guard over all of them. p: [..., c] -> [..., c]."""
    p = np.asarray(p, dtype=float)
    c = p.shape[-1]
    order = np.argsort(p, axis=-1, kind="stable")
    steps = np.maximum.accumulate(np.take_along_axis(p, order, -1) * (c - np.arange(c)), axis=-1)
    found = np.empty(p.shape, dtype=bool)
    np.put_along_axis(found, order, steps <= level, axis=-1)
    return found
