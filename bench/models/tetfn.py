"""TETFN: text-enhanced transformer fusion network (Wang et al., Pattern Recognition 2023), as M-SENA runs it.

    text: all encoder states, audio and vision: an LSTM over all steps; each -> convolution -> [B, T, d]
    text  <- audio, text <- vision;  audio <- text;  vision <- text      cross-modal encoders, no positions
    audio <- vision: c = encoder(query vision, source text), then encoder(query audio, source c); vision <- audio
    likewise                                                             text-enhanced, with positions
    per target the two results side by side -> memory encoder -> its last step [B, 2d]; fusion head

Unimodal heads act on the maximum over time of the convolved sequences, trained on labels that Self-MM's generator
makes (models/parts/label_memory.py).

Latents: the three vectors [B, 2d] before concatenation. Mixing touches the fusion task alone, as in Self-MM.

Quirks kept (docs/quirks.md): the audio's kernel size serves vision too; the last step is read although it is padding
for most rows; H = 3 on SIMS, whose labels lie in [-1, 1] (`bound`). Audio and vision of another length than the text's
are averaged to it first.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.models.base import Batch, Encoded, Group, Inputs, Latents, Output
from bench.models.parts.heads import Head
from bench.models.parts.label_memory import FUSION, LabelMemory
from bench.models.parts.layers import Convolution, pool_steps
from bench.models.parts.lstm import LSTM
from bench.models.parts.text import BIAS_AND_NORM, Hidden, TextBackbone
from bench.models.parts.towers import Fold, Towers

VERSION = 1
IDLE = {"heads": "unimodal labels leave the task's once a clip was seen in the second epoch"}
MODALITIES = ("text", "audio", "vision")
PLAIN = (("text", "audio"), ("text", "vision"), ("audio", "text"), ("vision", "text"))  # target <- source
OTHER = {"audio": "vision", "vision": "audio"}  # of the text-enhanced encoders


@dataclass(frozen=True)
class Params:
    """M-SENA's values for MOSI."""

    encoder: str = "bert-base-uncased"
    finetune: bool = True
    width: int = 50  # width of the convolved sequences, d, dst_feature_dims
    heads: int = 5  # attention heads, nheads
    layers: int = 2  # of every encoder but the first of a text-enhanced pair, which has one
    audio_hidden: int = 16  # hidden width of the audio's LSTM
    vision_hidden: int = 64  # hidden width of the vision's LSTM
    text_kernel: int = 1  # kernel size of the text's convolution, conv1d_kernel_size_l
    audio_kernel: int = 1  # kernel size of audio's and vision's convolutions, conv1d_kernel_size_a
    attention_dropout_text: float = 0.1  # dropout of attention weights: source text, text-enhanced, memory; attn_dropout
    attention_dropout_audio: float = 0.0  # dropout of attention weights: source audio, attn_dropout_a
    attention_dropout_vision: float = 0.1  # dropout of attention weights: source vision, attn_dropout_v
    relu_dropout: float = 0.0
    embed_dropout: float = 0.0
    residual_dropout: float = 0.1  # dropout before a residual sum, res_dropout
    post_fusion_dim: int = 64  # of the fused representation that its head and the label generation read
    post_text_dim: int = 32  # of the text representation that its head and the label generation read
    post_audio_dim: int = 32  # of the audio representation that its head and the label generation read
    post_vision_dim: int = 16  # of the vision representation that its head and the label generation read
    post_fusion_dropout: float = 0.0  # before the fused representation
    post_text_dropout: float = 0.0  # before the text representation
    post_audio_dropout: float = 0.0  # before the audio representation
    post_vision_dropout: float = 0.0  # before the vision representation
    bound: float = 3.0  # H, of the generated labels; 0: the data's label bound
    exclude_zero: bool = True  # a generated label of 0 belongs to neither centre


