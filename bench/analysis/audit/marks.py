"""Bold against best, underline against second best.

What "best" ranges over is not in the frame: the whole column, one backbone, one variant. The grouping under which most
bold cells of an artefact are best is taken, and named in the assumption.
"""

from collections.abc import Iterator, Sequence

import pandas as pd

from bench.analysis.audit.finding import Finding
from bench.analysis.cells import groups, label, orientation
from bench.selectors import Cell

_COLUMN = ("artefact", "dataset", "metric")
_SCOPES = {
    "the whole column": (), "one backbone": ("backbone",), "one variant": ("variant",),
    "one kind of variant": ("kind",),
}


def check(frame: pd.DataFrame) -> Iterator[Finding]:
    cells = [{**c, "kind": c["variant"].partition(":")[0]} for c in frame.to_dict("records")]  # "Acoustic: HuBERT"
    for table in groups(cells, ["artefact"]).values():
        if not any(c["bold"] or c["underline"] for c in table):
            continue
        scope = max(_SCOPES, key=lambda name: _agreement(table, _SCOPES[name]))
        for group in groups(table, [*_COLUMN, *_SCOPES[scope]]).values():
            if len(group) > 1:
                yield from _bold(group, scope)
                yield from _underline(group, scope)


def _standing(cell: Cell) -> float:
    return cell["mean"] * orientation(cell["metric"])


def _best(group: Sequence[Cell]) -> list[Cell]:
    top = max(map(_standing, group))
    return [c for c in group if _standing(c) == top]


def _agreement(table: Sequence[Cell], keys: Sequence[str]) -> tuple[int, int]:
    """(bold cells that are best, minus those that are not and groups without any; coarser scopes first on a tie)."""
    score = 0
    for group in groups(table, [*_COLUMN, *keys]).values():
        if len(group) < 2:
            continue
        best, bold = {c["cell_id"] for c in _best(group)}, {c["cell_id"] for c in group if c["bold"]}
        score += len(best & bold) - max(len(best ^ bold), int(not bold))
    return score, -len(keys)


def _bold(group: Sequence[Cell], scope: str) -> Iterator[Finding]:
    bold, best = [c for c in group if c["bold"]], _best(group)
    for cell in bold:
        if cell not in best:
            yield _finding(
                "bold", cell, best, scope, f"bold {cell['mean_text']}", f"bold {best[0]['mean_text']}",
                f"{cell['metric']} of {label(cell)} is bold, {label(best[0])} is better",
            )
    if any(c in best for c in bold):
        for cell in best:
            if not cell["bold"]:
                yield _finding(
                    "bold", cell, [], scope, f"{cell['mean_text']}, not bold", "bold, as the other such cell",
                    f"{cell['metric']} of {label(cell)} ties with the bold cell", "note",
                )


def _underline(group: Sequence[Cell], scope: str) -> Iterator[Finding]:
    for cell in group:
        better = [c for c in group if _standing(c) > _standing(cell)]
        if cell["underline"] and len({c["mean"] for c in better}) != 1:
            yield _finding(
                "underline", cell, better, scope, f"underlined {cell['mean_text']}", "the second best value",
                f"{cell['metric']} of {label(cell)} is rank {len(better) + 1} of {len(group)}",
            )


def _finding(
    check: str, cell: Cell, others: Sequence[Cell], scope: str, printed: str, expected: str, arithmetic: str,
    level: str = "disagrees",
) -> Finding:
    return Finding(
        check=check, level=level, artefact=cell["artefact"], cells=(cell["cell_id"], *(c["cell_id"] for c in others)),
        printed=printed, expected=expected, arithmetic=arithmetic,
        assumption=f"{check} marks the {'second ' if check == 'underline' else ''}best of {scope}, and the marks in "
        "our copy of the text are complete",
    )
