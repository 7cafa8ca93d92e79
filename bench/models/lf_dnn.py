"""LF-DNN: late fusion of three networks (M-SENA's baseline, after Cambria et al. 2017).

Latents: text [B, text_out] signed; audio [B, audio_hidden] and vision [B, vision_hidden], both >= 0. Fusion is their
concatenation (audio, vision, text) -> dropout -> Lin ReLU -> Lin ReLU -> Lin, linear output.

The encoders are TFN's: audio and vision are averaged over time, the LSTM reads padding, the text dropout is without
effect (docs/quirks.md).
"""

from dataclasses import dataclass

import torch
from torch import nn

from bench.models.base import Backbone, Batch, Encoded, Inputs, Latents, Output
from bench.models.parts.layers import FeatureNet, TextNet, dropout

VERSION = 1


@dataclass(frozen=True)
class Params:
    """M-SENA's values for MOSI."""

    text_hidden: int = 128  # hidden width of the text's LSTM, hidden_dims[t]
    audio_hidden: int = 16  # hidden width of the audio's network, hidden_dims[a]
    vision_hidden: int = 128  # hidden width of the vision's network, hidden_dims[v]
    text_out: int = 256  # width of the text latent
    post_fusion: int = 128  # hidden width of the head, post_fusion_dim
    audio_dropout: float = 0.2  # dropout of the audio features, dropouts[a]
    vision_dropout: float = 0.2  # dropout of the vision features, dropouts[v]
    post_dropout: float = 0.2  # dropout of the fused vector, dropouts[post]
    text_state: str = "padded"  # the LSTM's state after the last step (M-SENA), or after the last "valid" one


class Model(Backbone):
    """LF-DNN. Prediction [B], linear."""

    time_mean = True

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__()
        self.params, self.label_bound = params, inputs.label_bound
        self.text = TextNet(inputs.text[1], params.text_hidden, params.text_out, params.text_state)
        self.audio = FeatureNet(inputs.audio[1], params.audio_hidden, params.audio_dropout)
        self.vision = FeatureNet(inputs.vision[1], params.vision_hidden, params.vision_dropout)
        widths = {"text": params.text_out, "audio": params.audio_hidden, "vision": params.vision_hidden}
        self.latent_dims = {m: (d,) for m, d in widths.items()}
        self.post1 = nn.Linear(sum(widths.values()), params.post_fusion)
        self.post2 = nn.Linear(params.post_fusion, params.post_fusion)
        self.post3 = nn.Linear(params.post_fusion, 1)

    def encode(self, batch: Batch) -> Encoded:
        return Encoded({m: getattr(self, m)(batch[m]) for m in self.latent_dims}, {})

    def fuse(self, latents: Latents) -> Output:
        fused = torch.cat([latents["audio"], latents["vision"], latents["text"]], 1)
        x = dropout(fused, self.params.post_dropout, self.training)
        x = self.post2(self.post1(x).relu()).relu()
        return Output(self.post3(x).squeeze(1), {"fusion": fused})
