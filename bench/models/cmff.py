"""CMFF: cross-modal fusion of the layers of a text and an audio encoder (Zheng et al., Applied Soft Computing 2025).

    every layer of either encoder gives one token: Lin GELU Lin of text position 0, and of the audio frames, averaged
    two layers over the tokens [B, n_t + n_a, d]: x <- x + attention(LN x), x <- x + expert_m(LN x), an expert for text
    and one for audio tokens: Lin(dropout(ReLU(Lin x)) * sigmoid(Lin x));  mean over tokens -> Lin -> prediction
    in training each token is replaced by a learned one with probability `masking`

Latents: the two stacks of tokens, text and audio [B, n_m, d].

The release trains the encoders with a contrastive loss first; that stage is not part of this model. Sound other than
waves (`audio_encoder` "none") and text without an encoder have one layer each.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.models.base import Batch, Encoded, Group, Inputs, Latents, Output
from bench.models.parts.audio_encoder import hear, listener
from bench.models.parts.layers import dropout
from bench.models.parts.text import Hidden, TextBackbone
from bench.models.parts.words import masked_mean

VERSION = 1
BRIEF = {"audio_encoder": "tiny-audio", "heads": 4}  # parameters of a quick look
MODALITIES = ("text", "audio")
WAVES = 16  # rows of a batch in evaluation


@dataclass(frozen=True)
class Params:
    """The release's values."""

    encoder: str = "bart-large"
    finetune: bool = True
    audio_encoder: str = "data2vec-audio-base"  # audio encoder; "none": the file's audio features
    finetune_audio: bool = True
    max_len: int | None = 88
    context: int = 0  # preceding clips; they are not read here
    heads: int = 8
    depth: int = 2
    dropout: float = 0.3
    masking: float = 0.2  # probability that a token is replaced by the learned one in training


class Expert(nn.Module):
    """Gated feed-forward network, d -> 4 d -> d."""

    def __init__(self, d: int, rate: float) -> None:
        super().__init__()
        self.value, self.gate, self.out = nn.Linear(d, 4 * d), nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return self.out(dropout(self.value(x).relu(), self.rate, self.training) * self.gate(x).sigmoid())


class Layer(nn.Module):
    """Attention over all tokens, then each kind's expert; the first `n_text` tokens are text."""

    def __init__(self, d: int, heads: int, rate: float, n_text: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(d, heads, batch_first=True)
        self.norm_attention, self.norm_expert = nn.LayerNorm(d), nn.LayerNorm(d)
        self.experts = nn.ModuleDict({m: Expert(d, rate) for m in MODALITIES})
        self.n_text = n_text

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm_attention(x)
        x = x + self.attention(z, z, z, need_weights=False)[0]
        z = self.norm_expert(x)
        text, audio = z[:, : self.n_text], z[:, self.n_text :]
        return x + torch.cat([self.experts["text"](text), self.experts["audio"](audio)], 1)


class Model(TextBackbone):
    """CMFF. Prediction [B], linear. `n_text`, `n_audio`: layers where there is no encoder to ask."""

    reads_padding = False

    def __init__(self, params: Params, inputs: Inputs, n_text: int = 1, n_audio: int = 1) -> None:
        p = self.params = params
        super().__init__(p.encoder, p.finetune, inputs)
        d = self.text_width
        if d % p.heads:
            raise BenchError(f"cmff: attention of width {d} cannot have {p.heads} heads")
        self.audio_encoder = listener("cmff", p.audio_encoder, p.finetune_audio, inputs)
        width = inputs.audio[1]
        if self.text_encoder is not None:
            n_text = self.text_encoder.transformer.config.num_hidden_layers
        if self.audio_encoder is not None:
            width, self.eval_batch = self.audio_encoder.hidden_size, WAVES
            n_audio = self.audio_encoder.transformer.config.num_hidden_layers
            self.test_only = self.test_only or self.audio_encoder.is_test_only
        widths, layers = {"text": d, "audio": width}, {"text": n_text, "audio": n_audio}
        self.project = nn.ModuleDict({
            m: nn.ModuleList(
                nn.Sequential(nn.Linear(widths[m], d), nn.GELU(), nn.Linear(d, d)) for _ in range(layers[m])
            )
            for m in MODALITIES
        })
        self.mask_token = nn.Parameter(torch.randn(d) * 0.02)
        self.layers = nn.ModuleList(Layer(d, p.heads, p.dropout, n_text) for _ in range(p.depth))
        self.score = nn.Linear(d, 1)
        self.latent_dims = {m: (layers[m], d) for m in MODALITIES}

    def tokens(self, text: list[Tensor], audio: list[Tensor], mask: Tensor) -> Latents:
        """Tokens [B, n_m, d] of the layers' states: text [B, d_t] at position 0, audio [B, T, d_a] with mask [B, T]."""
        found = {"text": [f(x) for f, x in zip(self.project["text"], text, strict=True)]}
        found["audio"] = [masked_mean(f(x), mask) for f, x in zip(self.project["audio"], audio, strict=True)]
        return {m: torch.stack(x, 1) for m, x in found.items()}

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        frames = hear(self.audio_encoder, batch, every=True)
        text = [x[:, 0] for x in hidden.all[1:]] or [hidden.last[:, 0]]
        return Encoded(self.tokens(text, list(frames.all[1:]) or [frames.last], frames.mask), {})

    def fuse(self, latents: Latents, uniform: Tensor | None = None) -> Output:
        """`uniform` [B, n] stands for the draws that decide which tokens are masked in training."""
        x = torch.cat([latents[m] for m in MODALITIES], 1)  # (B, n, d)
        if self.training and self.params.masking:
            uniform = torch.rand_like(x[..., 0]) if uniform is None else uniform
            x = torch.where(uniform[..., None] < self.params.masking, self.mask_token, x)
        features = {}
        for i, layer in enumerate(self.layers):
            x = features[f"layer_{i}"] = layer(x)
        fused = x.mean(1)
        return Output(self.score(fused).squeeze(1), features | {"fusion": fused})

    def groups(self) -> list[Group]:
        """As the release has it, by name: "text" and "audio" hold projections and experts too."""
        named = [(n, q) for n, q in self.own_named_parameters() if q.requires_grad]

        def of(m: str) -> list[nn.Parameter]:
            return [q for n, q in named if m in n]

        rest = [q for n, q in named if "text" not in n and "audio" not in n]
        return [*self.encoder_groups(), Group("text", of("text")), Group("audio", of("audio")), Group("main", rest)]
