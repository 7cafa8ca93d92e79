"""GRIM (Brown & Heathers 2017): can this mean of n accuracies over N test samples exist at this rounding?

The mean of n accuracies on N samples is a multiple of 1 / (N n). A printed value passes strictly if some such multiple
rounds to it, and loosely if one lies half a unit of 0.01 % farther away, which is what rounding each run to four
decimals first (as M-SENA does) can add. A column is judged against chance, the share of arbitrary values of the same
precision that would pass. `explain` asks the other way: which N and n explain a whole column best?
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from scipy.stats import binom

from bench.analysis.audit.finding import Finding, some
from bench.analysis.audit.testsets import AT_LEAST, USUAL_RUNS, samples
from bench.analysis.cells import ACCURACY, paper

MAX_RUNS = 10
_RATES = (
    "artefact", "dataset", "metric", "rows", "size", "runs", "runs_stated", "cells", "strict", "strict_chance", "loose",
    "loose_chance", "p_strict", "failing",
)
_WINDOW = 0.04  # sizes within this share of the nominal one are tried: other releases of the same test split
_RARE = 1e-3
_PER_RUN = 4  # decimals that M-SENA rounds each run's fraction to


def fits(text: str, size: int, runs: int, per_run_rounding: bool = False) -> bool:
    """Whether a printed percentage can be the mean of `runs` accuracies on `size` samples."""
    ticks, decimals = _ticks([text])
    return bool(_fits(ticks, decimals, np.array([size * runs]), per_run_rounding)[0, 0])


def chance(
    decimals: int, size: int, runs: int, per_run_rounding: bool = False, low: float = 0, high: float = 100
) -> float:
    """Share of all percentages with that many decimals between low and high that would pass."""
    ticks = np.arange(round(low * 10**decimals), round(high * 10**decimals) + 1)
    return float(_fits(ticks, decimals, np.array([size * runs]), per_run_rounding).mean())


def explain(texts: Iterable[str], sizes: Iterable[int], runs: Iterable[int] = range(1, MAX_RUNS + 1)) -> pd.DataFrame:
    """Every (N, n) tried on a column, best first.

    Columns: size, runs, passed, cells, chance, p (binomial tail of passing that often by chance) and p_all (p times the
    number of pairs tried). Values that occur twice count once, since copies of a cell are no further evidence.
    """
    ticks, decimals = _ticks(sorted(set(texts)))
    pairs = [(size, n) for size in sizes for n in runs]
    units = np.array([size * n for size, n in pairs])
    passed = _fits(ticks, decimals, units, False).sum(axis=0)
    every = np.arange(ticks.min() - 10**decimals, ticks.max() + 10**decimals + 1)  # one point around the column
    rate = _fits(every, decimals, units, False).mean(axis=0)
    p = binom.sf(passed - 1, len(ticks), rate)
    table = pd.DataFrame(pairs, columns=["size", "runs"])
    table = table.assign(passed=passed, cells=len(ticks), chance=rate, p=p, p_all=np.minimum(1, p * len(pairs)))
    return table.sort_values(["p", "runs", "size"], ignore_index=True)


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Pass rates of every column of accuracies with a known test size, own and quoted rows apart.

    Columns: artefact, dataset, metric, rows ("own" or "quoted"), size, runs, runs_stated, cells, strict, strict_chance,
    loose, loose_chance, p_strict (binomial tail of passing at least that often by chance) and failing (cell ids that
    fail even loosely). Where the paper states no n, both one run and five are tried.
    """
    lines = []
    for (artefact, dataset, metric, elsewhere, _), column in _columns(frame):
        size = samples(dataset, metric)
        stated = column["n"].dropna()
        for runs in [int(stated.iloc[0])] if len(stated) else [1, USUAL_RUNS]:
            ticks, decimals = _ticks(column["mean_text"])
            units = np.array([size * runs])
            strict, loose = (_fits(ticks, decimals, units, how)[:, 0] for how in (False, True))
            low, high = column["mean"].min() - 1, column["mean"].max() + 1
            rates = [chance(decimals, size, runs, how, low, high) for how in (False, True)]
            lines.append({
                "artefact": artefact, "dataset": dataset, "metric": metric, "rows": "quoted" if elsewhere else "own",
                "size": size, "runs": runs, "runs_stated": bool(len(stated)), "cells": len(column),
                "strict": int(strict.sum()), "strict_chance": rates[0],
                "loose": int(loose.sum()), "loose_chance": rates[1],
                "p_strict": float(binom.sf(strict.sum() - 1, len(column), rates[0])),
                "failing": tuple(column["cell_id"][~loose]),
            })
    return pd.DataFrame(lines, columns=list(_RATES))


