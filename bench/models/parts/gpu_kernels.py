"""Kernels of our own for a GPU, where they can be had: Triton comes with torch's builds for CUDA and needs a C compiler.

Where there is none, or what it makes does not compute what torch computes, torch's own operations do the work: other
rounding, other draws, more time. `reason` says why.
"""

import functools
import os
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

OFF = "BENCH_KERNELS"  # "0" in this variable: torch's operations throughout


@functools.cache
def tower_kernels(device: torch.device) -> tuple[ModuleType | None, str]:
    """(bench/models/parts/tower_kernels.py, "") or (None, the reason). Tries them once per process and device."""
    if os.environ.get(OFF) == "0":
        return None, f"{OFF} is 0"
    try:
        from bench.models.parts import tower_kernels as found

        with torch.enable_grad():
            wrong = _difference(found, device)
    except Exception as e:  # noqa: BLE001 - no Triton, no compiler, a GPU that it does not know
        first = str(e).splitlines()[0] if str(e) else ""
        return None, f"{type(e).__name__}: {first}"[:200]
    return (found, "") if wrong < 1e-4 else (None, f"they differ from torch's operations by {wrong:.1g}")


def facts(model: nn.Module) -> dict[str, str]:
    """For env.json, after a training: what the model's towers ran by on a GPU; empty for a model without, and on a CPU."""
    found = {m.ran_by for m in model.modules() if getattr(m, "ran_by", "")}
    return {"tower_kernels": found.pop()} if found else {}


def _difference(kernels: ModuleType, device: torch.device) -> float:
    """Largest difference of outputs and gradients on a small case. Draws from no generator of the process."""
    n, B, T, heads, h = 2, 2, 5, 2, 3
    q, k, v, g = (torch.linspace(-1, 1, n * B * T * heads * h, device=device).mul(f).sin().view(n, B, T, -1) for f in (97, 151, 211, 307))
    for x in (q, k, v):
        x.requires_grad_()
    mask, rates = torch.full((T, T), -torch.inf, device=device).triu(1).view(1, 1, T, T), torch.zeros(n, 1, 1, 1, device=device)

    def heads_of(x: Tensor) -> Tensor:
        return x.view(n, B, T, heads, h).transpose(2, 3)

    weights = (heads_of(q) @ heads_of(k).transpose(-1, -2) + mask[:, :, None]).softmax(-1)
    sides = [
        (made, *torch.autograd.grad(made, (q, k, v), g), normed, *torch.autograd.grad(normed, v, g))
        for made, normed in (
            ((weights @ heads_of(v)).transpose(2, 3).reshape_as(q), F.layer_norm(v, v.shape[-1:])),
            (kernels.attention(q, k, v, heads, mask, rates, False), kernels.normalise(v)),
        )
    ]
    return max((a - b).abs().max().item() for a, b in zip(*sides, strict=True))
