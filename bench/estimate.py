"""How long jobs will take: by what runs of their kind took here or, by the machine's calibration, elsewhere on it; last by
what experiments/hyperparameters/cost.toml says."""

import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache, partial
from statistics import fmean, median
from typing import Any

from bench import EXPERIMENTS, calibration, registry
from bench.calibration import Speed
from bench.matrix import Config, Job
from bench.records import Entry

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

CPU, GPU = "cpu", "gpu"
Entries = Mapping[str, Entry]  # job id -> what its finished run left
_FILE = EXPERIMENTS / "hyperparameters" / "cost.toml"
_SMALL, _SMALL_ROW = 120, 0.006  # samples of small generated data, and seconds that each costs in an epoch, as a guess
_START = 2.0  # seconds of such a job around its steps
_BASE = "base"
_EPOCHS, _MOSI = 20, 1284


@lru_cache
def _table() -> dict[str, Any]:
    own = sorted(_FILE.with_name("baselines").glob("*.toml"))  # a baseline's file says what it costs
    costs = {p.stem: tomllib.loads(p.read_text(encoding="utf-8")).get("cost", {}) for p in own}
    return {**{k: v for k, v in costs.items() if v}, **tomllib.loads(_FILE.read_text(encoding="utf-8"))}


def guess(c: Config, device: str = CPU, rows: int | None = None) -> float:
    """Expected seconds of one training of a config, where nothing of its kind has been timed on the machine: on one CPU
    core, or on a GPU by itself. rows: training samples of the file at hand, where that is known."""
    if _small(c):
        epochs = c.train.get("max_epochs", _EPOCHS)
        return _START + _SMALL_ROW * epochs * c.fraction * (rows or _SMALL)
    dataset = c.dataset.removeprefix("synthetic-").removesuffix("-full")
    mine = _table().get(c.backbone, {})
    entry = mine.get(f"{dataset}/{c.features}") or mine.get(dataset)
    timed = dataset
    if entry is None:  # a dataset that nobody has timed: as long as a timed one, sample for sample
        timed = next((d for d in ("mosi", *mine) if d in mine and "/" not in d), "mosi")
        entry = mine.get(timed) or _table()["default"]["any"]
    scale = (rows or _train_size(dataset)) / _train_size(timed)
    minutes = scale * entry[device] * c.fraction * encoder_factor(c)
    if device == GPU and "batch" in entry:
        minutes *= entry["batch"] / c.train.get("batch_size", entry["batch"])
    # the table's minutes are those of a training that stops by itself, after some twenty epochs
    return 60.0 * minutes * min(c.train.get("max_epochs", _EPOCHS) / _EPOCHS, 1.0)


def encoder_factor(c: Config) -> float:
    """What a config's text encoder costs, in multiples of a base-sized one."""
    return _table()["encoders"].get(c.backbone_params.get("encoder", _BASE), 1.0)


@lru_cache
def _train_size(dataset: str) -> int:
    """Training samples of a dataset, as its spec says; MOSI's where nobody knows."""
    try:
        return registry.load("datasets", dataset).SPEC.sizes["train"] or _MOSI
    except Exception:  # noqa: BLE001 - a dataset of a plugin that is gone, say
        return _MOSI


def seconds(
    jobs: Sequence[Job], entries: Entries, device: str = CPU, rows: Mapping[tuple[str, str], int] | None = None,
    known: Mapping[str, Mapping[str, Speed]] | None = None,
) -> dict[str, float]:
    """Expected seconds per config on a device: the mean of its own runs, else its steps times what a step of the nearest
    thing took that ran in this results folder or, by the calibration, on this machine; else a guess, scaled by how the
    guesses of what ran compare with what it took.

    entries: job id -> what its finished run left. rows: (dataset, features) -> training samples of the file at hand.
    known: the machine's calibration, as calibration.read gives it; by default that.
    """
    own: dict[str, list[float]] = {}
    speeds: dict[str, list[Speed]] = {}  # by backbone
    for j in jobs:
        entry = entries.get(j.id)
        found = None if entry is None else calibration.speed(j.config, entry)
        if found is not None and calibration.is_gpu(found[0]) == (device == GPU):
            own.setdefault(j.config.id, []).append(entry.env["wall_seconds"])
            speeds.setdefault(found[1].backbone, []).append(found[1])
    for name, by_key in (calibration.read() if known is None else known).items():
        if calibration.is_gpu(name) == (device == GPU):
            for s in by_key.values():
                speeds.setdefault(s.backbone, []).append(s)
    rows = rows or {}
    pace = _pace([s for of in speeds.values() for s in of], device)
    nearest = cache(partial(_nearest, speeds))
    expected = {}
    for c in dict.fromkeys(j.config for j in jobs):
        n = rows.get((c.dataset, c.features))
        if c.id in own:
            expected[c.id] = fmean(own[c.id])
        elif s := nearest(c.backbone, c.mixer, calibration.encoder(c), c.dataset, c.features, calibration.batch_size(c)):
            expected[c.id] = _by_steps(c, s, n)
        else:
            expected[c.id] = pace * guess(c, device, n)
    return expected


