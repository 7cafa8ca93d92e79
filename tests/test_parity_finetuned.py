"""Parity of MISA, Self-MM, ALMT and GLoMo with numbers that their published implementations gave.

The fixtures (one .npz per case: parameters, inputs, outputs, losses, gradient norms) replace the text encoder by its
hidden states. They lie in $BENCH_PARITY_DIR or, beside the project, in shared/parity.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.models import almt, glomo, misa, self_mm
from bench.models.base import Inputs
from bench.models.parts.label_memory import FUSION, LabelMemory
from bench.models.parts.text import Hidden
from tests.on_device import loose
from tests.parity_maps_finetuned import ALMT_RULES, GLOMO_RULES, MISA_RULES, SELF_MM_RULES, Names, vision

FOLDER = Path(os.environ.get("BENCH_PARITY_DIR") or Path(__file__).parents[1].parent / "shared" / "parity")


def fixtures(model: str) -> list:
    files = sorted(FOLDER.glob(f"{model}*.npz"))
    missing = pytest.param(None, marks=pytest.mark.skip(reason=f"no parity fixture {model}*.npz in {FOLDER.name}/"))
    return [pytest.param(f, id=f.stem) for f in files] or [missing]


def read(path: Path, dtype: torch.dtype) -> tuple[dict, dict[str, Tensor]]:
    with np.load(path, allow_pickle=False) as f:
        meta = json.loads(str(f["meta"]))
        arrays = {k: torch.as_tensor(f[k]) for k in f.files if k != "meta"}
    cast = [k for k, v in arrays.items() if v.is_floating_point() and not k.startswith("f64/")]
    return meta, arrays | {k: arrays[k].to(dtype) for k in cast}


def close(ours: Tensor, reference: Tensor, rtol: float = loose(1e-5), atol: float = loose(1e-5)) -> None:
    torch.testing.assert_close(ours.detach().double(), reference.double(), rtol=rtol, atol=atol)


def batch_of(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    batch = {k: arrays[f"input/{k}"] for k in ("audio", "vision")} | {"label": arrays["label"]}
    for k in ("audio_lengths", "vision_lengths"):
        if f"input/{k}" in arrays:
            batch[k] = arrays[f"input/{k}"]
    batch["index"] = torch.arange(len(batch["label"]))
    return batch


def inputs_of(arrays: dict[str, Tensor], **extra: object) -> Inputs:
    keys = {"text": "text_hidden", "audio": "audio", "vision": "vision"}
    shapes = {m: tuple(arrays[f"input/{k}"].shape[1:]) for m, k in keys.items()}
    return Inputs(**(shapes | extra))


def hidden_of(arrays: dict[str, Tensor]) -> Hidden:
    last = arrays["input/text_hidden"]
    mask = arrays.get("input/text_mask", torch.ones(last.shape[:2], dtype=last.dtype))
    return Hidden(last, arrays.get("input/text_hidden_prev", last), mask.to(last.dtype))


PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def compare(model, names, meta, arrays, dtype, latents: dict[str, Tensor], output, losses: dict[str, Tensor]) -> None:
    """Latents and features in float32, then outputs, losses and gradient norms in either precision."""
    if dtype == torch.float32:
        for key, value in latents.items():
            close(value, arrays[f"latent/{key}"])
    prefix, rtol, grad_tol = ("", loose(1e-5), (loose(1e-4), loose(1e-5))) if dtype == torch.float32 else ("f64/", 1e-9, (1e-8, 1e-9))
    if prefix + "output/prediction" not in arrays:
        pytest.skip("the fixture has no float64 values")
    close(output.prediction[:, None], arrays[prefix + "output/prediction"], rtol, rtol)
    for key, value in losses.items():
        close(value, arrays[f"{prefix}loss/{key}"], rtol, rtol)
    losses["total"].backward()
    names.check_gradients(arrays, prefix + "gradnorm/", *grad_tol)


@PRECISIONS
@pytest.mark.parametrize("path", fixtures("misa"))
def test_parity_misa(path, dtype):
    meta, arrays = read(path, dtype)
    c = meta["config"]
    params = misa.Params(
        encoder="none", hidden_size=c["hidden_size"], dropout=c["dropout"], attention_dropout=0.0,
        diff_weight=c["diff_weight"], sim_weight=c["sim_weight"], recon_weight=c["recon_weight"],
    )
    model = misa.Model(params, inputs_of(arrays)).to(dtype).eval()
    names = Names(model, MISA_RULES)
    names.load(arrays)
    batch = batch_of(arrays)
    encoded = model.encode_hidden(hidden_of(arrays), batch)
    output = model.fuse(encoded.latents)
    aux = model.aux_losses(batch, encoded, output)
    losses = {"task": F.mse_loss(output.prediction, batch["label"])}
    losses["total"] = losses["task"] + sum(aux.values())
    weights = {"diff": c["diff_weight"], "sim": c["sim_weight"], "recon": c["recon_weight"]}
    losses |= {{"sim": "cmd"}.get(k, k): aux[k] / w for k, w in weights.items()}
    latents = dict(encoded.latents)
    for m in misa.MODALITIES:
        latents |= {m: encoded.side[f"projected_{m}"], f"utterance_{m}": encoded.side[f"utterance_{m}"]}
        latents[f"recon_{m}"] = encoded.side[f"recon_{m}"]
    compare(model, names, meta, arrays, dtype, latents, output, losses)


@PRECISIONS
@pytest.mark.parametrize("path", fixtures("self_mm"))
def test_parity_self_mm(path, dtype):
    meta, arrays = read(path, dtype)
    c = meta["config"]
    heads = ("fusion", "text", "audio", "video")
    post = {f"post_{vision(m)}_{k}": c[f"post_{m}_{k}"] for m in heads for k in ("dim", "dropout")}
    params = self_mm.Params(
        encoder="none", audio_hidden=c["a_lstm_hidden_size"], vision_hidden=c["v_lstm_hidden_size"],
        audio_out=c["audio_out"], vision_out=c["video_out"], exclude_zero=c["excludeZero"], **post,
    )
    size = len(arrays["label"])
    inputs = inputs_of(arrays, label_bound=c["H"], train_size=size, aligned=c["need_data_aligned"])
    model = self_mm.Model(params, inputs).to(dtype).eval()
    names = Names(model, SELF_MM_RULES)
    names.load(arrays)
    batch = batch_of(arrays)
    model.memory.fill(arrays["label"])
    for m in self_mm.MODALITIES:
        model.memory.get("label", m).copy_(arrays[f"input/label_{m}"])
    encoded = model.encode_hidden(hidden_of(arrays), batch)
    output = model.fuse(encoded.latents)
    aux = model.aux_losses(batch, encoded, output)
    losses = {"task": F.l1_loss(output.prediction, batch["label"])}
    losses["total"] = losses["task"] + sum(aux.values())
    losses |= {f"task_{m[0].upper()}": aux[f"uni_{m}"] for m in self_mm.MODALITIES}
    losses["task_M"] = losses["task"]
    latents = dict(encoded.latents) | {f"post_{m}": encoded.side[f"feature_{m}"] for m in self_mm.MODALITIES}
    latents["post_fusion"] = output.features["fusion"]
    for m in self_mm.MODALITIES:
        close(encoded.side[f"prediction_{m}"][:, None], arrays[f"output/prediction_{m}"])
    compare(model, names, meta, arrays, dtype, latents, output, losses)


@pytest.mark.parametrize("path", fixtures("self_mm"))
def test_parity_self_mm_label_generation(path):
    """The toy table: labels, maps and centres after every batch, and the losses that the labels lead to."""
    meta, arrays = read(path, torch.float32)
    label, index = arrays["labels/label"], arrays["labels/index"]
    tasks = ("fusion", "text", "audio", "vision")
    dims = {t: arrays[f"labels/feature_{t}"].shape[-1] for t in tasks}
    memory = LabelMemory(len(label), dims, meta["config"]["H"], meta["config"]["excludeZero"])
    memory.fill(label)
    moved = 0.0
    for epoch in range(index.shape[0]):
        memory.start_epoch(epoch + 1)
        for step in range(index.shape[1]):
            at = index[epoch, step]
            for task, letter in zip(tasks, "MTAV"):
                target = memory.labels(task, at, label[at])
                weight = 1.0 if task == FUSION else (target - label[at]).abs().tanh()
                loss = (weight * (arrays[f"labels/pred_{letter}"][epoch, step] - target).abs()).mean()
                close(loss, arrays[f"labels/loss_{letter}"][epoch, step])
            memory.update(at, label[at], {t: arrays[f"labels/feature_{t}"][epoch, step] for t in tasks})
            for task in tasks:
                close(memory.get("label", task), arrays[f"labels/after_map_{task}"][epoch, step])
                for kind, short in (("positive", "pos"), ("negative", "neg")):
                    close(memory.get(kind, task), arrays[f"labels/after_center_{task}_{short}"][epoch, step])
        moved = float((memory.get("label", "text") - label).abs().max())
    assert moved > 0.1  # the table does move labels


@PRECISIONS
@pytest.mark.parametrize("path", fixtures("almt"))
def test_parity_almt(path, dtype):
    meta, arrays = read(path, dtype)
    c = meta["config"]
    params = almt.Params(
        encoder="none", d=c["token_dim"], tokens=c["token_len"], proj_depth=c["proj_depth"], proj_heads=c["proj_heads"],
        proj_mlp=c["proj_mlp_dim"], language_heads=c["l_enc_heads"], language_mlp=c["l_enc_mlp_dim"],
        hyper_depth=c["AHL_depth"], hyper_heads=c["ahl_heads"], hyper_head_dim=c["ahl_dim_head"],
        fusion_depth=c["fusion_layer_depth"], fusion_heads=c["fusion_heads"], fusion_mlp=c["fusion_mlp_dim"],
    )
    inputs = Inputs(
        text=(c["l_input_length"], c["l_input_dim"]), audio=(c["a_input_length"], c["a_input_dim"]),
        vision=(c["v_input_length"], c["v_input_dim"]),
    )
    model = almt.Model(params, inputs).to(dtype).eval()
    names = Names(model, ALMT_RULES)
    names.load(arrays)
    batch = batch_of(arrays)
    encoded = model.encode_hidden(hidden_of(arrays), batch)
    output = model.fuse(encoded.latents)
    loss = F.mse_loss(output.prediction, batch["label"])
    latents = dict(encoded.latents) | {k: v for k, v in output.features.items() if f"latent/{k}" in arrays}
    assert {"fusion", "hyper", "text_level0", "text_level1"} <= set(latents)
    compare(model, names, meta, arrays, dtype, latents, output, {"task": loss, "total": loss})


@pytest.mark.parametrize("noisy", [False, True], ids=["evaluation", "noisy-gating"])
@pytest.mark.parametrize("path", fixtures("glomo"))
def test_parity_glomo(path, noisy):
    meta, arrays = read(path, torch.float32)
    c = meta["config"]
    params = glomo.Params(
        encoder="none", d=c["d_l"], heads=c["num_heads"], layers=c["layers"], top_k=c["k"],
        grains=tuple(c[f"gran_{m}"] for m in "tav"), experts=tuple(c[f"experts_{m}"] for m in "tav"),
        attn_dropout=0.0, relu_dropout=0.0, res_dropout=0.0, embed_dropout=0.0, fusion_dropout=0.0, pool_dropout=0.0,
    )
    model = glomo.Model(params, inputs_of(arrays)).train(noisy)
    names = Names(model, GLOMO_RULES)
    names.load(arrays)
    batch = batch_of(arrays)
    noise = {m: arrays[f"noisy/noise_{m}"] for m in glomo.MODALITIES} if noisy else None
    encoded = model.encode_hidden(hidden_of(arrays), batch, noise)
    output = model.fuse(encoded.latents)
    aux = model.aux_losses(batch, encoded, output)
    task, balance = F.l1_loss(output.prediction, batch["label"]), sum(aux.values())
    for m in glomo.MODALITIES:
        close(encoded.latents[f"coarse_{m}"], arrays[f"latent/{m}"])
        close(encoded.side[f"grains_{m}"], arrays[f"latent/grains_{m}"])
        close(encoded.latents[f"fine_{m}"], arrays[f"noisy/fine_{m}" if noisy else f"latent/fine_{m}"])
        for k in ("gates", "load"):
            close(encoded.side[f"{k}_{m}"], arrays[f"noisy/{k}_{m}" if noisy else f"output/{k}_{m}"])
        close(aux[f"balance_{m}"], arrays[f"noisy/loss_moe_{m}" if noisy else f"loss/moe_{m}"])
    loss = "noisy/loss_" if noisy else "loss/"
    close(output.prediction[:, None], arrays["noisy/prediction" if noisy else "output/prediction"])
    close(task, arrays[loss + "task"])
    close(balance, arrays[loss + "moe"])
    close(task + balance, arrays[loss + "total"])
    (task + balance).backward()
    names.check_gradients(arrays, "noisy/gradnorm/" if noisy else "gradnorm/", loose(1e-4), loose(1e-5))
