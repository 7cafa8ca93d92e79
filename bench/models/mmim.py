"""MMIM: multimodal mutual information maximisation (Han et al., EMNLP 2021), as M-SENA runs it.

    x_t = CLS of the text encoder; x_a, x_v = Lin(concat of the final states of a (bi)LSTM over the valid steps)
    z = tanh(Lin tanh(Lin concat(x_t, x_a, x_v)));  prediction = Lin(z)
    lld = sum over y = v, a of mean_b sum_d -(mu(x_t) - y)^2 / (2 exp(logvar(x_t)))          lower bound of I(t; y)
    nce = sum over m of mean_b [logsumexp_j <x_m,i, p_m,j> - <x_m,i, p_m,i>], p_m = Lin(z), all of length 1
    H   = entropy of tanh(Lin(y)) by the sign of the label, with the batches before (parts/entropy.py)

An epoch has two passes over the training split. Stage 1 minimises -lld and steps the bound alone (group "mi"; MOSEI:
half of the batches). Stage 2 minimises L1 + alpha nce - beta lld - beta H and steps everything else; H counts once the
memory of `memory` batches was full for one batch.

Latents: x_t [B, d_t], x_a and x_v [B, out], signed.

Quirks of M-SENA kept, with a switch (docs/quirks.md): lld has no -logvar / 2; the entropy's projection is never
trained; the gradient's norm is taken over all weights in either stage, also those that it does not step.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.models.base import Batch, Encoded, Group, Inputs, Latents, Output, Pass, Update
from bench.models.parts.entropy import BatchMemory
from bench.models.parts.lstm import LSTM
from bench.models.parts.padded import PaddedBiLSTM
from bench.models.parts.text import Hidden, TextBackbone

VERSION = 1
IDLE = {"bounds.*.project": "never learns by default, as released (train_entropy)"}
MODALITIES = ("text", "audio", "vision")
TARGETS = ("vision", "audio")  # y of the bounds


@dataclass(frozen=True)
class Params:
    """M-SENA's values, the same for MOSI, MOSEI and CH-SIMS."""

    encoder: str = "bert-base-uncased"
    finetune: bool = True
    hidden: int = 16  # hidden width of the LSTMs, d_ah, d_vh
    audio_out: int = 16  # width of x_a, d_aout
    vision_out: int = 16  # width of x_v, d_vout
    projection: int = 128  # width of z, d_prjh
    dropout: float = 0.1  # before the fusion
    alpha: float = 0.1  # weight of nce
    beta: float = 0.1  # weight of lld and H
    memory: int = 1  # batches that the entropy's memory keeps, mem_size
    bidirectional: bool = True  # the LSTMs of audio and vision read both ways
    stage1_share: float = 1.0  # share of the training batches in stage 1 (MOSEI: 0.5)
    log_variance: bool = False  # the bound with its -logvar / 2
    train_entropy: bool = False  # the entropy's projection learns in stage 2
    audio_hidden: int | None = None  # width of the audio's LSTM; None: `hidden`
    vision_hidden: int | None = None  # width of the vision's LSTM; None: `hidden`


