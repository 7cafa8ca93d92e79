"""Experiments, and the jobs they expand to. Pure: no files, no torch.

An Experiment is one table or figure of a paper. Its rows name Configs (everything scientific about a training but the
seed); a Config and a seed make a Job. A Config's id is a hash of its canonical JSON, so one run serves every table
that needs it, and no path, device, worker count or experiment name can change an id.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from bench.seeds import FIELD_SEEDS

Params = Mapping[str, Any]
_EMPTY: Params = MappingProxyType({})


def canonical(value: Any) -> Any:
    """Plain JSON value in one spelling: tuples are lists, 1.0 is 1, mappings are sorted by key when dumped."""
    if isinstance(value, Mapping):
        return {str(k): canonical(v) for k, v in sorted(value.items(), key=lambda kv: str(kv[0]))}
    if isinstance(value, (list, tuple)):
        return [canonical(v) for v in value]
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a job parameter must be finite, got {value}")
        return int(value) if value.is_integer() else value
    raise TypeError(f"a job parameter must be a plain JSON value, got {type(value).__name__}")


def _digest(description: Mapping[str, Any]) -> str:
    text = json.dumps(description, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def stored_id(d: Mapping[str, Any]) -> str:
    """The id of a stored description of a config (or of a job): the hash of all that it says, whatever version wrote it."""
    return _digest({k: canonical(v) for k, v in d.items() if k not in ("id", "seed")})


@dataclass(frozen=True, eq=False)
class Config:
    """One cell of the matrix: everything scientific about a training, without its seed."""

    dataset: str  # a name of bench/data/datasets, or "synthetic-<name>"
    features: str  # "unaligned", "aligned", ... : which feature file of the dataset
    backbone: str
    mixer: str = "none"
    backbone_params: Params = field(default_factory=lambda: _EMPTY)
    mixer_params: Params = field(default_factory=lambda: _EMPTY)
    train: Params = field(default_factory=lambda: _EMPTY)  # train/protocol.py: Protocol
    corruption: Params = field(default_factory=lambda: _EMPTY)
    fraction: float = 1.0  # share of the training split that is used
    versions: Params = field(default_factory=lambda: _EMPTY)  # component -> VERSION

    def __post_init__(self) -> None:
        for f in fields(self):  # deep copy into plain JSON: nobody can change a config after it was hashed
            object.__setattr__(self, f.name, canonical(getattr(self, f.name)))

    def as_dict(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @staticmethod
    def from_dict(d: Mapping[str, Any]) -> "Config":
        """The config of a stored description. Fields that this version does not know are left out, but count for its
        id, and fields that an older version did not write do not: the id is that under which its results lie."""
        names = {f.name for f in fields(Config)}
        config = Config(**{k: v for k, v in d.items() if k in names})
        config.__dict__["id"] = stored_id(d)  # in the place of the cached hash
        return config

    @cached_property
    def id(self) -> str:
        """12 hex digits of the sha256 of the canonical JSON."""
        return _digest(self.as_dict())

    def with_(self, **changes: Any) -> "Config":
        """A copy; mappings given here are merged over the present ones."""
        merged = {
            k: {**getattr(self, k), **v} if isinstance(v, Mapping) and k != "corruption" else v
            for k, v in changes.items()
        }
        return replace(self, **merged)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


@dataclass(frozen=True)
class Job:
    """One training: a Config and a seed."""

    config: Config
    seed: int

    @cached_property
    def id(self) -> str:
        return f"{self.config.id}-s{self.seed}"

    @cached_property
    def folder(self) -> str:
        """Path of the job folder relative to the results root."""
        c = self.config
        return f"{c.dataset}/{c.backbone}+{c.mixer}/{self.id}"

    def as_dict(self) -> dict[str, Any]:
        return {"id": self.id, "seed": self.seed, **self.config.as_dict()}

    @staticmethod
    def from_dict(d: Mapping[str, Any]) -> "Job":
        """The job of a job.json, under the id that it was stored under."""
        config, seed = Config.from_dict(d), int(d["seed"])
        stored, _, suffix = str(d.get("id", "")).rpartition("-s")
        if stored and suffix == str(seed):
            config.__dict__["id"] = stored
        return Job(config, seed)


@dataclass(frozen=True)
class Column:
    """One printed column: which metric, under which convention, how it is printed."""

    metric: str  # key in metrics.json, e.g. "non0_acc2"
    label: str  # as printed in the paper, e.g. "w-ACC2 (%)"
    group: str = ""  # column group of a table that has several (dataset or setting); selects Row.cells
    convention: str = ""  # e.g. "non-0 (p > 0, y > 0), weighted F1"
    percent: bool = True
    decimals: int = 2
    higher_is_better: bool = True
    source: str = ""  # a setting, read from the config without any run: "train.lr", "backbone_params.tau"
    words: Params = field(default_factory=lambda: _EMPTY)  # how a setting's value is printed: {"adamw": "AdamW"}; "*": others
    keys: Params = field(default_factory=lambda: _EMPTY)  # feature kind -> key under this convention, where it differs

    def key(self, config: Config) -> str:
        """The metric that a config's runs store for this column: one column has one convention, whatever file a row reads."""
        return self.keys.get(config.features, self.metric)


