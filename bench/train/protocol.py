"""How a job is trained and selected. Torch-free, so that plans can read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from bench.errors import BenchError

VERSION = 1  # of the training loop; part of every job's identity
_NAMES = {
    "loss": ("l1", "mse", "bce"), "optimiser": ("adam", "adamw"),
    "scheduler": ("none", "plateau", "step", "warmup-cosine", "warmup-linear", "warmup-cosine-step"),
}


@dataclass(frozen=True)
class Protocol:
    """Defaults are M-SENA's where M-SENA has one (facts in docs/protocol.md)."""

    loss: str = "l1"  # task criterion: "l1", "mse" or "bce"
    optimiser: str = "adam"  # "adam" or "adamw"
    lr: float = 1e-3
    group_lr: Mapping[str, float] = field(default_factory=dict)  # parameter group -> rate, where it differs from lr
    weight_decay: float = 0.0
    eps: float = 1e-8  # of the optimiser
    group_weight_decay: Mapping[str, float] = field(default_factory=dict)
    batch_size: int = 32
    drop_last: bool = False  # drop the last short training batch
    max_epochs: int = 100  # hard maximum; M-SENA has none
    patience: int = 8  # epochs without improvement of the validation loss
    min_delta: float = 1e-6  # strict improvement (M-SENA)
    clip_value: float | None = None
    clip_norm: float | None = None
    accumulate: int = 1  # batches whose gradients are summed (not averaged) per update (M-SENA: update_epochs)
    drop_remainder: bool = True  # left-over batches of an epoch make no update (M-SENA)
    scheduler: str = "none"  # _NAMES; "plateau": validation loss, factor 0.1
    milestones: tuple[int, ...] = ()  # of "step": epochs, from 1, from which on the rate is a tenth of what it was
    reset_optimiser: bool = False  # the optimiser forgets its moments before every epoch (GLoMo)
    scheduler_patience: int = 5  # of "plateau"
    warmup: float = 0.1  # share of the schedule, of "warmup-*"
    schedule_epochs: int | None = None  # length of the schedule, where it is not max_epochs
    checkpointing: bool = False  # recompute the encoders' activations in the backward pass: less memory, same numbers
    amp: bool = False  # bf16 autocast in training, where the device multiplies bf16 itself (train/precision.py)

    def __post_init__(self) -> None:
        for name, known in _NAMES.items():
            if getattr(self, name) not in known:
                raise BenchError(f"unknown train.{name} '{getattr(self, name)}'; known: {', '.join(known)}")
        if bool(self.milestones) != (self.scheduler == "step"):
            raise BenchError("train.milestones go with train.scheduler=step, which needs at least one")


def from_params(cls: type, params: Mapping[str, Any], what: str) -> Any:
    """Build a parameter dataclass from a mapping. Raises BenchError naming an unknown key."""
    known = {f.name for f in fields(cls)}
    unknown = sorted(set(params) - known)
    if unknown:
        raise BenchError(f"unknown parameter '{unknown[0]}' for {what}; known: {', '.join(sorted(known))}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in params.items()})