class Recurrent(nn.Module):
    """x [B, T, d] and lengths [B] -> Lin of the final states, [B, out]."""

    def __init__(self, d: int, hidden: int, out: int, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = PaddedBiLSTM(d, hidden) if bidirectional else LSTM(d, hidden)
        self.out = nn.Linear(hidden * (1 + bidirectional), out)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        lengths = lengths.clamp(1, x.shape[1])
        if isinstance(self.lstm, PaddedBiLSTM):
            states = self.lstm(x, lengths)
            return self.out(torch.cat([states.forward, states.backward], 1))
        return self.out(self.lstm.last_state(x, lengths - 1))


class Bound(nn.Module):
    """Lower bound of I(x; y): x [B, d_x], y [B, d_y]."""

    def __init__(self, d_x: int, d_y: int, log_variance: bool) -> None:
        super().__init__()
        self.log_variance = log_variance
        self.mean, self.spread = (nn.Sequential(nn.Linear(d_x, d_y), nn.ReLU(), nn.Linear(d_y, d_y)) for _ in range(2))
        self.project = nn.Linear(d_y, max(d_y // 4, 1))  # of the entropy

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        mu, logvar = self.mean(x), self.spread(x)
        each = -(mu - y).square() / 2 / logvar.exp()
        return (each - logvar / 2 if self.log_variance else each).sum(1).mean()


class Model(TextBackbone):
    """MMIM. Prediction [B], linear. Groups: "encoder", "mi" and "main"."""

    reads_padding = False  # of the text only CLS is read

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params.encoder, params.finetune, inputs)
        p = self.params = params
        self.aligned = inputs.aligned
        widths = {"text": self.text_width, "audio": p.audio_out, "vision": p.vision_out}
        self.latent_dims = {m: (d,) for m, d in widths.items()}
        hidden = {"audio": p.audio_hidden or p.hidden, "vision": p.vision_hidden or p.hidden}
        shapes = {"audio": inputs.audio, "vision": inputs.vision}
        self.sequences = nn.ModuleDict({
            m: Recurrent(shapes[m][1], hidden[m], widths[m], p.bidirectional) for m in ("vision", "audio")
        })
        self.bounds = nn.ModuleDict({m: Bound(widths["text"], widths[m], p.log_variance) for m in TARGETS})
        self.predict_latent = nn.ModuleDict({m: nn.Linear(p.projection, d) for m, d in widths.items()})  # p_m
        self.dropout = nn.Dropout(p.dropout)
        self.fuse1, self.fuse2 = nn.Linear(sum(widths.values()), p.projection), nn.Linear(p.projection, p.projection)
        self.score = nn.Linear(p.projection, 1)
        self.memory = BatchMemory(p.memory)
        for _, weight in self.own_named_parameters():
            if weight.ndim > 1:
                nn.init.xavier_normal_(weight)

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        latents = {"text": hidden.last[:, 0]}
        aligned = hidden.mask.sum(1).round().long() if self.aligned else None
        for m in ("audio", "vision"):
            latents[m] = self.sequences[m](batch[m], batch[f"{m}_lengths"] if aligned is None else aligned)
        return Encoded(latents, {f"entropy_{m}": self.bounds[m].project(latents[m]).tanh() for m in TARGETS})

    def fuse(self, latents: Latents) -> Output:
        joint = self.dropout(torch.cat([latents[m] for m in MODALITIES], 1))
        z = self.fuse2(self.fuse1(joint).tanh()).tanh()  # (B, projection)
        return Output(self.score(z).squeeze(1), {"fusion": z})

    def bound(self, latents: Latents) -> Tensor:
        """lld, summed over the targets."""
        return sum(self.bounds[m](latents["text"], latents[m]) for m in TARGETS)

    def contrast(self, latents: Latents, z: Tensor) -> Tensor:
        """nce, summed over the modalities."""
        total = 0.0
        for m in MODALITIES:
            x = latents[m] / latents[m].norm(dim=1, keepdim=True)
            p = self.predict_latent[m](z)
            scores = x @ (p / p.norm(dim=1, keepdim=True)).t()  # (B, B)
            total = total + (scores.logsumexp(1) - scores.diagonal()).mean()
        return total

    def projected(self, encoded: Encoded) -> Latents:
        """Rows [B, d / 4] whose entropy is taken, by target."""
        return {m: encoded.side[f"entropy_{m}"] for m in TARGETS}

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        """Of stage 2."""
        p, latents = self.params, encoded.latents
        losses = {"lld": -p.beta * self.bound(latents)}
        if output is not None:
            losses["nce"] = p.alpha * self.contrast(latents, output.features["fusion"])
        with torch.autocast(batch["label"].device.type, enabled=False):
            losses["entropy"] = -p.beta * self.memory.entropy(self.projected(encoded), batch["label"])
        return losses

    def stage1(self, batch: Batch) -> dict[str, Tensor]:
        return {"lld": -self.bound(self.encode(batch).latents)}

    def passes(self, epoch: int) -> tuple[Pass, ...]:
        first = Update("stage1", self.stage1, ("mi",))
        return (Pass((first,), self.params.stage1_share), Pass((Update(groups=("encoder", "main")),)))

    def on_epoch_start(self, epoch: int) -> None:
        self.memory.start_epoch()

    def after_backward(self, batch: Batch, encoded: Encoded, output: Output | None) -> None:
        self.memory.store({m: x.detach() for m, x in self.projected(encoded).items()}, batch["label"])

    def groups(self) -> list[Group]:
        learns = ("bounds.vision.project.", "bounds.audio.project.") if self.params.train_entropy else ()
        named = self.own_named_parameters()
        bound = [p for n, p in named if n.startswith("bounds.") and not n.startswith(learns or "-")]
        main = [p for n, p in named if not n.startswith("bounds.") or n.startswith(learns or "-")]
        return [*self.encoder_groups(), Group("mi", bound), Group("main", main)]
