"""Claims on runs of our own, with their uncertainty.

A comparison is taken seed by seed (the methods of one seed share split, weights and batch order) and tested with a
paired t-test, Holm-adjusted over the comparisons of the claim. It holds if it is significant in the claimed direction,
fails if it is significant in the other, and is open in between: five seeds seldom decide a small difference, and the
power to see the printed one says how seldom.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from bench.analysis.agreement import prediction_interval
from bench.analysis.cells import KEY, key
from bench.analysis.claims import printed, verdict
from bench.analysis.claims.ledger import Claim
from bench.analysis.claims.predicates import Comparison, Group, Key, compile_part
from bench.analysis.power import power, seeds_needed
from bench.analysis.stats import across, holm, paired_t
from bench.selectors import Cell

ALPHA = 0.05
COLUMNS = (
    *printed.COLUMNS[:-1], "seeds", "direction", "significant", "opposite", "missing", "power", "seeds_needed", "data",
)
Runs = Mapping[Key, Mapping[int, float]]  # cell -> seed -> value


@dataclass
class _Test:
    """One comparison on runs."""

    comparison: Comparison
    values: np.ndarray  # the sum of its terms, one per seed
    state: str = verdict.OPEN
    p: float = math.nan
    claimed: float = math.nan  # the same sum on the printed numbers
    absent: tuple[str, ...] = ()  # what it lacks

    @property
    def gain(self) -> float:
        """By how much the mean is on the right side of the bound."""
        c = self.comparison
        return float(self.values.mean()) - c.low if math.isinf(c.high) else c.high - float(self.values.mean())

    @property
    def one_sided(self) -> bool:
        """An order: one bound, and no quoted number."""
        c = self.comparison
        return c.quoted is None and (math.isinf(c.low) != math.isinf(c.high)) and not c.spread


def on_runs(
    claims: Iterable[Claim], results: pd.DataFrame, reported: pd.DataFrame, provenance: str = "official"
) -> pd.DataFrame:
    """One line per claim: its verdict on our runs, with what they can and cannot show.

    results: artefact, dataset, backbone, method, variant, metric, seed, value, one line per run, values in the unit the
    paper prints. reported: the printed cells, which say what a claim needs and how large an effect it names. Quoted
    numbers are only compared where `provenance` is "official": other features cannot confirm or refute them.

    Columns: k of n comparisons shown; `seeds`, the fewest behind any; `direction`, how many lie in the claimed
    direction; `significant` and `opposite` (Holm-adjusted paired t, alpha 0.05); `missing`, how many lack runs;
    `power`, the median power to see the printed difference with these seeds, and the median number of `seeds_needed`
    for 80 %.
    """
    runs: dict[Key, dict[int, float]] = {}
    for *name, seed, value in results[[*KEY, "seed", "value"]].itertuples(index=False, name=None):
        runs.setdefault(tuple(name), {})[seed] = float(value)
    printed_cells = {key(cell): cell for cell in reported.to_dict("records")}
    cells = _skeleton(runs, printed_cells)
    return pd.DataFrame([_line(c, cells, runs, printed_cells, provenance) for c in claims], columns=list(COLUMNS))


def _skeleton(runs: Runs, printed_cells: Mapping[Key, dict]) -> list[Cell]:
    """Every cell that a claim may need: those printed (but for copied rows that have a rerun) and those run."""
    keys = dict.fromkeys([*(k for k, c in printed_cells.items() if c["variant"] != "reported"), *runs])
    means = {k: float(np.mean(list(values.values()))) for k, values in runs.items()}
    return [{**dict(zip(KEY, k)), "mean": means.get(k, math.nan)} for k in keys]


def _line(claim: Claim, cells: list[Cell], runs: Runs, printed_cells: Mapping[Key, dict], provenance: str) -> dict:
    groups = [g for part in claim.parts if part.on != "reported" for g in compile_part(part, cells)]
    tests = [[_test(c, runs, printed_cells, provenance) for c in g.comparisons] for g in groups]
    every = [t for group in tests for t in group]
    _adjust(every)
    states = [verdict.of_group([t.state for t in ts], g.allowed) for g, ts in zip(groups, tests)]
    orders = [t for t in every if t.one_sided and len(t.values) > 1]
    chance, needed = _power(orders)
    return {
        **printed.head(claim), "verdict": verdict.of_claim(states, claim.need),
        "k": states.count(verdict.TRUE), "n": len(states),
        "arithmetic": _explain(groups, tests, states, orders, chance),
        "seeds": min((len(t.values) for t in every if t.state != verdict.MISSING), default=0),
        "direction": sum(t.gain > 0 for t in orders),
        "significant": sum(t.state == verdict.TRUE for t in orders),
        "opposite": sum(t.state == verdict.FALSE for t in orders),
        "missing": states.count(verdict.MISSING),
        "power": chance, "seeds_needed": needed, "data": provenance,
    }


def _test(comparison: Comparison, runs: Runs, printed_cells: Mapping[Key, dict], provenance: str) -> _Test:
    absent = tuple(filter(None, (_lack(k, runs) for k in comparison.keys)))
    if comparison.missing:
        absent = (comparison.missing,)
    elif not absent and comparison.quoted is not None and provenance != "official":
        absent = (f"the published features (data here: {provenance})",)
    if absent:
        return _Test(comparison, np.empty(0), verdict.MISSING, absent=absent)
    if comparison.spread:
        return _spread(comparison, runs)
    values = _by_seed(comparison, runs)
    claimed = math.nan
    if all(k in printed_cells for k in comparison.keys):
        claimed = printed.total(comparison, printed_cells)[0]
    test = _Test(comparison, values, claimed=claimed)
    if len(values) < 2:
        return test
    if values.std() <= 1e-12 * max(1.0, float(np.abs(values).max())):  # a size or a cost: the same in every run
        test.state = verdict.TRUE if _inside(comparison, float(values.mean())) else verdict.FALSE
    elif test.one_sided:
        bound = comparison.low if math.isinf(comparison.high) else comparison.high
        test.p = float(paired_t(values - bound)[1])
    else:
        test.state = _range(comparison, values, _runs_behind(comparison, printed_cells))
    return test


def _lack(key: Key, runs: Runs) -> str:
    """What is wrong with a cell's runs, if anything. One undefined value makes the cell undefined."""
    name = " ".join(filter(None, key))
    if key not in runs:
        return name
    return "" if all(map(math.isfinite, runs[key].values())) else f"{name} (a run without a finite value)"


