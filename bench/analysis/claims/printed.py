"""Claims on the numbers that the papers print."""

import math
from collections.abc import Iterable, Mapping

import pandas as pd
from scipy import stats

from bench.analysis.cells import by_key
from bench.analysis.claims import verdict
from bench.analysis.claims.ledger import Claim
from bench.analysis.claims.predicates import Comparison, Group, Key, compile_part

ALPHA = 0.05
_EPS = 1e-9
COLUMNS = ("id", "paper", "where", "form", "says", "verdict", "k", "n", "arithmetic", "note", "cells")


def on_reported(claims: Iterable[Claim], reported: pd.DataFrame) -> pd.DataFrame:
    """One line per claim: its verdict on the printed numbers, k of n, and the arithmetic.

    reported: as bench.analysis.reported.load gives it. Ties are not "better" unless the claim allows them. "untestable"
    where a needed number is not printed; "undecided" where rounding hides whether a quoted difference is met.
    `cells` names the cells of the comparisons that do not hold, joined with "; ".
    """
    cells = by_key(reported.to_dict("records"))
    return pd.DataFrame([_line(claim, cells) for claim in claims], columns=list(COLUMNS))


def _line(claim: Claim, cells: Mapping[Key, dict]) -> dict:
    every = list(cells.values())
    groups = [g for part in claim.parts if part.on != "runs" for g in compile_part(part, every)]
    if not groups:
        nothing = {"verdict": verdict.UNTESTABLE, "k": 0, "n": 0, "arithmetic": "no printed number says it"}
        return {**head(claim), **nothing, "cells": ""}
    judged = [(g, [judge(c, cells) for c in g.comparisons]) for g in groups]
    states = [verdict.of_group(s, g.allowed) for g, s in judged]
    off = [(g, s) for (g, s), state in zip(judged, states) if state != verdict.TRUE]
    keys = dict.fromkeys(k for g, s in off for c, one in zip(g.comparisons, s) if one != verdict.TRUE for k in c.keys)
    k = states.count(verdict.TRUE)
    return {
        **head(claim), "verdict": verdict.of_claim(states, claim.need), "k": k, "n": len(states),
        "arithmetic": f"{k} of {len(states)}" + (": not " if off else "") + _explain(off, cells),
        "cells": "; ".join(cells[k].get("cell_id", "/".join(k)) for k in keys if k in cells),
    }


def head(claim: Claim) -> dict:
    """The columns that only the ledger fills."""
    return {"id": claim.id, "paper": claim.paper, "where": claim.where, "form": claim.form, "says": claim.says,
            "note": claim.note}


def judge(comparison: Comparison, cells: Mapping[Key, dict]) -> str:
    """State of one comparison on printed cells (cells.by_key)."""
    if comparison.missing or any(k not in cells for k in comparison.keys):
        return verdict.MISSING
    used = [cells[k] for k in comparison.keys]
    if comparison.spread and any(math.isnan(c["std"]) for c in used):
        return verdict.MISSING
    x, slack = total(comparison, cells)
    low, high = comparison.low, comparison.high
    allowed = slack if comparison.rounding else 0.0
    inside = low + _EPS < x < high - _EPS if comparison.strict else low - allowed - _EPS <= x <= high + allowed + _EPS
    if inside and comparison.test:
        return verdict.TRUE if welch(*used) < ALPHA else verdict.FALSE
    if inside:
        return verdict.TRUE
    if not comparison.exact and x + slack >= low and x - slack <= high:
        return verdict.OPEN  # rounding of the cells could make up for it
    return verdict.FALSE


def total(comparison: Comparison, cells: Mapping[Key, dict]) -> tuple[float, float]:
    """(sum of the terms on printed numbers, half-width that rounding of the cells leaves open)."""
    field, half = ("std", "std_half") if comparison.spread else ("mean", "half")
    values = [t.constant if t.key is None else cells[t.key][field] for t in comparison.terms]
    halves = [0.0 if t.key is None else cells[t.key][half] for t in comparison.terms]
    if comparison.percent:
        (a, b, *printed_change), (da, db, *dc) = values, halves
        corners = [100 * (x - y) / y for x in (a - da, a + da) for y in (b - db, b + db)]
        return 100 * (a - b) / b - sum(printed_change), (max(corners) - min(corners)) / 2 + sum(dc)
    weights = [t.weight for t in comparison.terms]
    return sum(w * v for w, v in zip(weights, values)), sum(abs(w) * h for w, h in zip(weights, halves))


def welch(a: Mapping, b: Mapping) -> float:
    """Two-sided Welch p from printed means, std (read as ddof = 1) and n; NaN where one is not printed."""
    if any(math.isnan(c["std"]) or pd.isna(c["n"]) for c in (a, b)):
        return math.nan
    return float(stats.ttest_ind_from_stats(
        a["mean"], a["std"], int(a["n"]), b["mean"], b["std"], int(b["n"]), equal_var=False
    ).pvalue)


def _explain(off: list[tuple[Group, list[str]]], cells: Mapping[Key, dict], at_most: int = 12) -> str:
    words = []
    for group, states in off[:at_most]:
        failing = [(c, s) for c, s in zip(group.comparisons, states) if s != verdict.TRUE]
        comparison, state = min(failing, key=lambda f: math.inf if f[1] == verdict.MISSING else total(f[0], cells)[0])
        words.append(f"{group.label} ({_numbers(comparison, state, len(failing), cells)})")
    return "; ".join(words) + (f"; and {len(off) - at_most} more" if len(off) > at_most else "")


def _numbers(comparison: Comparison, state: str, failing: int, cells: Mapping[Key, dict]) -> str:
    if state == verdict.MISSING:
        return comparison.missing or "not printed"
    text = "std_text" if comparison.spread else "mean_text"
    terms = comparison.terms[::-1] if comparison.swapped else comparison.terms[:4]
    unit = comparison.scale
    shown = " against ".join(f"{t.constant / unit:g}" if t.key is None else cells[t.key][text] for t in terms)
    if comparison.rounding:
        *_, change = (cells[k][text] for k in comparison.keys)
        return f"computed {total(comparison, cells)[0] + float(change):+.2f} %, printed {change}"
    if comparison.quoted is not None or comparison.percent:
        x, _ = total(comparison, cells)
        wanted = f"[{comparison.low / unit:g}, {comparison.high / unit:g}]"
        if comparison.quoted is not None:
            wanted = f"{comparison.quoted / unit:g}"
        shown += f": {x / unit:.4g}, the text says {wanted}"
    if comparison.test:
        shown += f", p = {welch(*(cells[k] for k in comparison.keys)):.3f}"
    more = f", {failing} rows are better" if failing > 1 else ""
    return shown + (" (tie)" if comparison.quoted is None and abs(total(comparison, cells)[0]) < _EPS else "") + more \
        + (", rounding leaves it open" if state == verdict.OPEN else "")
