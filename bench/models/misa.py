"""MISA: modality-invariant and modality-specific representations (Hazarika et al., 2020), as M-SENA runs it.

Each modality's utterance vector is projected, then split into a private and a shared code; one transformer layer over
the six codes and a small head predict. Shared codes are pulled together (central moment discrepancy), private ones
pushed apart, and their sum must reconstruct the projection.

Latents: the six codes, before the transformer layer, in the order of its tokens (PowMix Sec. 4: six modalities).

Choices:
- `lengths`: M-SENA packs audio and vision with the text's lengths, so that of 375 or 500 unaligned frames only the
  first L are read. "text" (default) reproduces the tables; "own" reads every frame up to audio_lengths/vision_lengths.
- A code's centred rows are divided by their detached norm + 1e-6 before the difference loss (reference).
- The moment distance is a vector norm, whose gradient at zero is 0 (a plain root gives NaN for a batch of one).
- The domain classifier and the text LayerNorm of the reference enter no loss and no output: not built.
- The encoder shares one learning rate with the rest; nothing decays (reference).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models.base import Batch, Encoded, Inputs, Latents, Output
from bench.models.parts.padded import Utterance
from bench.models.parts.text import Hidden, TextBackbone

VERSION = 2

MODALITIES = ("text", "vision", "audio")  # the reference's order of tokens


@dataclass(frozen=True)
class Params:
    """Defaults: M-SENA, MOSI."""

    encoder: str = "bert-base-uncased"
    finetune: bool = True
    hidden_size: int = 128  # width of the codes, H
    dropout: float = 0.2  # in the head
    attention_dropout: float = 0.1  # in the transformer layer
    attention_heads: int = 2
    diff_weight: float = 0.1  # weight of the difference loss, alpha
    sim_weight: float = 0.3  # weight of the similarity loss, beta
    recon_weight: float = 1.0  # weight of the reconstruction loss, gamma
    lengths: str = "text"  # "text" (reference) or "own": how far audio and vision are read


def difference(x: Tensor, z: Tensor) -> Tensor:
    """Soft orthogonality of two codes [B, H]: mean squared entry of their batch correlation (MISA Eq. 8)."""

    def centred(code: Tensor) -> Tensor:
        code = code - code.mean(0)
        return code / (torch.linalg.vector_norm(code, dim=1, keepdim=True).detach() + 1e-6)

    return (centred(x).T @ centred(z)).square().mean()


def moment_discrepancy(x: Tensor, z: Tensor, moments: int = 5) -> Tensor:
    """Central moment discrepancy of two codes [B, H] (MISA Eq. 7)."""
    mean_x, mean_z = x.mean(0), z.mean(0)
    total = torch.linalg.vector_norm(mean_x - mean_z)
    for k in range(2, moments + 1):
        total = total + torch.linalg.vector_norm((x - mean_x).pow(k).mean(0) - (z - mean_z).pow(k).mean(0))
    return total


class Model(TextBackbone):
    """MISA. Prediction [B], linear."""

    reads_padding = False  # the mask leaves padding out

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params.encoder, params.finetune, inputs)
        if params.lengths not in ("text", "own"):
            raise BenchError(f"misa: lengths must be 'text' or 'own', not '{params.lengths}'")
        self.params = params
        h, d_audio, d_vision = params.hidden_size, inputs.audio[1], inputs.vision[1]
        widths = {"text": self.text_width, "vision": 4 * d_vision, "audio": 4 * d_audio}
        self.audio_encoder, self.vision_encoder = Utterance(d_audio), Utterance(d_vision)
        self.project = nn.ModuleDict(
            {m: nn.Sequential(nn.Linear(widths[m], h), nn.ReLU(), nn.LayerNorm(h)) for m in MODALITIES}
        )
        self.private = nn.ModuleDict({m: nn.Linear(h, h) for m in MODALITIES})
        self.shared = nn.Linear(h, h)
        self.reconstruct = nn.ModuleDict({m: nn.Linear(h, h) for m in MODALITIES})
        self.attention = nn.TransformerEncoderLayer(
            h, params.attention_heads, dropout=params.attention_dropout, batch_first=True
        )
        self.head = nn.Sequential(nn.Linear(6 * h, 3 * h), nn.Dropout(params.dropout), nn.ReLU(), nn.Linear(3 * h, 1))
        self.latent_dims = {f"{kind}_{m}": (h,) for kind in ("private", "shared") for m in MODALITIES}

    def _utterance(self, m: str, encoder: Utterance, batch: Batch, mask: Tensor) -> Tensor:
        """Utterance vector [B, 4d] of audio or vision; with the text's lengths frames beyond L are cut off unread."""
        if self.params.lengths == "text":
            x, lengths = batch[m][:, : mask.shape[1]], mask.sum(1).round().long()
        else:
            x, lengths = batch[m], batch[f"{m}_lengths"]
        return encoder(x, lengths.clamp(1, x.shape[1]))

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        mask = hidden.mask  # (B, L)
        utterance = {
            "text": (hidden.last * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1),  # (B, d_t)
            "vision": self._utterance("vision", self.vision_encoder, batch, mask),
            "audio": self._utterance("audio", self.audio_encoder, batch, mask),
        }
        projected = {m: self.project[m](utterance[m]) for m in MODALITIES}  # (B, H) each
        latents = {f"private_{m}": self.private[m](projected[m]).sigmoid() for m in MODALITIES}
        latents |= {f"shared_{m}": self.shared(projected[m]).sigmoid() for m in MODALITIES}
        side = {}
        for m in MODALITIES:
            recon = self.reconstruct[m](latents[f"private_{m}"] + latents[f"shared_{m}"])
            side |= {f"utterance_{m}": utterance[m], f"projected_{m}": projected[m], f"recon_{m}": recon}
        return Encoded(latents, side)

    def fuse(self, latents: Latents) -> Output:
        tokens = torch.stack([latents[k] for k in self.latent_dims], 1)  # (B, 6, H)
        fused = self.attention(tokens).flatten(1)  # (B, 6H)
        return Output(self.head(fused).squeeze(1), {"fusion": fused})

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        p, side = self.params, encoded.side
        z = {k: v.to(torch.promote_types(v.dtype, torch.float32)) for k, v in encoded.latents.items()}
        pairs = (("text", "vision"), ("text", "audio"), ("audio", "vision"))
        with torch.autocast(z["shared_text"].device.type, enabled=False):  # moments of codes need more than bf16
            diff = sum(difference(z[f"private_{m}"], z[f"shared_{m}"]) for m in MODALITIES)
            diff = diff + sum(difference(z[f"private_{a}"], z[f"private_{b}"]) for a, b in pairs)
            sim = sum(moment_discrepancy(z[f"shared_{a}"], z[f"shared_{b}"]) for a, b in pairs) / 3
        recon = sum(F.mse_loss(side[f"recon_{m}"], side[f"projected_{m}"]) for m in MODALITIES) / 3
        return {"diff": p.diff_weight * diff, "sim": p.sim_weight * sim, "recon": p.recon_weight * recon}

    def unused_reference_parameters(self) -> Mapping[str, str]:
        return {
            "sp_discriminator.sp_discriminator_layer_1": "shared-private classifier: enters no loss",
            "tlayer_norm": "constructed, never called",
        }
