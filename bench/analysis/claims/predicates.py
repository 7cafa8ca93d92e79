"""Predicates compiled to comparisons: weighted sums of cells that must lie in an interval.

Everything a claim says about numbers becomes a list of Groups, the units that "k of n" counts; a Group holds when at
most `allowed` of its Comparisons fail. The same comparisons are judged on printed means (printed.py) and on runs
(runs.py). All values are fractions (cells.as_fraction); what a claim quotes in points is converted here.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.analysis.cells import cell_words, groups, half_unit, key, label, metric_words, orientation, scale
from bench.analysis.claims.ledger import Part
from bench.selectors import Cell, selects

INF = math.inf
Key = tuple[str, ...]


@dataclass(frozen=True)
class Term:
    weight: float
    key: Key | None = None  # None: the number `constant`, quoted from the text
    constant: float = 0.0
    choices: tuple[Key, ...] = ()  # on runs: whichever of these cells is best, chosen anew in every set of runs

    @property
    def keys(self) -> tuple[Key, ...]:
        return self.choices if self.key is None else (self.key,)


@dataclass(frozen=True)
class Comparison:
    """low < sum of terms < high (strict), or low <= ... <= high."""

    terms: tuple[Term, ...]
    low: float = 0.0
    high: float = INF
    strict: bool = True
    exact: bool = True  # judge the printed digits; else let rounding decide between "no" and "cannot tell"
    percent: bool = False  # 100 (first - second) / second, minus the third, instead of the sum
    rounding: bool = False  # whatever rounding of the cells allows is agreement
    quoted: float | None = None  # the number the text gives for the sum
    spread: bool = False  # compare standard deviations, not means
    test: bool = False  # printed numbers must also differ by a Welch test
    missing: str = ""  # what is not there
    swapped: bool = False  # the row that the claim is about is the second term
    scale: float = 1.0  # of the unit in which texts quote the sum: 0.01 for points of a percentage

    @property
    def keys(self) -> list[Key]:
        return [k for t in self.terms for k in t.keys]

    @property
    def order(self) -> bool:
        """One bound and no quoted number: a difference is on the claimed side or not."""
        return self.quoted is None and math.isinf(self.low) != math.isinf(self.high) and not self.spread


@dataclass(frozen=True)
class Group:
    """What one of the n in "k of n" says."""

    label: str
    comparisons: tuple[Comparison, ...]
    allowed: int = 0  # comparisons that may fail


_ALLOWED: dict[str, Callable[[Part, int], int]] = {  # comparisons of a group that may fail, out of n
    "best": lambda part, n: 0,
    "worst": lambda part, n: 0,
    "steadier": lambda part, n: 0,
    "rank": lambda part, n: part.at_most - 1,
    "beats": lambda part, n: n - 1,
    "beaten": lambda part, n: n - 1,
}


def compile_part(part: Part, cells: Sequence[Cell], runs: bool = False) -> list[Group]:
    """The groups of one predicate. cells: every known cell, with KEY; printed cells also have `mean`, `std` and `half`
    (cells.as_fraction). runs: for runs, where which row is best is itself uncertain: it must not be chosen by the means
    that are then tested."""
    if part.kind == "untestable":
        return [Group(part.reason, (Comparison((), missing=part.reason),))]
    metrics = part.metrics or (tuple(part.expect) if isinstance(part.expect, Mapping) else ())
    chosen = list(filter(selects(part.of), cells))
    if part.kind == "contrast":
        return list(_contrast(part, chosen, metrics, runs))
    if metrics:
        chosen = [cell for cell in chosen if cell["metric"] in metrics]
    if runs and part.kind == "significant":  # better than the best other: than each of them
        part = replace(part, kind="best")
    kind = {"monotone": _monotone, "printed_change": _printed_change}.get(part.kind, _blocks)
    return list(kind(part, chosen)) or [_nothing(part, part.row)]


def _nothing(part: Part, selector: Mapping[str, Any]) -> Group:
    words = ", ".join(f"{k} {v}" for k, v in {**part.of, **selector}.items())
    return Group(words, (Comparison((), missing=f"no such cell: {words}"),))


def _blocks(part: Part, chosen: list[Cell]) -> Iterator[Group]:
    is_row, is_other = selects(part.row), selects(part.against)
    rows = list(filter(is_row, chosen))
    if part.kind == "value":
        yield from (_value(part, cell) for cell in rows)
        return
    others = [cell for cell in chosen if not is_row(cell) and is_other(cell)]
    if not rows or not others:
        yield _nothing(part, part.against if rows else part.row)
        return
    blocks = groups(others, [*part.by, "metric"])
    for row in rows:
        if block := blocks.get(tuple(row[field] for field in [*part.by, "metric"])):
            yield from _row(part, row, block)


def _row(part: Part, row: Cell, others: list[Cell]) -> Iterator[Group]:
    """The groups of one row in one metric against the others of its block."""
    metric = row["metric"]
    if part.kind in _ALLOWED:
        turned = part.kind in ("worst", "beaten")
        pairs = [(other, row) if turned else (row, other) for other in others]
        comparisons = tuple(replace(_order(part, a, b), swapped=turned or part.kind == "steadier") for a, b in pairs)
        yield Group(cell_words(key(row)), comparisons, allowed=_ALLOWED[part.kind](part, len(others)))
        return
    if part.kind == "significant":
        others = [max(others, key=_standing)]
    for other in others:
        yield Group(f"{row['artefact']} {label(row)} against {label(other)}, {metric_words(metric)}", (_pair(part, row, other),))


def _pair(part: Part, row: Cell, other: Cell) -> Comparison:
    metric, terms = row["metric"], (_term(row), _term(other, -1.0))
    if part.kind in ("better", "significant"):
        return _order(part, row, other)
    unit = scale(metric)
    if part.kind == "comparable":
        margin = _by_metric(part.margin, metric) * unit
        return Comparison(terms, -margin, margin, strict=False, scale=unit)
    if part.kind == "equal":
        slack = max(row.get("half", 0.0), other.get("half", 0.0))
        return Comparison(terms, -slack, slack, strict=False, scale=unit)
    if part.kind == "change":  # in per cent, whatever the metric
        low, high, quoted = _expected(part, metric, 1.0)
        return Comparison(terms, low, high, strict=False, exact=False, percent=True, quoted=quoted)
    low, high, quoted = _expected(part, metric, unit)
    sign = orientation(metric)
    return Comparison(
        (_term(row, sign), _term(other, -sign)), low, high, strict=False, exact=False, quoted=quoted, scale=unit
    )


def _order(part: Part, row: Cell, other: Cell) -> Comparison:
    """Row better than other; "steadier": no wider spread."""
    if part.kind == "steadier":
        return Comparison((_term(other), _term(row, -1.0)), strict=False, spread=True)
    sign, unit = orientation(row["metric"]), scale(row["metric"])
    strict = not part.ties and part.kind != "rank"
    return Comparison(
        (_term(row, sign), _term(other, -sign)), low=_by_metric(part.margin, row["metric"]) * unit, strict=strict,
        test=part.kind == "significant", scale=unit,
    )


def _standing(cell: Cell) -> float:
    """How good a cell is, without a spread to test against last."""
    value = cell["mean"] * orientation(cell["metric"])
    return -INF if math.isnan(value) or math.isnan(cell.get("std", 0.0)) else value


def _monotone(part: Part, chosen: list[Cell]) -> Iterator[Group]:
    steps = [s if isinstance(s, Mapping) else {"variant": s} for s in part.order]
    for block in groups(filter(selects(part.row), chosen), [*part.by, "metric"]).values():
        path = [(step, next(filter(selects(step), block), None)) for step in steps]
        for (_, a), (step, b) in zip(path, path[1:]):
            if a is None or b is None:
                yield _nothing(part, step)
                continue
            better, worse = (b, a) if part.trend == "better" else (a, b)
            name = f"{a['artefact']} {label(a)} -> {b['variant'] or label(b)}, {metric_words(a['metric'])}"
            yield Group(name, (_order(part, better, worse),))


def _value(part: Part, cell: Cell) -> Group:
    unit = scale(cell["metric"])
    low, high, quoted = _expected(part, cell["metric"], unit)
    comparison = Comparison((_term(cell),), low, high, strict=False, exact=quoted is None, quoted=quoted, scale=unit)
    return Group(cell_words(key(cell)), (comparison,))


def _printed_change(part: Part, chosen: list[Cell]) -> Iterator[Group]:
    """Cells `<metric>_change` against 100 (row - other) / other."""
    known = {key(cell): cell for cell in chosen}
    full = {(*(cell[f] for f in part.by), cell["metric"]): cell for cell in filter(selects(part.against), chosen)}
    for change in chosen:
        metric = change["metric"].removesuffix("_change")
        row, other = known.get((*key(change)[:-1], metric)), full.get((*(change[f] for f in part.by), metric))
        if metric != change["metric"] and row and other:
            terms = (_term(row), _term(other, -1.0), _term(change, -1.0))
            agree = Comparison(terms, 0.0, 0.0, strict=False, percent=True, rounding=True)
            yield Group(f"{change['artefact']} {label(change)}, {metric_words(metric)}", (agree,))


def _contrast(part: Part, chosen: list[Cell], metrics: tuple[str, ...], runs: bool) -> Iterator[Group]:
    for block, cells in groups(chosen, part.each).items() if chosen else [((), chosen)]:
        for metric in metrics or ("",):
            name = " ".join(filter(None, (*block, metric))) or str(part.of.get("artefact", "contrast"))
            yield Group(name, (_sum(part, cells, metric, runs),))


def _sum(part: Part, cells: list[Cell], metric: str, runs: bool) -> Comparison:
    terms, missing = [], ""
    unit = scale(metric or (cells[0]["metric"] if cells else ""))
    for entry in part.terms:
        weight = float(entry.get("weight", 1.0))
        if "const" in entry:
            terms.append(Term(weight, constant=float(entry["const"]) * unit))
            continue
        wanted = {k: v for k, v in entry.items() if k not in ("weight", "pick")}
        wanted = {"metric": metric, **wanted} if metric else wanted
        found = list(filter(selects(wanted), cells))
        if not found:
            missing = missing or "no such cell: " + ", ".join(f"{k} {v}" for k, v in {**part.of, **wanted}.items())
        elif entry.get("pick") == "best" and runs:
            terms.append(Term(weight, choices=tuple(map(key, found))))
        elif entry.get("pick") == "best":
            terms.append(_term(max(found, key=_standing), weight))
        else:
            terms += [_term(cell, weight / len(found)) for cell in found]  # several cells: their mean
    low, high, quoted = _expected(part, metric, unit)
    one_sided = math.isinf(low) != math.isinf(high)
    return Comparison(tuple(terms), low, high, strict=one_sided and not part.ties, exact=quoted is None, quoted=quoted,
                      missing=missing, scale=unit)


def _term(cell: Cell, weight: float = 1.0) -> Term:
    return Term(weight, key(cell))


def _by_metric(value: Any, metric: str) -> float:
    return float(value.get(metric, 0.0) if isinstance(value, Mapping) else value)


def _expected(part: Part, metric: str, unit: float) -> tuple[float, float, float | None]:
    """(low, high, quoted number or None) of an expectation, as fractions; `unit`: that in which it is written."""
    expect = part.expect[metric] if isinstance(part.expect, Mapping) else part.expect
    if isinstance(expect, (list, tuple)):
        return float(expect[0]) * unit, float(expect[1]) * unit, None
    text = expect if isinstance(expect, str) else repr(expect)
    slack = half_unit(text) if part.tolerance is None else _by_metric(part.tolerance, metric)
    return (float(text) - slack) * unit, (float(text) + slack) * unit, float(text) * unit
