"""Self-MM: self-supervised multi-task learning with generated unimodal labels (Yu et al., 2021), as M-SENA runs it.

Text is the encoder's CLS state, audio and vision the last state of an LSTM; their concatenation feeds the fusion head,
and each modality has a head of its own, trained on labels that models/parts/label_memory.py generates.

Latents: the three vectors before concatenation (PowMix Sec. 4: "integrated before concatenation").

Choices:
- Mixing touches the fusion task alone: unimodal heads, label generation and its features see the un-mixed latents.
  On a step that trains on mixtures only, the fusion feature of the clean rows is computed without gradient.
- Mixing starts in epoch 2 on MOSI, 3 on MOSEI and SIMS (PowMix Sec. 5.5); that is the mixer's `start_epoch`.
- The clamp H of the generated labels is the data's label bound (3; SIMS 1).
- Aligned data have no lengths of their own: audio and vision are read up to the text's length.
- Groups: encoder (decay spares biases and LayerNorms), audio, vision, and everything else in "main".
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.models.base import Batch, Encoded, Group, Inputs, Latents, Output
from bench.models.parts.heads import Head
from bench.models.parts.label_memory import FUSION, LabelMemory
from bench.models.parts.lstm import LSTM
from bench.models.parts.padded import last_step
from bench.models.parts.text import BIAS_AND_NORM, Hidden, TextBackbone

VERSION = 2
IDLE = {"heads": "unimodal labels leave the task's once a clip was seen in the second epoch"}

MODALITIES = ("text", "audio", "vision")


@dataclass(frozen=True)
class Params:
    """Defaults: M-SENA, MOSI."""

    encoder: str = "bert-base-uncased"
    finetune: bool = True
    audio_hidden: int = 16  # hidden width of the audio's LSTM
    vision_hidden: int = 32  # hidden width of the vision's LSTM
    audio_out: int = 16  # latent width; text's is the encoder's
    vision_out: int = 32  # of the vision latent
    audio_dropout: float = 0.0  # after the LSTM
    vision_dropout: float = 0.0  # after the LSTM
    post_fusion_dim: int = 128  # of the fused representation that its head and the label generation read
    post_text_dim: int = 32  # of the text representation that its head and the label generation read
    post_audio_dim: int = 16  # of the audio representation that its head and the label generation read
    post_vision_dim: int = 32  # of the vision representation that its head and the label generation read
    post_fusion_dropout: float = 0.0  # before the fused representation
    post_text_dropout: float = 0.1  # before the text representation
    post_audio_dropout: float = 0.1  # before the audio representation
    post_vision_dropout: float = 0.0  # before the vision representation
    exclude_zero: bool = True  # a generated label of 0 belongs to neither centre


class Recurrent(nn.Module):
    """One LSTM layer read at the last valid step, dropout, linear: [B, T, d] -> [B, out]."""

    def __init__(self, d: int, hidden: int, out: int, dropout: float) -> None:
        super().__init__()
        self.lstm = LSTM(d, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, out)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        steps = self.lstm.all_states(x)  # (B, T, hidden)
        return self.out(self.dropout(last_step(steps, lengths.clamp(1, x.shape[1]))))


class Model(TextBackbone):
    """Self-MM. Prediction [B], linear. `inputs.train_size` rows of labels are kept; batch["index"] names them."""

    reads_padding = False  # of the text only CLS is read

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params.encoder, params.finetune, inputs)
        p = params
        self.aligned = inputs.aligned
        self.audio_encoder = Recurrent(inputs.audio[1], p.audio_hidden, p.audio_out, p.audio_dropout)
        self.vision_encoder = Recurrent(inputs.vision[1], p.vision_hidden, p.vision_out, p.vision_dropout)
        widths = {"text": self.text_width, "audio": p.audio_out, "vision": p.vision_out}
        self.latent_dims = {m: (d,) for m, d in widths.items()}
        self.fusion = Head(sum(widths.values()), p.post_fusion_dim, p.post_fusion_dropout)
        post = {
            "text": (p.post_text_dim, p.post_text_dropout),
            "audio": (p.post_audio_dim, p.post_audio_dropout),
            "vision": (p.post_vision_dim, p.post_vision_dropout),
        }
        self.heads = nn.ModuleDict({m: Head(widths[m], *post[m]) for m in MODALITIES})
        dims = {FUSION: p.post_fusion_dim} | {m: post[m][0] for m in MODALITIES}
        self.memory = LabelMemory(inputs.train_size, dims, inputs.label_bound, p.exclude_zero)

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        if self.aligned:
            lengths = dict.fromkeys(("audio", "vision"), hidden.mask.sum(1).round().long())
        else:
            lengths = {m: batch[f"{m}_lengths"] for m in ("audio", "vision")}
        latents = {
            "text": hidden.last[:, 0],  # CLS, (B, d_t)
            "audio": self.audio_encoder(batch["audio"], lengths["audio"]),
            "vision": self.vision_encoder(batch["vision"], lengths["vision"]),
        }
        side = {}
        for m in MODALITIES:
            side[f"prediction_{m}"], side[f"feature_{m}"] = self.heads[m](latents[m])
        return Encoded(latents, side)

    @staticmethod
    def _joint(latents: Latents) -> Tensor:
        return torch.cat([latents[m] for m in MODALITIES], 1)

    def fuse(self, latents: Latents) -> Output:
        prediction, feature = self.fusion(self._joint(latents))
        return Output(prediction, {"fusion": feature})

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        """Unimodal terms: mean of tanh|y_s - y_m| |prediction - y_s|; exactly 0 in epoch 1, where y_s = y_m."""
        predictions = {m: encoded.side[f"prediction_{m}"] for m in MODALITIES}
        return {f"uni_{m}": v for m, v in self.memory.losses(batch["index"], batch["label"], predictions).items()}

    def on_epoch_start(self, epoch: int) -> None:
        self.memory.start_epoch(epoch)

    @torch.no_grad()
    def after_backward(self, batch: Batch, encoded: Encoded, output: Output | None) -> None:
        features = {m: encoded.side[f"feature_{m}"] for m in MODALITIES}
        clean = output.features["fusion"] if output else self.fusion.feature(self._joint(encoded.latents))
        features[FUSION] = clean
        self.memory.update(batch["index"], batch["label"], features)

    def groups(self) -> list[Group]:
        named = self.own_named_parameters()
        apart = {"audio": "audio_encoder.", "vision": "vision_encoder."}
        groups = [Group(g, [p for n, p in named if n.startswith(prefix)]) for g, prefix in apart.items()]
        rest = [p for n, p in named if not n.startswith(tuple(apart.values()))]
        return [*self.encoder_groups(BIAS_AND_NORM), *groups, Group("main", rest)]
