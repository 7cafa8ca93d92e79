"""GCNet: graph completion network for incomplete conversations (Lian et al., TPAMI 2023).

    u [L, d_a + d_t + d_v]: vectors of the utterances of the clip's video side by side, 0 where a modality is missing
    c = 2-layer bidirectional LSTM over u                                                [L, 2 D_e]
    two graphs over the utterances, of time (past, now, future) and of pairs of speakers: i hears from j for
      i - window_future <= j <= i + window_past, itself included
      g_i = Lin c_i + sum over relations r of W_r mean_j c_j;  n_i = Lin g_i + Lin sum_j g_j          [L, D_e / 2]
      h = ReLU Lin (time attention of) 2-layer bidirectional LSTM over concat(c, n)      [L, D_h = 2.5 D_e]
    prediction = Lin(h_time + h_speaker);  reconstruction = Lin(h_time + h_speaker)      [L, d_a + d_t + d_v]
    loss = squared error + lambda_reconstruction sum over missing modalities of the mean squared error to their features

Latents: "fusion", h_time + h_speaker of the clip [B, D_h]: modalities are joined before anything else, so a mixer acts on
the fused vector.

Readings (docs/quirks.md): u as in MoMKE (means over the clip, standardised). Losses are those of the clip plus the mean
over the others of its video (`lambda_others`); the reconstruction is that of the whole video. A loss on what is missing
needs training clips that are complete in the file, as published. The release's LSTMs read the padding of their batch, so
that a prediction depends on the batch; here each video ends where it ends (`padding` "read": as released).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.models.base import Backbone, Batch, Encoded, Inputs, Latents, Output
from bench.models.parts.layers import dropout
from bench.models.parts.padded import PaddedBiLSTM
from bench.models.parts.videos import Utterances, availability, each, others, own
from bench.models.parts.words import one_of

VERSION = 1
IDLE = {"rebuild": "no weight on complete data"}
BRIEF = {"hidden": 16}  # parameters of a quick look
MODALITIES = ("audio", "text", "vision")
TIMES = ("future", "now", "past")  # numbers of the temporal relations


@dataclass(frozen=True)
class Params:
    """The middle of the release's grid (hidden 50, 100, 200; windows 1 to 4; time attention on and off)."""

    hidden: int = 100  # hidden width of the first LSTM, D_e
    window_past: int = 2  # preceding utterances that an utterance sends messages to; -1: all
    window_future: int = 2  # following utterances that an utterance sends messages to; -1: all
    time_attention: bool = False  # attention over the utterances behind the LSTM of each graph
    dropout: float = 0.5  # between the layers of the LSTMs
    lambda_reconstruction: float = 1.0  # weight of the reconstruction
    lambda_others: float = 1.0  # weight of the other utterances' squared error
    neighbours: int = 0  # utterances of the video that are read with a clip; 0: all
    padding: str = "skip"  # "skip": the LSTMs end where a video ends; "read": they read its padding (release)
    reconstruction_mask: str = "own"  # weights of the reconstruction: the "own" utterance's, or others' ("release")
    standardise: str = "train"  # u by the training split's mean and deviation, or "none"

    def __post_init__(self) -> None:
        one_of("gcnet", "padding", self.padding, ("skip", "read"))
        one_of("gcnet", "reconstruction_mask", self.reconstruction_mask, ("own", "release"))
        one_of("gcnet", "standardise", self.standardise, ("train", "none"))


class Recurrent(nn.Module):
    """2-layer bidirectional LSTM: x [B, L, d], lengths [B] -> [B, L, 2h], 0 beyond a row's length."""

    def __init__(self, d: int, h: int, rate: float) -> None:
        super().__init__()
        self.layers, self.rate = nn.ModuleList([PaddedBiLSTM(d, h), PaddedBiLSTM(2 * h, h)]), rate

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        first, second = self.layers
        return second(dropout(first(x, lengths).steps, self.rate, self.training), lengths).steps


class Graph(nn.Module):
    """x [B, L, d] -> [B, L, h] over an adjacency [B, R, L, L]: 1 where i hears from j by relation r."""

    def __init__(self, d: int, h: int, relations: int) -> None:
        super().__init__()
        self.weight, self.root = nn.Parameter(torch.empty(relations, d, h)), nn.Parameter(torch.empty(d, h))
        self.bias = nn.Parameter(torch.zeros(h))
        for w in (self.weight, self.root):
            nn.init.uniform_(w, -((6 / (d + h)) ** 0.5), (6 / (d + h)) ** 0.5)
        self.neighbour, self.itself = nn.Linear(h, h), nn.Linear(h, h, bias=False)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        a = adjacency.to(x.dtype)
        mean = a / a.sum(-1, keepdim=True).clamp(min=1)
        g = x @ self.root + self.bias + (mean @ (x[:, None] @ self.weight)).sum(1)  # (B, L, h)
        return self.neighbour(a.sum(1) @ g) + self.itself(g)


