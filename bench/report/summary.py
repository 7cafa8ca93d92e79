"""The answer in ten seconds: what a paper's main tables come to, in one sentence with its numbers.

Everything is read from the tables' own cells. A unit is one comparison of the main tables: a block of rows (a backbone
with all methods, or all systems) in the primary metric of one dataset.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.analysis.claims import ledger
from bench.errors import BenchError
from bench.matrix import Column, dataset_name
from bench.plural import count
from bench.report.picture import Mark, dots
from bench.report.tables import MINUS, Table

PAPERS = {"msmix": "MS-Mix", "powmix": "PowMix", "slad": "SLaD", "samlml": "SAM-LML", "cpsl": "CP+SL"}
_COUNT = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_PLACE = ("", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_SHOWN = 7  # methods in a picture


def paper_name(paper: str) -> str:
    return PAPERS.get(paper, paper)


@dataclass(frozen=True)
class Unit:
    """One block in one column. Values by the rows' labels, in the column's unit."""

    dataset: str
    block: str
    column: Column
    proposed: str
    plain: str  # label of the backbone alone; "" where there is none
    ours: Mapping[str, float]
    reported: Mapping[str, float]
    n: Mapping[str, int] = field(default_factory=dict)
    runs: Mapping[str, Sequence[float]] = field(default_factory=dict)  # our values, one per seed
    trainings: Mapping[str, str] = field(default_factory=dict)  # ids of the configs behind our values

    @property
    def ran(self) -> bool:
        """Whether our runs say something about the proposed method here."""
        return self.proposed in self.ours and len(self.ours) > 1

    def ranks(self, values: Mapping[str, float], among: Iterable[str]) -> dict[str, float]:
        """Rank of each label, 1 for the best; ties share the mean of their places."""
        names = [k for k in among if k in values]
        sign = -1 if self.column.higher_is_better else 1
        v = np.array([sign * values[k] for k in names])
        return {k: float((v < x).sum() + (v == x).sum() / 2 + 0.5) for k, x in zip(names, v)}

    def gain(self, values: Mapping[str, float], label: str, over: str) -> float:
        return values[label] - values[over] if label in values and over in values else math.nan


def units(tables: Sequence[Table]) -> list[Unit]:
    """The units of a paper's main tables: those whose proposed row is a method among others, not a variant of itself."""
    found = []
    for t in tables:
        e = t.experiment
        for j, column in enumerate(e.columns):
            if e.kind != "table" or column.metric != e.primary or column.source:
                continue
            for block, rows in t.grid.blocks.items():
                at = {kind: t.grid.baselines.get((block, kind)) for kind in ("proposed", "plain")}
                if at["proposed"] is None or e.rows[at["proposed"]].variant:
                    continue
                label = {i: e.rows[i].method or e.rows[i].backbone for i in rows if not e.rows[i].variant}
                cells = {i: t.grid.cells[i][j] for i in label}
                configs = [c for cell in cells.values() for c in cell.configs]
                found.append(Unit(
                    column.group or (dataset_name(configs[0].dataset).upper() if configs else ""), block, column,
                    label[at["proposed"]], label.get(at["plain"], ""),
                    {label[i]: c.mean for i, c in cells.items() if c.shown and not c.derived},
                    {label[i]: p.mean for i in label if (p := t.judged[i, j].printed)},
                    {label[i]: c.n for i, c in cells.items() if c.shown},
                    {label[i]: c.finite for i, c in cells.items() if c.shown},
                    {label[i]: " ".join(x.id for x in c.configs) for i, c in cells.items() if c.shown},
                ))
    return found


def ordinal(place: float, of: int) -> str:
    """"first", "last" or "third", and of how many."""
    count = _COUNT[of] if of < len(_COUNT) else str(of)
    k = round(place)
    word = "last" if k == of > 2 else _PLACE[k] if k < len(_PLACE) else f"{k}th"
    return f"{word} of {count}"


