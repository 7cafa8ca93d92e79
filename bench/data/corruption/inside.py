"""Corruption of representations inside a model: noise on U_m, a mean in place of the text encoder's output."""

from collections.abc import Set
from typing import Any

import torch
from torch import Tensor, nn

from bench.data.corruption import noise, text
from bench.data.corruption.spec import Part
from bench.draws import Draws
from bench.errors import BenchError


class Inside:
    """Hooks on a model that act on the batch announced last by `now`; on none, they change nothing.

    A model with a `feature_hook` calls it as u = feature_hook(modality, u) on every U_m [B, ...] (models/base.py). A
    model's `text_encoder` is a TextEncoder, whose output's `last` and `previous` [B, L, d] are changed.
    `noisy`: the modalities whose noise is put here. tokens [N, 3, L]: the training split's word pieces, if the model
    reads any. Raises BenchError where it reads them and neither hook is there.
    """

    def __init__(self, model: nn.Module, kinds: Set[str], modalities: tuple[str, ...], tokens: Tensor | None) -> None:
        self.noisy: tuple[str, ...] = ()
        self._parts: tuple[Part, ...] = ()
        self._draws: Draws | None = None
        self._tokens, self._means = tokens, None
        if "feature_noise" in kinds and hasattr(model, "feature_hook"):
            self.noisy = modalities
            model.feature_hook = self._feature
            kinds = kinds - {"feature_noise"}
        if tokens is None or not kinds & {"feature_noise", "text_mean"}:
            return
        self._encoder = getattr(model, "text_encoder", None)
        if self._encoder is None:
            name = type(model).__name__
            raise BenchError(f"{name} reads word pieces and has no text_encoder for noise or a mean to act on")
        self._encoder_kinds = kinds
        self.noisy = self.noisy or ("text",)
        model.reads_padding = True  # a mean is as long as the text, and noise must not depend on the rest of the batch
        self._encoder.register_forward_hook(self._encoded)

    def now(self, parts: tuple[Part, ...], draws: Draws) -> None:
        """What acts on the next forward passes, and on which samples."""
        self._parts = ()
        if self._tokens is not None and self._means is None and any(p.kind == "text_mean" for p in parts):
            # only now: the kind acts on the test split alone, after the training
            self._means = text.mean_hidden(self._encoder, self._tokens)
        self._parts, self._draws = parts, draws

    def _feature(self, modality: str, u: Tensor) -> Tensor:
        for part in self._parts:
            if part.kind == "feature_noise":
                u = noise.noisy(part, self._draws, modality, u)
        return u

    def _encoded(self, encoder: nn.Module, inputs: tuple[Tensor, ...], hidden: Any) -> Any:
        for part in self._parts:
            if part.kind == "text_mean":
                chosen = (self._draws.samples("text") < part.rate)[:, None, None]  # (B, 1, 1)
                means = {k: (mean.to(hidden.last.dtype), getattr(hidden, k)) for k, mean in self._means.items()}
                hidden = hidden._replace(**{k: torch.where(chosen, *pair) for k, pair in means.items()})
            elif part.kind == "feature_noise" and "feature_noise" in self._encoder_kinds:
                hidden = hidden._replace(
                    last=noise.noisy(part, self._draws, "text", hidden.last),
                    previous=noise.noisy(part, self._draws, "text-previous", hidden.previous),
                )
        return hidden
