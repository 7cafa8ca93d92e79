"""GLoMo: global-local modal fusion (Zhuang et al., 2024), official architecture.

Every modality gives a coarse vector (text: CLS; audio, vision: maximum over time) and a fine one: three local maxima
in time, read by a mixture of experts. Two transformer layers over the six vectors and attention pools over the coarse
and over the fine three give two summaries, which predict.

Latents: the six vectors before the transformer, in the order of its tokens. One mixture mixes all six with one pair
of samples; `coarse_*` and `fine_*` of a modality belong together (MS-Mix's commented code calls its mixer twice, on
the coarse and on the fine trio, with two sets of pairs and the first set's labels).

Choices:
- The encoder of audio and vision has positions and no causal mask; no mask for padding anywhere but in the text
  encoder (official). Maxima are over all steps, padding included.
- Audio, vision and text may differ in length: nothing in the model needs them equal, so M-SENA files serve.
- With frozen text features ("none") the last layer stands for the one before it, too.
- Weights of linear maps start at normal(0, 0.02), biases at 0; packed attention maps and convolutions as in torch;
  the two transformer layers start as copies of each other (official).
- Weight decay spares what has "bias" in its name, and LayerNorms of the text encoder only (official).
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.models.base import Batch, Encoded, Group, Inputs, Latents, Output
from bench.models.parts.layers import local_maxima
from bench.models.parts.moe import GATE_CDF_MEAN, Mixture, MixtureOfExperts
from bench.models.parts.text import BIAS_AND_NORM, Hidden, TextBackbone
from bench.models.parts.towers import Fold, Towers

VERSION = 1

MODALITIES = ("text", "audio", "vision")


@dataclass(frozen=True)
class Params:
    """Defaults: the official configuration, MOSI."""

    encoder: str = "bert-base-uncased"
    finetune: bool = True
    d: int = 48  # d_l, width of every vector
    heads: int = 16  # attention heads everywhere
    layers: int = 4  # of the audio and vision encoders
    grains: tuple[int, int, int] = (3, 3, 3)  # local maxima of text, audio, vision
    experts: tuple[int, int, int] = (3, 3, 3)  # experts of the mixture of text, audio, vision
    top_k: int = 2  # experts that answer for a sample, those of the largest gates
    balance_weight: float = 1e-2  # weight of the loss that balances the experts' load
    attn_dropout: float = 0.5  # of the audio and vision encoders
    relu_dropout: float = 0.3
    res_dropout: float = 0.3
    embed_dropout: float = 0.2
    fusion_dropout: float = 0.1  # in the two transformer layers
    pool_dropout: float = 0.3  # of the attention that pools


class Sequence(nn.Module):
    """Audio or vision encoder: convolution, transformer; [B, T, d_m] -> [B, T, d]."""

    def __init__(self, steps: int, d_m: int, p: Params) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(d_m, p.d, 3, padding=1, bias=False)
        self.encoder = Towers(
            1, p.d, p.heads, p.layers, embed_dropout=p.embed_dropout, relu_dropout=p.relu_dropout,
            residual_dropout=p.res_dropout, positions=steps,
        )
        self.fold = Fold([0], [steps], [steps], [p.attn_dropout], causal=False)
        for weight in (self.encoder.out_weight, self.encoder.fc1_weight, self.encoder.fc2_weight):
            nn.init.normal_(weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x.transpose(1, 2)).transpose(1, 2)  # (B, T, d)
        return self.encoder(x[None], self.fold)[0]


class AttentionPool(nn.Module):
    """Weighted sum of three vectors [B, d], with weights from all three."""

    def __init__(self, d: int, dropout: float) -> None:
        super().__init__()
        self.mix, self.dropout, self.score = nn.Linear(3 * d, d), nn.Dropout(dropout), nn.Linear(d, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, 3, d] -> weights [B, 3, 1], value [B, d]."""
        scores = self.score(self.dropout(self.mix(x.flatten(1))).relu()) * x.shape[2] ** -0.5  # (B, 3)
        weights = scores.softmax(1)[..., None]
        return weights, (weights * x).sum(1)


