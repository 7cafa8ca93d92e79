"""C-MIB: complete multimodal information bottleneck (Mao et al., IEEE TMM 2023), as released.

    x_m -> bottleneck -> z_m (parts/bottleneck.py);  f = ReLU(Lin(concat(z_l, z_a, z_v))) -> bottleneck -> prediction
    loss = task + sum over m and fusion of [L1 + beta KL]: the multimodal L1 counts twice

Latents: z_m [B, d], behind the modalities' bottlenecks. The release's fusion is concatenation (one of six, chosen by
editing its source).
"""

import torch
from torch import Tensor, nn

from bench.models.base import Batch, Encoded, Inputs, Latents, Output
from bench.models.parts import bottleneck
from bench.models.parts.bottleneck import MODALITIES, Bottleneck, BottleneckBackbone, Unimodal
from bench.models.parts.text import Hidden

VERSION = 1
SAMPLES = True
Params = bottleneck.Params


class Model(BottleneckBackbone):
    """C-MIB. Prediction [B], linear."""

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params, inputs)
        self.unimodal, self.fusion = Unimodal(params), Bottleneck(params)
        self.join = nn.Linear(3 * params.d, params.d)
        self.initialise()

    def encode_hidden(self, hidden: Hidden, batch: Batch, noise: Latents | None = None) -> Encoded:
        """`noise`: modality -> standard normal [B, d]; drawn from torch's stream if not given."""
        return self.unimodal(self.last_steps(hidden, batch), noise)

    def fuse(self, latents: Latents, noise: Tensor | None = None) -> Output:
        fused = self.join(torch.cat([latents[m] for m in MODALITIES], 1)).relu()  # (B, d)
        mu, sigma, z = self.fusion(fused, noise)
        return Output(self.fusion.decode(z), {"fused": fused, "mu_fusion": mu, "std_fusion": sigma, "z_fusion": z})

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        y, beta = batch["label"], self.params.beta
        losses = bottleneck.unimodal_losses(encoded.side, y, beta)
        return losses if output is None else losses | {"bottleneck_fusion": bottleneck.fusion_loss(output, y, beta)}
