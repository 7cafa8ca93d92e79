"""The memory fusion network of MFN (Zadeh et al., AAAI 2018), which MFM builds on: an LSTM per modality, attention over
the change of their cell states, and a gated memory beside them.

    c*_t = concat(c_{t-1}, c_t) over all modalities;  attended = softmax over features of Lin ReLU Lin(c*) times c*
    candidate = tanh(Lin ReLU Lin(attended));  gamma_1, gamma_2 = sigmoid(Lin ReLU Lin(concat(attended, u_{t-1})))
    u_t = gamma_1 u_{t-1} + gamma_2 candidate

Only the memory is a recurrence beside the LSTMs: attention and candidates of all steps are computed at once. Padded
steps run like any other; states and memory start at zero. Legend: B batch, T steps, h hidden widths, H their sum.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.models.parts.layers import dropout
from bench.models.parts.lstm import LSTM, unroll_cells


@dataclass(frozen=True)
class Gate:
    """Width and dropout of the hidden layer of one inner network."""

    hidden: int
    dropout: float


class Inner(nn.Module):
    """Lin ReLU dropout Lin."""

    def __init__(self, width: int, gate: Gate, out: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, gate.hidden), nn.Linear(gate.hidden, out)
        self.rate = gate.dropout

    def forward(self, x: Tensor) -> Tensor:
        return self.second(dropout(self.first(x).relu(), self.rate, self.training))


def gated_memory(attended: Tensor, candidates: Tensor, keep: Inner, write: Inner) -> Tensor:
    """The memory [B, memory] after all steps of what was attended to [B, T, a] and its candidates [B, T, memory]."""
    u = torch.zeros_like(candidates[:, 0])
    for step, candidate in zip(attended.unbind(1), candidates.unbind(1)):
        seen = torch.cat([step, u], -1)
        u = keep(seen).sigmoid() * u + write(seen).sigmoid() * candidate
    return u


class MemoryFusion(nn.Module):
    """Sequences of one length T, modality -> [B, T, d_m], to the last hidden state [B, h_m] of each and the memory
    [B, memory] under "memory". `widths` and `hidden`: modality -> d_m and h_m; attention, candidate and the two gates
    are NN1, NN2, gamma1 and gamma2 of the release."""

    def __init__(
        self, widths: Mapping[str, int], hidden: Mapping[str, int], memory: int, attention: Gate, candidate: Gate,
        keep: Gate, write: Gate,
    ) -> None:
        super().__init__()
        total = 2 * sum(hidden.values())  # window of two steps
        self.lstm = nn.ModuleDict({m: LSTM(widths[m], h) for m, h in hidden.items()})
        self.attention = Inner(total, attention, total)
        self.candidate = Inner(total, candidate, memory)
        self.keep, self.write = Inner(total + memory, keep, memory), Inner(total + memory, write, memory)
        self.memory = memory

    def forward(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        states, cells = zip(*(unroll_cells(x[m], rnn) for m, rnn in self.lstm.items()))
        c = torch.stack([torch.cat(step, -1) for step in zip(*cells)], 1)  # (B, T, H)
        both = torch.cat([torch.cat([torch.zeros_like(c[:, :1]), c[:, :-1]], 1), c], -1)  # (B, T, 2H)
        attended = self.attention(both).softmax(-1) * both
        u = gated_memory(attended, self.candidate(attended).tanh(), self.keep, self.write)
        return {**{m: h[-1] for m, h in zip(self.lstm, states)}, "memory": u}
