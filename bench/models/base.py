"""The Backbone contract: encode to per-modality latents, fuse latents to a prediction.

Shapes: B batch, T time steps, d feature width. A batch is a dict of tensors already on the device:
    text [B, L, d_t] float    (frozen word features), audio [B, T_a, d_a], vision [B, T_v, d_v]
    audio_lengths, vision_lengths [B] int64, label [B] float, index [B] int64 (row in the split)
    text_bert [B, 3, L] int64 (token ids, attention mask, segment ids; only for models that declare `needs_tokens`)
    label_text, label_audio, label_vision [B] where the dataset has unimodal labels
Models must not branch on tensor values, call .item() or mix in place: a step must be capturable as a CUDA graph and
vmappable over seeds. Each model file defines `VERSION` (a literal int), `Params` (frozen dataclass) and `Model`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

Batch = dict[str, Tensor]
Latents = dict[str, Tensor]  # modality -> [B, ...], in the backbone's order


@dataclass(frozen=True)
class Inputs:
    """What a model may know of the data when it is built."""

    text: tuple[int, int]  # (L, d_t)
    audio: tuple[int, int]  # (T_a, d_a); T_a = 1 after averaging over time
    vision: tuple[int, int]
    label_bound: float = 3.0  # labels lie in [-bound, bound]
    train_size: int = 0  # for models that keep state per training sample
    aligned: bool = False


class Encoded(NamedTuple):
    """latents: what a mixer acts on. side: whatever the model's own auxiliary losses need, of the un-mixed batch."""

    latents: Latents
    side: dict[str, Tensor]


class Output(NamedTuple):
    """prediction [B]; features: named intermediate tensors (for probes, t-SNE, parity tests)."""

    prediction: Tensor
    features: dict[str, Tensor]


@dataclass(frozen=True)
class Group:
    """A named optimiser group. Rates come from the protocol: group_lr[name], else lr; likewise weight decay."""

    name: str
    params: list[nn.Parameter] = field(hash=False)
    decay: bool = True  # False: weight decay is 0 for this group whatever the protocol says


class Backbone(nn.Module):
    """Base class of every backbone and system."""

    time_mean: bool = False  # audio and vision are averaged over time, padding included (M-SENA need_normalized)
    needs_tokens: bool = False  # wants text_bert, not text
    latent_dims: dict[str, tuple[int, ...]]  # modality -> shape of one sample's latent; set by __init__
    label_bound: float

    def encode(self, batch: Batch) -> Encoded:
        """Per-modality latents before late fusion."""
        raise NotImplementedError

    def fuse(self, latents: Latents) -> Output:
        """Prediction [B'] from latents of any batch size B'."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Output:
        return self.fuse(self.encode(batch).latents)

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        """The model's own extra losses, already weighted, of the un-mixed batch. `output` is None on a step that
        trains on mixtures only."""
        return {}

    def groups(self) -> list[Group]:
        """Optimiser groups; parameters left out are never trained. Mixer parameters join the group 'main'."""
        return [Group("main", list(self.parameters()))]

    def on_epoch_start(self, epoch: int) -> None:
        """Called with the epoch number, from 1, before its first batch."""

    def after_backward(self, batch: Batch, encoded: Encoded, output: Output | None) -> None:
        """Called after every backward pass, before the optimiser (gradient modulation, label generation)."""

    def scalars(self) -> dict[str, float]:
        """Numbers worth a column in history.csv, read once per epoch (modulation coefficients and the like)."""
        return {}

    def unused_reference_parameters(self) -> Mapping[str, Any]:
        """Reference state-dict entries that have no counterpart here, with the reason (parity tests)."""
        return {}
