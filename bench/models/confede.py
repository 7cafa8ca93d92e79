"""ConFEDE: contrastive feature decomposition (Yang et al., ACL 2023).

    text: pooler output; audio, vision: Lin, CLS, positions -> transformer -> LayerNorm -> mean over steps; x_m [B, D]
    six projectors LayerNorm Lin tanh: a similar and a dissimilar part of each modality, [B, D / 2]
    prediction = MLP(concat of the six parts);  one more MLP for each part alone ("mono")
    every sample comes with six others (parts/retrieval.py): two near ones of its label, two far and two near ones of
    another; task and mono losses take all seven, the contrastive loss compares the 42 parts
    loss = MSE + lambda_contrastive NT-Xent + lambda_mono MSE of the mono predictions

Preparation: each modality alone, `pretrain_text` and so on epochs (the text encoder frozen in the first third of its
own); then the text encoder is frozen and its vectors of the training split are kept.

Latents: x_m, text, vision and audio [B, D].

What differs from the release: retrieval finds the samples that the ranking names (`retrieval` "release": the first and
last of the training set, parts/retrieval.py); the first tables come from the prepared networks, not from raw features;
preparation and fusion share optimiser and batch size; the frozen text encoder runs without dropout.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.base import Batch, Encoded, Group, Inputs, Latents, Output, Pass, Update
from bench.models.parts import retrieval
from bench.models.parts.text import BIAS_AND_NORM, Hidden, TextBackbone
from bench.models.parts.words import one_of

VERSION = 1
BRIEF = {"pretrain_text": 1, "pretrain_vision": 1, "pretrain_audio": 1}  # parameters of a quick look
MODALITIES = ("text", "vision", "audio")
CHUNK = 256  # training rows encoded, or ranked, at once


@dataclass(frozen=True)
class Params:
    """The release's values, MOSI."""

    encoder: str = "bert-base-uncased"
    finetune: bool = True  # in the preparation
    heads: int = 8
    layers: int = 2
    dropout: float = 0.5
    temperature: float = 0.5  # temperature of the contrastive loss (NT-Xent)
    lambda_contrastive: float = 0.1  # weight of the contrastive loss
    lambda_mono: float = 0.01  # weight of the mono predictions' loss
    unimodal_labels: bool = False  # dissimilar parts learn the labels of the single modality (CH-SIMS)
    retrieval: str = "ranked"  # by the "ranked" similarities, or the first and last of the training set ("release")
    round_labels: bool = True  # labels are rounded before they are compared (not on CH-SIMS)
    half: bool = False  # only half of a ranking is searched (CH-SIMS)
    every: int = 2  # epochs between two updates of the tables
    pretrain_text: int = 200  # epochs of the text network alone, in the preparation
    pretrain_vision: int = 100  # epochs of the vision network alone
    pretrain_audio: int = 100  # epochs of the audio network alone

    def __post_init__(self) -> None:
        one_of("confede", "retrieval", self.retrieval, ("ranked", "release"))


def perceptron(widths: list[int]) -> nn.Sequential:
    layers = [layer for a, b in zip(widths[:-1], widths[1:-1]) for layer in (nn.Linear(a, b), nn.GELU())]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


