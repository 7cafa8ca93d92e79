"""CMFF: fusion of the layers' tokens, in evaluation and, with masked tokens, in training."""

from torch.nn import functional as F

from bench.models import cmff
from bench.models.base import Inputs
from tests.parity.harness import Fixture, Reference

EXPERT = {"1": "value", "2": "gate", "3": "out"}
RULES = [
    (r"(text|audio)_proj\.(\d+)\.(\d)\.(\w+)", r"project.\1.\2.\3.\4"),
    (r"cmsq\.mask_token", "mask_token"),
    (r"cmsq\.cmsq_layers\.(\d)\.self_att\.(.+)", r"layers.\1.attention.\2"),
    (r"cmsq\.cmsq_layers\.(\d)\.norm1\.(\w+)", r"layers.\1.norm_attention.\2"),
    (r"cmsq\.cmsq_layers\.(\d)\.norm2\.(\w+)", r"layers.\1.norm_expert.\2"),
    (
        r"cmsq\.cmsq_layers\.(\d)\.(text|audio)_expert\.linear(\d)\.(\w+)",
        lambda m: f"layers.{m[1]}.experts.{m[2]}.{EXPERT[m[3]]}.{m[4]}",
    ),
    (r"cmsq_predict\.0\.(\w+)", r"score.\1"),
]
IDLE = "built and never used"
UNUSED = {
    r"cmsq\.cmsq_layers\.\d\.gate\..*": IDLE, r"cmsq\.(norm[123]|gate|cross_attention|fc[12])\..*": IDLE,
    r"cmsq\.cls_token": IDLE,
}


def build(fixture: Fixture) -> cmff.Model:
    c, n = fixture.config, fixture.config["n_layers"]
    params = cmff.Params(encoder="none", audio_encoder="none", heads=c["heads"], dropout=0.0)
    return cmff.Model(params, Inputs((6, c["text_dim"]), (9, c["audio_dim"]), (1, 0)), n, n)


def look(model, batch, fixture, training=False):
    model.train(training)
    text = list(batch["text_hidden"][:, :, 0].unbind(1))
    audio = batch["audio_hidden"]
    mask = batch["audio_lengths"][:, None] > batch["index"].new_tensor(range(audio.shape[2]))
    latents = model.tokens(text, list(audio.unbind(1)), mask)
    output = model.fuse(latents, batch["mask_uniform"])
    task = F.l1_loss(output.prediction, batch["label"])
    found = {f"latent/{k}": v for k, v in (latents | output.features).items()}
    return found | {"output/prediction": output.prediction, "loss/task": task, "loss/total": task}


REFERENCES = {
    "cmff": Reference(build, RULES, look, {"train": lambda m, b, f: look(m, b, f, True)}, UNUSED),
}
