"""MMML: text and sound with a loss per modality (Wu et al., Findings of NAACL 2024), and its variants.

    p^t = pooler output of the text encoder, p^a = mean of the audio encoder's valid frames
    cross-modal layers over both sequences, a learned vector before each (models/parts/cross_modal.py); read-outs z^t, z^a
    v1   z^t, z^a                                                    -> head
    v2   ReLU(Lin(concat(p^m, z^m))) of each                         -> head
    v3   a transformer over concat(states, cross-layer output) of each modality, read at a learned first vector -> head
    cc   p^t, p^a, no cross-modal layers                             -> head
    context (v1 only): the clip and what went before it through the same layers, four vectors -> head

Loss: L1 of the prediction and of Lin(p^t) and Lin(p^a), weight 1 each; the targets of the latter two are the labels of
the single modality (CH-SIMS) or the clip's.

Latents: what the head gets, text and audio [B, d] (v3: [B, 2d]) and, with context, context_text and context_audio.

What differs from the release: SpecAugment and layer drop are off, frames are counted from the waves' lengths (see
SLaD in docs/quirks.md), networks of other variants are not built, and the context of a clip is what our files hold,
text and sound of its two predecessors (the release: text of two, sound of one).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.base import Batch, Encoded, Group, Inputs, Latents, Output
from bench.models.parts.audio_encoder import hear, listener
from bench.models.parts.cross_modal import CrossModalEncoder
from bench.models.parts.text import Hidden, TextBackbone
from bench.models.parts.words import masked_mean, one_of

VERSION = 2  # 2: preceding transcripts joined without a stray piece
BRIEF = {"audio_encoder": "tiny-audio", "heads": 4}  # parameters of a quick look
MODALITIES = ("text", "audio")
CONTEXT = 2  # preceding clips that the data have
WAVES = 16  # rows of a batch in evaluation


@dataclass(frozen=True)
class Params:
    """The release's values without context, MOSI."""

    encoder: str = "roberta-base"
    finetune: bool = True
    audio_encoder: str = "data2vec-audio-base"  # audio encoder; "none": the file's audio features
    finetune_audio: bool = True
    max_len: int | None = None  # word pieces; None: 96 (MOSI, MOSEI) or 64 (CH-SIMS)
    context: int = 0  # preceding clips, 2 or 0
    version: str = "v1"  # fusion "v1", "v2", "v3" or "cc" (without cross-modal layers), above
    heads: int = 12
    depth: int = 5  # cross-modal layers
    feed_forward: int = 0  # of a cross-modal layer; 0: 4 d
    fusion_layers: int = 3  # of v3 (the Chinese model: 2)
    fusion_feed_forward: int = 2048  # hidden width of the feed-forward part of v3
    hidden: int = 512  # last hidden layer of the head (with context 768)
    dropout: float = 0.3

    def __post_init__(self) -> None:
        one_of("mmml", "version", self.version, ("v1", "v2", "v3", "cc"))
        if self.context not in (0, CONTEXT):
            raise BenchError(f"mmml: context must be {CONTEXT} or 0 preceding clips, not {self.context}")
        if self.context and self.version != "v1":
            raise BenchError("mmml: context goes with version 'v1' alone")


class Mixed(nn.Module):
    """v3's transformer of one modality, read at a learned first vector: x [B, l, w] -> [B, w]."""

    def __init__(self, width: int, heads: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, hidden, batch_first=True) for _ in range(layers)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = torch.cat([self.first.expand(len(x), 1, -1), x], 1)
        padded = F.pad(~mask, (1, 0), value=False)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=padded)
        return x[:, 0]


