"""TFN: tensor fusion network (Zadeh et al., EMNLP 2017), as M-SENA runs it.

Latents: text [B, text_out], audio [B, audio_hidden], vision [B, vision_hidden]. Fusion is the outer product of the
three, each with a constant 1 in front, then a three-layer head and a scaled sigmoid.

Readings and quirks kept (docs/quirks.md): the LSTM reads padding; the text dropout has no effect; predictions lie in
(-3, 3) on every dataset, SIMS included, unless `output_range` is "label". The reference stores range and shift as two
parameters that are never trained; here they are plain numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bench.errors import BenchError
from bench.models.base import Backbone, Batch, Encoded, Inputs, Latents, Output
from bench.models.parts.layers import FeatureNet, TextNet, dropout, prepend_one
from bench.models.parts.outer import outer_linear

VERSION = 1


@dataclass(frozen=True)
class Params:
    """M-SENA's values for MOSI."""

    text_hidden: int = 128  # hidden width of the text's LSTM, hidden_dims[t]
    audio_hidden: int = 32  # hidden width of the audio's network, hidden_dims[a]
    vision_hidden: int = 128  # hidden width of the vision's network, hidden_dims[v]
    text_out: int = 32  # width of the text latent
    post_fusion: int = 64  # hidden width of the head, post_fusion_dim
    audio_dropout: float = 0.3  # dropout of the audio features, dropouts[a]
    vision_dropout: float = 0.3  # dropout of the vision features, dropouts[v]
    post_dropout: float = 0.5  # dropout of the outer product, dropouts[post]
    output_range: str = "fixed"  # "fixed": 6 sigmoid - 3 (M-SENA); "label": from -bound to bound of the labels
    text_state: str = "padded"  # the LSTM's state after the last step (M-SENA), or after the last "valid" one
    include_one: bool = False  # latents handed to a mixer carry the constant 1 (released MS-Mix code)


class TFN(Backbone):
    """Encoders, outer product, head."""

    time_mean = True
    store_product = False  # hold the outer product in training on CPU too (vmap needs it; slower)

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__()
        if params.output_range not in ("fixed", "label"):
            raise BenchError(f"TFN: output_range is 'fixed' or 'label', not '{params.output_range}'")
        self.params, self.label_bound = params, inputs.label_bound
        self.text = TextNet(inputs.text[1], params.text_hidden, params.text_out, params.text_state)
        self.audio = FeatureNet(inputs.audio[1], params.audio_hidden, params.audio_dropout)
        self.vision = FeatureNet(inputs.vision[1], params.vision_hidden, params.vision_dropout)
        widths = {"text": params.text_out, "audio": params.audio_hidden, "vision": params.vision_hidden}
        self.latent_dims = {m: (d + params.include_one,) for m, d in widths.items()}
        fused = (params.audio_hidden + 1) * (params.vision_hidden + 1) * (params.text_out + 1)
        self.post1 = nn.Linear(fused, params.post_fusion)
        self.post2 = nn.Linear(params.post_fusion, params.post_fusion)
        self.post3 = nn.Linear(params.post_fusion, 1)
        self.bound = 3.0 if params.output_range == "fixed" else inputs.label_bound

    def encode(self, batch: Batch) -> Encoded:
        latents = {m: net(batch[m]) for m, net in (("text", self.text), ("audio", self.audio), ("vision", self.vision))}
        return Encoded({m: prepend_one(x) for m, x in latents.items()} if self.params.include_one else latents, {})

    def fuse(self, latents: Latents) -> Output:
        text, audio, vision = (
            latents[m] if self.params.include_one else prepend_one(latents[m]) for m in ("text", "audio", "vision")
        )
        pair = (audio[:, :, None] * vision[:, None]).flatten(1)  # (B, (h_a + 1)(h_v + 1))
        if self.training and not text.is_cuda and not self.store_product:
            features = {}
            x = outer_linear(pair, text, self.post1.weight, self.post1.bias, self.params.post_dropout)
        else:
            fused = (pair[:, :, None] * text[:, None]).flatten(1)  # (B, (h_a + 1)(h_v + 1)(h_t + 1)), text fastest
            features = {"fusion": fused}
            x = self.post1(dropout(fused, self.params.post_dropout, self.training))
        x = self.post3(self.post2(x.relu()).relu()).squeeze(-1)  # (B,)
        return Output(self._bounded(x), features)

    def _bounded(self, x: Tensor) -> Tensor:
        return x.sigmoid() * (2 * self.bound) - self.bound

    def unused_reference_parameters(self) -> Mapping[str, Any]:
        return {"output_range": "a constant, 6", "output_shift": "a constant, -3"}


Model = TFN
