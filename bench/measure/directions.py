"""Two random directions in the space of a model's weights (MS-Mix Sec. 4.5).

Gaussian entries, drawn parameter by parameter from one seed, then Gram-Schmidt over all coordinates at once: two
orthogonal vectors of length 1. Models of one architecture get the same two. What an offset of 1 then means:

    normalise "none"     a move of Euclidean length 1
              "weights"  a move as long as the vector of all moved weights
              "filter"   every filter (row of a matrix, output channel of a convolution) of the direction as long as the
                         weights' own (Li et al. 2018). The two directions are then orthogonal only approximately, and
                         methods whose weights differ in size can be compared
    vectors   "fixed"    biases, norm weights and all else of rank 1 stay where they are (Li et al.)
              "moved"    they move too, as one filter each

Buffers (BatchNorm statistics) never move. Only parameters that were trained do.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from bench.errors import BenchError
from bench.models.base import Backbone

Weights = dict[str, Tensor]  # parameter name -> values


def trained_parameters(model: Backbone) -> Weights:
    """The parameters that an optimiser group names and that take gradients, detached, in the model's order."""
    mine = {id(p) for g in model.groups() for p in g.params}
    return {n: p.detach() for n, p in model.named_parameters() if id(p) in mine and p.requires_grad}


def inner(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Tensor:
    """Inner product over all coordinates, a float64 scalar."""
    return sum((a[n].double() * b[n].double()).sum() for n in a)


def directions(weights: Weights, seed: int, normalise: str = "filter", vectors: str = "fixed") -> tuple[Weights, Weights]:
    """Two directions with the shapes of the weights that move, on their device: fixed ones are left out, though drawn.
    Raises BenchError for unknown settings."""
    if normalise not in ("none", "weights", "filter") or vectors not in ("fixed", "moved"):
        raise BenchError(f"a landscape has normalise none, weights or filter and vectors fixed or moved, not '{normalise}', '{vectors}'")
    generator = torch.Generator().manual_seed(seed)
    first, second = (_gaussian(weights, generator, vectors == "moved") for _ in range(2))
    first = _scaled(first, inner(first, first).rsqrt())
    overlap = inner(first, second)
    second = {n: (second[n].double() - overlap * first[n].double()).to(second[n].dtype) for n in second}
    second = _scaled(second, inner(second, second).rsqrt())
    if normalise == "weights":
        moved = {n: weights[n] for n in first}
        return tuple(_scaled(d, inner(moved, moved).sqrt()) for d in (first, second))
    if normalise == "filter":
        return tuple({n: _filterwise(d[n], weights[n]) for n in d} for d in (first, second))
    return first, second


def _gaussian(weights: Weights, generator: torch.Generator, vectors: bool) -> Weights:
    drawn = {n: torch.randn(w.shape, generator=generator, dtype=torch.float32) for n, w in weights.items()}
    return {n: d.to(weights[n]) for n, d in drawn.items() if d.dim() > 1 or vectors}


def _scaled(d: Weights, factor: Tensor) -> Weights:
    return {n: (x.double() * factor).to(x.dtype) for n, x in d.items()}


def _filterwise(d: Tensor, w: Tensor) -> Tensor:
    """Each row of d as long as that of w; a tensor of rank 1 or 0 is one row."""
    rows_d, rows_w = (x.reshape(len(x) if x.dim() > 1 else 1, -1) for x in (d, w))
    length = torch.linalg.vector_norm(rows_d, dim=1, keepdim=True)
    wanted = torch.linalg.vector_norm(rows_w, dim=1, keepdim=True)
    return torch.where(length > 0, rows_d * (wanted / length.clamp(min=1e-30)), 0.0).reshape(d.shape)
