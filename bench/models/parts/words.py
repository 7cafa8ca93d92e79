"""What the word-level models share (the ITHP family): one row of audio and vision per word piece.

    features   a word's row is repeated for each of its pieces; the rows of [CLS], [SEP] and padding are zero
    scaling    MinMax, of a whole batch tensor
    text       last hidden states T of the encoder
    readout    LayerNorm, dropout, pool, Lin + tanh, dropout, Lin -> prediction
    decay      of weight matrices alone, not of biases and LayerNorms

`attend_padding`: ITHP feeds ids without the attention mask, so that pieces attend to padding.
"""

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.models.base import Batch, Encoded, Group, Inputs
from bench.models.parts.text import BIAS_AND_NORM, TextBackbone

POOLS = ("mean", "first")
RANGES = ("batch", "train")


def one_of(model: str, name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises BenchError if a parameter has none of the values it may have."""
    if value not in allowed:
        raise BenchError(f"{model}: {name} must be one of {', '.join(map(repr, allowed))}, not '{value}'")


class MinMax(nn.Module):
    """Scale x [B, L, d] to [0, 1] with the least and the greatest entry, padding zeros included.

    "batch": of the batch at hand, in evaluation too, so that a prediction depends on the batch it is made in.
    "train": of all that was seen in training so far (after one epoch the training split); evaluation may leave [0, 1].
    """

    low: Tensor
    high: Tensor

    def __init__(self, over: str = "batch") -> None:
        super().__init__()
        self.over = over
        if over == "train":
            self.register_buffer("low", torch.tensor(torch.inf))
            self.register_buffer("high", torch.tensor(-torch.inf))

    def forward(self, x: Tensor) -> Tensor:
        low, high = x.amin(), x.amax()
        if self.over == "train":
            if self.training:
                self.low.copy_(torch.minimum(self.low, low))
                self.high.copy_(torch.maximum(self.high, high))
            seen = self.low <= self.high
            low, high = torch.where(seen, self.low, low), torch.where(seen, self.high, high)
        return (x - low) / (high - low).clamp(min=torch.finfo(x.dtype).tiny)


class Readout(nn.Module):
    """Fused sequence [B, L, d] -> score [B].

    "first" pools the first position, [CLS] (ITHP); "mean" averages the positions that `mask` [B, L] keeps.
    """

    def __init__(self, d: int, pool: str, dropout: float, pooler_dropout: float) -> None:
        super().__init__()
        self.pool = pool
        self.norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(dropout)
        self.pooler = nn.Linear(d, d)
        self.pooler_dropout = nn.Dropout(pooler_dropout)
        self.score = nn.Linear(d, 1)

    def forward(self, h: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Score [B] and the pooled vector [B, d] before its dropout."""
        h = self.dropout(self.norm(h))
        pooled = self.pooler(h[:, 0] if self.pool == "first" else masked_mean(h, mask)).tanh()  # (B, d)
        return self.score(self.pooler_dropout(pooled)).squeeze(1), pooled


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x [B, L, d] over the positions where mask [B, L] is not 0; 0 where there is none."""
    mask = mask.to(x.dtype)[..., None]
    return (x * mask).sum(1) / mask.sum(1).clamp(min=1)


def filled(text: Tensor) -> Tensor:
    """Positions [B, L] of a text latent [B, L, d] that are not padding: padding is zero, in any mixture of two too."""
    return text.ne(0).any(-1)


def initialise(*modules: nn.Module) -> None:
    """Linear layers to normal(0, 0.02) with zero bias, as BERT's own."""
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)


class WordBackbone(TextBackbone):
    """Base of the models of word-level features. `steps`: L, the word pieces of a sample.

    Raises BenchError if audio and vision have not the text's number of steps.
    """

    needs_words = True

    def __init__(self, name: str, encoder: str, finetune: bool, attend_padding: bool, inputs: Inputs) -> None:
        steps = {inputs.text[0], inputs.audio[0], inputs.vision[0]}
        if len(steps) > 1:
            raise BenchError(
                f"{name}: needs one row of audio and vision per word piece (word-level or aligned features), but text, "
                f"audio and vision have {inputs.text[0]}, {inputs.audio[0]} and {inputs.vision[0]} steps"
            )
        super().__init__(encoder, finetune, inputs)
        self.steps = steps.pop()
        self.attend_padding = attend_padding

    def encode(self, batch: Batch) -> Encoded:
        if self.text_encoder is None or not self.attend_padding:
            return super().encode(batch)
        ids, mask, segments = batch["text_bert"].unbind(1)  # (B, L) each
        hidden = self.text_encoder(torch.stack([ids, torch.ones_like(mask), segments], 1))
        return self.encode_hidden(hidden._replace(mask=mask.float()), batch)

    def groups(self) -> list[Group]:
        own = [p for _, p in self.own_named_parameters()]
        return [
            *self.encoder_groups(BIAS_AND_NORM),
            Group("main", [p for p in own if p.ndim > 1]),
            Group("main-no-decay", [p for p in own if p.ndim <= 1], decay=False),
        ]