def _by_seed(comparison: Comparison, runs: Runs) -> np.ndarray:
    """The sum of the terms for every seed that all of them have."""
    keys = comparison.keys
    seeds = [s for s in runs[keys[0]] if all(s in runs[k] for k in keys)] if keys else [0]
    table = np.array([[t.constant if t.key is None else runs[t.key][s] for t in comparison.terms] for s in seeds])
    table = table.reshape(len(seeds), len(comparison.terms))  # (seeds, terms)
    if comparison.percent:
        return 100 * (table[:, 0] - table[:, 1]) / table[:, 1]
    return table @ np.array([t.weight for t in comparison.terms])


def _inside(comparison: Comparison, x: float) -> bool:
    low, high = comparison.low, comparison.high
    return low < x < high if comparison.strict else low <= x <= high


def _adjust(tests: Sequence[_Test]) -> None:
    """Holm over all orders of the claim, then their states."""
    open_ = [t for t in tests if not math.isnan(t.p)]
    for test, p in zip(open_, holm([t.p for t in open_]) if open_ else ()):
        test.p = float(p)
        test.state = verdict.OPEN if p >= ALPHA else verdict.TRUE if test.gain > 0 else verdict.FALSE


def _range(comparison: Comparison, values: np.ndarray, reported_runs: int | None) -> str:
    """A quoted number against the prediction interval of the paper's mean; a range against the interval of ours."""
    n, mean = len(values), float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(n)
    if comparison.quoted is not None:
        interval = prediction_interval(values, reported_runs)
        if comparison.high < interval.low or comparison.low > interval.high:
            return verdict.FALSE
        p = 2 * stats.t.sf(abs(mean) / error, n - 1)  # the interval holds the number; does it also hold zero?
        return verdict.TRUE if p < ALPHA and mean * comparison.quoted > 0 else verdict.OPEN
    inner, outer = (stats.t.ppf(1 - a, n - 1) * error for a in (ALPHA, ALPHA / 2))  # two one-sided tests; 95 % interval
    if comparison.low <= mean - inner and mean + inner <= comparison.high:
        return verdict.TRUE
    return verdict.FALSE if mean + outer < comparison.low or mean - outer > comparison.high else verdict.OPEN


