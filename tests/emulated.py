"""CUDA graphs emulated on a CPU, so that the engine itself runs where there is no GPU: the same names, warm runs,
captures and replays (bench/train/engine.py), with a recording of a piece's operations in the place of its graph.

What makes it a graph is kept: a replay runs no Python, knows the tensors of its capture by their address alone, reads
what lies there now and overwrites what it made then, and draws from the generators of its capture. What is not: kernels
in flight, streams, and a pool whose memory later captures use again.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from bench.train.capturable import Tape
from bench.train.engine import Eager, Graphs

_VIEWED = ("squeeze_", "unsqueeze_", "transpose_", "t_")  # another view of memory, which tensors of the recording have already


class _Recorder(Tape):
    """Keeps where an operation's results lie, whatever view of it they become later in the step."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = super().__torch_dispatch__(func, types, args, kwargs)
        *call, _ = self.calls.pop()
        if func.overloadpacket.__name__ not in _VIEWED:
            self.calls.append((*call, tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, out)))
        return out


class Recording:
    """What stands for a captured graph. The recording has run the work, which a capture does not: the first replay of a
    capture, which the engine makes at once, is that run."""

    def __init__(self, work: Callable[[], object]) -> None:
        with _Recorder() as tape:
            work()
        self.calls, self.fresh, self.replays = tape.calls, True, 0
        self.spoiled = False  # a state of the generators that it knows took part in a capture that failed

    def replay(self) -> None:
        if self.spoiled:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")
        self.replays += 1
        if self.fresh:
            self.fresh = False
            return
        with torch._C._AutoDispatchBelowAutograd():
            for func, args, kwargs, out in self.calls:
                for then, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(then, Tensor) and not _one_place(then, new):
                        then.copy_(new)


def _one_place(a: Tensor, b: Tensor) -> bool:
    return a is b or a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() and a.storage_offset() == b.storage_offset()


class Emulated(Graphs):
    """The engine of a GPU, on a CPU. `refuse`: names of work that this device will not capture."""

    def __init__(self, refuse: tuple[str, ...] = ()) -> None:
        Eager.__init__(self, "cpu")
        self.captured, self._seen, self.refuse, self.drawing = {}, {}, refuse, []
        self._starved, self.made = False, []

    def context(self):
        return nullcontext()

    def finish(self):
        pass

    def _drawing(self, generators):
        return self.drawing

    def _first_replay(self, key, work, generators):
        self._key = key
        return super()._first_replay(key, work, generators)

    def _capture(self, work, generators):
        if self._key[0] in self.refuse:
            for recording in self.made:
                recording.spoiled = True
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        self.made.append(Recording(work))
        return self.made[-1]
