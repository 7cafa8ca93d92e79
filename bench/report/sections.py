"""What the page says about one artefact, as plain values for the templates."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.analysis.results import NOT_ALONE
from bench.matrix import Experiment, dataset_name
from bench.plural import count
from bench.remarks import DESCRIBED, UNRUN, remarks
from bench.report.glyphs import CSS, SIGN, forest, isolated, small_map
from bench.report.records import Figure
from bench.report.significance import ALPHA, Line, family, p_table
from bench.report.tables import MINUS, Table, data_text, p_text, runs_named
from bench.report.verdict import BETTER, BEYOND, INSIDE, NEAR, STATUSES, UNDECIDED, tally
from bench.report.words import fields, joined, plain, pretty

WORDS = {
    INSIDE: "inside",
    NEAR: "within twice",
    BEYOND: "beyond",
    BETTER: "better than reported",
    UNDECIDED: "undecided",
}
_MOST = 60  # lines of a list before the rest is counted only


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
    names = {
        "done": ("done", "done"),
        "failed": ("failed", "failed"),
        "stale": ("stale: of another data file", "stale"),
        "missing": ("not run yet", "todo"),
    }
    return [{"name": n, "count": counts.get(s, 0), "css": css, "sign": ""} for s, (n, css) in names.items()]


def section(
    t: Table, files: Sequence[tuple[str, str]], figures: Sequence[Figure], samples: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Everything the template prints about an artefact."""
    e, lines = t.experiment, family(t.grid, t.versus["proposed"])
    said = fields(e.doc)
    labels, rows = p_table(t.grid, t.versus["proposed"]) if lines else ([], [])
    problems, title = _problems(t)
    legend, below = _legend(t, primary_label(e))
    primary = primary_label(e)
    return {
        "done_text": (
            f"{t.progress['done']} of {count(sum(t.progress.values()), 'run')}"
            if t.runs
            else ("not run here" if e.seeds else "nothing is trained for it")
        ),
        "id": e.id,
        "name": artefact_name(e),
        "title": e.title,
        "kind": e.kind,
        "table": t,
        "done": t.progress["done"],
        "runs": sum(t.progress.values()),
        "provenance": t.provenance,
        "test_only": t.test_only,
        "tally": status_parts(tally(t.judged.values())),
        "subject": _subject(e),
        "claim": joined(f"{k}: {said[k]}" for k in ("Claim", "Expected") if k in said),
        "doc": [joined((f"{k}:" if k else "", text)) for k, text in said.items()],
        "legend": legend,
        "below": below,
        "files": list(files),
        "figures": [isolated(f) for f in figures],
        "remarks": [pretty(r.sentence) for r in remarks([e])],
        "notes": [pretty(n) for n in e.notes],
        "map": small_map(t),
        "command": said.get("Command", f"bench run {e.id}"),
        "departs": list(dict.fromkeys(r.departs for r in e.rows if r.departs)),
        "problems": problems,
        "problem_title": title,
        "serious": bool(t.progress["failed"] or t.progress["stale"] or t.unlearned),
        "family": _family(lines),
        "family_title": f"the proposed method on {primary}",
        "lines": lines,
        "family_text": (e.family or "the artefact's comparisons").rstrip(".") + ".",
        "p_labels": labels,
        "p_rows": [(b, name, [p_text(c.p) if c else "" for c in cs]) for b, name, cs in rows],
        **(samples or {"samples": []}),
    }


def primary_label(e: Experiment) -> str:
    return next((c.label for c in e.columns if c.metric == e.primary), e.primary)


def _subject(e: Experiment) -> str:
    datasets = list(dict.fromkeys(dataset_name(c.dataset) for c in e.configs()))
    return ", ".join(d.upper() for d in datasets[:3])


def _legend(t: Table, primary: str) -> tuple[str, str]:
    """(how to read the cells, for above the table; where the numbers are from and how they are defined, for below)."""
    n = len(t.grid.seeds)
    if not n:
        return (
            "Settings of our configuration; second line: as the paper prints them, and the difference. Italics alone: "
            "printed only."
        ), ""
    if all(c.metric.endswith("_p_value") for c in t.experiment.columns):
        test = f"Two-sided p of t-tests over {count(n, 'seed')}, paired by seed, against the proposed method"
        return f"{test}; second line: as reported.", ""
    words = [f"Mean \u00b1 sample standard deviation (ddof = 1); the small figure is the number of runs, {n} wanted."]
    if any(c.best for _, _, c in t.grid):
        words.append("Bold: best of its block; underlined: second.")
    if any(t.mark((i, j)) for i, j, _ in t.grid):
        words.append(
            f"On {primary}: * differs from the proposed method, \u00b0 from the backbone alone (Holm p < {ALPHA})."
        )
    if any(j.printed for j in t.judged.values()):
        words.append(
            "Second line: as reported (\u2020: copied by the paper), ours minus reported, verdict."
            " Italics alone: not run here."
        )
    if any(r.departs for r in t.experiment.rows):
        words.append(
            "Shaded rows, with the name of a variant, ran with other settings than the experiment's: they stand beside its "
            "rows, and outside of marks, tests and verdicts."
        )
    kinds = {r.kind for r in remarks([t.experiment])}
    if DESCRIBED in kinds:
        words.append(
            "Rows marked \u201cfrom the description\u201d (\u00a7) are of a system without public code, built from what is public of its "
            "paper; what that leaves open is chosen here, and a difference to a reported number is shown without a verdict."
        )
    if UNRUN in kinds:
        words.append("Rows marked \u201cnot run here\u201d say why below the table.")
    if t.progress["missing"]:
        words.append("\u2013: not run yet.")
    below = f"Data: {data_text(t)}."
    conventions: dict[str, dict[str, None]] = {}
    for c in t.layout.columns:
        if c.convention:
            conventions.setdefault(c.convention, {})[c.label] = None
    meanings = "; ".join(f"{', '.join(labels)}: {convention}" for convention, labels in conventions.items())
    return " ".join(words), pretty(below + (f" Conventions: {meanings}." if meanings else ""))


