"""Significance: the spread that printed p-values need, and the significance that printed spreads allow."""

import math
from collections.abc import Iterator
from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

from bench.analysis.audit.finding import Finding, some
from bench.analysis.audit.testsets import samples
from bench.analysis.cells import ACCURACY, label
from bench.analysis.claims.ledger import FOLDER, document
from bench.analysis.claims.printed import welch
from bench.metrics import higher_is_better

_P = "_p_value"
_TIGHT = 2.5  # times narrower than the same metric needs elsewhere in the table
ALPHA = 0.05


def check(frame: pd.DataFrame) -> Iterator[Finding]:
    needed = implied_spread(frame)
    if len(needed):
        yield from _tight(needed)
        yield from _bold_but_not_significant(needed, frame)
    yield from _leads(frame)


def implied_spread(frame: pd.DataFrame) -> pd.DataFrame:
    """The std of the paired difference behind each printed p: |difference| sqrt(n) / t with t from p and n - 1.

    Which rows a p compares is declared in experiments/claims/quotes.toml, [[test]]. Columns: artefact, dataset, metric,
    other, difference, p, n, spread, samples (the spread in test samples; NaN for errors and correlations), cell_id and
    winner (the cell id of the proposed system's mean).
    """
    lines = []
    for test in document(FOLDER / "quotes.toml").get("test", []):
        ps = frame[frame["artefact"] == test["artefact"]]
        means = frame[frame["artefact"].isin(test["means"]) & (frame["variant"] == "")]
        means = means.set_index(["dataset", "method", "metric"])
        for _, p in ps.iterrows():
            metric, other = p["metric"].removesuffix(_P), test["rows"][p["method"]].get(p["dataset"])
            keys = [(p["dataset"], system, metric) for system in (test["against"], other)]
            if any(k not in means.index for k in keys):
                continue
            ours, theirs = (means.loc[k] for k in keys)
            n, gap = int(p["n"]), ours["mean"] - theirs["mean"]
            spread = abs(gap) * math.sqrt(n) / stats.t.isf(p["mean"] / 2, n - 1)
            size = samples(p["dataset"], metric) if metric in ACCURACY else None
            lines.append({
                "artefact": test["artefact"], "dataset": p["dataset"], "metric": metric, "other": other,
                "difference": round(gap, 6), "p": p["mean"], "n": n, "spread": spread,
                "samples": spread * size / 100 if size else math.nan, "cell_id": p["cell_id"],
                "winner": ours["cell_id"],
            })
    return pd.DataFrame(lines)


def _tight(needed: pd.DataFrame) -> Iterator[Finding]:
    for (artefact, dataset, metric), rows in needed.groupby(["artefact", "dataset", "metric"], sort=False):
        narrow, wide = rows.loc[rows["spread"].idxmin()], rows.loc[rows["spread"].idxmax()]
        if narrow["spread"] * _TIGHT > wide["spread"]:
            continue
        in_samples = f" ({narrow['samples']:.1f} test samples)" if not math.isnan(narrow["samples"]) else ""
        yield Finding(
            check="p-value", level="implausible", artefact=artefact, cells=(narrow["cell_id"], wide["cell_id"]),
            printed=f"p = {narrow['p']:g} for a difference of {narrow['difference']:+g}",
            expected=f"a paired std near {wide['spread']:.3g}, as against {wide['other']}",
            arithmetic=f"{dataset} {metric}: p and n = {narrow['n']} need a std of {narrow['spread']:.3g}{in_samples} "
            f"for the difference to {narrow['other']}, and {wide['spread']:.3g} for that to {wide['other']}",
            assumption="the means of the test's runs are those of the main table, and paired spreads are alike",
        )


def _bold_but_not_significant(needed: pd.DataFrame, frame: pd.DataFrame) -> Iterator[Finding]:
    bold = set(frame["cell_id"][frame["bold"].astype(bool)])
    weak = needed[(needed["p"] > ALPHA) & needed["winner"].isin(bold)]
    for artefact, rows in weak.groupby("artefact", sort=False):
        yield Finding(
            check="p-value", level="note", artefact=artefact,
            cells=(*rows["cell_id"], *dict.fromkeys(rows["winner"])),
            printed=some(f"{r.dataset} {r.metric} against {r.other}: p = {r.p:g}" for r in rows.itertuples()),
            expected=f"p below {ALPHA}",
            arithmetic=f"{len(rows)} of {len(needed)} differences whose better side is set in bold are within what the "
            "paper's own test calls chance",
            assumption="the test compares the systems of the main table",
        )


def _leads(frame: pd.DataFrame) -> Iterator[Finding]:
    """Of the leads on the average score, how many are significant by Welch's test on the printed mean and std?"""
    scored = frame[(frame["metric"] == "avg") & frame["std"].notna() & frame["n"].notna()]
    results = []
    for (artefact, *_), block in scored.groupby(["artefact", "dataset", "backbone"], sort=False):
        if len(block) > 1:
            first, second = block.sort_values("mean", ascending=not higher_is_better("avg")).to_dict("records")[:2]
            results.append((artefact, first, second, welch_range(first, second)))
    for artefact in dict.fromkeys(r[0] for r in results):
        here = [r for r in results if r[0] == artefact]
        weak = [r for r in here if welch(r[1], r[2]) >= ALPHA]
        if weak:
            yield Finding(
                check="lead", level="note", artefact=artefact,
                cells=tuple(c["cell_id"] for _, a, b, _ in weak for c in (a, b)),
                printed=some(f"{label(a)} over {b['method']}: p {low:.3f}-{high:.3f}" for _, a, b, (low, high) in weak),
                expected=f"p below {ALPHA}",
                arithmetic=f"{len(here) - len(weak)} of {len(here)} leads of the best average over the second are "
                "significant",
                assumption="Welch's t-test, std with ddof 1, independent runs; the range is what rounding leaves open",
            )


def welch_range(a: dict, b: dict) -> tuple[float, float]:
    """Least and largest Welch p that rounding of two printed means and std allows."""
    def corners(cell: dict) -> list[tuple[float, float]]:
        half = 0.5 * 10.0 ** -cell["decimals"]
        return [(cell["mean"] + x * half, max(cell["std"] + y * half, 1e-9)) for x, y in product((-1, 1), repeat=2)]

    ps = [
        stats.ttest_ind_from_stats(m1, s1, int(a["n"]), m2, s2, int(b["n"]), equal_var=False).pvalue
        for (m1, s1), (m2, s2) in product(corners(a), corners(b))
    ]
    return float(np.min(ps)), float(np.max(ps))