class Model(TextBackbone):
    """MMML. Prediction [B], linear."""

    reads_padding = False
    with_pooler = True

    def __init__(self, params: Params, inputs: Inputs) -> None:
        p = self.params = params
        super().__init__(p.encoder, p.finetune, inputs)
        d = self.text_width
        self.audio_encoder = listener("mmml", p.audio_encoder, p.finetune_audio, inputs)
        width = inputs.audio[1]
        if self.audio_encoder is not None:
            width, self.eval_batch = self.audio_encoder.hidden_size, WAVES
            self.test_only = self.test_only or self.audio_encoder.is_test_only
        if p.context and not inputs.context:
            raise BenchError("mmml: these data have no preceding clips; set context to 0")
        self.streams = ("", "context_") if p.context else ("",)
        self.project = nn.Identity() if width == d else nn.Linear(width, d)
        self.unimodal = nn.ModuleDict({m: nn.Linear(d * len(self.streams), 1) for m in MODALITIES})
        if p.version != "cc":
            self.cross = CrossModalEncoder(d, p.heads, p.depth, p.dropout, p.feed_forward)
        if p.version == "v2":
            self.mix = nn.ModuleDict({m: nn.Linear(2 * d, d) for m in MODALITIES})
        if p.version == "v3":
            sizes = 2 * d, p.heads, p.fusion_feed_forward, p.fusion_layers
            self.mixed = nn.ModuleDict({m: Mixed(*sizes) for m in MODALITIES})
        latent = 2 * d if p.version == "v3" else d
        self.latent_dims = {f"{stream}{m}": (latent,) for m in MODALITIES for stream in self.streams}
        between = {"cc": (d, d), "v1": () if p.context else (d,)}.get(p.version, (d,))
        widths = (latent * len(self.latent_dims), *between, p.hidden)
        layers = [layer for a, b in zip(widths, widths[1:]) for layer in (nn.Linear(a, b), nn.ReLU())]
        self.head = nn.Sequential(*layers, nn.Linear(p.hidden, 1))
        self.dropout = nn.Dropout(p.dropout)

    def read(self, text: Tensor, pooled: Tensor, text_mask: Tensor, audio: Tensor, audio_mask: Tensor) -> Encoded:
        """Latents of one stream from the encoders' states [B, l, d] and bool masks; beside them the pooled vectors."""
        p = self.params
        pools = {"text": pooled, "audio": masked_mean(audio, audio_mask)}
        side = {f"pooled_{m}": x for m, x in pools.items()}
        if p.version == "cc":
            return Encoded(pools, side)
        pair = dict(zip(MODALITIES, self.cross.sequences(text, audio, text_mask, audio_mask)))
        side |= {f"seq_{m}": x for m, x in pair.items()}
        latents = {m: x[:, 0] for m, x in pair.items()}
        if p.version == "v2":
            latents = {
                m: self.mix[m](self.dropout(torch.cat([pools[m], x], 1))).relu() for m, x in latents.items()
            }
        if p.version == "v3":
            states, masks = {"text": text, "audio": audio}, {"text": text_mask, "audio": audio_mask}
            latents = {
                m: self.mixed[m](torch.cat([states[m], x[:, 1:]], -1), masks[m]) for m, x in pair.items()
            }
        return Encoded(latents, side)

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        frames = hear(self.audio_encoder, batch)
        pooled = hidden.last[:, 0] if hidden.pooled is None else hidden.pooled
        return self.read(hidden.last, pooled, hidden.mask > 0, self.project(frames.last), frames.mask > 0)

    def join(self, streams: list[Encoded]) -> Encoded:
        """The clip's latents and, if given, its context's, with the predictions of the single modalities beside them."""
        latents = {f"{s}{m}": e.latents[m] for m in MODALITIES for s, e in zip(self.streams, streams)}
        side = dict(streams[0].side)
        for m in MODALITIES:
            side[f"pooled_{m}"] = torch.cat([e.side[f"pooled_{m}"] for e in streams], 1)
            side[f"prediction_{m}"] = self.unimodal[m](self.dropout(side[f"pooled_{m}"])).squeeze(1)
        return Encoded(latents, side)

    def encode(self, batch: Batch) -> Encoded:
        streams = [super().encode(batch)]
        if self.params.context:
            streams.append(
                super().encode({k.removeprefix("context_"): v for k, v in batch.items() if "context_" in k})
            )
        return self.join(streams)

    def fuse(self, latents: Latents) -> Output:
        fused = torch.cat([latents[k] for k in self.latent_dims], 1)
        return Output(self.head(self.dropout(fused)).squeeze(1), {"fusion": fused})

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        target = {m: batch.get(f"label_{m}", batch["label"]) for m in MODALITIES}
        return {f"uni_{m}": F.l1_loss(encoded.side[f"prediction_{m}"], target[m]) for m in MODALITIES}

    def groups(self) -> list[Group]:
        """Weight decay of all parameters alike, AdamW's default; the frozen front of the audio encoder is in none."""
        own = [q for _, q in self.own_named_parameters() if q.requires_grad]
        return [*self.encoder_groups(), Group("main", own)]
