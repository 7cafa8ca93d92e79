"""The hyperparameter files: every value is one that its component takes, has a source, and is the paper's or listed."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from bench import registry
from bench.data.dataset import spec
from bench.experiments import differences
from bench.experiments.common import FOLDER, config, mixer_params, sections, settings, toml
from bench.train.protocol import Protocol, from_params

FILES = ("msena", "finetuned", "systems", "msmix", "powmix", "slad", "samlml", "cpsl")
BASELINES = tuple(p.stem for p in sorted((FOLDER / "baselines").glob("*.toml")))
SECTIONS = [
    *((f, b, d) for f in FILES for b, s in toml(f).items() for d in s if isinstance(s[d], Mapping)),
    *((f"baselines/{b}", b, d) for b in BASELINES for d in differences.DATASETS if d in toml(f"baselines/{b}")),
]


def section_of(file, backbone):
    return toml(file) if file.startswith("baselines/") else toml(file)[backbone]


MIXERS = [(paper, mixer) for paper, s in toml("mixers").items() for mixer, m in s.items() if isinstance(m, Mapping)]


def default(cls, name):
    field = next(f for f in fields(cls) if f.name == name)
    return field.default if field.default is not MISSING else field.default_factory()


@pytest.mark.parametrize("file, backbone, dataset", SECTIONS)
def test_backbone_sections_are_accepted(file, backbone, dataset):
    if backbone not in registry.names("models"):
        pytest.skip(f"{backbone} is not implemented: its settings are there, its rows are not run")
    section = section_of(file, backbone)
    mine = section[dataset]
    assert set(section) - {dataset} <= {"source", "features", "cost", *differences.DATASETS}
    assert set(mine) <= {"params", "train", "features", "source"} and section["source"]
    from_params(registry.load("models", backbone).Params, mine.get("params", {}), f"{backbone} in {file}.toml")
    p = from_params(Protocol, mine.get("train", {}), f"{backbone} in {file}.toml")
    assert p.loss in ("l1", "mse", "bce") and p.scheduler in (
        "none", "plateau", "warmup-cosine", "warmup-linear", "warmup-cosine-step"
    )
    features = mine.get("features", section.get("features", "unaligned"))
    assert dataset in registry.names("datasets") and features in spec(dataset).features


@pytest.mark.parametrize("paper, mixer", MIXERS)
def test_mixer_sections_are_accepted(paper, mixer):
    section = toml("mixers")[paper][mixer]
    params = registry.load("mixers", mixer).Params
    for where in section:
        assert where in ("params", *differences.DATASETS) or where in registry.names("models"), where
    for dataset in differences.DATASETS:
        for backbone in ("", *(w for w in section if w in registry.names("models"))):
            from_params(params, mixer_params(paper, mixer, dataset, backbone), f"{mixer} of {paper}")


def test_every_hyperparameter_file_is_read_by_something():
    known = {*FILES, "mixers", "cost", "differences"}
    assert {p.stem for p in FOLDER.glob("*.toml")} <= known


def test_optimiser_groups_that_are_named_exist():
    """A rate for a group that a model does not have would be ignored in silence. "<optimiser>.<group>" names both."""
    known = {"main", "main-no-decay", "encoder", "encoder-no-decay"}
    seen = 0
    for file, backbone, dataset in SECTIONS:
        if backbone not in registry.names("models"):
            continue
        train = section_of(file, backbone)[dataset].get("train", {})
        named = {part for k in ("group_lr", "group_weight_decay") for g in train.get(k, {}) for part in g.split(".")}
        source = Path(registry.load("models", backbone).__file__).read_text(encoding="utf-8")
        assert [g for g in named - known if f'"{g.removesuffix("-no-decay")}"' not in source] == [], backbone
        seen += len(named)
    assert seen


def test_overlays_of_papers_are_listed_as_differences_with_both_values():
    listed = {(p, s.of, d, s.key): (v, s.base) for s in differences.differences() for p in s.papers
              for d, v in s.by_dataset(differences.DATASETS).items()}
    changed = differences.overlays()
    assert changed
    for paper, backbone, dataset, key, value in changed:
        ours, base = listed[paper, backbone, dataset, key]
        assert ours == value and str(differences._base(backbone, dataset, key)) in base, (backbone, dataset, key)


@pytest.mark.parametrize("s", differences.differences(), ids=lambda s: f"{s.of}-{s.key}")
def test_differences_state_the_value_that_runs_use(s):
    """And say why it is not what the source says."""
    if s.of not in (*registry.names("models"), *registry.names("mixers")):
        pytest.skip(f"{s.of} is not implemented")
    assert s.why and (s.paper or s.base or s.release)
    part, _, name = s.key.partition(".")
    kind = "mixers" if s.of in registry.names("mixers") and s.of not in registry.names("models") else "models"
    cls = Protocol if part == "train" else registry.load(kind, s.of).Params
    for paper in s.papers:
        datasets = [d for d in differences.DATASETS if kind == "mixers" or _has(paper, s.of, d)]
        assert datasets
        for dataset, ours in s.by_dataset(datasets).items():
            given = mixer_params(paper, s.of, dataset) if kind == "mixers" else settings(paper, s.of, dataset)[part]
            value = given.get(name, default(cls, name))
            assert value == (tuple(ours) if isinstance(value, tuple) else ours)


def _has(paper, backbone, dataset):
    return any(dataset in section for section in sections(paper, backbone))


def test_printed_settings_are_the_papers():
    c = config("cpsl", "cpsl", "mosi")  # Sec. 3.1
    assert {k: c.train[k] for k in ("lr", "max_epochs", "batch_size", "warmup", "optimiser")} == {
        "lr": 1e-5, "max_epochs": 30, "batch_size": 8, "warmup": 0.1, "optimiser": "adamw"}
    printed = {"max_len": 50, "inter": 256, "fused": 512, "dropout": 0.3, "head_dropout": 0.5, "lambda_recon": 1,
               "lambda_uni": 0.5, "lambda_div": 0.1, "lambda_stat": 0.1, "beta": 1, "alpha": 1, "eta": 0.5,
               "modulate_from": 0, "modulate_to": 25, "encoder": "deberta-v3-base"}
    assert {k: c.backbone_params[k] for k in printed} == printed
    m = config("msmix", "lmf", "mosi", "msmix").mixer_params  # Sec. 4.3
    assert {k: m[k] for k in ("alpha", "delta", "xi1", "xi2", "heads", "beta")} == {
        "alpha": 2, "delta": 0.2, "xi1": 0.7, "xi2": 0.5, "heads": 4, "beta": 1000}
    assert config("msmix", "lmf", "sims", "msmix").mixer_params["heads"] == 6
    p = config("powmix", "mult", "mosi", "manifold").mixer_params  # Sec. 5.5
    assert p["alpha"] == 1 and p["protocol"] == "halves"


def test_page_is_generated_from_the_files():
    assert differences.PAGE.read_text(encoding="utf-8") == differences.page(), "run `python -m experiments.differences`"
