"""`bench data check`: what is in a data folder, on the terminal, as JSON, and as a page with small plots."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from bench.data.tools import CheckRow
from bench.terminal.console import console, table

Others = Sequence[tuple[str, str, str]]
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1d1d1f;background:#fff}
h2{margin-top:2.2rem;border-top:1px solid #ccc;padding-top:.8rem}table{border-collapse:collapse;margin:.6rem 0}
td,th{padding:.15rem .9rem .15rem 0;text-align:left;vertical-align:top}td.n,th.n{text-align:right}
.bad{color:#a40000}.note{color:#555}svg{display:block}figure{display:inline-block;margin:.4rem 1.4rem .4rem 0}
figcaption{color:#555;font-size:13px}code{font-size:13px}
@media(prefers-color-scheme:dark){body{color:#eee;background:#161618}.bad{color:#ff8a80}.note,figcaption{color:#aaa}}"""


def as_json(folder: Path, rows: Sequence[CheckRow], others: Others) -> str:
    """Everything that is known, for machines."""
    found = [{"file": f, "what": what, "do": do} for f, what, do in others]
    return json.dumps({"folder": str(folder), "files": [asdict(r) for r in rows], "others": found}, indent=1)


def print_rows(rows: Sequence[CheckRow], others: Others) -> None:
    """A table of all files, then what there is to say of each."""
    out, lines = console(), table("dataset", "features", "state", "file", "provenance", "sizes", "text / audio / vision")
    for r in rows:
        lines.add_row(r.dataset, r.features, r.state, r.file, r.provenance, r.sizes, r.shapes)
    out.print(lines)
    for r in rows:
        if r.state == "missing" and not r.notes:
            continue
        for line in _said(r):
            out.print(f"{r.dataset}/{r.features}: {line}")
    for file, what, do in others:
        out.print(f"{file}: {what}; {do}")


def _said(r: CheckRow) -> list[str]:
    lines = [f"{r.layout}; {_variant(r)}"] if r.state == "ok" else []
    lines += r.notes
    if r.facts:
        labels = r.facts["labels"]
        parts = (f"{s} {y['negative']} / {y['zero']} / {y['positive']}" for s, y in labels.items())
        lines.append(f"labels negative / zero / positive: {', '.join(parts)}")
        zero = ", ".join(f"{name} {100 * s['zero_steps']:.1f} %" for name, s in r.facts["streams"].items())
        lines += [f"steps that are zero: {zero}"] if zero else []
        sides = {m: side for m, side in r.facts["padding"].items() if side != "none seen"}
        lines += [f"padding: {', '.join(f'{m} at the {side}' for m, side in sides.items())}"] if sides else []
        lines += [f"{s['what']}: {s['count']} ({s['do']})" for s in r.facts["suspicious"]]
    lines += [f"{name} on test: {_scores(scores)}" for name, scores in r.baselines.items()]
    return lines


def _variant(r: CheckRow) -> str:
    known = f"this is {r.variant}" if r.variant else "no published variant that is known" if r.differs else ""
    made = "generated" if r.provenance == "synthetic" else "as the papers used it"
    return "; ".join([x for x in (known,) if x] + [f"differs: {', '.join(r.differs)}" if r.differs else made])


def _scores(scores: Mapping[str, float | None]) -> str:
    return ", ".join(f"{k} {'-' if v is None else f'{v:.3f}'}" for k, v in scores.items())


def write_html(path: Path, folder: Path, rows: Sequence[CheckRow], others: Others) -> None:
    """One self-contained page."""
    found = [r for r in rows if r.state != "missing"]
    body = [f"<h1>Data in {escape(str(folder))}</h1>", _overview(rows), *(_section(r) for r in found)]
    if others:
        cells = "".join(f"<tr><td><code>{escape(f)}</code><td>{escape(w)}<td>{escape(d)}" for f, w, d in others)
        body.append(f"<h2>Other files</h2><table>{cells}</table>")
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>Data check</title><style>{_STYLE}</style>"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + "\n".join(body), encoding="utf-8", errors="backslashreplace")


def _overview(rows: Sequence[CheckRow]) -> str:
    cells = "".join(
        f"<tr><td>{escape(r.dataset)}<td>{escape(r.features)}<td{' class=bad' if r.state == 'unusable' else ''}>{r.state}"
        f"<td>{escape(r.provenance)}<td>{escape(r.sizes)}<td>{escape(r.shapes)}" for r in rows
    )
    return f"<table><tr><th>dataset<th>features<th>state<th>provenance<th>train / valid / test<th>shapes{cells}</table>"


def _section(r: CheckRow) -> str:
    parts = [f"<h2>{escape(r.dataset)} / {escape(r.features)}</h2><p><code>{escape(r.file)}</code><br>"]
    if r.state != "ok":
        return parts[0] + f"<p class=bad>{escape('; '.join(r.notes))}"
    parts.append(f"{escape(r.layout)}; {escape(_variant(r))}</p>")
    for split, y in r.facts["labels"].items() if r.facts else ():
        parts.append(f"<figure>{_bars(y['counts'])}<figcaption>labels of {split} ({y['edges'][0]:g} to {y['edges'][-1]:g}), "
                     f"n = {y['n']:,}, mean {y['mean']:g}</figcaption></figure>")  # fmt: skip
    if r.facts:
        parts.append(_streams(r.facts["streams"], r.facts["padding"]))
    if r.baselines:
        keys = list(next(iter(r.baselines.values())))
        rows = "".join(f"<tr><td>{escape(n)}" + "".join(f"<td class=n>{'-' if v is None else f'{v:.3f}'}" for v in s.values())
                       for n, s in r.baselines.items())  # fmt: skip
        parts.append(f"<table><tr><th>on test{''.join(f'<th class=n>{escape(k)}' for k in keys)}{rows}</table>")
    doubts = [f"{s['what']}: <b>{s['count']}</b> <span class=note>({escape(s['do'])})</span>" for s in r.facts.get("suspicious", ())]
    lines = [*doubts, *map(escape, r.notes)]
    return "".join([*parts, *(f"<ul>{''.join(f'<li>{x}' for x in lines)}</ul>" for _ in range(bool(lines)))])


def _streams(streams: Mapping[str, Any], padding: Mapping[str, str]) -> str:
    cells = "".join(
        f"<tr><td>{escape(name)}<td>{' x '.join(map(str, s['shape']))}<td>{escape(padding.get(name, ''))}"
        f"<td class=n>{100 * s['zero_steps']:.1f} %<td class=n>{s['constant_columns']}<td class=n>{s['least']:.4g}"
        f"<td class=n>{s['largest']:.4g}" for name, s in streams.items()
    )
    head = "<th>stream<th>shape<th>padding<th class=n>zero steps<th class=n>constant columns<th class=n>least<th class=n>largest"
    return f"<table><tr>{head}{cells}</table>" if cells else ""


def _bars(counts: Sequence[int], width: int = 220, height: int = 70) -> str:
    """A histogram as an inline drawing."""
    most, step = max([*counts, 1]), width / max(len(counts), 1)
    bars = "".join(
        f'<rect x="{i * step + 1:.1f}" y="{height - height * n / most:.1f}" width="{step - 2:.1f}" height="{height * n / most:.1f}">'
        f"<title>{n}</title></rect>" for i, n in enumerate(counts)
    )
    return f'<svg width="{width}" height="{height}" fill="#3b6ea5" role="img" aria-label="{", ".join(map(str, counts))}">{bars}</svg>'
