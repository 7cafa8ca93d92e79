"""pytest -p tests.on_device: the parity tests on another device, $BENCH_TEST_DEVICE ("cuda").

Models are built there, fixtures are put there as they are read from arrays, and what a test looks at comes back to the
host: the tests themselves know of no device.
"""

import os
from typing import Any

import torch


def pytest_configure(config: Any) -> None:
    device = os.environ.get("BENCH_TEST_DEVICE", "cpu")
    from bench.job import settle

    settle(device)
    if device == "cpu":
        return
    torch.set_default_device(device)
    from_numpy, numpy = torch.from_numpy, torch.Tensor.numpy
    torch.from_numpy = lambda array: from_numpy(array).to(device)
    torch.Tensor.numpy = lambda self, **kwargs: numpy(self.cpu(), **kwargs)
