"""Golden short-run losses, one per backbone x mixer cell: numbers cannot change without a VERSION bump.

`python -m tests.golden [BACKBONE...]` rewrites tests/golden/<backbone>.json; do that only together with a bump of the
component that changed.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from bench import registry
from bench.data.dataset import load
from bench.experiments.common import config
from bench.job import build_data, build_mixer, build_model
from bench.matrix import Job
from bench.models.base import Inputs
from bench.seeds import numpy_stream, stream_seed
from bench.train.loop import Streams, fit
from bench.train.protocol import Protocol, from_params

SMALLER = {"mult": {"levels": 2}, "glomo": {"layers": 2}, "bbfn": {"layers": 2}, "confede": {"layers": 1}}  # for tests of a step: the same code, fewer layers

DATASETS = {"hkt": "mustard", "mgcl": "mustard", "mo_sarcation": "mustard"}  # whose data are of another kind than MOSI's
FOLDER = Path(__file__).with_name("golden")
TEXT_BACKBONES_ENCODER = {"encoder": "tiny"}
MIXED = ("tfn", "lmf", "mult", "misa", "self_mm", "almt", "glomo")  # the papers' backbones: with every mixer


def cell_config(backbone: str, mixer: str, dataset: str = "", **changes):
    """A cell as MS-Mix runs it, on small generated data, with the tiny encoder where one is fine-tuned."""
    dataset = dataset or DATASETS.get(backbone, "mosi")
    c = config("msmix", backbone, dataset, mixer, **changes)
    encoder = TEXT_BACKBONES_ENCODER if registry.load("models", backbone).Model.needs_tokens else {}
    if small := {**encoder, **registry.constants("models", backbone).get("BRIEF", {})}:
        c = c.with_(backbone_params=small)
    return c.with_(dataset=f"synthetic-{dataset}", train={"batch_size": 16, "accumulate": 1, "max_epochs": 1})


def short_run(backbone: str, mixer: str, dataset: str = "", **changes) -> dict[str, float]:
    """Train one epoch of a few steps; returns the epoch's mean losses and the validation loss."""
    job = Job(cell_config(backbone, mixer, dataset, **changes).with_(fraction=0.2), 1111)
    c = job.config
    data = build_data(job, load(c.dataset, c.features), registry.load("models", backbone).Model, "cpu")
    model = build_model(job, Inputs(**data.inputs()))
    mix = build_mixer(job, model)
    p = from_params(Protocol, c.train, "protocol")
    torch.manual_seed(stream_seed(c.dataset, backbone, 1111, "dropout"))
    streams = Streams(
        numpy_stream(c.dataset, backbone, 1111, "order"), numpy_stream(c.dataset, backbone, 1111, "mixing"),
        torch.Generator().manual_seed(stream_seed(c.dataset, backbone, 1111, "mixing")),
    )
    history = fit(model, mix, data, p, streams, data.dataset.spec.metrics).history[-1]
    pinned = [k for k in history if k.startswith("train_") and not k.startswith("train_mix_") or k == "valid_loss"]
    return {k: float(np.float64(history[k])) for k in pinned}


def cells() -> list[tuple[str, str]]:
    """The papers' backbones with every mixer; other systems with none and, where they have latents, with MS-Mix."""
    return [
        (b, m) for b in registry.names("models") for m in registry.names("mixers")
        if b in MIXED or m == "none" or m == "msmix" and registry.constants("models", b).get("MIXABLE", True)
    ]


def stored(backbone: str) -> dict[str, dict]:
    """mixer -> {"versions", "losses"} as they were recorded; empty where nothing was."""
    path = FOLDER / f"{backbone}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def versions(backbone: str, mixer: str) -> dict[str, int]:
    from bench.train import protocol

    return {"backbone": registry.version("models", backbone), "mixer": registry.version("mixers", mixer),
            "train": protocol.VERSION, "dataset": registry.version("datasets", "mosi")}


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    chosen = sys.argv[1:] or registry.names("models")
    for backbone in chosen:
        old, golden = stored(backbone), {}
        for b, m in cells():
            if b == backbone:
                now = versions(b, m)
                keep = old.get(m, {}).get("versions") == now  # a version that did not change pins its numbers
                golden[m] = old[m] if keep else {"versions": now, "losses": short_run(b, m)}
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{backbone}.json").write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
