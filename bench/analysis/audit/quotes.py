"""The text against the tables: sentences that the printed cells do not bear out, and rows that should be one training.

The sentences are the claims of experiments/claims/<paper>.toml (but for our stricter readings) and the further numbers
quoted in quotes.toml. Where a quoted difference is not that of the row named, the other rows are searched for it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pandas as pd

from bench.analysis.audit.finding import Finding
from bench.analysis.cells import Cell, groups, half_unit, key, label, selects
from bench.analysis.claims import PAPERS, load, on_reported, parse, verdict
from bench.analysis.claims.ledger import FOLDER, Claim, Part, document
from bench.analysis.claims.predicates import Key, compile_part
from bench.analysis.claims.printed import judge

_LABELS = ("backbone", "method", "variant")


def check(frame: pd.DataFrame) -> Iterator[Finding]:
    extra = document(FOLDER / "quotes.toml")
    sentences = [*load(PAPERS), *(parse(entry, "quotes.toml") for entry in extra.get("quote", []))]
    yield from text_against_table(sentences, frame)
    yield from same_training(extra.get("same", []), frame)


def text_against_table(sentences: Iterable[Claim], frame: pd.DataFrame) -> Iterator[Finding]:
    """One finding per sentence that fails, and per sentence about a row that its table does not print."""
    sentences = [s for s in sentences if s.form != "reading"]
    cells = {key(cell): cell for cell in frame.to_dict("records")}
    tables = set(frame["artefact"])
    for claim, line in zip(sentences, on_reported(sentences, frame).to_dict("records")):
        artefacts = [a for part in claim.parts for a in sorted(tables) if selects({"artefact": part.of.get("artefact", "*")})(
            {"artefact": a}) and part.on != "runs"]
        if not artefacts or line["verdict"] not in (verdict.FAILS, verdict.UNTESTABLE):
            continue  # a figure, or nothing to say
        instead = "; ".join(s for part in claim.parts for s in _instead(part, cells))
        not_printed = line["verdict"] == verdict.UNTESTABLE
        yield Finding(
            check="text-missing" if not_printed else "text-table", level="disagrees", artefact=artefacts[0],
            cells=tuple(filter(None, line["cells"].split("; "))), printed=f"{claim.says} ({claim.where})",
            expected="a printed row that the sentence is about" if not_printed else f"{line['n']} of {line['n']}"
            if claim.need == "all" else str(claim.need),
            arithmetic=line["arithmetic"] + (f". The quoted numbers are those of {instead}" if instead else ""),
            assumption=claim.note or f"the sentence means these cells of {', '.join(dict.fromkeys(artefacts))}",
        )


def _instead(part: Part, cells: dict[Key, Cell]) -> Iterator[str]:
    """Other rows for which the quoted differences or changes that fail would hold."""
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
    for labels in groups(inside, _LABELS):
        other = dict(zip(_LABELS, labels))
        tried = compile_part(replace(part, **{field: other, "metrics": tuple(sorted(failing))}), every)
        states = [judge(c, cells) for g in tried for c in g.comparisons]
        if len(states) >= len(failing) and set(states) == {verdict.TRUE}:
            yield f"{label({'dataset': '', **other})} in {', '.join(sorted(failing))}"


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
