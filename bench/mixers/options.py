"""Checks of mixer parameters a user can set; a violation is a BenchError of one line."""

from collections.abc import Sequence

from bench.errors import BenchError


def one_of(mixer: str, name: str, value: str, allowed: Sequence[str]) -> None:
    """Raises BenchError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise BenchError(f"mixer '{mixer}': {name} must be one of {', '.join(allowed)}; got '{value}'")


def at_least(mixer: str, low: float, **values: float) -> None:
    """Raises BenchError unless every value is `low` or more."""
    for name, value in values.items():
        if value < low:
            raise BenchError(f"mixer '{mixer}': {name} must be at least {low}; got {value}")


def positive(mixer: str, **values: float) -> None:
    """Raises BenchError unless every value is greater than 0."""
    for name, value in values.items():
        if value <= 0:
            raise BenchError(f"mixer '{mixer}': {name} must be greater than 0; got {value}")


def probability(mixer: str, **values: float) -> None:
    """Raises BenchError unless every value lies in [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise BenchError(f"mixer '{mixer}': {name} must lie in [0, 1]; got {value}")


def interval(mixer: str, **values: Sequence[float]) -> None:
    """Raises BenchError unless every value is (low, high) with 0 < low <= high."""
    for name, value in values.items():
        if len(value) != 2 or not 0 < value[0] <= value[1]:
            raise BenchError(f"mixer '{mixer}': {name} must be two numbers 0 < low <= high; got {tuple(value)}")
