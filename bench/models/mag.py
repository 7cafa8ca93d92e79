"""MAG-BERT: a multimodal adaptation gate inside a BERT-like text encoder (Rahman et al., ACL 2020).

    e [B, L, d_t], the encoder's embeddings, are shifted by audio and vision before its first layer:
    h = g_v Lin(V) + g_a Lin(A),  g_m = ReLU(Lin(concat(X_m, e)));  e <- dropout(LN(e + alpha h)),
    alpha = min(beta_shift |e| / |h|, 1) per word piece
    [CLS] of the last layer -> the encoder's pooler (Lin tanh), dropout, Lin -> prediction

The only latent before the head is the pooled vector [B, d_t], "fusion": modalities meet before the first layer, so a
mixer mixes what they became. Features are not scaled. New linear layers start at normal(0, 0.02) with zero bias; the
pooler comes with the encoder's checkpoint where that has one.

M-SENA's port (`align` "pool") averages audio and vision to the text's length where they differ; the gate acts on [CLS],
[SEP] and padding too, through its biases.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bench import encoders
from bench.errors import BenchError
from bench.models.base import Batch, Encoded, Inputs, Latents, Output
from bench.models.parts.layers import pool_steps
from bench.models.parts.text import Hidden
from bench.models.parts.words import WordBackbone, initialise, one_of

VERSION = 2


@dataclass(frozen=True)
class Params:
    """The release's values."""

    encoder: str = "bert-base-uncased"
    max_len: int = 50  # tokens of a text, L
    beta_shift: float = 1.0  # β: the shift is at most β times the embedding's length
    dropout: float = 0.5  # behind the gate
    pooler_dropout: float = 0.1  # of the pooled vector
    align: str = "none"  # "none", or "pool": means of neighbouring steps, to the text's length (M-SENA)

    def __post_init__(self) -> None:
        if self.encoder == encoders.NONE:
            raise BenchError("mag: the gate sits inside the text encoder, so encoder cannot be 'none'")
        one_of("mag", "align", self.align, ("none", "pool"))


class Gate(nn.Module):
    """Shift of the embeddings e [B, L, d] by audio [B, L, d_a] and vision [B, L, d_v]."""

    def __init__(self, d: int, d_audio: int, d_vision: int, p: Params) -> None:
        super().__init__()
        self.gate_audio, self.gate_vision = nn.Linear(d_audio + d, d), nn.Linear(d_vision + d, d)
        self.audio, self.vision = nn.Linear(d_audio, d), nn.Linear(d_vision, d)
        self.norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(p.dropout)
        self.beta_shift = p.beta_shift

    def forward(self, e: Tensor, audio: Tensor, vision: Tensor) -> Tensor:
        g_vision = self.gate_vision(torch.cat([vision, e], -1)).relu()
        g_audio = self.gate_audio(torch.cat([audio, e], -1)).relu()
        h = g_vision * self.vision(vision) + g_audio * self.audio(audio)  # (B, L, d)
        size, shift = e.norm(dim=-1, keepdim=True), h.norm(dim=-1, keepdim=True)  # (B, L, 1)
        shift = torch.where(shift == 0, 1.0, shift)
        alpha = (self.beta_shift * size / (shift + 1e-6)).clamp(max=1)
        return self.dropout(self.norm(alpha * h + e))


class Model(WordBackbone):
    """MAG-BERT. Prediction [B], linear."""

    with_pooler = True

    def __init__(self, params: Params, inputs: Inputs) -> None:
        if params.align == "pool":
            length = inputs.text[0]
            inputs = replace(inputs, audio=(length, inputs.audio[1]), vision=(length, inputs.vision[1]))
        super().__init__("mag", params.encoder, True, False, inputs)
        d = self.text_width
        self.gate = Gate(d, inputs.audio[1], inputs.vision[1], params)
        self.dropout = nn.Dropout(params.pooler_dropout)
        self.score = nn.Linear(d, 1)
        initialise(self.gate, self.score)
        self.latent_dims = {"fusion": (d,)}
        self._streams: tuple[Tensor, Tensor] | None = None  # audio and vision of the batch that is being encoded
        self.text_encoder.transformer.embeddings.register_forward_hook(self._shift)

    def _shift(self, module: nn.Module, args: Any, embeddings: Tensor) -> Tensor:
        return self.gate(embeddings, *self._streams) if self._streams else embeddings

    def encode(self, batch: Batch) -> Encoded:
        self._streams = (pool_steps(batch["audio"], self.steps), pool_steps(batch["vision"], self.steps))
        try:
            return super().encode(batch)
        finally:
            self._streams = None

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        return Encoded({"fusion": hidden.pooled}, {})

    def fuse(self, latents: Latents) -> Output:
        pooled = latents["fusion"]  # (B, d_t)
        return Output(self.score(self.dropout(pooled)).squeeze(1), {"fusion": pooled})
