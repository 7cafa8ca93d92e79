"""What the page says about one artefact, as plain values for the templates."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import escape

from bench.analysis.grid import dataset_name
from bench.matrix import Experiment
from bench.report.significance import ALPHA, Line, family, p_table
from bench.report.tables import MINUS, Table, data_text, p_text, slug
from bench.report.verdict import BETTER, BEYOND, INSIDE, NEAR, STATUSES, UNDECIDED, tally

PAPERS = {"msmix": "MS-Mix", "powmix": "PowMix", "slad": "SLaD", "samlml": "SAM-LML", "cpsl": "CP+SL"}
CSS = {INSIDE: "inside", NEAR: "near", BEYOND: "beyond", BETTER: "better", UNDECIDED: "undecided"}
SIGN = {INSIDE: "\u25cf", NEAR: "\u25cb", BEYOND: "\u00d7", BETTER: "\u25b2", UNDECIDED: "?"}
WORDS = {INSIDE: "inside", NEAR: "within twice", BEYOND: "beyond", BETTER: "better than reported", UNDECIDED: "undecided"}
_MOST = 60  # lines of a list before the rest is counted only


def paper_name(paper: str) -> str:
    return PAPERS.get(paper, paper)


def artefact_name(e: Experiment) -> str:
    """ "Table 1" of "msmix-t1"."""
    tail = e.id.rpartition("-")[2]
    word = {"t": "Table", "f": "Figure"}.get(tail[:1])
    return f"{word} {tail[1:]}" if word and tail[1:].isdigit() else e.id


def status_parts(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """The segments of a verdict bar."""
    return [{"name": WORDS[s], "count": counts.get(s, 0), "css": CSS[s], "sign": SIGN[s]} for s in STATUSES]


def run_parts(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """The segments of the bar of runs."""
    names = {"done": ("done", "done"), "failed": ("failed", "failed"), "stale": ("stale: the data file has changed", "stale"),
             "missing": ("not run yet", "todo")}
    return [{"name": n, "count": counts.get(s, 0), "css": css, "sign": ""} for s, (n, css) in names.items()]


def section(t: Table, files: Sequence[tuple[str, str]], figures: Sequence[Any], samples: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Everything the template prints about an artefact."""
    e, lines = t.experiment, family(t.grid, t.versus["proposed"])
    doc = [line.strip() for line in e.doc.strip().splitlines() if line.strip()]
    labels, rows = p_table(t.grid, t.versus["proposed"]) if lines else ([], [])
    problems, title = _problems(t)
    primary = next((c.label for c in e.columns if c.metric == e.primary), e.primary)
    return {
        "id": e.id, "name": artefact_name(e), "title": e.title, "kind": e.kind, "table": t,
        "done": t.progress["done"], "runs": sum(t.progress.values()), "provenance": t.provenance,
        "test_only": t.test_only, "tally": status_parts(tally(t.judged.values())), "subject": _subject(e),
        "claim": " ".join(x for x in doc if x.startswith(("Claim:", "Expected:"))), "doc": doc, "legend": _legend(t, primary),
        "files": list(files), "figures": [_isolated(f) for f in figures], "notes": e.notes, "map": _map(t),
        "command": next((x.partition("Command:")[2].strip() for x in doc if "Command:" in x), f"bench run {e.id}"),
        "problems": problems, "problem_title": title, "serious": bool(t.progress["failed"] or t.progress["stale"]),
        "family": _family(lines), "family_title": f"the proposed method on {primary}", "lines": lines,
        "family_text": (e.family or "the artefact's comparisons").rstrip(".") + ".",
        "p_labels": labels, "p_rows": [(b, name, [p_text(c.p) if c else "" for c in cs]) for b, name, cs in rows],
        **(samples or {"samples": []}),
    }


def _subject(e: Experiment) -> str:
    datasets = list(dict.fromkeys(dataset_name(c.dataset) for c in e.configs()))
    return ", ".join(d.upper() for d in datasets[:3])


def _legend(t: Table, primary: str) -> str:
    n = len(t.grid.seeds)
    words = [f"Mean \u00b1 sample standard deviation (ddof = 1); the small figure is the number of runs, {n} wanted."]
    if any(c.best for _, _, c in t.grid):
        words.append("Bold: best of its block; underlined: second.")
    if any(t.mark((i, j)) for i, j, _ in t.grid):
        words.append(f"On {primary}: * differs from the proposed method, \u00b0 from the backbone alone (Holm p < {ALPHA}).")
    if any(j.printed for j in t.judged.values()):
        words.append("Second line: as reported (\u2020 copied by the paper), ours minus reported, verdict; italics alone: not run here.")
    if t.progress["missing"]:
        words.append("\u2013: not run yet.")
    words.append(f"Data: {data_text(t)}.")
    conventions = dict.fromkeys(f"{c.label}: {c.convention}" for c in t.layout.columns if c.convention)
    return " ".join(words) + (" Conventions: " + "; ".join(conventions) + "." if conventions else "")


