"""Every table and figure of the five papers, one module per paper; what is too long for one goes on in <paper>_*.py.

A module lists its factories in EXPERIMENTS. A factory's docstring says what its artefact claims, the number to expect,
what it costs and how to run it.
"""

import difflib
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from inspect import cleandoc

from bench import plugins
from bench.errors import BenchError
from bench.experiments import unrun
from bench.matrix import Experiment

PAPERS = ("msmix", "powmix", "slad", "samlml", "cpsl")  # in this order; other papers follow by name


@lru_cache
def all_experiments() -> dict[str, Experiment]:
    """id -> Experiment, paper by paper, tables before figures. Adding an experiment is adding a factory to a module's
    EXPERIMENTS, or a module, here or in a plug-in."""
    made = []
    for m in pkgutil.iter_modules(__path__):
        for factory in getattr(importlib.import_module(f"{__name__}.{m.name}"), "EXPERIMENTS", ()):
            made.append(_made(factory))
    own = {e.id for e in made}
    for name, (path, _) in plugins.modules("experiments").items():
        try:  # one bad plug-in is a line, and nothing to the others
            for e in [_made(factory) for factory in getattr(plugins.load("experiments", name), "EXPERIMENTS", ())]:
                if e.id in own:
                    plugins.problem(f"{path}: artefact '{e.id}' is there already; give it another id")
                else:
                    own.add(e.id)
                    made.append(e)
        except Exception as e:  # noqa: BLE001 - whatever somebody else's module raises
            plugins.problem(str(e) if isinstance(e, BenchError) else f"{path}: {type(e).__name__}: {e}")
    return {e.id: e for e in sorted(made, key=_place)}


def _made(factory: Callable[[], Experiment]) -> Experiment:
    e = unrun.explained(factory())
    return e if e.doc else replace(e, doc=cleandoc(factory.__doc__ or ""))


def _place(e: Experiment) -> tuple:
    paper = (PAPERS.index(e.paper), "") if e.paper in PAPERS else (len(PAPERS), e.paper)
    number = re.search(r"\d+$", e.id)
    return (*paper, e.kind != "table", int(number.group()) if number else 0, e.id)


def select(patterns: Iterable[str]) -> list[Experiment]:
    """Experiments whose ids match any of the patterns (globs allowed); all where none is given."""
    known = all_experiments()
    patterns = [p if p in known else p.casefold() for p in patterns]
    for p in patterns:
        if not any(fnmatchcase(i, p) for i in known):
            near = difflib.get_close_matches(p, known, 1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise BenchError(f"unknown artefact '{p}'; {hint}`bench list` shows them all")
    return [e for i, e in known.items() if not patterns or any(fnmatchcase(i, p) for p in patterns)]
