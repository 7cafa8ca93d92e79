"""MO-Sarcation: modules that fuse audio and vision, in this order, inside a frozen BART (Tomar et al., Findings of EMNLP 2023).

    the encoder of BART; before its last layer but one a module reads audio, before its last one vision:
        c = sequence mixed along time to the text's length; k' = (1 - g) k + g U c, g = sigmoid(w_1 k + w_2 U c), v' likewise,
        of the states h; o = single-head attention, query h, key k', value v'; LN(h + sigmoid(Lin concat(h, o)) o)
    the decoder, over the same pieces one step later; its state at the last </s> -> Lin, tanh, Lin -> prediction

Trained: the two modules and the head; BART is frozen and in evaluation mode.

The only latent before the head is the sentence vector [B, d], "fusion": modalities meet inside BART, so a mixer mixes what
they became.

What differs from the release: text, audio and vision are those of HKT's file for MUStARD, word by word, context before
the punchline, where the release reads 500 pieces, wav2vec 2.0 states of 1,000 steps and 2,048 visual features of 480; the
split is the file's, where the release halves the test clips at random; one logit, the difference of the release's two
classes, whose cross entropy is the same. Padding is attended in the modules, as released.

Proved against numbers of the modules and the head, which were transcribed from the release's notebook; BART itself is
transformers'.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import encoders
from bench.models.base import Backbone, Batch, Encoded, Group, Inputs, Latents, Output
from bench.models.parts.seq2seq import Inside, build, shown

VERSION = 1
ORDER = ("audio", "vision")  # of the modules, from the last layer but one


@dataclass(frozen=True)
class Params:
    """The release's values; the length is HKT's for MUStARD."""

    encoder: str = "bart-base"
    max_len: int = 77
    dropout: float = 0.2  # of the attention in a module


class Gate(nn.Module):
    """h [B, L, d] moved towards a projection of the context c [B, L, w], by one number a position."""

    def __init__(self, d: int, w: int) -> None:
        super().__init__()
        self.project = nn.Linear(w, d, bias=False)
        self.own, self.other = nn.Linear(d, 1, bias=False), nn.Linear(d, 1, bias=False)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        u = self.project(c)
        return h + (self.own(h) + self.other(u)).sigmoid() * (u - h)


class ContextFusion(nn.Module):
    """The states h [B, L, d] with a context [B, T, w]."""

    def __init__(self, length: int, d: int, steps: int, w: int, dropout: float) -> None:
        super().__init__()
        self.time = nn.Linear(steps, length, bias=False)
        self.key, self.value = Gate(d, w), Gate(d, w)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.gate, self.norm = nn.Linear(2 * d, d), nn.LayerNorm(d)
        self.dropout = dropout

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        c = self.time(context.transpose(1, 2)).transpose(1, 2)  # (B, L, w)
        parts = zip((h, self.key(h, c), self.value(h, c)), self.qkv.weight.chunk(3), self.qkv.bias.chunk(3))
        q, k, v = (F.linear(x, w, b) for x, w, b in parts)
        o = self.out(F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0))
        return self.norm(h + self.gate(torch.cat([h, o], -1)).sigmoid() * o)


class Named(nn.Module):
    """A module's context under the name of its modality."""

    def __init__(self, fusion: ContextFusion, modality: str) -> None:
        super().__init__()
        self.fusion, self.modality = fusion, modality

    def forward(self, h: Tensor, **given: Tensor) -> Tensor:
        return self.fusion(h, given[self.modality])


class Head(nn.Module):
    """[B, d] -> [B, 2]."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.dense, self.out = nn.Linear(d, d), nn.Linear(d, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.dense(x).tanh())


class Model(Backbone):
    """MO-Sarcation. Prediction [B], a logit."""

    needs_tokens = True
    needs_words = True

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__()
        p = self.params = params
        self.label_bound = inputs.label_bound
        self.test_only = encoders.spec(p.encoder).test_only
        self.bart = build("mo_sarcation", p.encoder, "bart").requires_grad_(False).eval()
        d, L = self.bart.config.d_model, inputs.text[0]
        self.context: dict[str, Tensor] = {}  # of the batch at hand
        self.fusions = nn.ModuleDict({m: Named(ContextFusion(L, d, *getattr(inputs, m), p.dropout), m) for m in ORDER})
        layers = self.bart.encoder.layers
        for at, m in zip(range(len(layers) - 2, len(layers)), ORDER):
            layers[at] = Inside(layers[at], self.fusions[m], self.context, (m,), before=True)
        self.head = Head(d)
        self.latent_dims = {"fusion": (d,)}

    def train(self, mode: bool = True) -> "Model":
        super().train(mode)
        self.bart.eval()
        return self

    def encode(self, batch: Batch) -> Encoded:
        ids, mask, _ = batch["text_bert"].unbind(1)  # (B, L)
        self.context.update({m: batch[m] for m in ORDER})
        states = self.bart.encoder(input_ids=ids, attention_mask=shown(mask)).last_hidden_state
        shifted = F.pad(ids[:, :-1], (1, 0), value=self.bart.config.decoder_start_token_id)
        before = torch.ones((1, 1, *[ids.shape[1]] * 2), dtype=torch.bool, device=ids.device).tril()
        decoded = self.bart.decoder(
            input_ids=shifted, attention_mask=before, encoder_hidden_states=states, encoder_attention_mask=shown(mask), use_cache=False,
        ).last_hidden_state  # (B, L, d)
        end = (mask.sum(1) - 1).clamp(min=0)
        return Encoded({"fusion": decoded.gather(1, end[:, None, None].expand(-1, 1, decoded.shape[2])).squeeze(1)}, {})

    def fuse(self, latents: Latents) -> Output:
        no, yes = self.head(latents["fusion"]).unbind(1)
        return Output(yes - no, {"fusion": latents["fusion"]})

    def groups(self) -> list[Group]:
        return [Group("main", [p for p in self.parameters() if p.requires_grad])]
