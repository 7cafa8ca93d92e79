"""What a corruption is asked to do: `Config.corruption`, checked. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.data.spec import MODALITIES, SPLITS
from bench.errors import BenchError


@dataclass(frozen=True)
class Kind:
    """A kind of corruption: the splits it acts on, and the name and values of its option (the first is the default)."""

    splits: tuple[str, ...]
    option: str = ""
    values: tuple[str, ...] = ("",)


KINDS: Mapping[str, Kind] = {
    "occlusion": Kind(("train",)),
    "frame_drop": Kind(("test",), "mode", ("correlated", "independent")),
    "text_drop": Kind(("test",)),
    "text_mean": Kind(("test",)),
    "missing": Kind(SPLITS, "fill", ("zero", "noise")),
    "feature_noise": Kind(SPLITS, "noise", ("gaussian", "laplace", "erasing", "drawn", "drawn3")),
}


@dataclass(frozen=True)
class Part:
    """One kind at one rate. `value` is that of the kind's option."""

    kind: str
    rate: float  # of steps or samples; MR of "missing"; NR of "feature_noise"
    value: str = ""

    @property
    def name(self) -> str:
        """Name of a sweep's point: "frame_drop-correlated-0.10"."""
        rate = f"{self.rate:.2f}" if round(self.rate, 2) == self.rate else str(self.rate)
        return "-".join(filter(None, (self.kind, self.value, rate)))


@dataclass(frozen=True)
class Corruption:
    """`parts` act on their kinds' splits, in training and after; `sweep` on the test split alone, one at a time.
    `dropped`: modalities that are blank in all samples of all splits."""

    parts: tuple[Part, ...] = ()
    sweep: tuple[Part, ...] = ()
    dropped: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.parts or self.sweep or self.dropped)

    def on(self, split: str, point: Part | None = None) -> tuple[Part, ...]:
        """What acts on a split; with a point of the sweep, on the test split at that point."""
        fixed = tuple(p for p in self.parts if split in KINDS[p.kind].splits)
        if point is None or split != "test":
            return fixed
        return (*(p for p in fixed if p.kind != point.kind), point)


def parse(given: Mapping[str, Any]) -> Corruption:
    """A `Config.corruption`. Raises BenchError, in one line, for anything that is not one."""
    kept = kept_modalities(given.get("modalities", MODALITIES))
    dropped = tuple(m for m in MODALITIES if m not in kept)
    given = {k: v for k, v in given.items() if k != "modalities"}
    if not given:
        return Corruption(dropped=dropped)
    several = given.get("parts")
    if several is not None and (not isinstance(several, list) or len(given) > 1):
        raise BenchError("a corruption is one part or {'parts': [...]} and nothing beside it")
    specs = [given] if several is None else several
    fixed = [_part(s, s["rate"]) for s in map(_checked, specs) if "rate" in s]
    sweep = [_part(s, rate) for s in specs if "rates" in s for rate in s["rates"]]
    for what, names in (("kind", [p.kind for p in fixed]), ("sweep point", [p.name for p in sweep])):
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice:
            raise BenchError(f"corruption {what} '{twice}' is given twice")
    return Corruption(tuple(fixed), tuple(sweep), dropped)


def kept_modalities(value: Any) -> tuple[str, ...]:
    """The modalities that "text,audio" or a list names, in the field's order. Raises BenchError where it names none."""
    names = [n.strip() for n in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not names or not set(map(str, names)) <= set(MODALITIES):
        raise BenchError(f"modalities takes some of {', '.join(MODALITIES)}, got '{value}'")
    return tuple(m for m in MODALITIES if m in names)


def named(point: str) -> Part:
    """The part that a sweep's point names: the inverse of Part.name. Raises BenchError where it names none."""
    kind, *value, rate = point.split("-")
    try:
        given = {"kind": kind, "rate": float(rate)}
    except ValueError:
        raise BenchError(f"'{point}' names no point of a sweep; as frame_drop-correlated-0.10") from None
    option = KINDS[kind].option if kind in KINDS else ""
    found = _part(_checked({**given, **({option: value[0]} if option and value else {})}), given["rate"])
    if found.name != point:
        raise BenchError(f"'{point}' names no point of a sweep; did you mean '{found.name}'?")
    return found


def refuse_evaluation(given: Mapping[str, Any]) -> None:
    """Raise BenchError where a part changes only how the test split is read: that is a measure of a trained job, which
    an experiment's row asks for by its `points`, and never part of what is trained."""
    corruption = parse(given)
    for part in (*corruption.sweep, *(p for p in corruption.parts if "train" not in KINDS[p.kind].splits)):
        raise BenchError(
            f"corruption '{part.name}' changes only how the test split is read, so it is no part of a training; name it "
            "in `points` of an experiment's row"
        )


def _checked(s: Any) -> Mapping[str, Any]:
    if not isinstance(s, Mapping) or s.get("kind") not in KINDS:
        found = s.get("kind") if isinstance(s, Mapping) else s
        if found is None:
            raise BenchError("a corruption has a kind and a rate: corruption.kind=missing corruption.rate=0.3; "
                             f"kinds: {', '.join(KINDS)}")
        raise BenchError(f"unknown corruption kind {found!r}; known: {', '.join(KINDS)}")
    kind = KINDS[s["kind"]]
    known = {"kind", "rate", "rates", kind.option} - {""}
    unknown = sorted(set(s) - known)
    if unknown:
        names = ", ".join(sorted(known))
        raise BenchError(f"unknown option '{unknown[0]}' of corruption '{s['kind']}'; known: {names}")
    if ("rate" in s) == ("rates" in s):
        raise BenchError(f"corruption '{s['kind']}' takes either a rate or, as a sweep, rates")
    if "rates" in s and not (isinstance(s["rates"], (list, tuple)) and s["rates"]):
        raise BenchError(f"corruption '{s['kind']}': rates is a list of numbers, not {s['rates']!r}")
    value = s.get(kind.option, kind.values[0])
    if value not in kind.values:
        raise BenchError(f"corruption '{s['kind']}': {kind.option} is one of {', '.join(kind.values)}, not {value!r}")
    return s


def _part(s: Mapping[str, Any], rate: Any) -> Part:
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= 1:
        raise BenchError(f"a rate of corruption '{s['kind']}' lies in (0, 1], not {rate!r}")
    kind = KINDS[s["kind"]]
    return Part(s["kind"], float(rate), s.get(kind.option, kind.values[0]))
