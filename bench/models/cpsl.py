"""CP+SL: conflict-aware penalty and statistical loss (Dai, Liang, Mai). No code is released.

    A, V [B, L, d_m], scaled to [0, 1] --AdaptiveEncoder--> mu_m, var_m -> Z_m [B, L, 256]      Eq. 1   (AME)
    F_av = gated(Z_a, Z_v) [B, L, 512];  H = T + beta tanh(W_p F_av)  [B, L, d_t]               Eq. 2
    H -> LayerNorm, dropout, pool, Lin tanh, Lin -> prediction
    L = task + recon + uni + div + stat, weighted                                               Eq. 3, 4 (SL)
    gradients of the two encoders are scaled by c_m in epochs 0 to 25, counted from 0            Eq. 5, 6 (GM, GE, CP)

Latents for a mixer: T (zero at padding), Z_a and Z_v, [B, L, .]. TABLE2_ROWS maps the rows of the paper's Table 2 to
parameters; A1 = B1, A2 = C3 and A5 = C4.

What the paper leaves open, our reading, and the switch to another one:
- Everything unsaid follows ITHP, whose experimental set-up is the same (words.py): no attention mask
  (`attend_padding`), the readout, new layers from normal(0, 0.02) with zero bias, weight decay 0.01. Batch 8 is the whole batch; task and unimodal losses are MSE.
- Pooling is not named. ITHP pools [CLS]; but the encoders here work position by position, and [CLS] carries no audio
  or vision, so that under "first" no such feature of a sample could reach its prediction and Eq. 2 would be void.
  `pool` "mean" (over word pieces, padding left out) is the default; "first" is ITHP's.
- Min-max scaling per mini-batch, in evaluation too (`scale` "batch"); "train": by the extremes seen in training.
- Encoder: Lin ReLU dropout, then one Lin each for mean and (through softplus) variance. The latent is sampled in
  training, the mean stands for it in evaluation; `sample_at_test` samples there too, as ITHP does.
- L_recon prints squared norms; with weight 1 and hundreds of entries per sample only their mean can be meant.
- L_uni: mean over text (its [CLS]), audio and vision (mean over word pieces), one dropout and one Lin each.
- L_div "maximises information entropy", and its curve rises. `diversity` "softmax": 1 - the mean of both modalities'
  softmax entropy over latent features, as a share of log 256, in [0, 1); "gaussian": minus the entropy of N(mu, var).
  The column `entropy` of the history is the rising quantity.
- L_stat averages over all B L positions, padding included, as printed; population variance.
- AME off: the same encoder without variance head and sampling. SL is then undefined (rows B3): `sl_without_ame`
  "features": the feature mean and variance of Z_m itself; "branch": the variance head is there for the loss alone.
- "Baseline" (A0) has all switches off and keeps the reconstruction, unimodal and diversity losses; the other reading,
  task loss alone, is lambda_recon = lambda_uni = lambda_div = 0.
- GM: MAE of the unimodal heads on the training batch. Scaled are the encoders (trunk, mean, variance), not decoders,
  heads or fusion, and never the text encoder. Text hence counts in no coefficient.
- CP: g_m is the mean over the encoder's parameter tensors of the gradient's norm. `conflict_norm` "raw": before GM
  scales it, as Eq. 6 is written; "modulated": after it, as the introduction puts it. Only the better modality can be in
  conflict, so c_m is at most 0.238 there, and 0.119 with the penalty.
- GE is named only. As in OGM-GE: normal noise with the standard deviation of the gradient before scaling, here on the
  encoders' weight matrices.
- The imbalance degree (Fig. 3b) is |mean c_a - mean c_v| of an epoch. c_m is 1 in epochs without modulation.
- `initial_variance`: what var_m starts from; the zero bias above gives softplus(0) = 0.69 (None).
- Gradients summed over several batches (`accumulate` of the protocol) would be scaled again at each; keep it at 1.

What these readings come to, and cannot be read off the paper:
- The initial variance of 0.69 stands beside features whose variance along their width is 0.002 to 0.02 (MOSI, mean over
  batches of 8: words of the word-level file 0.019 and 0.011, aligned file with its padding 0.002) once they are
  scaled to [0, 1] over the whole batch: noise drowns audio and vision, and L_stat does not repair it. Its weight is
  0.1 / 4 a term, and AdamW at 1e-5 moves a parameter by 1e-5 an update at most: 0.025 over the 4,800 updates of MOSI
  with the schedule's mean rate, where the head's output before the softplus would have to fall by 5.1.
  `initial_variance` = 0.006 starts among the features' own.
- CP is nearly inert beside GE. GE adds noise of the un-modulated gradient's spread s to a gradient scaled by c <= 0.238:
  by CP's eta = 0.5 the norm of what the optimiser sees falls from s sqrt(1 + c^2), 1.028 s at most, to 1.007 s.
  Without GE the scale of a gradient that stays in conflict cancels in AdamW's ratio of moments too.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.base import Batch, Encoded, Inputs, Latents, Output
from bench.models.parts import modulation
from bench.models.parts.adaptive import (
    AdaptiveEncoder,
    Decoder,
    GatedFusion,
    Moments,
    gaussian_entropy,
    sample,
    softmax_entropy,
    statistical_loss,
)
from bench.models.parts.meter import Meter
from bench.models.parts.text import Hidden
from bench.models.parts.words import POOLS, RANGES, MinMax, Readout, WordBackbone, filled, initialise, masked_mean, one_of

VERSION = 2  # 2: new layers start as ITHP's; gradient noise is drawn in every epoch, added within its window

STREAMS = ("audio", "vision")  # the modalities that are encoded and modulated

TABLE2_ROWS = {  # row of the paper's Table 2 -> parameters
    "A0": {"ame": False, "gm": False, "ge": False, "cp": False, "sl": False},
    "A1": {"ame": True, "gm": False, "ge": False, "cp": False, "sl": False},
    "A2": {"ame": True, "gm": True, "ge": False, "cp": False, "sl": False},
    "A3": {"ame": True, "gm": True, "ge": True, "cp": False, "sl": False},
    "A4": {"ame": True, "gm": True, "ge": True, "cp": True, "sl": False},
    "A5": {"ame": True, "gm": True, "ge": True, "cp": False, "sl": True},
    "A6": {"ame": True, "gm": True, "ge": True, "cp": True, "sl": True},
    "B1": {"ame": True, "gm": False, "ge": False, "cp": False, "sl": False},
    "B2": {"ame": False, "gm": True, "ge": False, "cp": False, "sl": False},
    "B3": {"ame": False, "gm": False, "ge": False, "cp": False, "sl": True},
    "B4": {"ame": False, "gm": True, "ge": True, "cp": False, "sl": False},
    "B5": {"ame": False, "gm": True, "ge": False, "cp": True, "sl": False},
    "C1": {"ame": False, "gm": True, "ge": True, "cp": True, "sl": False},
    "C2": {"ame": True, "gm": False, "ge": False, "cp": False, "sl": True},
    "C3": {"ame": True, "gm": True, "ge": False, "cp": False, "sl": False},
    "C4": {"ame": True, "gm": True, "ge": True, "cp": False, "sl": True},
    "C5": {"ame": True, "gm": True, "ge": False, "cp": True, "sl": True},
}


@dataclass(frozen=True)
class Params:
    """Sec. 3.1. The five switches are the columns of Table 2."""

    encoder: str = "deberta-v3-base"
    finetune: bool = True
    max_len: int = 50  # tokens of a text, L
    ame: bool = True  # adaptive modality encoding
    gm: bool = True  # gradient modulation
    ge: bool = True  # gradient enhancement
    cp: bool = True  # conflict-aware penalty
    sl: bool = True  # statistical loss
    inter: int = 256  # intermediate dimension, width of Z_m
    fused: int = 512  # width of the fused vector, d_f
    dropout: float = 0.3  # dropout of encoders and decoders
    head_dropout: float = 0.5  # dropout of classifier and unimodal heads
    pooler_dropout: float = 0.1  # dropout of the pooler, from ITHP
    beta: float = 1.0  # scale of the shift of the text, β, Eq. 2
    lambda_recon: float = 1.0  # weight of L_recon
    lambda_uni: float = 0.5  # weight of L_uni
    lambda_div: float = 0.1  # weight of L_div
    lambda_stat: float = 0.1  # weight of L_stat
    alpha: float = 1.0  # strength of gradient modulation, α, Eq. 5
    eta: float = 0.5  # factor of c_m where gradients are in conflict, η, Eq. 6
    modulate_from: int = 0  # first epoch with gradient modulation, counted from 0
    modulate_to: int = 25  # last epoch with gradient modulation, counted from 0
    initial_variance: float | None = None  # variance that AME starts from; None: softplus(0)
    pool: str = "mean"  # vector of a sequence: "mean" over word pieces, or the "first" position
    scale: str = "batch"  # min-max scaling: by the "batch", or by the extremes seen in training ("train")
    attend_padding: bool = True
    sample_at_test: bool = False
    diversity: str = "softmax"  # entropy of L_div: "softmax" or "gaussian"
    sl_without_ame: str = "features"  # L_stat without AME: variance of the "features", or a variance "branch" for it alone
    conflict_norm: str = "raw"  # gradient norm of CP: "raw", before GM scales it, or "modulated"

    def __post_init__(self) -> None:
        one_of("cpsl", "pool", self.pool, POOLS)
        one_of("cpsl", "scale", self.scale, RANGES)
        one_of("cpsl", "diversity", self.diversity, ("softmax", "gaussian"))
        one_of("cpsl", "sl_without_ame", self.sl_without_ame, ("features", "branch"))
        one_of("cpsl", "conflict_norm", self.conflict_norm, ("raw", "modulated"))
        if self.inter < 2:
            raise BenchError("cpsl: inter must be at least 2; a single latent feature has neither entropy nor spread")
        if self.initial_variance is not None and self.initial_variance <= 0:
            raise BenchError(f"cpsl: initial_variance must be above 0, not {self.initial_variance}")
        if (self.ge or self.cp) and not self.gm:
            raise BenchError("cpsl: ge and cp change modulated gradients; set gm to true, or both to false")
        if self.gm and not self.lambda_uni:
            raise BenchError("cpsl: gm compares the errors of the unimodal heads, which need a lambda_uni above 0")
        if self.diversity == "gaussian" and self.lambda_div and not self.ame:
            raise BenchError("cpsl: the gaussian diversity needs the variances of ame")


class Model(WordBackbone):
    """CP+SL. Prediction [B], linear. All optional parts are drawn in any case and dropped where they are not used, so
    that every row of Table 2 starts from the same weights."""

    eval_batch = 128  # ITHP's: features are scaled over the batch

    @classmethod
    def check(cls, params: Params, protocol: Any) -> None:
        if params.gm and protocol.accumulate > 1:
            raise BenchError(f"cpsl: gradient modulation scales each batch's gradients, so sums over {protocol.accumulate} batches would be scaled again and again; set train.accumulate=1 or backbone.gm=false")

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__("cpsl", params.encoder, params.finetune, params.attend_padding, inputs)
        p = self.params = params
        widths = {"audio": inputs.audio[1], "vision": inputs.vision[1]}
        variance = p.ame or (p.sl and p.sl_without_ame == "branch")
        self.scale = nn.ModuleDict({m: MinMax(p.scale) for m in STREAMS})
        self.encoders = nn.ModuleDict(
            {m: AdaptiveEncoder(widths[m], p.inter, p.dropout, variance, p.initial_variance) for m in STREAMS}
        )
        self.fusion = GatedFusion(p.inter, p.fused)
        self.inject = nn.Linear(p.fused, self.text_width)  # W_p
        self.readout = Readout(self.text_width, p.pool, p.head_dropout, p.pooler_dropout)
        decoders = nn.ModuleDict({m: Decoder(p.inter, widths[m], p.dropout) for m in STREAMS})
        heads = nn.ModuleDict(
            {m: nn.Sequential(nn.Dropout(p.head_dropout), nn.Linear(d, 1))
             for m, d in {"text": self.text_width, **dict.fromkeys(STREAMS, p.inter)}.items()}
        )
        initialise(self.fusion, self.inject, self.readout, decoders, heads)
        self.decoders = decoders if p.lambda_recon else None
        self.heads = heads if p.lambda_uni else None
        self.latent_dims = {"text": (self.steps, self.text_width), **dict.fromkeys(STREAMS, (self.steps, p.inter))}
        self.modulation = modulation.Modulation(
            alpha=p.alpha, eta=p.eta, penalty=p.cp, noise=p.ge, penalise_modulated=p.conflict_norm == "modulated"
        )
        self.modulates: Tensor  # whether this epoch does, where a captured step reads it
        self.register_buffer("modulates", torch.tensor(True), persistent=False)
        self._trained, self._validated = Meter(), Meter()

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        p, mask = self.params, hidden.mask  # (B, L)
        latents = {"text": hidden.last * mask[..., None]}  # (B, L, d_t)
        side = {}
        for m in STREAMS:
            side[m] = self.scale[m](batch[m])  # (B, L, d_m)
            moments = self.encoders[m](side[m])
            latents[m] = sample(moments) if p.ame and (self.training or p.sample_at_test) else moments.mean
            side |= {f"{name}_{m}": x for name, x in moments._asdict().items() if x is not None}
        if self.heads is not None:
            pooled = {m: z[:, 0] if m == "text" else masked_mean(z, mask) for m, z in latents.items()}
            side |= {f"uni_{m}": self.heads[m](x).squeeze(1) for m, x in pooled.items()}  # (B,) each
        return Encoded(latents, side)

    def fuse(self, latents: Latents) -> Output:
        fused = self.fusion(latents["audio"], latents["vision"])  # F_av, (B, L, d_f)
        shift = self.inject(fused).tanh()  # P_av, (B, L, d_t)
        h = latents["text"] + self.params.beta * shift  # H, Eq. 2
        prediction, pooled = self.readout(h, filled(latents["text"]))
        return Output(prediction, {"fusion": pooled})

    def forward(self, batch: Batch) -> Output:
        """In evaluation the auxiliary losses are noted too, for the validation curves of Fig. 2."""
        encoded = self.encode(batch)
        output = self.fuse(encoded.latents)
        if not self.training and "label" in batch:
            losses, noted = self._losses(batch, encoded)
            self._validated.add(losses | noted, weight=len(batch["label"]))
        return output

    def _losses(self, batch: Batch, encoded: Encoded) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weighted losses by name; a loss of weight 0 is not computed. And the entropy, where it is."""
        p, side, z, y = self.params, encoded.side, encoded.latents, batch["label"]
        moments = {m: Moments(side[f"mean_{m}"], side.get(f"variance_{m}")) for m in STREAMS}
        losses, noted = {}, {}
        if self.decoders is not None:
            losses["recon"] = p.lambda_recon / 2 * sum(F.mse_loss(self.decoders[m](z[m]), side[m]) for m in STREAMS)
        if self.heads is not None:
            losses["uni"] = p.lambda_uni / len(self.heads) * sum(F.mse_loss(side[f"uni_{m}"], y) for m in self.heads)
        if p.lambda_div:
            softmax = p.diversity == "softmax"
            entropy = sum(softmax_entropy(z[m]) if softmax else gaussian_entropy(moments[m]) for m in STREAMS) / 2
            losses["div"] = p.lambda_div * (float(softmax) - entropy)
            noted["entropy"] = entropy
        if p.sl and p.lambda_stat:
            losses["stat"] = p.lambda_stat * statistical_loss({m: side[m] for m in STREAMS}, moments)
        return losses, noted

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        losses, noted = self._losses(batch, encoded)
        self._trained.add(noted)
        return losses

    def on_epoch_start(self, epoch: int) -> None:
        self.modulates.fill_(self.params.modulate_from <= epoch - 1 <= self.params.modulate_to)
        self._trained.reset(), self._validated.reset()

    @torch.no_grad()
    def after_backward(self, batch: Batch, encoded: Encoded, output: Output | None) -> None:
        """Gradient modulation (Eq. 5, 6); outside of its epochs gradients stay and c_m is 1."""
        p = self.params
        if not p.gm:
            return
        y = batch["label"]
        mae = {m: (encoded.side[f"uni_{m}"] - y).abs().mean() for m in STREAMS}
        gradients = {m: [q.grad for q in self.encoders[m].parameters() if q.grad is not None] for m in STREAMS}
        step = modulation.modulate(gradients, mae, self.modulation, self.modulates)
        named = {"coefficient": step.coefficient, "conflict": step.conflict, "grad_norm": step.norm, "uni_mae": mae}
        self._trained.add({f"{name}_{m}": value for name, values in named.items() for m, value in values.items()})

    def scalars(self) -> dict[str, float]:
        """Epoch means: modulation coefficients, their imbalance degree, the share of steps in conflict, gradient
        norms, unimodal errors and the entropy in training; the weighted auxiliary losses and the entropy in
        validation."""
        found = self._trained.read()
        if "coefficient_audio" in found:
            found["imbalance"] = abs(found["coefficient_audio"] - found["coefficient_vision"])
        return found | {f"valid_{name}": value for name, value in self._validated.read().items()}
