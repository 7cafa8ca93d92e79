"""EF-LSTM: early fusion LSTM, M-SENA's baseline.

    [text, audio, vision] of each step -> BatchNorm over the time axis -> stacked LSTM, last hidden state
    -> dropout, Lin ReLU, dropout, Lin -> prediction

Modalities meet at the input: the only latent before the head is the last hidden state [B, hidden], "fusion".

Quirks of M-SENA kept (docs/quirks.md): time steps are the channels of the BatchNorm, whose statistics run over batch and
all features, so that text dominates; padding counts everywhere; the length is part of the model.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from bench.models.base import Backbone, Batch, Encoded, Inputs, Latents, Output
from bench.models.parts.layers import dropout, pool_steps
from bench.models.parts.lstm import LSTM

VERSION = 1
MODALITIES = ("text", "audio", "vision")


@dataclass(frozen=True)
class Params:
    """M-SENA's values for MOSI."""

    hidden: int = 128  # hidden width of the LSTM, hidden_dims
    layers: int = 4  # layers of the LSTM, num_layers
    dropout: float = 0.5  # between LSTM layers and in the head


class Model(Backbone):
    """EF-LSTM. Prediction [B], linear."""

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__()
        p = self.params = params
        self.label_bound, self.steps = inputs.label_bound, inputs.text[0]
        width = sum(getattr(inputs, m)[1] for m in MODALITIES)
        self.norm = nn.BatchNorm1d(self.steps)
        # layer by layer, with the dropout between them: inside cuDNN it would draw from a state of the whole process
        self.lstm = nn.ModuleList(LSTM(width if k == 0 else p.hidden, p.hidden) for k in range(p.layers))
        self.linear, self.out = nn.Linear(p.hidden, p.hidden), nn.Linear(p.hidden, 1)
        self.latent_dims = {"fusion": (p.hidden,)}

    def encode(self, batch: Batch) -> Encoded:
        early = self.norm(torch.cat([pool_steps(batch[m], self.steps) for m in MODALITIES], -1))  # (B, L, d)
        x = early
        for layer in self.lstm[:-1]:
            x = F.dropout(layer.all_states(x), self.params.dropout, self.training)
        return Encoded({"fusion": self.lstm[-1].last_state(x)}, {"early": early})

    def fuse(self, latents: Latents) -> Output:
        rate, training = self.params.dropout, self.training
        x = self.linear(dropout(latents["fusion"], rate, training)).relu()
        return Output(self.out(dropout(x, rate, training)).squeeze(1), {"fusion": latents["fusion"]})
