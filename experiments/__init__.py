"""Every table and figure of the five papers, one module per paper. A module lists its factories in EXPERIMENTS."""

import importlib
import pkgutil
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache

from bench.errors import BenchError
from bench.matrix import Experiment

PAPERS = ("msmix", "powmix", "slad", "samlml", "cpsl")  # in the papers' order; further modules follow by name


@lru_cache
def all_experiments() -> dict[str, Experiment]:
    """id -> Experiment, in the papers' order. Adding an experiment is adding a factory to a module's EXPERIMENTS."""
    found = [m.name for m in pkgutil.iter_modules(__path__)]
    modules = [importlib.import_module(f"experiments.{n}") for n in [*(p for p in PAPERS if p in found), *sorted(set(found) - set(PAPERS))]]
    made = [factory() for m in modules for factory in getattr(m, "EXPERIMENTS", ())]
    return {e.id: e for e in made}


def select(patterns: Iterable[str]) -> list[Experiment]:
    """Experiments whose ids match any of the patterns (globs allowed); all where none is given."""
    known, patterns = all_experiments(), list(patterns)
    for p in patterns:
        if not any(fnmatchcase(i, p) for i in known):
            raise BenchError(f"unknown artefact '{p}'; `bench list` shows them all")
    return [e for i, e in known.items() if not patterns or any(fnmatchcase(i, p) for p in patterns)]
