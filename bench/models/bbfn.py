"""BBFN: bi-bimodal fusion network (Han et al., ICMI 2021), its BERT variant.

    convolution of each sequence -> [B, T, d]; two stacks, text with audio and text with vision
    a layer of a stack: control = concat(enc(text), enc(other)) [B, 2d], enc: Lin of the pooled sequence in the first
    layer, later a bidirectional GRU averaged over time and directions; both streams at the same time:
    x <- attention(x queries the other) * sigmoid(Lin control) + x * sigmoid(Lin control), then a feed-forward network
    position 0 of the four final streams, f [B, 4d] -> Lin(ReLU(Lin f)) + f -> Lin -> prediction

Latents: these four vectors, text_audio, audio, text_vision and vision [B, d]; two of them are the text's.

Quirks kept, with a switch: a discriminator of text against the other modality in every layer, whose loss is off by
default and, without gradient reversal, rewards that the two can be told apart (`discriminate`); the mean of the GRU's
states is taken over the text's mask but divided by the sequence's length (the two are one length here).

What differs from the release: frames of audio and vision lie at their word's pieces (word-level files), where the
release has one frame a word and the text's pieces beside it; GloVe, its default, is not built.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.base import Batch, Encoded, Group, Inputs, Latents, Output
from bench.models.parts.encoder import EncoderLayer, Rates, key_bias
from bench.models.parts.layers import dropout
from bench.models.parts.padded import reverse, step_mask
from bench.models.parts.text import Hidden, TextBackbone

VERSION = 1
IDLE = {"discriminator": "its loss is off by default (discriminate)"}
OTHERS = ("audio", "vision")


@dataclass(frozen=True)
class Params:
    """The release's values."""

    encoder: str = "bert-base-uncased"
    finetune: bool = True
    max_len: int = 50
    frozen_layers: int = 9  # frozen layers of the text encoder, counted in 12; its embeddings are trained
    width: int = 40  # width of every stream, d
    heads: int = 5
    layers: int = 5
    attention_dropout: float = 0.1
    relu_dropout: float = 0.1
    residual_dropout: float = 0.1
    discriminate: bool = False  # the discriminators' loss is added, use_disc
    lambda_disc: float = 0.1  # weight of the discriminators' loss