@dataclass(frozen=True)
class Row:
    """One printed row (or one point of a curve). `backbone`, `method`, `variant` are the labels that the
    reported-number file uses too; together they identify the row."""

    backbone: str
    method: str = ""
    variant: str = ""  # anything else that tells rows apart: "MR=0.3", "+ SASS"
    cells: Mapping[str, Config | None] = field(default_factory=dict)  # column group -> config; None: not run here
    block: str = ""  # bold = best within the block
    baseline: str = ""  # "plain" (the backbone alone), "proposed" (the paper's method), or ""
    x: float | None = None  # abscissa of a figure's point
    points: tuple[str, ...] = ()  # corruptions of the test split that its trained jobs are measured under; their mean is printed
    stated: Params = field(default_factory=lambda: _EMPTY)  # metric or "group/metric" -> what our code is without any run: number or text
    note: str = ""
    unrun: str = ""  # why its cells without a config are not run here
    described: str = ""  # the description that its model was built from, where that is all there is
    beside: bool = False  # a row of ours that the paper does not print: in no claim, no ranking, no comparison
    departs: str = ""  # name of a variant: ran with other settings than the experiment's, so that it judges no paper
    settings: tuple[str, ...] = ()  # of a variant, as after --set
    seeds: int = 0  # of a variant; 0: the experiment's

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.backbone, self.method, self.variant)

    @property
    def title(self) -> str:
        """The key in words: "LMF + MS-Mix"; a variant that begins with a plus brings it along."""
        return " + ".join(filter(None, self.key)).replace("+ + ", "+ ")

    @property
    def apart(self) -> bool:
        """Whether the row is none of the paper's: it is in no claim, ranking or comparison."""
        return self.beside or bool(self.departs)


@dataclass(frozen=True)
class Experiment:
    """One artefact (table or figure) of a paper. The factory that makes it carries claim, expected number, cost
    and command in its docstring, which lands in `doc`."""

    id: str  # as in the papers' inventory: "msmix-t1"
    paper: str  # "msmix", "powmix", "slad", "samlml", "cpsl"
    title: str
    kind: str  # "table" or "figure"
    columns: tuple[Column, ...] = ()
    rows: tuple[Row, ...] = ()
    seeds: int = 5  # 0: nothing is trained
    family: str = ""  # which p-values Holm adjusts together, in words: "all cells of the table, non0_acc2"
    primary: str = ""  # metric of the family
    notes: tuple[str, ...] = ()  # choices of ours that the paper leaves open
    figure: Params = field(default_factory=lambda: _EMPTY)  # kind and axes, for report/figures.py
    variant: str = ""  # name of the variant that all of it is of, in a figure drawn beside the default's
    doc: str = ""

    def configs(self) -> list[Config]:
        """The distinct configs of all rows, in print order."""
        return list(dict.fromkeys(c for row in self.rows for c in row.cells.values() if c is not None))

    def wanted(self, n_seeds: int | None = None) -> dict[Config, int]:
        """Config -> how many seeds are wanted of it, in print order; `n_seeds` overrides the experiment's number."""
        found: dict[Config, int] = {}
        for row in self.rows:
            n = self.seeds_of(row, n_seeds)
            for c in row.cells.values():
                if c is not None:
                    found[c] = max(n, found.get(c, 0))
        return found

    def seeds_of(self, row: Row, n_seeds: int | None = None) -> int:
        """How many seeds a row wants."""
        if not self.seeds:
            return 0
        return (row.seeds or self.seeds) if n_seeds is None else n_seeds


def dataset_name(dataset: str) -> str:
    """The published dataset behind a name: "mosi" of "synthetic-mosi-full"."""
    return dataset.removeprefix("synthetic-").removesuffix("-full") if dataset.startswith("synthetic-") else dataset


def seeds(n: int) -> tuple[int, ...]:
    """The field's seeds 1111..1115, continued upwards where a paper ran more than five."""
    return tuple(FIELD_SEEDS[0] + i for i in range(n))


def expand(experiments: Iterable[Experiment], n_seeds: int | None = None) -> list[Job]:
    """De-duplicated jobs of some experiments, first-needed first; seeds vary slowest, so that after a fifth of the
    time every cell has one run. `n_seeds` overrides the number of every experiment that trains anything."""
    wanted: dict[tuple[int, Config], Job] = {}
    for e in experiments:
        for c, n in e.wanted(n_seeds).items():
            for i, s in enumerate(seeds(n)):
                wanted.setdefault((i, c), Job(c, s))
    return [wanted[k] for k in sorted(wanted, key=lambda k: k[0])]  # sorted is stable