def standing(found: Sequence[Unit], which: str = "ours") -> tuple[int, int, float] | None:
    """(place of the proposed method by mean rank, of how many, its mean rank) over units; methods that are not in all of
    them do not count. None where nothing can be ranked."""
    values = [getattr(u, which) for u in found]
    if not found or any(u.proposed not in v for u, v in zip(found, values)):
        return None
    common = [k for k in values[0] if all(k in v for v in values)]
    if len(common) < 2:
        return None
    ranks = [u.ranks(v, common) for u, v in zip(found, values)]
    mean = {k: float(np.mean([r[k] for r in ranks])) for k in common}
    mine = mean[found[0].proposed]
    return 1 + sum(m < mine - 1e-9 for m in mean.values()), len(common), mine


def amount(value: float, column: Column) -> str:
    """A signed difference with its unit: "−2.73 points"."""
    text = f"{value:+.{column.decimals}f}".replace("-", MINUS)
    return text + (" points" if column.percent else "")


def label_of(column: Column) -> str:
    return column.label.replace(" (%)", "").rstrip(".")


def sentence(name: str, tables: Sequence[Table], found: Sequence[Unit]) -> str:
    """What the main tables come to, in words."""
    ran = [u for u in found if u.ran]
    if not ran:
        return _alone(name, tables, found)
    column = ran[0].column
    where = _list(dict.fromkeys(u.dataset for u in ran if u.dataset))
    parts = []
    place = standing(ran)
    if place and place[1] > 2:
        parts.append(f"{ordinal(place[0], place[1])} in mean rank")
    over, whom = _over(ran, "ours")
    if math.isfinite(over):
        parts.append(f"{label_of(column)} {amount(over, column)} against {whom}")
    seeds = sorted({u.n[k] for u in ran for k in u.n if k == u.proposed})
    parts.append(f"n = {seeds[0]}" + (f" to {seeds[-1]}" if len(seeds) > 1 else ""))
    if len(found) > 1:
        what = "backbones" if len({u.dataset for u in found}) == 1 and len({u.block for u in found}) > 1 else "comparisons"
        parts.append(f"{len(ran)} of {len(found)} {what} run")
    text = f"{name} on {where}: {', '.join(parts)}" if where else f"{name}: {', '.join(parts)}"
    return text + _paper(found) + "."


def _over(found: Sequence[Unit], which: str) -> tuple[float, str]:
    """(mean difference to the backbone alone, or to the best other, over units, what it is against)."""
    values = [(u, getattr(u, which)) for u in found]
    plain = [u.gain(v, u.proposed, u.plain) for u, v in values if u.plain]
    if any(map(math.isfinite, plain)):
        return float(np.nanmean(plain)), "the backbone alone"
    best = []
    for u, v in values:
        others = [x for k, x in v.items() if k != u.proposed]
        if others and u.proposed in v:
            best.append(v[u.proposed] - (max if u.column.higher_is_better else min)(others))
    return (float(np.mean(best)), "the best other") if best else (math.nan, "")


def _paper(found: Sequence[Unit]) -> str:
    """How the paper has it, of all its units."""
    told = [u for u in found if u.proposed in u.reported and len(u.reported) > 1]
    if not told:
        return ""
    places = [u.ranks(u.reported, u.reported)[u.proposed] for u in told]
    first = places.count(1)
    if len(told) == 1:
        return f"; the paper has it {ordinal(places[0], len(told[0].reported))}"
    where = "first everywhere" if first == len(told) else f"first in {first} of {len(told)}" if first else "nowhere first"
    return f"; the paper has it {where}"


