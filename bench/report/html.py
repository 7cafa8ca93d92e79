"""The page: one self-contained HTML file, rendered from templates/ with its style, script and data inside."""

import datetime
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2
import pandas as pd

from bench import __version__
from bench.analysis.stats import Across
from bench.matrix import dataset_name
from bench.plural import count
from bench.provenance import SYNTHETIC
from bench.report.claim_lines import claim_groups, claim_parts
from bench.report.glyphs import CSS
from bench.report.leaderboard import boards
from bench.report.payload import Rerun, payload
from bench.report.sections import provenance_rows, run_parts, signed, status_parts
from bench.report.settings import Setting
from bench.report.significance import across_cells
from bench.report.summary import cards, paper_name
from bench.report.tables import Table, number, p_text, runs_text
from bench.report.verdict import tally
from bench.report.words import joined, pretty

_VALIDATION = {
    "head": "VALIDATION",
    "text": "Every number on this page is of the validation split, which selection has seen: nothing is compared with the papers.",
}


@lru_cache
def environment() -> jinja2.Environment:
    env = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.report", "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )
    env.filters["pretty"] = pretty
    env.globals |= {"number": number, "runs_text": runs_text, "css": CSS}
    return env


def asset(name: str) -> str:
    """A style sheet or script, as it is."""
    return environment().loader.get_source(environment(), name)[0]


def rendered_at() -> str:
    """Now, or SOURCE_DATE_EPOCH where it is set (reproducible output)."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH")
    now = (
        datetime.datetime.fromtimestamp(int(fixed), datetime.timezone.utc)
        if fixed
        else datetime.datetime.now(datetime.timezone.utc)
    )
    return now.strftime("%Y-%m-%d %H:%M UTC")


def lead(tables: Sequence[Table], cells: Mapping[str, int]) -> str:
    """The report in one sentence or two."""
    kinds = {t.provenance for t in tables} - {""}
    judged = sum(cells.values()) - cells.get("undecided", 0)
    if kinds == {SYNTHETIC}:
        return "This shows that everything runs here. No number on this page says anything about a paper."
    if judged:
        at_least = cells["inside"] + cells["better"]
        missed = judged - at_least
        text = f"{at_least} of {judged} reported numbers are reached or beaten by our runs."
        if missed:
            text += (
                f" Of the other {missed}, {cells['within twice']} miss by less than twice the half-width of our "
                f"prediction interval and {cells['beyond']} by more."
            )
        return text
    if "custom" in kinds:
        return ""  # the banner says it
    if "official" in kinds:
        return "Too few runs yet to compare a reported number with."
    return "Nothing has been run yet."


def generated_only(tables: Sequence[Table]) -> bool:
    """Whether all that was run was run on generated data; artefacts without a run count for nothing."""
    return {t.provenance for t in tables} - {""} == {SYNTHETIC}


def heading(answer: Sequence[Mapping[str, Any]], synthetic: bool = False, split: str = "test") -> str:
    """The page's title: papers reproduce or not, a study of one's own comes out, generated data try the machine; what
    selection saw is no answer to either."""
    own = [c["name"] for c in answer if c["own"]]
    if split == "valid":
        return "What selection saw: the validation split"
    if len(own) == len(answer):
        return f"What came out of {', '.join(own)}"
    return "A trial run on generated data" if synthetic else "What reproduced, and what did not"


def banners(tables: Sequence[Table]) -> list[dict[str, str]]:
    kinds, found = Counter(t.provenance for t in tables), []
    if kinds["synthetic"]:
        found.append({"head": "SYNTHETIC", "text": "Made from generated data" + (
            "" if generated_only(tables) else f" in {kinds['synthetic']} of {count(len(tables), 'artefact')}") +
            ": nothing here is a result, and nothing is compared with the papers."})
    if kinds["custom"]:
        found.append(
            {
                "head": "CUSTOM DATA",
                "text": "Real feature files, but not the published ones: differences are shown without a verdict.",
            }
        )
    if kinds["unlisted"]:
        found.append(
            {
                "head": "UNLISTED DATA",
                "text": "Feature files of a format for which nobody has published a hash, so that nobody can tell whether "
                        "they are the papers': verdicts on them are marked. experiments/provenance.toml takes the hashes "
                        "of files that you know.",
            }
        )
    if any(t.test_only for t in tables):
        found.append(
            {
                "head": "TEST-ONLY ENCODER",
                "text": "Some runs used a text encoder that exists for tests; their cells are not compared.",
            }
        )
    return found


def across_rows(sections: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Across-cell tests, one line per paper and method."""
    def places(a: Across) -> int:
        return 2 if max(abs(a.low), abs(a.high)) >= 0.5 else 4

    by_paper: dict[str, list] = {}
    for s in sections:
        by_paper.setdefault(s["table"].experiment.paper, []).extend(s["lines"])
    return [
        [
            paper_name(paper),
            method,
            str(a.n),
            signed(a.mean, places(a)),
            f"[{signed(a.low, places(a))}, {signed(a.high, places(a))}]",
            str(a.wins),
            str(a.ties),
            str(a.losses),
            p_text(a.p) + (" (the smallest possible)" if a.note and a.p <= 2.0 ** (1 - a.n) else ""),
            p_text(a.sign_p),
            p_text(a.worst_p),
        ]
        for paper, lines in by_paper.items()
        for method, a in across_cells(lines).items()
    ]


