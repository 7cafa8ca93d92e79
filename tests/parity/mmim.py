"""MMIM against M-SENA's: stage 2 with a memory, stage 1, and five batches with a memory of one and of two."""

import numpy as np
import torch
from torch.nn import functional as F

from bench.models import mmim
from tests.on_device import loose
from tests.parity.harness import Fixture, Reference

PAIRS = {"vision": "tv", "audio": "ta"}
TARGET = {v: k for k, v in PAIRS.items()} | {"visual": "vision", "acoustic": "audio"}
LETTER = {"t": "text", "v": "vision", "a": "audio"}


def build(fixture: Fixture, memory: int | None = None) -> mmim.Model:
    c = fixture.config
    assert not c["add_va"] and c["n_layer"] == 1
    params = mmim.Params(
        encoder="none", audio_hidden=c["d_ah"], vision_hidden=c["d_vh"], audio_out=c["d_aout"], vision_out=c["d_vout"],
        projection=c["d_prjh"], dropout=0.0, alpha=c["alpha"], beta=c["beta"], memory=memory or c["mem_size"],
        bidirectional=c["bidirectional"],
    )
    return mmim.Model(params, fixture.inputs())


def fill(model: mmim.Model, batch) -> None:
    """The fixture's memory, as a batch that was full for some time."""
    stored = {m: torch.cat([batch[f"memory_{p}_{sign}"] for sign in ("pos", "neg")]) for m, p in PAIRS.items()}
    signs = torch.tensor([1.0] * len(batch["memory_tv_pos"]) + [-1.0] * len(batch["memory_tv_neg"]))
    n = max(len(batch["label"]), len(signs))
    model.memory.make({m: r.new_zeros(n, r.shape[1]) for m, r in stored.items()})
    model.memory.store(stored, signs)
    model.memory.count.fill_(model.memory.size + 1)


def observe(model: mmim.Model, batch, fixture: Fixture) -> dict:
    fill(model, batch)
    encoded = model.encode_hidden(fixture.hidden(batch), batch)
    output = model.fuse(encoded.latents)
    losses = model.aux_losses(batch, encoded, output)
    p, y = model.params, batch["label"]
    task = F.l1_loss(output.prediction, y)
    found = {f"latent/{m}": x for m, x in {**encoded.latents, **output.features}.items()}
    for m, rows in model.projected(encoded).items():
        found |= {f"output/memory_{PAIRS[m]}_pos": rows[y > 0], f"output/memory_{PAIRS[m]}_neg": rows[y < 0]}
    found |= {"output/prediction": output.prediction, "loss/task": task, "loss/lld": model.bound(encoded.latents)}
    found |= {"loss/nce": losses["nce"] / p.alpha, "loss/entropy": -losses["entropy"] / p.beta}
    found["loss/stage1"] = -found["loss/lld"]
    found["loss/main"] = task + losses["nce"] + losses["lld"]
    return found | {"loss/total": found["loss/main"] + losses["entropy"]}


def stage1(model: mmim.Model, batch, fixture: Fixture) -> dict:
    """The gradients of stage 1 reach text, audio and vision encoders too; its update steps the bound alone."""
    return {"loss/total": -model.bound(model.encode_hidden(fixture.hidden(batch), batch).latents)}


def sequence(model: mmim.Model, fixture: Fixture, dtype: torch.dtype) -> None:
    """The total losses of batches that follow each other, weights unchanged."""
    batch = fixture.batch(dtype)
    for name, expected in fixture.group("sequence/total_memory_").items():
        other = build(fixture, memory=int(name)).to(dtype)
        other.load_state_dict(model.state_dict())
        other.train(), other.on_epoch_start(1)
        for rows, theirs in zip(fixture.arrays["sequence/index"], expected, strict=True):
            part = {k: v[rows] for k, v in batch.items() if not k.startswith("memory_")}
            encoded = other.encode_hidden(fixture.hidden(part), part)
            output = other.fuse(encoded.latents)
            losses = other.aux_losses(part, encoded, output)
            ours = F.l1_loss(output.prediction, part["label"]) + sum(losses.values())
            other.after_backward(part, encoded, output)
            np.testing.assert_allclose(float(ours.detach()), theirs, rtol=loose(1e-5))


_ENCODER = r"(visual|acoustic)_enc\."
RULES = [
    (_ENCODER + r"rnn\.(\w+_l0)_reverse", lambda m: f"sequences.{TARGET[m[1]]}.lstm.backward_lstm.{m[2]}"),
    (_ENCODER + r"rnn\.(\w+_l0)", lambda m: f"sequences.{TARGET[m[1]]}.lstm.forward_lstm.{m[2]}"),
    (_ENCODER + r"linear_1\.(\w+)", lambda m: f"sequences.{TARGET[m[1]]}.out.{m[2]}"),
    (r"mi_(tv|ta)\.mlp_mu\.(\d)\.(\w+)", lambda m: f"bounds.{TARGET[m[1]]}.mean.{m[2]}.{m[3]}"),
    (r"mi_(tv|ta)\.mlp_logvar\.(\d)\.(\w+)", lambda m: f"bounds.{TARGET[m[1]]}.spread.{m[2]}.{m[3]}"),
    (r"mi_(tv|ta)\.entropy_prj\.0\.(\w+)", lambda m: f"bounds.{TARGET[m[1]]}.project.{m[2]}"),
    (r"cpc_z([tva])\.net\.(\w+)", lambda m: f"predict_latent.{LETTER[m[1]]}.{m[2]}"),
    (r"fusion_prj\.linear_([12])\.(\w+)", r"fuse\1.\2"),
    (r"fusion_prj\.linear_3\.(\w+)", r"score.\1"),
]
REFERENCES = {"mmim": Reference(build, RULES, observe, runs={"stage1": stage1}, checks={"sequence": sequence})}
