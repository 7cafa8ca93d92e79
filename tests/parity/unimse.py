"""UniMSE: its parts, T5 left out: encoders of audio and vision, one adapter of each kind, the contrastive head."""

from torch import nn

from bench.models.parts import t5_adapters as parts
from tests.parity.encoders import encoder_rules
from tests.parity.harness import Fixture, Reference
from tests.parity.towers import MARKERS

SIDES = {"visual": "vision", "acoustic": "audio"}
CROSS = {"l": "text", "a": "vision", "v": "audio"}  # by what the release hands to each name
GATED = {"adapter_down_project": "gated.down", "adapter_up_project": "gated.up", "adapter_linear": "out"}
RULES = [
    (r"(visual|acoustic)_enc\.rnn\.(.*)", lambda m: f"{SIDES[m[1]]}.lstm.{m[2]}"),
    (r"(visual|acoustic)_enc\.linear_1\.(\w+)", lambda m: f"{SIDES[m[1]]}.vector.{m[2]}"),
    (r"(ffn|parallel)\.(adapter_\w+)\.(weight|bias)", lambda m: f"{m[1]}.{GATED[m[2]]}.{m[3]}"),
    (r"cross\.adapter_proj_([lav])\.weight", lambda m: f"cross.{CROSS[m[1]]}.weight"),
    *encoder_rules(r"cross\.adapter_([AV])2L_subnet", lambda m: f"cross.from_{CROSS[m[1].lower()]}"),
    (r"cross\.adapter_trans_out\.(\w+)", r"cross.out.\1"),
    (r"info_nce\.info_proj_query\.weight", "contrast.text.weight"),
    (r"info_nce\.info_proj_positive\.weight", "contrast.other.weight"),
]
UNUSED = {**MARKERS, r"cross\.layer_norm\.\w+": "not used"}


class Parts(nn.Module):
    """Every part once."""

    def __init__(self, fixture: Fixture) -> None:
        super().__init__()
        c = fixture.config
        widths = c["text_dim"], c["d_vout"], c["d_aout"]
        self.vision = parts.Sequence(c["vision_dim"], c["d_h"], c["d_vout"])
        self.audio = parts.Sequence(c["audio_dim"], c["d_h"], c["d_aout"])
        self.ffn, self.parallel = (kind(*widths, c["adapter_size"]) for kind in (parts.FfnAdapter, parts.ParallelAdapter))
        steps = max(fixture.arrays[f"input/{k}"].shape[1] for k in ("text_hidden", "audio", "vision"))
        self.cross = parts.CrossAdapter(c["text_dim"], c["d_h"], c["cross_dim"], c["heads"], c["layers"], steps)
        self.contrast = parts.Contrast(c["text_dim"], c["d_h"], c["cross_dim"])


def observe(model: Parts, batch, fixture):
    found, states, vectors = {"latent/text": batch["text_hidden"]}, {}, {}
    for m in ("vision", "audio"):
        lengths = batch[f"{m}_lengths"]
        own, vectors[m] = getattr(model, m)(batch[m], lengths)
        states[m] = parts.permuted(own, lengths)
        found |= {f"latent/{m}": vectors[m], f"latent/{m}_sequence": states[m]}
    text = batch["text_hidden_ffn_input"], batch["text_hidden"]
    made = {
        "ffn": model.ffn(*text, **vectors), "parallel": model.parallel(*text, **vectors), "cross": model.cross(*text, **states),
    }
    nce = {m: model.contrast(batch["text_hidden"], states[m]) for m in states}
    task = sum((x @ batch["probe"]).square().mean() for x in made.values()) / len(made)
    found |= {f"output/{k}": v for k, v in made.items()} | {f"loss/nce_{m}": v for m, v in nce.items()}
    return found | {"loss/task": task, "loss/total": task + 0.5 * sum(nce.values())}


REFERENCES = {"unimse_parts": Reference(Parts, RULES, observe, unused=UNUSED, double=1e-6)}
