"""What a search of hyperparameters shows: expected validation performance against budget, and the gain of tuning.

Sees numbers only. Values are oriented by the caller's `lower_is_better`.
"""

from collections.abc import Sequence

import numpy as np


def expected_best(values: Sequence[float], lower_is_better: bool = True) -> np.ndarray:
    """Expected best validation value of n trials drawn from those seen, n = 1 .. N: [N].

    Dodge, Gururangan, Card, Schwartz and Smith, "Show Your Work" (EMNLP 2019), Eq. 4: under the empirical distribution
    of N values, P(best of n <= v) = F(v)^n, so the expectation is the sum over sorted values of
    v_(i) [(i/N)^n - ((i-1)/N)^n]. It treats trials as independent draws, which only a random search gives; for TPE it
    says what as many random draws from the visited settings would have given. Raises ValueError for no value.
    """
    v = np.asarray(values, dtype=float)
    if not len(v) or not np.isfinite(v).all():
        raise ValueError("expected_best needs finite values, one a trial")
    v = np.sort(v)[::-1] if lower_is_better else np.sort(v)  # the best last
    i, n = np.arange(1, len(v) + 1) / len(v), np.arange(1, len(v) + 1)[:, None]
    weights = i**n - (i - 1 / len(v)) ** n  # (n, i)
    return weights @ v
