"""Quoted rows against their source, and one system in two papers.

`msena_reference.csv` holds the result table that the M-SENA framework publishes (five seeds, unaligned features); the
rows that MS-Mix and PowMix quote name it as their source. F1 on MOSI and MOSEI is left out: the framework swapped F1's
arguments until 2021, and the versions of the table differ in it.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact

from bench.analysis.audit.finding import Finding, some
from bench.analysis.cells import SCORES, half_unit, label, orientation, paper

REFERENCE = Path(__file__).parents[3] / "experiments" / "reported" / "msena_reference.csv"
QUOTING = ("msmix", "powmix")
_CONVENTIONS = ("non0", "has0")


def check(frame: pd.DataFrame) -> Iterator[Finding]:
    scores = frame[frame["metric"].isin(SCORES) & (frame["metric"] != "avg")]
    yield from _reference(scores)
    yield from _two_papers(scores)
    yield from _other_convention(scores)
    yield from _other_gain(scores)


@lru_cache(maxsize=1)
def reference() -> pd.DataFrame:
    """Columns: dataset, system, metric, unit, mean (text), version. Several versions of one cell are alternatives."""
    return pd.read_csv(REFERENCE, dtype=str, keep_default_na=False)


def _reference(scores: pd.DataFrame) -> Iterator[Finding]:
    known: dict[tuple[str, str, str], list[str]] = {}
    for line in reference().itertuples():
        known.setdefault((line.dataset, line.system, line.metric), []).append(line.mean)
    quoted = scores[scores["elsewhere"].astype(bool) & scores["artefact"].map(paper).isin(QUOTING)]
    for (artefact, _, system), row in quoted.groupby(["artefact", "dataset", "backbone"], sort=False):
        compared, off = 0, []
        for _, cell in row.iterrows():
            sources = known.get((cell["dataset"], system, cell["metric"]))
            if not sources:
                continue
            compared += 1
            scale = 1 if cell["unit"] == "%" else 100  # the reference prints everything times 100
            allowed = scale * half_unit(cell["mean_text"]) + 1e-9
            if not any(abs(cell["mean"] * scale - float(s)) <= allowed + half_unit(s) for s in sources):
                off.append((cell, sources[0]))
        if not off:
            continue
        yield Finding(
            check="quoted-row", level="disagrees", artefact=artefact,
            cells=tuple(cell["cell_id"] for cell, _ in off),
            printed=some(f"{cell['metric']} {cell['mean_text']}" for cell, _ in off),
            expected=some(f"{cell['metric']} {source}" for cell, source in off),
            arithmetic=f"{label(row.iloc[0])}: {compared - len(off)} of {compared} cells agree with the source's public table",
            assumption="the row was copied from the M-SENA result table (expected values times 100)",
        )


def _systems(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows that are a plain system: one name, under whichever column the paper's tables put it."""
    plain = scores[(scores["variant"].isin(["", "reported"])) & ((scores["backbone"] == "") | scores["method"].isin(["", "plain"]))]
    name = plain["backbone"].where(plain["backbone"] != "", plain["method"])
    return plain.assign(system=name, paper=plain["artefact"].map(paper))


def _two_papers(scores: pd.DataFrame) -> Iterator[Finding]:
    """Quoted rows of one system in two papers: do they quote the same numbers?"""
    quoted = _systems(scores[scores["elsewhere"].astype(bool)])
    for (dataset, system), cells in quoted.groupby(["dataset", "system"], sort=False):
        table = cells.drop_duplicates(["paper", "metric"]).pivot(index="metric", columns="paper", values="mean_text")
        for a, b in [(x, y) for i, x in enumerate(table.columns) for y in table.columns[i + 1 :]]:
            both = table[[a, b]].dropna()
            off = [m for m, (x, y) in both.iterrows() if abs(float(x) - float(y)) > half_unit(x) + half_unit(y) + 1e-9]
            if not off:
                continue
            ids = cells[cells["metric"].isin(off) & cells["paper"].isin([a, b])]["cell_id"]
            yield Finding(
                check="two-sources", level="note", artefact=f"{a} and {b}", cells=tuple(ids),
                printed=some(f"{m} {both.loc[m, a]} / {both.loc[m, b]}" for m in off), expected="the same numbers",
                arithmetic=f"{dataset} {system}: quoted rows differ in {len(off)} of {len(both)} shared metrics",
                assumption="both papers quote the same system under the same protocol",
            )


