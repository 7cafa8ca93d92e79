"""MAG-BERT against M-SENA's, a small BERT included."""

from dataclasses import replace
from unittest import mock

import torch
from torch.nn import functional as F

from bench.models import mag
from bench.models.parts import text
from tests.parity.harness import Fixture, Reference


def build(fixture: Fixture) -> mag.Model:
    from transformers import BertConfig, BertModel

    c = fixture.config
    params = mag.Params(encoder="tiny", beta_shift=c["beta_shift"], dropout=c["dropout_prob"], pooler_dropout=0.0)
    with mock.patch.object(text, "_build", lambda name, pooler: BertModel(BertConfig(**c["bert"]))):
        return mag.Model(params, replace(fixture.inputs("text"), text=(fixture.arrays["input/text"].shape[2], 0)))


def observe(model: mag.Model, batch, fixture: Fixture) -> dict:
    kept = {}

    def keep(module, args, output):  # the gate's inputs and output
        kept.update(embedding=args[0], audio=args[1], vision=args[2], gate=output)

    hook = model.gate.register_forward_hook(keep)
    last = model.text_encoder.register_forward_hook(lambda module, args, hidden: kept.update(last=hidden.last))
    output = model({**batch, "text_bert": batch["text"].long()})
    hook.remove(), last.remove()
    found = {"latent/text": kept["embedding"], "latent/gate": kept["gate"], "latent/sequence": kept["last"]}
    for m in ("audio", "vision"):
        gate, shift = getattr(model.gate, f"gate_{m}"), getattr(model.gate, m)
        found[f"latent/gated_{m}"] = gate(torch.cat([kept[m], kept["embedding"]], -1)).relu() * shift(kept[m])
    task = F.l1_loss(output.prediction, batch["label"])
    found |= {"latent/fusion": output.features["fusion"], "output/prediction": output.prediction}
    return found | {"loss/task": task, "loss/total": task}


RULES = [
    (r"model\.bert\.MAG\.W_hv\.(\w+)", r"gate.gate_vision.\1"),
    (r"model\.bert\.MAG\.W_ha\.(\w+)", r"gate.gate_audio.\1"),
    (r"model\.bert\.MAG\.W_v\.(\w+)", r"gate.vision.\1"),
    (r"model\.bert\.MAG\.W_a\.(\w+)", r"gate.audio.\1"),
    (r"model\.bert\.MAG\.LayerNorm\.(\w+)", r"gate.norm.\1"),
    (r"model\.bert\.pooler\.(.+)", r"text_encoder.pooler.\1"),
    (r"model\.bert\.((?:embeddings|encoder)\..+)", r"text_encoder.transformer.\1"),
    (r"model\.classifier\.(\w+)", r"score.\1"),
]
REFERENCES = {"mag_bert": Reference(build, RULES, observe)}
