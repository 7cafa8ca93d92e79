"""Search spaces of `bench tune`: what may be changed about a cell, within which range, and who says so.

A component declares its space as a literal `SPACE` in its module, or in experiments/spaces (README there). Torch-free
but for looking up a parameter's default.
"""

import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np

from bench import EXPERIMENTS, plugins, registry
from bench.errors import BenchError
from bench.matrix import Config, Experiment
from bench.seeds import stream_seed
from bench.train.protocol import Protocol

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

FOLDER = EXPERIMENTS / "spaces"
RATES = "train.rates"  # train.lr and all of train.group_lr, scaled alike
_WORDS = {"choices", "low", "high", "log", "integer", "factor", "published"}
_ROOMS = {"train": "train", "backbone": "backbone_params", "mixer": "mixer_params"}
Draw = Mapping[str, Any]  # dimension -> value


@dataclass(frozen=True)
class Dimension:
    """One thing that is searched: a few `choices`, or a range, log-uniform or of whole numbers where it says so."""

    name: str  # as after --set, or RATES
    published: Any  # the cell's own value; it is always within the dimension
    choices: tuple[Any, ...] = ()
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    integer: bool = False

    def uniform(self, dataset: str, backbone: str, trial: int) -> Any:
        """A random value that depends on dataset, backbone, trial and name alone: the methods of a backbone try the
        same learning rates in their random trials, so that none of them is luckier in its draws."""
        address = [stream_seed(dataset, backbone, trial, "tuning"), zlib.crc32(self.name.encode())]
        u = float(np.random.default_rng(address).random())
        if self.choices:
            return self.choices[int(u * len(self.choices))]
        if self.log:
            value = math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + u * (self.high + self.integer - self.low)
        return int(min(value, self.high)) if self.integer else float(f"{value:.4g}")

    def as_dict(self) -> dict[str, Any]:
        if self.choices:
            return {"choices": list(self.choices), "published": self.published}
        return {"low": self.low, "high": self.high, "log": self.log, "integer": self.integer, "published": self.published}


@dataclass(frozen=True)
class Space:
    """Everything that is searched for one cell."""

    dimensions: tuple[Dimension, ...]
    sources: tuple[str, ...]
    order: tuple[str, ...] = ()  # dimensions that the method's own paper searches one after the other

    def as_dict(self) -> dict[str, Any]:
        return {d.name: d.as_dict() for d in self.dimensions}


@lru_cache
def declared(kind: str, name: str) -> Mapping[str, Any]:
    """What a component's SPACE or file says; a backbone without either has the default's. Raises BenchError, in one
    line, where it cannot be read."""
    own = registry.constants(kind, name).get("SPACE")
    if own is not None:
        if not isinstance(own, Mapping):
            raise BenchError(f"SPACE of {name} must be a mapping (experiments/spaces/README.md)")
        return own
    path = next((p for p in plugins.files(f"spaces/{kind}", "toml") if p.stem == name), FOLDER / kind / f"{name}.toml")
    if not path.exists():
        path = FOLDER / kind / "default.toml"
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as e:
        raise BenchError(f"{path}: {e}") from None


def space(c: Config) -> Space:
    """The space of a cell: its backbone's dimensions, then its mixer's."""
    dimensions: dict[str, Dimension] = {}
    sources, order = [], []
    for kind, name in (("models", c.backbone), ("mixers", c.mixer)):
        found = declared(kind, name)
        sources.append(f"{name}: {found.get('source', 'no source stated')}")
        if isinstance(found.get("search"), (list, tuple)):
            order += found["search"]
        for key, entry in found.items():
            if key not in ("source", "search"):
                dimensions[key] = _dimension(key, entry, c, name)
    return Space(tuple(dimensions.values()), tuple(sources), tuple(k for k in order if k in dimensions))


def undeclared(cells: Iterable[Config]) -> str:
    """Which mixers of these cells say nothing of what may be searched, in a sentence; "" where all do."""
    names = [name for name in dict.fromkeys(c.mixer for c in cells) if not declared("mixers", name)]
    return f"{', '.join(names)} {'declares' if len(names) == 1 else 'declare'} no SPACE: only the backbone's settings are searched there" if names else ""


