"""AtCAF with its defects: the misplaced key mask and the unmasked local branch, four kinds of counterfactual attention."""

from torch.nn import functional as F

from bench.models import atcaf
from tests.parity.encoders import encoder_rules
from tests.parity.harness import Fixture, Reference
from tests.parity.towers import MARKERS

M = {"t": "text", "v": "vision", "a": "audio", "visual": "vision", "acoustic": "audio", "text": "text"}
MOD = "(audio|text|vision)"
RULES = [
    (r"uni_(visual|acoustic)_enc\.rnn\.(\w+)", lambda m: f"lstm.{M[m[1]]}.{m[2]}"),
    (r"uni_(visual|acoustic)_enc\.linear_1\.(\w+)", lambda m: f"lstm_out.{M[m[1]]}.{m[2]}"),
    (r"mi_([tv])([va])\.mlp_(mu|logvar)\.(.+)", lambda m: f"lld.{M[m[1]]}_{M[m[2]]}.{dict(mu='mean', logvar='log_variance')[m[3]]}.{m[4]}"),
    (r"cpc_z([tva])\.net\.(\w+)", lambda m: f"nce.{M[m[1]]}.{m[2]}"),
    (MOD + r"_mediator\.(acoustic|text|visual)_center", r"debias.\1.dictionary"),
    (MOD + r"_mediator\.IS_\w+?_encoder\.proj\.weight", r"debias.\1.local.weight"),
    (MOD + r"_mediator\.IS_\w+?_encoder\.(output_)?linear\.(\w+)", lambda m: f"debias.{m[1]}.{'down' if m[2] else 'up'}.{m[3]}"),
    (MOD + r"_mediator\.CS_\w+?_encoder\.proj_modal([12])\.weight", lambda m: f"debias.{m[1]}.wide.{side(m[2])}.weight"),
    (MOD + r"_mediator\.CS_\w+?_encoder\.(output_)?linear\.(\w+)", lambda m: f"debias.{m[1]}.wide.{'down' if m[2] else 'up'}.{m[3]}"),
    *encoder_rules(MOD + r"_mediator\.IS_\w+?_encoder\.net", lambda m: f"debias.{m[1]}.encoder"),
    *encoder_rules(MOD + r"_mediator\.CS_\w+?_encoder\.net", lambda m: f"debias.{m[1]}.wide.encoder"),
    (MOD + r"_mlp\.linear_(\d)\.(\w+)", lambda m: f"debias.{m[1]}.mlp.layers.{int(m[2]) - 1}.{m[3]}"),
    (MOD + r"_mlp\.output_linear\.(\w+)", r"debias.\1.mlp.out.\2"),
    (r"t([av])_(cross|counterfactual)_attn\.proj_modal([12])\.weight", lambda m: f"{branch(m[2])}.{M[m[1]]}.{side(m[3])}.weight"),
    (r"t([av])_(cross|counterfactual)_attn\.(output_)?linear\.(\w+)", lambda m: f"{branch(m[2])}.{M[m[1]]}.{'down' if m[3] else 'up'}.{m[4]}"),
    *encoder_rules(r"t([av])_(cross|counterfactual)_attn\.net", lambda m: f"{branch(m[2])}.{M[m[1]]}.encoder"),
    (r"fusion_mlp_for_(counterfactual_)?regression\.linear_4\.(\w+)", lambda m: f"{'counter_' if m[1] else ''}head.out.{m[2]}"),
    (r"fusion_mlp_for_(counterfactual_)?regression\.linear_(\d)\.(\w+)", lambda m: f"{'counter_' if m[1] else ''}head.layers.{int(m[2]) - 1}.{m[3]}"),
]
UNUSED = {
    **MARKERS, r"mi_\w\w\.entropy_prj\..+": "entropy, in no loss", r"cpc_z\w\.logit_scale": "not used",
    r"\w+_mediator\.proj(_dict)?\.weight": "not used",
}


def side(which: str) -> str:
    return "query" if which == "1" else "source"


def branch(name: str) -> str:
    return "cross" if name == "cross" else "counter"


def build(fixture: Fixture) -> atcaf.Model:
    c = fixture.config
    params = atcaf.Params(
        encoder="none", width_self=c["model_dim_self"], heads_self=c["num_heads_self"], width=c["model_dim_cross"],
        heads=c["num_heads_cross"], debias_layers=c["debias_layers"], cross_layers=c["cross_layers"],
        counterfactual_layers=c["counterfactual_layers"], dictionary=c["kmean_size"], text_mlp=c["text_mlp"],
        audio_mlp=c["audio_mlp"], vision_mlp=c["vision_mlp"], audio_hidden=c["d_ah"], vision_hidden=c["d_vh"],
        audio_out=c["d_aout"], vision_out=c["d_vout"], head=c["d_prjh"], mask="release", attention_dropout=0.0,
        relu_dropout=0.0, residual_dropout=0.0, embed_dropout=0.0, head_dropout=0.0,
    )
    return atcaf.Model(params, fixture.inputs())


def looking(kind):
    def observe(model, batch, fixture):
        layers = model.params.counterfactual_layers
        orders = {"vision": batch["permutation"][:layers], "audio": batch["permutation"][layers:]}
        draws = {"vision": batch["random_tv"], "audio": batch["random_ta"]} if kind == "random" else orders
        encoded = model.encode_hidden(fixture.hidden(batch), batch)
        output = model.fuse(encoded.latents)
        latents, counter = model.counterfactual(encoded.side, batch, model.altered(kind, draws))
        unimodal = model.unimodal(encoded.side, batch)
        terms = model.terms(unimodal, output, counter, batch["label"])
        weighted = model.weighted(terms)
        task = F.l1_loss(output.prediction, batch["label"])
        p = model.params
        found = {f"latent/{k}": v for k, v in encoded.side.items()}
        found |= {f"latent/unimodal_{k}": v for k, v in unimodal.items()}
        for m in ("audio", "vision"):
            found |= {f"latent/cross_t{m[0]}": encoded.latents[f"text_{m}"], f"latent/counterfactual_t{m[0]}": latents[f"text_{m}"]}
        found |= {
            "latent/fusion": output.features["fusion"], "latent/counterfactual_fusion": counter.features["fusion"],
            "output/prediction": output.prediction, "output/prediction_counterfactual": counter.prediction,
        }
        for k, v in terms.items():
            parts = k.split("_")
            found[f"loss/lld_{parts[1][0]}{parts[2][0]}" if parts[0] == "lld" else f"loss/{k}"] = v
        return found | {
            "loss/nce": weighted["nce"] / p.alpha, "loss/lld": -weighted["lld"] / p.beta, "loss/task": task,
            "loss/total": task + sum(weighted.values()),
        }

    return observe


REFERENCES = {
    "atcaf": Reference(
        build, RULES, looking("shuffle"), {k: looking(k) for k in ("reversed", "uniform", "random")}, UNUSED, double=1e-6
    ),
}
