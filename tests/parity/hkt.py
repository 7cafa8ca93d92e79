"""HKT and its stack of cross layers against the release; the unimodal encoders alone too."""

from torch.nn import functional as F

from bench.models import hkt
from tests.parity.harness import Fixture, Reference

STREAM = {"visual": "vision", "acoustic": "audio", "hcf": "hcf"}
_CROSS = {"src_cross_attention": "first", "context_cross_attention": "second", "self_attention": "self_attention"}


def packed(match):
    """A query, key or value map of a unimodal layer -> its rows of the packed one."""
    stream, layer, kind, part = STREAM[match[1]], match[2], match[3], match[4]
    return f"streams.{stream}.layers.{layer}.qkv.{part}", (_rows(kind, WIDTHS[stream]),)


def _rows(kind: str, d: int) -> slice:
    i = ("query", "key", "value").index(kind)
    return slice(i * d, (i + 1) * d)


WIDTHS: dict[str, int] = {}


def build(fixture: Fixture) -> hkt.Model:
    c = fixture.config
    WIDTHS.update({m: c[f"{m}_dim"] for m in hkt.STREAMS})
    params = hkt.Params(
        encoder="none", layers=tuple(c[f"{m}_layers"] for m in hkt.STREAMS),
        heads=tuple(c[f"{m}_heads"] for m in hkt.STREAMS), feed_forward=tuple(c[f"{m}_ff"] for m in hkt.STREAMS),
        positions=c["max_positions"], stream_dropout=0.0, dropout=0.0, cross_layers=c.get("cross_n_layers", 1),
        cross_heads=c["cross_n_heads"], fusion=c["fusion_dim"],
    )
    return hkt.Model(params, fixture.inputs(hcf=fixture.arrays["input/hcf"].shape[1:], task="binary"))


def observe(model: hkt.Model, batch, fixture: Fixture) -> dict:
    encoded = model.encode_hidden(fixture.hidden(batch), batch)
    output = model.fuse(encoded.latents)
    task = F.binary_cross_entropy_with_logits(output.prediction, batch["label"])
    found = {f"latent/{k}": v for k, v in {**encoded.side, **output.features, **encoded.latents}.items()}
    found |= {"output/prediction": output.prediction, "output/probability": output.prediction.sigmoid()}
    return found | {"loss/task": task, "loss/total": task}


def alone(stream: str):
    def observe_alone(model: hkt.Model, batch, fixture: Fixture) -> dict:
        return {"output/prediction": model.logit_alone(stream, batch), "loss/total": model.alone_losses(batch)[stream]}

    return observe_alone


RULES = [
    (r"(visual|acoustic|hcf)_model\.pos_encoder\.weight", lambda m: f"streams.{STREAM[m[1]]}.positions"),
    (r"(visual|acoustic|hcf)_model\.norm\.(\w+)", lambda m: f"streams.{STREAM[m[1]]}.norm.{m[2]}"),
    (r"(visual|acoustic|hcf)_model\.decoder\.(\w+)", lambda m: f"alone.{STREAM[m[1]]}.{m[2]}"),
    (r"(visual|acoustic|hcf)_model\.encoder\.layers\.(\d+)\.self_attention\.(query|key|value)\.(\w+)", packed),
    (
        r"(visual|acoustic|hcf)_model\.encoder\.layers\.(\d+)\.fc\.(\d)\.(\w+)",
        lambda m: f"streams.{STREAM[m[1]]}.layers.{m[2]}.{'up' if m[3] == '0' else 'down'}.{m[4]}",
    ),
    (
        r"(visual|acoustic|hcf)_model\.encoder\.layers\.(\d+)\.norm(\d)\.(\w+)",
        lambda m: f"streams.{STREAM[m[1]]}.layers.{m[2]}.{'attention' if m[3] == '1' else 'feed_forward'}_norm.{m[4]}",
    ),
    (
        r"L_AV\.(?:layers\.(\d+)\.)?(\w+_attention)\.(\w+)\.(\w+)",
        lambda m: f"cross.{m[1] or 0}.{_CROSS[m[2]]}.{m[3]}.{m[4]}",
    ),
    (r"L_AV\.(?:layers\.(\d+)\.)?fc\.0\.(\w+)", lambda m: f"cross.{m[1] or 0}.linear.{m[2]}"),
    (r"L_AV\.(?:layers\.(\d+)\.)?(norm\d)\.(\w+)", lambda m: f"cross.{m[1] or 0}.{m[2]}.{m[3]}"),
    (r"fc\.(\d)\.(\w+)", r"head.\1.\2"),
]
REFERENCES = {
    "hkt": Reference(build, RULES, observe, runs={
        "pretrain_vision": alone("vision"), "pretrain_audio": alone("audio"), "pretrain_hcf": alone("hcf")}),
    "hkt_multi": Reference(build, RULES, observe),
}