def _alone(name: str, tables: Sequence[Table], found: Sequence[Unit]) -> str:
    """Where nothing can be compared: the proposed method by itself, a variant of it, or how far the runs are."""
    finished, wanted = sum(t.progress["done"] for t in tables), sum(sum(t.progress.values()) for t in tables)
    for u in found:
        if u.proposed in u.ours:
            text = f"{name} on {u.dataset}: {label_of(u.column)} {u.ours[u.proposed]:.{u.column.decimals}f}, n = {u.n[u.proposed]}"
            if u.proposed in u.reported:
                text += f", {amount(u.ours[u.proposed] - u.reported[u.proposed], u.column)} against the paper"
            return f"{text}; nothing else of its tables was run, so nothing is ranked."
    apart = sum(r["status"] == "done" for t in tables for r in t.runs if t.row_by_id(r["config"]).departs)
    if apart:
        return f"{name}: {count(apart, 'run')} with other settings than the paper's, which say nothing about it; none with its own."
    return f"{name}: {finished} of {count(wanted, 'run')} done, none of a method beside others." if finished else f"{name}: not run yet ({count(wanted, 'run')})."


def _list(words: Iterable[str]) -> str:
    words = list(words)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else ""


# --- the picture ----------------------------------------------------------------------------------------------------

def picture(found: Sequence[Unit]) -> str:
    """Ours against reported: the gain of each method over the backbone alone, or of the proposed system over the number
    that the paper prints. "" where there is nothing of ours."""
    ran = [u for u in found if u.ran and u.plain in u.ours]
    if not ran:
        return _against_paper([u for u in found if u.proposed in u.ours and u.proposed in u.reported])
    column, proposed = ran[0].column, ran[0].proposed
    marks = []
    for method in dict.fromkeys(k for u in ran for k in (*u.ours, *u.reported) if k != u.plain):
        ours = [g for u in ran if math.isfinite(g := u.gain(u.ours, method, u.plain))]
        told = [g for u in ran if math.isfinite(g := u.gain(u.reported, method, u.plain))]
        marks.append(Mark(method, ours, float(np.mean(told)) if told else math.nan, method == proposed))
    unit = "points" if column.percent else ""
    better = "right" if column.higher_is_better else "left"
    title = f"{label_of(column)} over the backbone alone" + (f", {unit}" if unit else "") + f" ({better} is better)"
    return dots(marks[-_SHOWN:], title)


def _against_paper(found: Sequence[Unit]) -> str:
    if not found:
        return ""
    marks = [
        Mark(" ".join(filter(None, (u.dataset, label_of(u.column)))), [u.ours[u.proposed] - u.reported[u.proposed]], 0.0, True)
        for u in found[:_SHOWN]
    ]
    return dots(marks, f"{found[0].proposed}, ours minus reported" + (", points" if found[0].column.percent else ""))


# --- cards ----------------------------------------------------------------------------------------------------------

def headlines(paper: str) -> list[str]:
    """Ids of the claims that a paper stands for; empty where its ledger names none."""
    try:
        return list(ledger.document(ledger.FOLDER / f"{paper}.toml").get("headlines", ()))
    except BenchError:
        return []


def cards(tables: Sequence[Table], claims: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One card per paper (or own study) for the first screen. claims: the rows of claim_lines.claim_groups, all papers."""
    by_paper: dict[str, list[Table]] = {}
    for t in tables:
        by_paper.setdefault(t.experiment.paper, []).append(t)
    rows = {r["id"]: r for r in claims}
    found = []
    for paper, mine in by_paper.items():
        main = units(mine)
        found.append({
            "name": paper_name(paper), "anchor": mine[0].experiment.id, "sentence": sentence(_subject(paper, main), mine, main),
            "picture": picture(main), "own": paper not in PAPERS,
            "reported": any(u.reported for u in main), "claims": [rows[i] for i in headlines(paper) if i in rows],
        })
    return found


def _subject(paper: str, main: Sequence[Unit]) -> str:
    """What a sentence is about: the paper's method, or that of somebody's own study."""
    if paper in PAPERS:
        return PAPERS[paper]
    return main[0].proposed if main else paper
