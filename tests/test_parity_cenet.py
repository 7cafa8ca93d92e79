"""Parity of CENet with its published implementation, whole tiny encoder included."""

import pytest
import torch
from torch.nn import functional as F

from bench.models import cenet
from bench.models.parts import text
from tests.parity_systems import DTYPES, Case, fixtures

ENCODER = "text_encoder.transformer"
RULES = [
    (r"bert\.(embeddings|encoder\.layer)\.(.+)", rf"{ENCODER}.\1.\2"),
    (r"bert\.encoder\.CE\.visual_transform\.(.+)", r"enhance.transform.vision.\1"),
    (r"bert\.encoder\.CE\.acoustic_transform\.(.+)", r"enhance.transform.audio.\1"),
    (
        r"bert\.encoder\.CE\.h([va])\.W([qkv])\.(.+)",
        lambda m: f"enhance.attend.{dict(v='vision', a='audio')[m[1]]}.{dict(q='query', k='key', v='value')[m[2]]}.{m[3]}",
    ),
    (r"bert\.encoder\.CE\.cat_connect\.(.+)", r"enhance.shift.\1"),
    (r"classifier\.dense\.(.+)", r"dense.\1"),
    (r"classifier\.out_proj\.(.+)", r"score.\1"),
]


def built(case, monkeypatch, **params):
    def tiny(name, pooler=False):
        from transformers import BertConfig, BertModel

        return BertModel(BertConfig(**case.config["bert"]), add_pooling_layer=False)

    monkeypatch.setattr(text, "_build", tiny)
    model = cenet.Model(cenet.Params(encoder="tiny", **params), case.inputs()).to(case.dtype).eval()
    return model, case.load(model, RULES)


def batch_of(case):
    batch = case.batch()
    return batch | {"text_bert": batch["text"].long()}


@DTYPES
@fixtures("cenet")
def test_parity_cenet(path, dtype, monkeypatch):
    case = Case(path, dtype)
    model, names = built(case, monkeypatch)
    batch, found = batch_of(case), {}

    def keep(name, output=True):
        return lambda module, args, out: found.__setitem__(f"latent/{name}", out if output else args[0])

    transformer = model.text_encoder.transformer
    model.enhance.register_forward_hook(keep("text", output=False))
    model.enhance.register_forward_hook(keep("enhanced"))
    transformer.embeddings.register_forward_hook(keep("embedding"))
    transformer.encoder.layer[-1].register_forward_hook(keep("sequence"))
    for m in ("audio", "vision"):
        model.enhance.transform[m].register_forward_hook(keep(m))
        model.enhance.attend[m].register_forward_hook(keep(f"attended_{m}"))
    model.reads_padding = True  # the fixture keeps all positions
    encoded = model.encode(batch)
    output = model.fuse(encoded.latents)
    task = F.l1_loss(output.prediction, batch["label"])
    found |= {"latent/fusion": encoded.latents["fusion"], "output/prediction": output.prediction}
    case.check(found | {"loss/task": task, "loss/total": task})
    task.backward()
    case.gradients(names)


@fixtures("cenet")
def test_cenet_switches_change_what_they_say(path, monkeypatch):
    case = Case(path, torch.float64)
    batch = batch_of(case) | {"audio_lengths": torch.full((5,), 4), "vision_lengths": torch.full((5,), 3)}
    plain = built(case, monkeypatch)[0](batch).prediction
    divided = built(case, monkeypatch, scale=0.0)[0]
    assert divided.enhance.attend["audio"].scale == pytest.approx(24**-0.5)
    assert not torch.allclose(divided(batch).prediction, plain)
    masked = built(case, monkeypatch, mask_frames=True)[0]
    changed = {**batch, "audio": batch["audio"].clone()}
    changed["audio"][:, 4:] += 1.0  # behind the clip's end
    assert torch.equal(masked(batch).prediction, masked(changed).prediction)
    assert not torch.allclose(built(case, monkeypatch)[0](changed).prediction, plain)
    trained = built(case, monkeypatch, train_embeddings=True)[0]
    trained(batch).prediction.sum().backward()
    assert trained.text_encoder.transformer.embeddings.word_embeddings.weight.grad is not None
