"""L-MIB: late multimodal information bottleneck (Mao et al., IEEE TMM 2023), as released.

    x_m -> bottleneck -> z_m (parts/bottleneck.py)
    f = ReLU(Lin(tanh(Lin(Lin(outer product of (1, z_a), (1, z_v), (1, z_l)))))) -> Lin(d, 1) -> prediction
    loss = 2 task + sum over m of [L1 + beta KL]

Latents: z_m [B, d]. As checked in, the release selects tensor fusion here, and concatenation in C-MIB and E-MIB
(`fusion`: "concat" is theirs).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.base import Batch, Encoded, Inputs, Latents, Output
from bench.models.parts import bottleneck
from bench.models.parts.bottleneck import MODALITIES, BottleneckBackbone, Unimodal
from bench.models.parts.layers import prepend_one
from bench.models.parts.outer import outer_linear
from bench.models.parts.text import Hidden

VERSION = 1


@dataclass(frozen=True)
class Params(bottleneck.Params):
    fusion: str = "tensor"  # outer product ("tensor") or concatenation ("concat") of the z_m
    fusion_hidden: int = 50  # width behind the outer product

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fusion not in ("tensor", "concat"):
            raise BenchError(f"lmib: fusion is 'tensor' or 'concat', not '{self.fusion}'")


class Model(BottleneckBackbone):
    """L-MIB. Prediction [B], linear."""

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params, inputs)
        d, h = params.d, params.fusion_hidden
        self.unimodal = Unimodal(params)
        if params.fusion == "tensor":
            self.product, self.squash = nn.Linear((d + 1) ** 3, h), nn.Linear(h, h)
        self.join = nn.Linear(h if params.fusion == "tensor" else 3 * d, d)
        self.score = nn.Linear(d, 1)
        self.initialise()

    def encode_hidden(self, hidden: Hidden, batch: Batch, noise: Latents | None = None) -> Encoded:
        """`noise`: modality -> standard normal [B, d]; drawn from torch's stream if not given."""
        return self.unimodal(self.last_steps(hidden, batch), noise)

    def fuse(self, latents: Latents) -> Output:
        if self.params.fusion == "tensor":
            text, audio, vision = (prepend_one(latents[m]) for m in MODALITIES)  # (B, d + 1)
            pair = (audio[:, :, None] * vision[:, None]).flatten(1)  # (B, (d + 1)^2), audio slowest
            x = self.squash(self._outer(pair, text)).tanh()
        else:
            x = torch.cat([latents[m] for m in MODALITIES], 1)
        fused = self.join(x).relu()  # (B, d)
        return Output(self.score(fused).squeeze(1), {"fused": fused})

    def _outer(self, pair: Tensor, text: Tensor) -> Tensor:
        if self.training and not text.is_cuda:
            return outer_linear(pair, text, self.product.weight, self.product.bias, 0.0)
        return self.product((pair[:, :, None] * text[:, None]).flatten(1))

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        losses = bottleneck.unimodal_losses(encoded.side, batch["label"], self.params.beta)
        return losses if output is None else losses | {"again": F.l1_loss(output.prediction, batch["label"])}