def _other_convention(scores: pd.DataFrame) -> Iterator[Finding]:
    """One system in two papers, equal in MAE and Corr: then the accuracies must be equal under one convention."""
    rows = {}
    systems = _systems(scores)
    systems = systems.assign(bare=systems["system"].str.replace(r"[ _]+[a-z]$", "", regex=True))  # "Self-MM_b"
    for key, cells in systems.groupby(["dataset", "bare", "paper", "artefact", "system", "backbone"], sort=False):
        rows.setdefault(key[:2], []).append((key[2], cells.drop_duplicates("metric").set_index("metric")))
    for group in rows.values():
        for (paper_a, a), (paper_b, b) in ((x, y) for x in group for y in group if x[0] != y[0]):
            if not all(m in a.index and m in b.index and _equal(a.loc[m], b.loc[m]) for m in ("mae", "corr")):
                continue
            for mine, theirs in ((m, o) for m in _CONVENTIONS for o in _CONVENTIONS if m != o):
                pairs = [(f"{mine}_{k}", f"{theirs}_{k}") for k in ("acc2", "f1")]
                if any(m not in a.index or o not in b.index or m not in b.index for m, o in pairs):
                    continue
                if not all(_equal(a.loc[m], b.loc[o]) and not _equal(a.loc[m], b.loc[m]) for m, o in pairs):
                    continue
                shown = [a.loc[m] for m, _ in pairs]
                yield Finding(
                    check="convention", level="implausible", artefact=shown[0]["artefact"],
                    cells=tuple(c["cell_id"] for c in shown), printed=" / ".join(c["mean_text"] for c in shown),
                    expected=" / ".join(b.loc[m]["mean_text"] for m, _ in pairs) + f" ({mine})",
                    arithmetic=f"{label(shown[0])} agrees with {paper_b} in MAE and Corr, and its accuracy and F1 are the "
                    f"{theirs} values there, in a column of {mine} values",
                    assumption="both papers print the same run of the system",
                )


def _equal(x: pd.Series, y: pd.Series) -> bool:
    scale = (0.01 if x["unit"] == "%" else 1.0), (0.01 if y["unit"] == "%" else 1.0)
    slack = max(half_unit(x["mean_text"]) * scale[0], half_unit(y["mean_text"]) * scale[1])
    return bool(abs(x["mean"] * scale[0] - y["mean"] * scale[1]) <= slack + 1e-9)


def _other_gain(scores: pd.DataFrame) -> Iterator[Finding]:
    """A method that beats the plain backbone in every cell of one paper, and in clearly fewer of another's."""
    own = scores[(scores["variant"] == "") & (scores["backbone"] != "")]
    own = own.assign(paper=own["artefact"].map(paper), gain=own["mean"] * own["metric"].map(orientation))
    plain = own[own["method"].isin(["", "plain"])].drop_duplicates(["paper", "dataset", "backbone", "metric"])
    keys = ["paper", "dataset", "backbone", "metric"]
    pairs = own[~own["method"].isin(["", "plain"])].merge(plain[[*keys, "gain"]], on=keys, suffixes=("", "_plain"))
    pairs = pairs.assign(win=pairs["gain"] > pairs["gain_plain"])
    for method, cells in pairs.groupby("method", sort=False):
        common = set.intersection(*(set(g["backbone"]) for _, g in cells.groupby("paper")))
        wins = cells[cells["backbone"].isin(common)].groupby("paper")["win"].agg(["sum", "count"])
        for a, b in [(x, y) for x in wins.index for y in wins.index if x < y]:
            (won_a, n_a), (won_b, n_b) = wins.loc[a].astype(int), wins.loc[b].astype(int)
            p = fisher_exact(np.array([[won_a, n_a - won_a], [won_b, n_b - won_b]])).pvalue
            if p > 0.01:
                continue
            where = cells[cells["backbone"].isin(common) & ~cells["win"]]
            yield Finding(
                check="two-gains", level="implausible", artefact=f"{a} and {b}", cells=tuple(where["cell_id"]),
                printed=f"{won_a} of {n_a} and {won_b} of {n_b} cells better than the plain backbone",
                expected="like shares",
                arithmetic=f"{method} on {some(sorted(common))}: Fisher's exact p = {p:.1g}",
                assumption="both papers run the same backbones in the same framework; the plain rows may be quoted",
            )
