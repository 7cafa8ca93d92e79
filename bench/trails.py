"""The stored trail of a search: every trial of a cell, its validation value, and what was chosen. Torch-free.

`<results>/tuning/<dataset>/<backbone>+<mixer>/<config id>-<sampler>-<budget>x<seeds>-<objective>.json` holds one search of
one cell: how it was made and its trials in order. The trials themselves are ordinary jobs beside all others; nothing
here knows a test value.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.matrix import Config
from bench.plural import count
from bench.spaces import changed
from bench.store import Store, read_json, write_json

TUNED = "tuned"  # the variant under which reports show what was chosen
PUBLISHED = 0  # number of the trial that is the published setting


@dataclass(frozen=True)
class Trial:
    number: int
    settings: Mapping[str, Any]  # what it changes about the cell, as --set takes it; empty: the published setting
    config: str  # id of the changed cell
    values: Mapping[str, float]  # tuning seed -> validation value; lacks the seeds whose job failed
    value: float | None  # their mean; None where a job failed or the trial went out at an earlier rung
    rung: int = 0  # epochs it was stopped at, 0: trained in full


@dataclass
class Trail:
    """One search of one cell."""

    cell: Mapping[str, Any]  # the published Config
    sampler: str
    budget: int
    seeds: tuple[int, ...]
    objective: str  # a validation metric, or "loss"
    space: Mapping[str, Any]
    sources: tuple[str, ...] = ()
    epochs: int = 0  # epochs trained for it, over all trials and seeds
    trials: list[Trial] = field(default_factory=list)
    data: str = ""  # sha256 of the file that its trials were trained on; "" where it is not known

    @property
    def config(self) -> Config:
        return Config(**self.cell)

    @property
    def complete(self) -> bool:
        return len(self.trials) >= self.budget

    @property
    def failed(self) -> bool:
        """Whether no trial has a value to choose by."""
        return not any(t.value is not None and not t.rung for t in self.trials)

    @property
    def name(self) -> str:
        return f"{self.cell['dataset']} {self.cell['backbone']}+{self.cell['mixer']}"

    @property
    def how(self) -> tuple:
        """What must be equal between the methods of a block for a fair fight."""
        return self.sampler, self.budget, tuple(self.seeds), self.objective

    def lower_is_better(self) -> bool:
        return lower_is_better(self.objective)

    def best(self, first: int | None = None) -> Trial:
        """The best of the first so many trials (all by default), the earlier one on a tie. Raises BenchError where no
        trial has a value."""
        sign = 1 if self.lower_is_better() else -1
        valued = [t for t in self.trials[:first] if t.value is not None and not t.rung]
        if not valued:
            raise BenchError(f"tuning of {self.name}: every trial failed; see the jobs' log.txt")
        return min(valued, key=lambda t: (sign * t.value, t.number))

    def chosen(self) -> Config:
        """The cell with the best trial's settings."""
        return changed(self.config, self.best().settings)


def lower_is_better(objective: str) -> bool:
    from bench.metrics import higher_is_better

    return not higher_is_better(objective)


def folder(store: Store, c: Config) -> Path:
    return store.root / "tuning" / c.dataset / f"{c.backbone}+{c.mixer}"


def write(store: Store, t: Trail) -> None:
    name = f"{t.config.id}-{t.sampler}-{t.budget}x{len(t.seeds)}-{t.objective}.json"
    write_json(folder(store, t.config) / name, {**asdict(t), "complete": t.complete})


def of_cell(store: Store, c: Config) -> list[Trail]:
    """The complete searches of a cell that chose something, the largest budget first. Raises BenchError, in one line,
    where a file is none."""
    return [t for t in _searches(store, c) if not t.failed]


def without_choice(store: Store, cells: Iterable[Config]) -> str:
    """The cells whose every search failed in all of its trials, in a sentence; "" where there is none."""
    names = [all_[0].name for c in dict.fromkeys(cells) if (all_ := _searches(store, c)) and all(t.failed for t in all_)]
    return f"every trial of {', '.join(dict.fromkeys(names))} failed: nothing was chosen there, it stands as published" if names else ""


def _searches(store: Store, c: Config) -> list[Trail]:
    """The complete searches of a cell, the largest budget first."""
    found = (_parse(p) for p in sorted(folder(store, c).glob(f"{c.id}-*.json")))
    return sorted((t for t in found if t is not None and t.complete), key=lambda t: -t.budget)


def read_all(store: Store) -> list[Trail]:
    """Every stored search, in order of its path."""
    found = (_parse(p) for p in sorted((store.root / "tuning").glob("*/*/*.json")))
    return [t for t in found if t is not None]


def merge(store: Store, other: Store) -> tuple[list[str], list[tuple[str, str]]]:
    """Take over another folder's searches: those that are not here, and of one that both have the one that went on
    further. Returns (searches that differ, of which the first folder's stays; files that are no search, and why)."""
    differ, damaged = [], []
    for file in sorted((other.root / "tuning").glob("*/*/*.json")):
        target = store.root / file.relative_to(other.root)
        try:
            theirs = _parse(file)
            mine = _parse(target) if target.exists() else None
        except BenchError as e:
            damaged.append((str(file), str(e)))
            continue
        if theirs is None:
            continue
        n = min(len(theirs.trials), len(mine.trials)) if mine else 0
        if mine and ((mine.how, mine.data) != (theirs.how, theirs.data) or mine.trials[:n] != theirs.trials[:n]):
            differ.append(target.relative_to(store.root).as_posix())
        elif mine is None or len(mine.trials) < len(theirs.trials):
            write(store, theirs)
    return differ, damaged


def _parse(file: Path) -> Trail | None:
    found = read_json(file)
    if found is None:
        return None
    try:
        trials = [Trial(**t) for t in found["trials"]]
        trail = Trail(**{k: v for k, v in found.items() if k not in ("trials", "complete")}, trials=trials)
        trail.seeds, trail.sources = tuple(trail.seeds), tuple(trail.sources)
        Config(**trail.cell)
    except (TypeError, KeyError, AttributeError, ValueError):
        raise BenchError(f"{file} is not a trail of `bench tune`; remove it and tune again") from None
    return trail


def unequal(trails: Iterable[Trail]) -> str:
    """Why these methods were not tuned alike, or ""."""
    groups: dict[tuple, list[str]] = {}
    for t in trails:
        groups.setdefault(t.how, []).append(f"{t.cell['backbone']}+{t.cell['mixer']}")
    if len(groups) < 2:
        return ""
    words = (
        f"{sampler}, {count(budget, 'trial')} on {count(len(seeds), 'seed')} by {objective}: {', '.join(names)}"
        for (sampler, budget, seeds, objective), names in groups.items()
    )
    return "not tuned alike: " + "; ".join(words)


def other_data(trails: Iterable[Trail], hashes: Mapping[tuple[str, str], str]) -> str:
    """Which cells were tuned on another file than the one at hand, or "". hashes: (dataset, features) -> sha256."""
    names = [t.name for t in trails if t.data and hashes.get((t.cell["dataset"], t.cell["features"]), t.data) != t.data]
    return f"tuned on another data file than the one at hand: {', '.join(dict.fromkeys(names))}; tune again" if names else ""


def finite(value: Any) -> float | None:
    """A stored value as a number, None where it is none."""
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None
