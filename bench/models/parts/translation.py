"""Translation of one sequence into another with attention and teacher forcing (MCTN).

Legend: N sequences, S steps, d input width, D output width, h hidden width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Source(NamedTuple):
    """states [N, S, h], both directions added; start [N, h]: the decoder's first state."""

    states: Tensor
    start: Tensor


class Encoder(nn.Module):
    """x [N, S, d] -> Source: a bidirectional LSTM; start = tanh(Lin(final states, added))."""

    def __init__(self, d: int, h: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(d, h, batch_first=True, bidirectional=True)
        self.start = nn.Linear(h, h, bias=False)

    def forward(self, x: Tensor) -> Source:
        states, (last, _) = self.rnn(x)
        ahead, back = states.chunk(2, -1)
        return Source(ahead + back, self.start(last.sum(0)).tanh())


class Decoder(nn.Module):
    """A source and the sequence [N, S, D] that it is to give -> [N, S, D], whose first step is zero.

    Step p: context = softmax over the source of v . tanh(W [state, source state]), weighted; a bidirectional LSTM makes
    one step from nothing on [target at p - 1, context]; the state is its two outputs, added; output =
    Lin(concat(state, context)). An LSTM that begins anew at every step never multiplies by its recurrent weights, which
    are there and stay as they are.
    """

    def __init__(self, h: int, D: int) -> None:
        super().__init__()
        self.attention, self.score = nn.Linear(2 * h, h, bias=False), nn.Linear(h, 1, bias=False)
        self.rnn = nn.LSTM(D + h, h, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * h, D)
        for name, weight in self.rnn.named_parameters():
            weight.requires_grad_("weight_hh" not in name)

    def forward(self, source: Source, target: Tensor) -> Tensor:
        h, D = source.start.shape[1], target.shape[2]
        of_state, of_source = self.attention.weight.split(h, 1)
        keys = F.linear(source.states, of_source)  # (N, S, h)
        weight = torch.cat([self.rnn.weight_ih_l0, self.rnn.weight_ih_l0_reverse])  # (8h, D + h)
        bias = torch.cat([self.rnn.bias_ih_l0 + self.rnn.bias_hh_l0, self.rnn.bias_ih_l0_reverse + self.rnn.bias_hh_l0_reverse])
        forced = F.linear(target[:, :-1], weight[:, :D], bias)  # (N, S - 1, 8h)
        of_context = weight[:, D:].t()
        state, outputs = source.start, []
        for gates in forced.unbind(1):
            scores = self.score((F.linear(state, of_state)[:, None] + keys).tanh())  # (N, S, 1)
            context = (scores.softmax(1) * source.states).sum(1)  # (N, h)
            i, _, g, o = (gates + context @ of_context).unflatten(1, (2, 4, h)).unbind(2)  # (N, 2, h)
            state = (o.sigmoid() * (i.sigmoid() * g.tanh()).tanh()).sum(1)
            outputs.append(torch.cat([state, context], 1))
        if not outputs:
            return torch.zeros_like(target)
        return F.pad(self.out(torch.stack(outputs, 1)), (0, 0, 1, 0))