class Sequence(nn.Module):
    """Audio or vision [B, T, d_m] -> [B, D]. A step whose features sum to 0 is padding, but never the first."""

    def __init__(self, steps: int, d_m: int, width: int, p: Params) -> None:
        super().__init__()
        self.project = nn.Linear(d_m, width)
        self.cls = nn.Parameter(torch.ones(width))
        self.positions = nn.Parameter(torch.zeros(steps + 1, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, p.heads, width, p.dropout, "gelu", batch_first=True)
            for _ in range(p.layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        late = torch.arange(x.shape[1], device=x.device) > 0
        padded = F.pad((x.sum(-1) == 0) & late, (1, 0), value=False)
        y = torch.cat([self.cls.expand(len(x), 1, -1), self.project(x)], 1) + self.positions
        for layer in self.layers:
            y = layer(y, src_key_padding_mask=padded)
        return self.norm(y).mean(1)


def contrastive_pairs() -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Positive and negative (anchor, other) of the 42 parts of a sample: similar text, vision, audio, then dissimilar,
    seven each (own, two near of the label, two far and two near of another)."""
    positive = [(a, a + k) for a in (0, 7, 14) for k in (1, 2)] + [(0, 7), (0, 14)]
    positive += [(k, k + 7 * j) for j in (1, 2) for k in range(1, 7)]
    negative = [(a, a + k) for a in (0, 7, 14) for k in range(3, 7)]
    return positive, negative + [(k, k + 7 * j) for j in (3, 4, 5) for k in range(7)]


class Model(TextBackbone):
    """ConFEDE. Prediction [B], linear."""

    reads_padding = False
    with_pooler = True
    wants_unimodal = True

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params.encoder, params.finetune, inputs)
        p, d = params, self.text_width
        self.params, self.size = params, inputs.train_size
        self.sequences = nn.ModuleDict({m: Sequence(*getattr(inputs, m), d, p) for m in ("vision", "audio")})
        self.parts = nn.ModuleDict({
            f"{kind}_{m}": nn.Sequential(nn.LayerNorm(d), nn.Linear(d, d // 2), nn.Tanh(), nn.Dropout(p.dropout))
            for kind in ("similar", "dissimilar") for m in MODALITIES
        })
        self.head = perceptron([3 * d, d, d // 2, d // 4, d // 8, 1])
        self.mono = perceptron([d // 2, d // 4, d // 8, 1])
        self.pretraining = nn.ModuleDict({m: perceptron([d, d // 2, d // 4, d // 8, 1]) for m in MODALITIES})
        self.latent_dims = {m: (d,) for m in MODALITIES}
        positive, negative = contrastive_pairs()
        self.register_buffer("positive", torch.tensor(positive).T, persistent=False)  # (2, 20)
        mask = torch.zeros(42, 42)
        mask[tuple(torch.tensor(negative).T)] = 1.0
        self.register_buffer("negative", mask, persistent=False)
        for kind in retrieval.KINDS[:2] + retrieval.KINDS[3:]:
            table = torch.full((self.size, retrieval.KEPT), retrieval.NONE)
            self.register_buffer(f"table_{kind}", table, persistent=False)
        self.register_buffer("pooled", torch.zeros(self.size, d), persistent=False)
        self.kept = False  # the text vectors of the training split are in `pooled`
        self.epochs = {m: getattr(p, f"pretrain_{m}") for m in MODALITIES}
        self.preparation = max(self.epochs.values())

    def text(self, batch: Batch, training_rows: bool = False) -> Tensor:
        """x_t [B, D]; from the kept vectors where these are rows of the training split."""
        if self.text_encoder is None:
            return batch["text"][:, 0]
        if training_rows and self.kept:
            return self.pooled[batch["index"]]
        return self.text_encoder(batch["text_bert"]).pooled

    def modalities(self, text: Tensor, batch: Batch) -> Latents:
        return {"text": text, **{m: f(batch[m]) for m, f in self.sequences.items()}}

    def encode(self, batch: Batch) -> Encoded:
        return Encoded(self.modalities(self.text(batch, self.training), batch), {})

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        return Encoded(self.modalities(hidden.pooled, batch), {})

    def decompose(self, latents: Latents) -> Tensor:
        """The six parts [B, 6, D / 2], similar text, vision, audio, then dissimilar."""
        return torch.stack([f(latents[name.partition("_")[2]]) for name, f in self.parts.items()], 1)

    def fuse(self, latents: Latents) -> Output:
        parts = self.decompose(latents)
        fused = parts.flatten(1)
        return Output(self.head(fused).squeeze(1), {"parts": parts, "fusion": fused})

    def others(self, index: Tensor) -> Tensor:
        """Six training rows of each sample [B] -> [6 B], rows 6i to 6i + 5 those of sample i."""
        draws = [
            retrieval.draw_two(self.get_buffer(f"table_{kind}")[index], index, self.size) for kind in ("ss", "dd", "sd")
        ]
        return torch.cat(draws, 1).flatten()

    def targets(self, batch: Batch) -> Tensor:
        """Of the six parts, [B, 6]."""
        label = batch["label"]
        own = [batch.get(f"label_{m}", label) if self.params.unimodal_labels else label for m in MODALITIES]
        return torch.stack([label, label, label, *own], 1)

    def contrastive(self, parts: Tensor, others: Tensor) -> Tensor:
        """NT-Xent of parts [B, 6, D / 2] and those of their six others [6 B, 6, D / 2]."""
        every = torch.cat([parts[:, None], others.unflatten(0, (-1, 6))], 1)  # (B, 7, 6, D / 2)
        v = F.normalize(every.transpose(1, 2).flatten(1, 2), dim=-1)  # (B, 42, D / 2)
        weight = (v @ v.transpose(1, 2) / self.params.temperature).exp()
        among = (weight * self.negative).sum(-1)[:, self.positive[0]]  # (B, 20)
        pair = weight[:, self.positive[0], self.positive[1]]
        return -(pair / (pair + among) + torch.finfo(pair.dtype).tiny).log().mean()

    def terms(self, batch: Batch, output: Output, more: Batch, other: Output) -> dict[str, Tensor]:
        """Unweighted: task_others (MSE of the six others), contrastive, mono (of all seven)."""
        parts, parts_2 = output.features["parts"], other.features["parts"]
        mono = self.mono(torch.cat([parts, parts_2])).squeeze(-1)  # (7 B, 6)
        target = torch.cat([self.targets(batch), self.targets(more)])
        return {
            "task_others": F.mse_loss(other.prediction, more["label"]), "mono": F.mse_loss(mono, target),
            "contrastive": self.contrastive(parts, parts_2),
        }

    def weighted(self, terms: dict[str, Tensor], task: Tensor) -> dict[str, Tensor]:
        """`others` brings the task's mean over B samples to that over 7 B; it may be negative."""
        p = self.params
        return {
            "others": 6 / 7 * (terms["task_others"] - task), "contrastive": p.lambda_contrastive * terms["contrastive"],
            "mono": p.lambda_mono * terms["mono"],
        }

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        output = output or self.fuse(encoded.latents)
        if self.rows_of is None:
            return {}
        more = self.rows_of(self.others(batch["index"]))
        other = self.fuse(self.modalities(self.text(more, True), more))
        task = F.mse_loss(output.prediction, batch["label"])
        return self.weighted(self.terms(batch, output, more, other), task)

    def prepare(self, x: Latents, batch: Batch, modalities: tuple[str, ...] = MODALITIES) -> dict[str, Tensor]:
        """MSE of each modality alone."""
        label = batch["label"]
        own = {m: batch.get(f"label_{m}", label) if self.params.unimodal_labels else label for m in modalities}
        return {m: F.mse_loss(self.pretraining[m](x[m]).squeeze(1), own[m]) for m in modalities}

    def passes(self, epoch: int) -> tuple[Pass, ...]:
        if epoch >= 1:
            return (Pass((Update(groups=("main", "main-no-decay")),)),)
        began = epoch + self.preparation  # counts from 1
        due = tuple(m for m in MODALITIES if began <= self.epochs[m])
        frozen = began <= self.epochs["text"] // 3
        groups = ("main", "main-no-decay") if frozen else None
        stage = Update("pretrain", lambda b: self.prepare(self.modalities(self.text(b), b), b, due), groups, "pretrain")
        return (Pass((stage,)),)

    def on_epoch_start(self, epoch: int) -> None:
        if epoch >= 1 and self.rows_of is not None and (epoch - 1) % self.params.every == 0:
            self.update_tables()

    @torch.no_grad()
    def update_tables(self) -> None:
        """Encode the training split, keep its text vectors, rank, and write the tables."""
        training, embedded, labels = self.training, [], []
        self.eval()
        for rows in torch.arange(self.size, device=self.pooled.device).split(CHUNK):
            batch = self.rows_of(rows)
            text = self.text(batch, True)
            self.pooled[rows] = text.to(self.pooled.dtype)
            embedded.append(torch.cat(list(self.modalities(text, batch).values()), 1))
            labels.append(batch["label"])
        self.kept = True
        v, label = F.normalize(torch.cat(embedded), dim=1, eps=1e-6), torch.cat(labels)
        label = label.round() if self.params.round_labels else label
        for rows in torch.arange(self.size, device=v.device).split(CHUNK):
            ranking = (v[rows] @ v.T).argsort(dim=1, descending=True)
            release = self.params.retrieval == "release"
            for kind, table in retrieval.tables(ranking, rows, label, release, self.params.half).items():
                if kind != "ds":
                    self.get_buffer(f"table_{kind}")[rows] = table
        self.train(training)

    def groups(self) -> list[Group]:
        named = self.own_named_parameters()
        spared = {n for n, q in named if q.ndim <= 1 or ".norm" in n}
        return [
            *self.encoder_groups(BIAS_AND_NORM), Group("main", [q for n, q in named if n not in spared]),
            Group("main-no-decay", [q for n, q in named if n in spared], decay=False),
        ]
