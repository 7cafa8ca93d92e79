"""From names (paper, backbone, mixer, dataset) to a Config, through the hyperparameter files; columns of tables.

A config carries its parameters in full, so that its id changes when they do, and the VERSION of every component, so
that its id changes when code that can change numbers does.

What a figure is drawn from stands in `Experiment.figure`, a mapping of plain values:
    kind       "line", "heatmap", "bars", "landscape", "tsne", "density", "attention", "dynamics" or "illustration"
    metrics    what is on the y axis (or coloured)
    panels     one mapping each: "title", "rows" (a selector of rows by their labels, as in experiments/claims),
               "group" (column group), "x" (label of the axis), "lines" (the row label that tells lines apart),
               "default" (the marked setting), "reference" (selector of a row drawn as a level)
    printed    points of the paper's figure that its text quotes: {"at", "metric", "value", "where"}
    computed   metrics that no run stores: from the weights (bench/measure), or from history.csv where the kind is
               "dynamics" (then a mapping: metric -> the columns that are summed). They are columns of the table too
    settings   what the paper leaves open about the picture; all of it is ours. Settings of the measure, where there is
               one (docs/figures.md)
"""

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench import plugins, registry
from bench.data.corruption import VERSION as CORRUPTION_VERSION
from bench.data.corruption import refuse_evaluation
from bench.errors import BenchError
from bench.matrix import Column, Config, canonical
from bench.metrics import METRICS, MSENA_FEATURES, SAME_AS, higher_is_better
from bench.train import protocol

COMPUTED = {  # metric that a figure computes -> its definition in a few words; docs/figures.md has the rest
    "kl": "KL(labels || mixed labels), nats, smoothed histograms",
    "silhouette": "silhouette score of the sign of the label, before the projection",
    "loss_rise": "mean over the surface of loss - loss at the trained weights",
    "rise_at_radius": "mean of the same on a circle",
    "weight_noised": "mean attention weight of the noised columns",
    "weight_other": "mean attention weight of the other columns",
    "weight_std": "standard deviation of all attention weights",
}
FOLDER = Path(__file__).parent / "hyperparameters"
RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  # missing and noise rates of SAM-LML


@lru_cache
def toml(name: str) -> dict[str, Any]:
    """A file of experiments/hyperparameters; empty where there is none."""
    path = FOLDER / f"{name}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def sections(paper: str, backbone: str) -> list[dict[str, Any]]:
    """What the hyperparameter files say of a backbone in a paper's runs, the base first; later ones win. A file
    baselines/<backbone>.toml is all about that backbone, the others have a section each."""
    return [section for _, section in _named_sections(paper, backbone)]


def _named_sections(paper: str, backbone: str) -> list[tuple[str, dict[str, Any]]]:
    shared = [(name, toml(name).get(backbone, {})) for name in ("msena", "finetuned", "systems")]
    own = f"baselines/{backbone}"
    mine = [(str(p), _plugin_toml(p)) for p in plugins.files("hyperparameters", "toml") if p.stem == backbone]
    return [*shared, (own, toml(own)), *mine, (paper, toml(paper).get(backbone, {}))]


@lru_cache
def _plugin_toml(path: Path) -> dict[str, Any]:
    """A plug-in's hyperparameters/<backbone>.toml; empty, and noted, where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        plugins.problem(f"{path}: {e}")
        return {}


def origin(paper: str, config: Config, setting: str, value: Any) -> str:
    """Which hyperparameter file gives a paper's config a setting ("train.lr", "mixer.p_mix") of this value, and on whose
    authority; "" where none does."""
    room, _, name = setting.partition(".")
    found = ""
    if room == "mixer":
        section = toml("mixers").get(paper, {})
        mine = section.get(config.mixer, {})
        places = (mine.get("params", {}), mine.get(config.dataset, {}), mine.get(config.backbone, {}).get(config.dataset, {}))
        if any(name in place and canonical(place[name]) == value for place in places):
            found = _words("mixers", section.get("source", ""))
    for file, section in _named_sections(paper, config.backbone):
        mine = section.get(config.dataset, {}) if isinstance(section, Mapping) else {}
        part = mine.get({"backbone": "params", "train": "train"}.get(room, ""), {})
        if name in part and canonical(part[name]) == value or setting == "features" and {**section, **mine}.get("features") == value:
            found = _words(file, mine.get("source", section.get("source", "")))
    return found


def _words(file: str, source: str) -> str:
    return f"{file}.toml" + (f": {re.split('[:;]', source)[0]}" if source else "")


def settings(paper: str, backbone: str, dataset: str) -> dict[str, Any]:
    """{"params", "train", "features", "source"} of a backbone on a dataset: M-SENA's or the official configuration,
    overlaid with what the paper (or its release) says otherwise. Raises BenchError where nothing is known."""
    found: dict[str, Any] = {"params": {}, "train": {}, "features": "unaligned", "source": []}
    known = False
    for section in sections(paper, backbone):
        if not isinstance(section, Mapping) or not section:
            continue
        mine = section.get(dataset, {})
        known = known or bool(mine)
        found["params"] = {**found["params"], **mine.get("params", {})}
        found["train"] = {**found["train"], **mine.get("train", {})}
        found["features"] = mine.get("features", section.get("features", found["features"]))
        found["source"] += [s for s in (mine.get("source", section.get("source")),) if s]
    nearest = "" if known else nearest_dataset(dataset)
    if not known and not nearest:
        raise BenchError(f"no hyperparameters for backbone '{backbone}' on dataset '{dataset}'")
    return found if known else settings(paper, backbone, nearest)


def nearest_dataset(dataset: str) -> str:
    """The dataset whose hyperparameters stand for those that nobody has tuned on this one; "" for the papers' own."""
    spec = registry.load("datasets", dataset).SPEC if dataset in registry.names("datasets") else None
    return spec.nearest if spec else ""