class Model(TextBackbone):
    """GLoMo. Prediction [B], linear."""

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params.encoder, params.finetune, inputs)
        p, d = params, params.d
        self.params = params
        self.grains = dict(zip(MODALITIES, p.grains))
        self.text_coarse = nn.Linear(self.text_width, d)
        self.text_fine = nn.Conv1d(self.text_width, d, 3, padding=1, bias=False)
        self.sequences = nn.ModuleDict({"audio": Sequence(*inputs.audio, p), "vision": Sequence(*inputs.vision, p)})
        self.mixtures = nn.ModuleDict({
            m: MixtureOfExperts(self.grains[m] * d, d, d, n, p.top_k, p.balance_weight)
            for m, n in zip(MODALITIES, p.experts)
        })
        self.pool_coarse, self.pool_fine = AttentionPool(d, p.pool_dropout), AttentionPool(d, p.pool_dropout)
        self.join = nn.Linear(2 * d, d)
        self.join_each = nn.ModuleDict({m: nn.Linear(2 * d, d) for m in MODALITIES})
        self.head = nn.Linear(2 * d, 1)
        layer = nn.TransformerEncoderLayer(d, p.heads, dropout=p.fusion_dropout, batch_first=True)
        self.fusion = nn.ModuleList([layer, copy.deepcopy(layer)])
        self._reset()
        self.latent_dims = {f"{grain}_{m}": (d,) for m in MODALITIES for grain in ("coarse", "fine")}

    def _reset(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.startswith("text_encoder."):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def encode_hidden(self, hidden: Hidden, batch: Batch, noise: dict[str, Tensor] | None = None) -> Encoded:
        """`noise`: modality -> gate noise [B, E] of a training step; drawn from torch's stream if not given."""
        both = torch.cat([hidden.last, hidden.previous], 1).transpose(1, 2)  # (B, d_t, 2L)
        steps = {"text": self.text_fine(both)}
        steps |= {m: sequence(batch[m]).transpose(1, 2) for m, sequence in self.sequences.items()}
        latents, side = {}, {}
        for m in MODALITIES:  # steps[m] is (B, d, T)
            coarse = self.text_coarse(hidden.last[:, 0]) if m == "text" else steps[m].amax(2)
            grains = local_maxima(steps[m], self.grains[m])  # (B, d, grains)
            mixture: Mixture = self.mixtures[m](grains.flatten(1), noise and noise[m])
            latents |= {f"coarse_{m}": coarse, f"fine_{m}": mixture.value}
            side |= {f"grains_{m}": grains} | {f"{k}_{m}": getattr(mixture, k) for k in ("gates", "load", "balance")}
        return Encoded(latents, side)

    def fuse(self, latents: Latents) -> Output:
        h = torch.stack([latents[k] for k in self.latent_dims], 1)  # (B, 6, d)
        for layer in self.fusion:
            h = layer(h)
        coarse, fine = h[:, 0::2], h[:, 1::2]  # (B, 3, d)
        weights, z_coarse = self.pool_coarse(coarse)
        _, z_fine = self.pool_fine(fine)
        joint = self.join(torch.cat([z_coarse, z_fine], 1))  # (B, d)
        each = torch.stack(
            [self.join_each[m](torch.cat([coarse[:, i], fine[:, i]], 1)) for i, m in enumerate(MODALITIES)], 1
        )  # (B, 3, d)
        fused = torch.cat([joint, (weights * each).sum(1)], 1)  # (B, 2d)
        return Output(self.head(fused).squeeze(1), {"fusion": fused, "weights": weights})

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        return {f"balance_{m}": encoded.side[f"balance_{m}"] for m in MODALITIES}

    def groups(self) -> list[Group]:
        named = self.own_named_parameters()
        return [
            *self.encoder_groups(BIAS_AND_NORM),
            Group("main", [p for n, p in named if "bias" not in n]),
            Group("main-no-decay", [p for n, p in named if "bias" in n], decay=False),
        ]

    def unused_reference_parameters(self) -> Mapping[str, str]:
        constant = "constant, not a parameter"
        return {
            "audio_network.encoder.version": constant,
            "audio_network.encoder.embed_positions": constant,
            "video_network.encoder.version": constant,
            "video_network.encoder.embed_positions": constant,
            **{f"moe_{m}.{k}": f"{constant}: Normal({GATE_CDF_MEAN}, 1)" for m in "tav" for k in ("mean", "std")},
        }
