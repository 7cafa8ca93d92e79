"""MFM: multimodal factorisation (Tsai et al., ICLR 2019), as M-SENA runs it.

    r = memory fusion network of the three sequences (models/parts/memory_fusion.py); z_y = Lin(r)
    z_m = Lin(last state of an LSTM of its own) per modality
    f_y, f_m = ReLU(Lin(dropout(ReLU(Lin(z))))); prediction = Lin(dropout(ReLU(Lin(f_y))))
    decoder of m: an LSTM that reads concat(f_y, f_m) first and its own state afterwards, Lin at every step

Loss: task + weighted MSE of the decoded against the raw inputs + lambda_mmd times the maximum mean discrepancy of
z_l, z_a, z_v and z_y from standard normal draws.

Latents: the last states text, audio, vision and the memory of the fusion network, which alone reach the prediction; the
factors f_l, f_a, f_v reach the decoders only.

Quirks kept (docs/quirks.md): padding is decoded too and counts; the kernel divides by the width twice and is very flat
(`kernel`). Audio and vision of another length than the text's are averaged to it first.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.base import Backbone, Batch, Encoded, Inputs, Latents, Output
from bench.models.parts.layers import dropout, pool_steps
from bench.models.parts.lstm import LSTM, unroll_free
from bench.models.parts.memory_fusion import Gate, Inner, MemoryFusion

VERSION = 1
MODALITIES = ("text", "audio", "vision")
KERNELS = ("mean", "sum")


@dataclass(frozen=True)
class Params:
    """M-SENA's values for MOSI."""

    text_hidden: int = 128  # hidden width of the text's LSTM, hidden_dims[l]
    audio_hidden: int = 32  # hidden width of the audio's LSTM
    vision_hidden: int = 128  # hidden width of the vision's LSTM
    memory: int = 64  # width of the memory, memsize
    attention: int = 32  # hidden width of the attention over two steps' cells, NN1
    candidate: int = 64  # hidden width of the network of the memory's candidates, NN2
    keep: int = 32  # hidden width of the retain gate, gamma1
    write: int = 64  # hidden width of the update gate, gamma2
    attention_dropout: float = 0.7
    candidate_dropout: float = 0.0  # of the network of the memory's candidates
    keep_dropout: float = 0.0  # of the retain gate
    write_dropout: float = 0.5  # of the update gate
    z_fusion: int = 80  # width of z_y, zy_size
    z_text: int = 64  # of z_l, the text's own factor
    z_audio: int = 80  # of z_a, the audio's own factor
    z_vision: int = 80  # of z_v, the vision's own factor
    f_fusion: int = 64  # width of f_y, fy_size
    f_text: int = 32  # of f_l, which text is decoded from
    f_audio: int = 16  # of f_a, which audio is decoded from
    f_vision: int = 64  # of f_v, which vision is decoded from
    z_fusion_dropout: float = 0.5  # dropout between z_y and f_y, zy_to_fy_dropout
    z_text_dropout: float = 0.5  # between z_l and f_l
    z_audio_dropout: float = 0.7  # between z_a and f_a
    z_vision_dropout: float = 0.5  # between z_v and f_v
    output_dropout: float = 0.0  # dropout between f_y and the prediction, fy_to_y_dropout
    lambda_mmd: float = 100.0  # weight of the maximum mean discrepancy, lda_mmd
    lambda_text: float = 0.5  # weight of the text's reconstruction, lda_xl
    lambda_audio: float = 0.01  # weight of the audio's reconstruction, lda_xa
    lambda_vision: float = 0.5  # weight of the vision's reconstruction, lda_xv
    kernel: str = "mean"  # kernel of the discrepancy: "mean", exp(-|x - y|^2 / d^2), or "sum", exp(-|x - y|^2 / d)

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise BenchError(f"mfm: kernel must be 'mean' or 'sum', not '{self.kernel}'")


def discrepancy(z: Tensor, draw: Tensor, kernel: str = "mean") -> Tensor:
    """Maximum mean discrepancy of z and draw [B, d], diagonals included."""
    d = z.shape[1]
    scale = d * d if kernel == "mean" else d

    def k(x: Tensor, y: Tensor) -> Tensor:
        return (-((x[:, None] - y[None]) ** 2).sum(-1) / scale).exp().mean()

    return k(draw, draw) + k(z, z) - 2 * k(draw, z)


