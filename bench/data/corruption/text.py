"""What corruptions need to know of text: its lengths, the [MASK] of an encoder, its mean representation."""

import numpy as np
import torch
from torch import Tensor, nn

from bench import encoders

_BERT_MASK = 103  # [MASK] in the vocabularies of bert-base-uncased and bert-base-chinese


def lengths(tokens: np.ndarray | None, features: np.ndarray | None) -> np.ndarray:
    """Steps of each text [N] int64, at least 1: ones of the attention mask of word pieces [N, 3, L]; without them, up
    to the last step of the features [N, L, d] that is not zero."""
    if tokens is not None:
        steps = tokens[:, 1].sum(-1)
    else:
        steps = (features.any(-1) * np.arange(1, features.shape[1] + 1)).max(-1)
    return np.maximum(steps, 1).astype(np.int64)


def mask_token(encoder: str) -> int:
    """Id of the [MASK] of a text encoder, by its name."""
    if encoders.spec(encoder).vocabulary in ("any", "bert-base-uncased", "bert-base-chinese"):
        return _BERT_MASK
    return int(encoders.tokenizer(encoder).mask_token_id)


def mean_features(features: Tensor, rows: int = 512) -> Tensor:
    """Mean [L, d] of text features [N, L, d] over the samples."""
    total = sum(chunk.sum(0, dtype=torch.float64) for chunk in features.split(rows))
    return (total / len(features)).to(features.dtype)


@torch.no_grad()
def mean_hidden(encoder: nn.Module, tokens: Tensor, rows: int = 128) -> dict[str, Tensor]:
    """Means [L, d] of an encoder's hidden states "last" and "previous" over samples' word pieces [N, 3, L], each step
    over the samples that reach it (0 where none does), in evaluation mode."""
    training = encoder.training
    encoder.eval()
    totals, count = {"last": 0.0, "previous": 0.0}, 0.0
    for chunk in tokens.split(rows):
        hidden, mask = encoder(chunk), chunk[:, 1, :, None].double()  # mask (B, L, 1)
        totals = {k: total + (getattr(hidden, k).double() * mask).sum(0) for k, total in totals.items()}
        count = count + mask.sum(0)
    encoder.train(training)
    return {k: (total / count.clamp(min=1)).float() for k, total in totals.items()}
