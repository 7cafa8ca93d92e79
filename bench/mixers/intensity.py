"""Sentiment intensity predictors f_phi of MS-Mix's SIG module: tokens [B, T, D] -> intensity [B].

Three of them: the paper's attention (Eq. 6-8), the linear map of the ablation, and the attention of the release.
Widths that the number of heads does not divide are padded with zeros.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _heads(qkv: Tensor, heads: int) -> Tensor:
    """Concatenated attention heads (Eq. 6) of projections [N, L, 3 D] -> [N, L, D]. Written out: sequences are short,
    and the fused kernel of the CPU cannot be stacked over seeds."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # (N, h, L, d_k) each
    weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1)  # (N, h, L, L)
    return (weights @ v).transpose(1, 2).flatten(2)


class AttentionIntensity(nn.Module):
    """tanh(GlobalPool(LN(MHA(z) W^O + z))), MS-Mix Eq. 6-8, in (-1, 1).

    `attend` "tokens": a sample's tokens attend to each other; a latent vector is one token, on which the softmax is
    identically 1. "batch": the samples of the batch attend to each other, token by token (Eq. 6 read as a B x B
    softmax). GlobalPool is the mean over the tokens followed by a linear map to a scalar, as in the release: the mean
    over the features of a normalised vector would leave next to nothing to predict with.
    """

    def __init__(self, width: int, heads: int, attend: str) -> None:
        super().__init__()
        self.heads, self.over_batch, self.padding = heads, attend == "batch", -width % heads
        padded = width + self.padding
        self.qkv = nn.Linear(padded, 3 * padded)  # W^Q, W^K, W^V
        self.out = nn.Linear(padded, padded)  # W^O
        self.norm = nn.LayerNorm(padded)
        self.head = nn.Linear(padded, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, self.padding))  # (B, T, D')
        s = x.transpose(0, 1) if self.over_batch else x  # (sequences, length, D')
        z = self.norm(self.out(_heads(self.qkv(s), self.heads)) + s)  # Eq. 6-7: (sequences, length, D')
        z = z.transpose(0, 1) if self.over_batch else z  # (B, T, D')
        return torch.tanh(self.head(z.mean(1)).squeeze(-1))  # Eq. 8: (B,)


class LinearIntensity(nn.Module):
    """tanh(Lin(mean over tokens)), the "SIG -> Linear Mapping" row of MS-Mix Table 4, in (-1, 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.head(x.mean(1)).squeeze(-1))  # (B,)


class ReleaseIntensity(nn.Module):
    """The predictor of the released code, in (-3, 3): no output projection, one linear map, 3 tanh.

    With several tokens the residual x of every sample meets the attention of every sample and the mean is over the
    latter, so that a sample's intensity depends on the rest of the batch; the largest token counts. Widths above 2000
    are first reduced to 1024.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(width, 1024) if width > 2000 else nn.Identity()
        width = 1024 if width > 2000 else width
        self.heads, self.padding = heads, -width % heads
        padded = width + self.padding
        self.qkv = nn.Linear(padded, 3 * padded)
        self.norm = nn.LayerNorm(padded)
        self.head = nn.Linear(padded, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.reduce(x), (0, self.padding))  # (B, T, D')
        a = _heads(self.qkv(x), self.heads)  # (B, T, D')
        if x.shape[1] == 1:
            z = self.norm(a + x)  # (B, 1, D')
        else:
            z = self.norm(a.unsqueeze(0) + x.unsqueeze(1)).mean(1)  # (B, B, T, D') -> (B, T, D')
        return 3 * torch.tanh(self.head(z).squeeze(-1)).amax(1)  # (B,)
