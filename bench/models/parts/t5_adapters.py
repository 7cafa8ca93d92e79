"""UniMSE's parts around T5: encoders of audio and vision, three kinds of adapters, the contrastive head.

Legend: B batch, L tokens, T steps, d width of T5, h width of the LSTMs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.parts.encoder import Encoder, Rates, interleaved
from bench.models.parts.lstm import LSTM
from bench.models.parts.padded import last_step, step_mask

TEMPERATURE = 0.1


class Sequence(nn.Module):
    """Audio or vision [B, T, d_m] with lengths [B] in 1..T -> (states [B, T, h], zero at padding; vector [B, out])."""

    def __init__(self, d_m: int, h: int, out: int) -> None:
        super().__init__()
        self.lstm, self.vector = LSTM(d_m, h), nn.Linear(h, out)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        states = self.lstm.all_states(x)
        return states * step_mask(x, lengths), self.vector(last_step(states, lengths))


def permuted(states: Tensor, lengths: Tensor) -> Tensor:
    """The release's states [B, T, h]: put into the order of falling lengths' inverse once more than is right, so that rows
    are exchanged between samples wherever the batch is not in that order."""
    order = lengths.argsort(descending=True, stable=True)
    return states[order.argsort()]


def beside(x: Tensor, vision: Tensor, audio: Tensor) -> Tensor:
    """x [B, L, d] with the vectors [B, .] repeated at every token."""
    return torch.cat([x, *(v[:, None].expand(-1, x.shape[1], -1) for v in (vision, audio))], -1)


class Gated(nn.Module):
    """A narrow network around z [B, L, w]: Lin(w, size), sigmoid, Lin(size, w)."""

    def __init__(self, w: int, size: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(w, size), nn.Linear(size, w)

    def forward(self, z: Tensor) -> Tensor:
        return self.up(self.down(z).sigmoid())


class FfnAdapter(nn.Module):
    """"ffn": z = concat(states, vision, audio); Lin(z + Gated z), without a residual around it."""

    def __init__(self, d: int, vision: int, audio: int, size: int) -> None:
        super().__init__()
        w = d + vision + audio
        self.gated, self.out = Gated(w, size), nn.Linear(w, d)

    def forward(self, before: Tensor, after: Tensor, vision: Tensor, audio: Tensor) -> Tensor:
        """before, after [B, L, d]: input and output of the feed-forward layer; vision, audio [B, .]."""
        z = beside(after, vision, audio)
        return self.out(z + self.gated(z))


class ParallelAdapter(FfnAdapter):
    """"parallel": the gated network reads the feed-forward layer's input."""

    def forward(self, before: Tensor, after: Tensor, vision: Tensor, audio: Tensor) -> Tensor:
        return self.out(beside(after, vision, audio) + self.gated(beside(before, vision, audio)))


class CrossAdapter(nn.Module):
    """"cross": tokens query the states of vision and audio [B, T, h]; Lin of concat(states, both). Causal, as MulT's
    encoders; padded steps are attended. The release hands vision to what it calls audio and the other way round."""

    def __init__(self, d: int, h: int, width: int, heads: int, layers: int, steps: int) -> None:
        super().__init__()
        self.text, self.vision, self.audio = nn.Linear(d, width, bias=False), *(nn.Linear(h, width, bias=False) for _ in range(2))
        table = interleaved(steps, width)
        self.from_vision, self.from_audio = (Encoder(width, heads, layers, Rates(), table, last_norm=False) for _ in range(2))
        self.out = nn.Linear(d + 2 * width, d)

    def forward(self, before: Tensor, after: Tensor, vision: Tensor, audio: Tensor) -> Tensor:
        x = self.text(after)
        of_audio = self.from_audio(x, self.audio(audio), late(x, audio))
        of_vision = self.from_vision(x, self.vision(vision), late(x, vision))
        return self.out(torch.cat([after, of_vision, of_audio], -1))


def late(x: Tensor, source: Tensor) -> Tensor:
    """MulT's causal bias [L, T] of tokens x [B, L, .] over a source [B, T, .]."""
    n, m = x.shape[1], source.shape[1]
    ahead = torch.arange(m, device=x.device) > torch.arange(n, device=x.device)[:, None] + abs(m - n)
    return torch.zeros((n, m), dtype=x.dtype, device=x.device).masked_fill(ahead, -torch.inf)


class Contrast(nn.Module):
    """Cross entropy of each text with its own sequence against the batch's others; both mean over all steps."""

    def __init__(self, d: int, h: int, width: int) -> None:
        super().__init__()
        self.text, self.other = nn.Linear(d, width, bias=False), nn.Linear(h, width, bias=False)

    def forward(self, text: Tensor, states: Tensor) -> Tensor:
        q, k = F.normalize(self.text(text).mean(1), dim=1), F.normalize(self.other(states).mean(1), dim=1)
        return F.cross_entropy(q @ k.T / TEMPERATURE, torch.arange(len(q), device=q.device))
