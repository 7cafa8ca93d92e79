"""C-MIB, E-MIB and L-MIB against the release."""

from torch.nn import functional as F

from bench.models import cmib, emib, lmib
from bench.models.parts.bottleneck import MODALITIES, divergence
from tests.parity.harness import Fixture, Reference

LETTER = {"l": "text", "a": "audio", "v": "vision"}
_PARTS = {"encoder": "encoder", "fc_mu": "mean", "fc_std": "spread", "decoder": "decoder"}
_TOWER = {"self_attn.in_proj_": "qkv_", "self_attn.out_proj.": "out_", "fc1.": "fc1_", "fc2.": "fc2_"}


def tower_rules(prefix: str, ours: str) -> list:
    """An encoder of MulT's kind -> the single tower of a Towers stack; `prefix` has one group, the modality's letter."""
    return [
        (
            prefix + r"\.layers\.(\d+)\.(self_attn\.in_proj_|self_attn\.out_proj\.|fc1\.|fc2\.)(\w+)",
            lambda m: (f"{ours.format(LETTER[m[1]])}.{_TOWER[m[3]]}{m[4]}", (0, int(m[2]))),
        ),
        (
            prefix + r"\.layers\.(\d+)\.layer_norms\.(\d)\.(\w+)",
            lambda m: (f"{ours.format(LETTER[m[1]])}.norm_{m[4]}", (0, int(m[2]), int(m[3]))),
        ),
        (prefix + r"\.layer_norm\.(\w+)", lambda m: (f"{ours.format(LETTER[m[1]])}.end_{m[2]}", (0,))),
    ]


RULES = [
    (r"bert\.proj_l\.weight", "convolution.weight"),
    (r"proj_([av])\.weight", lambda m: f"sequences.{LETTER[m[1]]}.convolution.weight"),
    *tower_rules(r"trans([av])", "sequences.{}.encoder"),
    (
        r"fusion\.(encoder|fc_mu|fc_std|decoder)_([lav])\.(?:0\.)?(weight|bias)",
        lambda m: f"unimodal.{LETTER[m[2]]}.{_PARTS[m[1]]}.{m[3]}",
    ),
]
FUSION = [
    (r"fusion\.(encoder|fc_mu|fc_std|decoder)\.(?:0\.)?(weight|bias)", lambda m: f"fusion.{_PARTS[m[1]]}.{m[2]}"),
    (r"fusion\.fusion1\.linear_1\.(\w+)", r"join.\1"),
]
TENSOR = [
    (r"fusion\.decoder\.(\w+)", r"score.\1"),
    (r"fusion\.fusion1\.post_fusion_layer_1\.(\w+)", r"product.\1"),
    (r"fusion\.fusion1\.post_fusion_layer_2\.(\w+)", r"squash.\1"),
    (r"fusion\.fusion1\.post_fusion_layer_3\.(\w+)", r"join.\1"),
]
CONSTANT = {r"trans[av]\.(version|embed_positions.*)": "constant"}
IDLE = "built and never used"


def builder(module, **more):
    def build(fixture: Fixture):
        c = fixture.config
        params = module.Params(
            encoder="none", d=c["d_l"], hidden=c["hidden"], heads=c["num_heads"], layers=c["layers"], attn_dropout=0.0,
            relu_dropout=0.0, res_dropout=0.0, embed_dropout=0.0, **{k: c[v] for k, v in more.items()},
        )
        return module.Model(params, fixture.inputs())

    return build


def observe(model, batch, fixture: Fixture) -> dict:
    """The step with the fixture's draws; the losses apart as the reference logs them."""
    y = batch["label"]
    unimodal, fused = hasattr(model, "unimodal"), hasattr(model, "fusion")
    noise = {m: batch[f"noise_{m}"] for m in MODALITIES} if unimodal else None
    hidden = fixture.hidden(batch)
    encoded = model.encode_hidden(hidden, batch, noise) if unimodal else model.encode_hidden(hidden, batch)
    output = model.fuse(encoded.latents, batch["noise_fusion"]) if fused else model.fuse(encoded.latents)
    losses = model.aux_losses(batch, encoded, output)
    found = {"output/prediction": output.prediction, "loss/task": F.l1_loss(output.prediction, y)}
    found |= {f"latent/{k}": v for k, v in {**encoded.side, **output.features}.items()}
    found |= {f"latent/{m}": x for m, x in model.last_steps(hidden, batch).items()}
    for m in (*(MODALITIES if unimodal else ()), *(("fusion",) if fused else ())):
        prediction = output.prediction if m == "fusion" else encoded.side[f"prediction_{m}"]
        found |= {f"loss/ce_{m}": F.l1_loss(prediction, y), f"loss/ib_{m}": losses[f"bottleneck_{m}"]}
        found[f"loss/kl_{m}"] = divergence(found[f"latent/mu_{m}"], found[f"latent/std_{m}"])
        if m != "fusion":
            found |= {f"output/prediction_{m}": prediction, f"latent/z_{m}": encoded.latents[m]}
    found["loss/total"] = found["loss/task"] + sum(losses.values())
    found["output/prediction_mean"] = mean_prediction(model, hidden, batch)
    return found


def mean_prediction(model, hidden, batch):
    """As with `sample_at_test` off."""
    bottlenecks = [m for m in model.modules() if hasattr(m, "sample_at_test")]
    for b in bottlenecks:
        b.sample_at_test = False
    prediction = model.fuse(model.encode_hidden(hidden, batch).latents).prediction
    for b in bottlenecks:
        b.sample_at_test = True
    return prediction


REFERENCES = {
    "cmib": Reference(builder(cmib), [*RULES, *FUSION], observe, unused=CONSTANT, double=1e-6),
    "emib": Reference(builder(emib), [*RULES, *FUSION], observe, double=1e-6, unused={
        **CONSTANT, r"proj_l\.weight": IDLE, r"fusion\.\w+_[lav]\..*": IDLE}),
    "lmib": Reference(builder(lmib, fusion_hidden="fusion_hidden"), [*RULES, *TENSOR], observe, double=1e-6, unused={
        **CONSTANT, r"proj_l\.weight": IDLE, r"BN\..*": IDLE, r"fusion\.(encoder|fc_mu|fc_std)\..*": IDLE,
        r"fusion\.fusion1\.(?!post_fusion_layer).*": IDLE}),
}
