"""KuDA: knowledge-guided dynamic attention (Feng et al., Findings of EMNLP 2024).

    text: hidden states of a fine-tuned encoder; audio, vision: Lin + learned positions, 4 transformer layers
    knowledge branch beside each: k <- LN(k + h_i), k <- k + Lin(transformer(Lin(k))) at some layers i ("adapters")
    u_m = concat(last states, k) [B, T_m, 2w];  y_m = MLP(mean over time of u_m), the unimodal prediction
    h_m = Lin over time (Lin over width (u_m)) [B, L, H];  s = sum of h_m
    3 blocks: s <- LN(s + R(s)), s <- LN(s + self-attention), s <- LN(s + FF);  R(s) = LN(sum over m of LN_m(c_m)),
    c_m = cross-attention block(s queries h_m);  mean over time -> MLP -> prediction
    loss: MSE + lambda_nce NCE(mean of h_m, mean of s), in-batch negatives

Preparation: unimodal networks on labels of the single modality (the clip's, where there are none), `pretrain_text` and
so on epochs; then adapters and unimodal heads are frozen.

Latents: h_m, text, audio and vision [B, L, H].

What differs from the release, and the switch back (docs/quirks.md):
- `routing` "release" weighs c_m by 1 + softmax(-0.1 |y_m - label|^2) in training, which LN_m undoes but for its eps, and
  leaves out LN_m in evaluation, so that training and evaluation are different functions. "same": LN_m in both, no
  labels. In "release" the ratios travel as a latent of their own.
- The release prepares on CH-SIMS v2 (translated for English text); here on the training split at hand.
- Adapters sit at layers 3, 6, 9, 11 of 12; in another encoder at the same parts of its depth.
- Rate and decay of the preparation's encoders are those of group_lr "pretrain.*" and the group's decay.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.base import Batch, Encoded, Group, Inputs, Latents, Output, Pass, Update
from bench.models.parts.knowledge import Sequence, Unimodal
from bench.models.parts.padded import step_mask
from bench.models.parts.text import Hidden, TextBackbone
from bench.models.parts.words import one_of

VERSION = 1
BRIEF = {"pretrain_text": 1, "pretrain_vision": 1, "pretrain_audio": 1}  # parameters of a quick look
MODALITIES = ("text", "vision", "audio")
DEPTH = 12  # layers that `adapters` counts in


@dataclass(frozen=True)
class Params:
    """The release's values, CH-SIMS."""

    encoder: str = "bert-base-chinese"
    finetune: bool = True
    width: int = 128  # width of audio and vision, d; H = 2 d
    heads: int = 8
    layers: int = 4
    dropout: float = 0.2
    adapters: tuple[int, ...] = (3, 6, 9, 11)  # layers of the text encoder that have an adapter, counted in 12
    own_adapters: tuple[int, ...] = (1, 2, 3)  # layers of audio and vision that have an adapter
    adapter_heads: int = 4  # of the unimodal networks
    adapter_dropout: float = 0.1  # of the unimodal networks
    fusion_blocks: int = 3  # blocks of the dynamic attention fusion
    fusion_heads: int = 8  # of the dynamic attention fusion
    fusion_head_width: int = 64  # of a head of the dynamic attention fusion
    feed_forward: int = 512
    cross_dropout: float = 0.3  # of the dynamic attention fusion
    head: tuple[int, int] = (64, 32)  # hidden widths of the regression head
    lambda_nce: float = 0.1  # weight of NCE
    routing: str = "same"  # "same": no labels, LN_m in training and evaluation; "release": the ratios of unimodal errors
    pretrain_text: int = 100  # epochs of the text network alone, in the preparation
    pretrain_vision: int = 100  # epochs of the vision network alone
    pretrain_audio: int = 50  # epochs of the audio network alone

    def __post_init__(self) -> None:
        one_of("kuda", "routing", self.routing, ("same", "release"))


class Attention(nn.Module):
    """x [B, L, H] queries source [B, L, H]; no masks, no biases but the output's."""

    def __init__(self, width: int, heads: int, head: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, heads * head, bias=False) for _ in range(3))
        self.out = nn.Linear(heads * head, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        q, k, v = (
            f(z).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for f, z in ((self.query, x), (self.key, source), (self.value, source))
        )
        return self.dropout(self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))


class FeedForward(nn.Module):
    """LN(Lin GELU Lin of x + x); the inner networks begin with a LayerNorm of their own."""

    def __init__(self, width: int, hidden: int, dropout: float, eps: float) -> None:
        super().__init__()
        self.inner = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(F.gelu(self.up(self.inner(x))))
        return self.norm(self.dropout(self.down(y)) + x)


class Cross(nn.Module):
    """c_m: s queries h_m, then a feed-forward network."""

    def __init__(self, width: int, p: Params) -> None:
        super().__init__()
        self.attention = Attention(width, p.fusion_heads, p.fusion_head_width, p.cross_dropout)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, p.feed_forward, p.cross_dropout, 1e-5)

    def forward(self, s: Tensor, source: Tensor) -> Tensor:
        return self.feed_forward(self.norm(self.attention(s, source) + s))


class Block(nn.Module):
    """Routed cross-attention, self-attention, feed-forward over s [B, L, H]."""

    def __init__(self, width: int, p: Params) -> None:
        super().__init__()
        self.cross = nn.ModuleDict({m: Cross(width, p) for m in MODALITIES})
        self.norm_each = nn.ModuleDict({m: nn.LayerNorm(width) for m in MODALITIES})
        self.norm_all = nn.LayerNorm(width)
        self.norm_cross, self.norm_self = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.attention = Attention(width, p.fusion_heads, p.fusion_head_width, 0.0)
        self.feed_forward = FeedForward(width, p.feed_forward, 0.0, 1e-6)

    def forward(self, s: Tensor, h: Latents, scales: dict[str, Tensor | float], plain: bool) -> Tensor:
        found = {m: self.cross[m](s, h[m]) for m in MODALITIES}
        if not plain:
            found = {m: self.norm_each[m](c * scales[m]) for m, c in found.items()}
        s = self.norm_cross(s + self.norm_all(sum(found.values())))
        s = self.norm_self(s + self.attention(s, s))
        return self.feed_forward(s)


