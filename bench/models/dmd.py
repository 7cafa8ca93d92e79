"""DMD: decoupled multimodal distilling (Li et al., CVPR 2023).

    x_m: convolution of each sequence [B, d, T_m]; s_m = own 1x1 convolution, c_m = a shared one; x_m is rebuilt from both
    common path: self-attention of each c_m, last steps side by side [B, 3d] -> residual block -> Lin
    specific path: MulT's six cross-modal and three memory encoders over the s_m, last steps h_m [B, 2d]
    prediction: sigmoid(Lin h_m) and sigmoid(Lin common), side by side [B, 9d] -> residual block -> Lin
    each c_m and each h_m has a head of its own; two graphs distil between the modalities (parts/distillation.py)
    loss = L1 of all eight predictions + lambda_graph (homogeneous logit, reg; heterogeneous logit, repr, reg)
    + lambda_decouple (cycle + reconstruction + 0.1 (label margin + orthogonality))

Latents: h_m, text, audio and vision [B, 2d], and common [B, 3d].

Quirks kept (docs/quirks.md): the orthogonality loss takes its cosine over the batch, as torch 1.9 read the release's
call (`orthogonal` "channel": over the channels); the heterogeneous representation loss pushes representations apart;
the homogeneous one is not in the loss; gradients of ten batches are summed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.base import Batch, Encoded, Inputs, Latents, Output
from bench.models.parts.distillation import Distillation, label_margin, orthogonality
from bench.models.parts.encoder import Encoder, Rates
from bench.models.parts.layers import dropout, sinusoid
from bench.models.parts.text import Hidden, TextBackbone
from bench.models.parts.words import one_of

VERSION = 1
MODALITIES = ("text", "vision", "audio")
CROSS = (("text", "audio"), ("text", "vision"), ("audio", "text"), ("audio", "vision"), ("vision", "text"), ("vision", "audio"))


@dataclass(frozen=True)
class Params:
    """The release's values for MOSI."""

    encoder: str = "bert-base-uncased"
    finetune: bool = True
    width: int = 50  # width of the convolved sequences, d
    heads: int = 10
    levels: int = 4
    text_kernel: int = 5  # kernel size of the text's convolution, steps
    audio_kernel: int = 5  # kernel size of the audio's convolution, steps
    vision_kernel: int = 5  # kernel size of the vision's convolution, steps
    attention_dropout_text: float = 0.3
    attention_dropout_audio: float = 0.2
    attention_dropout_vision: float = 0.0
    relu_dropout: float = 0.0
    residual_dropout: float = 0.0
    embed_dropout: float = 0.2
    output_dropout: float = 0.5  # of the residual blocks before the heads
    text_dropout: float = 0.5  # of the text sequence
    graph_low: int = 64  # hidden width of the homogeneous graph
    graph_high: int = 32  # hidden width of the heterogeneous graph
    lambda_graph: float = 0.05  # weight of the graphs' losses
    lambda_decouple: float = 0.1  # weight of the decoupling losses
    orthogonal: str = "batch"  # the orthogonality loss takes its cosine over the "batch" or the "channel"

    def __post_init__(self) -> None:
        one_of("dmd", "orthogonal", self.orthogonal, ("batch", "channel"))


class Residual(nn.Module):
    """x + Lin(dropout(ReLU(Lin x)))."""

    def __init__(self, width: int, hidden: int, rate: float) -> None:
        super().__init__()
        self.first, self.second, self.rate = nn.Linear(width, hidden), nn.Linear(hidden, width), rate

    def hidden(self, x: Tensor) -> Tensor:
        return self.first(x).relu()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(dropout(self.hidden(x), self.rate, self.training))


