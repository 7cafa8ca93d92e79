"""MoMKE: mixture of modality knowledge experts for missing modalities (Xu et al., ACM MM 2024).

    u_m: one vector per utterance, x_m = dropout(Lin u_m) [L, D] over the L utterances of the clip's video
    expert e of audio, text and vision: x <- x + o + MLP(o) in each layer, o = attention of x to the utterances that have
    the modality, without output projection; MLP = Lin GELU Lin; no normalisation anywhere
    router of m: w_m = softmax(MLP x_m) over the three experts;  h_m = sum_e w_m,e expert_e(x_m), 0 where m is missing
    h = concat(h_a, h_t, h_v);  prediction = Lin(h + dropout(ReLU(Lin h)))

Stage 1 (`stage1` epochs that are never selected, Sec. 3.2): everything is available, modality m passes its own expert
alone and a head of its own; the sum of three squared errors. Stage 2: every modality passes all experts, missing ones
are zero; one squared error. The same optimiser throughout; no balance term.

Latents: h_a, h_t, h_v of the clip itself [B, D].

Readings (docs/quirks.md): u_m is the mean of the file's features over the clip's steps, standardised (nothing inside
normalises, and COVAREP's channels are hundreds wide). The release's batch is of videos, with a loss over all their
utterances; here it is of clips, each with its video: the loss is that of the clip plus the mean over the others of its
video (`lambda_others`; training labels alone). An epoch shows an utterance as often as its video is long, so there are
as many fewer epochs. Which modalities are missing is the harness's draw (the release trains one network per pattern),
and selection is on validation (the release's: the best epoch on test).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.base import Backbone, Batch, Encoded, Inputs, Latents, Output, Pass, Update
from bench.models.parts.layers import dropout
from bench.models.parts.videos import Utterances, availability, each, others, own
from bench.models.parts.words import one_of

VERSION = 1
BRIEF = {"d": 32, "depth": 2, "stage1": 1}  # parameters of a quick look
MODALITIES = ("audio", "text", "vision")


@dataclass(frozen=True)
class Params:
    """The release's values for MOSI; `stage1` makes as many updates as its first 150 epochs."""

    d: int = 256  # width of the experts, D
    depth: int = 4
    heads: int = 2
    dropout: float = 0.5  # of the inputs, the MLPs, the routers and the fusion
    stage1: int = 8  # epochs of stage 1, the experts' own training
    neighbours: int = 0  # utterances of the video that are read with a clip; 0: all
    lambda_others: float = 1.0  # weight of the other utterances' squared error
    first_epochs: str = "complete"  # stage 1 on complete inputs (release), or "missing" as stage 2
    standardise: str = "train"  # u_m by the training split's mean and deviation, or "none"

    def __post_init__(self) -> None:
        if self.d % self.heads:
            raise BenchError(f"momke: a width of d={self.d} cannot have {self.heads} heads")
        one_of("momke", "first_epochs", self.first_epochs, ("complete", "missing"))
        one_of("momke", "standardise", self.standardise, ("train", "none"))


class MLP(nn.Module):
    """Lin GELU dropout Lin dropout."""

    def __init__(self, d: int, out: int, rate: float) -> None:
        super().__init__()
        self.up, self.down, self.rate = nn.Linear(d, d), nn.Linear(d, out), rate

    def forward(self, x: Tensor) -> Tensor:
        x = dropout(F.gelu(self.up(x)), self.rate, self.training)
        return dropout(self.down(x), self.rate, self.training)


class Layer(nn.Module):
    """x [B, L, D] -> what the expert's layer adds to it; keys [B, L] bool."""

    def __init__(self, d: int, heads: int, rate: float) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(d, d) for _ in range(3))
        self.mlp, self.heads = MLP(d, d, rate), heads

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        shown = keys[:, None, None]  # (B, 1, 1, L)
        scores = (q * q.shape[-1] ** -0.5).float() @ k.float().transpose(2, 3)  # (B, heads, L, L)
        weight = scores.masked_fill(~shown, torch.finfo(scores.dtype).min).softmax(-1) * shown  # 0 where there is no key
        o = (weight.to(v.dtype) @ v).transpose(1, 2).flatten(2)
        return o + self.mlp(o)


