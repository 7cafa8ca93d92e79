"""ConFEDE: fusion with retrieved samples, evaluation, the three preparations, and the retrieval tables as released."""

import torch
from torch.nn import functional as F

from bench.models import confede
from bench.models.parts import retrieval
from bench.models.parts.text import Hidden
from tests.parity.harness import Fixture, Reference

M = {"T": "text", "V": "vision", "A": "audio"}
RULES = [
    (r"fusion\.(vision|audio)_encoder\.encoder\.pos_encoder\.cls_token", r"sequences.\1.cls"),
    (r"fusion\.(vision|audio)_encoder\.encoder\.pos_encoder\.position_embeddings", r"sequences.\1.positions"),
    (r"fusion\.(vision|audio)_encoder\.encoder\.pos_encoder\.proj\.(\w+)", r"sequences.\1.project.\2"),
    (r"fusion\.(vision|audio)_encoder\.encoder\.transformer_encoder\.(.+)", r"sequences.\1.\2"),
    (r"fusion\.(vision|audio)_encoder\.layernorm\.(\w+)", r"sequences.\1.norm.\2"),
    (r"fusion\.([TVA])_(dis)?simi_proj\.fc\.(\d)\.(\w+)", lambda m: f"parts.{m[2] or ''}similar_{M[m[1]]}.{m[3]}.{m[4]}"),
    (r"fusion\.TVA_decoder\.MLP\.(.+)", r"head.\1"),
    (r"fusion\.mono_decoder\.MLP\.(.+)", r"mono.\1"),
    (r"(text|vision|audio)_head\.MLP\.(.+)", r"pretraining.\1.\2"),
]
UNUSED = {
    r"fusion\.\w+_encoder\.(cls_embedding|fc\..*|dense\..*)": "built and never used",
}


def build(fixture: Fixture) -> confede.Model:
    c = fixture.config
    sims = c["variant"] == "SIMS"
    params = confede.Params(
        encoder="none", heads=c["nhead"], layers=c["audio_layers"], temperature=c["temperature"], dropout=0.0,
        unimodal_labels=sims, retrieval="release", round_labels=not sims, half=sims,
    )
    D = c["encoder_fea_dim"]
    shapes = {m: (c[f"{m}_len"], c[f"{m}_dim"]) for m in ("audio", "vision")}
    return confede.Model(params, confede.Inputs((1, D), **shapes, train_size=4))


def encoded(model, batch, end=""):
    own = {m: batch[f"{m}{end}"] for m in ("audio", "vision")} | {"label": batch.get(f"label{end}")}
    own |= {f"label_{M[k]}": batch[f"label_{k}{end}"] for k in M if f"label_{k}{end}" in batch}
    text = batch[f"text_hidden{end}"]
    latents = model.encode_hidden(Hidden(text, text, text, text), own).latents
    return own, latents, model.fuse(latents)


def observe(model, batch, fixture):
    own, latents, output = encoded(model, batch)
    more, _, other = encoded(model, batch, "_2")
    task = F.mse_loss(output.prediction, own["label"])
    terms = model.terms(own, output, more, other)
    weighted = model.weighted(terms, task)
    found = {f"latent/{k}": v for k, v in latents.items()} | {"latent/fusion": output.features["fusion"]}
    for end, o in (("", output), ("_2", other)):
        found |= {f"latent/{n}{end}": o.features["parts"][:, i] for i, n in enumerate(model.parts)}
        found[f"output/prediction{end}"] = o.prediction
        found[f"output/prediction_mono{end}"] = model.mono(o.features["parts"]).squeeze(-1).T.flatten()
    return found | {
        "loss/task": task + weighted["others"], "loss/contrastive": terms["contrastive"], "loss/mono": terms["mono"],
        "loss/total": task + sum(weighted.values()),
    }


def single(model, batch, fixture):
    own, _, output = encoded(model, batch)
    task = F.mse_loss(output.prediction, own["label"])
    mono = model.mono(output.features["parts"]).squeeze(-1)
    loss = F.mse_loss(mono, model.targets(own))
    return {
        "output/prediction": output.prediction, "output/prediction_mono": mono.T.flatten(), "loss/task": task,
        "loss/mono": loss, "loss/total": task + model.params.lambda_mono * loss,
    }


def pretrain(model, batch, fixture):
    own, latents, _ = encoded(model, batch)
    losses = model.prepare(latents, own)
    found = {f"output/prediction_{m}": model.pretraining[m](latents[m]) for m in confede.MODALITIES}
    return found | {f"loss/task_{m}": v for m, v in losses.items()} | {"loss/total": sum(losses.values())}


def retrieve(model, fixture, dtype):
    """The tables from the reference's rankings; and the cosines and rankings of given embeddings."""
    a, p = fixture.group("retrieve/"), model.params
    label = torch.from_numpy(a["label"])
    label = label.round() if p.round_labels else label
    rows = torch.arange(len(label))
    for which in ("initial", "updated"):
        found = retrieval.tables(torch.from_numpy(a[f"{which}_rank"]).long(), rows, label, True, p.half)
        for kind, table in found.items():
            assert table.tolist() == a[f"{which}_{kind}"].tolist(), (which, kind)
    v = F.normalize(torch.cat([torch.from_numpy(a[f"embed_{m}"]) for m in confede.MODALITIES], 1).to(dtype), dim=1, eps=1e-6)
    torch.testing.assert_close(v @ v.T, torch.from_numpy(a["updated_cos"]).to(dtype), rtol=0, atol=2e-6)
    assert (v @ v.T).argsort(1, descending=True).tolist() == a["updated_rank"].tolist()


RUNS = {"single": single, "pretrain": pretrain}
REFERENCES = {
    n: Reference(build, RULES, observe, RUNS, UNUSED, {"retrieve": retrieve}) for n in ("confede", "confede_sims")
}
