"""Prediction heads that several backbones share. Legend: B batch, d input width, h hidden width."""

from torch import Tensor, nn


class Head(nn.Module):
    """Dropout and two hidden layers to a score [B]; the first layer's output [B, h] feeds the label generation."""

    def __init__(self, d: int, h: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.first = nn.Linear(d, h)
        self.second = nn.Linear(h, h)
        self.score = nn.Linear(h, 1)

    def feature(self, x: Tensor) -> Tensor:
        return self.first(self.dropout(x)).relu()  # F*, (B, h)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.feature(x)
        return self.score(self.second(feature).relu()).squeeze(1), feature
