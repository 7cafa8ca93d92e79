"""One training step of cells on an accelerator that does not exist: every tensor has a device and a shape, and no values.

    python -m tests.accelerator [BACKBONE...]        # one line per cell: what went wrong, or nothing

A tensor that a step makes on the host, or leaves there, meets one of the accelerator and fails. Run apart from other
tests: the device is registered for the whole process.
"""

import sys
import types
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import backend_registration

from bench.matrix import Job
from bench.train.step import Stepper
from bench.tryout import one_step, stepper
from tests.golden import SMALLER, cell_config, cells


class _Backend(backend_registration._DummyBackendModule):
    """What torch asks a device's module for."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def is_autocast_enabled(self) -> bool:
        return False


class _Generator(torch.Generator):
    """Draws for the accelerator: code makes its tensors where its generator is."""

    @property
    def device(self) -> torch.device:
        return torch.device("accel", 0)


class _Moved:
    """Puts every tensor that an object holds on the accelerator, in place, shared ones once."""

    def __init__(self, mode: FakeTensorMode) -> None:
        self.mode, self.there, self.seen, self.alive = mode, {}, set(), []

    def tensor(self, t: Tensor) -> Tensor:
        if id(t) not in self.there:
            with self.mode:
                new: Tensor = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="accel")
            self.there[id(t)] = nn.Parameter(new, t.requires_grad) if isinstance(t, nn.Parameter) else new
            self.alive.append(t)
        return self.there[id(t)]

    def __call__(self, o: Any) -> Any:
        if isinstance(o, Tensor):
            return self.tensor(o)
        if isinstance(o, torch.Generator):
            return _Generator()
        if id(o) in self.seen or isinstance(o, (type, types.ModuleType)):
            return o
        self.seen.add(id(o))
        self.alive.append(o)
        if isinstance(o, tuple):
            new = [self(v) for v in o]
            same = all(a is b for a, b in zip(new, o))
            return o if same else type(o)(*new) if hasattr(o, "_fields") else tuple(new)
        if isinstance(o, list):
            o[:] = [self(v) for v in o]
        elif isinstance(o, dict):
            for k, v in list(o.items()):
                if isinstance(k, Tensor):  # an optimiser's state
                    del o[k]
                with suppress(TypeError):
                    o[self.tensor(k) if isinstance(k, Tensor) else k] = self(v)
        elif isinstance(getattr(o, "__dict__", None), dict):
            for k, v in list(vars(o).items()):
                if (new := self(v)) is not v:
                    vars(o)[k] = new
        return o


def _gru_cell(x: Tensor, h: Tensor, hx: Tensor, bias: Tensor | None = None, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Shapes of the fused GRU cell, which torch does not know without values: next state [B, H], workspace [B, 5 H]."""
    return torch.empty_like(hx), hx.new_empty(hx.shape[0], 5 * hx.shape[1])


def _gru_cell_backward(grad: Tensor, workspace: Tensor, has_bias: bool) -> tuple[Tensor | None, ...]:
    gates = grad.new_empty(grad.shape[0], 3 * grad.shape[1])
    bias = grad.new_empty(gates.shape[1]) if has_bias else None
    return gates, torch.empty_like(gates), torch.empty_like(grad), bias, bias


def step(backbone: str, mixer: str) -> None:
    """One step of a cell there, optimiser included. Raises what the device raises."""
    steps: Stepper = stepper(Job(cell_config(backbone, mixer).with_(fraction=0.3, backbone_params=SMALLER.get(backbone, {})), 1111))
    mode = FakeTensorMode()
    _Moved(mode)(steps)
    for optimiser in steps.steps.optimisers.values():
        for group in optimiser.param_groups:
            group["fused"] = group["foreach"] = False  # these kernels know no tensors without values
    with mode:
        one_step(steps, steps.mixer.probability > 0)()


def main(wanted: list[str]) -> int:
    """Every backbone with the last of its mixers, LMF with all: prints "cell<TAB>what went wrong" for each."""
    backend_registration._setup_privateuseone_for_python_backend("accel", backend_module=_Backend())
    shapes = torch.library.Library("aten", "IMPL", "Meta")
    shapes.impl("_thnn_fused_gru_cell", _gru_cell)
    shapes.impl("_thnn_fused_gru_cell_backward", _gru_cell_backward)
    last = {backbone: mixer for backbone, mixer in cells()}
    for backbone, mixer in cells():
        if (not wanted or backbone in wanted) and (mixer == last[backbone] or backbone == "lmf"):
            try:
                step(backbone, mixer)
                print(f"{backbone}+{mixer}\t", flush=True)
            except Exception as e:  # noqa: BLE001 - whatever it is, it is what the test shows
                print(f"{backbone}+{mixer}\t{type(e).__name__}: {str(e).splitlines()[0][:200]}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
