"""LMF: low-rank multimodal fusion (Liu et al., ACL 2018), as M-SENA runs it.

Latents: text [B, text_hidden // 2], audio [B, audio_hidden], vision [B, vision_hidden]. Each latent, with a constant 1
in front, is multiplied by a factor per rank; the product of the three over modalities is weighted over the ranks.

Readings and quirks kept (docs/quirks.md): the reference's optimiser leaves `fusion_weights` and `fusion_bias` out, so
they stay at their random start (`train_fusion_weights` trains them); the post-fusion dropout is declared and never
applied, so there is none; the LSTM reads padding.
"""

from dataclasses import dataclass

import torch
from torch import nn

from bench.models.base import Backbone, Batch, Encoded, Group, Inputs, Latents, Output
from bench.models.parts.layers import FeatureNet, TextNet, prepend_one

VERSION = 1


@dataclass(frozen=True)
class Params:
    """M-SENA's values for MOSI."""

    text_hidden: int = 128  # hidden width of the text's LSTM, hidden_dims[t]; the text latent has half of it
    audio_hidden: int = 16  # hidden width of the audio's network, hidden_dims[a]
    vision_hidden: int = 128  # hidden width of the vision's network, hidden_dims[v]
    rank: int = 3  # rank of the fusion tensor, R
    audio_dropout: float = 0.3  # dropout of the audio features, dropouts[a]
    vision_dropout: float = 0.3  # dropout of the vision features, dropouts[v]
    train_fusion_weights: bool = False  # train the fusion weights and bias; the reference never does
    text_state: str = "padded"  # the LSTM's state after the last step (M-SENA), or after the last "valid" one
    include_one: bool = False  # latents handed to a mixer carry the constant 1 (released MS-Mix code)


class LMF(Backbone):
    """Encoders and a rank-R trilinear form. Groups: "factors" (the three factors; M-SENA's factor_lr) and "main"."""

    time_mean = True

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__()
        self.params, self.label_bound = params, inputs.label_bound
        widths = {"text": params.text_hidden // 2, "audio": params.audio_hidden, "vision": params.vision_hidden}
        self.latent_dims = {m: (d + params.include_one,) for m, d in widths.items()}
        self.text = TextNet(inputs.text[1], params.text_hidden, widths["text"], params.text_state)
        self.audio = FeatureNet(inputs.audio[1], params.audio_hidden, params.audio_dropout)
        self.vision = FeatureNet(inputs.vision[1], params.vision_hidden, params.vision_dropout)
        self.factors = nn.ParameterDict({m: nn.Parameter(torch.empty(params.rank, d + 1)) for m, d in widths.items()})
        self.fusion_weights = nn.Parameter(torch.empty(1, params.rank))
        self.fusion_bias = nn.Parameter(torch.zeros(1))
        for weight in (*self.factors.values(), self.fusion_weights):
            nn.init.xavier_normal_(weight)
        for parameter in (self.fusion_weights, self.fusion_bias):
            parameter.requires_grad_(params.train_fusion_weights)

    def encode(self, batch: Batch) -> Encoded:
        latents = {m: net(batch[m]) for m, net in (("text", self.text), ("audio", self.audio), ("vision", self.vision))}
        return Encoded({m: prepend_one(x) for m, x in latents.items()} if self.params.include_one else latents, {})

    def fuse(self, latents: Latents) -> Output:
        fused = None
        for m, factor in self.factors.items():
            x = latents[m] if self.params.include_one else prepend_one(latents[m])  # (B, h + 1)
            x = x @ factor.t()  # (B, R)
            fused = x if fused is None else fused * x
        prediction = nn.functional.linear(fused, self.fusion_weights, self.fusion_bias).squeeze(-1)  # (B,)
        return Output(prediction, {"fusion": fused})

    def groups(self) -> list[Group]:
        factors = list(self.factors.values())
        apart = {id(p) for p in factors}
        main = [p for p in self.parameters() if id(p) not in apart and p.requires_grad]
        return [Group("factors", factors), Group("main", main)]


Model = LMF
