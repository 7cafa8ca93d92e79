"""A training that two devices can share: without dropout, and with every draw made on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from sys import modules
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

_DROPOUT = {
    "dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout",
}
_DRAWS = {f"aten::{name}" for name in (
    "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm", "normal", "normal_", "uniform_", "uniform",
    "bernoulli", "bernoulli_", "exponential_", "cauchy_", "geometric_", "log_normal_", "random_", "multinomial", "poisson",
)}


class _NoDropout(TorchFunctionMode):
    """However it is called: by its module, by name, or inside attention."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name in _DROPOUT:
            return args[0] if args else kwargs["input"]
        if name == "scaled_dot_product_attention":
            if len(args) > 4:
                args = (*args[:4], 0.0, *args[5:])
            else:
                kwargs["dropout_p"] = 0.0
        return func(*args, **kwargs)


class _OneGenerator(TorchDispatchMode):
    """Draws on the CPU, by one generator of its own whatever a call names, and puts them where they were to be. Other draws of
    the process go on as they would."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.state = torch.Generator().manual_seed(seed).get_state()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func._schema.name not in _DRAWS:
            return func(*args, **kwargs)
        tensors = [a for a in args if isinstance(a, Tensor)]
        device = kwargs.get("device") or (tensors[0].device if tensors else torch.device("cpu"))
        args, kwargs = tree_map(_on_cpu, (args, kwargs))
        with torch.random.fork_rng(devices=[]):
            torch.random.set_rng_state(self.state)
            drawn = func(*args, **kwargs)
            self.state = torch.random.get_rng_state()
        if func._schema.name.endswith("_"):
            return tensors[0].copy_(drawn)
        return drawn.to(device)


def _on_cpu(a: Any) -> Any:
    if isinstance(a, torch.Generator):
        return None
    return a.cpu() if isinstance(a, Tensor) else torch.device("cpu") if isinstance(a, torch.device) else a


@contextmanager
def silenced(model: nn.Module, seed: int = 5) -> Iterator[None]:
    """Training mode without what two devices do not draw alike: no dropout, one sequence of draws for noise, pairs and
    masks. Changes the model's rates and, while it lasts, the process."""
    from bench.models.parts import layers

    for m in model.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0
        if isinstance(m, (nn.MultiheadAttention, nn.RNNBase)):
            m.dropout = 0.0
    real = layers.dropout  # its form depends on the device
    held = [(m, k) for n, m in list(modules.items()) if n.startswith("bench.") for k, v in vars(m).items() if v is real]

    def quiet(x: Tensor, *_: Any, **__: Any) -> Tensor:
        return x

    for m, k in held:
        setattr(m, k, quiet)
    try:
        with _NoDropout(), _OneGenerator(seed):
            yield
    finally:
        for m, k in held:
            setattr(m, k, real)
