"""What the figures and rows of an artefact need computed from kept weights. Pure: no files, no torch.

A measure is a kind and its settings; of which job it is says the folder that it is stored in (spec.py).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from bench.data.corruption import VERSION as CORRUPTION_VERSION
from bench.matrix import Column, Config, Experiment, Row, canonical
from bench.selectors import selects

VERSIONS = {"landscape": 1, "tsne": 1, "labels": 1, "probe": 1, "attention": 1, "sweep": 1}  # of the code that computes each kind
MEASURED = {"density": "labels", "bars": "probe", **{k: k for k in ("landscape", "tsne", "attention")}}  # figure kind
_OF_PANEL = {"tsne": ("modality",), "attention": ("query", "key", "noised")}  # what a panel adds to the settings

Panel = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Measure:
    """What is computed from one job's weights: a kind of VERSIONS and its settings, plain JSON values."""

    kind: str
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", canonical(self.settings))

    @cached_property
    def id(self) -> str:
        """12 hex digits of the sha256 of the canonical JSON of kind, settings and the kind's version."""
        what = {"kind": self.kind, "settings": self.settings, "version": VERSIONS[self.kind]}
        text = json.dumps(what, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def stem(self) -> str:
        """File name in the job's folder, without suffix."""
        return f"{self.kind}-{self.id}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Measure) and self.stem == other.stem

    def __hash__(self) -> int:
        return hash(self.stem)


class Need(NamedTuple):
    """One measure that an artefact's figure needs: of `row`'s config in column group `group`, drawn in `panel`."""

    row: Row
    group: str
    panel: Panel
    config: Config
    measure: Measure


def measures(e: Experiment) -> list[Need]:
    """What an artefact's figure needs, in the order of its panels; empty for figures that need no weights."""
    found = []
    for panel in e.figure.get("panels", ()):
        for row in panel_rows(e, panel):
            need = measure_of(e, row, panel)
            if need is not None:
                found.append(Need(row, panel["group"], panel, *need))
    return found


def sweeps(e: Experiment) -> list[tuple[Config, Measure]]:
    """What an artefact's rows ask of trained jobs by their `points`: one measure per config and kind of corruption, with
    all of its rates."""
    asked: dict[Config, dict[str, dict[str, None]]] = {}
    for row in e.rows:
        for config in row.cells.values() if row.points else ():
            if config is not None:
                for name in row.points:
                    asked.setdefault(config, {}).setdefault(name.rpartition("-")[0], {})[name] = None
    return [
        (config, Measure("sweep", {"points": sorted(points), "corruption": CORRUPTION_VERSION}))
        for config, kinds in asked.items() for points in kinds.values()
    ]


def panel_rows(e: Experiment, panel: Panel) -> list[Row]:
    """The rows that a panel draws, by its selector."""
    means = selects(panel.get("rows", {}))
    labels = ({"backbone": r.backbone, "method": r.method, "variant": r.variant} for r in e.rows)
    return [
        r for r, cell in zip(e.rows, labels)
        if panel.get("group") in r.cells and means(cell if r.x is None else {**cell, "x": r.x})
    ]


def measure_of(e: Experiment, row: Row, panel: Panel) -> tuple[Config, Measure] | None:
    """The config and the measure behind a row in a panel, the same for every seed; None where the panel needs no
    measure of the row, or the row is not run here."""
    kind = MEASURED.get(panel.get("kind", e.figure["kind"]))
    config = row.cells.get(panel.get("group"))
    if kind is None or config is None or kind == "probe" and row.variant not in panel.get("probed", {}):
        return None
    extra = {name: panel[name] for name in _OF_PANEL.get(kind, ()) if name in panel}
    return config, Measure(kind, {**e.figure.get("settings", {}), **extra})


def point(e: Experiment, row: Row, column: Column) -> str | None:
    """Under which name a frame of values holds a cell that the figure computes, as <metric>@<point>; None for a cell
    that every run stores."""
    if column.metric not in e.figure.get("computed", ()):
        return None
    if e.figure["kind"] == "dynamics":
        return f"{e.id}:{row.variant}"
    for panel in e.figure["panels"]:
        if panel.get("group") == column.group and row in panel_rows(e, panel):
            need = measure_of(e, row, panel)
            probed = panel.get("probed", {}).get(row.variant)
            return need and need[1].stem + (f":{probed}" if probed else "")
    return None
