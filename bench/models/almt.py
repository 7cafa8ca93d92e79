"""ALMT: language-guided adaptive hyper-modality learning (Zhang et al., 2023), official architecture.

Every modality is read into 8 tokens by a small transformer. A hyper-modality, which starts as ones, collects from the
audio and vision tokens what the language tokens of three levels attend to; the last language level then attends to it.

Latents: the 8 tokens of each modality, [B, 8, 128], right after the embeddings, where MS-Mix's release mixes; the
language levels, the hyper-modality, the fusion and the head run again on mixed rows.

Choices:
- Attention of the embeddings, the language encoder and the fusion has heads of width 64, a default that no published
  configuration changes; the hyper layers have `hyper_head_dim`. No padding mask anywhere, dropout 0 (official).
- The hyper-modality's residual stream is its LayerNormed value (official; the paper draws the raw one).
- One learning rate and one weight decay for all parameters, the encoder included (official).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.base import Batch, Encoded, Inputs, Latents, Output
from bench.models.parts.text import Hidden, TextBackbone

VERSION = 1

HEAD_DIM = 64  # of every attention but the hyper layers'


@dataclass(frozen=True)
class Params:
    """Defaults: the official configuration, MOSI."""

    encoder: str = "bert-base-uncased"
    finetune: bool = True
    d: int = 128  # width of all tokens
    tokens: int = 8  # T, tokens per modality
    proj_depth: int = 1  # of the embedding of tokens
    proj_heads: int = 8  # of the embedding of tokens
    proj_mlp: int = 128  # of the embedding of tokens
    language_heads: int = 8  # of the language encoder
    language_mlp: int = 128  # of the language encoder
    hyper_depth: int = 3  # levels; the language encoder has one layer less
    hyper_heads: int = 8  # of the hyper layers
    hyper_head_dim: int = 16  # of a head of the hyper layers
    fusion_depth: int = 2  # of the fusion
    fusion_heads: int = 8  # of the fusion
    fusion_mlp: int = 128  # of the fusion


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention of [B, Tq, w] on [B, Tk, w] in `heads` heads of width w / heads; [B, Tq, w]."""
    q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, heads, T, w / heads)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Layer(nn.Module):
    """Pre-norm attention of a target on a source, then a feed-forward layer; query, key and value each have a norm."""

    def __init__(self, d: int, heads: int, mlp: int) -> None:
        super().__init__()
        inner = heads * HEAD_DIM
        self.heads = heads
        self.norm_q, self.norm_k, self.norm_v = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)
        self.to_q, self.to_k, self.to_v = (nn.Linear(d, inner, bias=False) for _ in range(3))
        self.to_out = nn.Linear(inner, d)
        self.norm = nn.LayerNorm(d)
        self.feed_forward = nn.Sequential(nn.Linear(d, mlp), nn.GELU(), nn.Linear(mlp, d))

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """x [B, Tq, d], source [B, Tk, d] -> [B, Tq, d]."""
        q, k, v = self.to_q(self.norm_q(x)), self.to_k(self.norm_k(source)), self.to_v(self.norm_v(source))
        x = x + self.to_out(attend(q, k, v, self.heads))
        return x + self.feed_forward(self.norm(x))


class Embedding(nn.Module):
    """A modality's sequence read into `tokens` learned tokens: [B, T, d_m] -> [B, tokens, d], T <= `steps`."""

    def __init__(self, d_m: int, steps: int, p: Params) -> None:
        super().__init__()
        self.project = nn.Linear(d_m, p.d)
        self.token = nn.Parameter(torch.zeros(1, p.tokens, p.d))
        self.position = nn.Parameter(torch.randn(1, steps + p.tokens, p.d))
        self.layers = nn.ModuleList([Layer(p.d, p.proj_heads, p.proj_mlp) for _ in range(p.proj_depth)])

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.project(x)], 1)  # (B, tokens + T, d)
        x = x + self.position[:, : x.shape[1]]
        for layer in self.layers:
            x = layer(x, x)
        return x[:, : self.token.shape[1]]


