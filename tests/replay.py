"""Host reads of a piece of work: what would make a captured CUDA graph wait, or break its capture."""

import collections

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_READS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal.default")


class HostReads(TorchDispatchMode):
    """Counts, by name, the operations that read a value on the host or whose shape depends on values."""

    def __init__(self):
        super().__init__()
        self.found = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        indexed = ("index.Tensor" in name or "index_put" in name) and any(
            isinstance(a, torch.Tensor) and a.dtype == torch.bool for a in args[1] or []
        )
        if indexed or any(read in name for read in _READS):
            self.found[f"boolean {name}" if indexed else name] += 1
        return func(*args, **(kwargs or {}))
