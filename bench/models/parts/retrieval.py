"""ConFEDE's retrieval: for each training sample, similar ones with the same label, and near and far ones with another.

A ranking is the order of all samples by falling similarity. Of it, the first ten (or, from its end, the last ten) whose
label is the same as the sample's or another; the sample itself is left out. "release" writes down the position in the
ranking instead of the sample that stands there, and leaves out the position that has the sample's own number: what is
retrieved with such tables are the first and the last samples of the training set.
"""

import torch
from torch import Tensor

KEPT = 10
NONE = 9999
KINDS = ("ss", "sd", "ds", "dd")  # near or far ("s", "d"), label same or different


def tables(ranking: Tensor, rows: Tensor, label: Tensor, release: bool = False, half: bool = False) -> dict[str, Tensor]:
    """Kind -> [M, 10] int64 of the rankings [M, N] of the samples `rows` [M], NONE where there are fewer. Far ones are
    numbered from the end (-1 is the last) in "release", as samples otherwise. `half`: only that part of a ranking."""
    n = ranking.shape[1]
    same = label[ranking] == label[rows][:, None]  # (M, N)
    depth = n // 2 if half else n
    position = torch.arange(n, device=ranking.device).expand_as(ranking)
    found = {}
    for kind in KINDS:
        order, wanted, places = ranking, same, position
        if kind[0] == "d":  # from the back; the front position is never reached
            order, wanted = ranking.flip(1)[:, : depth - 1], same.flip(1)[:, : depth - 1]
            places = -1 - position[:, : depth - 1]
        else:
            order, wanted, places = order[:, :depth], wanted[:, :depth], places[:, :depth]
        allowed = wanted if kind[1] == "s" else ~wanted
        allowed = allowed & ((places if release else order) != rows[:, None])
        first = allowed & (allowed.cumsum(1) <= KEPT)
        slot = (first.cumsum(1) - 1).masked_fill(~first, KEPT)  # (M, depth)
        table = torch.full((len(ranking), KEPT + 1), NONE, dtype=torch.int64, device=ranking.device)
        table.scatter_(1, slot, places if release else order)
        table[:, KEPT] = NONE
        found[kind] = table[:, :KEPT]
    return found


def draw_two(table: Tensor, rows: Tensor, n: int) -> Tensor:
    """Two different entries of each row of a table [B, 10], [B, 2] as numbers of n samples; the only one twice, the
    sample itself (`rows` [B]) where there is none."""
    count = (table != NONE).sum(1)  # (B,)
    first = (torch.rand(len(table), device=table.device) * count).long()
    step = 1 + (torch.rand(len(table), device=table.device) * (count - 1).clamp(min=0)).long()
    second = (first + step) % count.clamp(min=1)
    picked = table.gather(1, torch.stack([first, second], 1).clamp(0, KEPT - 1))
    return torch.where(picked == NONE, rows[:, None], picked % n)
