"""MO-Sarcation: its two modules and the head, BART left out: the second module follows the first directly."""

import torch
from torch import nn
from torch.nn import functional as F

from bench.models import mo_sarcation
from tests.parity.harness import Fixture, Reference

SIDES = {"acoustic": "audio", "visual": "vision"}
_LAYER = r"MAF_layer[45]\."
RULES = [
    (_LAYER + r"(acoustic|visual)_context_transform\.weight", lambda m: f"{SIDES[m[1]]}.time.weight"),
    (_LAYER + r"(acoustic|visual)_context_attention\.attention_layer\.in_proj_(\w+)", lambda m: f"{SIDES[m[1]]}.qkv.{m[2]}"),
    (_LAYER + r"(acoustic|visual)_context_attention\.attention_layer\.out_proj\.(\w+)", lambda m: f"{SIDES[m[1]]}.out.{m[2]}"),
    (
        _LAYER + r"(acoustic|visual)_context_attention\.(u|w1|w2)_([kv])\.weight",
        lambda m: f"{SIDES[m[1]]}.{dict(k='key', v='value')[m[3]]}.{dict(u='project', w1='own', w2='other')[m[2]]}.weight",
    ),
    (_LAYER + r"(acoustic|visual)_gate\.(\w+)", lambda m: f"{SIDES[m[1]]}.gate.{m[2]}"),
    (r"MAF_layer4\.final_layer_norm\.(\w+)", r"audio.norm.\1"),
    (r"MAF_layer5\.final_layer_norm\.(\w+)", r"vision.norm.\1"),
    (r"classification_head\.dense\.(\w+)", r"head.dense.\1"),
    (r"classification_head\.out_proj\.(\w+)", r"head.out.\1"),
]


class Parts(nn.Module):
    """The two modules and the head."""

    def __init__(self, fixture: Fixture) -> None:
        super().__init__()
        length, d = fixture.arrays["input/text_hidden"].shape[1:]
        for m in mo_sarcation.ORDER:
            self.add_module(m, mo_sarcation.ContextFusion(length, d, *fixture.arrays[f"input/{m}"].shape[1:], 0.0))
        self.head = mo_sarcation.Head(d)


def observe(model: Parts, batch, fixture):
    heard = model.audio(batch["text_hidden"], batch["audio"])
    seen = model.vision(heard, batch["vision"])
    read = seen[torch.arange(len(seen)), batch["eos_position"]]
    both = model.head(read)
    task = F.binary_cross_entropy_with_logits(both[:, 1] - both[:, 0], batch["label"].to(both.dtype))
    return {
        "latent/text": batch["text_hidden"], "latent/text_audio": heard, "latent/text_audio_vision": seen, "latent/fusion": read,
        "output/prediction": both, "loss/task": task, "loss/total": task,
    }


REFERENCES = {"mo_sarcation_parts": Reference(Parts, RULES, observe)}
