"""E-MIB: early multimodal information bottleneck (Mao et al., IEEE TMM 2023), as released.

    f = ReLU(Lin(concat(x_l, x_a, x_v))) -> bottleneck -> prediction (parts/bottleneck.py)
    loss = task + [L1 + beta KL]: the multimodal L1 counts twice

Latents: the last-step vectors x_m [B, d]; there is no bottleneck before fusion. The release builds the modalities'
bottlenecks and never uses them; here they are not built.
"""

import torch
from torch import Tensor, nn

from bench.models.base import Batch, Encoded, Inputs, Latents, Output
from bench.models.parts import bottleneck
from bench.models.parts.bottleneck import MODALITIES, Bottleneck, BottleneckBackbone
from bench.models.parts.text import Hidden

VERSION = 1
SAMPLES = True
Params = bottleneck.Params


class Model(BottleneckBackbone):
    """E-MIB. Prediction [B], linear."""

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params, inputs)
        self.fusion = Bottleneck(params)
        self.join = nn.Linear(3 * params.d, params.d)
        self.initialise()

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        return Encoded(self.last_steps(hidden, batch), {})

    def fuse(self, latents: Latents, noise: Tensor | None = None) -> Output:
        """`noise` [B, d]: the standard normal draw; from torch's stream if not given."""
        fused = self.join(torch.cat([latents[m] for m in MODALITIES], 1)).relu()  # (B, d)
        mu, sigma, z = self.fusion(fused, noise)
        return Output(self.fusion.decode(z), {"fused": fused, "mu_fusion": mu, "std_fusion": sigma, "z_fusion": z})

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        if output is None:
            return {}
        return {"bottleneck_fusion": bottleneck.fusion_loss(output, batch["label"], self.params.beta)}