class GraphNetwork(nn.Module):
    """c [B, L, 2 D_e] -> [B, L, D_h]."""

    def __init__(self, d: int, p: Params, relations: int) -> None:
        super().__init__()
        h = p.hidden // 2
        self.graph, self.recurrent = Graph(d, h, relations), Recurrent(d + h, d + h, p.dropout)
        self.attentive = p.time_attention
        self.transform = nn.Linear(2 * (d + h), 2 * (d + h)) if p.time_attention else None
        self.out = nn.Linear(2 * (d + h), d + h)

    def forward(self, c: Tensor, adjacency: Tensor, there: Tensor, lengths: Tensor) -> Tensor:
        nodes = torch.cat([c, self.graph(c, adjacency)], -1) * there[..., None]
        o = self.recurrent(nodes, lengths)
        if self.attentive:
            mask = there.to(o.dtype)  # (B, L)
            scores = (self.transform(o) @ (o * mask[..., None]).transpose(1, 2) * mask[:, None]).tanh()  # (B, L, L)
            weight = scores.softmax(-1) * mask[:, None]
            o = weight / weight.sum(-1, keepdim=True) @ o
        return self.out(o).relu()


def adjacencies(there: Tensor, speaker: Tensor | None, p: Params, speakers: int) -> dict[str, Tensor]:
    """Graph -> [B, R, L, L] bool of utterances there [B, L] bool; speaker [B, L] int64."""
    at = torch.arange(there.shape[1], device=there.device)
    ahead = at[None] - at[:, None]  # (L, L): j - i
    near = torch.ones_like(ahead, dtype=torch.bool)
    if p.window_past >= 0:
        near = near & (ahead <= p.window_past)
    if p.window_future >= 0:
        near = near & (ahead >= -p.window_future)
    edges = near & there[:, :, None] & there[:, None]  # (B, L, L)
    time = torch.stack([ahead > 0, ahead == 0, ahead < 0])  # TIMES
    found = {"temporal": edges[:, None] & time}
    if speaker is None or speakers == 1:
        return found | {"speaker": edges[:, None]}
    pair = speaker[:, :, None] * speakers + speaker[:, None]  # (B, L, L)
    relation = torch.arange(speakers**2, device=there.device)[:, None, None]
    return found | {"speaker": edges[:, None] & (pair[:, None] == relation)}


class Model(Backbone):
    """GCNet. Prediction [B], linear. classes, speakers: tests alone have more than one."""

    reads_videos = True
    reads_keep = True
    eval_batch = 32

    def __init__(self, params: Params, inputs: Inputs, classes: int = 1, speakers: int = 1) -> None:
        super().__init__()
        p, self.label_bound = params, inputs.label_bound
        self.params, self.speakers = params, speakers
        self.widths = {m: getattr(inputs, m)[1] for m in MODALITIES}
        self.utterances, self.size = Utterances(self.widths), inputs.train_size
        self.context = Recurrent(sum(self.widths.values()), p.hidden, p.dropout)
        relations = {"temporal": len(TIMES), "speaker": speakers**2}
        self.graphs = nn.ModuleDict({g: GraphNetwork(2 * p.hidden, p, r) for g, r in relations.items()})
        d_h = 2 * p.hidden + p.hidden // 2
        self.score, self.rebuild = nn.Linear(d_h, classes), nn.Linear(d_h, sum(self.widths.values()))
        self.latent_dims = {"fusion": (d_h,)}

    def network(self, u: Mapping[str, Tensor], keep: Tensor, there: Tensor, speaker: Tensor | None = None) -> dict[str, Tensor]:
        """context [B, L, 2 D_e], hidden_temporal, hidden_speaker, fusion [B, L, D_h] of vectors u_m [B, L, d_m], keep
        [B, L, 3] bool and there [B, L] bool (filled from the front)."""
        x = torch.cat([u[m] * k[..., None] for m, k in zip(MODALITIES, keep.unbind(-1), strict=True)], -1)
        lengths = there.sum(1).clamp(min=1) if self.params.padding == "skip" else torch.full_like(there[:, 0], x.shape[1], dtype=torch.int64)
        c = self.context(x, lengths)
        graphs = adjacencies(there, speaker, self.params, self.speakers)
        hidden = {f"hidden_{g}": f(c, graphs[g], there, lengths) for g, f in self.graphs.items()}
        return {"context": c, **hidden, "fusion": hidden["hidden_temporal"] + hidden["hidden_speaker"]}

    def reconstruction(self, fusion: Tensor, u: Mapping[str, Tensor], keep: Tensor, weight: Tensor) -> Tensor:
        """Mean squared error of each missing modality, summed over them and over utterances by their weight [B, L]."""
        parts = self.rebuild(fusion).split(list(self.widths.values()), -1)
        error = torch.stack([(y - u[m]).square().mean(-1) for m, y in zip(self.widths, parts, strict=True)], -1) * ~keep
        error = error.sum(-1)  # (B, L)
        if self.params.reconstruction_mask == "release":
            return (error.T.flatten() * weight.flatten()).sum()
        return (error * weight).sum()

    def encode(self, batch: Batch) -> Encoded:
        u, keep = self.utterances(batch), availability(batch, MODALITIES)
        every = self.network(u, keep, batch["utterances"])["fusion"]
        return Encoded({"fusion": own(every, batch)}, {"every": every, "keep": keep, **u})

    def fuse(self, latents: Latents) -> Output:
        return Output(self.score(latents["fusion"]).squeeze(-1), dict(latents))

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        p, side = self.params, encoded.side
        error = (self.score(side["every"]).squeeze(-1) - batch["labels"]).square()  # (B, C)
        rebuilt = self.reconstruction(side["every"], side, side["keep"], each(batch))
        return {"others": p.lambda_others * (others(batch) * error).sum(), "reconstruction": p.lambda_reconstruction * rebuilt}

    def on_epoch_start(self, epoch: int) -> None:
        if epoch == 1 and self.rows_of is not None and self.params.standardise == "train":
            self.utterances.measure(self.rows_of, self.size)
