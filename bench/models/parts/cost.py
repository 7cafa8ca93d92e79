"""What a model costs: parameters, floating-point operations of one forward pass, seconds of one pass over the data.

Operations are counted by torch.utils.flop_counter: matrix products, convolutions and attention, a multiply-add as two.
Papers often count it as one ("MACs"), and leave out more: `operations` and `parameters_by_paper` give both rules. Element-wise operations and recurrent kernels are
not counted.
"""

import time
from collections.abc import Callable, Mapping, Sequence
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


@dataclass(frozen=True)
class Operations:
    """GFLOPs per sample of a forward pass, under two rules."""

    gflops: float  # ours: a multiply-add counts 2, attention included
    paper: float  # SAM-LML's (Table 9): a multiply-add counts 1, see `operations`


def parameters_by_paper(model: nn.Module) -> int:
    """Parameters as SAM-LML counts them (Tables 2 and 3): with the text encoder's pooler, whether or not the model builds
    and reads it. HKT then has exactly the printed 17,066,564 and 17,101,372."""
    encoder, total = getattr(model, "text_encoder", None), sum(q.numel() for q in model.parameters())
    if encoder is None or getattr(encoder, "pooler", None) is not None:
        return total
    d = model.text_width
    return total + d * d + d


@torch.enable_grad()  # without gradients torch's transformer layers take a fused path that is not counted
def operations(model: nn.Module, batch: Batch) -> Operations:
    """Operations of a forward pass in evaluation mode over a batch.

    The rule that reproduces SAM-LML's Table 9: one per multiply-add, linear layers alone (no attention products), and not
    ALBERT's attention output projection, which its profiler did not see. HKT, at 64 and 77 word pieces, then has 5.27 and
    6.36, as printed.
    """
    training = model.training
    model.eval()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(batch)
    model.train(training)
    rows, counts = len(next(iter(batch.values()))) * 1e9, counter.get_flop_counts()
    unseen = (count for name, count in counts.items() if name.endswith(".attention.dense"))  # ALBERT's; BERT's is .output.dense
    linear = _linear(counts["Global"]) - sum(map(_linear, unseen))
    return Operations(counter.get_total_flops() / rows, linear / 2 / rows)


def _linear(counts: Mapping[Any, int]) -> int:
    return sum(n for operator, n in counts.items() if str(operator).removeprefix("aten.") in ("addmm", "mm"))


def gflops(model: nn.Module, batch: Batch) -> float:
    """GFLOPs per sample of a forward pass in evaluation mode over a batch (multiply-add = 2)."""
    return operations(model, batch).gflops


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
