"""BBFN with its discriminator's loss."""

from torch.nn import functional as F

from bench.models import bbfn
from bench.models.base import Inputs
from tests.parity.harness import Fixture, Reference
from tests.parity.towers import MARKERS

M = {"l": "text", "a": "audio", "v": "vision"}
LINEAR = {"self_attn.in_proj_": "qkv.", "self_attn.out_proj.": "out.", "fc1.": "up.", "fc2.": "down."}
STACK = r"modal_interaction\.l([av])\."
LAYERS = STACK + r"(l2other|other2l)_layers\.(\d+)\."


def layer(m) -> str:
    return f"stacks.{M[m[1]]}.{'text' if m[2] == 'l2other' else 'other'}.{m[3]}"


def control(m) -> str:
    return f"stacks.{M[m[1]]}.controls.{m[2]}.{dict(l='text', o='other')[m[3]]}"


RULES = [
    (r"SequenceEncoder\.proj_([lav])\.weight", lambda m: f"project.{M[m[1]]}.weight"),
    (LAYERS + r"(self_attn\.in_proj_|self_attn\.out_proj\.|fc1\.|fc2\.)(\w+)", lambda m: f"{layer(m)}.{LINEAR[m[4]]}{m[5]}"),
    (LAYERS + r"layer_norms\.(\d)\.(\w+)", lambda m: f"{layer(m)}.norm_{('attention', 'feed_forward')[int(m[4])]}.{m[5]}"),
    (LAYERS + r"(mem|att)_proj\.0\.(\w+)", lambda m: f"{layer(m)}.gate_{dict(mem='residual', att='attention')[m[4]]}.{m[5]}"),
    (STACK + r"div_encoders\.(\d+)\.encode_([lo])\.(weight|bias)", lambda m: f"{control(m)}.{m[4]}"),
    (STACK + r"div_encoders\.(\d+)\.encode_([lo])\.(\w+_l0)(_reverse)?", lambda m: f"{control(m)}.{'back' if m[5] else 'ahead'}.{m[4]}"),
    (STACK + r"div_encoders\.(\d+)\.discriminator\.(.+)", lambda m: f"stacks.{M[m[1]]}.controls.{m[2]}.discriminator.{m[3]}"),
    (r"proj([12])\.(\w+)", r"head\1.\2"),
    (r"out_layer\.(\w+)", r"out.\1"),
]
UNUSED = {**MARKERS, r"modal_interaction\.l[av]\.layer_norm\..*": "built and never used"}


def build(fixture: Fixture) -> bbfn.Model:
    c = fixture.config
    params = bbfn.Params(
        encoder="none", width=c["attn_dim"], heads=c["num_heads"], layers=c["layers"], attention_dropout=0.0,
        relu_dropout=0.0, residual_dropout=0.0, discriminate=True, lambda_disc=c["lambda_d"],
    )
    steps = fixture.arrays["input/text_hidden"].shape[1]
    return bbfn.Model(params, Inputs((steps, c["orig_d_l"]), (steps, c["orig_d_a"]), (steps, c["orig_d_v"])))


def observe(model, batch, fixture):
    batch = batch | {m: F.pad(batch[m], (0, 0, 1, 1)) for m in bbfn.OTHERS} | {"audio_lengths": batch["lengths"] + 2}
    encoded = model.encode_hidden(fixture.hidden(batch), batch)
    output = model.fuse(encoded.latents)
    task = F.mse_loss(output.prediction, batch["label"])
    aux = model.aux_losses(batch, encoded, output)["discriminator"]
    told = encoded.side["told"]
    found = {f"latent/{k}": v for k, v in (encoded.latents | encoded.side | output.features).items()}
    return found | {
        "output/prediction": output.prediction, "output/disc_prediction": told.sigmoid(),
        "output/disc_label": model.discriminator_labels(len(batch["label"]), told.device), "loss/task": task,
        "loss/discriminator": aux / model.params.lambda_disc, "loss/total": task + aux,
    }


REFERENCES = {"bbfn": Reference(build, RULES, observe, unused=UNUSED, double=1e-6)}
