"""What the command line calls, and what a script or notebook imports: `import bench; bench.plan(...)`.

Every function takes names and paths as the command line does and raises BenchError, in one line, for what a user can
get wrong.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.plan import Plan, make_plan
from bench.rendering import as_run, report, watch
from bench.running import Finished, check_results, check_timeout, run, tune
from bench.seeds import MOST_SEEDS
from bench.settings import given, variant_name
from bench.store import Store
from bench.suites import suite as suite_named

__all__ = [
    "Finished", "Plan", "as_run", "cell", "check_results", "check_timeout", "export", "plan", "predict", "report", "results",
    "run", "tune", "watch",
]


def plan(
    artefacts: Iterable[str] = (), suite: str = "quick", data: str | Path | None = None,
    results: str | Path = "results", seeds: int | None = None, only: str | Sequence[str] | None = None, settings: Sequence[str] = (),
    everything: bool = False, variant: str = "", baselines: bool = False,
) -> Plan:
    """The jobs that artefacts need in a suite, and the state of each. No artefact named: the suite's own, or, with
    `everything`, all there are. `settings`: as after --set, "train.max_epochs=5"; what they change stands beside the
    default's results, under the name `variant` where one is given. `baselines`: tables get
    rows of simple baselines (bench/baselines.py)."""
    from bench.experiments import select

    s = suite_named(suite)
    data = None if data is None else Path(data)
    if data is not None and not data.is_dir():
        raise BenchError(f"--data {data}: no such folder")
    if Path(results).exists() and not Path(results).is_dir():
        raise BenchError(f"--results {results}: a file, not a folder; name another")
    if seeds is not None and not 1 <= seeds <= MOST_SEEDS:
        raise BenchError(f"--seeds takes 1 to {MOST_SEEDS}, got {seeds}")
    named = list(artefacts)
    chosen = select(named or (() if everything or s.artefacts == ("*",) else s.artefacts))
    if variant:
        variant_name(variant, settings)
    return make_plan(chosen, s, Store(results, indexed=True), data, seeds, only, settings, variant, baselines)


def results(folder: str | Path = "results") -> pd.DataFrame:
    """One row per finished job, split and metric: job, config, dataset, features, backbone, mixer, seed, split, metric,
    value, and the data file's data_sha256; the job's settings follow as columns ("train.lr", "backbone.rank", "mixer.p_mix", ...)."""
    store = Store(folder, indexed=True)
    jobs = store.scan()
    values, runs = store.frames(jobs)
    values["data_sha256"] = values.job.map(dict(zip(runs.job, runs.get("data_sha256", ()))))
    settings: list[dict[str, Any]] = [
        {"job": j.id, **{k: _scalar(v) for k, v in given(j.config).items() if k != "features"}} for j in jobs
    ]
    return values.merge(pd.DataFrame(settings), on="job", how="left") if settings else values


def _scalar(value: Any) -> Any:
    return str(value) if isinstance(value, (list, dict)) else value


def cell(
    folder: str | Path = "results", *, dataset: str, backbone: str, mixer: str = "none", metric: str,
    split: str = "test", config: str | None = None,
) -> pd.Series:
    """Values of one cell of the matrix by seed. Raises BenchError where several configs fit and none is named, and where
    its runs are of several data files."""
    found = results(folder)
    fits = (found.dataset == dataset) & (found.backbone == backbone) & (found.mixer == mixer)
    found = found[fits & (found.metric == metric) & (found.split == split)]
    if config is not None:
        found = found[found.config == config]
    if found.config.nunique() > 1:
        raise BenchError(f"{dataset} {backbone}+{mixer}: {found.config.nunique()} settings here ({', '.join(sorted(set(found.config)))}); name one with config=")
    if found.empty:
        raise BenchError(f"no finished run of {dataset} {backbone}+{mixer} with {split} {metric} in {folder}")
    if len(files := sorted(set(found.data_sha256.fillna("unknown").str[:12]))) > 1:
        raise BenchError(f"{dataset} {backbone}+{mixer}: runs of {len(files)} data files here ({', '.join(files)}); `results` has them by data_sha256")
    return found.set_index("seed").value.sort_index()


def predict(job: str | Path, data: str | Path, results: str | Path = "results") -> pd.DataFrame:
    """Scores of a feature file by a job's kept weights: split, id, prediction, label (NaN where the file has none).
    `job`: an id, the beginning of one, a job's folder, or a weights.safetensors."""
    from bench.export import find
    from bench.predict import predict as score

    if Path(job).is_file():
        return score(job, data)
    store = Store(results)
    return score(store.checkpoint(find(store, str(job))), data)


def export(job: str, results: str | Path = "results", out: str | Path | None = None) -> Path:
    """Write a job's weights, settings and a card into a folder (default: exported/<job>) and return it."""
    from bench.export import export as write
    from bench.export import find

    store = Store(results)
    found = find(store, job)
    return write(store, found, out or Path("exported") / found.id)
