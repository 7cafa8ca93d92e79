"""Checks on the papers' own numbers; no training needed.

    findings = audit(reported.load())     # one line per oddity
    summary(findings)                     # counts per check and level
    grim_table(reported.load())           # pass rates of every accuracy column against chance

Each check is general: it looks at every cell it can, not at known oddities. A finding says what is not consistent with
what, under which assumption; transcription, rounding and undisclosed protocol can each explain it.
"""

from pathlib import Path

import pandas as pd

from bench.analysis.audit import averages, duplicates, grim, marks, pairs, pvalues, quotes, series, sources, spread
from bench.analysis.audit.finding import LEVELS, Check, Finding, table
from bench.analysis.audit.grim import table as grim_table
from bench.analysis.audit.grim import totals as grim_totals
from bench.errors import BenchError
from bench.names import csv_text

CHECKS: dict[str, Check] = {
    "averages": averages.check,
    "grim": grim.check,
    "pairs": pairs.check,
    "spread": spread.check,
    "marks": marks.check,
    "duplicates": duplicates.check,
    "sources": sources.check,
    "p-values": pvalues.check,
    "series": series.check,
    "text": quotes.check,
}


def audit(frame: pd.DataFrame, checks: tuple[str, ...] = tuple(CHECKS)) -> pd.DataFrame:
    """All findings on reported cells (as bench.analysis.reported.load gives them), gravest first.

    Columns: check, level (a key of LEVELS), artefact, cells (cell ids, joined with "; "), printed, expected,
    arithmetic, assumption.
    """
    return table(finding for name in checks for finding in CHECKS[name](frame))


def summary(findings: pd.DataFrame) -> pd.DataFrame:
    """Number of findings per check (lines) and level (columns), with their sum."""
    counts = findings.groupby(["check", "level"], sort=False).size().unstack(fill_value=0)
    counts = counts.reindex(columns=list(LEVELS), fill_value=0)
    return counts.assign(all=counts.sum(axis=1)).sort_index()


def write_csv(findings: pd.DataFrame, folder: Path) -> Path:
    """Writes the findings to folder/findings.csv and returns that path; the folder is made if needed."""
    path = folder / "findings.csv"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(csv_text(findings), encoding="utf-8")
    except OSError as e:
        raise BenchError(f"cannot write {path}: {str(e.strerror).lower()}; name another folder with --out") from None
    return path


__all__ = ["CHECKS", "LEVELS", "Finding", "audit", "grim_table", "grim_totals", "summary", "write_csv"]
