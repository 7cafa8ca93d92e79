"""Sparse mixture of experts with noisy top-k gating (Shazeer et al., 2017), combined in log space as GLoMo does.

All experts see all rows and the gates select: for a handful of small experts that is cheaper than sending rows
around, needs no look at the data, and gives the same numbers.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

GATE_CDF_MEAN = 0.1  # the load estimate uses the CDF of Normal(0.1, 1) (GLoMo's release)
_FLOOR = torch.finfo(torch.float64).eps  # in place of an exact zero inside the logarithm


class Mixture(NamedTuple):
    """value [B, out]; gates [B, E], at most k of them positive; load [E]; balance: scalar loss, weighted."""

    value: Tensor
    gates: Tensor
    load: Tensor
    balance: Tensor


def squared_variation(x: Tensor) -> Tensor:
    """Squared coefficient of variation of a vector, with the unbiased variance."""
    return x.var() / (x.mean().square() + 1e-10)


class MixtureOfExperts(nn.Module):
    """E two-layer experts, of which the `k` with the largest gate logits answer for a row: [B, d] -> [B, out]."""

    def __init__(self, d: int, hidden: int, out: int, experts: int, k: int, balance: float) -> None:
        super().__init__()
        if not 0 < k <= experts or experts < 2:
            raise ValueError(f"a mixture needs 2 experts or more and 0 < k <= experts, got k={k}, experts={experts}")
        self.k, self.balance = k, balance
        self.w_gate = nn.Parameter(torch.zeros(d, experts))
        self.w_noise = nn.Parameter(torch.zeros(d, experts))
        self.experts = nn.ModuleList(
            [nn.Sequential(nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, out)) for _ in range(experts)]
        )

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Mixture:
        """x [B, d]. In training the gate logits get noise: `noise` [B, E], standard normal, or drawn here."""
        with torch.autocast(x.device.type, enabled=False):  # exponentials and load estimates need more than bf16
            return self._mix(x if x.dtype == torch.float64 else x.float(), noise)

    def _mix(self, x: Tensor, noise: Tensor | None) -> Mixture:
        clean = x @ self.w_gate  # (B, E)
        if self.training:
            scale = nn.functional.softplus(x @ self.w_noise) + 1e-2
            logits = clean + (torch.randn_like(clean) if noise is None else noise) * scale
        else:
            logits = clean
        top, chosen = logits.topk(min(self.k + 1, clean.shape[1]), dim=1)
        gates = torch.zeros_like(logits).scatter(1, chosen[:, : self.k], top[:, : self.k].softmax(1))
        load = (gates > 0).to(gates).sum(0)
        if self.training and self.k < clean.shape[1]:
            load = self._expected_load(clean, logits, scale, top)
        balance = self.balance * (squared_variation(gates.sum(0)) + squared_variation(load))
        answers = torch.stack([expert(x) for expert in self.experts], 2)  # (B, out, E)
        total = (gates[:, None] * answers.exp()).sum(2)  # (B, out)
        return Mixture(torch.where(total == 0, _FLOOR, total).log(), gates, load, balance)

    def _expected_load(self, clean: Tensor, logits: Tensor, scale: Tensor, top: Tensor) -> Tensor:
        """Expected number of rows per expert [E] under a fresh draw of its noise, all else fixed."""
        if_in, if_out = top[:, self.k, None], top[:, self.k - 1, None]  # (B, 1)
        threshold = torch.where(logits > if_in, if_in, if_out)
        z = (clean - threshold) / scale - GATE_CDF_MEAN
        return (0.5 * (1 + torch.erf(z / math.sqrt(2)))).sum(0)