class Model(TextBackbone):
    """KuDA. Prediction [B], linear."""

    wants_unimodal = True

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params.encoder, params.finetune, inputs)
        p = self.params = params
        d, H, L = self.text_width, 2 * p.width, inputs.text[0]
        layers = self.text_encoder.transformer.config.num_hidden_layers if self.text_encoder else DEPTH
        at = tuple(-(-i * layers // DEPTH) for i in p.adapters)
        self.sequences = nn.ModuleDict({
            m: Sequence(*getattr(inputs, m), p.width, p.heads, p.layers, p.dropout) for m in MODALITIES if m != "text"
        })
        own = {m: (d if m == "text" else p.width, at if m == "text" else p.own_adapters) for m in MODALITIES}
        self.unimodal = nn.ModuleDict({
            m: Unimodal(w, i, p.adapter_heads, p.adapter_dropout) for m, (w, i) in own.items()
        })
        self.to_width = nn.ModuleDict({m: nn.Linear(2 * w, H) for m, (w, _) in own.items()})
        self.to_length = nn.ModuleDict({m: nn.Linear(getattr(inputs, m)[0], L) for m in MODALITIES})
        self.blocks = nn.ModuleList(Block(H, p) for _ in range(p.fusion_blocks))
        a, b = p.head
        self.head = nn.Sequential(nn.Linear(H, a), nn.GELU(), nn.Linear(a, b), nn.GELU(), nn.Linear(b, 1))
        self.latent_dims = {m: (L, H) for m in MODALITIES}
        if p.routing == "release":
            self.latent_dims["ratio"] = (len(MODALITIES),)
        self.epochs = {m: getattr(p, f"pretrain_{m}") for m in MODALITIES}
        self.preparation = max(self.epochs.values())

    def unimodals(self, hidden: Hidden, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Modality -> (u_m, y_m)."""
        found = {}
        for m in MODALITIES:
            if m == "text":
                padded, states = hidden.mask == 0, list(hidden.all) or [hidden.last] * (DEPTH + 1)
                last = hidden.last
            else:
                padded = step_mask(batch[m], batch[f"{m}_lengths"].clamp(min=1))[..., 0] == 0
                states = self.sequences[m](batch[m], padded)
                last = self.unimodal[m].norm(states[-1])
            found[m] = self.unimodal[m](states, last, padded)
        return found

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        found = self.unimodals(hidden, batch)
        latents, side = {}, {}
        for m, (u, y) in found.items():
            side |= {f"encoder_{m}": u, f"prediction_{m}": y}
            latents[m] = self.to_length[m](self.to_width[m](u).transpose(1, 2)).transpose(1, 2)  # (B, L, H)
        if self.params.routing == "release" and self.training:
            errors = torch.stack([(side[f"prediction_{m}"] - batch["label"]).square() for m in MODALITIES], 1)
            latents["ratio"] = (-0.1 * errors).softmax(1)  # (B, 3)
        return Encoded(latents, side)

    def fuse(self, latents: Latents) -> Output:
        s = sum(latents[m] for m in MODALITIES)  # (B, L, H)
        ratio = latents.get("ratio")
        scales = {m: 1.0 if ratio is None else 1 + ratio[:, i, None, None] for i, m in enumerate(MODALITIES)}
        plain = self.params.routing == "release" and ratio is None
        for block in self.blocks:
            s = block(s, latents, scales, plain)
        return Output(self.head(s.mean(1)).squeeze(-1), {"fusion": s})

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        s = (output or self.fuse(encoded.latents)).features["fusion"]
        y = F.normalize(s.mean(1), dim=1)
        nce = 0.0
        for m in MODALITIES:
            x = F.normalize(encoded.latents[m].mean(1), dim=1)
            nce = nce - ((x * y).sum(1) - (x @ y.T).logsumexp(1)).mean()
        return {"nce": self.params.lambda_nce * nce}

    def prepare(self, hidden: Hidden, batch: Batch, modalities: tuple[str, ...] = MODALITIES) -> dict[str, Tensor]:
        """Unimodal losses of the preparation."""
        found = self.unimodals(hidden, batch)
        return {m: F.mse_loss(found[m][1], batch.get(f"label_{m}", batch["label"])) for m in modalities}

    def passes(self, epoch: int) -> tuple[Pass, ...]:
        if epoch >= 1:
            return (Pass((Update(groups=("encoder", "main")),)),)
        began = epoch + self.preparation  # counts from 1
        due = tuple(m for m in MODALITIES if began <= self.epochs[m])
        stage = Update("pretrain", lambda batch: self.prepare(self._states(batch), batch, due), None, "pretrain")
        return (Pass((stage,)),)

    def _states(self, batch: Batch) -> Hidden:
        if self.text_encoder is not None:
            return self.text_encoder(batch["text_bert"])
        x = batch["text"]
        return Hidden(x, x, x.ne(0).any(-1).to(x.dtype))

    def groups(self) -> list[Group]:
        """"adapter": what only the preparation trains."""
        own = [(".adapters." in n or ".decoder." in n, q) for n, q in self.own_named_parameters()]
        frozen = [q for is_frozen, q in own if is_frozen]
        return [*self.encoder_groups(), Group("adapter", frozen), Group("main", [q for f, q in own if not f])]
