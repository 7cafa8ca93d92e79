"""Parity of a system with its reference, on stored fixtures: what a file tests/parity/<name>.py has to say.

A fixture is one .npz of arrays and `meta` (JSON): the reference's parameters under param/, the batch under input/ and
label, and, for the main run and any number of others (another stage, mode, variant or missing pattern, with the same
parameters), what came out:

    [RUN/]latent/NAME, [RUN/]output/NAME, [RUN/]loss/NAME     values
    [RUN/]gradnorm/PARAMETER, [RUN/]gradnorm_NAME/PARAMETER   norm of the gradient of loss/total, of loss/NAME
    RUN/prediction, RUN/loss, RUN/buffer/NAME                 short for output/prediction, loss/total; buffers afterwards
    f64/...                                                   the same in float64

A file defines REFERENCES, a mapping from the name in the fixture's meta["model"] to a `Reference`. A fixture belongs to
the longest name that its own begins with ("gcnet_2", "gcnet_cls_2" to "gcnet_cls"), so a further one of the same layout
is tested by being in the folder: sizes come from its meta and arrays only. A Reference has

    build    fixture -> our model, dropout 0, defects of the reference switched on
    rules    [(regular expression of a reference name, ours)]: a template ("text.rnn.\\1"), or a function of the match that
             returns a name or (name, index) for a slice of a stacked tensor. A reference that holds a tensor under several
             names may map all of them to one of ours
    unused   {regular expression of reference names without a counterpart: why}; they must have no gradient
    observe  (model, batch, fixture) -> {"latent/x", "output/y", "loss/z": tensor} of the main run, in the model's dtype
    runs     {RUN: the same of that run}; a run "train" that is not there is `observe` in training mode. A run that has
             gradient norms alone needs "loss/total" only
    checks   {RUN: (model, fixture, dtype) -> None} for groups of another kind: sequences of steps, tables; asserts itself
    apart    {regular expression of fixture entries that are not compared: why}

tests/test_parity_systems.py then compares every entry in float32 and float64: a fixture entry that nobody compares, a
reference parameter without a place, a parameter of ours that the reference does not fill, and a gradient where the
reference has none are failures. Arrays may differ in shape by axes of length 1.
"""

import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.base import Batch, Inputs
from bench.models.parts.text import Hidden
from tests.on_device import loose

Found = dict[str, Tensor]
Observe = Callable[[Any, Batch, "Fixture"], Found]
Place = tuple[str, tuple[Any, ...]]  # a parameter or buffer of ours, and the index of the reference's part of it


