"""What the parity tests of the systems share: a fixture as a `Case`, and its comparison with what a model of ours gives.

A fixture (one .npz) holds a published implementation's random parameters, its inputs and what came out. A test builds
the model from the fixture's own sizes, copies the parameters by `Names` (tests/parity_maps_finetuned.py), runs it and
hands everything that it found, under the fixture's names, to `Case.check`.
"""

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.models.base import Batch, Inputs
from bench.models.parts.text import Hidden
from tests.on_device import loose
from tests.parity_maps_finetuned import Names

FOLDER = Path(os.environ.get("BENCH_PARITY_DIR") or Path(__file__).parents[1].parent / "shared" / "parity")
GROUPS = ("latent/", "output/", "loss/")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def fixtures(*names: str):
    """Parametrise a test over the fixture files of these names (an ending "_2" and the like belongs to its name)."""
    files = sorted({f for n in names for f in (FOLDER / f"{n}.npz", *FOLDER.glob(f"{n}_[0-9]*.npz")) if f.is_file()})
    lack = pytest.param(None, marks=pytest.mark.skip(reason=f"no parity fixture {names[0]}.npz; set BENCH_PARITY_DIR"))
    return pytest.mark.parametrize("path", [pytest.param(f, id=f.stem) for f in files] or [lack])


class Case:
    """A fixture in one precision. `run`: the prefix of another stage or mode of the same parameters ("eval/")."""

    def __init__(self, path: Path, dtype: torch.dtype, softmax32: bool = False) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.meta = json.loads(str(file["meta"]))
            self.arrays = {k: torch.as_tensor(file[k]) for k in file.files if k != "meta"}
        self.config, self.dtype = self.meta["config"], dtype
        self.double = dtype == torch.float64
        self.rtol, self.grad_rtol = (loose(1e-5), loose(2e-4)) if not self.double else (2e-6, 2e-5) if softmax32 else (1e-9, 1e-7)

    def __getitem__(self, key: str) -> Tensor:
        x = self.arrays[key]
        return x.to(self.dtype) if x.is_floating_point() else x

    def group(self, prefix: str) -> dict[str, Tensor]:
        return {k[len(prefix) :]: self[k] for k in self.arrays if k.startswith(prefix)}

    def inputs(self, **more: object) -> Inputs:
        text = "text_hidden" if "input/text_hidden" in self.arrays else "text"
        keys = {"text": text, "audio": "audio", "vision": "vision"}
        shapes = {m: tuple(self.arrays[f"input/{k}"].shape[1:]) for m, k in keys.items() if f"input/{k}" in self.arrays}
        return Inputs(**({"text": (1, 0), "audio": (1, 0), "vision": (1, 0)} | shapes | more))

    def batch(self) -> Batch:
        return {**self.group("input/"), "label": self["label"], "index": torch.arange(len(self["label"]))}

    def hidden(self) -> Hidden:
        last = self["input/text_hidden"]
        mask = self["input/text_mask"] if "input/text_mask" in self.arrays else torch.ones(last.shape[:2])
        return Hidden(last, last, mask.to(self.dtype))

    def load(self, model: nn.Module, rules: list) -> Names:
        """Copy all parameters; every parameter of ours must be filled."""
        names = Names(model, rules)
        names.load({k: self[k] for k in self.arrays if k.startswith("param/")})
        return names

    def check(self, found: Mapping[str, Tensor], run: str = "", apart: Collection[str] = ()) -> None:
        """All latent/, output/ and loss/ entries of the run but those in `apart`; relative to the largest entry."""
        prefix = f"f64/{run}" if self.double else run
        expected = {g + k: v for g in GROUPS for k, v in self.group(prefix + g).items()}
        assert expected, f"the fixture has nothing under {prefix}"
        for key in expected.keys() - set(apart):
            ours, theirs = found[key].detach().double(), expected[key].double()
            theirs = theirs.reshape(ours.shape)
            scale = max(float(theirs.abs().max()), 1e-3)
            error = float((ours - theirs).abs().max()) / scale
            assert error <= self.rtol, f"{run}{key}: {error:.2e} relative"

    def gradients(self, names: Names, run: str = "", loss: str = "gradnorm/") -> None:
        """Norm of every parameter's gradient; none where the fixture has none."""
        prefix = f"f64/{run}{loss}" if self.double and any(k.startswith("f64/" + run + loss) for k in self.arrays) else run + loss
        norms = {k: float(v) for k, v in self.group(prefix).items()}
        assert norms, f"the fixture has nothing under {prefix}"
        floor = loose(1e-5) if not self.double else self.grad_rtol * 1e-1 * max(norms.values())
        for name in (k[6:] for k in self.arrays if k.startswith("param/")):
            if place := names(name):
                own, index = place
                grad = names.own[own].grad if own in names.own else None
                ours, theirs = 0.0 if grad is None else float(grad[index].norm()), norms.get(name, 0.0)
                assert abs(ours - theirs) <= self.grad_rtol * theirs + floor, f"{run}{name}: {ours} against {theirs}"


def own_rules(model: nn.Module, rules: list) -> list:
    """The rules, but what has no place in this variant of the model is left out: the reference builds the networks of
    all its variants. (Every parameter of ours must still be filled.)"""
    own = dict(model.named_parameters())

    def held(target):
        def place(match):
            found = target(match) if callable(target) else match.expand(target)
            return found if (found[0] if isinstance(found, tuple) else found) in own else None

        return place

    return [(pattern, held(target)) for pattern, target in rules]


def tower_rules(theirs: str, stack: str, tower: int) -> list:
    """Rules of one encoder of the MulT family, here tower `tower` of a bench.models.parts.towers.Towers stack. What
    ends in "version" or "_float_tensor" marks a format and is not a parameter."""
    own = {"self_attn.in_proj_": "qkv_", "self_attn.out_proj.": "out_", "fc1.": "fc1_", "fc2.": "fc2_"}
    parts = "|".join(k.replace(".", r"\.") for k in own)
    return [
        (theirs + r"\.(version|embed_positions\._float_tensor)", lambda m: None),
        (rf"{theirs}\.layers\.(\d+)\.({parts})(\w+)", lambda m: (f"{stack}.{own[m[2]]}{m[3]}", (tower, int(m[1])))),
        (
            theirs + r"\.layers\.(\d+)\.layer_norms\.(\d)\.(\w+)",
            lambda m: (f"{stack}.norm_{m[3]}", (tower, int(m[1]), int(m[2]))),
        ),
        (theirs + r"\.layer_norm\.(\w+)", lambda m: (f"{stack}.end_{m[1]}", (tower,))),
    ]
