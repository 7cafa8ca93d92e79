"""A job's model for use elsewhere: `bench export JOB` writes weights, settings and a card into a folder."""

import json
import shutil
from pathlib import Path

from bench import __version__
from bench.errors import BenchError
from bench.files import one_line
from bench.matrix import Job
from bench.records import read_env
from bench.store import Store
from bench.weights import KEEP, load

_CARD = """# {backbone}{mixer} on {dataset}

Trained by msa-bench {version} (job `{job}`). Nothing here is a released model of the papers' authors.

| | |
|---|---|
| data | {dataset}, {features} features, {provenance}, sha256 `{sha256}` |
| seed | {seed} |
| selected | epoch {best_epoch} of {epochs}, by the validation loss |
| device | {device}, torch {torch} |

| test metric | value |
|---|---|
{metrics}

## Use

```python
from bench.weights import build
model = build("weights.safetensors")      # evaluation mode, on the CPU
print(model.latent_dims)
prediction = model(batch).prediction      # [B]; bench/models/base.py lists the batch's keys
```

For a feature file: `bench predict --job weights.safetensors --data FILE --out predictions.csv`.

## Settings

```json
{settings}
```
"""


def export(store: Store, job: Job, out: str | Path) -> Path:
    """Copy weights, write config.json and README.md (a card) into `out`; returns the folder. Raises BenchError where
    the job is not done or its weights were not kept."""
    folder, target = store.folder(job), Path(out)
    metrics, env = store.metrics(job), read_env(folder)
    if metrics is None:
        raise BenchError(f"{folder} holds no finished job; run it first")
    weights = store.checkpoint(job)
    if not weights.exists():
        raise BenchError(f"no weights in {folder}; {KEEP}")
    load(weights)  # a damaged file is not handed on
    c = job.config
    test = {k: v for k, v in metrics["test"].items() if isinstance(v, (int, float))}
    card = _CARD.format(
        backbone=c.backbone, mixer="" if c.mixer == "none" else f" + {c.mixer}", dataset=c.dataset, features=c.features,
        version=__version__, job=job.id, seed=job.seed, provenance=env.get("provenance", "unknown"),
        sha256=env.get("data_sha256", "unknown"), device=env.get("device", "unknown"), torch=env.get("torch", "unknown"),
        best_epoch=metrics.get("best_epoch"), epochs=metrics.get("epochs"),
        metrics="\n".join(f"| {k} | {v:.4f} |" for k, v in sorted(test.items())),
        settings=json.dumps(c.as_dict(), indent=1, sort_keys=True),
    )
    with one_line(target, "--out"):
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, target / "weights.safetensors")
        (target / "config.json").write_text(json.dumps(job.as_dict(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        (target / "README.md").write_text(card, encoding="utf-8")
    return target


def find(store: Store, name: str) -> Job:
    """A job of the store by its id, the beginning of it, or its folder. Raises BenchError where none or several fit."""
    wanted = name.strip("/")
    fits = [j for j in store.scan() if j.id.startswith(wanted) or wanted.endswith(j.folder)]
    exact = [j for j in fits if j.id == wanted]
    if len(exact or fits) == 1:
        return (exact or fits)[0]
    if not fits:
        raise BenchError(f"no job '{name}' in {store.root}; `bench plan` and the report's cells name them")
    raise BenchError(f"'{name}' fits {len(fits)} jobs: {', '.join(j.id for j in fits[:4])}{' ...' if len(fits) > 4 else ''}")
