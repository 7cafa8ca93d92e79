"""Small drawings of the page: a table as a map of squares, an interval, and figures made safe to sit side by side."""

import math
import re
from typing import Any

from markupsafe import escape

from bench.plural import count
from bench.report.records import Figure
from bench.report.tables import Table, slug
from bench.report.verdict import BETTER, BEYOND, INSIDE, NEAR, UNDECIDED

CSS = {INSIDE: "inside", NEAR: "near", BEYOND: "beyond", BETTER: "better", UNDECIDED: "undecided"}
SIGN = {INSIDE: "\u25cf", NEAR: "\u25cb", BEYOND: "\u00d7", BETTER: "\u25b2", UNDECIDED: "?"}


def forest(low: float, middle: float, high: float, reach: float, significant: bool) -> str:
    """A small interval plot; all of an artefact share one scale."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    x = [60 + 54 * v / (reach or 1.0) for v in (low, middle, high)]
    return (
        '<svg class="forest" width="120" height="16" aria-hidden="true">'
        '<line class="zero" x1="60" x2="60" y1="0" y2="16"/>'
        f'<g class="{"sig" if significant else ""}"><line class="ci" x1="{x[0]:.1f}" x2="{x[2]:.1f}" y1="8" y2="8"/>'
        f'<circle cx="{x[1]:.1f}" cy="8" r="3"/></g></svg>'
    )


def small_map(t: Table) -> str:
    """The table in small: one square per cell, coloured by its verdict."""
    layout = t.layout
    size, gap = (6, 1.5) if len(layout.lines) <= 40 else (4, 1.0)
    paths: dict[str, list[str]] = {}
    y = 0.0
    for line in layout.lines:
        if not any(at and t.cell(at).states for at in line.cells):
            continue
        y += 3 if line.first and y else 0
        x = 0.0
        for at in line.cells:
            cell, judged = (t.cell(at), t.judged[at]) if at else (None, None)
            if cell and cell.states:
                kind = CSS[judged.status] if judged.status and judged.status != UNDECIDED else {
                    "done": "done", "partial": "done", "missing": "todo"}.get(cell.state, "hole")
                inset = 0.5 if kind in ("hole", "todo") else 0
                side = size - 2 * inset
                paths.setdefault(kind, []).append(f"M{x + inset:g} {y + inset:g}h{side:g}v{side:g}h-{side:g}z")
            x += size + gap
        y += size + gap
    width = len(layout.columns) * (size + gap)
    if not paths:
        return ""
    body = "".join(f'<path class="m-{kind}" d="{"".join(d)}"/>' for kind, d in paths.items())
    name = escape(f"{t.experiment.id}: {t.progress['done']} of {count(sum(t.progress.values()), 'run')}")
    size_of = f'width="{width:g}" height="{y:g}" viewBox="0 0 {width:g} {y:g}"'
    return f'<svg {size_of} role="img" aria-label="{name}">{body}</svg>'


def isolated(figure: Figure) -> dict[str, Any]:
    """A figure with the ids inside its SVG made its own, so that two figures on one page do not share clip paths."""
    prefix = slug(figure.id)
    svg = figure.svg[figure.svg.find("<svg"):] if "<svg" in figure.svg else figure.svg
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    return {
        "id": figure.id,
        "title": figure.title,
        "svg": svg,
        "caption": figure.caption,
        "csv": figure.csv,
        "pdf": figure.pdf,
        "note": figure.note,
    }