def _problems(t: Table) -> tuple[list[str], str]:
    """Failed, stale and missing runs, in words."""
    lines: list[str] = []
    groups: dict[tuple[str, str], list[int]] = {}
    configs = {c.id: c for _, _, cell in t.grid for c in cell.configs}
    for r in t.runs:
        c = configs[r["config"]]
        if r["status"] == "failed":
            lines.append(f"{runs_named(c, [r['seed']])} failed: {r.get('error', '')} ({r.get('folder', '')}/log.txt)")
        elif r["status"] in ("stale", "missing"):
            groups.setdefault((r["status"], c.id), []).append(r["seed"])
    words = {"stale": "stale, not known to be made from the same data file", "missing": "not run yet"}
    for (status, i), seeds in sorted(groups.items(), key=lambda g: g[0][0] != "stale"):
        lines.append(f"{runs_named(configs[i], seeds)}: {words[status]}")
    undefined = dict.fromkeys(c.id for _, _, cell in t.grid if cell.state == "undefined" for c in cell.configs)
    lines += [f"{runs_named(configs[i])}: a metric is undefined in some run" for i in undefined]
    beside = {c.id: None for _, _, cell in t.grid if cell.state == NOT_ALONE for c in cell.configs}
    if beside:
        again = f"`bench run {t.experiment.id} --results DIR`, into an empty folder, times them by themselves"
        lines.append(f"{count(len(beside), 'setting')} had other jobs beside them on their device, or do not say that they had not: {again}")
    counts = [
        f"{k} {w}"
        for s, w in (("failed", "failed"), ("stale", "stale"), ("missing", "not run yet"))
        if (k := t.progress[s])
    ]
    lines = [*t.unlearned, *lines]
    if len(lines) > _MOST:
        lines = [*lines[:_MOST], f"and {len(lines) - _MOST} more, in runs.csv"]
    missing = ", ".join(counts) if counts else "undefined values" if undefined else ""
    trained = f"Learned nothing: runs of {count(len(t.unlearned), 'cell')}" if t.unlearned else ""
    return lines, ". ".join(filter(None, (trained, missing and f"Missing: {missing}")))


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
        found.append(
            {
                "against": " ".join(dict.fromkeys(w for w in words if w)),
                "n": r.n,
                "difference": signed(r.difference, decimals),
                "interval": f"[{signed(r.low, decimals)}, {signed(r.high, decimals)}]" if math.isfinite(r.low) else "",
                "forest": forest(r.low, r.difference, r.high, reach, significant),
                "p": p_text(r.p),
                "holm": p_text(ln.holm),
                "significant": significant,
                "d_z": signed(r.d_z),
                "r": signed(r.correlation),
                "welch": p_text(r.welch_p),
                "rope": f"{ln.rope.inside:.2f}" if math.isfinite(ln.rope.inside) else "",
                "needed": (
                    "" if math.isnan(ln.needed) else "over a million" if math.isinf(ln.needed) else f"{ln.needed:.0f}"
                ),
            }
        )
    return found


def provenance_rows(runs: Iterable[Mapping[str, Any]]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Field -> its values with the number of finished runs, for the provenance table."""
    runs = [r for r in runs if r["status"] == "done"]
    rows = []
    for field, name in (
        ("provenance", "data"),
        ("data_sha256", "data sha256"),
        ("commit", "commit"),
        ("code_hash", "code hash"),
        ("device", "device"),
        ("driver", "driver"),
        ("torch", "torch"),
        ("python", "python"),
        ("cpu_threads", "threads"),
        ("test_only", "test-only encoder"),
    ):
        values = Counter(
            (str(r[field])[:12] if field in ("data_sha256", "commit", "code_hash") else plain(r[field]))
            + (" (modified)" if field == "commit" and r.get("dirty") else "")
            for r in runs if r.get(field) not in (None, "") and (field != "test_only" or r[field])
        )
        if values:
            rows.append((name, values.most_common(12)))
    hours = sum(float(r.get("wall_seconds") or 0) for r in runs) / 3600
    return [*rows, ("wall time", [(f"{hours:.2f} h in all", len(runs))])]
