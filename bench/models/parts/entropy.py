"""Entropy of two classes of a batch and a memory of batches, as MMIM estimates it.

    H = 1/4 (logdet C_pos + logdet C_neg), C the biased covariance of the rows with positive (negative) labels

Rows of label 0 belong to neither class. Shapes are fixed and classes are masks, so that a step can be captured.
"""

import torch
from torch import Tensor, nn


def log_determinant(matrix: Tensor) -> Tensor:
    """Of a positive definite matrix [d, d], by elimination without pivots: d is 4 here, and no solver is called."""
    total = torch.zeros((), dtype=matrix.dtype, device=matrix.device)
    for _ in range(len(matrix)):
        pivot = matrix[0, 0]
        total = total + pivot.clamp(min=torch.finfo(matrix.dtype).tiny).log()
        matrix = matrix[1:, 1:] - matrix[1:, :1] * matrix[:1, 1:] / pivot
    return total


def class_log_determinant(rows: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [n, d], mask [n] of 0 and 1 -> log determinant of the masked rows' covariance, and whether there are more
    of them than d (with fewer it does not exist; the value is then 0)."""
    d, mask = rows.shape[1], mask.to(rows.dtype)
    count = mask.sum()
    mean = (rows * mask[:, None]).sum(0) / count.clamp(min=1)
    centred = (rows - mean) * mask[:, None]
    covariance = (centred[:, :, None] * centred[:, None]).sum(0) / count.clamp(min=1)  # (d, d)
    enough = count > d
    identity = torch.eye(d, dtype=rows.dtype, device=rows.device)
    return log_determinant(torch.where(enough, covariance, identity)), enough


def class_entropy(rows: Tensor, label: Tensor) -> Tensor:
    """H of rows [n, d] by the sign of label [n]; 0 where a class has no more rows than features."""
    rows = rows if rows.dtype == torch.float64 else rows.float()
    (positive, one), (negative, two) = (class_log_determinant(rows, side) for side in (label > 0, label < 0))
    return 0.25 * (positive + negative) * (one & two)


class BatchMemory(nn.Module):
    """The projected rows of the last `size` batches, detached, with their labels; empty at the start of an epoch.

    Its tensors are made at the first batch of the training, as large as that, and are no part of a checkpoint.
    """

    count: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.rows: dict[str, Tensor] = {}  # name -> (size, B, d)
        self.label: Tensor | None = None  # (size, B); 0 where there is no row
        self.register_buffer("count", torch.zeros((), dtype=torch.int64), persistent=False)

    def start_epoch(self) -> None:
        self.count.zero_()
        if self.label is not None:
            self.label.zero_()

    def make(self, rows: dict[str, Tensor]) -> None:
        """Room for batches of this shape; nothing where there is room."""
        n = len(next(iter(rows.values())))
        if self.label is None or n > self.label.shape[1]:
            self.rows = {k: torch.zeros(self.size, *v.shape, dtype=v.dtype, device=v.device) for k, v in rows.items()}
            self.label = torch.zeros(self.size, n, dtype=torch.float32, device=self.count.device)

    def entropy(self, rows: dict[str, Tensor], label: Tensor) -> Tensor:
        """Sum over the names of H of this batch and the memory; 0 until the memory was full for a batch."""
        self.make(rows)
        signs = torch.cat([label, self.label.flatten().to(label.dtype)])
        total = sum(class_entropy(torch.cat([r, self.rows[k].flatten(0, 1).to(r.dtype)]), signs) for k, r in rows.items())
        return torch.where(self.count > self.size, total, torch.zeros_like(total))

    @torch.no_grad()
    def store(self, rows: dict[str, Tensor], label: Tensor) -> None:
        """Put a batch in, the oldest goes."""
        self.make(rows)
        self.label.copy_(self.label.roll(1, 0))
        self.label[0].zero_()
        self.label[0, : len(label)].copy_(label)
        for k, r in rows.items():
            self.rows[k].copy_(self.rows[k].roll(1, 0))
            self.rows[k][0, : len(r)].copy_(r)
        self.count.add_(1)
