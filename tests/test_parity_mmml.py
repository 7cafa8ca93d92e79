"""Parity of MMML's variants with their published implementation; both encoders are replaced by their states."""

import pytest
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models import mmml
from bench.models.base import Inputs
from tests.parity_systems import DTYPES, Case, fixtures, own_rules

WHICH = {"text": 0, "audio": 1}
RULES = [
    (r"(text|audio)_mixed_cls_emb\.weight", lambda m: (f"mixed.{m[1]}.first", (None,))),
    (r"(T|A)_output_layers\.1\.(\w+)", lambda m: f"unimodal.{dict(T='text', A='audio')[m[1]]}.{m[2]}"),
    (r"(text|audio)_cls_emb\.weight", lambda m: ("cross.first", (slice(WHICH[m[1]], WHICH[m[1]] + 1),))),
    (r"fused_output_layers\.(\d)\.(\w+)", lambda m: f"head.{int(m[1]) - 1}.{m[2]}"),
    (r"(text|audio)_mixed_layer\.1\.(\w+)", r"mix.\1.\2"),
    (r"(text|audio)_encoder\.layers\.(\d+)\.(.+)", r"mixed.\1.layers.\2.\3"),
    (
        r"CME_layers\.(\d+)\.(\w+?)_(attention\.att|self_att\.self)\.(query|key|value)\.(\w+)",
        lambda m: f"cross.layers.{m[1]}.{block(m[3])}.{stream(m[2])}.{m[4]}.{m[5]}",
    ),
    (
        r"CME_layers\.(\d+)\.(\w+?)_(attention|self_att)\.output\.(dense|LayerNorm)\.(\w+)",
        lambda m: f"cross.layers.{m[1]}.{block(m[3])}.{stream(m[2])}.{dict(dense='out', LayerNorm='norm')[m[4]]}.{m[5]}",
    ),
    (r"CME_layers\.(\d+)\.(\w+?)_inter\.dense\.(\w+)", lambda m: f"cross.layers.{m[1]}.feed_forward.{stream(m[2])}.up.{m[3]}"),
    (
        r"CME_layers\.(\d+)\.(\w+?)_output\.(dense|LayerNorm)\.(\w+)",
        lambda m: f"cross.layers.{m[1]}.feed_forward.{stream(m[2])}.{dict(dense='down', LayerNorm='norm')[m[3]]}.{m[4]}",
    ),
]


def block(name):
    return "within" if name.startswith("self_att") else "across"


def stream(name):
    """Which of the two sequences a block of the reference belongs to."""
    return 0 if name.startswith(("text", "lang")) else 1


def built(case, version, context=0):
    c = case.config
    params = mmml.Params(
        encoder="none", audio_encoder="none", version=version, context=context, heads=c["num_heads"],
        depth=c.get("num_hidden_layers", 1), feed_forward=c["ff"], hidden=c["d_head"], dropout=0.0,
        fusion_feed_forward=c.get("fusion_ff", 8),
    )
    d = c["d"]
    model = mmml.Model(params, Inputs((7, d), (11, d), (1, 0), context=True)).to(case.dtype).eval()

    return model, case.load(model, own_rules(model, RULES))


def check(case, model, names, streams, run="", labels=False):
    batch = case.batch()
    encoded = model.join([model.read(*(batch[k].bool() if "mask" in k else batch[k] for k in keys)) for keys in streams])
    output = model.fuse(encoded.latents)
    target = batch if labels else {"label": batch["label"]}
    aux = model.aux_losses(target, encoded, output)
    task = F.l1_loss(output.prediction, batch["label"])
    total = task + sum(aux.values())
    found = {f"latent/{'_'.join(reversed(k.split('_')))}": v for k, v in encoded.latents.items()}
    found |= {f"latent/{k}": v for k, v in encoded.side.items()} | {"latent/fusion": output.features["fusion"]}
    found |= {f"output/{k}": v for k, v in encoded.side.items() if k.startswith("prediction_")}
    found |= {f"loss/task_{k[4:]}": v for k, v in aux.items()}
    found |= {"output/prediction": output.prediction, "loss/task": task, "loss/total": total}
    apart = ("latent/text", "latent/audio") if model.params.version in ("v2", "v3") else ()  # theirs: before the mixing
    case.check(found, run, apart)
    model.zero_grad()
    total.backward()
    case.gradients(names, run)


CLIP = ("text_hidden", "text_pooled", "text_mask", "audio_hidden", "audio_mask")
BEFORE = ("text_context_hidden", "text_context_pooled", "text_context_mask", "audio_context_hidden", "audio_context_mask")


@DTYPES
@pytest.mark.parametrize("version, run, labels", [("v1", "", False), ("v1", "sims/", True), ("v2", "v2/", False)])
@fixtures("mmml")
def test_parity_mmml(path, version, run, labels, dtype):
    case = Case(path, dtype)
    check(case, *built(case, version), [CLIP], run, labels)


@DTYPES
@fixtures("mmml_v3")
def test_parity_mmml_v3(path, dtype):
    case = Case(path, dtype)
    check(case, *built(case, "v3"), [CLIP])


@DTYPES
@fixtures("mmml_cc")
def test_parity_mmml_concatenation(path, dtype):
    case = Case(path, dtype)
    check(case, *built(case, "cc"), [CLIP])


@DTYPES
@fixtures("mmml_context")
def test_parity_mmml_context(path, dtype):
    case = Case(path, dtype)
    check(case, *built(case, "v1", context=2), [CLIP, BEFORE])


def test_mmml_says_what_does_not_go_together():
    with pytest.raises(BenchError, match="context goes with version 'v1' alone"):
        mmml.Params(version="v3", context=2)
    with pytest.raises(BenchError, match="version must be one of 'v1', 'v2', 'v3', 'cc', not 'v4'"):
        mmml.Params(version="v4")
