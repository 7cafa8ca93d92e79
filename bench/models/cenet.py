"""CENet: cross-modal enhancement inside a BERT-like text encoder (Wang et al., IEEE TMM 2022), as M-SENA runs it.

    h [B, L, d], the text after encoder layer `injection` - 1, is shifted by what each of its tokens finds in the other
    modalities: h <- h + Lin(concat(attend(h, V), attend(h, A))),
    attend(h, X) = softmax(8 W_q h (W_k X)^T) W_v X over all frames,  X = Lin(ReLU(Lin(x)))
    [CLS] of the last layer -> dropout, Lin tanh, dropout, Lin -> prediction

The modalities meet inside the encoder, so there is no latent before late fusion; the only one is the [CLS] vector
before the head, "fusion" [B, d].

Quirks kept (docs/quirks.md), each with a switch: scores are multiplied by 8 and not divided by sqrt(d) (`scale`);
padded frames take part (`mask_frames`); the encoder's embeddings stay at their pretrained values
(`train_embeddings`). New linear layers start at normal(0, 0.02) with zero bias.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import encoders
from bench.errors import BenchError
from bench.models.base import Batch, Encoded, Group, Inputs, Latents, Output
from bench.models.parts.padded import step_mask
from bench.models.parts.text import BIAS_AND_NORM, Hidden, TextBackbone
from bench.models.parts.words import initialise

VERSION = 1
MIXABLE = False


@dataclass(frozen=True)
class Params:
    """M-SENA's values."""

    encoder: str = "bert-base-uncased"
    injection: int = 1  # encoder layer whose input is enhanced, injection_index
    scale: float = 8.0  # factor of the attention scores; 0: 1 / sqrt(d)
    mask_frames: bool = False  # attend to a clip's own frames alone
    train_embeddings: bool = False  # train the text encoder's embeddings too
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.encoder == encoders.NONE:
            raise BenchError("cenet: the enhancement sits inside the text encoder, so encoder cannot be 'none'")


class CrossAttention(nn.Module):
    """Tokens h [B, L, d] read frames x [B, T, d]; one head, mask [B, T] bool of the frames that count, or None."""

    def __init__(self, d: int, scale: float) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(d, d) for _ in range(3))
        self.scale = scale or d**-0.5

    def forward(self, h: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        scores = self.scale * self.query(h) @ self.key(x).transpose(1, 2)  # (B, L, T)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
        return scores.softmax(-1) @ self.value(x)


class Enhancement(nn.Module):
    """The CE block: h [B, L, d] -> h + shift."""

    def __init__(self, d: int, d_audio: int, d_vision: int, scale: float) -> None:
        super().__init__()
        widths = {"audio": d_audio, "vision": d_vision}
        self.transform = nn.ModuleDict({
            m: nn.Sequential(nn.Linear(w, d), nn.ReLU(), nn.Linear(d, d)) for m, w in widths.items()
        })
        self.attend = nn.ModuleDict({m: CrossAttention(d, scale) for m in widths})
        self.shift = nn.Linear(2 * d, d)

    def forward(self, h: Tensor, streams: dict[str, Tensor], masks: dict[str, Tensor | None]) -> Tensor:
        found = [self.attend[m](h, self.transform[m](streams[m]), masks[m]) for m in ("vision", "audio")]
        return h + self.shift(torch.cat(found, -1))


class Model(TextBackbone):
    """CENet. Prediction [B], linear. Raises BenchError if the encoder has no layer `injection`."""

    reads_padding = False  # of the text only CLS is read

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params.encoder, True, inputs)
        d, transformer = self.text_width, self.text_encoder.transformer
        layers = transformer.encoder.layer
        if not 1 <= params.injection < len(layers):
            raise BenchError(f"cenet: injection must be 1 to {len(layers) - 1} with encoder '{params.encoder}'")
        self.mask_frames = params.mask_frames
        self.enhance = Enhancement(d, inputs.audio[1], inputs.vision[1], params.scale)
        self.dense, self.score = nn.Linear(d, d), nn.Linear(d, 1)
        self.dropout = params.dropout
        initialise(self.enhance, self.dense, self.score)
        transformer.embeddings.requires_grad_(params.train_embeddings)
        self.latent_dims = {"fusion": (d,)}
        self._batch: Batch | None = None  # the batch that is being encoded
        layers[params.injection - 1].register_forward_hook(self._enhance)

    def _enhance(self, module: nn.Module, args: object, h: Tensor | tuple[Tensor, ...]) -> object:
        if self._batch is None:
            return h
        streams = {m: self._batch[m] for m in ("audio", "vision")}
        masks = {m: self._frames(m) if self.mask_frames else None for m in streams}
        if isinstance(h, tuple):  # transformers 4
            return (self.enhance(h[0], streams, masks), *h[1:])
        return self.enhance(h, streams, masks)

    def _frames(self, modality: str) -> Tensor:
        return step_mask(self._batch[modality], self._batch[f"{modality}_lengths"].clamp(min=1))[..., 0].bool()

    def encode(self, batch: Batch) -> Encoded:
        self._batch = batch
        try:
            return super().encode(batch)
        finally:
            self._batch = None

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        return Encoded({"fusion": hidden.last[:, 0]}, {})

    def fuse(self, latents: Latents) -> Output:
        x = F.dropout(latents["fusion"], self.dropout, self.training)  # (B, d)
        x = F.dropout(self.dense(x).tanh(), self.dropout, self.training)
        return Output(self.score(x).squeeze(1), {"fusion": latents["fusion"]})

    def groups(self) -> list[Group]:
        """Weight decay spares biases and norms, but for those of the enhancement."""
        head = [*self.dense.named_parameters(), *self.score.named_parameters()]
        return [
            *self.encoder_groups(BIAS_AND_NORM),
            Group("main", [*self.enhance.parameters(), *(p for n, p in head if n != "bias")]),
            Group("main-no-decay", [p for n, p in head if n == "bias"], decay=False),
        ]

    def unused_reference_parameters(self) -> dict[str, str]:
        return {
            "bert.pooler": "computed, not read",
            **{f"bert.embeddings.{k}_embeddings": "ids that are never given" for k in ("senti", "pos_tag", "polarity")},
        }
