"""MMIN: imagination with its frozen teacher, and the fusion model that the teacher was; three variants."""

from torch import nn
from torch.nn import functional as F

from bench.models import mmin
from bench.models.parts.text import Hidden
from tests.parity.harness import Fixture, Reference

M = {"A": "audio", "L": "text", "V": "vision"}
SIDE = {None: "student", "pretrained_encoder.": "teacher"}
NET = r"(pretrained_encoder\.)?net"
LAYER = {"0": "layers.0", "3": "layers.1", "6": "layers.2"}
RULES = [
    (NET + r"([AV])\.rnn\.(\w+)", lambda m: f"{SIDE[m[1]]}.encoders.{M[m[2]]}.lstm.{m[3]}"),
    (NET + r"L\.conv(\d)\.(\w+)", lambda m: f"{SIDE[m[1]]}.encoders.text.convolutions.{int(m[2]) - 1}.{m[3]}"),
    (NET + r"L\.embd\.0\.(\w+)", lambda m: f"{SIDE[m[1]]}.encoders.text.out.{m[2]}"),
    (NET + r"([ALV])\.module\.(\d)\.(\w+)", lambda m: f"{SIDE[m[1]]}.encoders.{M[m[2]]}.{LAYER[m[3]]}.{m[4]}"),
    (NET + r"([ALV])\.fc_out\.(\w+)", lambda m: f"{SIDE[m[1]]}.encoders.{M[m[2]]}.out.{m[3]}"),
    (NET + r"C\.module\.(\d)\.(\w+)", lambda m: f"{SIDE[m[1]]}.predictor.{LAYER[m[2]]}.{m[3]}"),
    (NET + r"C\.fc_out\.(\w+)", lambda m: f"{SIDE[m[1]]}.predictor.out.{m[2]}"),
    (r"netAE(_cycle)?\.transition\.(\d)\.(\w+)", lambda m: f"{'back' if m[1] else 'imagine'}.transition.{m[2]}.{m[3]}"),
    (
        r"netAE(_cycle)?\.(en|de)coder_(\d)\.(\d)\.(\w+)",
        lambda m: f"{'back' if m[1] else 'imagine'}.{m[2]}coders.{m[3]}.{m[4]}.{m[5]}",
    ),
]


def build(fixture: Fixture) -> mmin.Model:
    c = fixture.config
    sequence = fixture.arrays["input/text"].ndim == 3
    params = mmin.Params(
        encoder="none", inputs="sequence" if sequence else "utterance", channels=c.get("cnn_channels", 1),
        classifier=tuple(c["cls_layers"]), autoencoder=tuple(c["AE_layers"]), blocks=c["n_blocks"], dropout=0.0,
        lambda_mse=c["mse_weight"], lambda_cycle=c["cycle_weight"], share=c.get("share_weight", False),
        **{f"{m}_embedding": c[f"embd_{m}"] for m in mmin.MODALITIES},
    )
    assert c["ce_weight"] == 1.0 and c.get("embd_method", "maxpool") == "maxpool"
    shapes = {m: fixture.arrays[f"input/{m}"].shape[1:] for m in ("text", "audio", "vision")}
    model = mmin.Model(params, mmin.Inputs(**{m: s if len(s) == 2 else (1, *s) for m, s in shapes.items()}))
    for part in (model.student, model.teacher):  # classes of emotion
        part.predictor.out = nn.Linear(part.predictor.out.in_features, c["output_dim"])
    return model


def read(batch) -> tuple[Hidden, dict]:
    """The text's states and the batch as this model reads it: one step where a fixture has one vector."""
    x = {m: batch[m] if batch[m].ndim == 3 else batch[m][:, None] for m in ("text", "audio", "vision")}
    found = batch | x | {f"{m}_lengths": x[m].new_full((len(x[m]),), x[m].shape[1]).long() for m in x}
    found |= {f"keep_{m}": batch["missing_index"][:, i] == 1 for i, m in enumerate(("audio", "vision", "text"))}
    return Hidden(x["text"], x["text"], x["text"].new_ones(x["text"].shape[:2])), found


def task(prediction, label):
    return F.mse_loss(prediction, label) if prediction.ndim == 1 else F.cross_entropy(prediction, label)


def observe(model, batch, fixture):
    hidden, batch = read(batch)
    model.train(), model.on_epoch_start(2)
    encoded = model.encode_hidden(hidden, batch)
    output = model.fuse(encoded.latents)
    terms = model.terms(encoded.side, output)
    losses = model.aux_losses(batch, encoded, output)
    loss = task(output.prediction, batch["label"])
    names = {"fusion": "fusion", "recon": "imagined", "recon_cycle": "cycled", "latent_cycle": "codes_cycle"}
    found = {f"latent/{m}": x for m, x in encoded.latents.items()} | {"latent/teacher": encoded.side["teacher"]}
    found |= {f"latent/{k}": output.features[v] for k, v in names.items()} | {f"loss/{k}": v for k, v in terms.items()}
    return found | {"output/prediction": output.prediction, "loss/task": loss, "loss/total": loss + sum(losses.values())}


def pretrain(model, batch, fixture):
    hidden, batch = read(batch)
    prediction, found = model.teacher(model.inputs_of(hidden, batch))
    return {f"latent/{m}": x for m, x in found.items()} | {
        "output/prediction": prediction, "loss/total": task(prediction.squeeze(-1), batch["label"]),
    }


_BOTH, _ONE = (Reference(build, RULES, observe, runs) for runs in ({"pretrain": pretrain}, {}))
REFERENCES = {"mmin": _BOTH, "mmin_reg": _BOTH, "mmin_share": _ONE}
