"""TMBL: transformer-based multimodal binding learning (Huang et al., Knowledge-Based Systems 2024).

    text: masked mean of the encoder's states; audio, vision: MISA's utterance vectors
    three private transformers on pairs of modalities; private_m = Lin(mean of the two that have m), two copies [B, 2, H]
    p_m = LN(ReLU(Lin)) of each; bound_t = p_t + p_v, bound_v = p_v + p_a, bound_a = p_a + p_t; a shared transformer on
    the pairs (bound_m, p_m): in each of its layers all three streams come from attention of the text's queries, the
    vision's keys and the audio's values
    tokens: private a, v, t (two each), class, shared t, v, a (two each), class, + positions; three convolutions, mean
    loss: MSE + lambda_diff (MISA's difference of private and shared parts) + lambda_sim (1 - cosine of shared parts)

Latents: the three utterance vectors, text [B, d_t], audio and vision [B, 4 d].

The release hands the transformers [2, B, d] where they want samples first, so that everything runs along the batch
(`along` "batch"): a prediction depends on the rest of the batch, on its order and on its size. Along "sample", the
default, a sample's two copies are the sequence. This is another model than the released one, and what follows from it:

    "batch"   bound_m is made of the first half of the batch of one modality and the first half of the other (of an even
              batch); class token and positions are one for each place in the batch, and left out of a smaller batch;
              queries and keys are mixed along the batch where its size is their width; the losses' axes follow
    "sample"  bound_m is the sum, which the release takes for an odd batch; class token and positions are the same for
              all samples; no mixing

Quirks kept (docs/quirks.md): keys equal values in the private transformers, which the release takes for
self-attention, so that no stream sees another; scores are divided by the root of the width of all heads.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.base import Batch, Encoded, Inputs, Latents, Output
from bench.models.parts.binding import Entrance, Layer, orthogonality
from bench.models.parts.layers import dropout
from bench.models.parts.padded import Utterance
from bench.models.parts.text import Hidden, TextBackbone
from bench.models.parts.words import masked_mean, one_of

VERSION = 1
BRIEF = {"layers": 1, "hidden": 32, "inner": 32}  # parameters of a quick look
MODALITIES = ("text", "vision", "audio")
PAIRS = {"audio": ("audio", "vision"), "vision": ("vision", "text"), "text": ("text", "audio")}  # private transformers
BINDS = {"text": "vision", "vision": "audio", "audio": "text"}
TOKENS = 14


@dataclass(frozen=True)
class Params:
    """The release's values."""

    encoder: str = "bert-base-uncased"
    finetune: bool = True
    frozen_layers: int = 9  # frozen layers of the text encoder, counted in 12; its embeddings are trained
    hidden: int = 256  # width of the private and bound vectors, H
    layers: int = 5
    inner: int = 512  # hidden width of feed-forward networks
    heads: int = 8
    k: int = 32  # width of queries and keys, all heads together
    out: int = 64  # width of the shared transformer's values
    dropout: float = 0.5
    lambda_diff: float = 0.5  # weight of the difference loss
    lambda_sim: float = 0.5  # weight of the similarity loss
    along: str = "sample"  # the transformers' sequence: a "sample"'s two copies, or the "batch" (release)
    batch_size: int = 64  # rows of a full batch, along "batch" alone

    def __post_init__(self) -> None:
        one_of("tmbl", "along", self.along, ("sample", "batch"))


class Private(nn.Module):
    """Two streams [N, S, d_m] side by side, each through layers of self-attention of its own."""

    def __init__(self, widths: dict[str, int], p: Params, steps: int, rows: int) -> None:
        super().__init__()
        self.enter = nn.ModuleDict({m: Entrance(steps, d, p.dropout) for m, d in widths.items()})
        self.layers = nn.ModuleDict({
            m: nn.ModuleList(Layer((d, d, d), p.heads, p.k, p.k, p.inner, p.dropout, rows) for _ in range(p.layers))
            for m, d in widths.items()
        })

    def forward(self, m: str, x: Tensor) -> Tensor:
        x = self.enter[m](x)
        for layer in self.layers[m]:
            x = layer(x, x, x)
        return x


class Shared(nn.Module):
    """Three streams [N, S, H]: every layer gives each a new value from all three."""

    def __init__(self, p: Params, steps: int, rows: int) -> None:
        super().__init__()
        H = p.hidden
        self.enter = nn.ModuleDict({m: Entrance(steps, H, p.dropout) for m in MODALITIES})
        self.layers = nn.ModuleList(
            nn.ModuleDict({m: Layer((H, H, H), p.heads, p.k, p.out, p.inner, p.dropout, rows) for m in MODALITIES})
            for _ in range(p.layers)
        )

    def forward(self, streams: Latents) -> Latents:
        streams = {m: self.enter[m](streams[m]) for m in MODALITIES}
        for layer in self.layers:
            streams = {m: layer[m](*(streams[k] for k in MODALITIES)) for m in MODALITIES}
        return streams


