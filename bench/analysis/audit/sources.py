"""Quoted rows against their source, and one system in two papers.

`msena_reference.csv` holds the result table that the M-SENA framework publishes (five seeds, unaligned features); the
rows that MS-Mix and PowMix quote name it as their source. F1 on MOSI and MOSEI is left out: the framework swapped F1's
arguments until 2021, and the versions of the table differ in it.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact

from bench import EXPERIMENTS
from bench.analysis.audit.finding import Finding, some
from bench.analysis.cells import SCORES, groups, half_unit, label, orientation, paper
from bench.selectors import Cell

REFERENCE = EXPERIMENTS / "reported" / "msena_reference.csv"
QUOTING = ("msmix", "powmix")


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
    """Quoted cells that are not in the source's table; one finding where a whole table quotes another version."""
    known: dict[tuple[str, ...], list[str]] = {}
    for line in reference().itertuples():
        known.setdefault((line.dataset, line.system, line.metric), []).append(line.mean)
    quoted = scores[scores["elsewhere"].astype(bool) & scores["artefact"].map(paper).isin(QUOTING)].to_dict("records")
    compared = [(c, known[k]) for c in quoted if (k := (c["dataset"], c["backbone"], c["metric"])) in known]
    for (artefact,), cells in groups([c for c, _ in compared], ["artefact"]).items():
        sources = {c["cell_id"]: s for c, s in compared if c["artefact"] == artefact}
        off = [c for c in cells if not _quotes(c, sources[c["cell_id"]])]
        if 2 * len(off) > len(cells):
            yield _quoted(off, cells, sources, "note", "most differ, so another version or another source was quoted")
            continue
        for (_, system), row in groups(off, ["dataset", "backbone"]).items():
            same = [c for c in cells if c["dataset"] == row[0]["dataset"] and c["backbone"] == system]
            yield _quoted(row, same, sources, "disagrees", "the table's other quoted rows agree with it")


def _quotes(cell: Cell, sources: list[str]) -> bool:
    scale = 1 if cell["unit"] == "%" else 100  # the reference prints everything times 100
    allowed = scale * half_unit(cell["mean_text"]) + 1e-9
    return any(abs(cell["mean"] * scale - float(s)) <= allowed + half_unit(s) for s in sources)


def _quoted(off: list[Cell], cells: list[Cell], sources: dict[str, list[str]], level: str, why: str) -> Finding:
    return Finding(
        check="quoted-row", level=level, artefact=off[0]["artefact"], cells=tuple(c["cell_id"] for c in off),
        printed=some(f"{c['metric']} {c['mean_text']}" for c in off),
        expected=some(f"{c['metric']} {sources[c['cell_id']][0]}" for c in off),
        arithmetic=f"{some(dict.fromkeys(label(c) for c in off))}: {len(cells) - len(off)} of {len(cells)} cells are "
        f"those of the source's public table; {why}",
        assumption="the rows were copied from the M-SENA result table (expected values times 100)",
    )


def _systems(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows that are a plain system: one name, under whichever column the paper's tables put it."""
    unmixed = (scores["backbone"] == "") | scores["method"].isin(["", "plain"])
    plain = scores[scores["variant"].isin(["", "reported"]) & unmixed]
    name = plain["backbone"].where(plain["backbone"] != "", plain["method"])
    return plain.assign(system=name, paper=plain["artefact"].map(paper))


def _two_papers(scores: pd.DataFrame) -> Iterator[Finding]:
    """One system in two papers: rows quoted from one source should agree, others may, and it is good to know."""
    plain = _systems(scores)
    from_source = plain["elsewhere"].astype(bool) & plain["paper"].isin(QUOTING)
    for dataset in dict.fromkeys(plain["dataset"]):
        here = plain[plain["dataset"] == dataset]
        quoted = _differing(here[from_source[here.index]])
        own = _differing(here[~from_source[here.index]])
        for pairs, check, assumption in (
            (quoted, "two-sources", "both papers quote the system from the same source"),
            (own, "one-system", "the papers mean the same system; protocol, encoder and features may differ"),
        ):
            if pairs:
                yield Finding(
                    check=check, level="note", artefact=pairs[0][0]["artefact"],
                    cells=tuple(dict.fromkeys(p["cell_id"] for pair in pairs for p in pair)),
                    printed=some(f"{a['system']} {a['metric']} {a['mean_text']} / {b['mean_text']}" for a, b in pairs),
                    expected="the same numbers", assumption=assumption,
                    arithmetic=f"{dataset}: {len(pairs)} cells of {some(dict.fromkeys(a['system'] for a, _ in pairs))} "
                    f"differ between {' and '.join(dict.fromkeys(p['paper'] for pair in pairs for p in pair))}",
                )


def _differing(plain: pd.DataFrame) -> list[tuple[Cell, Cell]]:
    """Pairs of cells of one system and metric in two papers that differ beyond rounding."""
    found = []
    cells = plain.drop_duplicates(["paper", "system", "metric"]).to_dict("records")
    for same in groups(cells, ["system", "metric"]).values():
        found += [(a, b) for i, a in enumerate(same) for b in same[i + 1 :] if not _equal(a, b)]
    return found


def _other_convention(scores: pd.DataFrame) -> Iterator[Finding]:
    """One system in two papers, equal in MAE and Corr: then the accuracies must be equal under one convention."""
    systems = _systems(scores)
    bare = systems["system"].str.replace(r"[ _]+[a-z]$", "", regex=True)  # "Self-MM_b" is Self-MM
    rows = groups(systems.assign(bare=bare).to_dict("records"), ["dataset", "bare", "artefact", "system"])
    named = [(key[:2], {c["metric"]: c for c in cells}) for key, cells in rows.items()]
    for (system_a, a), (system_b, b) in ((x, y) for x in named for y in named if x[0] == y[0]):
        if system_a != system_b or next(iter(a.values()))["paper"] == next(iter(b.values()))["paper"]:
            continue
        if not all(m in a and m in b and _equal(a[m], b[m]) for m in ("mae", "corr")):
            continue
        for mine, theirs in (("non0", "has0"), ("has0", "non0")):
            pairs = [(f"{mine}_{k}", f"{theirs}_{k}") for k in ("acc2", "f1")]
            if not all(m in a and o in b and m in b for m, o in pairs):
                continue
            if not all(_equal(a[m], b[o]) and not _equal(a[m], b[m]) for m, o in pairs):
                continue
            shown = [a[m] for m, _ in pairs]
            yield Finding(
                check="convention", level="implausible", artefact=shown[0]["artefact"],
                cells=tuple(c["cell_id"] for c in shown), printed=" / ".join(c["mean_text"] for c in shown),
                expected=" / ".join(b[m]["mean_text"] for m, _ in pairs) + f" ({mine})",
                arithmetic=f"{label(shown[0])} agrees with {b['mae']['artefact']} in MAE and Corr, and its accuracy "
                f"and F1 are the {theirs} values there, in a column of {mine} values",
                assumption="both papers print the same run of the system",
            )


def _equal(x: Cell, y: Cell) -> bool:
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
                check="two-gains", level="implausible", artefact=where["artefact"].iloc[0],
                cells=tuple(where["cell_id"]),
                printed=f"{won_a} of {n_a} ({a}) and {won_b} of {n_b} ({b}) cells better than the plain backbone",
                expected="like shares",
                arithmetic=f"{method} on {some(sorted(common))}: Fisher's exact p = {p:.1g}",
                assumption="both papers run the same backbones in the same framework; the plain rows may be quoted",
            )
