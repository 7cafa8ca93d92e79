"""One thing and several things in a sentence."""

from collections.abc import Collection


def count(n: int, one: str, several: str = "") -> str:
    """1 -> "1 run", 1000 -> "1,000 runs"; `several` where that is more than one "s" at the end: ("id occurs", "ids occur")."""
    return f"{n:,} {one if n == 1 else several or one + 's'}"


def named(one: str, items: Collection[object]) -> str:
    """"seed 1111", "seeds 1111, 1112": the word before what it counts."""
    return f"{one}{'s' * (len(items) != 1)} {', '.join(map(str, items))}"