class Model(TextBackbone):
    """TMBL. Prediction [B], linear. Along "batch" it takes at most `batch_size` rows, evaluates as many at once, and
    raises BenchError for more."""

    reads_padding = False

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params.encoder, params.finetune, inputs)
        p = self.params = params
        H, self.aligned, self.batched = p.hidden, inputs.aligned, p.along == "batch"
        steps, rows = (p.batch_size, p.k) if self.batched else (2, 0)
        self.eval_batch = p.batch_size if self.batched else None
        sounds = {"audio": inputs.audio[1], "vision": inputs.vision[1]}
        widths = {"text": self.text_width, **{m: 4 * d for m, d in sounds.items()}}
        self.utterances = nn.ModuleDict({m: Utterance(d) for m, d in sounds.items()})
        self.project = nn.ModuleDict({
            m: nn.Sequential(nn.Linear(widths[m], H), nn.ReLU(), nn.LayerNorm(H)) for m in MODALITIES
        })
        self.private = nn.ModuleDict({k: Private({m: widths[m] for m in pair}, p, steps, rows) for k, pair in PAIRS.items()})
        self.to_private = nn.ModuleDict({m: nn.Linear(widths[m], H) for m in MODALITIES})
        self.shared = Shared(p, steps, rows)
        places = p.batch_size if self.batched else 1
        self.class_token = nn.Parameter(torch.randn(places, 1, H))
        self.positions = nn.Parameter(torch.randn(places, TOKENS, H))
        self.convolutions = nn.ModuleList(nn.Conv1d(a, b, 3, padding=1) for a, b in ((H, H // 2), (H // 2, H // 2), (H // 2, 1)))
        self.latent_dims = {m: (widths[m],) for m in MODALITIES}
        for name, weight in self.utterances.named_parameters():
            if "weight_hh" in name:
                nn.init.orthogonal_(weight)
        if self.text_encoder is not None and p.finetune:
            layers = self.text_encoder.transformer.encoder.layer
            for layer in layers[: p.frozen_layers * len(layers) // 12]:
                layer.requires_grad_(False)

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        words = hidden.mask.sum(1).round().long() if self.aligned else None
        latents = {"text": masked_mean(hidden.last, hidden.mask)}  # (B, d_t)
        for m in ("vision", "audio"):
            lengths = batch[f"{m}_lengths"] if words is None else words
            latents[m] = self.utterances[m](batch[m], lengths.clamp(1, batch[m].shape[1]))
        return Encoded(latents, {})

    def _turn(self, pair: Tensor) -> Tensor:
        """[2, B, .] as the transformers read it, and back."""
        return pair if self.batched else pair.transpose(0, 1)

    def privates(self, latents: Latents) -> Latents:
        """Modality -> [2, B, H]."""
        found: dict[str, list[Tensor]] = {m: [] for m in MODALITIES}
        for name, pair in PAIRS.items():
            for m in pair:
                copies = self._turn(torch.stack([latents[m]] * 2))
                found[m].append(self._turn(self.private[name](m, copies)))
        return {m: self.to_private[m]((a + b) / 2) for m, (a, b) in found.items()}

    def bound(self, x: Latents) -> Latents:
        """Modality -> [B, H], from two modalities each."""
        n = len(x["text"])
        if self.batched and n % 2 == 0:
            return {m: torch.cat([x[m][: n // 2], x[other][: n // 2]]) for m, other in BINDS.items()}
        return {m: x[m] + x[other] for m, other in BINDS.items()}

    def fuse(self, latents: Latents) -> Output:
        n = len(latents["text"])
        if self.batched and n > self.params.batch_size:
            raise BenchError(f"tmbl: along=batch takes {self.params.batch_size} rows at once, not {n}; set batch_size, or along=sample")
        projected = {m: self.project[m](latents[m]) for m in MODALITIES}
        private, bound = self.privates(latents), self.bound(projected)
        streams = {m: self._turn(torch.stack([bound[m], projected[m]])) for m in MODALITIES}
        shared = {m: self._turn(x) for m, x in self.shared(streams).items()}
        parts = {f"private_{m}": private[m] for m in ("audio", "vision", "text")}
        parts |= {f"shared_{m}": shared[m] for m in ("text", "vision", "audio")}
        features = {k: x.transpose(0, 1) for k, x in parts.items()}  # (B, 2, H)
        tokens = list(features.values())
        if not self.batched or n == self.params.batch_size:
            one = self.class_token.expand(n, -1, -1)
            tokens = [*tokens[:3], one, *tokens[3:], one]
        x = torch.cat(tokens, 1)  # (B, 14 or 12, H)
        if x.shape[1] == TOKENS:
            x = x + self.positions
        features |= {f"projected_{m}": v for m, v in projected.items()} | {"fusion": x}
        first, second, last = self.convolutions
        x = second(first(x.transpose(1, 2)).relu())
        x = last(dropout(x, self.params.dropout, self.training).relu())  # (B, 1, tokens)
        return Output(x.mean(2).squeeze(1), features)

    def terms(self, parts: Latents) -> dict[str, Tensor]:
        """diff and sim, unweighted, of private_m and shared_m [B, 2, H]."""
        codes = {k: (x.transpose(0, 1) if self.batched else x).flatten(1) for k, x in parts.items()}  # (2, B H), (B, 2 H)
        pairs = [(f"private_{m}", f"shared_{m}") for m in MODALITIES]
        pairs += [(f"private_{a}", f"private_{b}") for a, b in (("audio", "text"), ("audio", "vision"), ("text", "vision"))]
        apart = (("vision", "audio"), ("vision", "text"), ("audio", "text"))
        cosines = [F.cosine_similarity(parts[f"shared_{a}"], parts[f"shared_{b}"], -1).mean() for a, b in apart]
        return {
            "diff": sum(orthogonality(codes[a], codes[b]) for a, b in pairs),
            "sim": sum(1 - c for c in cosines) / len(cosines),
        }

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        features = (output or self.fuse(encoded.latents)).features
        with torch.autocast(batch["label"].device.type, enabled=False):
            terms = self.terms({
                k: x.to(torch.promote_types(x.dtype, torch.float32)) for k, x in features.items() if k.startswith(("private", "shared"))
            })
        return {"diff": self.params.lambda_diff * terms["diff"], "sim": self.params.lambda_sim * terms["sim"]}
