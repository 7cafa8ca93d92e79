"""MCTN along the batch, as M-SENA computes it, and along time (alt/)."""

from dataclasses import replace

from torch.nn import functional as F

from bench.models import mctn
from bench.models.parts.text import Hidden
from tests.parity.harness import Fixture, Reference

RULES = [  # attn1 = decoder1.attention = seq2seq1.decoder.attention, and so on
    (r"seq2seq(\d)\.encoder\.(\w+)\.(\w+)", lambda m: f"encoder{m[1]}.{m[2].replace('fc', 'start')}.{m[3]}"),
    (r"encoder(\d)\.(\w+)\.(\w+)", lambda m: f"encoder{m[1]}.{m[2].replace('fc', 'start')}.{m[3]}"),
    (r"attn(\d)\.(attn|v)\.weight", lambda m: f"decoder{m[1]}.{dict(attn='attention', v='score')[m[2]]}.weight"),
    (
        r"(?:decoder|seq2seq)(\d)\.(?:decoder\.)?attention\.(attn|v)\.weight",
        lambda m: f"decoder{m[1]}.{dict(attn='attention', v='score')[m[2]]}.weight",
    ),
    (r"(?:decoder|seq2seq)(\d)\.(?:decoder\.)?rnn\.(\w+)", r"decoder\1.rnn.\2"),
    (r"(?:decoder|seq2seq)(\d)\.(?:decoder\.)?fc_out\.(\w+)", r"decoder\1.out.\2"),
    (r"regression\.rnn\.(\w+)", r"lstm.\1"),
    (r"regression\.linear\.(\w+)", r"attention.\1"),
    (r"regression\.linear2\.(\w+)", r"out.\1"),
]


def build(fixture: Fixture) -> mctn.Model:
    c = fixture.config
    assert not c["use_bert"] and c["output_dim"] == c["feature_dims"][0]
    params = mctn.Params(encoder="none", hidden=c["hid_dim"], steps=c["max_seq_len"], along="batch")
    return mctn.Model(params, fixture.inputs(text="text"))


def observe(model, batch, fixture, along="batch"):
    model.params = replace(model.params, along=along)
    encoded = model.encode_hidden(Hidden(batch["text"], batch["text"], batch["text"].new_ones(batch["text"].shape[:2])), batch)
    output = model.fuse(encoded.latents)
    translated = model.translate(batch, encoded)
    terms = model.terms(batch, translated)
    task = F.l1_loss(output.prediction, batch["label"])
    losses = model.aux_losses(batch, encoded, output)
    found = {"latent/text": encoded.side["joint"], "latent/fusion": encoded.latents["fusion"]}
    found |= {f"latent/translated_{m}": translated[m] for m in mctn.MODALITIES} | {f"loss/{m}": v for m, v in terms.items()}
    return found | {"output/prediction": output.prediction, "loss/task": task, "loss/total": task + sum(losses.values())}


RUNS = {"alt": lambda m, b, f: observe(m, b, f, "time")}
REFERENCES = {"mctn": Reference(build, RULES, observe, RUNS)}
