"""The supervised losses of SAM-LML's attentions, put together and weighted (Eq. 29); readings: samlml.py.

`side` is what the model's `encode` leaves: features_<m> U_m and values_<m> X_m [B, T_m, d], query_<m> and
cross_query_<m> their projected queries, scores_* and attention_* the matrices, mask_<m> [B, T_m] where padding is left
out. `kept`: modality -> [B] bool, None where none is missing. Each loss is a scalar, already weighted; one that is
switched off has no entry.
"""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from bench.models.parts.ranking import Mask, batch_mean, context, spread
from bench.models.parts.supervised_attention import OFF, information_loss


class Weights(Protocol):
    """What is read of samlml.Params, which has the paper's symbols."""

    noise: str
    mixing: str
    decomposition: str
    variance: bool
    context: bool
    detach_predictor: bool
    rho: int
    beta: float
    gamma: float
    gamma_1: float
    epsilon: float
    alpha: float
    alpha_de: float
    alpha_mix: float
    alpha_c: float


def intra_losses(
    p: Weights, attentions: nn.ModuleDict, decompositions: nn.ModuleDict | None, predictor: nn.Module,
    side: Mapping[str, Tensor], kept: Mapping[str, Mask],
) -> dict[str, Tensor]:
    """Losses of the self-attentions, summed over modalities; those of a missing modality leave its samples out."""
    total = _Totals()
    for m, attention in attentions.items():
        here, mask = kept[m], side.get(f"mask_{m}")
        u, query, scores = (side[f"{name}_{m}"] for name in ("features", "query", "scores"))
        if p.noise != OFF:
            loss = attention.noise_loss(p.noise, p.gamma_1, query, scores, u, mask, mask)
            total.add("noise_intra", p.alpha, loss, here)
        if decompositions is not None:
            split = decompositions[m]
            irrelevant, relevant = split(u)
            loss = attention.replacement_loss(p.decomposition, p.gamma_1, query, scores, irrelevant, mask, mask)
            total.add("replacement", p.alpha, loss, here)
            weight = p.alpha * p.alpha_de  # Eq. 13
            for name, loss in split.losses(u, irrelevant, relevant, p.epsilon, mask).items():
                total.add(name, weight * p.alpha if name == "closeness" else weight, loss, here)
            loss = information_loss(predictor, irrelevant, mask, p.detach_predictor)
            total.add("information", weight, loss, here)
        if p.variance:
            total.add("variance_intra", p.alpha_c, spread(side[f"attention_{m}"], p.beta, mask, mask), here)
        if p.context:
            total.add("context", p.alpha_c, context(scores, p.rho, p.gamma, mask, mask), here)
    return total.losses


def inter_losses(
    p: Weights, attentions: nn.ModuleDict, side: Mapping[str, Tensor], kept: Mapping[str, Mask]
) -> dict[str, Tensor]:
    """Losses of the inter-modal attentions, summed over ordered pairs (query m, key s); those of a pair one of which is
    missing leave its samples out."""
    total = _Totals()
    for m, s in ((m, s) for m in attentions for s in attentions if s != m):
        attention, here = attentions[m], _both(kept[m], kept[s])
        rows, keys = side.get(f"mask_{m}"), side.get(f"mask_{s}")
        query, scores = side[f"cross_query_{m}"], side[f"scores_{m}_{s}"]
        if p.noise != OFF:
            loss = attention.noise_loss(p.noise, p.gamma_1, query, scores, side[f"values_{s}"], rows, keys)
            total.add("noise_inter", p.alpha, loss, here)
        if p.mixing != OFF:
            loss = attention.mixing_loss(p.mixing, p.gamma_1, query, scores, side[f"values_{m}"], rows, keys)
            total.add("mixing", p.alpha_mix, loss, here)
        if p.variance:
            total.add("variance_inter", p.alpha_c, spread(side[f"attention_{m}_{s}"], p.beta, rows, keys), here)
    return total.losses


def _both(one: Mask, other: Mask) -> Mask:
    """Samples that have both modalities."""
    return one & other if one is not None and other is not None else one if other is None else other


class _Totals:
    """Weighted sums of per-sample losses [B], by name."""

    def __init__(self) -> None:
        self.losses: dict[str, Tensor] = {}

    def add(self, name: str, weight: float, loss: Tensor, kept: Mask) -> None:
        self.losses[name] = self.losses.get(name, 0.0) + weight * batch_mean(loss, kept)
