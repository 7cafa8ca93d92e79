"""Multimodal Boosting: base learners that are weighed by their contributions (Mai et al., IEEE Trans. Multimedia 2024).

Built from the description: the abstract, and what SAM-LML's paper (Sec. 4.1, A.6) says of the runs in its tables. No code
is released. What these texts determine:

    base learners in parallel, one for each modality and a multimodal one for their interactions; the unimodal networks
    are SAM-LML's (parts/unimodal.py)
    a contribution network gives each learner a contribution, and so its noise, sample by sample; what supervises it is a
    transformation of the learners' own predictive losses, an absolute label
    prediction = the learners' predictions, weighed by their contributions
    complementary update: a learner gives more weight to the samples that the other learners predict wrongly

What they leave open, and what is done here (ours):
- x_m is the mean of U_m over all steps; a learner is Lin ReLU Lin of x_m, the multimodal one Lin ReLU of
  concat(x_text, x_audio, x_vision) before the same.
- The contribution network is Lin ReLU Lin and a sigmoid of a learner's own vector, one for each learner; its label is
  exp(-loss / temperature), in (0, 1]; its loss is the mean squared error. The prediction divides by the sum of the
  contributions.
- Labels and the network's input are detached, and the prediction's loss reaches the learners alone: contributions learn
  from their labels only, in contrast to attention, as the abstract has it.
- A sample's weight in a learner's loss is the sum of the other learners' losses over its mean in the batch, detached.
- All weights of losses are 1; the combined prediction is trained too. Settings not printed are SAM-LML's.

Latents: x_m [B, d] of text, audio and vision.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.base import Batch, Encoded, Inputs, Latents, Output
from bench.models.parts.text import Hidden
from bench.models.parts.unimodal import MODALITIES, UnimodalBackbone, check
from bench.models.parts.words import one_of

VERSION = 1
DESCRIPTION = "the abstract of Mai et al., IEEE Trans. Multimedia 26 (2024), and SAM-LML Sec. 4.1 and A.6"
LEARNERS = (*MODALITIES, "multimodal")
_LOSSES = {"mse": F.mse_loss, "l1": F.l1_loss, "bce": F.binary_cross_entropy_with_logits}


@dataclass(frozen=True)
class Params:
    """Ours but for the unimodal networks, which are SAM-LML's for MOSI."""

    encoder: str = "deberta-v3-base"
    finetune: bool = True
    max_len: int = 50  # word pieces of word-level data; other files bring their own length
    attend_padding: bool = True
    scale: str = "batch"  # min-max scaling of audio and vision: by the "batch", by the "train" split's extremes, or "none"
    order: str = "conv-transformer"  # "conv-transformer" or "transformer-conv": which comes first in a unimodal network
    blocks: str = "mult"  # transformer of the unimodal networks: "mult" or "hkt" (sequence_nets.py)
    layers: tuple[int, ...] = (3, 3, 3)  # of audio, vision, HCF
    heads: tuple[int, ...] = (5, 5, 2)
    feed_forward: tuple[int, ...] = (256, 128, 128)  # hidden width of the feed-forward part, "hkt" only
    attention_dropout: float = 0.3  # dropout of attention weights, "mult" only
    dropout: float = 0.3  # dropout of embedding, feed-forward and residual, "mult" only
    d: int = 120  # of the unimodal latents
    width: int = 100  # inside a learner and the contribution network
    loss: str = "mse"  # loss of the learners, the protocol's own: "mse", "l1" or "bce"
    temperature: float = 1.0  # temperature of the transformation of losses
    complementary: bool = True  # a learner's loss is weighted by what the others lose on the sample; off: equal weights
    lambda_learners: float = 1.0  # weight of the learners' losses
    lambda_contribution: float = 1.0  # weight of the contribution network's loss

    def __post_init__(self) -> None:
        check("mboost", self)
        one_of("mboost", "loss", self.loss, tuple(_LOSSES))


def head(d: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d, width), nn.ReLU(), nn.Linear(width, 1))


class Model(UnimodalBackbone):
    """Multimodal Boosting. Prediction [B], linear. Features: predictions and contributions [B, 4] of LEARNERS."""

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params, inputs)
        p = params
        self.join = nn.Linear(3 * p.d, p.d)
        self.learners = nn.ModuleDict({k: head(p.d, p.width) for k in LEARNERS})
        self.contribution = nn.ModuleDict({k: head(p.d, p.width) for k in LEARNERS})
        self.latent_dims = {m: (p.d,) for m in MODALITIES}

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        return Encoded({m: u.mean(1) for m, u in self.unimodal(hidden, batch).items()}, {})

    def fuse(self, latents: Latents) -> Output:
        joint = self.join(torch.cat([latents[m] for m in MODALITIES], 1)).relu()  # (B, d)
        x = {**latents, "multimodal": joint}
        predictions = torch.cat([self.learners[k](x[k]) for k in LEARNERS], 1)  # (B, 4)
        contributions = torch.cat([self.contribution[k](x[k].detach()) for k in LEARNERS], 1).sigmoid()
        share = contributions.detach() / contributions.detach().sum(1, keepdim=True)
        found = {"fusion": joint, "predictions": predictions, "contributions": contributions}
        return Output((share * predictions).sum(1), found)

    def losses(self, predictions: Tensor, label: Tensor) -> Tensor:
        """Every learner's loss on every sample, [B, 4]."""
        return _LOSSES[self.params.loss](predictions, label[:, None].expand_as(predictions), reduction="none")

    def weights(self, each: Tensor) -> Tensor:
        """[B, 4] of losses [B, 4]: what the other learners lose on a sample, of mean 1 over the batch."""
        others = each.sum(1, keepdim=True) - each
        return others / others.mean(0, keepdim=True).clamp(min=torch.finfo(each.dtype).tiny)

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        p = self.params
        features = (output or self.fuse(encoded.latents)).features
        each = self.losses(features["predictions"], batch["label"])
        weights = self.weights(each.detach()) if p.complementary else torch.ones_like(each)
        target = (-each.detach() / p.temperature).exp()
        return {
            "learners": p.lambda_learners * (weights * each).mean(0).sum(),
            "contribution": p.lambda_contribution * F.mse_loss(features["contributions"], target),
        }