def totals(rates: pd.DataFrame) -> pd.DataFrame:
    """The table summed over metrics: one line per artefact, dataset, own or quoted rows, and n."""
    expected = rates.assign(
        strict_chance=rates["strict_chance"] * rates["cells"], loose_chance=rates["loose_chance"] * rates["cells"]
    )
    keys = ["artefact", "dataset", "rows", "runs", "runs_stated"]
    summed = expected.groupby(keys, sort=False)[["cells", "strict", "strict_chance", "loose", "loose_chance"]].sum()
    for column in ("strict_chance", "loose_chance"):
        summed[column] /= summed["cells"]
    return summed.reset_index()


def check(frame: pd.DataFrame) -> Iterator[Finding]:
    """Columns with cells that no mean of the stated runs can give, and the N and n that explain a paper's columns."""
    rates = table(frame)
    for _, line in rates.iterrows():
        if line["failing"] and line["runs_stated"]:
            yield _failing(line, frame)
    own = _accuracies(frame[~frame["elsewhere"].astype(bool)])
    yield from _single_runs(rates, own)
    keys = [own["artefact"].map(paper), own["dataset"], own["metric"], own["decimals"]]
    for (name, dataset, metric, _), column in own.groupby(keys, sort=False):
        yield from _explained(name, dataset, metric, column)
    yield from _unknown_sizes(frame)


def _failing(line: pd.Series, frame: pd.DataFrame) -> Finding:
    open_ended = AT_LEAST.get(paper(line["artefact"]))
    printed = frame.set_index("cell_id")["mean_text"][list(line["failing"])]
    return Finding(
        check="grim", level="implausible" if open_ended else "impossible", artefact=line["artefact"],
        cells=line["failing"], printed=some(printed),
        expected=f"a multiple of 1/({line['size']} x {line['runs']}), at most 0.01 % from the printed value",
        arithmetic=(
            f"{line['strict']} of {line['cells']} {line['rows']} cells of {line['dataset']} {line['metric']} pass "
            f"strictly ({line['strict_chance']:.0%} of arbitrary values would), {line['loose']} loosely "
            f"({line['loose_chance']:.0%} would)"
        ),
        assumption=f"mean of {line['runs']} runs on {line['size']} test samples, each run rounded to "
        f"{_PER_RUN} decimals or not" + (f"; but {open_ended}" if open_ended else ""),
    )


def _single_runs(rates: pd.DataFrame, own: pd.DataFrame) -> Iterator[Finding]:
    """Tables without a stated n whose accuracies are shares of the test set more often than chance: single runs."""
    single = rates[(rates["runs"] == 1) & ~rates["runs_stated"].astype(bool) & (rates["rows"] == "own")]
    for (artefact, dataset), lines in single.groupby(["artefact", "dataset"], sort=False):
        cells, passed = lines["cells"].sum(), lines["strict"].sum()
        rate = float((lines["strict_chance"] * lines["cells"]).sum() / cells)
        p = float(binom.sf(passed - 1, cells, rate))
        if p > _RARE:
            continue
        here = (own["artefact"] == artefact) & (own["dataset"] == dataset)
        yield Finding(
            check="grim-single", level="note", artefact=artefact, cells=tuple(own["cell_id"][here]),
            printed=f"{cells} accuracies of {dataset}",
            expected=f"about {rate:.0%} of them a share of the test set, if they were means of several runs",
            arithmetic=f"{passed} of {cells} are k/{lines['size'].iloc[0]} rounded (p = {p:.1g}), "
            f"{lines['loose'].sum()} if the share was first rounded to four decimals: what single runs give",
            assumption=f"{lines['size'].iloc[0]} test samples, cells independent",
        )