class Fixture:
    """One .npz file of reference numbers."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {k: file[k] for k in file.files if k != "meta"}
            self.meta: dict[str, Any] = json.loads(str(file["meta"])) if "meta" in file.files else {}
        self.name: str = self.meta.get("model", "")
        self.config: dict[str, Any] = self.meta.get("config", {})

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays whose name begins with the prefix, without it."""
        return {k[len(prefix) :]: v for k, v in self.arrays.items() if k.startswith(prefix)}

    def tensor(self, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """One array; floats in `dtype`."""
        found = torch.from_numpy(self.arrays[name])
        return found.to(dtype) if found.is_floating_point() else found

    def inputs(self, text: str = "text_hidden", **more: Any) -> Inputs:
        """Shapes of the inputs; `text` names the array that stands for the text."""
        names = {"text": text, "audio": "audio", "vision": "vision"}
        return Inputs(**{m: tuple(self.arrays[f"input/{k}"].shape[1:]) for m, k in names.items()} | more)

    def batch(self, dtype: torch.dtype) -> Batch:
        """Every input under its own name, `label` and `index`; floats in `dtype`."""
        found = {k: self.tensor(f"input/{k}", dtype) for k in self.group("input/")}
        if "label" in self.arrays:
            found["label"] = self.tensor("label", dtype)
            found["index"] = torch.arange(len(found["label"]))
        return found

    def hidden(self, batch: Batch, name: str = "text_hidden") -> Hidden:
        """The text encoder's output, where the fixture stands in for the encoder."""
        last = batch[name]
        return Hidden(last, last, batch.get("text_mask", torch.ones(last.shape[:2], dtype=last.dtype)).to(last.dtype))

    def runs(self) -> list[str]:
        """Names of the runs beside the main one."""
        known = ("param", "input", "label", "latent", "output", "loss", "gradnorm", "f64")
        firsts = [k.removeprefix("f64/").split("/")[0] for k in self.arrays]
        return list(dict.fromkeys(f for f in firsts if f not in known and not f.startswith("gradnorm_")))

    def expected(self, run: str, dtype: torch.dtype) -> dict[str, np.ndarray]:
        """Entries of a run under their full names: latent/, output/, loss/, gradnorm*/, buffer/."""
        prefix = ("f64/" if dtype == torch.float64 else "") + (f"{run}/" if run else "")
        short = {"prediction": "output/prediction", "loss": "loss/total"} if run else {}
        found = {short.get(k, k): v for k, v in self.group(prefix).items()}
        if run:
            return found
        kinds = ("latent/", "output/", "loss/", "gradnorm")
        return {k: v for k, v in found.items() if k.startswith(kinds)}


def observe(model: Any, batch: Batch, fixture: Fixture) -> Found:
    """What most systems need: latents, side tensors and features, prediction, losses of `aux_losses`, their sum."""
    hidden = fixture.hidden(batch) if "text_hidden" in batch else None
    encoded = model.encode(batch) if hidden is None else model.encode_hidden(hidden, batch)
    output = model.fuse(encoded.latents)
    criterion = F.mse_loss if fixture.meta["loss"].startswith("MSE") else F.l1_loss
    task = criterion(output.prediction, batch["label"])
    auxiliary = model.aux_losses(batch, encoded, output)
    found = {f"latent/{k}": v for k, v in {**encoded.side, **output.features, **encoded.latents}.items()}
    found |= {"output/prediction": output.prediction, "loss/task": task, **{f"loss/{k}": v for k, v in auxiliary.items()}}
    return found | {"loss/total": task + sum(auxiliary.values())}


@dataclass(frozen=True)
class Reference:
    """Everything the parity tests need to know of one system; the fields are described above."""

    build: Callable[[Fixture], nn.Module]
    rules: Sequence[tuple[str, Any]]
    observe: Observe = observe
    runs: Mapping[str, Observe] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)
    checks: Mapping[str, Callable[[Any, Fixture, torch.dtype], None]] = field(default_factory=dict)
    apart: Mapping[str, str] = field(default_factory=dict)
    single: float = 1e-5  # relative tolerance of values in float32, of the largest entry of an array
    gradient: float = 1e-4  # relative tolerance of gradient norms in float32
    double: float = 1e-9  # of both in float64; 1e-6 where the reference takes a softmax in float32

    def tolerance(self, dtype: torch.dtype) -> tuple[float, float]:
        return (loose(self.single), loose(self.gradient)) if dtype == torch.float32 else (self.double, self.double * 10)

    def is_apart(self, name: str) -> bool:
        return any(re.fullmatch(pattern, name) for pattern in self.apart)

    def place(self, name: str) -> Place | None:
        """Where a reference entry lives here; None where it is declared unused."""
        if any(re.fullmatch(pattern, name) for pattern in self.unused):
            return None
        for pattern, target in self.rules:
            if match := re.fullmatch(pattern, name):
                found = target(match) if callable(target) else match.expand(target)
                return found if isinstance(found, tuple) else (found, ())
        raise AssertionError(f"reference entry {name} has no rule and is not declared unused")

    def loaded(self, fixture: Fixture, dtype: torch.dtype) -> nn.Module:
        """Our model with the reference's parameters, in evaluation mode."""
        model = self.build(fixture)
        own = dict(model.state_dict(keep_vars=True))
        empty = {k: torch.ones_like(v, dtype=torch.bool) for k, v in model.named_parameters()}
        for name, array in fixture.group("param/").items():
            place = self.place(name)
            if place is None:
                continue
            target, index = place
            assert target in own, f"{name} goes to {target}, which is not there"
            with torch.no_grad():
                part = own[target][index]
                assert part.squeeze().shape == array.squeeze().shape, f"{name}: {array.shape} into {target} {tuple(part.shape)}"
                part.copy_(torch.from_numpy(array).reshape(part.shape))
            if target in empty:
                empty[target][index] = False
        assert not (left := [k for k, v in empty.items() if v.any()]), f"not filled by the reference: {left}"
        return model.to(dtype).eval()


