"""Selecting rows and cells by their labels, as experiments, claims and figures do, and jobs by name (--only). Pure."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.matrix import Config, Experiment, Job, Row, dataset_name

Selector = Mapping[str, Any]
Cell = Mapping[str, Any]  # one line of a frame of cells (analysis/cells.py)


@lru_cache(maxsize=None)
def number(text: str) -> float:
    """The first number in a variant's label: 0.3 of "MR=0.3", 0.7 of "xi_1=0.7"; NaN where there is none."""
    found = re.search(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?", text)
    return float(found.group()) if found else float("nan")


def selects(where: Selector) -> Callable[[Cell], bool]:
    """A test of cells: the ones a selector means.

    Values are texts, with * and ? as wildcards, or lists of them; "" is the empty label and "!SLaD" all but SLaD. `x`
    selects by number: the field `x` where a cell has one, else the first number of its variant. Testing raises KeyError
    for a field that cells do not have.
    """
    texts = [(k, tuple([v] if isinstance(v, str) else v)) for k, v in where.items() if k != "x"]
    numbers = {round(float(v), 9) for v in np.atleast_1d(where["x"])} if "x" in where else None

    def test(cell: Cell) -> bool:
        if not all(_means(cell[field], patterns) for field, patterns in texts):
            return False
        return numbers is None or round(float(cell.get("x", number(cell["variant"]))), 9) in numbers

    return test


@lru_cache(maxsize=None)
def _means(value: str, patterns: tuple[str, ...]) -> bool:
    if any(fnmatchcase(value, p[1:]) for p in patterns if p.startswith("!")):
        return False
    wanted = [p for p in patterns if not p.startswith("!")]
    return not wanted or any(fnmatchcase(value, p) for p in wanted)


# --- jobs by name ----------------------------------------------------------------------------------------------------

def row_labels(experiments: Iterable[Experiment]) -> dict[Config, set[str]]:
    """Config -> what the rows and column groups that it stands in are called."""
    found: dict[Config, set[str]] = {}
    for e in experiments:
        for row in e.rows:
            for group, c in row.cells.items():
                if c is not None:
                    found.setdefault(c, set()).update(_labels(row, group))
    return found


def _labels(row: Row, group: str) -> set[str]:
    return {group, row.block, row.backbone, row.method, row.variant, f"{row.backbone}+{row.method}"} - {""}


class Only:
    """Which jobs --only means: "tfn,lmf" either; given twice, what both mean.

    A part is a name or a glob, whatever the case of its letters, of a dataset, backbone, mixer, feature kind, of a row's block,
    system, method or variant, of "dataset/backbone+mixer", or a job's id or folder. Not given: all jobs. Raises BenchError for a text without a name, which would mean them all too.
    """

    def __init__(self, given: str | Sequence[str] | None = None) -> None:
        texts = [given] if isinstance(given, str) else list(given or ())
        groups = [tuple(p.strip() for p in t.split(",") if p.strip()) for t in texts]
        if not all(groups):
            raise BenchError(f"--only '{texts[groups.index(())]}' names nothing; leave it out for every job")
        self.text = " --only ".join(texts)
        self._groups = groups
        self._met: set[str] = set()  # parts that meant something
        self._known: set[str] = set()  # names that were there to be meant

    def __bool__(self) -> bool:
        return bool(self._groups)

    def job(self, job: Job, labels: Iterable[str] = ()) -> bool:
        """Whether a job is meant; `labels`: of its rows."""
        return self._means(_names(job.config, labels), (job.id, job.folder))

    def cell(self, config: Config, seeds: Iterable[int], labels: Iterable[str] = ()) -> bool:
        """Whether any of a cell's jobs is meant."""
        return self._means(_names(config, labels), [n for s in seeds for n in (Job(config, s).id, Job(config, s).folder)])

    def row(self, row: Row, group: str, config: Config, seeds: Iterable[int]) -> bool:
        """Whether a row's cell in a column group is meant."""
        return self.cell(config, seeds, _labels(row, group))

    def _means(self, names: set[str], jobs: Sequence[str]) -> bool:
        self._known |= names
        found = True
        for group in self._groups:
            met = [p for p in group if any(_named(n, p) for n in (*names, *jobs))]
            self._met.update(met)
            found = found and bool(met)
        return found

    def unmet(self) -> list[str]:
        """One line per part that meant nothing of what was asked about so far."""
        lines = []
        for part in dict.fromkeys(p for g in self._groups for p in g if p not in self._met):
            near = difflib.get_close_matches(part.casefold(), {n.casefold(): n for n in self._known}, 1)
            lines.append(f"--only: '{part}' matches nothing" + (f"; did you mean '{near[0]}'?" if near else ""))
        return lines


def _names(config: Config, labels: Iterable[str]) -> set[str]:
    c, published = config, dataset_name(config.dataset)
    cell = f"{c.backbone}+{c.mixer}"
    return {c.dataset, published, c.features, c.backbone, c.mixer, cell, f"{c.dataset}/{cell}", f"{published}/{cell}", *labels}


def _named(name: str, part: str) -> bool:
    name, part = name.casefold(), part.casefold()
    return name == part or fnmatchcase(name, part)