class Recurrent(nn.Module):
    """LSTM over all steps, then a convolution: [B, T, d_m] -> [B, T - k + 1, d]."""

    def __init__(self, width: int, hidden: int, out: int, kernel: int) -> None:
        super().__init__()
        self.lstm = LSTM(width, hidden)
        self.convolution = Convolution(hidden, out, kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(self.lstm.all_states(x))


class Model(TextBackbone):
    """TETFN. Prediction [B], linear. Raises BenchError for a width that the heads do not divide and for texts shorter
    than a convolution's kernel."""

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params.encoder, params.finetune, inputs)
        p, d = params, params.width
        if d % p.heads:
            raise BenchError(f"tetfn: width {d} is not a multiple of {p.heads} heads")
        self.length = inputs.text[0]
        steps = {m: self.length - (p.text_kernel if m == "text" else p.audio_kernel) + 1 for m in MODALITIES}
        if min(steps.values()) < 1:
            raise BenchError(f"tetfn: {self.length} time steps are fewer than a convolution's kernel")
        self.text_convolution = Convolution(self.text_width, d, p.text_kernel)
        self.audio_encoder = Recurrent(inputs.audio[1], p.audio_hidden, d, p.audio_kernel)
        self.vision_encoder = Recurrent(inputs.vision[1], p.vision_hidden, d, p.audio_kernel)

        rates = {m: getattr(p, f"attention_dropout_{m}") for m in MODALITIES}
        dropouts = {k: getattr(p, k) for k in ("embed_dropout", "relu_dropout", "residual_dropout")}

        def fold(pairs: list[tuple[str, str]], rate: list[float], first: int = 0) -> Fold:
            queries, keys = zip(*pairs)
            at = range(first, first + len(pairs))
            return Fold(at, [steps[m] for m in queries], [steps[m] for m in keys], rate, causal=True)

        self.cross = Towers(4, d, p.heads, p.layers, **dropouts)
        self.cross_folds = nn.ModuleList(
            fold(list(PLAIN[i : i + 2]), [rates[s] for _, s in PLAIN[i : i + 2]], i) for i in (0, 2)
        )
        longest, text_rate = max(steps.values()), [rates["text"]] * 2
        self.lower = Towers(2, d, p.heads, 1, **dropouts, positions=longest)
        self.upper = Towers(2, d, p.heads, p.layers, **dropouts, positions=longest)
        self.lower_fold = fold([("vision", "text"), ("audio", "text")], text_rate)
        self.upper_fold = fold([("audio", "vision"), ("vision", "audio")], text_rate)
        self.memory_towers = Towers(3, 2 * d, p.heads, p.layers, **dropouts)
        self.memory_folds = nn.ModuleList([
            fold([("text", "text")], text_rate[:1]), fold([("audio", "audio"), ("vision", "vision")], text_rate, 1),
        ])
        self.last = {m: t - 1 for m, t in steps.items()}

        self.latent_dims = {m: (2 * d,) for m in MODALITIES}
        self.fusion = Head(6 * d, p.post_fusion_dim, p.post_fusion_dropout)
        post = {m: (getattr(p, f"post_{m}_dim"), getattr(p, f"post_{m}_dropout")) for m in MODALITIES}
        self.heads = nn.ModuleDict({m: Head(d, *post[m]) for m in MODALITIES})
        dims = {FUSION: p.post_fusion_dim} | {m: post[m][0] for m in MODALITIES}
        self.memory = LabelMemory(inputs.train_size, dims, p.bound or inputs.label_bound, p.exclude_zero)

    def project(self, hidden: Hidden, batch: Batch) -> Latents:
        """Convolved sequences, modality -> [B, T_m, d]."""
        found = {"text": self.text_convolution(hidden.last)}
        for m, encoder in (("audio", self.audio_encoder), ("vision", self.vision_encoder)):
            found[m] = encoder(pool_steps(batch[m], self.length))
        return found

    def cross_modal(self, x: Latents) -> dict[tuple[str, str], Tensor]:
        """(target, source) -> [B, T_target, d], of sequences modality -> [B, T_m, d]."""
        found = {}
        for fold in self.cross_folds:
            pairs = [PLAIN[i] for i in fold.towers]
            y = self.cross(torch.stack([x[t] for t, _ in pairs]), fold, torch.stack([x[s] for _, s in pairs]))
            found.update(zip(pairs, y.unbind(0), strict=True))
        c = self.lower(torch.stack([x["vision"], x["audio"]]), self.lower_fold, torch.stack([x["text"]] * 2))
        y = self.upper(torch.stack([x["audio"], x["vision"]]), self.upper_fold, c)
        return found | {("audio", "vision"): y[0], ("vision", "audio"): y[1]}

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        sequences = self.project(hidden, batch)
        crossed = self.cross_modal(sequences)
        latents = {}
        for fold in self.memory_folds:
            names = [MODALITIES[i] for i in fold.towers]
            first = {m: "audio" if m == "text" else "text" for m in names}
            second = {m: OTHER.get(m, "vision") for m in names}
            x = torch.stack([torch.cat([crossed[m, first[m]], crossed[m, second[m]]], -1) for m in names])
            last = torch.stack([torch.full_like(x[0, :, 0, 0], self.last[m], dtype=torch.int64) for m in names])
            latents.update(zip(names, self.memory_towers(x, fold, last=last).unbind(0), strict=True))
        side = {}
        for m in MODALITIES:
            side[f"pooled_{m}"] = sequences[m].amax(1)  # (B, d)
            side[f"prediction_{m}"], side[f"feature_{m}"] = self.heads[m](side[f"pooled_{m}"])
        return Encoded({m: latents[m] for m in MODALITIES}, side)

    @staticmethod
    def _joint(latents: Latents) -> Tensor:
        return torch.cat([latents[m] for m in MODALITIES], 1)  # (B, 6d)

    def fuse(self, latents: Latents) -> Output:
        prediction, feature = self.fusion(self._joint(latents))
        return Output(prediction, {"fusion": feature})

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        """Unimodal terms on generated labels; exactly 0 in epoch 1, where they are the multimodal ones."""
        predictions = {m: encoded.side[f"prediction_{m}"] for m in MODALITIES}
        return {f"uni_{m}": v for m, v in self.memory.losses(batch["index"], batch["label"], predictions).items()}

    def on_epoch_start(self, epoch: int) -> None:
        self.memory.start_epoch(epoch)

    @torch.no_grad()
    def after_backward(self, batch: Batch, encoded: Encoded, output: Output | None) -> None:
        features = {m: encoded.side[f"feature_{m}"] for m in MODALITIES}
        features[FUSION] = output.features["fusion"] if output else self.fusion.feature(self._joint(encoded.latents))
        self.memory.update(batch["index"], batch["label"], features)

    def groups(self) -> list[Group]:
        named = self.own_named_parameters()
        apart = {"audio": "audio_encoder.", "vision": "vision_encoder."}
        groups = [Group(g, [p for n, p in named if n.startswith(prefix)]) for g, prefix in apart.items()]
        rest = [p for n, p in named if not n.startswith(tuple(apart.values()))]
        return [*self.encoder_groups(BIAS_AND_NORM), *groups, Group("main", rest)]