def _by_steps(c: Config, s: Speed, rows: int | None) -> float:
    """A config's steps at the speed of something near to it."""
    batch, most = calibration.batch_size(c), c.train.get("max_epochs", _EPOCHS)
    epochs = min(s.epochs if s.stopped else _EPOCHS, most)
    if rows is None and (s.dataset, s.features) == (c.dataset, c.features):
        rows = round(s.steps_per_epoch * s.batch)
    steps = math.ceil(max(c.fraction * (rows or rows_of(c)), 1) / batch)
    row = 0.5 + 0.5 * batch / s.batch  # a step has costs of its own, and those of its rows
    return s.other_seconds + epochs * steps * row * s.seconds_per_step


def _nearest(speeds: Mapping[str, list[Speed]], backbone: str, mixer: str, encoder: str, dataset: str, features: str, batch: int) -> Speed | None:
    """What is known that is most like a config: of the same backbone, encoder and kind of data at least."""
    def distance(s: Speed) -> tuple:
        return s.dataset != dataset, s.features != features, s.mixer != mixer, abs(math.log2(s.batch / batch))

    small = _is_small(dataset)
    alike = [s for s in speeds.get(backbone, ()) if s.encoder == encoder and _is_small(s.dataset) == small]
    if not alike:
        return None
    first = min(map(distance, alike))
    found, *more = (s for s in alike if distance(s) == first)
    for s in more:
        found = found.joined(s)
    return found


def _pace(speeds: Sequence[Speed], device: str) -> float:
    """How long things take on this machine, in multiples of what would have been guessed: the median over what ran."""
    ratios = []
    for s in speeds:
        c = Config(s.dataset, s.features, s.backbone, backbone_params={"encoder": s.encoder} if s.encoder else {},
                   train={"batch_size": s.batch, "max_epochs": max(1, round(s.epochs))})
        took = s.other_seconds + s.epochs * s.steps_per_epoch * s.seconds_per_step
        ratios.append(took / guess(c, device, max(1, round(s.steps_per_epoch * s.batch))))
    return median(ratios) if ratios else 1.0


def _is_small(dataset: str) -> bool:
    return dataset.startswith("synthetic-") and not dataset.endswith("-full")


def _small(c: Config) -> bool:
    return _is_small(c.dataset)


def rows_of(c: Config) -> int:
    """Training samples of a config's dataset, where no file says."""
    return _SMALL if _small(c) else _train_size(c.dataset.removeprefix("synthetic-").removesuffix("-full"))


def _kind(c: Config) -> tuple[str, str, str]:
    return c.dataset, c.features, c.backbone


def checkpoint_bytes(jobs: Sequence[Job], entries: Entries) -> dict[str, float]:
    """Expected bytes of a job's kept weights, by job id: from the parameters of a run of its config, backbone and
    features here, else a guess by its encoder."""
    known: dict[tuple[str, ...], float] = {}
    for j in jobs:
        env = _env(entries, j)
        if env.get("parameters"):
            size = 4.0 * (env["parameters"] + env.get("mixer_parameters", 0))
            known.setdefault((j.config.id,), size)
            known.setdefault(_kind(j.config), size)
    by_config = {c.id: known.get((c.id,)) or known.get(_kind(c)) or 4e6 * _millions(c.backbone_params) for c in {j.config for j in jobs}}
    return {j.id: by_config[j.config.id] for j in jobs}


def memory(jobs: Sequence[Job], entries: Entries) -> dict[str, float]:
    """Expected bytes of a process that trains a config on a CPU, by config id: the most that its own runs here took, else
    runs of its (dataset, features, backbone), else what its weights, their gradients and two moments need."""
    known: dict[Any, float] = {}
    for j in jobs:
        env = _env(entries, j)
        if env.get("peak_memory_mb") and not calibration.is_gpu(str(env.get("device", CPU))):
            for key in (j.config.id, _kind(j.config)):
                known[key] = max(known.get(key, 0.0), env["peak_memory_mb"] * 2**20)
    return {
        c.id: known.get(c.id) or known.get(_kind(c)) or _PROCESS + 4 * 4e6 * _millions(c.backbone_params)
        for c in dict.fromkeys(j.config for j in jobs)
    }


_PROCESS = 600e6  # bytes of a process with torch and a small feature file


def _env(entries: Entries, job: Job) -> Mapping[str, Any]:
    return entries[job.id].env if job.id in entries else {}


def _millions(params: Mapping[str, Any]) -> float:
    """Parameters of a model in millions, by its encoders."""
    sizes = _table()["parameters"]
    return sizes["rest"] + sum(sizes.get(params.get(k, "none"), sizes["encoder"]) for k in ("encoder", "audio_encoder"))
