"""The report's section on tuning: per cell what was chosen and what it gained, and the value of a budget.

The choice was made on validation, on seeds of its own (bench/tune.py); test values are those of the evaluation's seeds at
the published and at the chosen setting, paired by seed. Nothing here chooses.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as Canvas

from bench.analysis.results import Cell, Results
from bench.analysis.stats import Paired, holm, paired
from bench.matrix import Column, Experiment, Job, Row
from bench.plural import count
from bench.report.plots import render
from bench.report.plots.parts import legend
from bench.report.plots.style import WIDTH, drawing, look, steps
from bench.report.tables import MINUS, Table, number
from bench.report.tuning_table import curve, numbers, points, settings
from bench.store import Store
from bench.trails import PUBLISHED, TUNED, Trail, of_cell, unequal, without_choice


def section(
    t: Table, store: Store, data: Mapping[tuple[str, str], str] | None = None, suite: str = TUNED
) -> dict[str, Any] | None:
    """What the page says of an artefact whose cells were tuned: blocks of methods, or None where none was. The runs of what
    was chosen are looked up here, whatever suite is shown; but beside the other suites only blocks of which two rows were
    searched alike are shown, for one row's search compares nothing. data: as in build."""
    e = t.experiment
    j, column = next(((j, c) for j, c in enumerate(e.columns) if c.metric == e.primary), (0, None))
    if column is None:
        return None
    found: dict[tuple[str, str], list[tuple[Row, Trail, Cell, Cell]]] = {}
    for row in e.rows:
        c = row.cells.get(column.group) if not row.departs else None
        trails = of_cell(store, c) if c is not None else []
        if trails:
            seeds, chosen = t.grid.seeds, trails[0].chosen()
            runs = Results(*store.frames([Job(chosen, s) for s in seeds], data), t.results.split)
            cells = (t.results.cell(c, column, seeds), runs.cell(chosen, column, seeds))
            found.setdefault((row.block or row.backbone, column.group), []).append((row, trails[0], *cells))
    if suite != TUNED:
        found = {k: rows for k, rows in found.items() if _compares(rows)}
    if not found:
        return None
    blocks = [_block(name, group, rows, column) for (name, group), rows in found.items()]
    every = [trail for rows in found.values() for _, trail, *_ in rows]
    return {
        "blocks": blocks, "headline": _headline(found, column), "metric": column.label, "how": _how(every[0]),
        "title": _title(found.values()),
        "split": {"valid": "validation"}.get(t.results.split, t.results.split),
        "points": points([(row, trail) for rows in found.values() for row, trail, *_ in rows]),
        "unequal": "; ".join(filter(None, (unequal(every), without_choice(store, (r.cells.get(column.group) for r in e.rows if not r.departs and r.cells.get(column.group)))))),
        "sources": list(dict.fromkeys(s for x in every for s in x.sources)),
        "svg": _curves(e, {f"{b} {g}".strip(): rows for (b, g), rows in found.items()}),
    }


def _compares(rows: Sequence[tuple[Row, Trail, Cell, Cell]]) -> bool:
    """Whether two rows of a block were searched alike."""
    return max(Counter(trail.how for _, trail, *_ in rows).values()) > 1


def _title(blocks: Collection[Sequence[tuple[Row, Trail, Cell, Cell]]]) -> str:
    if not any(map(_compares, blocks)):
        n = sum(map(len, blocks))
        return f"{count(n, 'row was', 'rows were')} searched{', no two of a block alike' if n > 1 else ''}: no methods are compared"
    same = len({trail.how for rows in blocks for _, trail, *_ in rows}) == 1 and all(map(_compares, blocks))
    return "the same budget for every method" if same else "budgets that were not the same for every method, or rows alone"


