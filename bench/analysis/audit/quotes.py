"""The text against the tables: sentences that the printed cells do not bear out, and rows that should be one training.

The sentences are the claims of experiments/claims/<paper>.toml (but for our stricter readings) and the further numbers
quoted in quotes.toml. Where a quoted difference is not that of the row named, the other rows are searched for it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase

import pandas as pd

from bench.analysis.audit.finding import Finding, some
from bench.analysis.cells import by_key, groups, half_unit, label
from bench.analysis.claims import PAPERS, load, on_reported, parse, verdict
from bench.analysis.claims.ledger import FOLDER, Claim, Part, document
from bench.analysis.claims.predicates import Key, compile_part
from bench.analysis.claims.printed import judge
from bench.selectors import Cell, selects

_LABELS = ("backbone", "method", "variant")


def check(frame: pd.DataFrame) -> Iterator[Finding]:
    extra = document(FOLDER / "quotes.toml")
    sentences = [*load(PAPERS), *(parse(entry, "quotes.toml") for entry in extra.get("quote", []))]
    yield from text_against_table(sentences, frame)
    yield from same_training(extra.get("same", []), frame)


def text_against_table(sentences: Iterable[Claim], frame: pd.DataFrame) -> Iterator[Finding]:
    """One finding per sentence that fails, and per sentence about a row that its table does not print."""
    sentences = list(sentences)
    cells = by_key(frame.to_dict("records"))
    for claim, line in zip(sentences, on_reported(sentences, frame).to_dict("records")):
        artefacts = _tables(claim, frame)
        if not artefacts or line["verdict"] not in (verdict.FAILS, verdict.UNTESTABLE):
            continue  # about a figure, or nothing to say
        instead = "; ".join(s for part in claim.parts for s in _instead(part, cells))
        not_printed, ours = line["verdict"] == verdict.UNTESTABLE, claim.form == "reading" or claim.our_margin
        yield Finding(
            check="text-missing" if not_printed else "text-reading" if ours else "text-table",
            level="note" if ours else "disagrees", artefact=artefacts[0],
            cells=tuple(filter(None, line["cells"].split("; "))), printed=f"{claim.says} ({claim.where})",
            expected="a printed row that the sentence is about" if not_printed else _needed(claim, line["n"]),
            arithmetic=line["arithmetic"] + (f". The quoted numbers are those of {instead}" if instead else ""),
            assumption=(claim.note + " " if claim.note else "")
            + ("A stricter reading of ours, or a margin of ours. " if ours else "")
            + f"The sentence means these cells of {', '.join(artefacts)}.",
        )


def _tables(claim: Claim, frame: pd.DataFrame) -> list[str]:
    """The printed tables a claim is about; none where one of its parts is about something that is not printed."""
    found: list[str] = []
    for part in claim.parts:
        if part.on == "runs":
            continue
        named = part.of.get("artefact", [])
        for pattern in [named] if isinstance(named, str) else named:
            tables = [a for a in dict.fromkeys(frame["artefact"]) if fnmatchcase(a, pattern)]
            if not tables:
                return []
            found += tables
    return list(dict.fromkeys(found))


def _needed(claim: Claim, n: int) -> str:
    if isinstance(claim.need, dict):
        return f"{claim.need['share']:.0%} of {n}"
    return {"all": f"{n} of {n}", "any": f"at least 1 of {n}", "majority": f"more than {n // 2} of {n}"}.get(
        claim.need, f"{claim.need} of {n}"
    )


def _instead(part: Part, cells: dict[Key, Cell]) -> Iterator[str]:
    """The other rows for which most of the quoted differences or changes that fail would hold."""
    field = {"difference": "against", "change": "row"}.get(part.kind)
    if field is None:
        return
    every = list(cells.values())
    failing = {
        g.comparisons[0].terms[0].key[-1] for g in compile_part(part, every)
        if g.comparisons[0].terms and judge(g.comparisons[0], cells) == verdict.FALSE
    }
    if not failing:
        return
    named = selects(part.row if field == "row" else part.against)
    inside = [c for c in filter(selects(part.of), every) if not named(c)]
    fit: dict[str, int] = {}
    for labels in groups(inside, _LABELS):
        other = dict(zip(_LABELS, labels))
        tried = compile_part(replace(part, **{field: other, "metrics": tuple(sorted(failing))}), every)
        states = [judge(c, cells) for g in tried for c in g.comparisons]
        fit[label({"dataset": "", **other})] = states.count(verdict.TRUE)
    most = max(fit.values(), default=0)
    if 2 * most > len(failing):
        rows = [row for row, count in fit.items() if count == most]
        yield f"{some(rows)} ({most} of {len(failing)}: {', '.join(sorted(failing))})"


def same_training(declared: Iterable[dict], frame: pd.DataFrame) -> Iterator[Finding]:
    """Rows that the paper's equations make one training: their differences are run-to-run noise."""
    cells = frame.to_dict("records")
    for entry in declared:
        inside = list(filter(selects(entry["of"]), cells))
        a, b = ({c["metric"]: c for c in filter(selects(entry[side]), inside)} for side in ("row", "other"))
        pairs = [(a[m], b[m]) for m in a if m in b and not m.endswith("_change")]
        off = [(x, y) for x, y in pairs if abs(x["mean"] - y["mean"]) > half_unit(x["mean_text"])]
        if off:
            yield Finding(
                check="same-training", level="implausible", artefact=off[0][0]["artefact"],
                cells=tuple(c["cell_id"] for pair in off for c in pair),
                printed=", ".join(f"{x['metric']} {x['mean_text']} / {y['mean_text']}" for x, y in off),
                expected="equal numbers, or a measure of run-to-run noise",
                arithmetic=f"{label(off[0][0])} and {label(off[0][1])} differ in {len(off)} of {len(pairs)} metrics",
                assumption=entry["because"],
            )
