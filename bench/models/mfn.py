"""MFN: memory fusion network (Zadeh et al., AAAI 2018), as M-SENA runs it.

An LSTM per modality and a gated memory beside them (parts/memory_fusion.py); the last hidden states and the memory,
concatenated, -> Lin ReLU dropout Lin -> prediction.

Latents: text, audio, vision [B, h_m], the last hidden states, and memory [B, memory], the cross-modal fourth.

M-SENA averages audio and vision over time and repeats that one frame at every step of the text; padded steps run like
any other (docs/quirks.md).
"""

from dataclasses import dataclass

import torch

from bench.models.base import Backbone, Batch, Encoded, Inputs, Latents, Output
from bench.models.parts.layers import pool_steps
from bench.models.parts.memory_fusion import Gate, Inner, MemoryFusion

VERSION = 1
MODALITIES = ("text", "audio", "vision")


@dataclass(frozen=True)
class Params:
    """M-SENA's values for MOSI. Sizes of the inner networks are those of their hidden layers."""

    text_hidden: int = 256  # hidden width of the text's LSTM, hidden_dims[t]
    audio_hidden: int = 32  # hidden width of the audio's LSTM, hidden_dims[a]
    vision_hidden: int = 256  # hidden width of the vision's LSTM, hidden_dims[v]
    memory: int = 400  # width of the memory, memsize
    attention: int = 32  # hidden width of the attention over two steps' cells, NN1
    attention_dropout: float = 0.2
    candidate: int = 64  # hidden width of the network of the memory's candidates, NN2
    candidate_dropout: float = 0.0  # of the network of the memory's candidates
    keep: int = 256  # hidden width of the retain gate, gamma1
    keep_dropout: float = 0.7  # of the retain gate
    write: int = 32  # hidden width of the update gate, gamma2
    write_dropout: float = 0.5  # of the update gate
    output: int = 128  # hidden width of the head, out
    output_dropout: float = 0.0  # of the head


class Model(Backbone):
    """MFN. Prediction [B], linear."""

    time_mean = True

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__()
        p, self.label_bound, self.steps = params, inputs.label_bound, inputs.text[0]
        widths = {m: getattr(inputs, m)[1] for m in MODALITIES}
        hidden = {m: getattr(p, f"{m}_hidden") for m in MODALITIES}
        gates = [Gate(getattr(p, k), getattr(p, f"{k}_dropout")) for k in ("attention", "candidate", "keep", "write")]
        self.memory_fusion = MemoryFusion(widths, hidden, p.memory, *gates)
        self.latent_dims = {**{m: (h,) for m, h in hidden.items()}, "memory": (p.memory,)}
        self.head = Inner(sum(hidden.values()) + p.memory, Gate(p.output, p.output_dropout), 1)

    def encode(self, batch: Batch) -> Encoded:
        return Encoded(self.memory_fusion({m: pool_steps(batch[m], self.steps) for m in MODALITIES}), {})

    def fuse(self, latents: Latents) -> Output:
        fused = torch.cat([latents[k] for k in self.latent_dims], 1)
        return Output(self.head(fused).squeeze(1), {"fusion": fused})
