"""How each backbone lines up with its reference implementation: the only thing to write for a new parity test.

A fixture (tests/test_parity.py) holds a reference's random parameters, its inputs and what came out. A `Reference`
says how to build our model from the fixture's own sizes, where each reference parameter lives in it (`slots`), and,
where the defaults do not serve, how to make the batch and how to name what is compared. A further model is one entry
in REFERENCES under the fixture's `meta["model"]`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.models import lmf, mult, tfn
from bench.models.base import Backbone, Batch, Inputs

Slot = tuple[str, tuple[Any, ...]]  # our parameter or buffer, and the index of the reference's part of it
Slots = dict[str, Slot]


class Fixture:
    """One .npz file of reference numbers."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {k: file[k] for k in file.files if k != "meta"}
            self.meta: dict[str, Any] = json.loads(str(file["meta"]))
        self.model: str = self.meta["model"]
        self.config: dict[str, Any] = self.meta.get("config", {})

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays whose name begins with the prefix, without it."""
        return {k[len(prefix) :]: v for k, v in self.arrays.items() if k.startswith(prefix)}

    def inputs(self, text: str = "text", **more: Any) -> Inputs:
        """Shapes of the inputs; `text` names the array that stands for the text features."""
        names = {"text": text, "audio": "audio", "vision": "vision"}
        return Inputs(**{m: tuple(self.arrays[f"input/{k}"].shape[1:]) for m, k in names.items()}, **more)


def plain_batch(fixture: Fixture, dtype: torch.dtype) -> Batch:
    """All inputs under their own names, and the label; floats in `dtype`."""
    arrays = {**fixture.group("input/"), "label": fixture.arrays["label"]}
    tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}


def observe(model: Backbone, batch: Batch, fixture: Fixture) -> dict[str, Tensor]:
    """What is compared, under the fixture's names: latent/*, output/*, loss/*."""
    encoded = model.encode(batch)
    output = model.fuse(encoded.latents)
    criterion = F.mse_loss if fixture.meta["loss"].startswith("MSE") else F.l1_loss
    task = criterion(output.prediction, batch["label"])
    auxiliary = model.aux_losses(batch, encoded, output)
    found = {f"latent/{k}": v for k, v in {**encoded.side, **output.features, **encoded.latents}.items()}
    found |= {"output/prediction": output.prediction, "loss/task": task}
    return found | {"loss/total": task + sum(auxiliary.values())}


@dataclass(frozen=True)
class Reference:
    """Everything the parity tests need to know of one model."""

    build: Callable[[Fixture], Backbone]  # dropout 0
    slots: Callable[[Backbone], Slots]  # reference parameter or buffer -> where it lives here
    batch: Callable[[Fixture, torch.dtype], Batch] = plain_batch
    observe: Callable[[Backbone, Batch, Fixture], dict[str, Tensor]] = observe
    double: float = 1e-9  # relative tolerance in float64
    apart: Mapping[str, str] = field(default_factory=dict)  # fixture entry that is not compared -> why


def load_reference(model: Backbone, state: Mapping[str, np.ndarray]) -> None:
    """Copy a reference state dict into the model. Raises AssertionError naming an entry that has no place here, a
    shape that differs, or a parameter of ours that the reference does not fill."""
    slots, unused = slots_of(model), model.unused_reference_parameters()
    own = dict(model.state_dict(keep_vars=True))
    left = {k: v.numel() for k, v in own.items()}
    for name, array in state.items():
        if name in unused:
            continue
        assert name in slots, f"reference entry {name} has no slot and is not declared unused"
        target, index = slots[name]
        with torch.no_grad():
            part = own[target][index]
            assert part.squeeze().shape == array.squeeze().shape, f"{name}: {array.shape} into {tuple(part.shape)}"
            part.copy_(torch.from_numpy(array).reshape(part.shape))
        left[target] -= part.numel()
    assert not any(left.values()), f"not filled by the reference: {[k for k, v in left.items() if v]}"


def slots_of(model: Backbone) -> Slots:
    return REFERENCES[type(model).__module__.rsplit(".", 1)[-1]].slots(model)


def same_names(model: Backbone, *renamed: tuple[str, str]) -> Slots:
    """Slots of entries that differ from ours by a prefix only: pairs (reference prefix, our prefix)."""
    found = {}
    for theirs, ours in renamed:
        keys = [k for k in model.state_dict() if k.startswith(ours)]
        assert keys, f"nothing here begins with {ours}"
        found |= {theirs + k[len(ours) :]: (k, ()) for k in keys}
    return found


def _feature_nets(model: Backbone) -> Slots:
    """Audio, vision and text sub-networks of TFN and LMF."""
    found = same_names(model, ("text_subnet.rnn.", "text.rnn."), ("text_subnet.linear_1.", "text.linear."))
    for theirs, ours in (("audio", "audio"), ("video", "vision")):
        found |= same_names(model, (f"{theirs}_subnet.norm.", f"{ours}.norm."))
        for i in range(3):
            found |= same_names(model, (f"{theirs}_subnet.linear_{i + 1}.", f"{ours}.layers.{i}."))
    return found


