"""A one-layer LSTM in two forms that agree to rounding: torch's own, and one unrolled in Python.

nn.LSTM has no batching rule, so torch.func.vmap over seeds needs the unrolled form; everywhere else nn.LSTM is used
(on CUDA it is cuDNN; on one CPU thread the two take the same time in training and nn.LSTM is faster without gradient).
Legend: B batch, T steps, d input width, h hidden width. Gate order input, forget, cell, output; zero initial state.
"""

from torch import Tensor, addcmul, addmm, nn, sigmoid, stack, tanh
from torch.nn import functional as F


def unroll(x: Tensor, rnn: nn.LSTM, reverse: bool = False) -> list[Tensor]:
    """Hidden states [B, h] of the steps 0..T-1 of x [B, T, d], for the first layer of a batch-first nn.LSTM.

    `reverse` runs the backward direction of a bidirectional LSTM; the list is in the order of the input steps either
    way.
    """
    return unroll_cells(x, rnn, reverse)[0]


def unroll_cells(x: Tensor, rnn: nn.LSTM, reverse: bool = False) -> tuple[list[Tensor], list[Tensor]]:
    """As `unroll`, and the cell states [B, h] beside the hidden ones.

    All inputs are multiplied at once and taken apart with one unbind: indexing step by step would make the backward
    pass zero-fill the whole tensor T times.
    """
    end = "_l0_reverse" if reverse else "_l0"
    w_in, w_rec = getattr(rnn, f"weight_ih{end}"), getattr(rnn, f"weight_hh{end}").t()  # (4h, d), (h, 4h)
    bias = getattr(rnn, f"bias_ih{end}") + getattr(rnn, f"bias_hh{end}")
    steps = F.linear(x.transpose(0, 1), w_in, bias).unbind(0)  # T x (B, 4h)
    h, c, states, cells = None, None, [], []
    for gates in reversed(steps) if reverse else steps:
        if h is not None:
            gates = addmm(gates, h, w_rec)
        h, c = _cell(gates, c)
        states.append(h)
        cells.append(c)
    return (states[::-1], cells[::-1]) if reverse else (states, cells)


def unroll_free(x: Tensor, rnn: nn.LSTM, steps: int) -> Tensor:
    """Hidden states [B, steps, h] of an LSTM that reads x [B, h] first and its own last hidden state afterwards."""
    bias = rnn.bias_ih_l0 + rnn.bias_hh_l0
    both = (rnn.weight_ih_l0 + rnn.weight_hh_l0).t()  # (h, 4h): input and state are one from step 1 on
    h, c = _cell(F.linear(x, rnn.weight_ih_l0, bias), None)
    states = [h]
    for _ in range(steps - 1):
        h, c = _cell(addmm(bias, h, both), c)
        states.append(h)
    return stack(states, 1)


def _cell(gates: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
    """One step: gates [B, 4h] before their nonlinearities, cell state [B, h] or None at the start."""
    i, f, g, o = gates.chunk(4, 1)  # (B, h) each
    i, g = sigmoid(i), tanh(g)
    c = i * g if c is None else addcmul(sigmoid(f) * c, i, g)
    return sigmoid(o) * tanh(c), c


class LSTM(nn.LSTM):
    """One-layer batch-first LSTM; `unrolled` chooses the form, the parameters are the same."""

    unrolled: bool = False

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden, batch_first=True)

    def all_states(self, x: Tensor) -> Tensor:
        """Hidden states [B, T, h] of x [B, T, d]."""
        return stack(unroll(x, self), 1) if self.unrolled else self(x)[0]

    def last_state(self, x: Tensor, last: Tensor | None = None) -> Tensor:
        """Hidden state [B, h] after the last step of x [B, T, d], padding steps included, or after the steps `last`
        [B] (int64)."""
        if last is not None:
            states = self.all_states(x)  # (B, T, h)
            return states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)
        return unroll(x, self)[-1] if self.unrolled else self(x)[1][0][0]


def use_unrolled(model: nn.Module, on: bool = True) -> None:
    """Switch every LSTM of a model to the unrolled form (before vmap) or back."""
    for module in model.modules():
        if isinstance(module, LSTM):
            module.unrolled = on
