"""HKT: humor knowledge enriched transformer (Hasan et al., AAAI 2021), as released; UR-FUNNY and MUStARD.

    text: ALBERT;  audio, vision, HCF: encoders of their own (parts/sequence_nets.py, "hkt")      [B, L, 768 | 60 | 36 | 4]
    x = concat(text, HCF), c = concat(audio, vision);  cross layer: x attends to c, c to x (no residual), concat,
    self-attention + residual, LN, ReLU(Lin) + residual, LN                                      [B, L, 868]
    fused = [x at step 0, max over time of vision, audio, cross output] -> Lin ReLU dropout Lin -> logit; BCE

Latents: the four parts of the fused vector, text (with HCF), vision, audio, cross.

The release loads audio, vision and HCF encoders that were trained alone before (logit = Lin(d, 1) of step 0, same loss)
and publishes no settings of that training. Here they are trained alone for `prepare` epochs at their groups' rates
before the first epoch, and go on from the last of these (ours).

Quirks kept (docs/quirks.md): padding steps take part in the maxima; no mask in the unimodal encoders; HKT's own
LayerNorm weights decay, ALBERT's do not.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.base import Batch, Encoded, Group, Inputs, Latents, Output, Pass, Update
from bench.models.parts.sequence_nets import POSITIONS, HktTransformer, Stack
from bench.models.parts.text import BIAS_AND_NORM, Hidden, TextBackbone

VERSION = 1
IDLE = {"pooler": "nothing reads it, as released"}
BRIEF = {"prepare": 1}  # parameters of a quick look
STREAMS = ("audio", "vision", "hcf")


@dataclass(frozen=True)
class Params:
    """The settings of the published UR-FUNNY checkpoint. Triples are of audio, vision, HCF."""

    encoder: str = "albert-base-v2"
    finetune: bool = True
    max_len: int = 64
    layers: tuple[int, int, int] = (8, 7, 3)
    heads: tuple[int, int, int] = (3, 3, 2)
    feed_forward: tuple[int, int, int] = (256, 128, 128)
    positions: int = POSITIONS  # rows of the position tables
    stream_dropout: float = 0.1  # in the three encoders
    cross_layers: int = 1  # the release has a stack of them, which its script cannot reach
    cross_heads: int = 2  # of the cross layers
    fusion: int = 300  # width of the head
    dropout: float = 0.2366  # of the cross layers and the head
    prepare: int = 20  # epochs of the encoders alone

    def __post_init__(self) -> None:
        for name in ("layers", "heads", "feed_forward"):
            if len(getattr(self, name)) != 3:
                raise BenchError(f"hkt: {name} needs three numbers, of audio, vision and HCF")


class Attention(nn.Module):
    """Multi-head attention without output projection: query [B, L, d] and context [B, L, c] -> [B, L, d]."""

    def __init__(self, d: int, c: int, heads: int, rate: float) -> None:
        super().__init__()
        if d % heads:
            raise BenchError(f"hkt: a cross layer of width {d} cannot have {heads} heads")
        self.heads, self.rate = heads, rate
        self.query, self.key, self.value = nn.Linear(d, d), nn.Linear(c, d), nn.Linear(c, d)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """mask [B, 1, 1, L], added to the scores."""
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, L, d / H)
            for y in (self.query(x), self.key(context), self.value(context))
        )
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.rate if self.training else 0.0)
        return y.transpose(1, 2).flatten(2)


class CrossLayer(nn.Module):
    """x [B, L, d] and c [B, L, e] -> [B, L, d + e]."""

    def __init__(self, d: int, e: int, heads: int, rate: float) -> None:
        super().__init__()
        self.first, self.second = Attention(d, e, heads, rate), Attention(e, d, heads, rate)
        self.self_attention = Attention(d + e, d + e, heads, rate)
        self.linear = nn.Linear(d + e, d + e)
        self.norm1, self.norm2 = nn.LayerNorm(d + e), nn.LayerNorm(d + e)
        self.dropout = nn.Dropout(rate)

    def forward(self, x: Tensor, c: Tensor, mask: Tensor) -> Tensor:
        y = torch.cat([self.first(x, c, mask), self.second(c, x, mask)], -1)
        y = self.norm1(y + self.dropout(self.self_attention(y, y, mask)))
        return self.norm2(y + self.dropout(self.linear(y).relu()))


class Model(TextBackbone):
    """HKT. Prediction [B], a logit. Groups: encoder and main at one rate, audio, vision and hcf at their own.

    Raises BenchError where the data has no human-centric features.
    """

    with_pooler = True  # nothing reads it; it is in the printed numbers of parameters

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params.encoder, params.finetune, inputs)
        if inputs.hcf is None:
            raise BenchError("hkt: needs human-centric features (hcf), which UR-FUNNY's and MUStARD's files have")
        p = self.params = params
        widths = {"audio": inputs.audio[1], "vision": inputs.vision[1], "hcf": inputs.hcf[1]}
        self.streams = nn.ModuleDict()
        for m, layers, heads, ff in zip(STREAMS, p.layers, p.heads, p.feed_forward, strict=True):
            stack = Stack("hkt", layers, heads, ff, p.stream_dropout, p.stream_dropout)
            self.streams[m] = HktTransformer(stack, widths[m], p.positions, p.stream_dropout)
            nn.init.normal_(self.streams[m].positions)
        self.alone = nn.ModuleDict({m: nn.Linear(d, 1) for m, d in widths.items()})  # logits of the preparation
        x, c = self.text_width + widths["hcf"], widths["audio"] + widths["vision"]
        self.cross = nn.ModuleList([CrossLayer(x, c, p.cross_heads, p.dropout) for _ in range(p.cross_layers)])
        self.head = nn.Sequential(
            nn.Linear(2 * (x + c), p.fusion), nn.ReLU(), nn.Dropout(p.dropout), nn.Linear(p.fusion, 1)
        )
        self.latent_dims = {"text": (x,), "vision": (widths["vision"],), "audio": (widths["audio"],), "cross": (x + c,)}
        self.preparation = p.prepare

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        seq = {m: network(batch[m]) for m, network in self.streams.items()}  # (B, L, d_m)
        x, c = torch.cat([hidden.last, seq["hcf"]], -1), torch.cat([seq["audio"], seq["vision"]], -1)
        mask = ((1.0 - hidden.mask) * -10000.0)[:, None, None].to(x.dtype)
        d, cls = x.shape[2], x[:, 0]
        y = self.cross[0](x, c, mask)  # (B, L, 868)
        for layer in self.cross[1:]:
            x, c = x + y[..., :d], c + y[..., d:]
            y = layer(x, c, mask)  # of the last layer, the raw output leaves
        latents = {"text": cls, "vision": seq["vision"].amax(1), "audio": seq["audio"].amax(1), "cross": y.amax(1)}
        return Encoded(latents, {f"seq_{m}": v for m, v in {**seq, "cross": y}.items()})

    def fuse(self, latents: Latents) -> Output:
        fused = torch.cat([latents[m] for m in self.latent_dims], 1)  # (B, 1736)
        return Output(self.head(fused).squeeze(1), {"fusion": fused})

    def logit_alone(self, m: str, batch: Batch) -> Tensor:
        """Logit [B] of one unimodal encoder with its own head, at step 0."""
        return self.alone[m](self.streams[m](batch[m])[:, 0]).squeeze(1)

    def alone_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of the preparation; no parameter is in two of them, so that they train as three models do."""
        y = batch["label"]
        return {m: F.binary_cross_entropy_with_logits(self.logit_alone(m, batch), y) for m in STREAMS}

    def passes(self, epoch: int) -> tuple[Pass, ...]:
        if epoch < 1:
            own = tuple(name for m in STREAMS for name in (m, f"{m}-no-decay"))
            return (Pass((Update("alone", self.alone_losses, own),)),)
        return (Pass(),)

    def groups(self) -> list[Group]:
        found = self.encoder_groups(BIAS_AND_NORM)
        parts = {m: (f"streams.{m}.", f"alone.{m}.") for m in STREAMS} | {"main": ("cross.", "head.")}
        for name, prefixes in parts.items():
            mine = [(n, q) for n, q in self.own_named_parameters() if n.startswith(prefixes)]
            found.append(Group(name, [q for n, q in mine if "bias" not in n]))
            found.append(Group(f"{name}-no-decay", [q for n, q in mine if "bias" in n], decay=False))
        return found
