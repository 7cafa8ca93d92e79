"""Where the cells of an artefact stand on paper: rows as they are, rates as rows, or settings as rows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.matrix import Column, Experiment, Row
from bench.remarks import SIGN

_RATE = re.compile(r"(MR|NR)=|Avg\.$")


@dataclass(frozen=True)
class Line:
    """One printed line: its labels, and for each printed column the (row, column) of a cell, or None."""

    labels: tuple[str, ...]
    cells: tuple[tuple[int, int] | None, ...]
    row: Row
    first: bool  # first of its block
    again: bool = False  # the first label is that of the line before


@dataclass(frozen=True)
class Layout:
    stubs: tuple[str, ...]  # titles of the label columns
    columns: tuple[Column, ...]
    groups: tuple[tuple[str, int], ...]  # column group -> how many columns; empty label: none printed
    lines: tuple[Line, ...]


def layout_of(e: Experiment) -> Layout:
    """The layout that the papers give such a table."""
    return settings(e) if settings_as_rows(e) else pivoted(e) if rates_as_rows(e) else plain(e)


def plain(e: Experiment) -> Layout:
    """One line per row. Label columns that are empty throughout are left out."""
    titles = ("Backbone", "Method", "Variant")
    used = [k for k in range(3) if any(r.key[k] for r in e.rows)] or [1]
    lines: list[Line] = []
    for i, row in enumerate(e.rows):
        labels, last = tuple(row.key[k] for k in used), lines[-1] if lines else None
        first = last is None or last.row.block != row.block
        again = not first and any(labels[1:]) and last.labels[0] == labels[0]  # a row without further labels keeps its first
        lines.append(Line(labels, tuple((i, j) for j in range(len(e.columns))), row, first, again))
    return Layout(tuple(titles[k] for k in used), e.columns, _groups([c.group for c in e.columns]), tuple(lines))


def rates_as_rows(e: Experiment) -> bool:
    """Whether this is a full grid of systems by missing or noise rate, which papers print with systems as columns."""
    rows = [r for r in e.rows if not r.departs]
    methods, variants = {r.method for r in rows}, {r.variant for r in rows}
    same = len({tuple(c.metric for c in e.columns if c.group == g) for g in {c.group for c in e.columns}}) == 1
    full = len({(r.method, r.variant) for r in rows}) == len(rows) == len(methods) * len(variants)
    return same and full and len(methods) > 1 and all(_RATE.match(v) for v in variants)


def pivoted(e: Experiment) -> Layout:
    """Rates as lines, systems as column groups, one block per dataset; a variant of a system is a group of its own."""
    at = {((r.method, r.departs), r.variant): i for i, r in enumerate(e.rows)}
    methods = list(dict.fromkeys((r.method, r.departs) for r in e.rows))
    variants = list(dict.fromkeys(r.variant for r in e.rows))
    datasets = list(dict.fromkeys(c.group for c in e.columns))
    inner = [c for c in e.columns if c.group == datasets[0]]
    signed = {r.method for r in e.rows if r.described}
    lines = [
        Line((d, v), tuple(
            (at[m, v], j) if (m, v) in at else None for m in methods for c in inner
            for j, own in enumerate(e.columns) if (own.group, own.metric) == (d, c.metric)
        ), e.rows[at[methods[0], v]], k == 0, k > 0)
        for d in datasets for k, v in enumerate(variants)
    ]
    return Layout(
        ("Dataset", variants[0].partition("=")[0]), tuple(c for _ in methods for c in inner),
        tuple((m + f" {SIGN}" * (m in signed) + (f" [{name}]" if name else ""), len(inner)) for m, name in methods), tuple(lines),
    )


def settings_as_rows(e: Experiment) -> bool:
    """Whether this is a list of settings of one system by dataset, which papers print with datasets as columns."""
    return len([r for r in e.rows if not r.departs]) == 1 and bool(e.columns) and all(c.source for c in e.columns)


def settings(e: Experiment) -> Layout:
    """One line per setting, one column per dataset."""
    datasets = list(dict.fromkeys(c.group for c in e.columns))
    at = {(c.metric, c.group): j for j, c in enumerate(e.columns)}
    lines = [
        Line((metric,), tuple((0, at[metric, d]) if (metric, d) in at else None for d in datasets), e.rows[0], k == 0)
        for k, metric in enumerate(dict.fromkeys(c.metric for c in e.columns))
    ]
    columns = tuple(replace(e.columns[0], label=d, group=d, metric="setting") for d in datasets)
    return Layout(("Setting",), columns, (("", len(datasets)),), tuple(lines))


def _groups(names: Sequence[str]) -> tuple[tuple[str, int], ...]:
    runs: list[list] = []
    for name in names:
        if runs and runs[-1][0] == name:
            runs[-1][1] += 1
        else:
            runs.append([name, 1])
    return tuple((n, k) for n, k in runs)
