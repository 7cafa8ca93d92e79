"""IMDer: all seven cases of missing modalities with given draws, through diffusion, refinement and MulT."""

import torch
from torch.nn import functional as F

from bench.models import imder
from bench.models.mult import TOWERS
from tests.parity.encoders import encoder_rules
from tests.parity.harness import Fixture, Reference
from tests.parity.towers import MARKERS, tower_rules

M = {"l": "text", "a": "audio", "v": "vision"}
K = {m: k for k, m in M.items()}
S = r"score_(?P<m>[lav])\."
JOIN = {"va": "text", "lv": "audio", "la": "vision"}  # conditions of
TIME = {"5": "up.0", "6": "up.1", "7": "up.2"}


def down(rest):
    return lambda m: f"score.{M[m['m']]}.down.{int(m['i']) - 1}.{rest}" + (f".{m['end']}" if "end" in m.groupdict() else "")


def up(rest):
    return lambda m: f"score.{M[m['m']]}.up.{4 - int(m['i'])}.{rest}" + (f".{m['end']}" if "end" in m.groupdict() else "")


R = r"rec_(?P<m>[lav])\."
RULES = [
    (S + r"embed\.0\.W", lambda m: f"score.{M[m['m']]}.frequency"),
    (S + r"embed\.1\.(\w+)", lambda m: f"score.{M[m['m']]}.time.{m[2]}"),
    (S + r"conv(?P<i>\d)\.(?P<end>weight)", down("conv")),
    (S + r"conv(?P<i>\d)_cond\.(?P<end>weight)", down("condition")),
    (S + r"gnorm(?P<i>\d)\.(?P<end>\w+)", down("norm")),
    (S + r"dense(?P<i>[1-4])\.dense\.(?P<end>\w+)", down("time")),
    (S + r"dense([567])\.dense\.(\w+)", lambda m: f"score.{M[m['m']]}.{TIME[m[2]]}.time.{m[3]}"),
    (S + r"tconv(?P<i>\d)\.(?P<end>\w+)", up("conv")),
    (S + r"tconv(?P<i>\d)_cond\.(?P<end>\w+)", up("condition")),
    (S + r"tgnorm(?P<i>\d)\.(?P<end>\w+)", up("norm")),
    *encoder_rules(S + r"attention_(?P<i>\d)", lambda m: f"score.{M[m['m']]}.down.{int(m['i']) - 1}.attention"),
    *encoder_rules(S + r"attention_t(?P<i>\d)", lambda m: f"score.{M[m['m']]}.up.{4 - int(m['i'])}.attention"),
    (r"cat_(va|lv|la)\.(\w+)", lambda m: f"join.{JOIN[m[1]]}.{m[2]}"),
    (R + r"0\.(\w+)", lambda m: f"refine.{M[m['m']]}.widen.{m[2]}"),
    (R + r"2\.(\w+)", lambda m: f"refine.{M[m['m']]}.narrow.{m[2]}"),
    (
        R + r"1\.body\.(\d+)\.body\.([02])\.(\w+)",
        lambda m: f"refine.{M[m['m']]}.blocks.{m[2]}.{dict(zip('02', ('first', 'second')))[m[3]]}.{m[4]}",
    ),
    (
        R + r"1\.body\.(\d+)\.body\.3\.conv_du\.([02])\.(\w+)",
        lambda m: f"refine.{M[m['m']]}.blocks.{m[2]}.{dict(zip('02', ('squeeze', 'excite')))[m[3]]}.{m[4]}",
    ),
    (R + r"1\.body\.(\d+)\.(weight|bias)", lambda m: f"refine.{M[m['m']]}.last.{m[3]}"),
    (r"proj_([lav])\.weight", lambda m: f"mult.convolutions.{M[m[1]]}.weight"),
    *(r for i, (t, s) in enumerate(TOWERS) for r in tower_rules(f"trans_{K[t]}_with_{K[s]}", "mult.cross", i)),
    *(r for i, m in enumerate(imder.MODALITIES) for r in tower_rules(f"trans_{K[m]}_mem", "mult.memory", i)),
    (r"proj([12])\.(\w+)", r"mult.head\1.\2"),
    (r"out_layer\.(\w+)", r"mult.out.\1"),
]


def build(fixture: Fixture) -> imder.Model:
    c = fixture.config
    params = imder.Params(
        encoder="none", width=c["dst_feature_dim"], heads=c["num_heads"], levels=c["nlevels"], channels=tuple(c["channels"]),
        time_embed=c["time_embed"], score_heads=c["score_heads"], groups=(c["groups1"], c["groups"]),
        sampling_steps=c["num_steps"], blocks=c["num_blocks"], reduction=c["reduction"], attention_dropout_audio=0.0,
        embed_dropout=0.0,
    )
    return imder.Model(params, fixture.inputs())


def given(batch, m):
    return imder.Noise(
        batch[f"t_{m}"], batch[f"z_{m}"], batch[f"init_{m}"], batch[f"condition_noise_{m}"], batch[f"step_noise_{m}"]
    )


def case(kept):
    """With the modalities `kept` (letters) in every clip."""

    def observe(model, batch, fixture):
        for name, q in model.mult.named_parameters():  # of MulT this run has the norms of the last layer alone
            q.requires_grad_(kept != "lv" or name.startswith("out."))
        x = {m: v.transpose(1, 2) for m, v in model.projected(fixture.hidden(batch), batch).items()}
        n = len(batch["label"])
        keep = {m: torch.full((n,), k in kept) for m, k in K.items()}
        y, side = model.recover(x, keep, {m: given(batch, m) for m in M.values()})
        latents = model.latents({m: v.transpose(1, 2) for m, v in y.items()})
        output = model.fuse(latents)
        task = F.l1_loss(output.prediction, batch["label"])
        weighted = model.aux_losses({"keep_text": None}, imder.Encoded(latents, side), output)
        found = {f"latent/{k}": v for k, v in (latents | side | output.features).items()}
        found |= {f"latent/conv_{m}": v for m, v in x.items()}
        found |= {f"loss/score_{m}": side[f"score_{m}"].mean() for m in x}
        found |= {"output/prediction": output.prediction, "loss/task": task, "loss/rec": weighted["rebuilt"] / model.params.weight}
        return found | {"loss/total": task + sum(weighted.values())}

    return observe


RUNS = {"has_v": "v", "has_a": "a", "miss_l": "va", "miss_v": "la", "miss_a": "lv", "full": "lav"}
REFERENCES = {
    "imder": Reference(
        build, RULES, case("l"), {run: case(kept) for run, kept in RUNS.items()}, MARKERS, single=1e-4, gradient=1e-3, double=1e-5,
    )
}
