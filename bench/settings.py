"""The settings of a config in full: what it sets, what the code's defaults add, and in what two configs differ.

Torch-free: the defaults of models and mixers are read from their sources, without importing them.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from functools import lru_cache
from typing import Any

from bench import registry
from bench.data.corruption import VERSION as CORRUPTION_VERSION
from bench.errors import BenchError
from bench.matrix import Config, canonical, dataset_name
from bench.train import protocol
from bench.train.protocol import Protocol

ROOMS = {"train": "train", "backbone": "backbone_params", "mixer": "mixer_params", "corruption": "corruption"}
_LONG = 24  # characters
_NAME = re.compile(r"[\w.+=-][\w.+=, -]{0,39}")
Settings = dict[str, Any]  # "train.lr", "backbone.rank", "mixer.p_mix", "corruption.missing", "features", "fraction"


def given(config: Config) -> Settings:
    """What a config says, under the names that --set takes."""
    found: Settings = {"features": config.features, "fraction": config.fraction}
    for room, name in ROOMS.items():
        found |= {f"{room}.{k}": v for k, v in getattr(config, name).items()}
    if "corruption.modalities" in found:
        found["data.modalities"] = ",".join(found.pop("corruption.modalities"))
    return found


def defaults(config: Config) -> Settings:
    """What the code's present defaults say of everything that can be set; a default that is no literal is left out."""
    rooms = {
        "train": _protocol(), "backbone": _parameters("models", config.backbone),
        "mixer": _parameters("mixers", config.mixer),
    }
    return {f"{room}.{k}": v for room, values in rooms.items() for k, v in values.items()}


def full(config: Config) -> Settings:
    """Everything that can be set, with the defaults of the code that is here."""
    return {**defaults(config), **given(config)}


def current(config: Config) -> Config:
    """A config under the versions of the components that are here now."""
    now = {"train": protocol.VERSION, "corruption": CORRUPTION_VERSION}
    for part, kind, name in (("backbone", "models", config.backbone), ("mixer", "mixers", config.mixer),
                             ("dataset", "datasets", dataset_name(config.dataset))):
        if name in registry.names(kind):
            now[part] = registry.version(kind, name)
    return replace(config, versions={part: now.get(part, v) for part, v in config.versions.items()})


def difference(config: Config, other: Config) -> Settings:
    """Setting -> its value in `config`, where `other` has another one. A setting that only one of them gives counts as
    the code's default in the other, None where that is not known. Versions are not settings."""
    mine, theirs = full(config), full(other)
    return {
        k: mine.get(k) for k in dict.fromkeys([*given(config), *given(other)]) if mine.get(k) != theirs.get(k)
    }


def parse(setting: str) -> tuple[str, Any]:
    """("backbone.rank", 8) of "backbone.rank=8", as --set reads it. Raises BenchError where there is no "="."""
    key, eq, text = setting.partition("=")
    if not eq:
        raise BenchError(f"--set takes key=value, got '{setting}'")
    try:
        return key, json.loads(text)
    except json.JSONDecodeError:
        return key, text


def text(value: Any) -> str:
    """A value as --set takes it back."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def short_name(settings: Mapping[str, Any]) -> str:
    """"encoder=minilm, max_epochs=6": settings in a few words, long ones cut. Rooms are named only where needed."""
    tails = [k.rpartition(".")[2] for k in settings]
    words = {k if tails.count(t) > 1 else t: text(v) for (k, v), t in zip(settings.items(), tails)}
    parts = [f"{k}={v}" for k, v in sorted(words.items(), key=lambda kv: (len(kv[1]) > _LONG, kv[0]))]
    kept = parts
    while len(", ".join(kept)) > 2 * _LONG and len(kept) > 1:
        kept = kept[:-1]
    if len(kept) == len(parts):
        return ", ".join(parts)
    mark = hashlib.sha256(", ".join(parts).encode()).hexdigest()[:4]  # two long lists may begin alike
    return f"{', '.join(kept)}, {len(parts) - len(kept)} more ({mark})"


def apart(configs: Iterable[Config]) -> dict[str, str]:
    """Config id -> the settings, in a few words, that tell it from the others of its dataset, backbone and mixer; of one
    that is alone there nothing."""
    cells: dict[tuple[str, str, str], list[Config]] = {}
    for c in dict.fromkeys(configs):
        cells.setdefault((c.dataset, c.backbone, c.mixer), []).append(c)
    found = {}
    for several in (s for s in cells.values() if len(s) > 1):
        settings = [full(c) for c in several]
        names = dict.fromkeys(k for s in settings for k in s)
        differ = [k for k in names if any(s.get(k) != settings[0].get(k) for s in settings)]
        found.update({c.id: short_name({k: s[k] for k in differ if k in s}) for c, s in zip(several, settings)})
    return found


def variant_name(name: str, settings: Sequence[str]) -> str:
    """The name that --as gives to what runs with --set, or one made of the settings. Raises BenchError for a name
    without settings, and for one that does not fit into a table."""
    if not name:
        return short_name(dict(sorted(map(parse, settings))))
    if not settings:
        raise BenchError(f"--as {name} names a run with other settings; say which with --set")
    if not _NAME.fullmatch(name):
        raise BenchError(f"--as takes up to 40 letters, digits and any of . + = , - _, got '{name}'")
    return name


@lru_cache
def _protocol() -> Mapping[str, Any]:
    found = {}
    for f in fields(Protocol):
        default = f.default if f.default is not MISSING else f.default_factory()
        found[f.name] = canonical(default)
    return found


@lru_cache
def _parameters(kind: str, name: str) -> Mapping[str, Any]:
    try:
        return {k: canonical(v) for k, v in registry.parameters(kind, name).items()}
    except (BenchError, OSError):
        return {}  # a component that is not here any more
