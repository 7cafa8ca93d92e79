"""IMDer: incomplete multimodality-diffused emotion recognition (Wang et al., NeurIPS 2023).

    x_m: convolution of the text encoder's states, audio and vision [B, d, T], word by word aligned
    condition of a missing modality: x of the only modality that is there, or Lin of the two side by side
    recovered x_m = refine(sample of a score network under the condition) (parts/diffusion.py)
    MulT over the three (bench/models/mult.py, with positions): last steps of the memories, residual head
    loss = L1 + weight (score losses of the missing modalities, summed over T d + mean squared error of the recovered)

A MulT on complete inputs is trained first (`pretrain` epochs that are never selected); its text encoder and convolutions
are frozen then, the rest goes on learning. Without a corruption "missing" nothing is missing, and nothing is recovered.

Latents: last steps of the memories, text, audio and vision [B, 2d].

Readings (docs/quirks.md): how the complete MulT was trained is not published (ours: L1, the encoder at its own rate). The
release drops modalities from whole batches; here each clip has its own, by the harness's draw, so that all three
recoveries run and the mask says which are used. Sampling is random in evaluation, too: here with the same draws for every
clip, so that a prediction depends on nothing else (`evaluation_draws` "random": as released). What a training clip lacks
is read by the losses: training clips have to be complete in the file, as published.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.base import Batch, Encoded, Group, Inputs, Latents, Output, Pass, Update
from bench.models.mult import MulT
from bench.models.mult import Params as MulTParams
from bench.models.parts.diffusion import Refinement, ScoreNet, Sizes, sample, score_loss
from bench.models.parts.text import Hidden, TextBackbone
from bench.models.parts.words import one_of

VERSION = 1
IDLE = {"score": "nothing is missing", "refine": "nothing is missing", "join": "nothing is missing"}
BRIEF = {  # parameters of a quick look
    "pretrain": 1, "width": 8, "heads": 2, "score_heads": 2, "levels": 1, "channels": (8, 8, 8, 8), "groups": (4, 4),
    "time_embed": 8, "blocks": 1, "sampling_steps": 2,
}
MODALITIES = ("text", "audio", "vision")
PAIRS = {"text": ("vision", "audio"), "audio": ("text", "vision"), "vision": ("text", "audio")}  # missing -> conditions


@dataclass(frozen=True)
class Params:
    """The release's values for MOSI; `pretrain` is ours."""

    encoder: str = "bert-base-uncased"
    finetune: bool = True  # while the complete MulT is trained
    pretrain: int = 10  # epochs of the complete MulT
    width: int = 32  # width of the convolved sequences, d
    heads: int = 8
    levels: int = 4
    kernel: int = 3  # kernel size of the convolutions that bring the modalities to width d
    attention_dropout_text: float = 0.0
    attention_dropout_audio: float = 0.2
    attention_dropout_vision: float = 0.0
    embed_dropout: float = 0.2
    output_dropout: float = 0.0  # in MulT's head
    channels: tuple[int, ...] = (32, 64, 128, 256)  # channels of the score networks' levels
    time_embed: int = 256  # width of the score networks' embedding of the diffusion time
    score_heads: int = 8  # attention heads of the score networks
    groups: tuple[int, ...] = (4, 32)  # groups of the score networks' normalisation: at the first level, at the others
    sampling_steps: int = 100  # steps of the reverse diffusion that recovers a missing modality
    blocks: int = 20  # channel-attention blocks of the refinement
    reduction: int = 16  # factor by which channel attention narrows the channels
    weight: float = 0.1  # weight of the score and reconstruction losses
    evaluation_draws: str = "fixed"  # sampling in evaluation: the same draws for every clip ("fixed"), or "random" (release)

    def __post_init__(self) -> None:
        one_of("imder", "evaluation_draws", self.evaluation_draws, ("fixed", "random"))
        if len(self.channels) != 4 or self.channels[0] != self.width or len(self.groups) != 2 or self.sampling_steps < 2:
            raise BenchError("imder: channels are four numbers, the first the width, groups two, and sampling_steps at least 2")


@dataclass(frozen=True)
class Noise:
    """All draws for one modality of a batch. unit [B], z [B, d, T] of the score loss; start [B or 1, d, T] and, of every
    step, condition and step [S, B or 1, d, T] of the sampler. None: drawn where they are used."""

    unit: Tensor | None = None
    z: Tensor | None = None
    start: Tensor | None = None
    condition: Tensor | None = None
    step: Tensor | None = None


