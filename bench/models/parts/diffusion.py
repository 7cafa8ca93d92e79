"""Score-based diffusion of one sequence under another (Song et al., ICLR 2021), as IMDer recovers what is missing.

    dx = sigma^t dw;  std(t)^2 = (sigma^(2t) - 1) / (2 ln sigma);  score(x, t, c): a U-Net over time whose every level
    attends, causally, to the condition c at the same resolution
    loss = mean over the batch of || score std(t) + z ||^2 at x + z std(t), under c + z std(t)
    sample: Euler-Maruyama from t = 1 to 1e-3, the condition perturbed anew at every step

Legend: B batch, d channels, T steps, e width of the time's embedding.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.parts.encoder import Encoder, Rates
from bench.models.parts.layers import sinusoid

SIGMA = 25.0
LEAST, LAST = 1e-5, 1e-3  # times: the smallest of the loss, the last of the sampler


def spread(t: Tensor | float) -> Tensor | float:
    """std(t)"""
    variance = (SIGMA ** (2 * t) - 1) / (2 * math.log(SIGMA))
    return variance.sqrt() if isinstance(variance, Tensor) else math.sqrt(variance)


@dataclass(frozen=True)
class Sizes:
    """Of a score network."""

    channels: tuple[int, ...] = (32, 64, 128, 256)
    embed: int = 256  # e
    heads: int = 8
    layers: int = 2
    groups: tuple[int, int] = (4, 32)  # of the first level's normalisation, of the others'


class Block(nn.Module):
    """h [B, i, T] -> [B, o, T'] and the condition likewise; the outermost blocks leave out one part or another."""

    def __init__(self, conv: nn.Module, condition: nn.Module | None, out: int, steps: int, groups: int, s: Sizes) -> None:
        super().__init__()
        self.conv, self.condition = conv, condition
        self.attention = Encoder(out, s.heads, s.layers, Rates(), sinusoid(steps, out))
        self.time = nn.Linear(s.embed, out) if groups else None
        self.norm = nn.GroupNorm(groups, out) if groups else None
        ahead = torch.ones(steps, steps, dtype=torch.bool).triu(1)
        self.register_buffer("later", torch.zeros(steps, steps).masked_fill(ahead, -math.inf), persistent=False)

    def forward(self, h: Tensor, c: Tensor, embed: Tensor) -> tuple[Tensor, Tensor]:
        h = self.conv(h)
        if self.condition is not None:
            c = self.condition(c)
        h = h + self.attention(h.transpose(1, 2), c.transpose(1, 2), self.later).transpose(1, 2)
        if self.norm is not None:
            h = F.silu(self.norm(h + self.time(embed)[..., None]))
        return h, c


class ScoreNet(nn.Module):
    """x [B, d, T], t [B], condition [B, d, T] -> score [B, d, T]. Steps are halved three times: behind T, up to a multiple
    of 8, stand zeros (none at IMDer's 48)."""

    def __init__(self, d: int, steps: int, s: Sizes) -> None:
        super().__init__()
        self.spare = -steps % 8
        steps = steps + self.spare
        a, b, c, e = s.channels
        first, other = s.groups
        self.frequency = nn.Parameter(30 * torch.randn(s.embed // 2), requires_grad=False)  # W ~ N(0, 30^2), fixed
        self.time = nn.Linear(s.embed, s.embed)

        def down(i: int, o: int) -> nn.Conv1d:
            return nn.Conv1d(i, o, 3, stride=2, padding=1, bias=False)

        def up(i: int, o: int) -> nn.ConvTranspose1d:
            return nn.ConvTranspose1d(i, o, 3, stride=2, padding=1, output_padding=1, bias=False)

        def level(i: int, o: int) -> nn.ConvTranspose1d:
            return nn.ConvTranspose1d(i, o, 3, padding=1)

        self.down = nn.ModuleList([
            Block(nn.Conv1d(d, a, 3, padding=1, bias=False), None, a, steps, first, s),
            *(Block(down(i, o), down(i, o), o, steps // n, other, s) for i, o, n in ((a, b, 2), (b, c, 4), (c, e, 8))),
        ])
        self.up = nn.ModuleList([
            Block(up(e, c), up(e, c), c, steps // 4, other, s), Block(up(2 * c, b), up(c, b), b, steps // 2, other, s),
            Block(up(2 * b, a), up(b, a), a, steps, other, s), Block(level(2 * a, d), level(a, d), d, steps, 0, s),
        ])

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        angle = 2 * math.pi * t[:, None] * self.frequency
        embed = F.silu(self.time(torch.cat([angle.sin(), angle.cos()], -1)))
        h, condition, skips = F.pad(x, (0, self.spare)), F.pad(condition, (0, self.spare)), []
        for block in self.down:
            h, condition = block(h, condition, embed)
            skips.append(h)
        for i, block in enumerate(self.up):
            h = torch.cat([h, skips[-1 - i]], 1) if i else h
            h, condition = block(h, condition, embed)
        return h[..., : x.shape[2]] / spread(t)[:, None, None]


def score_loss(net: ScoreNet, x: Tensor, condition: Tensor, unit: Tensor, z: Tensor) -> Tensor:
    """(B,) of draws unit [B] ~ U(0, 1) and z [B, d, T] ~ N(0, 1), which perturbs x and condition alike."""
    t = unit * (1 - LEAST) + LEAST
    std = spread(t)[:, None, None]
    return (net(x + z * std, t, condition + z * std) * std + z).square().sum((1, 2))


@torch.no_grad()
def sample(net: ScoreNet, condition: Tensor, start: Tensor, noise: Iterable[tuple[Tensor, Tensor]], steps: int) -> Tensor:
    """[B, d, T] under a condition [B, d, T]. start: N(0, 1) [B, d, T] or what expands to it; noise: of every step, for
    the condition and for x."""
    x = (start * spread(1.0)).expand_as(condition)
    times: Sequence[float] = torch.linspace(1.0, LAST, steps, dtype=torch.float64).tolist()
    dt = times[0] - times[1]
    for t, (of_condition, of_x) in zip(times, noise, strict=True):
        g = SIGMA**t
        score = net(x, x.new_full((len(x),), t), condition + of_condition * spread(t))
        mean = x + g**2 * dt * score
        x = mean + math.sqrt(dt) * g * of_x
    return mean


class Attended(nn.Module):
    """x [B, w, T] + channel attention of a convolution, ReLU and a convolution."""

    def __init__(self, w: int, reduction: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(w, w, 3, padding=1), nn.Conv1d(w, w, 3, padding=1)
        self.squeeze, self.excite = nn.Conv1d(w, w // reduction, 1), nn.Conv1d(w // reduction, w, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x).relu())
        gate = self.excite(self.squeeze(y.mean(2, keepdim=True)).relu()).sigmoid()
        return x + y * gate


class Refinement(nn.Module):
    """x [B, d, T] -> [B, d, T]: a residual group of channel attention (RCAN; Zhang et al., ECCV 2018) of width 2d."""

    def __init__(self, d: int, blocks: int, reduction: int) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Conv1d(d, 2 * d, 1), nn.Conv1d(2 * d, d, 1)
        self.blocks = nn.ModuleList(Attended(2 * d, reduction) for _ in range(blocks))
        self.last = nn.Conv1d(2 * d, 2 * d, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = y = self.widen(x)
        for block in self.blocks:
            y = block(y)
        return self.narrow(x + self.last(y))
