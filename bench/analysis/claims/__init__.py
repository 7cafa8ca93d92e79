"""What the papers claim, as predicates over table cells, and whether the numbers bear it out.

    claims = load()
    on_reported(claims, reported.load())              # the papers' own numbers
    on_runs(claims, results, reported.load())         # ours, with uncertainty
"""

from bench.analysis.claims.ledger import FORMS, KINDS, PAPERS, Claim, Part, load, parse, read
from bench.analysis.claims.printed import on_reported
from bench.analysis.claims.runs import on_runs
from bench.analysis.claims.verdict import (
    CONTRADICTED,
    FAILS,
    HOLDS,
    PARTLY,
    REPRODUCED,
    STATES,
    UNDECIDED,
    UNTESTABLE,
    VERDICTS,
)

__all__ = [
    "CONTRADICTED", "FAILS", "FORMS", "HOLDS", "KINDS", "PAPERS", "PARTLY", "REPRODUCED", "STATES", "UNDECIDED",
    "UNTESTABLE", "VERDICTS", "Claim", "Part", "load", "on_reported", "on_runs", "parse", "read",
]