def frame(t: Table, store: Store) -> pd.DataFrame:
    """Every trial of an artefact's cells, one line each, for the csv."""
    lines, seen = [], set()
    for row in t.experiment.rows:
        for c in row.cells.values() if not row.departs else ():
            for trail in of_cell(store, c)[:1] if c is not None and c.id not in seen else ():
                seen.add(c.id)
                best = trail.best().number
                lines += [
                    {"dataset": c.dataset, "backbone": row.backbone, "method": row.method, "variant": row.variant,
                     "trial": x.number, "validation": x.value, "objective": trail.objective, "stopped_at": x.rung or "",
                     "chosen": x.number == best, "sampler": trail.sampler, "budget": trail.budget,
                     "tuning_seeds": " ".join(map(str, trail.seeds)), "settings": settings(x.settings), "config": x.config}
                    for x in trail.trials
                ]
    return pd.DataFrame(lines)


def _how(t: Trail) -> str:
    n = len(t.seeds)
    return (
        f"{count(t.budget, 'trial')} per method, the published setting among them; {t.sampler}; chosen by the validation "
        f"{t.objective}, mean over {count(n, 'tuning seed')} ({', '.join(map(str, t.seeds))})"
    )


def _block(name: str, group: str, rows: Sequence[tuple[Row, Trail, Cell, Cell]], column: Column) -> dict[str, Any]:
    plain, how = next((((p, q), trail.how) for row, trail, p, q in rows if row.baseline == "plain"), (None, None))
    sign = 1 if column.higher_is_better else -1
    gains = [_paired(tuned, published, sign) for _, _, published, tuned in rows]
    over = [
        None if plain is None or row.baseline == "plain"
        else (_paired(p, plain[0], sign), _paired(q, plain[1] if trail.how == how else _NOTHING, sign))  # only of equal searches
        for row, trail, p, q in rows
    ]
    tested = [i for i, o in enumerate(over) if o and math.isfinite(o[1].p)]
    adjusted = dict(zip(tested, holm([over[i][1].p for i in tested]) if tested else ()))
    lines, counted = [], []
    for i, (row, trail, published, tuned) in enumerate(rows):
        best, first = trail.best(), trail.trials[PUBLISHED].value
        lines.append({
            "method": _name(row), "chosen": settings(best.settings) or "as published",
            "trial": best.number, "trials": len(trail.trials), "epochs": trail.epochs,
            "valid": (_plain(first), _plain(best.value)), "published": _cell(published, column), "tuned": _cell(tuned, column),
            "gain": _interval(gains[i], column), "before": _interval(over[i][0], column) if over[i] else "",
            "after": _interval(over[i][1], column) if over[i] else "",
            "p": f"{adjusted[i]:.3f}" if i in adjusted else "",
        })
        counted.append(numbers(row, trail, published, tuned, gains[i], over[i], adjusted.get(i)))
    base = next((_name(row) for row, *_ in rows if row.baseline == "plain"), "plain")
    alone = "" if _compares(rows) else "Nothing else of this block was searched in the same way, so nothing is compared. "
    said = alone + _said(name, gains, over, column, base)
    return {"name": f"{name}{f', {group}' if group else ''}", "lines": lines, "numbers": counted, "said": said, "base": base}


_NOTHING = Cell((), ())


def _name(row: Row) -> str:
    return row.method or row.variant or "plain"


def _said(
    name: str, gains: Sequence[Paired], over: Sequence[tuple[Paired, Paired] | None], column: Column, base: str
) -> str:
    """How much of a method's gain is tuning, in a sentence."""
    both = [(o[0].difference, o[1].difference) for o in over if o and o[0].n and o[1].n]
    both = [pair for pair in both if all(map(math.isfinite, pair))]
    own = [g.difference for g in gains if g.n and math.isfinite(g.difference)]
    if not own:
        return "The chosen settings were not run on the evaluation's seeds yet: bench run --suite tuned."
    span = f" to {_signed(max(own), column)} over the methods" if len(own) > 1 else ""
    text = f"{name}: tuning alone changes {column.label} by {_signed(min(own), column)}{span}."
    if both:
        before, after = (max(x) for x in zip(*both))
        over_what = "the plain backbone" if base == "plain" else base
        text += (f" The largest gain of a method over {over_what} is {_signed(before, column)} as published, {_signed(after, column)} "
                 "with both tuned (not always the same method's; the largest of several is too large by chance).")
    return text