class Model(Backbone):
    """MoMKE. Prediction [B], linear. classes: outputs of every head (tests alone have more than one)."""

    reads_videos = True
    reads_keep = True
    eval_batch = 32

    def __init__(self, params: Params, inputs: Inputs, classes: int = 1) -> None:
        super().__init__()
        p, d, self.label_bound = params, params.d, inputs.label_bound
        self.params = params
        widths = {m: getattr(inputs, m)[1] for m in MODALITIES}
        self.utterances, self.size = Utterances(widths), inputs.train_size
        self.project = nn.ModuleDict({m: nn.Linear(widths[m], d) for m in MODALITIES})
        self.experts = nn.ModuleDict({
            m: nn.ModuleList(Layer(d, p.heads, p.dropout) for _ in range(p.depth)) for m in MODALITIES
        })
        self.route = nn.ModuleDict({m: MLP(d, len(MODALITIES), p.dropout) for m in MODALITIES})
        self.heads = nn.ModuleDict({m: nn.Linear(d, classes) for m in MODALITIES})  # of stage 1
        self.joint, self.head = nn.Linear(3 * d, 3 * d), nn.Linear(3 * d, classes)
        self.latent_dims = {m: (d,) for m in MODALITIES}
        self.preparation = p.stage1

    def through(self, expert: str, x: Tensor, keys: Tensor) -> Tensor:
        """x [B, L, D] after an expert."""
        for layer in self.experts[expert]:
            x = x + layer(x, keys)
        return x

    def projected(self, u: Latents, keep: Tensor) -> tuple[Latents, Latents]:
        """x_m [B, L, D] and which utterances have m [B, L], of vectors u_m [B, L, d_m] and keep [B, L, 3]."""
        there = dict(zip(MODALITIES, keep.unbind(-1), strict=True))
        x = {m: self.project[m](u[m] * there[m][..., None]) for m in MODALITIES}
        return {m: dropout(v, self.params.dropout, self.training) for m, v in x.items()}, there

    def mixture(self, u: Latents, keep: Tensor) -> Encoded:
        """h_m [B, L, D]; side: experts_m [B, L, 3, D] and router_m [B, L, 3]."""
        x, there = self.projected(u, keep)
        n = len(keep)
        every, keys = (torch.cat([found[m] for m in MODALITIES]) for found in (x, there))  # (3 B, L, ...)
        after = torch.stack([self.through(e, every, keys) for e in MODALITIES], 2).split(n)  # 3 x (B, L, 3, D)
        latents, side = {}, {}
        for m, experts in zip(MODALITIES, after, strict=True):
            weight = self.route[m](x[m]).softmax(-1)  # (B, L, 3)
            latents[m] = (weight[..., None] * experts).sum(2) * there[m][..., None]
            side |= {f"experts_{m}": experts, f"router_{m}": weight}
        return Encoded(latents, side)

    def alone(self, u: Latents, keep: Tensor) -> tuple[Latents, Latents]:
        """Stage 1: each modality after its own expert [B, L, D], and its head's scores [B, L, classes]."""
        x, there = self.projected(u, keep)
        z = {m: self.through(m, x[m], there[m]) for m in MODALITIES}
        return z, {m: self.heads[m](z[m]) for m in MODALITIES}

    def encode(self, batch: Batch) -> Encoded:
        every = self.mixture(self.utterances(batch), availability(batch, MODALITIES))
        return Encoded({m: own(h, batch) for m, h in every.latents.items()}, every.latents)

    def scored(self, latents: Latents) -> Output:
        """Scores [..., classes] of latents [..., D]."""
        h = torch.cat([latents[m] for m in MODALITIES], -1)
        h = h + dropout(self.joint(h).relu(), self.params.dropout, self.training)
        return Output(self.head(h), {"fusion": h})

    def fuse(self, latents: Latents) -> Output:
        output = self.scored(latents)
        return output._replace(prediction=output.prediction.squeeze(-1))

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        error = (self.fuse(encoded.side).prediction - batch["labels"]).square()  # (B, C)
        return {"others": self.params.lambda_others * (others(batch) * error).sum()}

    def stage1(self, batch: Batch) -> dict[str, Tensor]:
        """Squared errors of the three modalities, over all utterances of the videos."""
        u, there = self.utterances(batch), batch["utterances"]
        keep = there[..., None].expand(*there.shape, len(MODALITIES))
        _, scores = self.alone(u, availability(batch, MODALITIES) if self.params.first_epochs == "missing" else keep)
        label, weight = batch["labels"], each(batch)
        return {m: (weight * (s.squeeze(-1) - label).square()).sum() for m, s in scores.items()}

    def on_epoch_start(self, epoch: int) -> None:
        if epoch == 1 - self.preparation and self.rows_of is not None and self.params.standardise == "train":
            self.utterances.measure(self.rows_of, self.size)

    def passes(self, epoch: int) -> tuple[Pass, ...]:
        return (Pass(),) if epoch >= 1 else (Pass((Update("stage1", self.stage1),)),)
