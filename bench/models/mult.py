"""MulT: multimodal transformer (Tsai et al., ACL 2019), as M-SENA runs it.

A convolution per modality, six cross-modal encoders (target <- source), three "memory" encoders over the two results
of each target, and the last step of each: latents text, audio, vision, [B, 2d] each, fused by a residual head.

Readings and quirks kept (docs/quirks.md), each with a switch: no positions (`position` adds the official sinusoid to
all nine encoders); the last step is read although it is padding for most rows (`last_step` = "valid" reads the last
step whose window lies in the clip; aligned data have one length for all three modalities, and in unaligned data the
text is taken to end at its last non-zero feature). The attention dropout of a cross-modal encoder goes by its source;
the memory encoders use the text's. The reference takes the softmax in float32 even in double precision; here it is
taken in the model's.

The six towers, and the three memories, are one computation as far as their lengths allow (`_plan`); a memory encoder's
last layer computes only the step that is read (towers.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.base import Backbone, Batch, Encoded, Inputs, Latents, Output
from bench.models.parts.layers import Convolution, dropout, filled_steps
from bench.models.parts.towers import Fold, Towers

VERSION = 1
MODALITIES = ("text", "audio", "vision")
TOWERS = tuple((target, source) for target in MODALITIES for source in MODALITIES if source != target)  # l<-a, l<-v..


@dataclass(frozen=True)
class Params:
    """M-SENA's values for MOSI."""

    width: int = 50  # width of the convolved sequences, d, dst_feature_dim
    heads: int = 10  # attention heads, nheads
    levels: int = 4  # layers of a cross-modal encoder, nlevels; a memory encoder has max(levels, 3)
    text_kernel: int = 5  # kernel size of the text's convolution, conv1d_kernel_size_l
    audio_kernel: int = 5  # kernel size of the audio's convolution, conv1d_kernel_size_a
    vision_kernel: int = 5  # kernel size of the vision's convolution, conv1d_kernel_size_v
    attention_dropout_text: float = 0.3  # dropout of attention weights: source text, memory encoders; attn_dropout
    attention_dropout_audio: float = 0.2  # dropout of attention weights: source audio, attn_dropout_a
    attention_dropout_vision: float = 0.0  # dropout of attention weights: source vision, attn_dropout_v
    relu_dropout: float = 0.0  # dropout inside the feed-forward part
    embed_dropout: float = 0.2  # dropout of a transformer's input
    residual_dropout: float = 0.0  # dropout before a residual sum, res_dropout
    output_dropout: float = 0.5  # dropout in the head
    text_dropout: float = 0.5  # dropout of the text's input features
    causal: bool = True  # attention is causal, attn_mask
    position: bool = False  # sinusoidal positions (official code; M-SENA has none)
    last_step: str = "padded"  # "padded": the step of index -1 is read (M-SENA); "valid": the last one of the clip


