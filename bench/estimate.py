"""How long jobs will take: as long as runs of their kind, or what experiments/hyperparameters/cost.toml says."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.matrix import Config, Job
from bench.records import read_env
from bench.store import DONE, STALE, Store

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

CPU, GPU = "cpu", "gpu"
_FILE = Path(__file__).parents[1] / "experiments" / "hyperparameters" / "cost.toml"
_SYNTHETIC = 5.0  # seconds of a job on small generated data
_BASE = "base"


@lru_cache
def _table() -> dict[str, Any]:
    own = sorted(_FILE.with_name("baselines").glob("*.toml"))  # a baseline's file says what it costs
    costs = {p.stem: tomllib.loads(p.read_text(encoding="utf-8")).get("cost", {}) for p in own}
    return {**{k: v for k, v in costs.items() if v}, **tomllib.loads(_FILE.read_text(encoding="utf-8"))}


def guess(c: Config, device: str = CPU) -> float:
    """Expected seconds of one training of a config: on one CPU core, or on a GPU by itself."""
    if c.dataset.startswith("synthetic-") and not c.dataset.endswith("-full"):
        return _SYNTHETIC
    dataset = c.dataset.removeprefix("synthetic-").removesuffix("-full")
    mine = _table().get(c.backbone, {})
    entry = mine.get(f"{dataset}/{c.features}") or mine.get(dataset) or _table()["default"]["any"]
    minutes = entry[device] * c.fraction * _table()["encoders"].get(c.backbone_params.get("encoder", _BASE), 1.0)
    if device == GPU and "batch" in entry:
        minutes *= entry["batch"] / c.train.get("batch_size", entry["batch"])
    return 60.0 * minutes


def seconds(jobs: Sequence[Job], status: Mapping[str, str], store: Store, device: str = CPU) -> dict[str, float]:
    """Expected seconds per config on a device: the mean of its own runs there, else of its (dataset, features,
    backbone), else a guess."""
    own: dict[str, list[float]] = {}
    kin: dict[tuple[str, str, str], list[float]] = {}
    for j in jobs:
        if status[j.id] in (DONE, STALE):
            env = read_env(store.folder(j))
            wall, where = env.get("wall_seconds"), CPU if str(env.get("device", CPU)).upper().startswith("CPU") else GPU
            if wall and where == device:
                own.setdefault(j.config.id, []).append(wall)
                kin.setdefault(_kind(j.config), []).append(wall)
    expected = {}
    for c in dict.fromkeys(j.config for j in jobs):
        past = own.get(c.id) or kin.get(_kind(c))
        expected[c.id] = sum(past) / len(past) if past else guess(c, device)
    return expected


def _kind(c: Config) -> tuple[str, str, str]:
    return c.dataset, c.features, c.backbone


def checkpoint_bytes(jobs: Sequence[Job], store: Store) -> dict[str, float]:
    """Expected bytes of a job's kept weights, by job id: from the parameters of a run of its config, backbone and
    features here, else a guess by its encoder."""
    known: dict[tuple[str, ...], float] = {}
    for j in jobs:
        env = read_env(store.folder(j))
        if env.get("parameters"):
            size = 4.0 * (env["parameters"] + env.get("mixer_parameters", 0))
            known.setdefault((j.config.id,), size)
            known.setdefault(_kind(j.config), size)
    return {
        j.id: known.get((j.config.id,)) or known.get(_kind(j.config)) or 4e6 * _millions(j.config.backbone_params)
        for j in jobs
    }


def _millions(params: Mapping[str, Any]) -> float:
    """Parameters of a model in millions, by its encoders."""
    sizes = _table()["parameters"]
    return sizes["rest"] + sum(sizes.get(params.get(k, "none"), sizes["encoder"]) for k in ("encoder", "audio_encoder"))
