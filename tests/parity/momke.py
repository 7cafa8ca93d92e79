"""MoMKE: both stages and the seven conditions, one output (MOSI) and four classes (IEMOCAP)."""

import torch
from torch.nn import functional as F

from bench.models import momke
from tests.parity.harness import Fixture, Reference

M = {"a": "audio", "t": "text", "v": "vision"}
RULES = [
    (r"([atv])_in_proj\.0\.(\w+)", lambda m: f"project.{M[m[1]]}.{m[2]}"),
    (
        r"block\.blocks\.(\d+)\.Transformer_([atv])\.([qkv])\.(\w+)",
        lambda m: f"experts.{M[m[2]]}.{m[1]}.{dict(q='query', k='key', v='value')[m[3]]}.{m[4]}",
    ),
    (
        r"block\.blocks\.(\d+)\.Transformer_([atv])\.mlp\.fc([12])\.(\w+)",
        lambda m: f"experts.{M[m[2]]}.{m[1]}.mlp.{('up', 'down')[int(m[3]) - 1]}.{m[4]}",
    ),
    (r"router_([atv])\.fc([12])\.(\w+)", lambda m: f"route.{M[m[1]]}.{('up', 'down')[int(m[2]) - 1]}.{m[3]}"),
    (r"nlp_head_([atv])\.(\w+)", lambda m: f"heads.{M[m[1]]}.{m[2]}"),
    (r"nlp_head\.(\w+)", r"head.\1"),
    (r"proj1\.(\w+)", r"joint.\1"),
]


def build(fixture: Fixture) -> momke.Model:
    c = fixture.config
    params = momke.Params(d=c["hidden"], depth=c["depth"], heads=c["num_heads"], dropout=0.0)
    return momke.Model(params, fixture.inputs("text"), c["n_classes"])


def loss(scores, batch):
    """Over the utterances that exist."""
    there, label = batch["umask"], batch["label"]
    if scores.shape[-1] == 1:
        error = (scores.squeeze(-1) - label).square()
    else:
        error = F.cross_entropy(scores.flatten(0, 1), label.flatten().long(), reduction="none").view_as(label)
    return (error * there).sum() / there.sum()


def observe(model, batch, fixture, kept=""):
    """`kept`: the modalities of a condition; the fixture's own mask without one."""
    there = batch["umask"].bool()[..., None]
    chosen = torch.tensor([k in kept for k in "atv"]).expand(*there.shape[:2], 3)
    keep = there & (chosen if kept else batch["modality_mask"].bool())
    encoded = model.mixture({m: batch[m] for m in momke.MODALITIES}, keep)
    output = model.scored(encoded.latents)
    total = loss(output.prediction, batch)
    found = {f"latent/{k}": v for k, v in (encoded.latents | encoded.side | output.features).items()}
    return found | {"output/prediction": output.prediction, "loss/task": total, "loss/total": total}


def condition(kept):
    return lambda model, batch, fixture: observe(model, batch, fixture, kept)


def stage1(model, batch, fixture):
    there = batch["umask"].bool()[..., None]
    z, scores = model.alone({m: batch[m] for m in momke.MODALITIES}, there.expand(*there.shape[:2], 3))
    latents = {m: x * there for m, x in z.items()}
    output = model.scored(latents)
    losses = {m: loss(s, batch) for m, s in scores.items()}
    found = {f"latent/{k}": v for k, v in (latents | output.features).items()}
    found |= {f"latent/expert_{m}": x for m, x in z.items()} | {f"output/prediction_{m}": s for m, s in scores.items()}
    found |= {f"loss/task_{m}": v for m, v in losses.items()} | {"output/prediction": output.prediction}
    return found | {"loss/total": sum(losses.values())}


RUNS = {"stage1": stage1, **{f"cond_{c}": condition(c) for c in ("a", "t", "v", "at", "av", "tv", "atv")}}
REFERENCES = {n: Reference(build, RULES, observe, RUNS, double=1e-6) for n in ("momke", "momke_cls")}