class MulT(Backbone):
    """Convolutions, cross-modal towers, memory towers, residual head.

    `fold=False` runs every tower alone; it changes speed only. Raises BenchError for a width that the heads do not
    divide, and for a modality with fewer steps than its convolution's kernel.
    """

    def __init__(self, params: Params, inputs: Inputs, fold: bool = True) -> None:
        super().__init__()
        self.params, self.aligned, self.label_bound = params, inputs.aligned, inputs.label_bound
        d = params.width
        if d % params.heads:
            raise BenchError(f"MulT: width {d} is not a multiple of {params.heads} heads")
        if params.last_step not in ("padded", "valid"):
            raise BenchError(f"MulT: last_step is 'padded' or 'valid', not '{params.last_step}'")
        shapes = {m: getattr(inputs, m) for m in MODALITIES}
        # a modality that already has width d is not convolved
        self.kernels = {m: getattr(params, f"{m}_kernel") if w != d else 1 for m, (_, w) in shapes.items()}
        for m, (steps, _) in shapes.items():
            if steps < self.kernels[m]:
                raise BenchError(
                    f"MulT: {m} has {steps} time step(s), fewer than its convolution's kernel of {self.kernels[m]}; "
                    "use the aligned features, or a smaller kernel"
                )
        self.steps = {m: t - self.kernels[m] + 1 for m, (t, _) in shapes.items()}  # after the convolution
        if max(self.steps.values()) > 128:  # scores of unaligned steps: 256 rows at once do not fit into 24 GiB
            self.eval_batch = 32
        self.convolutions = nn.ModuleDict(
            {m: Convolution(w, d, self.kernels[m]) for m, (_, w) in shapes.items() if w != d}
        )

        rates = {m: getattr(params, f"attention_dropout_{m}") for m in MODALITIES}
        dropouts = {k: getattr(params, k) for k in ("embed_dropout", "relu_dropout", "residual_dropout")}
        positions = max(self.steps.values()) if params.position else 0
        depth = max(params.levels, 3)
        self.cross = Towers(6, d, params.heads, params.levels, **dropouts, positions=positions)
        self.memory = Towers(3, 2 * d, params.heads, depth, **dropouts, positions=positions)
        self.cross_folds = self._folds(TOWERS, [rates[source] for _, source in TOWERS], fold)
        self.memory_folds = self._folds([(m, m) for m in MODALITIES], [rates["text"]] * 3, fold)

        self.latent_dims = {m: (2 * d,) for m in MODALITIES}
        self.head1 = nn.Linear(6 * d, 6 * d)
        self.head2 = nn.Linear(6 * d, 6 * d)
        self.out = nn.Linear(6 * d, 1)

    def _folds(self, towers: Sequence[tuple[str, str]], rates: Sequence[float], fold: bool) -> nn.ModuleList:
        plan = _plan(towers, self.steps) if fold else [[i] for i in range(len(towers))]
        folds = []
        for members in plan:
            queries = [self.steps[towers[i][0]] for i in members]
            keys = [self.steps[towers[i][1]] for i in members]
            folds.append(Fold(members, queries, keys, [rates[i] for i in members], self.params.causal))
        return nn.ModuleList(folds)

    def encode(self, batch: Batch) -> Encoded:
        memories = self.cross_modal(self.project(batch))
        return Encoded(self.memorise(memories, self.last_steps(batch)), {})

    def project(self, batch: Batch) -> Latents:
        """Convolved sequences, modality -> [B, T_m, d]."""
        found = {}
        for m in MODALITIES:
            x = dropout(batch[m], self.params.text_dropout, self.training) if m == "text" else batch[m]
            found[m] = self.convolutions[m](x) if m in self.convolutions else x
        return found

    def cross_modal(self, sequences: Latents) -> Latents:
        """The two cross-modal encodings of each target side by side, modality -> [B, T_m, 2d]."""
        found: dict[int, Tensor] = {}
        for fold in self.cross_folds:
            t, s = fold.steps
            x = torch.stack([_padded(sequences[TOWERS[i][0]], t) for i in fold.towers])  # (n, B, T, d)
            source = torch.stack([_padded(sequences[TOWERS[i][1]], s) for i in fold.towers])  # (n, B, S, d)
            found.update(zip(fold.towers, self.cross(x, fold, source).unbind(0), strict=True))
        towers = [found[i][:, : self.steps[target]] for i, (target, _) in enumerate(TOWERS)]
        return {m: torch.cat(towers[2 * k : 2 * k + 2], -1) for k, m in enumerate(MODALITIES)}

    def memorise(self, sequences: Latents, last: dict[str, Tensor] | None) -> Latents:
        """Memory encoders of [B, T_m, 2d]: the steps `last` [B], as [B, 2d], or all steps if it is None."""
        found: dict[str, Tensor] = {}
        for fold in self.memory_folds:
            names = [MODALITIES[i] for i in fold.towers]
            x = torch.stack([_padded(sequences[m], fold.steps[0]) for m in names])  # (n, B, T, 2d)
            wanted = None if last is None else torch.stack([last[m] for m in names])  # (n, B)
            found.update(zip(names, self.memory(x, fold, last=wanted).unbind(0), strict=True))
        return {m: found[m] if last is not None else found[m][:, : self.steps[m]] for m in MODALITIES}

    def last_steps(self, batch: Batch) -> dict[str, Tensor]:
        """Index [B] of the step that is read, per modality."""
        text = batch["text"]
        if self.params.last_step == "padded":
            return {m: torch.full_like(text[:, 0, 0], t - 1, dtype=torch.int64) for m, t in self.steps.items()}
        lengths = {m: batch[f"{m}_lengths"] for m in ("audio", "vision")}  # (B,)
        lengths["text"] = lengths["audio"] if self.aligned else filled_steps(text)
        return {m: (n - self.kernels[m]).clamp(0, self.steps[m] - 1) for m, n in lengths.items()}

    def fuse(self, latents: Latents) -> Output:
        x = torch.cat([latents[m] for m in MODALITIES], -1)  # (B, 6d)
        y = dropout(self.head1(x).relu(), self.params.output_dropout, self.training)
        return Output(self.out(self.head2(y) + x).squeeze(-1), {"fusion": x})

    def unused_reference_parameters(self) -> Mapping[str, Any]:
        letter = {"text": "l", "audio": "a", "vision": "v"}
        names = [f"{letter[t]}_with_{letter[s]}" for t, s in TOWERS] + [f"{letter[m]}_mem" for m in MODALITIES]
        return {f"trans_{name}.version": "a format marker, not used" for name in names}


def _padded(x: Tensor, steps: int) -> Tensor:
    """[B, T, w] with zero steps behind, up to `steps`."""
    return F.pad(x, (0, 0, 0, steps - x.shape[1])) if x.shape[1] < steps else x


def _plan(towers: Sequence[tuple[str, str]], steps: Mapping[str, int], slack: float = 1.1) -> list[list[int]]:
    """Which towers run together: those whose query and key lengths agree after rounding each length up to the
    longest that is at most `slack` times it."""
    up = {m: max(t for t in steps.values() if t <= slack * steps[m]) for m in steps}
    groups: dict[tuple[int, int], list[int]] = {}
    for i, (target, source) in enumerate(towers):
        groups.setdefault((up[target], up[source]), []).append(i)
    return list(groups.values())


Model = MulT
