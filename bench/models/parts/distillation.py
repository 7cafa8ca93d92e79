"""Graph distillation between three modalities (DMD), and its decoupling losses. Legend: B batch, d width, T steps."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PAIRS = ((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1))
SCALE = 10.0  # of the regulariser and of representations
TEMPERATURE = 0.25


class Distillation(nn.Module):
    """Six directed edges between three modalities, from their logits [3, B] and representations [3, B, d].

    z = concat(Lin logit, Lin repr); edges = softmax over the six of Lin(concat(z_j, z_i)) / 8 [6, B]. `prior`: six
    numbers, softened."""

    raw: Tensor
    ends: Tensor

    def __init__(self, d: int, hidden: int, prior: tuple[float, ...]) -> None:
        super().__init__()
        self.logit, self.representation = nn.Linear(1, hidden), nn.Linear(d, hidden)
        self.edge = nn.Linear(4 * hidden, 1)
        self.register_buffer("raw", torch.tensor(prior, dtype=torch.float32), persistent=False)
        self.register_buffer("ends", torch.tensor(PAIRS).T.contiguous(), persistent=False)  # (2, 6)

    @property
    def prior(self) -> Tensor:
        """[6], what the regulariser pulls the mean edges to."""
        return (self.raw / TEMPERATURE).softmax(0)

    def edges(self, logits: Tensor, representations: Tensor) -> Tensor:
        z = torch.cat([self.logit(logits[..., None]), self.representation(representations)], -1)  # (3, B, 2h)
        scores = torch.cat([self.edge(torch.cat([z[j], z[i]], -1)) for j, i in PAIRS], -1)  # (B, 6)
        return (scores / 8).softmax(1).T

    def losses(self, logits: Tensor, representations: Tensor, edges: Tensor, cosine: bool) -> dict[str, Tensor]:
        """reg, logit, repr (a cosine or an L1 distance); the source of an edge is detached."""
        weight = edges + self.prior[:, None]  # (6, B)
        j, i = self.ends
        ours, theirs = representations[j], representations[i].detach()  # (6, B, d)
        if cosine:
            distance = F.cosine_similarity(ours, theirs, -1).clamp(min=0)
            representation = SCALE * (weight.mean(1) * distance.mean(1)).sum()
        else:
            representation = SCALE * (weight * (ours - theirs).abs().sum(-1)).mean(1).sum()
        return {
            "reg": SCALE * (edges.mean(1) - self.prior).square().sum(),
            "logit": (weight * (logits[j] - logits[i].detach()).abs()).mean(1).sum(),
            "repr": representation,
        }


def label_margin(v: Tensor, label: Tensor, margin: float = 0.15) -> Tensor:
    """Of vectors v [N, d] and labels [N]: for each anchor the mean over pairs (same label, other label) of
    max(0, margin |label difference| - cos(same) + cos(other)); mean over the anchors that have both."""
    norm = (v.square().sum(1, keepdim=True) + 1e-8).sqrt()
    cosine = (v / norm) @ (v / norm).T  # (N, N)
    gap = (label[:, None] - label).abs()
    same = (gap == 0) & ~torch.eye(len(v), dtype=torch.bool, device=v.device)
    pairs = (same[:, :, None] & (gap != 0)[:, None]).to(v.dtype)  # (anchor, same, other)
    hinge = (margin * gap[:, None] - cosine[:, :, None] + cosine[:, None]).clamp(min=0)
    count = pairs.sum((1, 2))
    mean = (hinge * pairs).sum((1, 2)) / count.clamp(min=1)
    return mean.sum() / (count > 0).sum().clamp(min=1)


def orthogonality(specific: Tensor, common: Tensor, over: int) -> Tensor:
    """Mean of max(0, cosine over axis `over`) of two [B, d, T]."""
    dot = (specific * common).sum(over)
    norms = (specific.square().sum(over) + 1e-12) * (common.square().sum(over) + 1e-12)
    return (dot / norms.sqrt()).clamp(min=0).mean()