def filters(tables: Sequence[Table]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The choices of the filter bar."""
    rows = [r for t in tables for r in t.experiment.rows]
    columns = {c.metric: c.label for t in reversed(tables) for c in t.experiment.columns}
    datasets = dict.fromkeys(dataset_name(c.dataset) for t in tables for c in t.experiment.configs())
    plain = {
        "backbone": dict.fromkeys(r.backbone for r in rows if r.backbone),
        "method": dict.fromkeys(r.method for r in rows if r.method),
    }
    return [
        ("dataset", [(d, d.upper()) for d in datasets]),
        *((name, [(v, v) for v in values]) for name, values in plain.items()),
        ("metric", sorted(columns.items(), key=lambda kv: kv[1].lower())),
    ]


def page(
    sections: Sequence[dict[str, Any]],
    runs: Sequence[Mapping[str, Any]],
    suite: str,
    *,
    claims: pd.DataFrame | None = None,
    own_claims: pd.DataFrame | None = None,
    audit: Sequence[Mapping[str, Any]] = (),
    adapted: Sequence[str] = (),
    unmatched: Sequence[str] = (),
    rerun: Rerun | None = None,
    settings: Mapping[str, Sequence[Setting]] | None = None,
    split: str = "test",
    training: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Render index.html. sections: those of sections.section, in the papers' order; runs: every wanted run once; training:
    of the jobs that are being trained now, what curves.in_training gives."""
    tables = [s["table"] for s in sections]
    progress = Counter(r["status"] for r in runs)
    counts = Counter()
    for t in tables:
        counts.update(tally(t.judged.values()))
    papers: dict[str, list] = {}
    for s in sections:
        papers.setdefault(paper_name(s["table"].experiment.paper), []).append(s)
    groups = claim_groups(claims, own_claims)
    answer = cards(tables, [r for g in groups for r in g["rows"]])
    for card in answer:
        card["tuned"] = joined((s.get("tuning") or {}).get("headline", "") for s in papers[card["name"]])
    box = claim_parts([r for g in groups for r in g["rows"]])
    kinds = Counter(s["kind"] for s in sections)
    words = [count(n, k) for k, n in kinds.items()]
    env = environment()
    rerun = rerun or Rerun(suite)
    env.globals["rerun"] = rerun.line
    return env.get_template("page.html").render(
        suite=suite,
        synthetic=generated_only(tables),
        style=asset("style.css"),
        script=asset("script.js"),
        data=payload(tables, rerun, settings or {}),
        training=training,
        banners=[*([_VALIDATION] if split == "valid" else []), *banners(tables)],
        lead=lead(tables, counts),
        cards=answer,
        heading=heading(answer, generated_only(tables), split),
        artefact_count=" and ".join(words),
        progress={"done": progress["done"], "all": len(runs)},
        papers=list(papers.items()),
        cells=status_parts(counts) if sum(counts.values()) else [],
        run_box=run_parts(progress),
        claims=groups,
        claim_box=box,
        audit=list(audit),
        across=across_rows(sections),
        boards=boards(tables),
        provenance=provenance_rows(runs),
        adapted=list(adapted),
        unmatched=list(unmatched),
        filters=filters(tables),
        version=f"bench {__version__}",
        rendered=rendered_at(),
    )
