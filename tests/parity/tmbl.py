"""TMBL along the batch: full batches, one with an odd and one with an even number of rows less, dropout by given masks."""

from torch import nn
from torch.nn import functional as F

from bench.models import tmbl
from tests.parity.harness import Fixture, Reference, assert_close

M = {"t": "text", "v": "vision", "a": "audio"}
MAT = {"w_q": "query", "w_k": "key", "w_v": "value", "fc": "out", "keep_q_k": "mix", "layer_norm": "norm"}
FFN = {"w_1": "enter", "up_dim": "up", "keep_dim": "keep", "w_2": "leave", "layer_norm": "norm"}
SHARED = ("text", "vision", "audio")


def private(m) -> tuple[str, str]:
    """Transformer and stream of a private state name: groups 1 and 2."""
    name = M[m[1]]
    return name, tmbl.PAIRS[name][int(m[2]) - 1]


RULES = [
    ("cls_token", "class_token"), ("pos_embed", "positions"),
    (r"([va])rnn(\d)\.(\w+_l0)_reverse", lambda m: f"utterances.{M[m[1]]}.{layer(m[2])}.backward_lstm.{m[3]}"),
    (r"([va])rnn(\d)\.(\w+_l0)", lambda m: f"utterances.{M[m[1]]}.{layer(m[2])}.forward_lstm.{m[3]}"),
    (r"([va])layer_norm\.(\w+)", lambda m: f"utterances.{M[m[1]]}.norm.{m[2]}"),
    (r"project_([tva])\.project_[tva]\.(\w+)", lambda m: f"project.{M[m[1]]}.0.{m[2]}"),
    (r"project_([tva])\.project_[tva]_layer_norm\.(\w+)", lambda m: f"project.{M[m[1]]}.2.{m[2]}"),
    (r"tf_encoder_private_([tva])\.position_enc([12])\.pos_table", lambda m: "private.{}.enter.{}.positions".format(*private(m))),
    (r"tf_encoder_private_([tva])\.layer_norm([12])\.(\w+)", lambda m: "private.{}.enter.{}.norm.".format(*private(m)) + m[3]),
    (
        r"tf_encoder_private_([tva])\.layer_stack([12])\.(\d)\.slf_attn_sa\.(\w+)\.(\w+)",
        lambda m: "private.{}.layers.{}.".format(*private(m)) + f"{m[3]}.attention.{MAT[m[4]]}.{m[5]}",
    ),
    (
        r"tf_encoder_private_([tva])\.layer_stack([12])\.(\d)\.pos_ffn\.(\w+)\.(\w+)",
        lambda m: "private.{}.layers.{}.".format(*private(m)) + f"{m[3]}.feed_forward.{FFN[m[4]]}.{m[5]}",
    ),
    (r"tf_encoder_share\.position_enc(\d)\.pos_table", lambda m: f"shared.enter.{SHARED[int(m[1]) - 1]}.positions"),
    (r"tf_encoder_share\.layer_norm(\d)\.(\w+)", lambda m: f"shared.enter.{SHARED[int(m[1]) - 1]}.norm.{m[2]}"),
    (
        r"tf_encoder_share\.layer_stack3_(\d)\.(\d)\.slf_attn\.(\w+)\.(\w+)",
        lambda m: f"shared.layers.{m[2]}.{SHARED[int(m[1]) - 1]}.attention.{MAT[m[3]]}.{m[4]}",
    ),
    (
        r"tf_encoder_share\.layer_stack3_(\d)\.(\d)\.pos_ffn\.(\w+)\.(\w+)",
        lambda m: f"shared.layers.{m[2]}.{SHARED[int(m[1]) - 1]}.feed_forward.{FFN[m[3]]}.{m[4]}",
    ),
    (r"fc_([tva])\.(\w+)", lambda m: f"to_private.{M[m[1]]}.{m[2]}"),
    (r"fusion3\.([025])\.(\w+)", lambda m: f"convolutions.{'025'.index(m[1])}.{m[2]}"),
]
UNUSED = {
    r"tlayer_norm\..+": "never called", r"batchnorm\..+": "never called", r"MLP_Communicator\d\..+": "never called",
    r"tf_encoder_private_.\.(position_enc3|layer_norm3|layer_stack3_\d)\..+": "there is no third stream",
    r"tf_encoder_private_.\.layer_stack[12]\.\d\.slf_attn\..+": "key equals value: self-attention instead",
    r"tf_encoder_share\.layer_stack[12]\..+": "of two streams",
    r"tf_encoder_share\.layer_stack3_\d\.\d\.slf_attn_sa\..+": "key differs from value",
}


def layer(number: str) -> str:
    return {"1": "first", "2": "second"}[number]


def build(fixture: Fixture) -> tmbl.Model:
    c = fixture.config
    params = tmbl.Params(
        encoder="none", hidden=c["hidden_size"], layers=c["layers"], inner=c["d_inner"], heads=c["n_head"], k=c["d_k"],
        out=c["d_out"], dropout=0.0, along="batch", batch_size=c["batch_size"],
    )
    model = tmbl.Model(params, fixture.inputs())
    for name, pair in tmbl.PAIRS.items():  # loading overwrites them
        for i, m in enumerate(pair, 1):
            table = fixture.tensor(f"param/tf_encoder_private_{name[0]}.position_enc{i}.pos_table")[0]
            assert_close("positions", model.private[name].enter[m].positions, table.numpy(), 1e-6)
    return model


class Kept(nn.Module):
    """Input dropout of one half by a given mask."""

    def __init__(self, mask) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, x):
        return x * self.mask * 2


def observe(model, batch, fixture, rows=None, diff=False):
    batch = {k: v[:rows] for k, v in batch.items() if not k.startswith(("unit_", "keep_"))}
    batch |= {f"{m}_lengths": batch["lengths"] for m in ("audio", "vision")}
    encoded = model.encode_hidden(fixture.hidden(batch), batch)
    output = model.fuse(encoded.latents)
    terms = model.terms({k: v for k, v in output.features.items() if k.startswith(("private", "shared"))})
    task = F.mse_loss(output.prediction, batch["label"])
    losses = model.aux_losses(batch, encoded, output)
    found = {f"latent/{k}": v for k, v in (encoded.latents | output.features).items()} | {f"loss/{k}": v for k, v in terms.items()}
    # without dropout a private part's copies are equal and their centred difference is rounding: diff is not in the total
    total = task + losses["sim"] + (losses["diff"] if diff else 0.0)
    return found | {"output/prediction": output.prediction, "loss/task": task, "loss/total": total}


def train(model, batch, fixture):
    for name, pair in tmbl.PAIRS.items():
        for i, m in enumerate(pair, 1):
            model.private[name].enter[m].drop = Kept(batch[f"keep_private_{name}_{i}"])
    return observe(model.train(), batch, fixture, diff=True)


def unit(model, batch, fixture):
    parts = {k.removeprefix("unit_"): v.transpose(0, 1) for k, v in batch.items() if k.startswith("unit_")}
    return {f"loss/{k}": v for k, v in model.terms(parts).items()}


RUNS = {
    "train": train, "unit": unit, "last": lambda m, b, f: observe(m, b, f, f.config["batch_size"] - 1),
    "short": lambda m, b, f: observe(m, b, f, f.config["batch_size"] - 2),
}
REFERENCES = {"tmbl": Reference(build, RULES, observe, RUNS, UNUSED)}
