"""Bold against best, underline against second best.

What "best" ranges over is not in the frame: the whole column, one backbone, one variant. The grouping under which most
bold cells of an artefact are best is taken, and named in the assumption.
"""

from collections.abc import Iterator

import pandas as pd

from bench.analysis.audit.finding import Finding
from bench.analysis.cells import label, orientation

_COLUMN = ["artefact", "dataset", "metric"]
_SCOPES = (
    ([], "the whole column"), (["backbone"], "one backbone"), (["variant"], "one variant"), (["kind"], "one kind of variant"),
)


def check(frame: pd.DataFrame) -> Iterator[Finding]:
    # "Acoustic: HuBERT" is of the kind "Acoustic"
    frame = frame.assign(kind=frame["variant"].str.partition(":")[0].where(frame["variant"].str.contains(":"), ""))
    for _, artefact in frame[frame["artefact"].isin(frame["artefact"][frame["bold"].astype(bool)])].groupby("artefact"):
        keys, scope = max(_SCOPES, key=lambda s: _agreement(artefact, s[0]))
        for _, group in artefact.groupby([*_COLUMN, *keys], sort=False):
            if len(group) > 1:
                yield from _bold(group, scope)
                yield from _underline(group, scope)


def _ranked(group: pd.DataFrame) -> pd.Series:
    """1 for the best value, ties share the better rank."""
    value = group["mean"] * orientation(group["metric"].iloc[0])
    return value.rank(ascending=False, method="min")


def _agreement(artefact: pd.DataFrame, keys: list[str]) -> tuple[int, int]:
    """(bold cells that are best and best cells that are bold, minus the others; coarser scopes first on a tie)."""
    score = 0
    for _, group in artefact.groupby([*_COLUMN, *keys], sort=False):
        if len(group) > 1 and group["bold"].any():
            best, bold = _ranked(group) == 1, group["bold"].astype(bool)
            score += int((best & bold).sum()) - int((best != bold).sum())
    return score, -len(keys)


def _bold(group: pd.DataFrame, scope: str) -> Iterator[Finding]:
    bold, best = group[group["bold"].astype(bool)], group[_ranked(group) == 1]
    if bold.empty:
        return
    for _, cell in bold[~bold["cell_id"].isin(best["cell_id"])].iterrows():
        yield Finding(
            check="bold", level="disagrees", artefact=cell["artefact"], cells=(cell["cell_id"], *best["cell_id"]),
            printed=f"bold {cell['mean_text']}", expected=f"bold {best.iloc[0]['mean_text']}",
            arithmetic=f"{cell['metric']} of {label(cell)} is bold, {label(best.iloc[0])} is better",
            assumption=f"bold marks the best of {scope}, and the marks of our copy of the text are complete",
        )
    missed = best[~best["bold"].astype(bool)]
    if len(missed) and bold["cell_id"].isin(best["cell_id"]).any():
        cell = missed.iloc[0]
        yield Finding(
            check="bold", level="note", artefact=cell["artefact"], cells=tuple(missed["cell_id"]),
            printed=f"{cell['mean_text']}, not bold", expected="bold, as the other cell of the same value",
            arithmetic=f"{cell['metric']} of {label(cell)} ties with the bold cell",
            assumption=f"bold marks the best of {scope}, and the marks of our copy of the text are complete",
        )


def _underline(group: pd.DataFrame, scope: str) -> Iterator[Finding]:
    rank = _ranked(group)
    for index, cell in group[group["underline"].astype(bool)].iterrows():
        better = group[rank < rank[index]]
        if len(better) == 1 or (len(better) and better["mean"].nunique() == 1):
            continue
        yield Finding(
            check="underline", level="disagrees", artefact=cell["artefact"], cells=(cell["cell_id"], *better["cell_id"]),
            printed=f"underlined {cell['mean_text']}", expected="the second best value",
            arithmetic=f"{cell['metric']} of {label(cell)} is rank {int(rank[index])} of {len(group)}",
            assumption=f"underline marks the second best of {scope}, and the marks of our copy of the text are complete",
        )
