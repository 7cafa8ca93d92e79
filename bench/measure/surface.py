"""Losses of a model at many points of a plane through its weights: w + a d_1 + b d_2, many (a, b) at once.

The points of a chunk run as one vmapped functional call. A linear layer whose input does not depend on the weights (the
first one on the data) is not computed again at every point: it is linear in the weights, so that its three products with
w, d_1 and d_2 give all points (`_Shared`). Where a model cannot be vmapped, the points run one after another.
Legend: K points of a chunk, n rows of a batch.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from bench.measure.directions import Weights
from bench.models.base import Backbone, Batch
from bench.models.parts.lstm import use_unrolled

CPU_BUDGET = 1 << 30  # bytes that the points of a chunk may take on a CPU; on a GPU an eighth of its memory
_INTERMEDIATES = 6  # a forward pass is taken to hold this many tensors of its largest size


class Surface:
    """`losses(points)` of a model over fixed batches. `criterion`: (prediction [N] float64, target [N]) -> scalar.

    batched=False: one point after another, every layer in full. The model's own weights are left as they were.
    """

    def __init__(
        self, model: Backbone, batches: Sequence[Batch], first: Weights, second: Weights,
        criterion: Callable[[Tensor, Tensor], Tensor], budget: int | None = None, batched: bool = True,
    ) -> None:
        self.model, self.batches, self.criterion = model.eval(), list(batches), criterion
        self.plain = _Plain(model)
        parameters = dict(model.named_parameters())
        self.weights = {n: parameters[n].detach().clone() for n in first}
        self.first, self.second = first, second
        self.target = torch.cat([b["label"] for b in self.batches]).double()
        self.batched = batched
        self.shared = [_Shared(self) for _ in self.batches]
        self.chunk = self._chunk(budget) if batched else 1

    def losses(self, points: Tensor) -> Tensor:
        """Losses [K] float64 on the host at points [K, 2] float64."""
        return torch.cat([self._chunk_losses(part) for part in points.split(self.chunk)])

    @torch.no_grad()
    def _chunk_losses(self, points: Tensor) -> Tensor:
        if len(points) > self.chunk:  # it has shrunk since they were split
            return self.losses(points)
        if self.batched:
            try:
                return self._together(points)
            except torch.OutOfMemoryError:  # jobs beside it may hold what the budget counts on
                if len(points) == 1:
                    raise
                self.chunk = len(points) // 2
                return self.losses(points)
            except (RuntimeError, NotImplementedError, ValueError):  # an operator that has no batching rule
                self.batched, self.chunk = False, 1
                self.shared = []
        return torch.stack([self._alone(float(a), float(b)) for a, b in points])

    def _together(self, points: Tensor) -> Tensor:
        offsets = points.to(self.target.device, torch.float32)  # (K, 2)
        found = []
        use_unrolled(self.model)
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # vmap says where it has to loop
                for batch, shared in zip(self.batches, self.shared, strict=True):
                    run = vmap(partial(self._predict, batch=batch, shared=shared), chunk_size=None, randomness="error")
                    found.append(run(offsets).double())  # (K, n)
        finally:
            use_unrolled(self.model, False)
            torch.backends.mha.set_fastpath_enabled(fast)
        predictions = torch.cat(found, 1)
        return torch.stack([self.criterion(p, self.target) for p in predictions]).cpu()

    def _predict(self, offset: Tensor, batch: Batch, shared: "_Shared") -> Tensor:
        moved = {n: torch.addcmul(torch.addcmul(w, self.first[n], offset[0]), self.second[n], offset[1])
                 for n, w in self.weights.items()}
        with shared.of(offset, moved):
            return functional_call(self.plain, {f"model.{n}": w for n, w in moved.items()}, (batch,))

    def _alone(self, a: float, b: float) -> Tensor:
        parameters = dict(self.model.named_parameters())
        try:
            for n, w in self.weights.items():
                parameters[n].copy_(torch.add(torch.add(w, self.first[n], alpha=a), self.second[n], alpha=b))
            prediction = torch.cat([self.plain(batch) for batch in self.batches])
        finally:
            for n, w in self.weights.items():
                parameters[n].copy_(w)
        return self.criterion(prediction.double(), self.target).cpu()

    def _chunk(self, budget: int | None) -> int:
        """How many points fit: their weights, and what a forward pass over the first batch holds."""
        device = self.target.device
        if budget is None:
            on_gpu = device.type == "cuda"
            budget = torch.cuda.get_device_properties(device).total_memory // 8 if on_gpu else CPU_BUDGET
        with _Largest() as seen, torch.no_grad():
            self.plain(self.batches[0])
        weights = sum(w.nbytes for w in self.weights.values())
        return max(1, budget // (weights + _INTERMEDIATES * seen.nbytes))


class _Plain(nn.Module):
    """A backbone's prediction and nothing else: its own `forward` may keep records, which must not happen in vmap."""

    def __init__(self, model: Backbone) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return self.model.fuse(self.model.encode(batch).latents).prediction


class _Shared(TorchFunctionMode):
    """Computes linear layers on inputs that are the same at every point from three products, kept between chunks.

    Which calls those are depends on the model and the batch alone, so a call is known by its number in the pass.
    """

    def __init__(self, surface: Surface) -> None:
        super().__init__()
        self.surface = surface
        self.kept: dict[int, Tensor] = {}
        self.names: dict[int, str] = {}
        self.offset: Tensor | None = None
        self.calls = 0

    def of(self, offset: Tensor, moved: Weights) -> "_Shared":
        """Ready for one pass with the weights `moved`, which belong to `offset` [2]."""
        self.names, self.calls = {id(w): n for n, w in moved.items()}, 0
        self.offset = torch.cat([torch.ones_like(offset[:1]), offset])  # (3,): of w, d_1, d_2
        return self

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function is F.linear and arguments and len(arguments) > 1 and id(arguments[1]) in self.names:
            x, name = arguments[0], self.names[id(arguments[1])]
            if not torch._C._functorch.is_batchedtensor(x):
                bias = arguments[2] if len(arguments) > 2 else (keywords or {}).get("bias")
                return self._linear(x, name, bias)
        if function is torch.addmm and len(arguments) == 3 and not keywords:  # vmap would first multiply it by beta = 1
            product = arguments[1] @ arguments[2]
            if torch._C._functorch.is_batchedtensor(product):
                return product.add_(arguments[0])
        return function(*arguments, **(keywords or {}))

    def _linear(self, x: Tensor, name: str, bias: Tensor | None) -> Tensor:
        self.calls += 1
        still = bias is not None and not torch._C._functorch.is_batchedtensor(bias)  # the same at every point
        if self.calls not in self.kept:
            parts = [getattr(self.surface, part)[name] for part in ("weights", "first", "second")]
            products = [F.linear(x, w, bias if still and i == 0 else None) for i, w in enumerate(parts)]
            self.kept[self.calls] = torch.stack(products)  # (3, ..., out)
        kept = self.kept[self.calls]
        out = (self.offset @ kept.flatten(1)).unflatten(0, kept.shape[1:])
        return out if still or bias is None else out.add_(bias)


class _Largest(TorchDispatchMode):
    """Bytes of the largest tensor that any operator makes."""

    nbytes = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        out = function(*arguments, **(keywords or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, Tensor):
                self.nbytes = max(self.nbytes, x.nbytes)
        return out
