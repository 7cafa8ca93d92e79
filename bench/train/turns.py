"""Driving work that is done in turns (train/loop.py: training) to its end. Imports no torch: a worker fixes its devices
first."""

from collections.abc import Generator
from contextlib import ExitStack
from typing import Any


def is_engine(value: Any) -> bool:
    """Whether a turn gave out the engine under whose context all later turns are to be taken."""
    return hasattr(value, "context") and hasattr(value, "run")


def drive(turns: Generator[Any, None, Any]) -> Any:
    """Take all turns, one after the other; returns what they return. An exception that strikes between two of them (a
    time limit by signal) is theirs to deal with."""
    with ExitStack() as contexts:
        strike: BaseException | None = None
        while True:
            try:
                value = next(turns) if strike is None else turns.throw(strike)
                strike = None
            except StopIteration as end:
                return end.value
            except Exception as e:
                if strike is not None or turns.gi_frame is None:
                    raise
                strike = e
                continue
            if is_engine(value):
                contexts.enter_context(value.context())
