"""Attention whose scores can be supervised (SAM-LML Sec. 3.1-3.2), and the decomposition that one supervisor needs.

Legend: B batch, T query steps, S key steps, d width. Noise and lambda are drawn from torch's global random stream:
standard normal noise, one lambda in [0, 1) per call.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.parts import ranking
from bench.models.parts.ranking import Mask

RANKING, DETERMINISTIC, OFF = "ranking", "deterministic", "off"
NOISE_LABEL, MIXED_LABEL, IRRELEVANT_LABEL = 0.0, 0.1, 1e-4  # Sec. A.12: labels of the deterministic variants


class Attended(NamedTuple):
    """scores [B, T, S] before the softmax, weights [B, T, S] after it, value [B, T, d] normalised."""

    scores: Tensor
    weights: Tensor
    value: Tensor


class Attention(nn.Module):
    """Single-head attention without biases and without residual: LN(softmax(Q K^T / sqrt(d)) V) (Eq. 1-2, 16-17)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(d, d, bias=False) for _ in range(3))
        self.norm = nn.LayerNorm(d)
        self.scale = d**-0.5

    def scores(self, query: Tensor, source: Tensor) -> Tensor:
        """Scores [B, T, S] of projected queries [B, T, d] and a source [B, S, d], single precision at least."""
        raw = query @ self.key(source).transpose(-2, -1) * self.scale
        return raw.to(torch.promote_types(raw.dtype, torch.float32))

    def forward(self, query: Tensor, source: Tensor, keys: Mask = None) -> Attended:
        """query [B, T, d] already projected by `self.query`, source [B, S, d], keys [B, S] a mask."""
        scores = self.scores(query, source)
        weights = ranking.masked(scores, keys).softmax(-1)
        return Attended(scores, weights, self.norm(weights.to(source.dtype) @ self.value(source)))

    def noise_loss(
        self, kind: str, margin: float, query: Tensor, scores: Tensor, source: Tensor, rows: Mask, keys: Mask
    ) -> Tensor:
        """[B]: keys rank above Gaussian noise, and above it by less the noisier they are (Eq. 3-6); the deterministic
        kind labels the weights of noise with 0."""
        noisy = self.scores(query, torch.randn_like(source))
        if kind == DETERMINISTIC:
            return ranking.joint_label(scores, noisy, NOISE_LABEL, rows, keys)
        return ranking.noise_ranking(scores, noisy, _share(scores), margin, rows, keys)

    def mixing_loss(
        self, kind: str, margin: float, query: Tensor, scores: Tensor, own: Tensor, rows: Mask, keys: Mask
    ) -> Tensor:
        """[B]: a key mixed with the query's own modality ranks above the key (Eq. 26-28). own [B, T, d] are the
        unprojected queries; the deterministic kind labels the weights of mixed keys with 0.1."""
        share = _share(scores)
        if rows is not None and keys is not None:  # a step counts if its key is no padding either
            rows = rows * keys[:, ranking.time_slices(scores.shape[1], scores.shape[2], keys.device)]
        if kind == DETERMINISTIC:
            slices = ranking.time_slices(scores.shape[2], own.shape[1], own.device)  # (S,)
            mixed = share * scores + (1 - share) * self.scores(query, own[:, slices])
            return ranking.slice_label(mixed, MIXED_LABEL, rows, keys)
        diagonal = ((query * self.key(own)).sum(-1) * self.scale).to(scores.dtype)  # (B, T)
        return ranking.mixing_ranking(ranking.at_slices(scores), diagonal, share, margin, rows)

    def replacement_loss(
        self, kind: str, margin: float, query: Tensor, scores: Tensor, irrelevant: Tensor, rows: Mask, keys: Mask
    ) -> Tensor:
        """[B]: keys rank above their label-irrelevant part [B, T, d] (Eq. 7-8); the deterministic kind labels the
        weights of that part with 1e-4."""
        replaced = self.scores(query, irrelevant)
        if kind == DETERMINISTIC:
            return ranking.joint_label(scores, replaced, IRRELEVANT_LABEL, rows, keys)
        return ranking.ranking(replaced, scores, margin, rows, keys)


class Decomposition(nn.Module):
    """Splits features [B, T, d] step by step into a label-irrelevant and a label-relevant part, and composes them
    again (Eq. 9, 11)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(d, d), nn.ReLU())
        self.irrelevant, self.relevant = nn.Linear(d, d), nn.Linear(d, d)
        self.compose = nn.Sequential(nn.Linear(2 * d, d), nn.ReLU(), nn.Linear(d, d))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(K^de, U^de), [B, T, d] each."""
        h = self.trunk(features)
        return self.irrelevant(h), self.relevant(h)

    def losses(
        self, features: Tensor, irrelevant: Tensor, relevant: Tensor, slack: float, rows: Mask
    ) -> dict[str, Tensor]:
        """[B] each: orthogonality (Eq. 9), closeness of K^de to U beyond `slack` (Eq. 10), reconstruction (Eq. 11)."""
        product = relevant @ irrelevant.transpose(1, 2)  # (B, T, T)
        composed = self.compose(torch.cat([irrelevant, relevant], -1))
        distance = ranking.step_mean((features - irrelevant).square().mean(-1), rows)
        return {
            "orthogonality": _root(ranking.entry_mean(product.square(), rows, rows)),
            "closeness": (distance - slack).relu(),
            "reconstruction": _root(ranking.step_mean((features - composed).square().mean(-1), rows)),
        }


def information_loss(predictor: nn.Module, irrelevant: Tensor, rows: Mask, detach: bool) -> Tensor:
    """[B]: squared distance between the predictions of K^de [B, T, d] and of Gaussian noise, step by step (Eq. 12).
    `detach` keeps the gradient from the predictor's parameters."""
    noise = torch.randn_like(irrelevant)
    if detach:
        frozen = {k: v.detach() for k, v in predictor.named_parameters()}
        found, expected = (torch.func.functional_call(predictor, frozen, (x,)) for x in (irrelevant, noise))
    else:
        found, expected = predictor(irrelevant), predictor(noise)
    return ranking.step_mean(F.mse_loss(found, expected, reduction="none").squeeze(-1), rows)


def _share(like: Tensor) -> Tensor:
    return torch.rand((), dtype=like.dtype, device=like.device)


def _root(x: Tensor) -> Tensor:
    return (x + 1e-12).sqrt()  # finite gradient at 0
