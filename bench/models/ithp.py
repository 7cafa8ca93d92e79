"""ITHP: information-theoretic hierarchical perception (Xiao et al., ICLR 2024), the skeleton of CP+SL and its baseline.

    x = T [B, L, d_t] -> b_0 = N(mu_0, var_0) [B, L, 128] -> b_1 = N(mu_1, var_1) [B, L, 64]
    b_0 must reconstruct the audio, b_1 the vision, both scaled to [0, 1]
    x + beta_shift Lin(b_1) -> readout -> prediction

Audio and vision are targets of the bottleneck, never inputs: the prediction reads text alone.

Latents for a mixer: T (zero at padding) and b_1.

Quirks of the reference kept: no attention mask; min-max scaling over each batch, in evaluation too; the bottleneck
is sampled in evaluation (`sample_at_test`); dropout behind the decoders' sigmoid. New linear layers start at
normal(0, 0.02) with zero bias, as its release intends.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.base import Batch, Encoded, Inputs, Latents, Output
from bench.models.parts.text import Hidden
from bench.models.parts.words import POOLS, RANGES, MinMax, Readout, WordBackbone, filled, initialise, one_of

VERSION = 2  # 2: evaluated 128 rows at a time, as released: its features are scaled over the batch
SAMPLES = True


@dataclass(frozen=True)
class Params:
    """The release's values."""

    encoder: str = "deberta-v3-base"
    finetune: bool = True
    max_len: int = 50  # tokens of a text, L
    inter: int = 256  # hidden width of encoders and decoders
    b0: int = 128  # width of b_0
    b1: int = 64  # width of b_1
    dropout: float = 0.3  # dropout of encoders and decoders
    head_dropout: float = 0.5  # dropout of the classifier
    pooler_dropout: float = 0.1  # of the pooled vector
    beta_shift: float = 1.0  # factor of Lin(b_1), which is added to the text's states
    beta: float = 8.0  # β, weight of the audio's reconstruction
    gamma: float = 32.0  # γ, weight of the vision's reconstruction
    lam: float = 0.3  # λ, weight of the second bottleneck
    pool: str = "first"  # vector of a sequence: the "first" position, or the "mean"
    scale: str = "batch"  # min-max scaling: by the "batch", or by the extremes seen in training ("train")
    attend_padding: bool = True
    sample_at_test: bool = True

    def __post_init__(self) -> None:
        one_of("ithp", "pool", self.pool, POOLS)
        one_of("ithp", "scale", self.scale, RANGES)


def mlp(d: int, hidden: int, out: int, dropout: float, *end: nn.Module) -> nn.Sequential:
    """Lin, ReLU, dropout, Lin, and what follows."""
    return nn.Sequential(nn.Linear(d, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, out), *end)


class Bottleneck(nn.Module):
    """x [B, L, d] -> a sampled code b [B, L, w], its KL divergence from N(0, I), and the target rebuilt from b."""

    def __init__(self, d: int, width: int, target: int, p: Params) -> None:
        super().__init__()
        self.encoder = mlp(d, p.inter, 2 * width, p.dropout)
        self.decoder = mlp(width, p.inter, target, p.dropout, nn.Sigmoid(), nn.Dropout(p.dropout))
        self.sample_at_test = p.sample_at_test

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Code [B, L, w] and the mean KL over all entries, a scalar."""
        mean, log_variance = self.encoder(x).chunk(2, -1)  # (B, L, w) each
        sampled = self.training or self.sample_at_test
        b = mean + torch.randn_like(mean) * (log_variance / 2).exp() if sampled else mean
        return b, -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).mean()


class Model(WordBackbone):
    """ITHP. Prediction [B], linear."""

    eval_batch = 128  # the release's; a row's scaled features depend on the rows beside it

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__("ithp", params.encoder, params.finetune, params.attend_padding, inputs)
        p = self.params = params
        self.scale = nn.ModuleDict({m: MinMax(p.scale) for m in ("audio", "vision")})
        self.first = Bottleneck(self.text_width, p.b0, inputs.audio[1], p)
        self.second = Bottleneck(p.b0, p.b1, inputs.vision[1], p)
        self.inject = nn.Linear(p.b1, self.text_width)
        self.readout = Readout(self.text_width, p.pool, p.head_dropout, p.pooler_dropout)
        initialise(self.first, self.second, self.inject, self.readout)
        self.latent_dims = {"text": (self.steps, self.text_width), "bottleneck": (self.steps, p.b1)}

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        b0, kl0 = self.first(hidden.last)
        b1, kl1 = self.second(b0)
        side = {m: self.scale[m](batch[m]) for m in ("audio", "vision")} | {"b0": b0, "b1": b1, "kl0": kl0, "kl1": kl1}
        return Encoded({"text": hidden.last * hidden.mask[..., None], "bottleneck": b1}, side)

    def fuse(self, latents: Latents) -> Output:
        h = latents["text"] + self.params.beta_shift * self.inject(latents["bottleneck"])  # (B, L, d_t)
        prediction, pooled = self.readout(h, filled(latents["text"]))
        return Output(prediction, {"fusion": pooled})

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        """The two bottlenecks' losses, with the release's common factor 2 / (beta + gamma)."""
        p, side = self.params, encoded.side
        first = side["kl0"] + p.beta * F.mse_loss(self.first.decoder(side["b0"]), side["audio"])
        second = side["kl1"] + p.gamma * F.mse_loss(self.second.decoder(side["b1"]), side["vision"])
        factor = 2 / (p.beta + p.gamma)
        return {"bottleneck0": factor * first, "bottleneck1": factor * p.lam * second}
