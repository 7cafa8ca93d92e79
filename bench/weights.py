"""Trained weights on disk: safetensors, with the job and the shapes of its inputs in the file's own header.

Keys are `model.<name>` and `mixer.<name>`: the selected weights of the model, and the mixer's after the last epoch.
Reading a file runs no code.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bench import registry
from bench.errors import BenchError
from bench.matrix import Job
from bench.models.base import Backbone, Inputs
from bench.train.protocol import from_params

KEEP = "the command that made the job, with --keep-checkpoints and another --results folder, trains it again and keeps them"
FORMAT = "msa-bench 1"


@dataclass(frozen=True)
class Weights:
    """A file of weights: whose they are, what the model was built for, and the tensors."""

    job: Job
    inputs: Inputs
    tensors: Mapping[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        """State of "model" or "mixer"."""
        return {k.removeprefix(f"{name}."): t for k, t in self.tensors.items() if k.startswith(f"{name}.")}


def save(path: Path, job: Job, inputs: Inputs, model: nn.Module, mixer: nn.Module) -> None:
    """Write a whole file or nothing."""
    tensors = {
        f"{part}.{key}": t.detach().cpu().contiguous().clone()  # a clone: safetensors refuses tensors that share memory
        for part, module in (("model", model), ("mixer", mixer)) for key, t in module.state_dict().items()
    }
    header = {"format": FORMAT, "job": json.dumps(job.as_dict()), "inputs": json.dumps(asdict(inputs))}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, header)
        temporary.replace(path)
    except (OSError, SafetensorError) as e:
        raise BenchError(f"cannot write {path}: {str(e).splitlines()[0]}; free some space and run again") from None
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | Path) -> Weights:
    """Read a file that `save` wrote. Raises BenchError, in one line, for anything else."""
    try:
        with safe_open(str(path), "pt") as f:
            header = f.metadata() or {}
            if header.get("format") != FORMAT:
                raise BenchError(f"{path}: no weights of this harness")
            tensors = {k: f.get_tensor(k) for k in f.keys()}
        inputs = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(header["inputs"]).items()}
        return Weights(Job.from_dict(json.loads(header["job"])), Inputs(**inputs), tensors)
    except FileNotFoundError:
        raise BenchError(f"{path}: no such file; {KEEP}") from None
    except (SafetensorError, KeyError, TypeError, ValueError) as e:
        raise BenchError(f"{path}: damaged weights ({str(e).splitlines()[0]})") from None


def restore(weights: Weights, model: nn.Module, mixer: nn.Module | None = None) -> None:
    """Load the tensors into modules of the same job. Raises BenchError where they do not fit."""
    try:
        model.load_state_dict(weights.part("model"))
        if mixer is not None:
            mixer.load_state_dict(weights.part("mixer"))
    except RuntimeError as e:
        raise BenchError(f"weights do not fit {weights.job.config.backbone} as it is now: {str(e).splitlines()[0]}") from None


def build(path: str | Path) -> Backbone:
    """The trained model of a file, in evaluation mode on the CPU: `build("weights.safetensors")(batch).prediction`.
    bench/models/base.py lists a batch's keys. Dropout and initial weights play no part."""
    w = load(path)
    c = w.job.config
    module: Any = registry.load("models", c.backbone)
    state = torch.get_rng_state()
    model = module.Model(from_params(module.Params, c.backbone_params, f"backbone '{c.backbone}'"), w.inputs)
    torch.set_rng_state(state)
    restore(w, model)
    return model.eval()
