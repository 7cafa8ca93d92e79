"""SLaD: sub-modal label-aware disentanglement, of text and audio (anonymous authors). No code is released.

    X^t, X^a [B, l, d]: encoders' states, the audio pooled to the text's l steps                 Sec. 3.2, 3.4
    y^t, y^a [B]: pseudo-labels, regressed on X'                                                  Eq. 1, 2
    X'^m -> I^m (shared encoder), S^m (one per modality), [B, l, d]                               Sec. 3.4
    cross-modal attention of the I's and of the X's, self-attention, feed-forward -> prediction   Eq. 3-6
    omega(y^t, y^a) [B] weighs L_con (of I) and L_rep (of S); L_ml (of I and y)                   Eq. 7-21
    L = L_cls + L_con + lambda_rep L_rep + lambda_ml L_ml                                         Eq. 22

Latents for a mixer: what the fusion network is given, text (X'^t), audio (X'^a), invariant_text, invariant_audio, zero
at padding, and the same of the context. omega, con, rep and ml are the columns of Table 3. A network that neither loss
nor prediction would use is drawn and dropped, so that all rows start from the same weights.

What the paper leaves open, our reading, and the switch to another one:
- What is not described of the skeleton is MMML's, whose recipe and inputs are the same: cross-modal layers
  (cross_modal.py, `depth` 1 each), the head Lin(768) ReLU Lin(512) ReLU Lin(1) over the concatenated read-out vectors,
  the frozen convolutional front (audio_encoder.py). Depth, sharing and pooling are not in the text.
- I^m: Lin ReLU dropout Lin LayerNorm. S^m: Lin ReLU dropout Lin ReLU, since S enters nothing but L_rep and nothing else
  pulls S^t and S^a together: centred codes of two networks have cosines within 0.1 of 0 from the start, below the
  margin, and L_rep would be 0 for good. Codes without negative entries (MISA's private ones are sigmoids) start above.
- Lengths are aligned by averaging the valid frames in l equal bins of the 6 s; a bin without one is padding.
- Pseudo-labels: the first word piece, the mean of the valid audio bins; each Lin ReLU dropout Lin(1).
- Eq. 22 has one L1 loss, which would leave the pseudo-label heads untrained. L_cls is L1 of the prediction (the
  protocol's) plus `lambda_uni` times L1 of either pseudo-label, as in MMML. Their targets are the labels of the single
  modality (CH-SIMS) or, where a model is not given any (MOSI, MOSEI, M-SENA's files), the clip's.
- y of Eq. 7-21: the pseudo-labels ("These predictions serve as inputs", Sec. 3.3), detached. `labels` "given": the
  targets above; on MOSI and MOSEI omega is then 1 or 0 throughout.
- Y lies in [-1, 1] (Sec. 3.8): labels are divided by the label bound. `label_scale` "raw": not, and alpha = 0.5 is
  narrow on [-3, 3].
- y^t = y^a = 0 fits R1 and R2: R1, as Eq. 10 lists it first. Labels within 1e-6 are equal. If R1 holds throughout a
  batch L_con and L_rep are 0. omega off: 1 for every sample.
- Vectors of Eq. 13 and 17: means over the valid steps, of length 1. Not the context's.
- Eq. 14 prints S_ij where j is summed over: S_ii. Only texts look for audios, as indexed. lambda of Eq. 16 is detached.
- L_rep leaves out a sample's own pair (j != i), which the prose wants apart: `repel` "others" as printed, "all" counts
  it too. The margin m is not printed: a cosine of 0.2, that is 0.2 / tau in the units of R.
- Eq. 19-21: Y is counted to 2B, W is B x B. `items` "labels": 2B labels with their 2B vectors (the pairs compared are
  "sub-modal label pairs"); "samples": B sets of two labels over Eq. 13's matrix. The size of a label is |y|, two of one
  sign overlap by the lesser; the unbalanced bars of K_d are 1 / (1 + |y_i| - |y_i & y_j|). The pairs of an item are
  summed, so that L_ml grows with the batch (with 16 samples to about 50); `pairs` "mean" divides by their weights.
- Eq. 21 divides by B what it sums over; with 2B items that is twice their mean. Here it is the mean ("samples": 1 / B is
  the mean), so that the paper's lambda_ml would be half of ours.
- lambda_rep, lambda_ml, m: not printed; 0.1, 0.1 and 0.2, and `bench tune` searches them.
- Context (two preceding clips) as in MMML: through the same networks, its read-out vectors beside the clip's; the
  pseudo-label heads see both.
- Sound other than waves (`audio_encoder` "none"): the file's audio features stand for the encoder's states, as frozen;
  a linear map brings any width to d.

What the readings come to: L_ml sums over an anchor's pairs, so that it is some tens beside an L_cls below 3, and at
lambda_ml = 0.1 about two thirds of the whole loss (train_ml over train_total in history.csv). Figure 4 therefore sweeps
the temperature of L_ml, and through K a term of L_con, before anything else.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.base import Batch, Encoded, Group, Inputs, Latents, Output
from bench.models.parts import slad_losses
from bench.models.parts.audio_encoder import Bins, hear, listener
from bench.models.parts.cross_modal import CrossModalEncoder
from bench.models.parts.meter import Meter
from bench.models.parts.text import Hidden, TextBackbone
from bench.models.parts.words import filled, masked_mean, one_of

VERSION = 2  # 2: preceding transcripts joined without a stray piece; labels and vectors of the losses in float32
BRIEF = {"audio_encoder": "tiny-audio", "heads": 4}  # parameters of a quick look

MODALITIES = ("text", "audio")
CONTEXT = 2  # preceding clips that the data have
WAVES = 16  # rows of a batch in evaluation: the front of a 6 s wave takes 40 MB per layer


@dataclass(frozen=True)
class Params:
    """Table 4, MOSI."""

    encoder: str = "roberta-base"
    finetune: bool = True
    audio_encoder: str = "data2vec-audio-base"  # audio encoder; "none": the file's audio features
    finetune_audio: bool = True
    max_len: int | None = None  # word pieces of raw transcripts; None: 96 (MOSI, MOSEI) or 64 (MMML)
    context: int = CONTEXT  # preceding clips, 2 or 0
    omega: bool = True  # label similarity weights
    con: bool = True  # modality contrastive loss
    rep: bool = True  # modality repulsive loss
    ml: bool = True  # multi-label contrastive loss
    alpha: float = 0.5  # bandwidth, Eq. 11
    tau: float = 0.2  # temperature, Eq. 13
    top_k: int = 3  # hard negatives K, Eq. 15
    margin: float = 0.2  # m, Eq. 18, as a cosine
    lambda_rep: float = 0.1  # weight of L_rep
    lambda_ml: float = 0.1  # weight of L_ml
    lambda_uni: float = 1.0  # weight of the pseudo-labels within L_cls
    heads: int = 12
    depth: int = 1  # cross-modal layers
    dropout: float = 0.3
    head: tuple[int, ...] = (768, 512)  # hidden widths of the prediction head
    labels: str = "predicted"  # y of Eq. 7-21: the "predicted" pseudo-labels, or the "given" ones
    label_scale: str = "bound"  # labels are divided by their "bound", or "raw"
    repel: str = "others"  # L_rep counts pairs with "others", or "all", a sample's own too
    items: str = "labels"  # what Eq. 19-21 compare: 2B "labels", or B "samples"
    pairs: str = "sum"  # losses of an item's pairs: their "sum" or "mean"

    def __post_init__(self) -> None:
        one_of("slad", "labels", self.labels, ("predicted", "given"))
        one_of("slad", "label_scale", self.label_scale, ("bound", "raw"))
        one_of("slad", "repel", self.repel, ("others", "all"))
        one_of("slad", "items", self.items, ("labels", "samples"))
        one_of("slad", "pairs", self.pairs, ("sum", "mean"))
        if self.context not in (0, CONTEXT):
            raise BenchError(f"slad: context must be {CONTEXT} or 0 preceding clips, not {self.context}")
        if self.tau <= 0 or self.alpha <= 0 or self.top_k < 1:
            raise BenchError("slad: tau and alpha must be above 0, top_k at least 1")


def perceptron(widths: Iterable[int], dropout: float, *last: nn.Module) -> nn.Sequential:
    """Linear layers with ReLU and dropout between them."""
    widths = list(widths)
    layers = [nn.Linear(widths[0], widths[1])]
    for d, out in zip(widths[1:], widths[2:]):
        layers += [nn.ReLU(), nn.Dropout(dropout), nn.Linear(d, out)]
    return nn.Sequential(*layers, *last)


def _direction(z: Tensor, mask: Tensor) -> Tensor:
    """Mean over the valid steps of z [B, l, d], of length 1, [B, d]; float32 at least: in bf16 its cosines tie."""
    return F.normalize(masked_mean(z.to(torch.promote_types(z.dtype, torch.float32)), mask), dim=1)


class Model(TextBackbone):
    """SLaD. Prediction [B], linear."""

    reads_padding = False

    def __init__(self, params: Params, inputs: Inputs) -> None:
        p = self.params = params
        super().__init__(p.encoder, p.finetune, inputs)
        d, self.steps = self.text_width, inputs.text[0]  # l
        self.audio_encoder = listener("slad", p.audio_encoder, p.finetune_audio, inputs)
        frames, width = inputs.audio
        if self.audio_encoder is not None:
            frames, width, self.eval_batch = self.audio_encoder.frames(frames), self.audio_encoder.hidden_size, WAVES
            self.test_only = self.test_only or self.audio_encoder.is_test_only
        if p.context and not inputs.context:
            raise BenchError("slad: these data have no preceding clips; set context to 0")
        self.streams = ("", "context_") if p.context else ("",)
        self.bins = Bins(frames, self.steps)
        self.project = nn.Identity() if width == d else nn.Linear(width, d)
        self.pseudo = nn.ModuleDict({m: perceptron((d * len(self.streams), d, 1), p.dropout) for m in MODALITIES})
        self.invariant = perceptron((d, d, d), p.dropout, nn.LayerNorm(d))
        self.cross_input, self.cross_invariant = (CrossModalEncoder(d, p.heads, p.depth, p.dropout) for _ in range(2))
        self.dropout = nn.Dropout(p.dropout)
        self.head = perceptron((4 * d * len(self.streams), *p.head, 1), 0.0)
        specific = nn.ModuleDict({m: perceptron((d, d, d), p.dropout, nn.ReLU()) for m in MODALITIES})
        self.specific = specific if p.rep else None
        kinds = (*MODALITIES, *(f"invariant_{m}" for m in MODALITIES))
        self.latent_dims = {f"{stream}{kind}": (self.steps, d) for stream in self.streams for kind in kinds}
        self._meter = Meter()

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        """Latents of one stream; beside them the vectors that its pseudo-labels are read from."""
        left = self.steps - hidden.mask.shape[1]  # the encoder stops at the longest transcript
        text_mask = F.pad(hidden.mask, (0, left))  # (B, l)
        text = F.pad(hidden.last * hidden.mask[..., None], (0, 0, 0, left))  # X'^t, (B, l, d)
        frames = hear(self.audio_encoder, batch)
        binned, heard = self.bins(frames.last, frames.mask)
        audio = self.project(binned) * heard[..., None]  # X'^a, (B, l, d)
        masks = {"text": text_mask, "audio": heard}
        latents = {"text": text, "audio": audio}
        latents |= {f"invariant_{m}": self.invariant(latents[m]) * masks[m][..., None] for m in MODALITIES}
        side = {f"mask_{m}": mask for m, mask in masks.items()}
        return Encoded(latents, side | {"pool_text": text[:, 0], "pool_audio": masked_mean(audio, heard)})

    def encode(self, batch: Batch) -> Encoded:
        """The clip, and what went before it through the same networks."""
        clip = super().encode(batch)
        latents, side = clip.latents, dict(clip.side)
        pools = {m: [side[f"pool_{m}"]] for m in MODALITIES}
        if self.params.context:
            before = super().encode({k.removeprefix("context_"): v for k, v in batch.items() if "context_" in k})
            latents = latents | {f"context_{k}": z for k, z in before.latents.items()}
            pools = {m: [*x, before.side[f"pool_{m}"]] for m, x in pools.items()}
        with torch.autocast(clip.side["pool_text"].device.type, enabled=False):  # in bf16 two of them tie by rounding
            pooled = {m: torch.cat(x, 1).to(torch.promote_types(x[0].dtype, torch.float32)) for m, x in pools.items()}
            side |= {f"pseudo_{m}": self.pseudo[m](x).squeeze(1) for m, x in pooled.items()}  # Eq. 1-2, (B,)
        return Encoded(latents, side)

    def fuse(self, latents: Latents) -> Output:
        read = []
        for stream in self.streams:
            inputs = [latents[f"{stream}{m}"] for m in MODALITIES]  # (B, l, d) each
            masks = [filled(x) for x in inputs]
            read += self.cross_invariant(*(latents[f"{stream}invariant_{m}"] for m in MODALITIES), *masks)  # Eq. 3, 4
            read += self.cross_input(*inputs, *masks)  # Eq. 5, 6
        fused = torch.cat(read, 1)  # X^f, (B, 4 d), with context (B, 8 d)
        return Output(self.head(self.dropout(fused)).squeeze(1), {"fusion": fused})

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        p, z, side = self.params, encoded.latents, encoded.side
        target = {m: batch.get(f"label_{m}", batch["label"]) for m in MODALITIES}
        error = {m: F.l1_loss(side[f"pseudo_{m}"], target[m]) for m in MODALITIES}
        losses = {f"uni_{m}": p.lambda_uni * e for m, e in error.items()} if p.lambda_uni else {}
        labels = target if p.labels == "given" else {m: side[f"pseudo_{m}"].detach() for m in MODALITIES}
        scale = self.label_bound if p.label_scale == "bound" else 1.0
        y = [labels[m].float() / scale for m in MODALITIES]
        omega = slad_losses.label_similarity(*y, p.alpha)  # (B,)
        self._note(y, omega, error)
        omega = omega if p.omega else torch.ones_like(omega)
        if p.con or p.ml:
            alike = [_direction(z[f"invariant_{m}"], side[f"mask_{m}"]) for m in MODALITIES]
        if p.con:
            losses["con"] = slad_losses.contrastive(*alike, omega, p.tau, p.top_k)
        if p.rep:
            apart = [_direction(self.specific[m](z[m]), side[f"mask_{m}"]) for m in MODALITIES]
            losses["rep"] = p.lambda_rep * slad_losses.repulsive(*apart, omega, p.tau, p.margin, p.repel == "all")
        if p.ml:
            switches = p.items == "samples", p.pairs == "mean"
            losses["ml"] = p.lambda_ml * slad_losses.multi_label(*alike, *y, p.tau, *switches)
        return losses

    def _note(self, y: list[Tensor], omega: Tensor, error: Mapping[str, Tensor]) -> None:
        relation = slad_losses.relations(*y)._asdict()
        shares = {f"relation_{name}": held.float().mean() for name, held in relation.items()}
        self._meter.add({"omega": omega.mean(), **shares, **{f"pseudo_mae_{m}": e for m, e in error.items()}})

    def on_epoch_start(self, epoch: int) -> None:
        self._meter.reset()

    def scalars(self) -> dict[str, float]:
        """Epoch means in training: omega (switched off or not), the shares of the three relations, the pseudo-labels'
        errors."""
        return self._meter.read()

    def groups(self) -> list[Group]:
        """Weight decay of all parameters alike, AdamW's default; the frozen front is in no group."""
        apart = [(n.startswith("audio_encoder."), q) for n, q in self.own_named_parameters() if q.requires_grad]
        audio = [q for is_audio, q in apart if is_audio]
        found = [*self.encoder_groups(), *([Group("audio-encoder", audio)] if audio else [])]
        return [*found, Group("main", [q for is_audio, q in apart if not is_audio])]
