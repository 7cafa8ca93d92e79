"""How many seeds a claim needs: power of the two-sided paired t-test.

Under a true mean difference `effect` and a standard deviation `sd` of the paired differences, the t statistic of n
seeds is noncentral t with n - 1 degrees of freedom and noncentrality effect / sd * sqrt(n) (Cohen 1988, Ch. 2), so
power = P(|T| > t_{n-1, 1 - alpha/2}) exactly. sd is best estimated in another experiment than the one being planned;
one estimated from five seeds is itself uncertain by a factor between 0.6 and 2.9 (95 %).
"""

import math

from scipy import stats

_MOST = 10**6  # seeds; nobody runs more


def power(effect: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Chance that n seeds give p < alpha. NaN if effect or sd is not finite, sd is not positive or n < 2."""
    if not _usable(effect, sd) or n < 2:
        return math.nan
    return _power(abs(effect) / sd, n, alpha)


def seeds_needed(effect: float, sd: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest number of seeds (at least 2) that reaches `power`, as a float.

    inf if a million are not enough (an effect of 0), NaN if effect or sd is not finite or sd is not positive.
    """
    if not _usable(effect, sd):
        return math.nan
    d_z = abs(effect) / sd
    high = 2
    while _power(d_z, high, alpha) < power:
        high *= 2
        if high > _MOST:
            return math.inf
    low = high // 2  # too few (or 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(d_z, middle, alpha) >= power else (middle, high)
    return float(high)


def _usable(effect: float, sd: float) -> bool:
    return math.isfinite(effect) and math.isfinite(sd) and sd > 0


def _power(d_z: float, n: int, alpha: float) -> float:
    critical = stats.t.ppf(1 - alpha / 2, n - 1)
    shift = d_z * math.sqrt(n)
    if shift > 10 * (critical + 1):  # missing it is less probable than 1e-20, and scipy's series stops converging
        return 1.0
    right = stats.nct.sf(critical, n - 1, shift)
    wrong = stats.nct.cdf(-critical, n - 1, shift)  # significant in the wrong direction; NaN where it is below 1e-15
    return float(right if math.isnan(wrong) else right + wrong)
