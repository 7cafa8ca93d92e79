"""What a model costs: parameters, floating-point operations of one forward pass, seconds of one pass over the data.

Operations are counted by torch.utils.flop_counter: matrix products, convolutions and attention, a multiply-add as two.
Papers often count it as one ("MACs"): halve the number to compare. Element-wise operations and recurrent kernels are
not counted.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Parameters:
    """Numbers of scalars. `encoder`: of the text encoder (without its pooler, which no model reads)."""

    total: int
    trained: int  # of them, with gradients
    encoder: int

    @property
    def own(self) -> int:
        """Outside the text encoder."""
        return self.total - self.encoder


def parameters(model: nn.Module) -> Parameters:
    """Parameter counts of a model; its text encoder, if any, is its `text_encoder`."""
    encoder = getattr(model, "text_encoder", None)
    return Parameters(
        total=sum(q.numel() for q in model.parameters()),
        trained=sum(q.numel() for q in model.parameters() if q.requires_grad),
        encoder=sum(q.numel() for q in encoder.parameters()) if encoder is not None else 0,
    )


@torch.enable_grad()  # without gradients torch's transformer layers take a fused path that is not counted
def gflops(model: nn.Module, batch: Batch) -> float:
    """GFLOPs per sample of a forward pass in evaluation mode over a batch (multiply-add = 2)."""
    training = model.training
    model.eval()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(batch)
    model.train(training)
    return counter.get_total_flops() / len(next(iter(batch.values()))) / 1e9


def seconds(step: Callable[[Any], object], batches: Sequence[Any], steps: int | None = None, warmup: int = 2) -> float:
    """Wall seconds of a pass of `steps` steps (default: one per batch), from the mean over `batches`.

    `step` is called once per batch, after `warmup` untimed calls on the first; devices are synchronised around the
    clock. Raises ValueError without batches.
    """
    if not batches:
        raise ValueError("no batches to time")
    for _ in range(warmup):
        step(batches[0])
    _synchronise()
    began = time.perf_counter()
    for batch in batches:
        step(batch)
    _synchronise()
    return (time.perf_counter() - began) / len(batches) * (len(batches) if steps is None else steps)


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