class HyperLayer(nn.Module):
    """One step of the hyper-modality: language tokens query audio and vision tokens, the answers are added to it."""

    def __init__(self, d: int, heads: int, head_dim: int) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.norm_text, self.norm_audio, self.norm_vision, self.norm_hyper = (nn.LayerNorm(d) for _ in range(4))
        self.to_q = nn.Linear(d, inner, bias=False)
        self.to_k_audio, self.to_k_vision = nn.Linear(d, inner, bias=False), nn.Linear(d, inner, bias=False)
        self.to_v_audio, self.to_v_vision = nn.Linear(d, inner, bias=False), nn.Linear(d, inner, bias=False)
        self.to_out = nn.Linear(inner, d)

    def forward(self, text: Tensor, audio: Tensor, vision: Tensor, hyper: Tensor) -> Tensor:
        """All [B, tokens, d]."""
        text, audio, vision = self.norm_text(text), self.norm_audio(audio), self.norm_vision(vision)
        q = self.to_q(text)
        heard = attend(q, self.to_k_audio(audio), self.to_v_audio(audio), self.heads)
        seen = attend(q, self.to_k_vision(vision), self.to_v_vision(vision), self.heads)
        return self.norm_hyper(hyper) + self.to_out(heard + seen)


class Fusion(nn.Module):
    """The language tokens attend to the hyper-modality, both behind one shared learned token; its value [B, d]."""

    def __init__(self, p: Params) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, p.d))
        self.position_source = nn.Parameter(torch.randn(1, p.tokens + 1, p.d))
        self.position_target = nn.Parameter(torch.randn(1, p.tokens + 1, p.d))
        self.layers = nn.ModuleList([Layer(p.d, p.fusion_heads, p.fusion_mlp) for _ in range(p.fusion_depth)])

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        token = self.token.expand(len(source), -1, -1)
        source = torch.cat([token, source], 1) + self.position_source  # (B, tokens + 1, d)
        target = torch.cat([token, target], 1) + self.position_target
        for layer in self.layers:
            target = layer(target, source)
        return target[:, 0]


class Model(TextBackbone):
    """ALMT. Prediction [B], linear."""

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params.encoder, params.finetune, inputs)
        p = params
        sequences = {
            "text": (self.text_width, inputs.text[0]),
            "audio": (inputs.audio[1], inputs.audio[0]),
            "vision": (inputs.vision[1], inputs.vision[0]),
        }
        self.embed = nn.ModuleDict({m: Embedding(d_m, steps, p) for m, (d_m, steps) in sequences.items()})
        self.language_position = nn.Parameter(torch.randn(1, p.tokens, p.d))
        self.language = nn.ModuleList([Layer(p.d, p.language_heads, p.language_mlp) for _ in range(p.hyper_depth - 1)])
        self.hyper = nn.Parameter(torch.ones(1, p.tokens, p.d))
        self.hyper_layers = nn.ModuleList(
            [HyperLayer(p.d, p.hyper_heads, p.hyper_head_dim) for _ in range(p.hyper_depth)]
        )
        self.fusion = Fusion(p)
        self.head = nn.Linear(p.d, 1)
        self.latent_dims = {m: (p.tokens, p.d) for m in sequences}

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        sequences = {"text": hidden.last, "audio": batch["audio"], "vision": batch["vision"]}
        return Encoded({m: self.embed[m](x) for m, x in sequences.items()}, {})

    def fuse(self, latents: Latents) -> Output:
        levels = [latents["text"] + self.language_position]  # each (B, tokens, d)
        for layer in self.language:
            levels.append(layer(levels[-1], levels[-1]))
        hyper = self.hyper.expand(len(levels[0]), -1, -1)
        for level, layer in zip(levels, self.hyper_layers):
            hyper = layer(level, latents["audio"], latents["vision"], hyper)
        fused = self.fusion(hyper, levels[-1])  # (B, d)
        features = {"fusion": fused, "hyper": hyper} | {f"text_level{i}": x for i, x in enumerate(levels)}
        return Output(self.head(fused).squeeze(1), features)