def _explained(name: str, dataset: str, metric: str, column: pd.DataFrame) -> Iterator[Finding]:
    nominal = samples(dataset, metric)
    if column["mean_text"].nunique() < 6:
        return
    width = max(5, int(nominal * _WINDOW))
    tried = explain(column["mean_text"], range(nominal - width, nominal + width + 1))
    best = tried.iloc[0]
    stated = next(map(int, column["n"].dropna()), None)
    if best["p_all"] > 0.01 or (best["size"] == nominal and best["runs"] == stated):
        return
    as_stated = tried[(tried["size"] == nominal) & (tried["runs"] == (stated or USUAL_RUNS))].iloc[0]
    yield Finding(
        check="grim-search", level="note", artefact=name, cells=tuple(column["cell_id"]),
        printed=f"{best['cells']:.0f} distinct values of {dataset} {metric}",
        expected=f"N = {best['size']:.0f}, n = {best['runs']:.0f}",
        arithmetic=(
            f"N = {best['size']:.0f} with n = {best['runs']:.0f} lets {best['passed']:.0f} of "
            f"{best['cells']:.0f} values pass where chance gives {best['chance']:.0%} (p = {best['p_all']:.1g} after "
            f"{len(tried)} pairs tried); "
            f"N = {nominal} with n = {as_stated['runs']:.0f}: {as_stated['passed']:.0f} pass, "
            f"chance {as_stated['chance']:.0%}"
        ),
        assumption=f"one N and one n behind the column, N within {width} of {nominal}, n up to {MAX_RUNS}; "
        + (f"the paper states n = {stated}" if stated else "the paper states no n"),
    )


def _unknown_sizes(frame: pd.DataFrame) -> Iterator[Finding]:
    """Test sets whose size nobody states: the N of which all the printed accuracies are shares, where there is one. Few
    distinct values in a column are what a small test set gives."""
    unknown = [samples(d, m) is None for d, m in zip(frame["dataset"], frame["metric"])]
    column = frame[frame["metric"].isin(ACCURACY) & np.array(unknown, dtype=bool)]
    for (_, dataset, _), cells in column.groupby([column["artefact"].map(paper), "dataset", "metric"], sort=False):
        distinct = cells["mean_text"].nunique()
        if not dataset or distinct < 4:
            continue
        tried = explain(cells["mean_text"], range(10, 501), runs=(1,))
        best = tried.iloc[0]
        if best["p_all"] > 0.05:
            continue
        also = tried[(tried["passed"] == best["passed"]) & (tried["p"] <= 10 * best["p"])]["size"].tolist()[1:4]
        stated = sorted({int(n) for n in cells["n"].dropna()})
        yield Finding(
            check="grim-size", level="note", artefact=cells["artefact"].iloc[0], cells=tuple(cells["cell_id"]),
            printed=f"{len(cells)} accuracies of {dataset}, {distinct} of them distinct",
            expected=f"a test set of N = {best['size']:.0f}",
            arithmetic=(
                f"{best['passed']:.0f} of {best['cells']:.0f} distinct values are k/{best['size']:.0f} rounded, where chance "
                f"gives {best['chance']:.0%} (p = {best['p_all']:.1g} after {len(tried)} sizes tried)"
                + (f"; next N = {', '.join(map(str, also))}" if also else "")
                + (f"; means of {stated[0]} runs would be k/{stated[0] * best['size']:.0f}, so these look like single runs "
                   "or medians" if stated and stated[0] > 1 else "")
            ),
            assumption="one test set behind the column, N from 10 to 500, one run a value",
        )


def _accuracies(frame: pd.DataFrame) -> pd.DataFrame:
    known = [samples(d, m) is not None for d, m in zip(frame["dataset"], frame["metric"])]
    averaged = frame["variant"].str.lower().str.startswith("avg")
    return frame[frame["metric"].isin(ACCURACY) & np.array(known, dtype=bool) & ~averaged]


def _columns(frame: pd.DataFrame):
    return _accuracies(frame).groupby(["artefact", "dataset", "metric", "elsewhere", "decimals"], sort=False)


def _ticks(texts: Iterable[str]) -> tuple[np.ndarray, int]:
    """Printed percentages as whole numbers of the finest unit printed."""
    texts = list(texts)
    decimals = max(len(t.partition(".")[2]) for t in texts)
    return np.array([round(float(t) * 10**decimals) for t in texts], dtype=np.int64), decimals


def _fits(ticks: np.ndarray, decimals: int, units: np.ndarray, per_run_rounding: bool) -> np.ndarray:
    """[values, units] mask: a multiple of 1/units lies within half a tick (plus half a per-run unit) of the value.

    Whole numbers throughout: a value is ticks / scale, and |ticks units - k scale| <= units / 2 for some whole k.
    """
    scale = 10 ** (decimals + 2)
    rest = (ticks[:, None] * units[None, :]) % scale
    slack = units[None, :] * (1 + (scale / 10**_PER_RUN if per_run_rounding else 0))
    return 2 * np.minimum(rest, scale - rest) <= slack
