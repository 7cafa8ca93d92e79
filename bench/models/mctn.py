"""MCTN: multimodal cyclic translation network (Pham et al., AAAI 2019), as M-SENA runs it.

    J1 = encoder(text); vision' = decoder(J1); text' = decoder(encoder(vision')), the same two networks back again
    J2 = encoder(J1); audio' = decoder(J2);  encoders and decoders: parts/translation.py
    LSTM over J2, attention over time (softmax of tanh(Lin)), Lin -> prediction
    loss: L1 + lambda_translate (MSE of vision', text' and audio')

Audio and vision get zero columns up to the widest modality. The prediction needs the text alone: audio and vision are
what it is translated to, in training.

Fusion only: J2 [B, T, h] is the one latent; no modality has one of its own.

Quirks of M-SENA (docs/quirks.md):
- Its recurrences, decoders and their attention run along the batch, because modules that want time first get batches
  first: a prediction depends on the rest of the batch and on its order. Here they run along time (`along`: "batch").
- The decoder is always fed with the true step before; its first output is zero and counts in the loss.
- Validation loss is the task's alone here; M-SENA adds the translations', for which it reads audio and vision.
- Where a modality is missing, a translation from it or to it is left out for that sample; M-SENA knows no missing ones.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.base import Batch, Encoded, Inputs, Latents, Output
from bench.models.parts.layers import pool_steps
from bench.models.parts.lstm import LSTM
from bench.models.parts.text import Hidden, TextBackbone
from bench.models.parts.translation import Decoder, Encoder, Source
from bench.models.parts.words import one_of

VERSION = 1
MODALITIES = ("text", "audio", "vision")


@dataclass(frozen=True)
class Params:
    """M-SENA's values, CMU-MOSI (it has no others)."""

    encoder: str = "none"  # frozen; "none": the feature file's own text features
    hidden: int = 32  # width of the joint representations, h, hid_dim
    steps: int = 50  # steps that sequences are cut to, max_seq_len
    lambda_translate: float = 0.1  # weight of the translations' losses
    along: str = "time"  # recurrences run along "time", or along the "batch" (M-SENA)

    def __post_init__(self) -> None:
        one_of("mctn", "along", self.along, ("time", "batch"))


class Model(TextBackbone):
    """MCTN. Prediction [B], linear."""

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params.encoder, False, inputs)
        self.params, h = params, params.hidden
        self.length, self.steps = inputs.text[0], min(params.steps, inputs.text[0])
        self.width = max(self.text_width, inputs.audio[1], inputs.vision[1])
        self.encoder1, self.decoder1 = Encoder(self.width, h), Decoder(h, self.width)
        self.encoder2, self.decoder2 = Encoder(h, h), Decoder(h, self.width)
        self.lstm, self.attention, self.out = LSTM(h, h), nn.Linear(h, 1), nn.Linear(h, 1)
        self.latent_dims = {"fusion": (self.steps, h)}

    def _turn(self, x: Tensor) -> Tensor:
        """Sequences along the axis that the recurrences take: [B, T, .] as it is, or as [T, B, .]; its own inverse."""
        return x.transpose(0, 1) if self.params.along == "batch" else x

    def padded(self, x: Tensor) -> Tensor:
        """[B, T', d] -> [B, T, D]: at the text's length, cut, with zero columns."""
        return F.pad(pool_steps(x, self.length)[:, : self.steps], (0, self.width - x.shape[2]))

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        first = self.encoder1(self._turn(self.padded(hidden.last)))
        second = self.encoder2(first.states)
        side = {"text": hidden.last, "joint": self._turn(first.states), "start1": first.start, "start2": second.start}
        return Encoded({"fusion": self._turn(second.states)}, side)

    def fuse(self, latents: Latents) -> Output:
        states = self._turn(self.lstm.all_states(self._turn(latents["fusion"])))  # (B, T, h)
        weights = self.attention(states).tanh().softmax(1)  # (B, T, 1)
        pooled = (weights * states).sum(1)
        return Output(self.out(pooled).squeeze(1), {"pooled": pooled})

    def translate(self, batch: Batch, encoded: Encoded) -> Latents:
        """vision', text' and audio', each beside what it should be: "vision" and "true_vision" [B, T, D], and so on."""
        side, found = encoded.side, {}
        true = {m: self.padded(side["text"] if m == "text" else batch[m]) for m in MODALITIES}
        first, second = (Source(self._turn(x), side[f"start{i}"]) for i, x in ((1, side["joint"]), (2, encoded.latents["fusion"])))
        found["vision"] = self.decoder1(first, self._turn(true["vision"]))
        found["text"] = self.decoder1(self.encoder1(found["vision"]), self._turn(true["text"]))
        found["audio"] = self.decoder2(second, self._turn(true["audio"]))
        return {m: self._turn(x) for m, x in found.items()} | {f"true_{m}": x for m, x in true.items()}

    def terms(self, batch: Batch, translated: Latents) -> dict[str, Tensor]:
        """MSE of each translation, unweighted, over the samples that have both of its ends."""
        found = {}
        for m in MODALITIES:
            error = (translated[m] - translated[f"true_{m}"]).square().mean((1, 2))  # (B,)
            ends = [batch[f"keep_{k}"] for k in ("text", "vision" if m == "text" else m) if f"keep_{k}" in batch]
            weight = torch.stack(ends).all(0).to(error.dtype) if ends else torch.ones_like(error)
            found[m] = (error * weight).sum() / weight.sum().clamp(min=1)
        return found

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        terms = self.terms(batch, self.translate(batch, encoded))
        return {f"translate_{m}": self.params.lambda_translate * v for m, v in terms.items()}
