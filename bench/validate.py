"""What --set may say: known names, types, ranges and choices, checked against the parameter classes of every cell that it
changes, before anything starts. Imports the cells' components, and so torch, but only where something is set.
"""

import difflib
import inspect
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any

from bench import modalities, registry
from bench.data.corruption import kept_modalities
from bench.data.corruption import parse as parse_corruption
from bench.data.dataset import spec
from bench.errors import BenchError
from bench.matrix import Config
from bench.plural import count
from bench.settings import ROOMS, parse, text
from bench.train.protocol import Protocol, from_params

_TRAIN = {  # (lowest, highest, lowest is allowed) of numbers of the protocol
    "lr": (0.0, math.inf, False), "group_lr": (0.0, math.inf, True), "weight_decay": (0.0, math.inf, True),
    "group_weight_decay": (0.0, math.inf, True), "batch_size": (1, 1e6, True), "max_epochs": (1, 1e7, True),
    "patience": (1, 1e7, True), "min_delta": (0.0, math.inf, True), "clip_value": (0.0, math.inf, False),
    "clip_norm": (0.0, math.inf, False), "accumulate": (1, 1e6, True), "milestones": (1, 1e7, True),
    "scheduler_patience": (0, 1e7, True), "warmup": (0.0, 1.0, True), "schedule_epochs": (1, 1e7, True),
    "eps": (0.0, math.inf, False),
}
_SIZES = {"rank", "hidden", "width", "heads", "kernel", "size", "tokens", "len", "d", "inter", "fused"}  # at least 1


def split(setting: str) -> tuple[str, str, Any]:
    """(room, name, value) of "backbone.rank=8"; the room is "" for fraction and features, and "data" for modalities.
    Raises BenchError, in one line, for a key that has no room and a number that is not finite."""
    key, value = parse(setting)
    if not _finite(value):
        raise BenchError(f"--set {setting}: numbers must be finite")
    room, dot, name = key.partition(".")
    if dot and room in ROOMS and name:
        return room, name, value
    if key in ("fraction", "features"):
        return "", key, value
    if key == modalities.SETTING:
        kept_modalities(value)
        return "data", name, value
    near = difflib.get_close_matches(room if dot else key, [*ROOMS, "fraction", "features"], 1) or difflib.get_close_matches(key, [modalities.SETTING], 1)
    hint = f"did you mean '{near[0]}{'.' + name if dot and near[0] in ROOMS else ''}'? " if near and (name or not dot) else ""
    raise BenchError(f"--set cannot change '{key}'; {hint}use train.NAME, backbone.NAME, mixer.NAME, corruption.NAME, fraction, features or {modalities.SETTING}")


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, list) else True


def applicable(config: Config, settings: Sequence[str]) -> tuple[str, ...]:
    """The settings that a cell has a parameter for: a plain baseline has no mixer to set, LMF no encoder, and a model of
    text and audio no vision to leave out."""
    def fits(room: str, name: str, value: Any) -> bool:
        if room == "data":
            return modalities.restricts(config, value)
        return room not in ("backbone", "mixer") or name in _hints(_class(config, room))

    return tuple(s for s in settings if fits(*split(s)))


def check(settings: Sequence[str], cells: Iterable[Config]) -> list[str]:
    """Check settings against the cells that they have changed; returns a line for each that only some of them take.

    Raises BenchError, in one line, for a name that no cell knows (with the nearest one that is known), a value of
    another type, out of its range or none of the choices, and for settings that do not go together.
    """
    cells, notes = list(dict.fromkeys(cells)), []
    values = dict(map(parse, settings))
    for key, value in map(parse, settings):
        if values[key] != value:
            raise BenchError(f"--set {key} is given twice, as {text(value)} and {text(values[key])}")
    if not cells:
        return []
    for setting in settings:
        room, name, value = split(setting)
        takers = [c for c in cells if setting in applicable(c, (setting,))]
        if room in ("train", "backbone", "mixer"):
            known = [(c, _hints(_class(c, room))) for c in takers]
            if not any(name in hints for _, hints in known):
                raise BenchError(_unknown(room, name, cells))
            for c, hints in known:
                _check_value(f"{room}.{name}", value, hints[name], _default(_class(c, room), name))
        elif name == "fraction" and not (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1):
            raise BenchError(f"--set fraction takes a number above 0 and up to 1, got '{value}'")
        elif name == "features":
            for c in cells:
                known_features = spec(c.dataset).features
                if value not in known_features:
                    raise BenchError(f"--set features={value}: {spec(c.dataset).name} has {', '.join(known_features)}{_near(str(value), known_features)}")
        if room == "data" and not takers:
            raise BenchError(f"--set {setting}: no selected cell reads anything else, so nothing changes")
        if len(takers) < len(cells):
            who = sorted({c.backbone if room == "data" else getattr(c, room) for c in takers})
            notes.append(f"{room}.{name} changes the cells of {', '.join(who)}; the other {count(len(cells) - len(takers), 'has', 'have')} no such setting")
    for c in cells:
        check_config(c)
    return notes


