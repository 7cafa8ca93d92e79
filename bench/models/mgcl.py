"""MGCL: supervised contrastive learning of multimodal representations (Mai, Zeng and Hu, Information Fusion 2023).

Built from the description: the abstract, and what SAM-LML's paper (Sec. A.6) says of the runs in its tables. No code is
released. What these texts determine:

    the representation that is contrasted is the fused one, z = f(x_text, x_audio, x_vision); the labels supervise
    positives of an anchor: z mixed with that of another sample whose label is most similar; and what a sampled
    contrastive fusion network makes of the modalities in a permuted order, so that z depends neither on their order nor
    on the network's structure
    negatives: made by several techniques too
    loss = task + contrastive

What they leave open, and what is done here (ours):
- Unimodal networks: those of SAM-LML, which reports it on the same data (parts/unimodal.py), and their mean over time x_m.
  With them and d = 150 the parameters are 6 % below the printed totals.
- f and one contrastive network join the three in order by Lin ReLU of their concatenation; the others add one modality
  after the other (h <- ReLU Lin concat(h, x)), and multiply three projections. One of the three and one of the five
  other orders are drawn per batch.
- Negatives: z of the sample whose label is least similar; and f of the anchor's modalities with one of them taken from
  that sample, one negative a modality. Where no label of the batch differs, nothing is contrasted.
- Label similarity is minus the absolute difference; ties are broken at random. The share of the anchor in a mixed
  positive is uniform in [0.5, 1].
- Loss: for each positive the cross entropy of cosines / 0.1 against all negatives, averaged; weight 0.1.
- Prediction: Lin ReLU Lin of z.

Latents: x_m [B, d] of text, audio and vision.
"""

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.base import Batch, Encoded, Inputs, Latents, Output
from bench.models.parts.text import Hidden
from bench.models.parts.unimodal import MODALITIES, UnimodalBackbone, check

VERSION = 1
DESCRIPTION = "the abstract of Mai, Zeng and Hu, Information Fusion (2023), 10.1016/j.inffus.2023.101920, and SAM-LML Sec. A.6"
TIE = 1e-4  # of a label's difference, below any that counts


@dataclass(frozen=True)
class Params:
    """Ours; the unimodal networks are SAM-LML's."""

    encoder: str = "albert-base-v2"
    finetune: bool = True
    max_len: int = 50
    attend_padding: bool = False
    scale: str = "none"  # min-max scaling of audio and vision: by the "batch", by the "train" split's extremes, or "none"
    order: str = "conv-transformer"  # "conv-transformer" or "transformer-conv": which comes first in a unimodal network
    blocks: str = "mult"  # transformer of the unimodal networks: "mult" or "hkt" (sequence_nets.py)
    layers: tuple[int, ...] = (3, 3, 3)  # of audio, vision, HCF
    heads: tuple[int, ...] = (5, 5, 2)
    feed_forward: tuple[int, ...] = (256, 128, 128)  # hidden width of the feed-forward part, "hkt" only
    attention_dropout: float = 0.3  # dropout of attention weights, "mult" only
    dropout: float = 0.3  # dropout of embedding, feed-forward and residual, "mult" only
    d: int = 150  # of the unimodal latents
    width: int = 100  # inside the head
    temperature: float = 0.1  # temperature of the contrastive loss
    lambda_contrast: float = 0.1  # weight of the contrastive loss

    def __post_init__(self) -> None:
        check("mgcl", self)


class Concat(nn.Module):
    """Three vectors [3, B, d] in their order -> [B, d]."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.join = nn.Linear(3 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat(x.unbind(), 1)).relu()


class OneByOne(nn.Module):
    """The same, one after the other."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(nn.Linear(2 * d, d) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = x[0]
        for step, other in zip(self.steps, x[1:]):
            h = step(torch.cat([h, other], 1)).relu()
        return h


class Product(nn.Module):
    """The same, by the product of a projection of each."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.factors = nn.ModuleList(nn.Linear(d, d) for _ in range(3))
        self.out = nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = (factor(y) for factor, y in zip(self.factors, x))
        return self.out(a * b * c).relu()


class Model(UnimodalBackbone):
    """MGCL. Prediction [B], linear."""

    orders: Tensor

    def __init__(self, params: Params, inputs: Inputs) -> None:
        super().__init__(params, inputs)
        p = params
        self.fusion = Concat(p.d)
        self.contrastive = nn.ModuleList([Concat(p.d), OneByOne(p.d), Product(p.d)])
        self.head = nn.Sequential(nn.Linear(p.d, p.width), nn.ReLU(), nn.Linear(p.width, 1))
        self.latent_dims = {m: (p.d,) for m in MODALITIES}
        self.register_buffer("orders", torch.tensor(list(permutations(range(3)))[1:]), persistent=False)  # (5, 3)

    def encode_hidden(self, hidden: Hidden, batch: Batch) -> Encoded:
        return Encoded({m: u.mean(1) for m, u in self.unimodal(hidden, batch).items()}, {})

    def fuse(self, latents: Latents) -> Output:
        z = self.fusion(torch.stack([latents[m] for m in MODALITIES]))
        return Output(self.head(z).squeeze(1), {"fusion": z})

    def partners(self, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows [B] of the most and of the least similar label, and whether the latter differs at all, [B] float."""
        difference = (label[:, None] - label).abs()
        shaken = difference + TIE * torch.rand_like(difference)
        own = torch.eye(len(label), dtype=torch.bool, device=label.device)
        far = shaken.masked_fill(own, -torch.inf).argmax(1)
        differs = difference.gather(1, far[:, None]).squeeze(1) > TIE
        return shaken.masked_fill(own, torch.inf).argmin(1), far, differs.to(label.dtype)

    def positives(self, x: Tensor, z: Tensor, near: Tensor) -> Tensor:
        """[2, B, d] of the modalities' vectors x [3, B, d] and the anchors z."""
        share = 0.5 + 0.5 * torch.rand_like(z[:, :1])
        mixed = share * z + (1 - share) * z[near]
        order = self.orders.index_select(0, torch.randint(len(self.orders), (1,), device=z.device)).squeeze(0)
        permuted = x.index_select(0, order)
        made = torch.stack([network(permuted) for network in self.contrastive])  # all of them: which one is no host's choice
        drawn = made.index_select(0, torch.randint(len(made), (1,), device=z.device)).squeeze(0)
        return torch.stack([mixed, drawn])

    def negatives(self, x: Tensor, z: Tensor, far: Tensor) -> Tensor:
        """[4, B, d]."""
        replaced = [torch.stack([x[i][far] if i == m else x[i] for i in range(3)]) for m in range(3)]
        return torch.stack([z[far], *(self.fusion(y) for y in replaced)])

    def contrast(self, z: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Loss of each anchor, [B]."""
        def score(other: Tensor) -> Tensor:
            return F.cosine_similarity(other, z, dim=-1) / self.params.temperature  # (n, B)

        near, far = score(positives), score(negatives)
        return (torch.logaddexp(near, far.logsumexp(0)) - near).mean(0)

    def aux_losses(self, batch: Batch, encoded: Encoded, output: Output | None) -> dict[str, Tensor]:
        x = torch.stack([encoded.latents[m] for m in MODALITIES])  # (3, B, d)
        z = self.fusion(x)
        near, far, differs = self.partners(batch["label"])
        each = self.contrast(z, self.positives(x, z, near), self.negatives(x, z, far))
        return {"contrast": self.params.lambda_contrast * (differs * each).sum() / differs.sum().clamp(min=1)}
