"""LSTMs over right-padded sequences, without packing.

Packing needs the lengths on the host. Here the LSTM runs over the padded sequence, the state at each sequence's last
valid step is gathered, and the backward direction reads each sequence reversed within its own length. The numbers are
those of a packed LSTM (a test proves it); padded steps come after the state that is read, so they never matter.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.models.parts.lstm import LSTM


def last_step(x: Tensor, lengths: Tensor) -> Tensor:
    """x [B, T, d], lengths [B] in 1..T -> the last valid step [B, d]."""
    index = (lengths - 1)[:, None, None].expand(-1, 1, x.shape[2])
    return x.gather(1, index).squeeze(1)


def reverse(x: Tensor, lengths: Tensor) -> Tensor:
    """Each sequence of x [B, T, d] reversed within its length; padded steps stay where they are."""
    step = torch.arange(x.shape[1], device=x.device)  # (T,)
    mirrored = lengths[:, None] - 1 - step  # (B, T)
    index = torch.where(mirrored >= 0, mirrored, step)
    return x.gather(1, index[:, :, None].expand_as(x))


def step_mask(x: Tensor, lengths: Tensor) -> Tensor:
    """[B, T, 1] in x's dtype: 1 at valid steps."""
    return (torch.arange(x.shape[1], device=x.device) < lengths[:, None])[..., None].to(x.dtype)


class States(NamedTuple):
    """steps [B, T, 2h], zero at padded steps; forward, backward [B, h]: final state of each direction."""

    steps: Tensor
    forward: Tensor
    backward: Tensor


class PaddedBiLSTM(nn.Module):
    """One bidirectional LSTM layer over a padded batch, as two LSTMs."""

    def __init__(self, d: int, h: int) -> None:
        super().__init__()
        self.forward_lstm = LSTM(d, h)
        self.backward_lstm = LSTM(d, h)

    def forward(self, x: Tensor, lengths: Tensor) -> States:
        """x [B, T, d], lengths [B] in 1..T."""
        ahead = self.forward_lstm.all_states(x)  # (B, T, h)
        mirrored = self.backward_lstm.all_states(reverse(x, lengths))  # (B, T, h), step 0 is the last valid one
        steps = torch.cat([ahead, reverse(mirrored, lengths)], -1) * step_mask(x, lengths)  # (B, T, 2h)
        return States(steps, last_step(ahead, lengths), last_step(mirrored, lengths))


class Utterance(nn.Module):
    """Two bidirectional LSTM layers with a LayerNorm between; their final states [B, 4d] (MISA, TMBL)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.first = PaddedBiLSTM(d, d)
        self.norm = nn.LayerNorm(2 * d)
        self.second = PaddedBiLSTM(2 * d, d)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        one = self.first(x, lengths)
        two = self.second(self.norm(one.steps), lengths)
        return torch.cat([one.forward, two.forward, one.backward, two.backward], 1)  # (B, 4d)
