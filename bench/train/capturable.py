"""Is a training step capturable as a CUDA graph? Asked on a CPU, in two ways.

`host_reads` runs a step under a mode that sees every operation and notes those that would stop a capture: a value read
by the host, a shape that depends on values, indexing by a mask. `replay` records a step's operations, which freezes
Python's control flow as a graph freezes it, and gives back what plays the recording: it knows the tensors of the step
by their identity and nothing else, takes no argument and returns nothing. Tests compare a training of such replays with
an eager one. (make_fx records the same; it takes thirty times as long.)
"""

import collections
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_HOST = (  # operations whose result, or its shape, the host has to know
    "_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal.default", "bincount",
    "repeat_interleave.Tensor", "_assert_async",
)
_UNORDERED = (  # operations that add up in no fixed order on a GPU: torch has no deterministic form of them there
    "adaptive_max_pool2d_backward", "adaptive_max_pool3d_backward", "_adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool3d_backward", "avg_pool3d_backward", "max_pool3d_with_indices_backward", "max_unpool",
    "fractional_max_pool", "upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward",
    "upsample_trilinear3d_backward", "reflection_pad1d_backward", "reflection_pad2d_backward",
    "grid_sampler_2d_backward", "grid_sampler_3d_backward", "nll_loss2d", "_ctc_loss_backward", "aten.kthvalue", "aten.median.dim", "aten.put", "aten.histc",
)
_ROOT = Path(__file__).parents[2]


class HostReads(TorchDispatchMode):
    """Counts what a capture, or a training by deterministic algorithms, would stumble over: `found`, "operation at
    file:line" -> times.

    made: report tensors that are made on the host in the step too (torch.tensor([...]) is a copy to the device there).
    """

    def __init__(self, made: bool = True) -> None:
        super().__init__()
        self.found: collections.Counter[str] = collections.Counter()
        self._made = made

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if any(h in name for h in _HOST) or self._made and "lift_fresh" in name:
            self._note(name)
        if any(u in name for u in _UNORDERED) or "aten.cumsum" in name and args[0].is_floating_point():
            self._note(f"{name}, which has no deterministic form on a GPU,")
        if "index.Tensor" in name or "index_put" in name:
            if any(isinstance(a, Tensor) and a.dtype == torch.bool for a in args[1] or ()):
                self._note(f"{name} by a mask")
        return func(*args, **(kwargs or {}))

    def _note(self, name: str) -> None:
        frames = [f for f in traceback.extract_stack() if f.filename.startswith(str(_ROOT)) and f.filename != __file__]
        where = f" at {Path(frames[-1].filename).relative_to(_ROOT)}:{frames[-1].lineno}" if frames else ""
        self.found[name + where] += 1


def host_reads(step: Callable[[], object]) -> dict[str, int]:
    """What in one run of `step` a capture would stumble over; empty where nothing."""
    with HostReads() as reads:
        step()
    return dict(reads.found)


class Tape(TorchDispatchMode):
    """Writes down every operation: what was called, on which tensors, and what came out."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        # whatever is on the tape stays alive, ids are unique; LSTMs of the CPU choose their kernel by the gradient mode
        mode = torch.enable_grad if torch.is_grad_enabled() else torch.no_grad
        self.calls.append((mode()(func), args, kwargs or {}, out))
        return out


def replay(step: Callable[[], object]) -> tuple[Callable[[], None], int]:
    """(what repeats `step` as it went this time, its number of operations). The recording runs the step once."""
    with Tape() as tape:
        step()

    def again() -> None:
        now: dict[int, Any] = {}  # id of a tensor of the recording -> the one that stands for it in this replay

        def present(x: Any) -> Any:
            return now.get(id(x), x) if isinstance(x, Tensor) else x

        with torch._C._AutoDispatchBelowAutograd():
            for func, args, kwargs, out in tape.calls:
                args, kwargs = tree_map(present, (args, kwargs))
                made = func(*args, **kwargs)
                for then, new in zip(tree_leaves(out), tree_leaves(made), strict=True):
                    if isinstance(then, Tensor):
                        now[id(then)] = new

    return again, len(tape.calls)


def as_on_gpu(model: nn.Module) -> None:
    """Let parts that have a form for the CPU alone take the one that runs on a GPU."""
    for module in model.modules():
        for switch in ("together", "store_product"):
            if hasattr(module, switch):
                setattr(module, switch, True)
