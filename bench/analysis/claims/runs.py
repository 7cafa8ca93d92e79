"""Claims on runs of our own: what they show, and what they cannot.

Every comparison has a p-value that it holds and one that its contrary does (evidence.py). "Reproduced" needs the partial
conjunction of what the claim needs to be significant, "contradicted" that of its contrary (verdict.conjunction), each at
half of ALPHA: whatever the dependence between metrics, rows and tables, a claim gets a wrong verdict in less than 5 % of
results folders (benchmarks/null_claims.py measures it). A claim that all comparisons hold is also contradicted where the mean
gain over independent units is negative, because it cannot be if all of them hold; then either way has half the level.
What was not run leaves a claim untested in part: it may be contradicted by the rest, but not reproduced in full.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from bench.analysis.agreement import USUAL_RUNS
from bench.analysis.cells import KEY, by_key, cell_words, metric_words, scale
from bench.analysis.claims import printed, verdict
from bench.analysis.claims.evidence import Evidence, Pooled, evidence, gains, pooled
from bench.analysis.claims.ledger import Claim
from bench.analysis.claims.predicates import Comparison, Group, Key, compile_part
from bench.analysis.claims.verdict import ALPHA, conjunction, shown
from bench.analysis.power import power, seeds_needed
from bench.plural import count
from bench.provenance import COMPARABLE, weakest
from bench.selectors import Cell

COLUMNS = (
    *printed.COLUMNS[:-1], "tested", "evidence", "seeds", "direction", "significant", "opposite", "missing", "units",
    "mean_gain", "pooled_p", "power", "seeds_needed", "data",
)


@dataclass(frozen=True)
class Testable:
    """A claim compiled for a set of cells: the groups that runs can say something about."""

    claim: Claim
    groups: tuple[Group, ...]
    same: int  # groups left out because both sides are one training

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        return tuple(c for g in self.groups for c in g.comparisons)


@dataclass(frozen=True)
class Judged:
    """Verdicts of one claim in S sets of runs."""

    state: np.ndarray  # [S] of verdict.STATES
    k: np.ndarray  # [S] groups shown
    against: np.ndarray  # [S, G] groups whose contrary is shown
    tested: int  # groups that were tested, all or in part
    missing: int  # groups that lack runs
    pooled: Pooled | None


def on_runs(
    claims: Iterable[Claim], results: pd.DataFrame, reported: pd.DataFrame, provenance: str = "official"
) -> pd.DataFrame:
    """One line per claim: its verdict on our runs, with what they can and cannot show.

    results: artefact, dataset, backbone, method, variant, metric, seed, value (accuracies as fractions), one line per
    run; `config` (which training it is), `point` (at which of its points it was evaluated) and `provenance` (of its data)
    where they are known, else every row is a training of its own and `provenance` holds for all. reported: the printed cells, which say what a claim needs and how
    large an effect it names. Quoted numbers are only compared where every cell of the comparison comes from published
    files: other features cannot confirm or refute them.

    Columns: `verdict` (verdict.STATES), k of n comparisons shown, `tested` of them; `evidence`, False where a claim
    compares a training with itself and so says nothing about it; `seeds`, the fewest behind any comparison; `direction`,
    how many differences lie in the claimed direction; `significant` and `opposite`, how many are shown one by one
    (Holm); `missing`, how many comparisons lack runs; `mean_gain` over `units` independent units with its two-sided
    `pooled_p`; `power`, the median power to see the printed difference at the first of Holm's levels, and the median
    number of `seeds_needed` for 80 %; `data`, the weakest provenance among the cells used.
    """
    runs = _Runs(results, provenance)
    printed_cells = by_key(reported.to_dict("records"))
    cells = _skeleton(runs.row, printed_cells)
    lines = []
    for claim in claims:
        lines.append(_line(compiled(claim, cells, runs.source), runs, printed_cells))
    return pd.DataFrame(lines, columns=list(COLUMNS))


class _Runs:
    """Runs as an array [1, cells, seeds], with what is known of each cell."""

    def __init__(self, results: pd.DataFrame, provenance: str) -> None:
        keys = list(results[list(KEY)].itertuples(index=False, name=None))
        self.row: dict[Key, int] = {k: i for i, k in enumerate(dict.fromkeys(keys))}
        column = {s: j for j, s in enumerate(dict.fromkeys(results["seed"]))}
        at = [self.row[k] for k in keys], [column[s] for s in results["seed"]]
        self.values = np.full((1, len(self.row), max(len(column), 1)), np.nan)
        self.values[0][at] = results["value"].to_numpy(dtype=float)
        bad = ~np.isfinite(results["value"].to_numpy(dtype=float))
        self.diverged = {keys[i] for i in np.flatnonzero(bad)}  # one undefined value makes the cell undefined
        of = results["config"] if "config" in results else ["/".join(k[:-1]) for k in keys]
        self.training: dict[Key, str] = dict(zip(keys, of))
        points = results["point"] if "point" in results else [""] * len(keys)
        self.source: dict[Key, tuple[str, ...]] = {k: (c, p, k[-1]) for k, c, p in zip(keys, of, points)}
        kinds: dict[Key, set[str]] = {}
        for k, kind in zip(keys, results["provenance"] if "provenance" in results else [provenance] * len(keys)):
            kinds.setdefault(k, set()).add(kind)
        self.kind: dict[Key, str] = {k: weakest(v) for k, v in kinds.items()}

    def lack(self, c: Comparison) -> list[Key | str]:
        """What a comparison would need and has not: cells, or words."""
        if c.missing:
            return [c.missing]
        absent: list[Key | str] = [k for k in c.keys if k not in self.row]
        absent += [f"a finite value in every run of {cell_words(k)}" for k in c.keys if k in self.diverged]
        if not absent and c.quoted is not None and (kind := weakest(self.kind[k] for k in c.keys)) not in COMPARABLE:
            absent = [f"the published features (data here: {kind})"]
        return absent


def compiled(claim: Claim, cells: Sequence[Cell], source: Mapping[Key, tuple[str, ...]]) -> Testable:
    """The groups of a claim, without those that compare a training with itself. source: cell -> training, point, metric."""
    groups = [g for part in claim.parts if part.on != "reported" for g in compile_part(part, cells, runs=True)]
    kept = tuple(g for g in groups if not all(_tautology(c, source) for c in g.comparisons))
    return Testable(claim, kept, len(groups) - len(kept))


def _tautology(c: Comparison, source: Mapping[Key, tuple[str, ...]]) -> bool:
    """Whether everything cancels: the same metric of the same training on both sides."""
    if c.missing or c.spread or any(t.key is None or t.key not in source for t in c.terms):
        return False
    weights: dict[tuple[str, ...], float] = {}
    for t in c.terms:
        weights[source[t.key]] = weights.get(source[t.key], 0.0) + t.weight
    return all(abs(w) < 1e-9 for w in weights.values())


def _skeleton(row: Mapping[Key, int], printed_cells: Mapping[Key, dict]) -> list[Cell]:
    """Every cell that a claim may need: those printed (but for copied rows that have a rerun) and those run."""
    keys = dict.fromkeys([*(k for k, c in printed_cells.items() if c["variant"] != "reported"), *row])
    return [dict(zip(KEY, k)) for k in keys]


def judge(t: Testable, found: Evidence, there: Sequence[bool], training: Mapping[Key, str]) -> Judged:
    """The verdict of a claim in every set of runs. there: which comparisons have all they need."""
    there, sets = np.asarray(there, dtype=bool), len(found.n)
    ends = np.cumsum([len(g.comparisons) for g in t.groups])
    holds, contrary, tested, whole = [], [], [], []
    for group, end in zip(t.groups, ends):
        mine = np.arange(end - len(group.comparisons), end)
        have = mine[there[mine]]
        holds.append(conjunction(found.holds[:, have], len(mine) - group.allowed))
        contrary.append(conjunction(found.contrary[:, have], group.allowed + 1))
        tested.append(bool(found.tested[:, have].any()))
        whole.append(len(have) == len(mine))
    n, used = len(t.groups), np.flatnonzero(tested)
    blank = np.full(sets, verdict.UNTESTABLE if not any(there) else verdict.UNDECIDED, dtype=object)
    missing = n - sum(whole)
    if not len(used):
        return Judged(blank, np.zeros(sets, dtype=int), np.zeros((sets, n), dtype=bool), 0, missing, None)
    p_holds, p_contrary = np.stack(holds, -1)[:, used], np.stack(contrary, -1)[:, used]  # (S, tested)
    yes, no = shown(p_holds), shown(p_contrary)
    against = np.zeros((sets, n), dtype=bool)
    against[:, used] = no
    need, half = t.claim.need, ALPHA / 2
    if isinstance(need, Mapping):
        bounds = zip(yes.sum(-1), n - no.sum(-1))  # how many groups hold at least and at most
        state = np.array([verdict.of_share(least, most, n, need) for least, most in bounds], dtype=object)
        return Judged(state, yes.sum(-1), against, len(used), missing, None)
    least, over = verdict.needed(need, n), None
    p_yes, p_no = conjunction(p_holds, least), conjunction(p_contrary, n - least + 1)
    if need == "all" and all(g.allowed == 0 for g in t.groups):
        over = pooled([c for c, ok in zip(t.comparisons, there) if ok], _only(found, there), training)
        if over is not None and there.sum() > 1:
            p_no = np.minimum(1.0, 2 * np.minimum(p_no, over.below))
    every = conjunction(p_holds, len(used)) <= half  # all that was tested holds
    k = np.where(every & (need == "all"), len(used), yes.sum(-1))
    most = (k > 0) & (2 * k >= len(used))
    state = np.full(sets, verdict.UNDECIDED, dtype=object)
    state[most] = verdict.PARTLY
    state[p_yes <= half] = verdict.REPRODUCED
    wrong = p_no <= half
    state[wrong & ~most] = verdict.CONTRADICTED
    state[wrong & most] = verdict.PARTLY
    return Judged(state, k, against, len(used), missing, over)


def _only(found: Evidence, there: np.ndarray) -> Evidence:
    return Evidence(*(x[:, there] for x in (found.sums, found.n, found.holds, found.contrary, found.tested)))


def _line(t: Testable, runs: _Runs, printed_cells: Mapping[Key, dict]) -> dict:
    comparisons = t.comparisons
    lacks = [runs.lack(c) for c in comparisons]
    there = np.array([not lack for lack in lacks], dtype=bool)
    stated = [_runs_behind(c, printed_cells) for c in comparisons]
    found = evidence(comparisons, runs.row, runs.values, [n or USUAL_RUNS for n in stated])
    j = judge(t, found, there, runs.training)
    orders = [i for i, c in enumerate(comparisons) if there[i] and c.order and found.n[0, i] > 1]
    right = sum(float(np.nanmean(gains(comparisons[i], found.sums[0, i]))) > 0 for i in orders)
    yes = shown(found.holds[:, orders])[0] if orders else np.zeros(0, dtype=bool)
    no = shown(found.contrary[:, orders])[0] if orders else np.zeros(0, dtype=bool)
    chance, wanted = _power(comparisons, orders, found, printed_cells, max(j.tested, 1))
    state, n = str(j.state[0]), len(t.groups)
    useful = n > 0 and (t.claim.form != "cross-check" or j.tested > 0) or not t.same and t.claim.form != "cross-check"
    if not n:
        state = verdict.UNTESTABLE
    assumed = any(c.quoted is not None and there[i] and not stated[i] for i, c in enumerate(comparisons))
    facts = {
        "tested": j.tested, "evidence": useful, "seeds": int(min(found.n[0][there], default=0)), "direction": right,
        "significant": int(yes.sum()), "opposite": int(no.sum()), "missing": j.missing,
        "units": j.pooled.units if j.pooled else 0, "mean_gain": float(j.pooled.mean[0]) if j.pooled else math.nan,
        "pooled_p": _two_sided(j.pooled) if j.pooled else math.nan, "power": chance, "seeds_needed": wanted,
        "data": weakest(runs.kind[k] for i, c in enumerate(comparisons) if there[i] for k in c.keys),
    }
    words = _explain(t, j, facts, len(orders), lacks, assumed)
    return {**printed.head(t.claim), "verdict": state, "k": int(j.k[0]), "n": n, "arithmetic": words, **facts}


def _two_sided(p: Pooled) -> float:
    return float(min(1.0, 2 * min(p.below[0], p.above[0])))


def _runs_behind(comparison: Comparison, printed_cells: Mapping[Key, dict]) -> int | None:
    stated = [printed_cells[k]["n"] for k in comparison.keys if k in printed_cells]
    return int(min(stated)) if stated and not any(pd.isna(n) for n in stated) else None


def _power(
    comparisons: Sequence[Comparison], orders: Sequence[int], found: Evidence, printed_cells: Mapping[Key, dict], m: int
) -> tuple[float, float]:
    """Median power to see the printed differences one by one, and the seeds it takes for 80 %, at the first of Holm's
    levels over m comparisons: those of the median effect size."""
    known = []
    for i in orders:
        c = comparisons[i]
        if not all(k in printed_cells for k in c.keys) or any(t.choices for t in c.terms):
            continue
        effect = float(gains(c, np.array(printed.total(c, printed_cells)[0])))
        sd = float(np.nanstd(found.sums[0, i], ddof=1))
        if effect > 0 and math.isfinite(effect) and sd > 1e-12:
            known.append((effect / sd, found.n[0, i]))
    if not known:
        return math.nan, math.nan
    d_z, n = np.median(known, axis=0)
    return power(float(d_z), 1.0, int(n), ALPHA / m), seeds_needed(float(d_z), 1.0, alpha=ALPHA / m)


def _explain(
    t: Testable, j: Judged, facts: Mapping, orders: int, lacks: Sequence[list[Key | str]], assumed: bool
) -> str:
    words = []
    n = len(t.groups)
    if not facts["evidence"]:
        return "Both sides are the same training: it checks the printed numbers and says nothing about runs."
    words.append(f"Tested {j.tested} of {count(n, 'cell')}, {int(j.k[0])} shown")
    if orders:
        words.append(
            f"{facts['direction']} of {count(orders, 'difference lies', 'differences lie')} in the claimed direction, {facts['significant']} "
            f"significantly, {facts['opposite']} significantly in the other"
        )
    if j.pooled and orders > 1:
        p, metrics = facts["pooled_p"], " and ".join(map(metric_words, j.pooled.metrics))
        unit = " points" if all(scale(m) != 1 for m in j.pooled.metrics) else ""
        units = f"{count(j.pooled.units, 'independent unit')} (dataset and backbone, seeds inside)"
        bounded = any(c.order and (c.low if math.isinf(c.high) else c.high) for c in t.comparisons)
        what = "mean distance beyond the bound that the claim sets" if bounded else "mean gain"
        words.append(f"Over {units} the {what} in {metrics} is {facts['mean_gain']:+.3g}{unit}, p = {p:.2g}")
    if not math.isnan(facts["power"]):
        words.append(
            f"The power to see the printed differences is {facts['power']:.2g} (median, at Holm's first level)"
        )
    if assumed:
        words.append(f"The paper does not say of how many runs its number is the mean: read as {USUAL_RUNS}")
    if against := [g.label for g, no in zip(t.groups, j.against[0]) if no]:
        words.append("Against it: " + "; ".join(against[:6]))
    if t.same:
        words.append(f"{count(t.same, 'comparison')} of a training with itself left out")
    if missing := list(dict.fromkeys(name for lack in lacks for name in lack)):
        words.append(f"Missing: {_missing(missing)}")
    return ". ".join(words) + "."


def _missing(lacks: Sequence[Key | str]) -> str:
    """The cells that are not there: each by name, or many counted by table, system and dataset."""
    if len(lacks) <= 3:
        return "; ".join(k if isinstance(k, str) else cell_words(k) for k in lacks)
    counted: dict[str, int] = {}
    for k in lacks:
        if not isinstance(k, str):
            cell = dict(zip(KEY, k))
            system = cell["backbone"] or cell["method"] or cell["variant"]
            where = f"{system} on {cell['dataset'].upper()} ({cell['artefact']})"
            counted[where] = counted.get(where, 0) + 1
    said = [f"{count(n, 'number')} of {where}" for where, n in counted.items()] + [k for k in lacks if isinstance(k, str)]
    return "; ".join(said[:4]) + (f" and {len(said) - 4} more of this kind" if len(said) > 4 else "")
