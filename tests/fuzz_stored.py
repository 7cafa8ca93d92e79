"""Mutated job folders: bytes of any file, and values of the JSON files, sealed as a run seals them or as earlier versions
left them. `outcome` says what became of one; benchmarks/fuzz_stored.py counts thousands."""

import copy
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from bench.files import write_json
from bench.matrix import Config, Job
from bench.metrics import evaluate
from bench.store import Store
from bench.verify import verify

JUNK = (None, True, False, -1, 0, 1.5, -3, 1e300, 10**400, "", "x", "\ud800", "[/b]", "=1+1", [], [[]], {}, {"a": 1}, "\x00", 2**63)
INSERTS = (b"null", b"\x00", b"1e999", b"\xff", b"{", b"[" * 3000, b'"a":1,', b"NaN", b"-", b"\r\n", b"PK\x03\x04")
JSONS = ("metrics.json", "job.json", "env.json")


def finish(store: Store, job: Job, seed: int = 0, **env) -> None:
    """A whole result whose metrics are those of its predictions."""
    draw = np.random.default_rng([seed, job.seed])
    kept, metrics = {}, {"best_epoch": 2, "epochs": 2, "updates": 4, "n": {}}
    for split in ("valid", "test"):
        y = draw.normal(0, 1.5, 50).astype(np.float32)
        p = (y + draw.normal(0, 0.5, 50)).astype(np.float32)
        kept |= {f"{split}_id": np.arange(50).astype(str), f"{split}_prediction": p, f"{split}_label": y}
        metrics[split] = {**evaluate(p, y, "msena"), "loss": float(np.abs(p - y).mean())}
        metrics["n"][split] = 50
    store.begin(job)
    store.finish(job, metrics, pd.DataFrame({"epoch": [1, 2], "valid_loss": [0.5, 0.4]}), kept, {"data_sha256": "aa", **env}, ["done"])


def mutate_bytes(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(changed) + 1)
        kind = draw.choice(("flip", "cut", "insert", "double", "end"))
        if kind == "flip" and at < len(changed):
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == "cut":
            del changed[at:at + draw.randint(1, 40)]
        elif kind == "insert":
            changed[at:at] = draw.choice(INSERTS)
        elif kind == "end":
            del changed[at:]
        else:
            changed[at:at] = changed[max(0, at - 20):at]
    return bytes(changed)


def mutate_value(content: object, draw: random.Random) -> object:
    """Put junk in a random place of a JSON value, take the place away, or name it otherwise."""
    changed = copy.deepcopy(content)
    at, path = changed, []
    while isinstance(at, dict) and at:
        key = draw.choice(sorted(at))
        path.append((at, key))
        at = at[key]
        if draw.random() < 0.4:
            break
    if not path:
        return draw.choice(JUNK)
    holder, key = path[-1]
    kind = draw.choice(("junk", "drop", "rename"))
    if kind == "junk":
        holder[key] = draw.choice(JUNK)
    else:
        value = holder.pop(key)
        if kind == "rename":
            holder[draw.choice(("", "x", "acc2", "\ud800"))] = value
    return changed


def mutate(folder: Path, draw: random.Random) -> str:
    """Change one file of a job folder; says what was done."""
    if draw.random() < 0.5:
        file = draw.choice(sorted(p for p in folder.iterdir() if p.is_file()))
        file.write_bytes(mutate_bytes(file.read_bytes(), draw))
        return f"bytes of {file.name}"
    name = draw.choice(JSONS)
    content = json.loads((folder / name).read_text())
    unsealed = name == "metrics.json" and draw.random() < 0.7
    if unsealed:
        content.pop("digests", None)
        write_json(folder / "env.json", {"data_sha256": "aa"})
    (folder / name).write_text(json.dumps(mutate_value(content, draw)))
    return f"{'unsealed ' if unsealed else ''}values of {name}"


def outcome(root: Path, seed: int) -> tuple[str, str]:
    """(what was done, what became of it): "as it was", "damaged", "other values" (unsealed, in range), "missing"; or
    "ACCEPTED ..." for a result that breaks an invariant. Whatever the readers raise is raised."""
    draw = random.Random(seed)
    shutil.rmtree(root, ignore_errors=True)
    store, job = Store(root), Job(Config("mosi", "unaligned", "lmf"), 1111)
    finish(store, job)
    sound, folder = store.metrics(job), store.folder(job)
    done = mutate(folder, draw)
    fresh = Store(root)
    status, (values, runs) = fresh.status(job, {("mosi", "unaligned"): "aa"}), fresh.frames([job])
    fresh.history(job), fresh.predictions(job), fresh.scan()
    wrong = verify(fresh, deep=True).wrong
    runs.to_csv(), values.to_csv()
    if status == "damaged":
        shown = runs.error[0].startswith("damaged: ") and values.empty and bool(wrong)
        return done, "damaged" if shown else "ACCEPTED in part"
    if status in ("missing", "failed"):
        return done, status if values.empty else "ACCEPTED though missing"
    if status == "stale":
        return done, "stale"
    if fresh.metrics(job) == sound:
        return done, "as it was"
    numbers = values.value.dropna()
    fractions = values[values.metric.str.contains("acc|f1|avg")].value.dropna()
    sane = np.isfinite(numbers).all() and fractions.between(-1e-6, 1 + 1e-6).all() and "digests" not in fresh.metrics(job)
    return done, "other values" if sane else "ACCEPTED out of range"
