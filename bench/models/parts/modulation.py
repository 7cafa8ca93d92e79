"""Gradient modulation of the acoustic and the visual encoder: GM, GE and the conflict-aware penalty CP (CP+SL, Step 4).

All functions work on device scalars, without a host-side branch. Modalities are the two keys of a mapping, whose
formulas are symmetric.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

_EPS = 1e-8  # ε of Eq. 5, and of OGM-GE's noise


@dataclass(frozen=True)
class Modulation:
    """How gradients are modulated."""

    alpha: float = 1.0  # α, Eq. 5
    eta: float = 0.5  # η, Eq. 6
    penalty: bool = True  # CP
    noise: bool = True  # GE
    penalise_modulated: bool = False  # compare the norms c_m g_m, which OGM leaves, not g_m


class Step(NamedTuple):
    """What one step did: per modality device scalars."""

    coefficient: dict[str, Tensor]  # c_m in (0, 1], penalty included
    conflict: dict[str, Tensor]  # 1. where CP applies, else 0.
    norm: dict[str, Tensor]  # g_m, of the gradient as it came


def _other(m: str, both: Iterable[str]) -> str:
    first, second = both
    return second if m == first else first


def coefficients(mae: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """c_m of Eq. 5 from the two unimodal errors: 1 - tanh(α ReLU(s_m / (s_n + ε))) for the better one, else 1."""
    score = {m: 1 / (error + _EPS) for m, error in mae.items()}  # s_m
    found = {}
    for m, s in score.items():
        rival = score[_other(m, score)]
        found[m] = torch.where(s > rival, 1 - torch.tanh(alpha * (s / (rival + _EPS)).relu()), 1.0)
    return found


def conflicts(mae: Mapping[str, Tensor], norm: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Eq. 6: whether the modality with the smaller error also has the larger gradient norm (bool scalars)."""
    return {m: (mae[m] < mae[_other(m, mae)]) & (norm[m] > norm[_other(m, mae)]) for m in mae}


def mean_norm(gradients: Iterable[Tensor]) -> Tensor:
    """g_m: the mean over an encoder's parameter tensors of the L2 norm of their gradients."""
    return torch.stack([torch.linalg.vector_norm(g) for g in gradients]).mean()


@torch.no_grad()
def modulate(
    gradients: Mapping[str, list[Tensor]], mae: Mapping[str, Tensor], p: Modulation, active: Tensor | None = None
) -> Step:
    """Scale both encoders' gradients in place by c_m, the penalty included; with GE, add to each weight matrix normal
    noise whose standard deviation is that of its gradient before the scaling (OGM-GE).

    active: a bool scalar on the device; where it is False the gradients keep their values, c_m is 1, and the noise is
    drawn all the same, so that one captured step serves every epoch. None: active."""
    norm = {m: mean_norm(g) for m, g in gradients.items()}
    c = coefficients(mae, p.alpha)
    conflict = {m: torch.zeros_like(c[m]) for m in c}
    if p.penalty:
        compared = {m: c[m] * norm[m] for m in c} if p.penalise_modulated else norm
        conflict = {m: found.to(c[m].dtype) for m, found in conflicts(mae, compared).items()}
        c = {m: torch.where(conflict[m] > 0, c[m] * p.eta, c[m]) for m in c}
    if active is not None:
        c = {m: torch.where(active, x, 1.0) for m, x in c.items()}
        conflict = {m: torch.where(active, x, 0.0) for m, x in conflict.items()}
    for m, tensors in gradients.items():
        for g in tensors:
            noisy = p.noise and g.ndim > 1
            spread = g.std() + _EPS if noisy else None
            g.mul_(c[m])
            if noisy:
                added = torch.randn_like(g) * spread
                g.add_(added if active is None else torch.where(active, added, 0.0))
    return Step(c, conflict, norm)
