"""pytest -p tests.on_device: the parity tests on another device, $BENCH_TEST_DEVICE ("cuda").

Models are built there, fixtures are put there as they are read from arrays, draws of a generator on the host are made on
the host and put there, and what a test looks at comes back to the host: the tests themselves know of no device, but for
`loose`.
"""

import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_map

DEVICE = os.environ.get("BENCH_TEST_DEVICE", "cpu")


def loose(rtol: float, device: str = DEVICE) -> float:
    """A tolerance of float32 for a device other than the fixtures' own, the CPU: ten times as wide. Sums in another order and
    other exponentials differ by some of float32's 6e-8 an operation, which recurrent steps and norms of small gradients
    carry on; products of ten bits (TF32), the error to be noticed, are off by 1e-3. float64 needs no more room."""
    return rtol if device == "cpu" else 10 * rtol


class HostDraws(TorchFunctionMode):
    """What is drawn from a generator on the host is drawn there and then put on the device: no device takes the other's."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        generator = next((a for a in (*args, kwargs.get("generator")) if isinstance(a, torch.Generator)), None)
        if generator is None or generator.device.type != "cpu" or kwargs.get("device") is not None:
            return func(*args, **kwargs)
        there, given = tree_map(lambda a: a.cpu() if isinstance(a, Tensor) else a, (args, kwargs))
        drawn = func(*there, **given, **({"device": "cpu"} if func in _device_constructors() else {}))
        if getattr(func, "__name__", "").endswith("_"):  # in place
            with torch.no_grad():
                args[0].copy_(drawn)
            return args[0]
        return drawn.to(self.device)


def differentiable(kind: type[nn.RNNBase]) -> None:
    """Let layers of a kind run as in training where gradients are on: cuDNN keeps what their gradient needs in training alone,
    and tests differentiate models in evaluation. The numbers are the same where there is no dropout between layers."""
    forward = kind.forward

    def run(self: nn.RNNBase, *args: Any, **kwargs: Any) -> Any:
        before = self.training
        self.training = before or torch.is_grad_enabled() and self.dropout == 0
        try:
            return forward(self, *args, **kwargs)
        finally:
            self.training = before

    kind.forward = run  # type: ignore[method-assign]


def place(device: str) -> None:
    """Changes the process: tensors are made on the device."""
    torch.set_default_device(device)
    HostDraws(device).__enter__()
    from_numpy, numpy = torch.from_numpy, torch.Tensor.numpy
    torch.from_numpy = lambda array: from_numpy(array).to(device)
    torch.Tensor.numpy = lambda self, **kwargs: numpy(self.cpu(), **kwargs)
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        differentiable(kind)


def pytest_configure(config: Any) -> None:
    from bench.job import settle

    settle(DEVICE)
    if DEVICE != "cpu":
        place(DEVICE)