def _headline(found: Mapping[tuple[str, str], Sequence[tuple[Row, Trail, Cell, Cell]]], column: Column) -> str:
    """What equal tuning leaves of the proposed method's gain over the backbone alone, for the first screen; "" where it was
    not run, where the two were not tuned alike, or where no row is the backbone alone (an ablation)."""
    parts, budgets = [], []
    for (block, _), rows in found.items():
        plain = next(((trail, q) for row, trail, _, q in rows if row.baseline == "plain" and trail.config.mixer == "none"), None)
        mine = next(((row, trail, q) for row, trail, _, q in rows if row.baseline == "proposed"), None)
        if not plain or not mine or plain[0].how != mine[1].how:
            continue
        gain = _paired(mine[2], plain[1], 1 if column.higher_is_better else -1)
        if gain.n and math.isfinite(gain.difference):
            parts.append(f"{mine[0].method} {_interval(gain, column)} against plain with {block}, n = {gain.n}")
            budgets.append(plain[0].budget)
    unit = f"{column.label.replace(' (%)', '')}{', points' if column.percent else ''}; positive is better"
    trials = " or ".join(map(str, dict.fromkeys(budgets)))
    return f"Both tuned alike ({trials} {'trial' if budgets[-1:] == [1] else 'trials'} on validation): {'; '.join(parts)} ({unit})." if parts else ""


def _paired(a: Cell, b: Cell, sign: int) -> Paired:
    """a over b by seed; positive is better."""
    return paired(sign * a.by_seed(), sign * b.by_seed())


def _signed(value: float, column: Column) -> str:
    return f"{value:+.{column.decimals}f}".replace("-", MINUS)


def _interval(p: Paired, column: Column) -> str:
    if not p.n or not math.isfinite(p.difference):
        return ""
    if not math.isfinite(p.low):
        return f"{_signed(p.difference, column)} (n = {p.n})"
    return f"{_signed(p.difference, column)} [{_signed(p.low, column)}, {_signed(p.high, column)}]"


def _cell(cell: Cell, column: Column) -> tuple[str, int]:
    """Mean \u00b1 sample standard deviation, or the state; and n."""
    if not cell.shown:
        return cell.state, 0
    spread = f" \u00b1 {number(cell.std, column)}" if math.isfinite(cell.std) else ""
    return f"{number(cell.mean, column)}{spread}", cell.n


def _plain(value: float | None) -> str:
    return "failed" if value is None else f"{value:.4f}"


def _curves(e: Experiment, blocks: Mapping[str, Sequence[tuple[Row, Trail, Cell, Cell]]]) -> str:
    """Expected best validation value against the number of trials, one panel per block."""
    with drawing():
        n = min(len(blocks), 3)
        rows = math.ceil(len(blocks) / n)
        figure = Canvas((WIDTH, (2.4 if n == 1 else 2.1) * rows + 0.45), layout="constrained")
        axes = figure.subplots(rows, n, squeeze=False).ravel()
        for a, (name, lines) in zip(axes, blocks.items()):
            named = [row.method for row, *_ in lines]
            looks = [look(name or "plain") for name in named] if len(set(named)) == len(named) else steps(len(lines))
            for (row, trail, *_), style in zip(lines, looks):
                if not (values := curve(trail)):
                    continue
                a.plot(range(1, len(values) + 1), values, color=style.colour, linestyle=style.line, marker=style.marker,
                       markersize=2.5, label=_name(row))
            a.set_title(name)
            a.set_xlabel("trials")
            a.locator_params(axis="x", integer=True)
            a.set_ylabel(f"expected best validation {lines[0][1].objective}")
        for a in axes[len(blocks):]:
            a.remove()
        legend(figure, axes[:len(blocks)])
        render.freeze(figure)
        return render.svg(figure, f"{e.id}: expected validation performance against budget")