def _runs_behind(comparison: Comparison, printed_cells: Mapping[Key, dict]) -> int | None:
    stated = [printed_cells[k]["n"] for k in comparison.keys if k in printed_cells]
    return int(min(stated)) if stated and not any(pd.isna(n) for n in stated) else None


def _spread(comparison: Comparison, runs: Runs) -> _Test:
    """Is the second cell's spread at most the first's? F test of the two variances."""
    wide, narrow = (np.array(list(runs[k].values())) for k in comparison.keys)
    test = _Test(comparison, np.array([wide.std() - narrow.std()] * min(len(wide), len(narrow))))
    if min(len(wide), len(narrow)) > 1 and wide.var() > 0 and narrow.var() > 0:
        ratio = wide.var(ddof=1) / narrow.var(ddof=1)
        tail = stats.f.sf(ratio, len(wide) - 1, len(narrow) - 1)
        test.state = verdict.TRUE if tail < ALPHA / 2 else verdict.FALSE if tail > 1 - ALPHA / 2 else verdict.OPEN
    return test


def _power(orders: list[_Test]) -> tuple[float, float]:
    """Median power to see the printed differences, and the seeds it takes for 80 %: those of the median effect size."""
    known = []
    for t in orders:
        effect, sd = t.claimed - t.comparison.low, float(t.values.std(ddof=1))
        if effect > 0 and math.isfinite(effect) and sd > 0:
            known.append((effect / sd, len(t.values)))
    if not known:
        return math.nan, math.nan
    d_z, n = np.median(known, axis=0)
    return power(float(d_z), 1.0, int(n)), seeds_needed(float(d_z), 1.0)


def _explain(
    groups: list[Group], tests: list[list[_Test]], states: list[str], orders: list[_Test], chance: float
) -> str:
    words = [f"{states.count(verdict.TRUE)} of {len(states)} shown"]
    if orders:
        right = sum(t.gain > 0 for t in orders)
        count = {s: sum(t.state == s for t in orders) for s in (verdict.TRUE, verdict.FALSE)}
        words.append(f"{right} of {len(orders)} differences in the claimed direction, "
                     f"{count[verdict.TRUE]} significant, {count[verdict.FALSE]} significantly opposite")
    if len(orders) > 5:
        whole = across([t.gain for t in orders])
        words.append(f"over the cells mean {whole.mean:+.3g}, Wilcoxon p = {whole.p:.2g}")
    if not math.isnan(chance):
        words.append(f"median power {chance:.2f} to see the printed differences")
    against = [g.label for g, s in zip(groups, states) if s == verdict.FALSE]
    if against:
        words.append("against it: " + "; ".join(against[:6]))
    missing = list(dict.fromkeys(name for group in tests for t in group for name in t.absent))
    if missing:
        more = f" and {len(missing) - 6} more" if len(missing) > 6 else ""
        words.append(f"missing: {'; '.join(missing[:6])}{more}")
    return ". ".join(words)