class BiGRU(nn.Module):
    """x [B, T, d] -> states of both directions, averaged, [B, T, d], zero behind `lengths` [B]."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.ahead, self.back = nn.GRU(d, d, batch_first=True), nn.GRU(d, d, batch_first=True)
        for rnn in (self.ahead, self.back):
            nn.init.orthogonal_(rnn.weight_hh_l0)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        back = reverse(self.back(reverse(x, lengths))[0], lengths)
        return (self.ahead(x)[0] + back) / 2 * step_mask(x, lengths)


class Control(nn.Module):
    """enc(text) and enc(other), [B, d] each, and what the discriminator says of them, [2 B]."""

    def __init__(self, d: int, first: bool) -> None:
        super().__init__()
        self.text, self.other = (nn.Linear(d, d) if first else BiGRU(d) for _ in range(2))
        self.discriminator = nn.Sequential(nn.Linear(d, 4 * d), nn.ReLU(), nn.Linear(4 * d, 1))
        self.first = first

    def forward(
        self, streams: tuple[Tensor, Tensor], pooled: tuple[Tensor, Tensor], lengths: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.first:
            found = self.text(pooled[0]), self.other(pooled[1])
        else:
            states = self.text(streams[0], lengths), self.other(streams[1], lengths)
            found = tuple((x * mask[..., None]).sum(1) / lengths[:, None] for x in states)
        return torch.cat(found, -1), self.discriminator(torch.cat(found)).squeeze(-1)


class GatedLayer(EncoderLayer):
    """x [B, T, d] queries source [B, S, d]; both paths are gated by the control [B, 2d]."""

    def __init__(self, d: int, heads: int, rates: Rates) -> None:
        super().__init__(d, heads, rates)
        self.gate_attention, self.gate_residual = nn.Linear(2 * d, d), nn.Linear(2 * d, d)

    def gated(self, x: Tensor, source: Tensor, bias: Tensor, keep: Tensor, control: Tensor) -> Tensor:
        y = self.attend(x, source, bias, lambda weights: weights * keep[:, None])
        y = dropout(y, self.rates.residual, self.training)
        gates = self.gate_attention(control).sigmoid()[:, None], self.gate_residual(control).sigmoid()[:, None]
        return self.feed_forward(y * gates[0] + x * gates[1])


class Stack(nn.Module):
    """Text and one other modality, both [B, T, d]."""

    def __init__(self, p: Params) -> None:
        super().__init__()
        rates = Rates(p.attention_dropout, p.relu_dropout, p.residual_dropout)
        self.controls = nn.ModuleList(Control(p.width, i == 0) for i in range(p.layers))
        self.text, self.other = (
            nn.ModuleList(GatedLayer(p.width, p.heads, rates) for _ in range(p.layers)) for _ in range(2)
        )

    def forward(
        self, streams: tuple[Tensor, Tensor], pooled: tuple[Tensor, Tensor], lengths: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        bias, keep = key_bias(streams[0], lengths), step_mask(streams[0], lengths)
        logits = []
        for control, text, other in zip(self.controls, self.text, self.other):
            c, told = control(streams, pooled, lengths, mask)
            logits.append(told)
            x, y = streams
            streams = text.gated(x, y, bias, keep, c), other.gated(y, x, bias, keep, c)
        return *streams, logits


class Model(TextBackbone):
    """BBFN. Prediction [B], linear. Raises BenchError unless the three sequences have one length."""

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params.encoder, params.finetune, inputs)
        if len({inputs.text[0], inputs.audio[0], inputs.vision[0]}) > 1:
            raise BenchError("bbfn: text, audio and vision need one length; use word-level or aligned features")
        p, d = params, params.width
        self.params = params
        widths = {"text": self.text_width, "audio": inputs.audio[1], "vision": inputs.vision[1]}
        self.project = nn.ModuleDict({m: nn.Conv1d(w, d, 3, padding=1, bias=False) for m, w in widths.items()})
        self.stacks = nn.ModuleDict({m: Stack(p) for m in OTHERS})
        self.head1, self.head2, self.out = nn.Linear(4 * d, 4 * d), nn.Linear(4 * d, 4 * d), nn.Linear(4 * d, 1)
        self.latent_dims = {k: (d,) for m in OTHERS for k in (f"text_{m}", m)}
        if self.text_encoder is not None and p.finetune:
            layers = self.text_encoder.transformer.encoder.layer
            for layer in layers[: p.frozen_layers * len(layers) // 12]:
                layer.requires_grad_(False)

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        x = {"text": hidden.last, **{m: batch[m] for m in OTHERS}}
        lengths = batch["audio_lengths"].clamp(min=1)
        sequences = {m: self.project[m](v.transpose(1, 2)).transpose(1, 2) for m, v in x.items()}
        keep = step_mask(hidden.last, lengths)
        pooled = {m: (v * keep).sum(1) / lengths[:, None] for m, v in sequences.items()}
        latents, logits = {}, []
        for m, stack in self.stacks.items():
            pair = (sequences["text"], sequences[m]), (pooled["text"], pooled[m])
            text, other, told = stack(*pair, lengths, hidden.mask)
            latents |= {f"text_{m}": text[:, 0], m: other[:, 0]}
            logits += told
        side = {f"projected_{m}": v for m, v in sequences.items()} | {f"pooled_{m}": v for m, v in pooled.items()}
        return Encoded(latents, side | {"told": torch.cat(logits)})  # text rows then other rows, layer by layer

    def fuse(self, latents: Latents) -> Output:
        f = torch.cat([latents[k] for k in self.latent_dims], 1)  # (B, 4d)
        return Output(self.out(self.head2(self.head1(f).relu()) + f).squeeze(1), {"fusion": f})

    def discriminator_labels(self, n: int, device: torch.device) -> Tensor:
        """0 for text, 1 for the other modality, as `told` has them for a batch of n."""
        return torch.arange(2, device=device).repeat_interleave(n).repeat(2 * self.params.layers)

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        if not self.params.discriminate:
            return {}
        told = encoded.side["told"]
        label = self.discriminator_labels(len(batch["label"]), told.device).to(told.dtype)
        return {"discriminator": self.params.lambda_disc * F.binary_cross_entropy_with_logits(told, label)}

    def groups(self) -> list[Group]:
        return [*self.encoder_groups(), Group("main", [q for _, q in self.own_named_parameters()])]