def mixer_params(paper: str, mixer: str, dataset: str, backbone: str = "") -> dict[str, Any]:
    """Parameters of a mixer as a paper runs it on a dataset, with a backbone where it says so for one."""
    section, dataset = toml("mixers").get(paper, {}).get(mixer, {}), nearest_dataset(dataset) or dataset
    return {**section.get("params", {}), **section.get(dataset, {}), **section.get(backbone, {}).get(dataset, {})}


def config(
    paper: str, backbone: str | None, dataset: str, mixer: str = "none", *, features: str | None = None,
    params: Mapping[str, Any] | None = None, mixing: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None, corruption: Mapping[str, Any] | None = None, fraction: float = 1.0,
) -> Config | None:
    """The Config of one cell, or None ("not run") where backbone, mixer or dataset is not implemented; `backbone`
    None is a system that nobody has implemented here.

    `params`, `mixing` and `train` override single values of the hyperparameter files. Raises BenchError for a corruption
    that changes the test split alone: a row asks for that by its `points`.
    """
    refuse_evaluation(corruption or {})
    known = {"models": backbone, "mixers": mixer, "datasets": dataset}
    if any(name not in registry.names(kind) for kind, name in known.items()):
        return None
    versions = {
        "backbone": registry.version("models", backbone),
        "mixer": registry.version("mixers", mixer),
        "dataset": registry.version("datasets", dataset),
        "train": protocol.VERSION,
        **({"corruption": CORRUPTION_VERSION} if corruption else {}),
    }
    s = settings(paper, backbone, dataset)
    return Config(
        dataset=dataset,
        features=features or s["features"],
        backbone=backbone,
        mixer=mixer,
        backbone_params={**s["params"], **(params or {})},
        mixer_params={**mixer_params(paper, mixer, dataset, backbone), **(mixing or {})},
        train={**s["train"], **(train or {})},
        corruption=corruption or {},
        fraction=fraction,
        versions=versions,
    )


def columns(
    family: str, group: str, labels: Mapping[str, str], decimals: int = 2, plain_decimals: int = 3,
    percent: tuple[str, ...] = (),
) -> tuple[Column, ...]:
    """Columns of a table in the order of `labels` (metric key -> printed label), defined by a metric family of
    bench/metrics.py. `decimals` of percentages, `plain_decimals` of the rest; `percent`: further metrics that are
    printed x 100."""
    return tuple(
        Column(
            metric=key, label=label, group=group, convention=METRICS[family][key].convention,
            percent=METRICS[family][key].percent or key in percent,
            decimals=decimals if METRICS[family][key].percent or key in percent else plain_decimals,
            higher_is_better=METRICS[family][key].higher_is_better,
            keys={f: other[key] for f in MSENA_FEATURES} if key in (other := SAME_AS.get((family, "msena"), {})) else {},
        )
        for key, label in labels.items()
    )


def computed(group: str, labels: Mapping[str, str], decimals: int = 4, convention: str = "") -> tuple[Column, ...]:
    """Columns of metrics that a figure computes (metric -> printed label), defined by COMPUTED or `convention`."""
    return tuple(
        Column(
            metric=key, label=label, group=group, convention=COMPUTED.get(key, convention), percent=False,
            decimals=decimals, higher_is_better=higher_is_better(key),
        )
        for key, label in labels.items()
    )