class Factor(nn.Module):
    """z [B, z] -> f [B, f]: ReLU(Lin(dropout(ReLU(Lin(z)))))."""

    def __init__(self, z: int, f: int, rate: float) -> None:
        super().__init__()
        self.first, self.second, self.rate = nn.Linear(z, f), nn.Linear(f, f), rate

    def forward(self, z: Tensor) -> Tensor:
        return self.second(dropout(self.first(z).relu(), self.rate, self.training)).relu()


class Model(Backbone):
    """MFM. Prediction [B], linear."""

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__()
        self.params, self.label_bound, self.steps = params, inputs.label_bound, inputs.text[0]
        p = params
        widths = {m: getattr(inputs, m)[1] for m in MODALITIES}
        hidden = {m: getattr(p, f"{m}_hidden") for m in MODALITIES}
        z = {m: getattr(p, f"z_{m}") for m in (*MODALITIES, "fusion")}
        f = {m: getattr(p, f"f_{m}") for m in (*MODALITIES, "fusion")}
        gates = [Gate(getattr(p, k), getattr(p, f"{k}_dropout")) for k in ("attention", "candidate", "keep", "write")]
        self.encoders = nn.ModuleDict({m: LSTM(widths[m], z[m]) for m in MODALITIES})
        self.z_linear = nn.ModuleDict({m: nn.Linear(z[m], z[m]) for m in MODALITIES})
        self.memory_fusion = MemoryFusion(widths, hidden, p.memory, *gates)
        self.latent_dims = {**{m: (h,) for m, h in hidden.items()}, "memory": (p.memory,)}
        self.z_fusion = nn.Linear(sum(hidden.values()) + p.memory, z["fusion"])
        self.factors = nn.ModuleDict({m: Factor(z[m], f[m], getattr(p, f"z_{m}_dropout")) for m in z})
        self.head = Inner(f["fusion"], Gate(f["fusion"], p.output_dropout), 1)
        both = {m: f["fusion"] + f[m] for m in MODALITIES}
        self.decoders = nn.ModuleDict({m: LSTM(d, d) for m, d in both.items()})
        self.decoded = nn.ModuleDict({m: nn.Linear(d, widths[m]) for m, d in both.items()})

    def sequences(self, batch: Batch) -> Latents:
        """The three inputs at the text's length, modality -> [B, T, d_m]."""
        return {m: pool_steps(batch[m], self.steps) for m in MODALITIES}

    def encode(self, batch: Batch) -> Encoded:
        x = self.sequences(batch)
        return Encoded(self.memory_fusion(x), x)

    def fuse(self, latents: Latents) -> Output:
        r = torch.cat(list(latents[k] for k in self.latent_dims), -1)
        z = self.z_fusion(r)
        f = self.factors["fusion"](z)
        return Output(self.head(f).squeeze(-1), {"fusion": r, "z_fusion": z, "f_fusion": f})

    def generate(self, x: Latents, output: Output) -> tuple[Latents, Latents, Latents]:
        """z_m [B, z_m], f_m [B, f_m] and the decoded sequences [B, T, d_m] of the sequences x."""
        z = {m: self.z_linear[m](self.encoders[m].last_state(x[m])) for m in MODALITIES}
        f = {m: self.factors[m](z[m]) for m in MODALITIES}
        decoded = {}
        for m in MODALITIES:
            start = torch.cat([output.features["f_fusion"], f[m]], -1)
            decoded[m] = self.decoded[m](unroll_free(start, self.decoders[m], self.steps))
        return z, f, decoded

    def terms(self, x: Latents, z: Latents, decoded: Latents, draws: Latents) -> dict[str, Tensor]:
        """Unweighted terms: decode_<modality> and mmd; z and draws by modality and "fusion"."""
        found = {f"decode_{m}": F.mse_loss(decoded[m], x[m]) for m in MODALITIES}
        return found | {"mmd": sum(discrepancy(z[m], draws[m], self.params.kernel) for m in z)}

    def weighted(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        p = self.params
        generation = sum(getattr(p, f"lambda_{m}") * terms[f"decode_{m}"] for m in MODALITIES)
        return {"generation": generation, "mmd": p.lambda_mmd * terms["mmd"]}

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        x, output = encoded.side, output or self.fuse(encoded.latents)
        z, _, decoded = self.generate(x, output)
        z |= {"fusion": output.features["z_fusion"]}
        draws = {m: torch.randn_like(v) for m, v in z.items()}
        return self.weighted(self.terms(x, z, decoded, draws))