def _build_tfn(fixture: Fixture) -> Backbone:
    c = fixture.config
    text, audio, vision = c["hidden_dims"]
    params = tfn.Params(
        text_hidden=text, audio_hidden=audio, vision_hidden=vision, text_out=c["text_out"],
        post_fusion=c["post_fusion_dim"], audio_dropout=0.0, vision_dropout=0.0, post_dropout=0.0,
    )
    return tfn.Model(params, fixture.inputs())


def _slots_tfn(model: Backbone) -> Slots:
    heads = ((f"post_fusion_layer_{i}.", f"post{i}.") for i in (1, 2, 3))
    return _feature_nets(model) | same_names(model, *heads)


def _build_lmf(fixture: Fixture) -> Backbone:
    text, audio, vision = fixture.config["hidden_dims"]
    params = lmf.Params(
        text_hidden=text, audio_hidden=audio, vision_hidden=vision, rank=fixture.config["rank"],
        audio_dropout=0.0, vision_dropout=0.0, train_fusion_weights=True,  # their gradients are in the fixture
    )
    return lmf.Model(params, fixture.inputs())


def _slots_lmf(model: Backbone) -> Slots:
    names = (("text", "text"), ("audio", "audio"), ("video", "vision"))
    factors = ((f"{theirs}_factor", f"factors.{ours}") for theirs, ours in names)
    return _feature_nets(model) | same_names(model, *factors, ("fusion_", "fusion_"))


_LETTER = {"text": "l", "audio": "a", "vision": "v"}


def _build_mult(fixture: Fixture) -> Backbone:
    c = fixture.config
    width, heads = c["dst_feature_dim_nheads"]
    params = mult.Params(
        width=width, heads=heads, levels=c["nlevels"], causal=c["attn_mask"],
        **{f"{m}_kernel": c[f"conv1d_kernel_size_{k}"] for m, k in _LETTER.items()},
        attention_dropout_text=0.0, attention_dropout_audio=0.0, relu_dropout=0.0, embed_dropout=0.0,
        residual_dropout=0.0, output_dropout=0.0, text_dropout=0.0,
    )
    return mult.Model(params, fixture.inputs())


def _slots_mult(model: mult.MulT) -> Slots:
    slots = {f"proj_{_LETTER[m]}.weight": (f"convolutions.{m}.weight", ()) for m in model.convolutions}
    slots |= same_names(model, ("proj1.", "head1."), ("proj2.", "head2."), ("out_layer.", "out."))
    cross = [f"trans_{_LETTER[target]}_with_{_LETTER[source]}" for target, source in mult.TOWERS]
    memory = [f"trans_{_LETTER[m]}_mem" for m in mult.MODALITIES]
    for stack, names in (("cross", cross), ("memory", memory)):
        for i, name in enumerate(names):
            slots |= _slots_tower(stack, i, name, getattr(model, stack).levels)
    return slots


def _slots_tower(stack: str, tower: int, name: str, levels: int) -> Slots:
    """Slots of one encoder of a bench.models.parts.towers.Towers stack."""
    slots: Slots = {}
    for part in ("weight", "bias"):
        slots[f"{name}.layer_norm.{part}"] = (f"{stack}.end_{part}", (tower,))
        for level in range(levels):
            layer, at = f"{name}.layers.{level}", (tower, level)
            slots[f"{layer}.self_attn.in_proj_{part}"] = (f"{stack}.qkv_{part}", at)
            slots[f"{layer}.self_attn.out_proj.{part}"] = (f"{stack}.out_{part}", at)
            for ours in ("fc1", "fc2"):
                slots[f"{layer}.{ours}.{part}"] = (f"{stack}.{ours}_{part}", at)
            for k in (0, 1):
                slots[f"{layer}.layer_norms.{k}.{part}"] = (f"{stack}.norm_{part}", (*at, k))
    return slots


def _observe_mult(model: mult.MulT, batch: Batch, fixture: Fixture) -> dict[str, Tensor]:
    """Also the sequences on the way, which the model does not keep; the memories there are computed in full."""
    found = observe(model, batch, fixture)
    convolved = model.project(batch)
    crossed = model.cross_modal(convolved)
    found |= {f"latent/conv_{m}": x for m, x in convolved.items()}
    d = model.params.width
    for k, (target, source) in enumerate(mult.TOWERS):
        part = crossed[target][..., (k % 2) * d : (k % 2 + 1) * d]
        found[f"latent/seq_trans_{_LETTER[target]}_with_{_LETTER[source]}"] = part
    found |= {f"latent/seq_trans_{_LETTER[m]}_mem": x for m, x in model.memorise(crossed, None).items()}
    return found


REFERENCES: dict[str, Reference] = {
    "tfn": Reference(_build_tfn, _slots_tfn),
    "lmf": Reference(_build_lmf, _slots_lmf),
    # its reference takes the softmax in float32 even in double precision
    "mult": Reference(_build_mult, _slots_mult, observe=_observe_mult, double=1e-6),
}
