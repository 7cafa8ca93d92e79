"""Which clips of a split were cut from one video, for models that read a clip among its neighbours.

Ids say it ("video$_$clip", "video[clip]", "video_clip"); a clip whose id does not is a video of its own. Clips stand in
the order of their numbers, else of the file. Legend: N clips of a split, B batch, C places.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.data.values import video_of

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Videos:
    """The table of a split. rows [N, C] int64: the clips of each clip's video; there [N, C] bool: whether a place is
    taken (rows holds 0 where it is not); place [N] int64: its own."""

    rows: Tensor
    there: Tensor
    place: Tensor

    def batch(self, index: Tensor, gather: Callable[[Tensor], Batch]) -> Batch:
        """Clips `index` [B] with their videos: every tensor of gather(rows) as [B, C, ...], the labels as `labels`;
        label, index, place [B]; utterances [B, C] bool, the places that are taken."""
        rows, place = self.rows.index_select(0, index), self.place.index_select(0, index)
        flat = gather(rows.flatten())
        wide = {key: x.unflatten(0, tuple(rows.shape)) for key, x in flat.items() if key != "index"}
        labels = wide.pop("label")
        label = labels.gather(1, place[:, None]).squeeze(1)
        there = self.there.index_select(0, index)
        return {**wide, "labels": labels, "label": label, "index": index, "place": place, "utterances": there}


def table(ids: Sequence[str], most: int = 0, device: torch.device | str = "cpu") -> Videos:
    """The videos of clips [N]. `most`: so many places, of neighbours on both sides where a video has more; 0: all."""
    found: dict[str, list[int]] = {}
    for i, name in enumerate(ids):
        found.setdefault(video_of(name) or f"\n{i}", []).append(i)
    longest = max(map(len, found.values()), default=1)
    places = min(most, longest) if most else longest
    rows, place = np.full((len(ids), places), -1, np.int64), np.zeros(len(ids), np.int64)
    for members in found.values():
        members.sort(key=lambda i: (_clip(ids[i]), i))
        for at, i in enumerate(members):
            first = min(max(at - places // 2, 0), max(len(members) - places, 0))
            near = members[first : first + places]
            rows[i, : len(near)], place[i] = near, at - first
    there = torch.from_numpy(rows >= 0)
    return Videos(*(t.to(device) for t in (torch.from_numpy(np.maximum(rows, 0)), there, torch.from_numpy(place))))


def _clip(name: str) -> int:
    number = re.search(r"(\d+)\]?$", name)
    return int(number[1]) if number else 0
