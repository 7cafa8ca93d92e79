"""Parts of CP+SL: adaptive modality encoding, gated fusion, decoder, and the losses on their outputs (Eq. 1-3)."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.parts.words import initialise

_EPS = 1e-6  # ε of Eq. 1


class Moments(NamedTuple):
    """mean [B, L, w] and variance [B, L, w] of a modality's latent; no variance where the encoder has none."""

    mean: Tensor
    variance: Tensor | None


class AdaptiveEncoder(nn.Module):
    """f_m of Eq. 1, position by position: x [B, L, d] -> Moments. Variance positive by softplus.

    The variance head is drawn in any case, so that encoders with and without it start from the same other weights. All
    layers start at normal(0, 0.02) with zero bias, the variance hence at softplus(0) = 0.69; `start`: another variance
    to start from, by the head's bias.
    """

    def __init__(self, d: int, width: int, dropout: float, variance: bool, start: float | None = None) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(d, width), nn.ReLU(), nn.Dropout(dropout))
        self.mean = nn.Linear(width, width)
        head = nn.Linear(width, width)
        initialise(self.trunk, self.mean, head)
        if start is not None:
            nn.init.constant_(head.bias, start + math.log(-math.expm1(-start)))  # softplus of it is `start`
        self.variance = head if variance else None

    def forward(self, x: Tensor) -> Moments:
        h = self.trunk(x)  # (B, L, w)
        return Moments(self.mean(h), F.softplus(self.variance(h)) if self.variance is not None else None)


def sample(moments: Moments) -> Tensor:
    """Z = mu + eps sqrt(var + 1e-6), eps standard normal (Eq. 1); [B, L, w]."""
    mean, variance = moments
    return mean + torch.randn_like(mean) * (variance + _EPS).sqrt()


class GatedFusion(nn.Module):
    """Gated unit of two latents [B, L, w] -> [B, L, d_f] (Arevalo et al., 2017): g h_a + (1 - g) h_v."""

    def __init__(self, width: int, fused: int) -> None:
        super().__init__()
        self.audio, self.vision = nn.Linear(width, fused), nn.Linear(width, fused)
        self.gate = nn.Linear(2 * width, fused)

    def forward(self, audio: Tensor, vision: Tensor) -> Tensor:
        g = self.gate(torch.cat([audio, vision], -1)).sigmoid()
        return g * self.audio(audio).tanh() + (1 - g) * self.vision(vision).tanh()


class Decoder(nn.Sequential):
    """Latent [B, L, w] -> reconstruction [B, L, d] in (0, 1), the range of the scaled input."""

    def __init__(self, width: int, d: int, dropout: float) -> None:
        super().__init__(nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, d), nn.Sigmoid())


def _full(x: Tensor) -> Tensor:
    """At least float32: moments and entropies of bf16 numbers are too coarse."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def feature_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population variance of x [B, L, d] along its features: [B, L] each."""
    x = _full(x)
    return x.mean(-1), x.var(-1, unbiased=False)


def encoder_moments(moments: Moments) -> tuple[Tensor, Tensor]:
    """The encoder's mean and variance averaged over the latent's features: [B, L] each. Without a variance head the
    latent's own feature moments stand for them."""
    if moments.variance is None:
        return feature_moments(moments.mean)
    return _full(moments.mean).mean(-1), _full(moments.variance).mean(-1)


def statistical_loss(inputs: Mapping[str, Tensor], moments: Mapping[str, Moments]) -> Tensor:
    """L_stat, Eq. 3: over both modalities the mean square of the differences of means and of variances."""
    terms = []
    for m, x in inputs.items():
        for predicted, empirical in zip(encoder_moments(moments[m]), feature_moments(x), strict=True):
            terms.append(F.mse_loss(predicted, empirical))
    return torch.stack(terms).mean()


def softmax_entropy(z: Tensor) -> Tensor:
    """Mean over positions of the entropy of softmax(z) over the features, a share of its maximum log w."""
    log_p = F.log_softmax(_full(z), -1)  # (B, L, w)
    return -(log_p.exp() * log_p).sum(-1).mean() / math.log(z.shape[-1])


def gaussian_entropy(moments: Moments) -> Tensor:
    """Mean differential entropy of the latent's features, 1/2 log(2 pi e var), in nats; unbounded."""
    return 0.5 * (2 * math.pi * math.e * (_full(moments.variance) + _EPS)).log().mean()
