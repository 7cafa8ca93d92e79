"""MCL: multimodal correlation learning (Mai et al., IEEE Transactions on Affective Computing 2023).

    x_m = last step of each modality's encoder, as in C-MIB (parts/bottleneck.py); prediction = Lin(concat(l, a, v))
    correlation task: of B matched triples and up to ratio * B mismatched ones (one sample each for text, vision and
    audio, all three different) Lin(concat(l, v, a)) predicts a distance: 0 if matched, else (D + alpha) / (gamma +
    alpha), D the root of the sum of the squared differences of the three labels; L1

A batch makes two updates: the correlation loss, with an optimiser and rates of its own, then the task.

Latents: x_m [B, d].

The release builds the task's graph before the first update and goes back through it afterwards, at changed weights,
which torch refuses by now; here the task runs forward again after the first update. How many mismatched triples a batch
has depends on its draws; here all draws are computed and the rest weighs nothing, so that shapes do not.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.models.base import Batch, Encoded, Group, Inputs, Latents, Output, Pass, Update
from bench.models.parts.bottleneck import MODALITIES, BottleneckBackbone
from bench.models.parts.text import Hidden

VERSION = 1
ORDER = ("text", "vision", "audio")  # of the correlation head, and of a triple


@dataclass(frozen=True)
class Params:
    """The release's values for MOSI."""

    encoder: str = "bert-base-uncased"
    finetune: bool = True
    max_len: int = 50  # word pieces of word-level files
    d: int = 40  # of the unimodal sequences and latents
    heads: int = 5
    layers: int = 3
    attn_dropout: float = 0.5
    relu_dropout: float = 0.3
    res_dropout: float = 0.3
    embed_dropout: float = 0.3
    last_step: str = "padded"  # "padded": the step of index -1 is read (release); "valid": the last one of the clip
    alpha: float = 0.1  # smoothing of the distance target, (D + alpha) / (gamma + alpha)
    gamma: float = 10.39  # scale of the distance target, the D whose target is 1
    ratio: int = 4  # mismatched triples for each matched one, at most


class Model(BottleneckBackbone):
    """MCL. Prediction [B], linear."""

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params, inputs)
        self.head, self.correlation_head = nn.Linear(3 * params.d, 1), nn.Linear(3 * params.d, 1)
        self.initialise()

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        return Encoded(self.last_steps(hidden, batch), {})

    def fuse(self, latents: Latents) -> Output:
        fused = torch.cat([latents[m] for m in MODALITIES], 1)  # (B, 3d)
        return Output(self.head(fused).squeeze(1), {"fusion": fused})

    def triples(self, n: int, device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
        """Mismatched triples of n samples: rows of each modality [R], and which of the R count (the first ratio * n
        whose three differ)."""
        rows = {m: torch.randint(n, (n * (self.params.ratio + 1),), device=device) for m in ORDER}
        t, v, a = rows.values()
        apart = (t != v) & (t != a) & (v != a)
        return rows, (apart & (apart.cumsum(0) <= n * self.params.ratio)).to(torch.float32)

    def scores(self, latents: Latents, label: Tensor, rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Predicted and true distances of the mismatched triples, then of the matched, each [R + B]."""
        p = self.params
        joined = torch.cat([torch.cat([latents[m][rows[m]], latents[m]]) for m in ORDER], 1)
        t, v, a = (label[rows[m]] for m in ORDER)
        distance = ((t - v).square() + (t - a).square() + (v - a).square()).sqrt()
        target = torch.cat([(distance + p.alpha) / (p.gamma + p.alpha), torch.zeros_like(label)])
        return self.correlation_head(joined).squeeze(1), target

    def correlation(self, batch: Batch) -> dict[str, Tensor]:
        latents = self.encode(batch).latents
        rows, counts = self.triples(len(batch["label"]), batch["label"].device)
        score, target = self.scores(latents, batch["label"], rows)
        weight = torch.cat([counts, torch.ones_like(batch["label"])])
        return {"distance": (weight * (score - target).abs()).sum() / weight.sum()}

    def passes(self, epoch: int) -> tuple[Pass, ...]:
        first = Update("correlation", self.correlation, ("encoder", "main", "correlation"), "correlation")
        return (Pass((first, Update(groups=("encoder", "main")))),)

    def groups(self) -> list[Group]:
        apart = {id(p) for p in self.correlation_head.parameters()}
        found = super().groups()
        main = [p for p in found[-1].params if id(p) not in apart]
        return [*found[:-1], Group("main", main), Group("correlation", list(self.correlation_head.parameters()))]
