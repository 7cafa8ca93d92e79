"""Every table and figure of the five papers, one module per paper; what is too long for one goes on in <paper>_*.py.

A module lists its factories in EXPERIMENTS. A factory's docstring says what its artefact claims, the number to expect,
what it costs and how to run it.
"""

import importlib
import pkgutil
import re
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from inspect import cleandoc

from bench.errors import BenchError
from bench.matrix import Experiment

PAPERS = ("msmix", "powmix", "slad", "samlml", "cpsl")  # in this order; other papers follow by name


@lru_cache
def all_experiments() -> dict[str, Experiment]:
    """id -> Experiment, paper by paper, tables before figures. Adding an experiment is adding a factory to a module's
    EXPERIMENTS, or a module."""
    made = []
    for m in pkgutil.iter_modules(__path__):
        for factory in getattr(importlib.import_module(f"experiments.{m.name}"), "EXPERIMENTS", ()):
            e = factory()
            made.append(e if e.doc else replace(e, doc=cleandoc(factory.__doc__ or "")))
    return {e.id: e for e in sorted(made, key=_place)}


def _place(e: Experiment) -> tuple:
    paper = (PAPERS.index(e.paper), "") if e.paper in PAPERS else (len(PAPERS), e.paper)
    number = re.search(r"\d+$", e.id)
    return (*paper, e.kind != "table", int(number.group()) if number else 0, e.id)


def select(patterns: Iterable[str]) -> list[Experiment]:
    """Experiments whose ids match any of the patterns (globs allowed); all where none is given."""
    known, patterns = all_experiments(), list(patterns)
    for p in patterns:
        if not any(fnmatchcase(i, p) for i in known):
            raise BenchError(f"unknown artefact '{p}'; `bench list` shows them all")
    return [e for i, e in known.items() if not patterns or any(fnmatchcase(i, p) for p in patterns)]
