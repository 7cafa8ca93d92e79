"""SAM-LML: supervised attention mechanism for low-quality multimodal data (Mai, Han and Hu, 2025), all of its parts.

Unimodal networks give U_m; self-attention gives X_m; each modality queries every other one, and the mean over time of
what it finds is X_{m,M}; attention with a learned query pools the three, and one predictor serves the fused vector,
each X_{m,M} and the mutual-information term. In training the scores of both attentions are supervised (aux_losses);
evaluation computes none of it. Text and HCF (UR-FUNNY, MUStARD) become one modality (Eq. 33), so there are always
three. Latents: X_{m,M} [B, d], the last vectors before they are fused (Eq. 20).

What the paper leaves open, and what is done here (Sec., Eq. of the paper; a switch where two readings matter):
- Unimodal networks: depth, heads, dropout as in the authors' earlier guided-attention model; for UR-FUNNY and MUStARD
  HKT's own encoders (`blocks` "hkt"). With them the parameters are 7 % and 4 % below the printed totals; with the
  other kind at HKT's depths ("mult") 11 % and 12 %.
  Convolutions have no bias. Audio and vision are scaled to [0, 1] per mini-batch, in evaluation too, as in that model
  (`scale` "batch"; "train": by the extremes seen in training).
- Padding is part of every sequence: the text encoder attends to it (`attend_padding`) and no attention, mean or loss
  leaves it out (`mask_padding` does): Eq. 14-15 average over T x T entries.
- Single head, W_q, W_k, W_v without bias; rankings compare raw scores (Eq. 4-28 print A, not its softmax). One
  LayerNorm per query modality in Eq. 17. The learned query, printed 1 x T, is 1 x d and starts at normal(0, 0.02).
- Every matrix loss is a mean over entries and samples; L^n, L^de and the others are sums over the 3 modalities and the
  6 ordered pairs (Eq. 29). Its weights follow Eq. 29, which Sec. A.13 contradicts in words.
- lambda is uniform, one per step and modality or pair; Eq. 4 and 6 share one noise; key and augmented key are not
  detached. Noise of the inter-modal losses stands for X_2, the key side.
- "Variance" (Eq. 14) is the population standard deviation, as its Std says. A row of T weights has at most
  sqrt(T - 1) / T: beyond T = 99 a beta of 0.1 can never be met (unaligned data), and the loss only pulls.
- Context (Eq. 15): rho and eta are one number; the window is clipped at the border; intra-modal only.
- Mixing (Eq. 28): the mean over the T diagonal entries. As printed, the entries off the diagonal add the constant
  gamma_1; a mean over all would be this loss / T plus a constant. Sequences of unequal length are compared at equal
  relative time.
- Decomposition (Figure 5, not printed in words): trunk Lin ReLU, two linear heads; composition Lin ReLU Lin.
  Orthogonality is the root mean square entry of U^de K^de^T, reconstruction the root mean square error of a sample;
  U is not detached. Closeness (Eq. 10): mean square per element, eps 0.1 (not printed), weight alpha as printed.
- Eq. 12 predicts step by step; its gradient reaches the predictor, as printed (`detach_predictor` stops it).
- Predictor: Lin(d, 100) ReLU Lin(100, 1), linear output (regression) or a logit.
- A missing modality (batch keys keep_text, keep_audio, keep_vision [B] bool) is Gaussian noise "as the features of that
  modality" (Sec. 3, whose features are the input sequences Z_m): audio and vision at their unimodal network's input,
  after the scaling; text, whose Z_l are word pieces (Eq. 30), at U_l, HCF with it. `missing_level` "unimodal": U_m of
  all three. Noise is fresh in training, in evaluation a function of the sample's row alone. What is missing is blanked
  before anything is computed of it, so that its values move no other row of the mini-batch through the scaling.
- Losses of a missing modality are left out for that sample: the intra-modal ones, and those of pairs whose key or query
  it is. Between noise and noise there is no ranking to learn, and Eq. 28 with a missing query would rank a key mixed
  with noise above the key itself. The predictive losses stay.
- Noise on U_m (Eq. 35) comes through `feature_hook`, after Eq. 33 and before the replacement of missing modalities at U_m.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.base import Batch, Encoded, Inputs, Latents, Output
from bench.models.parts.ranking import Mask, step_mean
from bench.models.parts.samlml_losses import inter_losses, intra_losses
from bench.models.parts.supervised_attention import DETERMINISTIC, OFF, RANKING, Attention, Decomposition
from bench.models.parts.text import Hidden
from bench.models.parts.unimodal import MODALITIES, UnimodalBackbone, check
from bench.models.parts.words import one_of

VERSION = 2  # 2: missing modalities blanked, noise where Sec. 3 has it, pairs with a missing query; HKT's encoders

_LOSSES = {"mse": F.mse_loss, "l1": F.l1_loss, "bce": F.binary_cross_entropy_with_logits}

TABLE4_ROWS = {
    "W/O Supervised Learning": {"intra": False, "inter": False},
    "Unsupervised Intra-Modal Attention": {"intra": False},
    "Unsupervised Inter-Modal Attention": {"inter": False},
    "W/O Noise Addition Operation": {"noise": "off"},
    "W/O Modality Mixing Operation": {"mixing": "off"},
    "W/O Modality Decomposition Replacement": {"decomposition": "off"},
    "W/O Variance Constraint": {"variance": False},
    "W/O Context Constraint": {"context": False},
    "SAM-LML": {},
}
TABLE12_ROWS = {
    "NAL-v2": {"noise": "deterministic"},
    "MML-v2": {"mixing": "deterministic"},
    "MDRL-v2": {"decomposition": "deterministic"},
    "SAM-LML": {},
}


@dataclass(frozen=True)
class Params:
    """Defaults: MOSI (Table 7)."""

    encoder: str = "deberta-v3-base"
    finetune: bool = True
    max_len: int = 50  # word pieces of word-level data; other files bring their own length
    attend_padding: bool = True
    mask_padding: bool = False  # leave padding out of attentions, means and losses
    scale: str = "batch"  # min-max scaling of audio and vision: by the "batch", by the "train" split's extremes, or "none"
    order: str = "conv-transformer"  # order in a unimodal network: "conv-transformer" (Eq. 31) or "transformer-conv" (Eq. 32)
    blocks: str = "mult"  # transformer of the unimodal networks: "mult" or "hkt" (sequence_nets.py)
    layers: tuple[int, ...] = (3, 3, 3)  # of audio, vision, HCF (parts/unimodal.py)
    heads: tuple[int, ...] = (5, 5, 2)
    feed_forward: tuple[int, ...] = (256, 128, 128)  # hidden width of the feed-forward part, "hkt" only
    attention_dropout: float = 0.3  # dropout of attention weights, "mult" only
    dropout: float = 0.3  # dropout of embedding, feed-forward and residual, "mult" only
    predictor_width: int = 100  # inside the head
    loss: str = "mse"  # loss of X_{m,M}'s predictions, the protocol's own: "mse", "l1" or "bce"
    d: int = 120  # width of the unimodal sequences
    rho: int = 5  # entries of the window around the diagonal that is a step's context, ρ
    beta: float = 0.1  # margin of the variance constraint, β
    gamma: float = 0.5  # margin of the context constraint, γ
    gamma_1: float = 1.0  # margin of the rankings, γ_1
    epsilon: float = 0.1  # ε of Eq. 10; not in Table 7
    alpha_p: float = 1.0  # weight of the predictive losses of X_{m,M}
    alpha_de: float = 0.01  # weight of decomposition, within alpha
    alpha: float = 0.005  # weight of noise addition and decomposition replacement, α
    alpha_mix: float = 0.01  # weight of modality mixing
    alpha_c: float = 0.005  # weight of the variance and context constraints
    intra: bool = True  # any supervision of the intra-modal attention
    inter: bool = True  # any supervision of the inter-modal attention
    noise: str = "ranking"  # noise addition: "ranking", "deterministic" (NAL-v2) or "off"
    mixing: str = "ranking"  # modality mixing: "ranking", "deterministic" (MML-v2) or "off"
    decomposition: str = "ranking"  # decomposition replacement: "ranking", "deterministic" (MDRL-v2) or "off"
    variance: bool = True  # use the variance constraint (Eq. 14)
    context: bool = True  # use the context constraint (Eq. 15)
    missing_level: str = "input"  # noise for missing audio and vision: "input" or "unimodal"
    detach_predictor: bool = False  # keep Eq. 12's gradient from the predictor

    def __post_init__(self) -> None:
        check("samlml", self)
        one_of("samlml", "missing_level", self.missing_level, ("input", "unimodal"))
        one_of("samlml", "loss", self.loss, tuple(_LOSSES))
        for name in ("noise", "mixing", "decomposition"):
            one_of("samlml", name, getattr(self, name), (RANKING, DETERMINISTIC, OFF))


class Model(UnimodalBackbone):
    """SAM-LML. Prediction [B], linear. `forward`'s features hold the attention matrices: attention_<query>_<key> and
    scores_<query>_<key> [B, T, S], attention_<m> and scores_<m> [B, T, T] (weights, raw scores), attention_fusion
    [B, 3]."""

    reads_keep = True  # deals with missing modalities itself

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params, inputs)
        p = params
        self.intra_attention = nn.ModuleDict({m: Attention(p.d) for m in MODALITIES})
        self.inter_attention = nn.ModuleDict({m: Attention(p.d) for m in MODALITIES})  # by query modality
        self.pool = Attention(p.d)
        self.pool_query = nn.Parameter(torch.empty(1, p.d).normal_(std=0.02))
        self.predictor = nn.Sequential(
            nn.Linear(p.d, p.predictor_width), nn.ReLU(), nn.Linear(p.predictor_width, 1)
        )
        # last, so that every ablation starts from the same weights
        self.decompositions = (
            nn.ModuleDict({m: Decomposition(p.d) for m in MODALITIES}) if p.intra and p.decomposition != OFF else None
        )
        self.latent_dims = {m: (p.d,) for m in MODALITIES}
        self.at_input = ("audio", "vision") if p.missing_level == "input" else ()  # where missing ones become noise

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        features = self.unimodal(hidden, batch)  # U_m, (B, T_m, d)
        masks = self._masks(hidden.mask, batch)
        values, side = {}, {f"mask_{m}": mask for m, mask in masks.items() if mask is not None}
        for m, u in features.items():
            attention = self.intra_attention[m]
            query = attention.query(u)
            found = attention(query, u, masks[m])
            values[m] = found.value  # X_m
            side |= {f"features_{m}": u, f"query_{m}": query, f"values_{m}": found.value}
            side |= {f"scores_{m}": found.scores, f"attention_{m}": found.weights}
        latents = {}
        for m in MODALITIES:
            attention = self.inter_attention[m]
            query = attention.query(values[m])
            side[f"cross_query_{m}"] = query
            seen = []
            for s in (s for s in MODALITIES if s != m):
                found = attention(query, values[s], masks[s])
                seen.append(step_mean(found.value, masks[m]))  # (B, d)
                side |= {f"scores_{m}_{s}": found.scores, f"attention_{m}_{s}": found.weights}
            latents[m] = torch.stack(seen).mean(0)  # X_{m,M}: both have T_m steps, so Eq. 19 is the mean of means
        return Encoded(latents, side)

    def _masks(self, text: Tensor, batch: Batch) -> dict[str, Mask]:
        """Valid steps [B, T_m] of each modality, or None where padding counts."""
        if not self.params.mask_padding:
            return dict.fromkeys(MODALITIES)
        masks: dict[str, Mask] = {"text": text}
        for m in ("audio", "vision"):
            steps = batch[m].shape[1]
            if steps == text.shape[1]:  # aligned sequences share the text's steps
                masks[m] = text
            else:
                masks[m] = (torch.arange(steps, device=text.device) < batch[f"{m}_lengths"][:, None]).float()
        return masks

    def fuse(self, latents: Latents) -> Output:
        stacked = torch.stack([latents[m] for m in MODALITIES], 1)  # (B, 3, d)
        found = self.pool(self.pool.query(self.pool_query), stacked)  # Eq. 21-22
        fused = found.value.squeeze(1)  # (B, d)
        return Output(self._predict(fused), {"fusion": fused, "attention_fusion": found.weights.squeeze(1)})

    def forward(self, batch: Batch) -> Output:
        encoded = self.encode(batch)
        output = self.fuse(encoded.latents)
        matrices = {k: v for k, v in encoded.side.items() if k.startswith(("attention_", "scores_"))}
        return Output(output.prediction, {**output.features, **matrices})

    def _predict(self, x: Tensor) -> Tensor:
        return self.predictor(x).squeeze(-1)

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        p, y = self.params, batch["label"]
        predictive = _LOSSES[p.loss]
        each = torch.stack([predictive(self._predict(encoded.latents[m]), y) for m in MODALITIES])
        losses = {"cross": p.alpha_p * each.mean()}  # Eq. 25
        kept = {m: batch.get(f"keep_{m}") for m in MODALITIES}
        if p.intra:
            losses |= intra_losses(p, self.intra_attention, self.decompositions, self.predictor, encoded.side, kept)
        if p.inter:
            losses |= inter_losses(p, self.inter_attention, encoded.side, kept)
        return losses
