"""DMD: network, two graphs and decoupling losses, trained by one optimiser."""

from torch.nn import functional as F

from bench.models import dmd
from tests.parity.encoders import encoder_rules
from tests.parity.harness import Fixture, Reference
from tests.parity.towers import MARKERS

M = {"l": "text", "a": "audio", "v": "vision"}
BLOCK = {"proj1": "first", "proj2": "second"}
GRAPH = {"W_logit": "logit", "W_repr": "representation", "W_edge": "edge"}
RULES = [
    (r"dmd\.proj_([lav])\.weight", lambda m: f"project.{M[m[1]]}.weight"),
    (r"dmd\.encoder_s_([lav])\.weight", lambda m: f"specific.{M[m[1]]}.weight"),
    (r"dmd\.encoder_c\.weight", "common.weight"),
    (r"dmd\.decoder_([lav])\.weight", lambda m: f"rebuild.{M[m[1]]}.weight"),
    (r"dmd\.align_c_([lav])\.(\w+)", lambda m: f"align.{M[m[1]]}.{m[2]}"),
    *encoder_rules(r"dmd\.self_attentions_c_([lav])", lambda m: f"common_encoder.{M[m[1]]}"),
    *encoder_rules(r"dmd\.trans_([lav])_with_([lav])", lambda m: f"cross.{M[m[1]]}_{M[m[2]]}"),
    *encoder_rules(r"dmd\.trans_([lav])_mem", lambda m: f"memory.{M[m[1]]}"),
    (r"dmd\.(proj[12])_c\.(\w+)", lambda m: f"common_block.{BLOCK[m[1]]}.{m[2]}"),
    (r"dmd\.out_layer_c\.(\w+)", r"common_out.\1"),
    (r"dmd\.(proj[12])_([lav])_(low|high)\.(\w+)", lambda m: f"{m[3]}.{M[m[2]]}.{BLOCK[m[1]]}.{m[4]}"),
    (r"dmd\.out_layer_([lav])_(low|high)\.(\w+)", lambda m: f"{m[2]}_out.{M[m[1]]}.{m[3]}"),
    (r"dmd\.weight_([lavc])\.(\w+)", lambda m: f"gate.{M.get(m[1], 'common')}.{m[2]}"),
    (r"dmd\.(proj[12])\.(\w+)", lambda m: f"block.{BLOCK[m[1]]}.{m[2]}"),
    (r"dmd\.out_layer\.(\w+)", r"out.\1"),
    (r"(homo|hetero)\.(W_\w+)\.(weight|bias)", lambda m: f"{m[1]}.{GRAPH[m[2]]}.{m[3]}"),
]
UNUSED = {**MARKERS, r"dmd\.proj_cosine_.*": "reach no loss"}


def build(fixture: Fixture) -> dmd.Model:
    c = fixture.config
    params = dmd.Params(
        encoder="none", width=c["dst_feature_dim"], heads=c["num_heads"], levels=c["nlevels"], graph_low=c["gd_size_low"],
        graph_high=c["gd_size_high"], **{f"{m}_kernel": c[f"kernel_{k}"] for k, m in M.items()},
        **{n: 0.0 for n in dmd.Params.__dataclass_fields__ if "dropout" in n},
    )
    return dmd.Model(params, fixture.inputs())


def observe(model, batch, fixture):
    encoded = model.encode_hidden(fixture.hidden(batch), batch)
    output = model.fuse(encoded.latents)
    side = {**encoded.side, **model.heads(encoded.latents)}
    terms = model.terms(side, batch["label"])
    weighted = model.weighted(terms)
    task = F.l1_loss(output.prediction, batch["label"])
    found = {f"latent/{k}": v for k, v in (encoded.latents | side | output.features).items()}
    found |= {f"output/{k}": v for k, v in side.items()} | {f"loss/{k}": v for k, v in terms.items()}
    for k, m in M.items():
        found |= {f"loss/task_{k}_{kind}": terms[f"task_{kind}_{m}"] for kind in ("homo", "hetero")}
    found |= {f"output/prior_{k}": g.prior for k, g in (("homo", model.homo), ("hetero", model.hetero))}
    return found | {
        "output/prediction": output.prediction, "loss/task_all": task, "loss/task_c": terms["task_common"],
        "loss/task": task + weighted["heads"], "loss/total": task + sum(weighted.values()),
    }


REFERENCES = {"dmd": Reference(build, RULES, observe, unused=UNUSED, double=1e-6)}
