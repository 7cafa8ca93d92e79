"""How fast this machine is: seconds per training step of what ran here, by device, in `<cache>/calibration.json`.

Every `bench run` adds what its jobs took, whatever results folder they went to; estimates of further runs start from it
(estimate.py). A machine that has run nothing yet has none. Torch-free.
"""

import contextlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from bench.data import cache
from bench.errors import BenchError
from bench.files import write_json
from bench.matrix import Config
from bench.records import Entry

NAME, FORMAT = "calibration.json", 1
_MEMORY = 20  # runs that a stored mean remembers
_MOST = 2000  # entries of a device; the oldest go first
_BATCH = 32


@dataclass(frozen=True)
class Speed:
    """What trainings of one kind took: means over `runs` of them."""

    backbone: str
    mixer: str
    encoder: str
    dataset: str
    features: str
    batch: int
    steps_per_epoch: float  # of the whole training split
    seconds_per_step: float  # with its share of the validation passes
    other_seconds: float  # before the first and after the last step
    epochs: float
    stopped: bool  # the runs ended by early stopping, so that `epochs` says something about further ones
    runs: int = 1

    @property
    def key(self) -> str:
        return "|".join(map(str, (self.backbone, self.mixer, self.encoder, self.dataset, self.features, self.batch)))

    def joined(self, other: "Speed") -> "Speed":
        """This one with the runs of a later one taken into its means."""
        share = other.runs / (min(self.runs, _MEMORY) + other.runs)
        means = {n: (1 - share) * getattr(self, n) + share * getattr(other, n) for n in ("steps_per_epoch", "seconds_per_step", "other_seconds", "epochs")}
        return replace(other, **means, runs=self.runs + other.runs)


def batch_size(c: Config) -> int:
    """Rows of a step, as a config says."""
    found = c.train.get("batch_size", _BATCH)
    return found if isinstance(found, int) and found > 0 else _BATCH


def speed(c: Config, entry: Entry) -> tuple[str, Speed] | None:
    """(device, speed) of a finished run; None where it does not say."""
    env, metrics = entry.env, entry.metrics or {}
    rows = metrics.get("n", {}).get("train") if isinstance(metrics.get("n"), Mapping) else None
    train, wall, epochs, device = env.get("train_seconds"), env.get("wall_seconds"), metrics.get("epochs"), env.get("device")
    if not (train and wall and epochs and device and isinstance(rows, int) and rows > 0) or wall < train:
        return None
    steps, of_all = (math.ceil(n / batch_size(c)) for n in (rows, rows / c.fraction))
    most = c.train.get("max_epochs")
    return str(device), Speed(
        c.backbone, c.mixer, encoder(c), c.dataset, c.features, batch_size(c), of_all, train / epochs / steps, wall - train, epochs,
        not isinstance(most, int) or epochs < most,
    )


def encoder(c: Config) -> str:
    """The text encoder that a config fine-tunes; "" for none that it names."""
    return str(c.backbone_params.get("encoder", ""))


def is_gpu(device: str) -> bool:
    """Whether a device, as env.json names it, is a GPU."""
    return not device.upper().startswith("CPU")


def read() -> dict[str, dict[str, Speed]]:
    """Device -> key -> speed; empty where nothing was kept, or the file is none."""
    try:
        found = json.loads((cache.root() / NAME).read_bytes())
        if found["format"] != FORMAT:
            return {}
        return {d: {s.key: s for s in map(_speed, entries)} for d, entries in found["devices"].items()}
    except (BenchError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _speed(stored: Mapping[str, Any]) -> Speed:
    s = Speed(**{f.name: stored[f.name] for f in fields(Speed)})
    numbers = (s.batch, s.steps_per_epoch, s.seconds_per_step, s.other_seconds, s.epochs, s.runs)
    if not all(isinstance(n, (int, float)) and math.isfinite(n) and n >= 0 for n in numbers) or not s.batch or not s.runs:
        raise ValueError("no speed")
    return s


def add(found: Iterable[tuple[str, Speed]]) -> None:
    """Take runs into the file. Of two processes that do so at once one may win: nothing depends on it."""
    devices: dict[str, dict[str, Speed]] = {}
    for device, s in found:
        mine = devices.setdefault(device, {})
        mine[s.key] = mine[s.key].joined(s) if s.key in mine else s
    if not devices:
        return
    known = read()
    for device, mine in devices.items():
        theirs = known.setdefault(device, {})
        for key, s in mine.items():
            theirs[key] = theirs.pop(key).joined(s) if key in theirs else s
        known[device] = dict(list(theirs.items())[-_MOST:])
    content = {"format": FORMAT, "devices": {d: [asdict(s) for s in by.values()] for d, by in known.items()}}
    with contextlib.suppress(BenchError, OSError):  # a convenience: nothing fails without it
        write_json(cache.root() / NAME, content)
