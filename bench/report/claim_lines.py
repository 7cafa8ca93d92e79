"""What the page says of each claim: its state in words, by the data that it was tested on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.analysis.claims import CONTRADICTED, PARTLY, REPRODUCED, UNDECIDED, UNTESTABLE
from bench.plural import count
from bench.provenance import OFFICIAL, UNLISTED
from bench.report.summary import paper_name

_CLAIM = {  # state -> (css class, sign)
    REPRODUCED: ("inside", "\u25cf"), PARTLY: ("near", "\u25cb"), CONTRADICTED: ("beyond", "\u00d7"),
    UNDECIDED: ("undecided", "?"), UNTESTABLE: ("todo", "\u2013"),
}
# on files that are not the published ones a claim can hold or not, which confirms or refutes nothing about a paper
_ELSEWHERE = {
    REPRODUCED: "holding on these files", PARTLY: "partly holding on these files",
    CONTRADICTED: "not holding on these files",
}


def claim_word(line: Mapping[str, Any]) -> str:
    """A claim's state in words, by the data of the cells that it uses; a claim that says nothing about runs has none."""
    if not line["evidence"]:
        return "one training on both sides"
    state, data = line["verdict"], line["data"]
    word = state if data in ("", OFFICIAL, UNLISTED) else _ELSEWHERE.get(state, state)
    return word + (" (unlisted file)" if data == UNLISTED and state in _ELSEWHERE else "")


def claim_parts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The segments of a box of claims: those that runs can say something about."""
    counts = Counter(r["state"] for r in rows if r["evidence"])
    custom = any(r["word"] in _ELSEWHERE.values() for r in rows)
    return [{"name": _ELSEWHERE.get(s, s) if custom else s, "count": counts[s], "css": css, "sign": sign}
            for s, (css, sign) in _CLAIM.items()]


def claim_groups(claims: pd.DataFrame | None, own: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Claims by paper, with their verdict on our runs and on the printed numbers."""
    if claims is None or claims.empty:
        return []
    printed = (
        {}
        if own is None
        else {
            r["id"]: f"{r['verdict']}, {r['k']} of {r['n']}" if r["n"] else r["verdict"] for r in own.to_dict("records")
        }
    )
    groups = []
    for paper, lines in claims.groupby("paper", sort=False):
        rows = []
        for r in lines.to_dict("records"):
            css, sign = _CLAIM[r["verdict"]]
            word = claim_word(r)
            rows.append({
                "id": r["id"], "where": r["where"], "form": r["form"], "says": r["says"], "note": r["arithmetic"],
                "verdict": word, "word": word, "state": r["verdict"], "evidence": r["evidence"], "css": css,
                "sign": sign, "own": printed.get(r["id"], ""),
                "count": f"tested {r['tested']} of {count(r['n'], 'cell')}" if r["n"] and r["evidence"] else "",
            })
        groups.append({"name": paper_name(paper), "rows": rows, "box": claim_parts(rows)})
    return groups
