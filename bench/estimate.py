"""How long jobs will take: as long as runs of their kind, or what experiments/hyperparameters/cost.toml says."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench import registry
from bench.matrix import Config, Job

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

CPU, GPU = "cpu", "gpu"
Envs = Mapping[str, Mapping[str, Any]]  # job id -> env.json of its run
_FILE = Path(__file__).parents[1] / "experiments" / "hyperparameters" / "cost.toml"
_SYNTHETIC = 5.0  # seconds of a job on small generated data
_BASE = "base"
_EPOCHS, _MOSI = 20, 1284


@lru_cache
def _table() -> dict[str, Any]:
    own = sorted(_FILE.with_name("baselines").glob("*.toml"))  # a baseline's file says what it costs
    costs = {p.stem: tomllib.loads(p.read_text(encoding="utf-8")).get("cost", {}) for p in own}
    return {**{k: v for k, v in costs.items() if v}, **tomllib.loads(_FILE.read_text(encoding="utf-8"))}


def guess(c: Config, device: str = CPU) -> float:
    """Expected seconds of one training of a config: on one CPU core, or on a GPU by itself."""
    if _small(c):
        return _SYNTHETIC
    dataset = c.dataset.removeprefix("synthetic-").removesuffix("-full")
    mine = _table().get(c.backbone, {})
    entry = mine.get(f"{dataset}/{c.features}") or mine.get(dataset)
    if entry is None:  # a dataset that nobody has timed: as long as a timed one, sample for sample
        timed = next((d for d in ("mosi", *mine) if d in mine and "/" not in d), None)
        entry, scale = (mine[timed], _train_size(dataset) / _train_size(timed)) if timed else (_table()["default"]["any"], 1.0)
        entry = {k: v * scale if k in (CPU, GPU) else v for k, v in entry.items()}
    minutes = entry[device] * c.fraction * _table()["encoders"].get(c.backbone_params.get("encoder", _BASE), 1.0)
    if device == GPU and "batch" in entry:
        minutes *= entry["batch"] / c.train.get("batch_size", entry["batch"])
    # the table's minutes are those of a training that stops by itself, after some twenty epochs
    return 60.0 * minutes * min(c.train.get("max_epochs", _EPOCHS) / _EPOCHS, 1.0)


@lru_cache
def _train_size(dataset: str) -> int:
    """Training samples of a dataset, as its spec says; MOSI's where nobody knows."""
    try:
        return registry.load("datasets", dataset).SPEC.sizes["train"] or _MOSI
    except Exception:  # noqa: BLE001 - a dataset of a plugin that is gone, say
        return _MOSI


def seconds(jobs: Sequence[Job], envs: Envs, device: str = CPU) -> dict[str, float]:
    """Expected seconds per config on a device: the mean of its own runs there, else of its (dataset, features,
    backbone), else what runs of its backbone on other data took per sample and epoch, else a guess."""
    own: dict[str, list[float]] = {}
    kin: dict[tuple[str, str, str], list[float]] = {}
    cousins: dict[str, list[tuple[float, int]]] = {}  # backbone -> (seconds per sample and epoch, epochs)
    for j in jobs:
        if env := envs.get(j.id):
            wall = env.get("wall_seconds")
            if wall and _where(env) == device:
                own.setdefault(j.config.id, []).append(wall)
                kin.setdefault(_kind(j.config), []).append(wall)
                epochs = round(env.get("train_seconds", 0) / env["train_seconds_per_epoch"]) if env.get("train_seconds_per_epoch") else 0
                if epochs:
                    passes = epochs * max(_size(j.config), 1)
                    cousins.setdefault(j.config.backbone, []).append((wall / passes, epochs))
    expected = {}
    for c in dict.fromkeys(j.config for j in jobs):
        past, near = own.get(c.id) or kin.get(_kind(c)), cousins.get(c.backbone)
        if past:
            expected[c.id] = sum(past) / len(past)
        elif near and not _small(c):
            rate, epochs = (sum(x) / len(near) for x in zip(*near))
            expected[c.id] = rate * _size(c) * min(epochs, c.train.get("max_epochs", epochs))
        else:
            expected[c.id] = guess(c, device)
    return expected


def _small(c: Config) -> bool:
    return c.dataset.startswith("synthetic-") and not c.dataset.endswith("-full")


def _size(c: Config) -> float:
    """Training samples of a config."""
    return c.fraction * (120 if _small(c) else _train_size(c.dataset.removeprefix("synthetic-").removesuffix("-full")))


def _kind(c: Config) -> tuple[str, str, str]:
    return c.dataset, c.features, c.backbone


def checkpoint_bytes(jobs: Sequence[Job], envs: Envs) -> dict[str, float]:
    """Expected bytes of a job's kept weights, by job id: from the parameters of a run of its config, backbone and
    features here, else a guess by its encoder."""
    known: dict[tuple[str, ...], float] = {}
    for j in jobs:
        env = envs.get(j.id, {})
        if env.get("parameters"):
            size = 4.0 * (env["parameters"] + env.get("mixer_parameters", 0))
            known.setdefault((j.config.id,), size)
            known.setdefault(_kind(j.config), size)
    by_config = {c.id: known.get((c.id,)) or known.get(_kind(c)) or 4e6 * _millions(c.backbone_params) for c in {j.config for j in jobs}}
    return {j.id: by_config[j.config.id] for j in jobs}


def memory(jobs: Sequence[Job], envs: Envs) -> dict[str, float]:
    """Expected bytes of a process that trains a config on a CPU, by config id: the most that its own runs here took, else
    runs of its (dataset, features, backbone), else what its weights, their gradients and two moments need."""
    known: dict[Any, float] = {}
    for j in jobs:
        env = envs.get(j.id, {})
        if env.get("peak_memory_mb") and _where(env) == CPU:
            for key in (j.config.id, _kind(j.config)):
                known[key] = max(known.get(key, 0.0), env["peak_memory_mb"] * 2**20)
    return {
        c.id: known.get(c.id) or known.get(_kind(c)) or _PROCESS + 4 * 4e6 * _millions(c.backbone_params)
        for c in dict.fromkeys(j.config for j in jobs)
    }


_PROCESS = 600e6  # bytes of a process with torch and a small feature file


def _where(env: Mapping[str, Any]) -> str:
    """The device class that a run was made on."""
    return CPU if str(env.get("device", CPU)).upper().startswith("CPU") else GPU


def _millions(params: Mapping[str, Any]) -> float:
    """Parameters of a model in millions, by its encoders."""
    sizes = _table()["parameters"]
    return sizes["rest"] + sum(sizes.get(params.get(k, "none"), sizes["encoder"]) for k in ("encoder", "audio_encoder"))