def swept(e: Experiment) -> list[str]:
    """Settings that the rows of an artefact vary and that a search would vary too: what it shows would be tuned away."""
    found: dict[str, None] = {}
    points: dict[tuple[str, ...], list[Config]] = {}
    for row in e.rows:
        for group, c in row.cells.items():
            if c is not None and row.variant and not row.apart:
                points.setdefault((group, c.dataset, c.backbone, c.mixer), []).append(c)
    for cells in points.values():
        for d in space(cells[0]).dimensions if len(cells) > 1 else ():
            if d.name != RATES and len({repr(current(c, d.name)) for c in cells}) > 1:
                found[d.name] = None
    return list(found)


def _dimension(key: str, entry: Any, c: Config, name: str) -> Dimension:
    where = f"search space of {name}, '{key}'"
    if not isinstance(entry, Mapping) or set(entry) - _WORDS:
        raise BenchError(f"{where}: takes {', '.join(sorted(_WORDS))}")
    published = 1.0 if key == RATES else current(c, key) if "published" not in entry or _sets(c, key) else entry["published"]
    if "choices" in entry:
        values = list(entry["choices"])
        return Dimension(key, published, tuple(values if published in values else [published, *values]))
    if (entry.get("log") or "factor" in entry) and isinstance(published, (int, float)) and published <= 0:
        raise BenchError(f"{where}: the cell sets {published:g}, and what is searched on a logarithmic scale lies above 0")
    if "factor" in entry:
        return Dimension(key, published, low=published / entry["factor"], high=published * entry["factor"], log=True)
    if not {"low", "high"} <= set(entry) or not entry["low"] < entry["high"]:
        raise BenchError(f"{where}: needs choices, factor, or low below high")
    if entry.get("log") and entry["low"] <= 0:
        raise BenchError(f"{where}: a log range lies above 0")
    if published is None:
        raise BenchError(f"{where}: the cell sets nothing there; say what is published = ...")
    low, high = min(entry["low"], published), max(entry["high"], published)
    return Dimension(key, published, (), low, high, bool(entry.get("log")), bool(entry.get("integer")))


def _sets(c: Config, key: str) -> bool:
    """Whether a cell itself says what a setting is."""
    room, _, name = key.partition(".")
    return room in _ROOMS and getattr(c, _ROOMS[room]).get(name) is not None


def current(c: Config, key: str) -> Any:
    """A cell's value of a setting: its own, else the component's default. Raises BenchError for an unknown name."""
    room, _, name = key.partition(".")
    if room not in _ROOMS:
        raise BenchError(f"search spaces take train.X, backbone.X and mixer.X, not '{key}'")
    mine = getattr(c, _ROOMS[room])
    if name in mine:
        return mine[name]
    if room == "train":
        params = Protocol
    else:
        params = registry.load("models", c.backbone).Params if room == "backbone" else registry.load("mixers", c.mixer).Params
    field = next((f for f in fields(params) if f.name == name), None)
    if field is None:
        raise BenchError(f"search space: {c.backbone}+{c.mixer} has no setting '{key}'")
    return field.default if field.default is not MISSING else field.default_factory()


def settings(c: Config, space: Space, draw: Draw) -> dict[str, Any]:
    """What a draw changes about a cell, as --set would take it; empty where it is the published setting."""
    changed: dict[str, Any] = {}
    for d in space.dimensions:
        value = draw[d.name]
        if value == d.published:
            continue
        if d.name == RATES:
            changed["train.lr"] = _short(current(c, "train.lr") * value)
            if rates := current(c, "train.group_lr"):
                changed["train.group_lr"] = {k: _short(v * value) for k, v in rates.items()}
        else:
            changed[d.name] = value
    return changed


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def changed(c: Config, settings: Mapping[str, Any]) -> Config:
    """The cell with some settings changed."""
    rooms: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        room, _, name = key.partition(".")
        rooms.setdefault(_ROOMS[room], {})[name] = value
    return c.with_(**rooms) if rooms else c