def _problems(t: Table) -> tuple[list[str], str]:
    """Failed, stale and missing runs, in words."""
    lines: list[str] = []
    groups: dict[tuple[str, str], list[int]] = {}
    configs = {c.id: c for _, _, cell in t.grid for c in cell.configs}
    for r in t.runs:
        c = configs[r["config"]]
        name = f"{c.dataset} {c.backbone}+{c.mixer} ({c.id})"
        if r["status"] == "failed":
            lines.append(f"{name}, seed {r['seed']} failed: {r.get('error', '')} ({r.get('folder', '')}/log.txt)")
        elif r["status"] in ("stale", "missing"):
            groups.setdefault((r["status"], name), []).append(r["seed"])
    words = {"stale": "stale, made from another data file", "missing": "not run yet"}
    for (status, name), seeds in sorted(groups.items(), key=lambda g: g[0][0] != "stale"):
        lines.append(f"{name}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}: {words[status]}")
    undefined = {c.id for _, _, cell in t.grid if cell.state == "undefined" for c in cell.configs}
    lines += [f"{configs[i].dataset} {configs[i].backbone}+{configs[i].mixer} ({i}): a metric is undefined in at least one run" for i in undefined]
    counts = [f"{k} {w}" for s, w in (("failed", "failed"), ("stale", "stale"), ("missing", "not run yet")) if (k := t.progress[s])]
    if len(lines) > _MOST:
        lines = [*lines[:_MOST], f"and {len(lines) - _MOST} more, in runs.csv"]
    return lines, "Missing: " + (", ".join(counts) if counts else "undefined values")


def signed(value: float, n: int = 2) -> str:
    return "" if not math.isfinite(value) else f"{value:+.{n}f}".replace("-", MINUS)


def _family(lines: Sequence[Line]) -> list[dict[str, Any]]:
    reach = max((abs(x) for ln in lines for x in (ln.paired.low, ln.paired.high, 0.0) if math.isfinite(x)), default=1.0)
    found = []
    for ln in lines:
        r = ln.paired
        decimals = 2 if abs(r.mean_a) >= 2 else 4
        significant = ln.holm < ALPHA
        group = ln.group if len({x.group for x in lines}) > 1 else ""
        words = [ln.block, group, "vs", ln.other.method or ln.other.backbone, ln.other.variant]
        found.append({
            "against": " ".join(dict.fromkeys(w for w in words if w)), "n": r.n, "difference": signed(r.difference, decimals),
            "interval": f"[{signed(r.low, decimals)}, {signed(r.high, decimals)}]" if math.isfinite(r.low) else "",
            "forest": _forest(r.low, r.difference, r.high, reach, significant), "p": p_text(r.p), "holm": p_text(ln.holm),
            "significant": significant, "d_z": signed(r.d_z), "r": signed(r.correlation), "welch": p_text(r.welch_p),
            "needed": "" if math.isnan(ln.needed) else "over a million" if math.isinf(ln.needed) else f"{ln.needed:.0f}",
        })
    return found


def _forest(low: float, middle: float, high: float, reach: float, significant: bool) -> str:
    """A small interval plot; all of an artefact share one scale."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    x = [60 + 54 * v / (reach or 1.0) for v in (low, middle, high)]
    return (
        '<svg class="forest" width="120" height="16" aria-hidden="true"><line class="zero" x1="60" x2="60" y1="0" y2="16"/>'
        f'<g class="{"sig" if significant else ""}"><line class="ci" x1="{x[0]:.1f}" x2="{x[2]:.1f}" y1="8" y2="8"/>'
        f'<circle cx="{x[1]:.1f}" cy="8" r="3"/></g></svg>'
    )


def _map(t: Table) -> str:
    """The table in small: one square per cell, coloured by its verdict."""
    layout, size, gap = t.layout, 6, 1.5
    paths: dict[str, list[str]] = {}
    y = 0.0
    for line in layout.lines:
        if not any(t.cell(at).configs for at in line.cells):
            continue
        y += 3 if line.first and y else 0
        x = 0.0
        for at in line.cells:
            cell, judged = t.cell(at), t.judged[at]
            if cell.configs:
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
    name = escape(f"{t.experiment.id}: {t.progress['done']} of {sum(t.progress.values())} runs")
    return f'<svg width="{width:g}" height="{y:g}" viewBox="0 0 {width:g} {y:g}" role="img" aria-label="{name}">{body}</svg>'


def _isolated(figure: Any) -> dict[str, Any]:
    """A figure with the ids inside its SVG made its own, so that two figures on one page do not share clip paths."""
    prefix = slug(figure.id)
    svg = figure.svg[figure.svg.find("<svg"):] if "<svg" in figure.svg else figure.svg
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    return {"id": figure.id, "title": figure.title, "svg": svg, "caption": figure.caption, "csv": figure.csv, "note": figure.note}


def provenance_rows(runs: Iterable[Mapping[str, Any]]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Field -> its values with the number of finished runs, for the provenance table."""
    runs = [r for r in runs if r["status"] == "done"]
    rows = []
    for field, name in (("provenance", "data"), ("data_sha256", "data sha256"), ("commit", "commit"), ("code_hash", "code hash"),
                        ("device", "device"), ("driver", "driver"), ("torch", "torch"), ("python", "python"),
                        ("cpu_threads", "threads"), ("test_only", "test-only encoder")):
        values = Counter(
            (str(r[field])[:12] if field in ("data_sha256", "commit", "code_hash") else str(r[field]))
            + (" (modified)" if field == "commit" and r.get("dirty") else "")
            for r in runs if r.get(field) not in (None, "")
        )
        if values:
            rows.append((name, values.most_common(12)))
    hours = sum(float(r.get("wall_seconds") or 0) for r in runs) / 3600
    return [*rows, ("wall time", [(f"{hours:.2f} h in all", len(runs))])]
