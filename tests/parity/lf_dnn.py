"""LF-DNN against M-SENA's (and the feature networks that it shares with others)."""

from bench.models import lf_dnn
from tests.parity.harness import Fixture, Reference

FEATURE_NETS = [
    (r"text_subnet\.rnn\.(\w+)", r"text.rnn.\1"),
    (r"text_subnet\.linear_1\.(\w+)", r"text.linear.\1"),
    (r"(audio|video)_subnet\.norm\.(\w+)", lambda m: f"{vision(m[1])}.norm.{m[2]}"),
    (r"(audio|video)_subnet\.linear_(\d)\.(\w+)", lambda m: f"{vision(m[1])}.layers.{int(m[2]) - 1}.{m[3]}"),
]


def vision(name: str) -> str:
    return "vision" if name == "video" else name


def build(fixture: Fixture) -> lf_dnn.Model:
    c = fixture.config
    text, audio, video = c["hidden_dims"]
    params = lf_dnn.Params(
        text_hidden=text, audio_hidden=audio, vision_hidden=video, text_out=c["text_out"],
        post_fusion=c["post_fusion_dim"], audio_dropout=0.0, vision_dropout=0.0, post_dropout=0.0,
    )
    return lf_dnn.Model(params, fixture.inputs("text"))


REFERENCES = {"lf_dnn": Reference(build, [*FEATURE_NETS, (r"post_fusion_layer_(\d)\.(\w+)", r"post\1.\2")])}