def check_config(c: Config) -> None:
    """Build the parameter classes of a cell, which look at choices and combinations, and ask its model whether it can be
    trained so. Raises BenchError."""
    try:
        protocol = from_params(Protocol, c.train, "the training protocol")
        model = registry.load("models", c.backbone).Model
        params = from_params(_class(c, "backbone"), c.backbone_params, f"backbone '{c.backbone}'")
        from_params(_class(c, "mixer"), c.mixer_params, f"mixer '{c.mixer}'")
        parse_corruption(c.corruption)
    except (TypeError, ValueError, ArithmeticError) as e:
        raise BenchError(f"{c.backbone}+{c.mixer}: settings that do not fit ({str(e).splitlines()[0]})") from None
    modalities.check(c)
    model.check(params, protocol)
    if protocol.batch_size == 1 and _has_batch_norm(model):
        raise BenchError(f"train.batch_size=1: {c.backbone} normalises over the batch, which needs at least 2 rows")


def _class(c: Config, room: str) -> type:
    if room == "train":
        return Protocol
    return registry.load(*(("models", c.backbone) if room == "backbone" else ("mixers", c.mixer))).Params


@lru_cache(maxsize=None)
def _hints(cls: type) -> dict[str, Any]:
    found = typing.get_type_hints(cls)
    return {f.name: found[f.name] for f in fields(cls)}


def _default(cls: type, name: str) -> Any:
    return next(f.default for f in fields(cls) if f.name == name)


def _unknown(room: str, name: str, cells: Sequence[Config]) -> str:
    by_component: dict[str, set[str]] = {}
    for c in cells:
        component = {"train": "the training protocol", "backbone": c.backbone, "mixer": c.mixer}[room]
        by_component.setdefault(component, set()).update(_hints(_class(c, room)))
    everything = sorted(set().union(*by_component.values()))
    others = "" if len(by_component) > 3 else f"; known to {', '.join(by_component)}: {', '.join(everything)}"
    if not everything:
        others = "; a plain baseline has nothing to set there"
    return f"--set {room}.{name}: no selected cell has a parameter '{name}'{_near(name, everything)}{others}"


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _check_value(key: str, value: Any, hint: Any, default: Any) -> None:
    if not _is(value, hint):
        raise BenchError(f"--set {key}: takes {_words(hint)}, got '{value}'")
    room, _, name = key.partition(".")
    low, high, closed = -math.inf, math.inf, True
    if room == "train":
        low, high, closed = _TRAIN.get(name, (low, high, closed))
    elif "dropout" in name:
        low, high = 0.0, 0.999
    elif isinstance(default, (int, float)) and not isinstance(default, bool) and default >= 0:
        low = 1 if isinstance(default, int) and _SIZES & set(name.split("_")) else 0
    for v in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else (value,):
        if isinstance(v, (int, float)) and not isinstance(v, bool) and not (low <= v <= high and (closed or v > low)):
            limits = f"{'at least' if closed else 'above'} {low:g}" + (f" and at most {high:{',.0f' if high > 1 else 'g'}}" if high < 1e6 or v > high else "")
            raise BenchError(f"--set {key}: must be {limits}, got {v:g}")


def _is(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_is(value, a) for a in arguments)
    if hint is type(None):
        return value is None
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        if not isinstance(value, list):
            return False
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(_is(v, arguments[0]) for v in value)
        return len(value) == len(arguments) and all(map(_is, value, arguments))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(_is(v, arguments[1]) for v in value.values())
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) or isinstance(value, float) and value.is_integer()
    return isinstance(value, hint) if isinstance(hint, type) else True


def _words(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(a) for a in arguments)
    if origin is tuple:
        return f"a list of {'' if Ellipsis in arguments else f'{len(arguments)} '}values such as [1,2]"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return 'an object such as {"text":0.001}'
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "null"}
    return names.get(hint, str(hint))


@lru_cache(maxsize=None)
def _has_batch_norm(model: type) -> bool:
    """Whether a model's file, or a layer that it imports, normalises over the batch."""
    module = inspect.getmodule(model)
    classes = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__.startswith("bench.models.")]
    return "BatchNorm" in inspect.getsource(module) or any("BatchNorm" in inspect.getsource(c) for c in classes)