class Model(TextBackbone):
    """IMDer. Prediction [B], linear. Groups: "encoder", "projection" and "main". Raises BenchError for data that are not
    aligned."""

    reads_keep = True

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params.encoder, params.finetune, inputs)
        p, d = params, params.width
        self.params = params
        if len({getattr(inputs, m)[0] for m in MODALITIES}) > 1:
            raise BenchError("imder: text, audio and vision need one length: use aligned features")
        shared = {n: getattr(p, n) for n in ("width", "heads", "levels", "embed_dropout", "output_dropout")}
        rates = {f"attention_dropout_{m}": getattr(p, f"attention_dropout_{m}") for m in MODALITIES}
        kernels = {f"{m}_kernel": p.kernel for m in MODALITIES}
        shapes = {"text": (inputs.text[0], self.text_width), "audio": inputs.audio, "vision": inputs.vision}
        self.mult = MulT(MulTParams(**shared, **rates, **kernels, text_dropout=0.0, position=True), Inputs(**shapes))
        steps = self.mult.steps["text"]
        sizes = Sizes(tuple(p.channels), p.time_embed, p.score_heads, 2, tuple(p.groups))
        self.score = nn.ModuleDict({m: ScoreNet(d, steps, sizes) for m in MODALITIES})
        self.refine = nn.ModuleDict({m: Refinement(d, p.blocks, p.reduction) for m in MODALITIES})
        self.join = nn.ModuleDict({m: nn.Conv1d(2 * d, d, 1) for m in MODALITIES})  # of the two that condition m
        self.latent_dims = self.mult.latent_dims
        self.preparation = p.pretrain
        self.preparing = False
        g = torch.Generator().manual_seed(0)
        for m in MODALITIES:  # the draws of evaluation
            self.register_buffer(f"draws_{m}", torch.randn(2 * p.sampling_steps + 1, 1, d, steps, generator=g), persistent=False)

    def noise(self, m: str, like: Tensor) -> Noise:
        """What the sampler takes in evaluation; nothing that is drawn beforehand in training."""
        if self.training or self.params.evaluation_draws == "random":
            return Noise()
        start, of_condition, of_x = self.get_buffer(f"draws_{m}").to(like.dtype).split([1, *[self.params.sampling_steps] * 2])
        return Noise(start=start[0], condition=of_condition, step=of_x)

    def sampled(self, m: str, condition: Tensor, noise: Noise) -> Tensor:
        n = self.params.sampling_steps
        start = torch.randn_like(condition) if noise.start is None else noise.start

        def each() -> Iterator[tuple[Tensor, Tensor]]:
            for i in range(n):
                drawn = noise.condition is None
                yield (
                    torch.randn_like(condition) if drawn else noise.condition[i],
                    torch.randn_like(condition) if drawn else noise.step[i],
                )

        return sample(self.score[m], condition, start, each(), n)

    def condition(self, m: str, x: Latents, keep: Latents) -> Tensor:
        """Of a missing modality, [B, d, T] of x_m [B, d, T] and keep_m [B] bool."""
        first, second = PAIRS[m]
        both = self.join[m](torch.cat([x[first], x[second]], 1))
        one = torch.where(keep[first][:, None, None], x[first], x[second])
        return torch.where((keep[first] & keep[second])[:, None, None], both, one)

    def recover(self, x: Latents, keep: Latents, noises: Mapping[str, Noise] | None = None) -> tuple[Latents, Latents]:
        """x_m [B, d, T] with what is missing recovered; side: sampled_m, recovered_m [B, d, T], and score_m,
        rebuilt_m [B], the losses of clips that lack m (in training), 0 of others."""
        found, side = {}, {}
        for m in MODALITIES:
            noise, gone = (noises or {}).get(m) or self.noise(m, x[m]), ~keep[m]
            condition = self.condition(m, x, keep)
            if self.training or noises is not None:
                unit = torch.rand_like(x[m][:, 0, 0]) if noise.unit is None else noise.unit
                z = torch.randn_like(x[m]) if noise.z is None else noise.z
                side[f"score_{m}"] = score_loss(self.score[m], x[m], condition, unit, z) * gone
            y = self.sampled(m, condition.detach(), noise)
            recovered = self.refine[m](y)
            side |= {f"sampled_{m}": y, f"recovered_{m}": recovered}
            side[f"rebuilt_{m}"] = (recovered - x[m]).square().mean((1, 2)) * gone
            found[m] = torch.where(gone[:, None, None], recovered, x[m])
        return found, side

    def projected(self, hidden: Hidden, batch: Batch) -> Latents:
        """x_m [B, T, d]; without gradient once the complete MulT is trained."""
        with torch.set_grad_enabled(self.preparing and torch.is_grad_enabled()):
            return self.mult.project({**batch, "text": hidden.last})

    def latents(self, x: Latents) -> Latents:
        """Of sequences x_m [B, T, d]."""
        return self.mult.memorise(self.mult.cross_modal(x), self.mult.last_steps(x))

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        x, side = self.projected(hidden, batch), {}
        if "keep_text" in batch and not self.preparing:
            keep = {m: batch[f"keep_{m}"] for m in MODALITIES}
            y, side = self.recover({m: v.transpose(1, 2) for m, v in x.items()}, keep)
            x = {m: v.transpose(1, 2) for m, v in y.items()}
        return Encoded(self.latents(x), side)

    def encode(self, batch: Batch) -> Encoded:
        return self.encode_hidden(self._states(batch), batch)

    def _states(self, batch: Batch) -> Hidden:
        if self.text_encoder is None:
            x = batch["text"]
            return Hidden(x, x, x.ne(0).any(-1).to(x.dtype))
        with torch.set_grad_enabled(self.preparing and torch.is_grad_enabled()):
            return self.text_encoder(batch["text_bert"])

    def fuse(self, latents: Latents) -> Output:
        return self.mult.fuse(latents)

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        if "keep_text" not in batch:
            return {}
        return {
            kind: self.params.weight * sum(encoded.side[f"{kind}_{m}"].mean() for m in MODALITIES)
            for kind in ("score", "rebuilt")
        }

    def complete(self, batch: Batch) -> dict[str, Tensor]:
        """L1 of MulT on complete inputs."""
        return {"task": F.l1_loss(self.fuse(self.encode(batch).latents).prediction, batch["label"])}

    def on_epoch_start(self, epoch: int) -> None:
        self.preparing = epoch < 1

    def passes(self, epoch: int) -> tuple[Pass, ...]:
        if epoch >= 1:
            return (Pass((Update(groups=("main",)),)),)
        return (Pass((Update("complete", self.complete, ("encoder", "projection", "main"), "complete"),)),)

    def groups(self) -> list[Group]:
        projection = list(self.mult.convolutions.parameters())
        apart = {id(q) for q in projection}
        main = [q for _, q in self.own_named_parameters() if id(q) not in apart]
        return [*self.encoder_groups(), Group("projection", projection), Group("main", main)]
