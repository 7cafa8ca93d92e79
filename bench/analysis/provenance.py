"""Where data come from, from the strongest evidence to none, and what may be compared with a reported number."""

from collections.abc import Iterable

OFFICIAL, UNLISTED, CUSTOM, SYNTHETIC = PROVENANCES = ("official", "unlisted", "custom", "synthetic")
COMPARABLE = (OFFICIAL, UNLISTED)  # unlisted files are compared too, and marked


def weakest(kinds: Iterable[str]) -> str:
    """The weakest of some provenances, an unknown one being custom; "" where there are none."""
    found = [PROVENANCES.index(k) if k in PROVENANCES else PROVENANCES.index(CUSTOM) for k in kinds]
    return PROVENANCES[max(found)] if found else ""
