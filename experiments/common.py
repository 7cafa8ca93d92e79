"""From names (paper, backbone, mixer, dataset) to a Config, through the hyperparameter files.

A config carries its parameters in full, so that its id changes when they do, and the VERSION of every component, so
that its id changes when code that can change numbers does.
"""

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench import registry
from bench.errors import BenchError
from bench.matrix import Column, Config
from bench.train import protocol

_FOLDER = Path(__file__).parent / "hyperparameters"


@lru_cache
def _toml(name: str) -> dict[str, Any]:
    path = _FOLDER / f"{name}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def settings(paper: str, backbone: str, dataset: str) -> dict[str, Any]:
    """{"params", "train", "features", "source"} of a backbone on a dataset: M-SENA's or the official configuration,
    overlaid with what the paper (or its release) says otherwise. Raises BenchError where nothing is known."""
    found: dict[str, Any] = {"params": {}, "train": {}, "features": "unaligned", "source": []}
    known = False
    for name in ("msena", "finetuned", "systems", paper):
        section = _toml(name).get(backbone, {})
        if not isinstance(section, Mapping) or not section:
            continue
        mine = section.get(dataset, {})
        known = known or bool(mine)
        found["params"] = {**found["params"], **mine.get("params", {})}
        found["train"] = {**found["train"], **mine.get("train", {})}
        found["features"] = mine.get("features", section.get("features", found["features"]))
        found["source"] += [s for s in (mine.get("source", section.get("source")),) if s]
    if not known:
        raise BenchError(f"no hyperparameters for backbone '{backbone}' on dataset '{dataset}'")
    return found


def mixer_params(paper: str, mixer: str, dataset: str) -> dict[str, Any]:
    """Parameters of a mixer as a paper runs it on a dataset."""
    section = _toml("mixers").get(paper, {}).get(mixer, {})
    return {**section.get("params", {}), **section.get(dataset, {})}


def config(
    paper: str, backbone: str, dataset: str, mixer: str = "none", *, features: str | None = None,
    params: Mapping[str, Any] | None = None, mixing: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None, corruption: Mapping[str, Any] | None = None, fraction: float = 1.0,
) -> Config | None:
    """The Config of one cell, or None where the backbone or the mixer is not implemented ("not run").

    `params`, `mixing` and `train` override single values of the hyperparameter files.
    """
    if backbone not in registry.names("models") or mixer not in registry.names("mixers"):
        return None
    s = settings(paper, backbone, dataset)
    return Config(
        dataset=dataset,
        features=features or s["features"],
        backbone=backbone,
        mixer=mixer,
        backbone_params={**s["params"], **(params or {})},
        mixer_params={**mixer_params(paper, mixer, dataset), **(mixing or {})},
        train={**s["train"], **(train or {})},
        corruption=corruption or {},
        fraction=fraction,
        versions={
            "backbone": registry.version("models", backbone),
            "mixer": registry.version("mixers", mixer),
            "dataset": registry.version("datasets", dataset),
            "train": protocol.VERSION,
        },
    )


_NON0 = "non-0: label != 0, (p > 0) = (y > 0)"
_HAS0 = "has-0: all samples, (p >= 0) = (y >= 0)"


def msena_columns(group: str, labels: Mapping[str, str]) -> tuple[Column, ...]:
    """Columns of an M-SENA style table, in the order of `labels` (metric key -> printed label)."""
    conventions = {
        "non0_acc2": _NON0, "has0_acc2": _HAS0, "non0_f1": f"weighted F1, {_NON0}", "has0_f1": f"weighted F1, {_HAS0}",
        "acc5": "clip to [-2, 2], round half to even", "acc7": "clip to [-3, 3], round half to even",
        "mae": "unclipped", "corr": "Pearson, unclipped", "avg": "mean of the six Acc and F1",
    }
    return tuple(_column(group, m, label, conventions) for m, label in labels.items())


def sims_columns(group: str, labels: Mapping[str, str]) -> tuple[Column, ...]:
    """Columns of a CH-SIMS table: everything clipped to [-1, 1], right-closed bins, 0 counts as negative."""
    conventions = {
        "acc2": "SIMS: [-1, 0], (0, 1]", "acc3": "SIMS: cuts at -0.1, 0.1", "acc5": "SIMS: cuts at -0.7, -0.1, 0.1, 0.7",
        "f1": "weighted F1 of Acc2's classes", "mae": "clipped to [-1, 1]", "corr": "Pearson, clipped to [-1, 1]",
        "avg": "mean of Acc2, Acc3, Acc5, F1",
    }
    return tuple(_column(group, m, label, conventions) for m, label in labels.items())


def _column(group: str, metric: str, label: str, conventions: Mapping[str, str]) -> Column:
    plain = metric in ("mae", "corr")
    return Column(
        metric=metric, label=label, group=group, convention=conventions[metric], percent=not plain,
        decimals=3 if plain else 2, higher_is_better=metric != "mae",
    )
