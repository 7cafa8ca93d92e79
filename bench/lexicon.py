"""English sentiment words with their valence, from the VADER lexicon (Hutto and Gilbert, ICWSM 2014; MIT licence)."""

import importlib.util
from functools import lru_cache
from pathlib import Path

from bench.errors import MissingPackage

PACKAGE = "vaderSentiment"


@lru_cache
def strongest_first() -> tuple[tuple[str, float], ...]:
    """(word, valence in [-4, 4]) of the alphabetic entries, by falling strength. Raises MissingPackage where the package is
    not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise MissingPackage(f"sentiment words need the package {PACKAGE}; run 'pip install {PACKAGE}'")
    lines = Path(found.origin).with_name("vader_lexicon.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t")[:2] for line in lines if "\t" in line]
    words = {word: float(valence) for word, valence in rows if word.isalpha() and word.isascii() and word.islower()}
    return tuple(sorted(words.items(), key=lambda item: (-abs(item[1]), item[0])))