class Model(TextBackbone):
    """DMD. Prediction [B], linear. Raises BenchError for a modality with fewer steps than its kernel."""

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params.encoder, params.finetune, inputs)
        p, d = params, params.width
        self.params = params
        widths = {"text": self.text_width, "audio": inputs.audio[1], "vision": inputs.vision[1]}
        kernels = {m: getattr(p, f"{m}_kernel") for m in MODALITIES}
        self.steps = {m: getattr(inputs, m)[0] - kernels[m] + 1 for m in MODALITIES}
        for m, t in self.steps.items():
            if t < 1:
                raise BenchError(f"dmd: {m} has fewer time steps than its convolution's kernel of {kernels[m]}")

        def each(make) -> nn.ModuleDict:
            return nn.ModuleDict({m: make(m) for m in MODALITIES})

        table = sinusoid(max(self.steps.values()), 2 * d), sinusoid(max(self.steps.values()), d)

        def encoder(source: str, wide: bool, levels: int) -> Encoder:
            rates = Rates(getattr(p, f"attention_dropout_{source}"), p.relu_dropout, p.residual_dropout, p.embed_dropout)
            return Encoder(2 * d if wide else d, p.heads, levels, rates, table[0] if wide else table[1])

        self.project = each(lambda m: nn.Conv1d(widths[m], d, kernels[m], bias=False))
        self.specific, self.common = each(lambda m: nn.Conv1d(d, d, 1, bias=False)), nn.Conv1d(d, d, 1, bias=False)
        self.rebuild = each(lambda m: nn.Conv1d(2 * d, d, 1, bias=False))
        self.align = each(lambda m: nn.Linear(d * self.steps[m], d))
        self.common_encoder = each(lambda m: encoder(m, False, p.levels))
        self.common_block, self.common_out = Residual(3 * d, 3 * d, p.output_dropout), nn.Linear(3 * d, 1)
        self.cross = nn.ModuleDict({f"{t}_{s}": encoder(s, False, p.levels) for t, s in CROSS})
        self.memory = each(lambda m: encoder("text", True, max(p.levels, 3)))
        self.low = each(lambda m: Residual(d * self.steps[m], d, p.output_dropout))
        self.low_out = each(lambda m: nn.Linear(d * self.steps[m], 1))
        self.high, self.high_out = each(lambda m: Residual(2 * d, 2 * d, p.output_dropout)), each(lambda m: nn.Linear(2 * d, 1))
        self.gate = nn.ModuleDict({m: nn.Linear(w, w) for m, w in {**dict.fromkeys(MODALITIES, 2 * d), "common": 3 * d}.items()})
        self.block, self.out = Residual(9 * d, 9 * d, p.output_dropout), nn.Linear(9 * d, 1)
        self.homo = Distillation(d, p.graph_low, (0, 0, 1, 0, 1, 0))
        self.hetero = Distillation(2 * d, p.graph_high, (0, 0, 1, 0, 1, 1))
        self.latent_dims = {**{m: (2 * d,) for m in ("text", "audio", "vision")}, "common": (3 * d,)}
        for t, s in {*CROSS, *((m, m) for m in MODALITIES)}:
            T, S = self.steps[t], self.steps[s]
            late = torch.arange(S) > torch.arange(T)[:, None] + abs(S - T)
            self.register_buffer(f"bias_{t}_{s}", torch.zeros(T, S).masked_fill(late, -torch.inf), persistent=False)

    def bias(self, target: str, source: str) -> Tensor:
        return self.get_buffer(f"bias_{target}_{source}")

    def decouple(self, x: Latents) -> dict[str, Tensor]:
        """conv_, specific_, common_, recon_ and specific_again_<modality> [B, d, T_m] of sequences [B, T_m, d_m]."""
        found = {}
        for m in MODALITIES:
            conv = found[f"conv_{m}"] = self.project[m](x[m].transpose(1, 2))
            s, c = self.specific[m](conv), self.common(conv)
            recon = self.rebuild[m](torch.cat([s, c], 1))
            found |= {f"specific_{m}": s, f"common_{m}": c, f"recon_{m}": recon, f"specific_again_{m}": self.specific[m](recon)}
        return found

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        text = dropout(hidden.last, self.params.text_dropout, self.training)
        side = self.decouple({"text": text, "audio": batch["audio"], "vision": batch["vision"]})
        s, c = ({m: side[f"{k}_{m}"].transpose(1, 2) for m in MODALITIES} for k in ("specific", "common"))  # (B, T, d)
        crossed = {(a, b): self.cross[f"{a}_{b}"](s[a], s[b], self.bias(a, b)) for a, b in CROSS}
        latents = {}
        for m in ("text", "audio", "vision"):
            x = torch.cat([crossed[pair] for pair in CROSS if pair[0] == m], -1)
            latents[m] = self.memory[m](x, bias=self.bias(m, m))[:, -1]
        last = [self.common_encoder[m](c[m], bias=self.bias(m, m))[:, -1] for m in MODALITIES]
        latents["common"] = torch.cat(last, -1)
        for m in MODALITIES:
            flat = c[m].flatten(1)  # channels fastest; for the alignment steps are
            side |= {f"sim_{m}": self.align[m](side[f"common_{m}"].flatten(1)), f"repr_homo_{m}": self.low[m].hidden(flat)}
            side[f"prediction_homo_{m}"] = self.low_out[m](self.low[m](flat)).squeeze(-1)
        return Encoded(latents, side)

    def fuse(self, latents: Latents) -> Output:
        fused = torch.cat([self.gate[m](latents[m]).sigmoid() for m in (*MODALITIES, "common")], -1)  # (B, 9d)
        return Output(self.out(self.block(fused)).squeeze(-1), {"fusion": fused})

    def heads(self, latents: Latents) -> dict[str, Tensor]:
        """repr_hetero_, prediction_hetero_<modality>, prediction_common."""
        found = {"prediction_common": self.common_out(self.common_block(latents["common"])).squeeze(-1)}
        for m in MODALITIES:
            found[f"repr_hetero_{m}"] = self.high[m](latents[m])
            found[f"prediction_hetero_{m}"] = self.high_out[m](found[f"repr_hetero_{m}"]).squeeze(-1)
        return found

    def terms(self, side: dict[str, Tensor], label: Tensor) -> dict[str, Tensor]:
        """Unweighted losses but the task; `side` with what `heads` gives."""
        found = {"task_common": F.l1_loss(side["prediction_common"], label)}
        for kind, graph in (("homo", self.homo), ("hetero", self.hetero)):
            found |= {f"task_{kind}_{m}": F.l1_loss(side[f"prediction_{kind}_{m}"], label) for m in MODALITIES}
            logits = torch.stack([side[f"prediction_{kind}_{m}"] for m in MODALITIES])
            representations = torch.stack([side[f"repr_{kind}_{m}"] for m in MODALITIES])
            edges = side[f"edges_{kind}"] = graph.edges(logits, representations)
            found |= {f"{k}_{kind}": v for k, v in graph.losses(logits, representations, edges, kind == "hetero").items()}
        found["recon"] = sum(F.mse_loss(side[f"recon_{m}"], side[f"conv_{m}"]) for m in MODALITIES)
        found["cycle"] = sum(F.mse_loss(side[f"specific_{m}"], side[f"specific_again_{m}"]) for m in MODALITIES)
        over = 0 if self.params.orthogonal == "batch" else 1
        found["ort"] = sum(orthogonality(side[f"specific_{m}"], side[f"common_{m}"], over) for m in MODALITIES)
        v = torch.stack([side[f"sim_{m}"] for m in MODALITIES], 1).flatten(0, 1)  # (3 B, d), sample-major
        found["sim"] = label_margin(v, label.repeat_interleave(3))
        return found

    def weighted(self, t: dict[str, Tensor]) -> dict[str, Tensor]:
        graph = t["logit_homo"] + t["reg_homo"] + t["logit_hetero"] + t["repr_hetero"] + t["reg_hetero"]
        return {
            "heads": sum(v for k, v in t.items() if k.startswith("task_")), "graph": self.params.lambda_graph * graph,
            "decouple": self.params.lambda_decouple * (t["cycle"] + t["recon"] + 0.1 * (t["sim"] + t["ort"])),
        }

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        return self.weighted(self.terms({**encoded.side, **self.heads(encoded.latents)}, batch["label"]))