def assert_close(name: str, ours: Tensor, theirs: np.ndarray, rtol: float) -> None:
    """Relative to the largest entry of the array; infinities and NaN must be the same."""
    own = ours.detach().double().numpy()
    wanted = np.asarray(theirs, dtype=np.float64)
    assert own.squeeze().shape == wanted.squeeze().shape, f"{name}: {own.shape} against {wanted.shape}"
    wanted = wanted.reshape(own.shape)
    scale = max(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0), 1e-3)
    np.testing.assert_allclose(own / scale, wanted / scale, rtol=0, atol=rtol, err_msg=name)


def assert_gradients(model: nn.Module, reference: Reference, norms: Mapping[str, np.ndarray], rtol: float) -> None:
    """Gradient norm of every reference parameter; a zero in theory may hold rounding of the largest gradient. What the
    fixture does not list has no gradient here either."""
    parameters = dict(model.named_parameters())
    largest = max(float(v) for v in norms.values())
    rounding = rtol * 0.1 * largest
    rest = {k: torch.ones_like(v, dtype=torch.bool) for k, v in parameters.items() if v.grad is not None}
    for name, value in norms.items():
        theirs, place = float(value), reference.place(name)
        if place is None:
            assert theirs == 0.0, f"{name} is declared unused but has gradient {theirs}"
            continue
        own, index = place
        gradient = parameters[own].grad
        ours = 0.0 if gradient is None else float(gradient[index].norm())
        assert abs(ours - theirs) <= rtol * theirs + rounding, f"gradient of {name}: {ours} against {theirs}"
        if own in rest:
            rest[own][index] = False
    stray = [k for k, left in rest.items() if left.any() and float(parameters[k].grad[left].norm()) > rounding]
    assert not stray, f"a gradient where the reference has none: {stray}"


def compare(reference: Reference, fixture: Fixture, run: str, dtype: torch.dtype) -> int:
    """Compare everything the fixture holds of a run; returns the number of entries. Raises AssertionError."""
    expected = fixture.expected(run, dtype)
    model, batch = reference.loaded(fixture, dtype), fixture.batch(dtype)
    look = reference.observe if not run else reference.runs.get(run)
    if look is None and run == "train":
        model.train()
        look = reference.observe
    assert look is not None, f"nobody observes the run '{run}' of {fixture.name}"
    found = look(model, batch, fixture)
    rtol, gradient = reference.tolerance(dtype)
    full = f"{run}/" if run else ""
    compared = 0
    kinds: dict[str, dict[str, np.ndarray]] = {}
    for name, theirs in expected.items():
        kind, _, rest = name.partition("/")
        if kind.startswith("gradnorm") or kind == "buffer":
            kinds.setdefault(kind, {})[rest] = theirs
            continue
        if reference.is_apart(full + name):
            continue
        assert name in found, f"{full}{name} is not observed; apart says why where it cannot be"
        assert_close(full + name, found[name], theirs, rtol)
        compared += 1
    for kind, norms in kinds.items():
        if kind == "buffer":
            state = model.state_dict()
            for name, theirs in norms.items():
                own, index = reference.place(name)
                assert_close(f"{full}buffer/{name}", state[own][index], theirs, rtol)
        else:
            model.zero_grad(set_to_none=True)
            found["loss/" + (kind.removeprefix("gradnorm").lstrip("_") or "total")].backward(retain_graph=True)
            assert_gradients(model, reference, norms, gradient)
        compared += len(norms)
    return compared


def all_references() -> dict[str, Reference]:
    """Name in meta["model"] -> Reference, from every file of this folder."""
    found: dict[str, Reference] = {}
    for m in pkgutil.iter_modules([str(Path(__file__).parent)]):
        found |= getattr(importlib.import_module(f"tests.parity.{m.name}"), "REFERENCES", {})
    return found


def reference_of(name: str, known: Mapping[str, Reference]) -> Reference | None:
    """The reference with the longest name that `name` is or begins with, followed by "_"."""
    fitting = [k for k in known if name == k or name.startswith(f"{k}_")]
    return known[max(fitting, key=len)] if fitting else None
