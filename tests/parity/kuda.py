"""KuDA: the training path with its label-dependent ratios, the evaluation path, and the three preparations."""

from torch.nn import functional as F

from bench.models import kuda
from bench.models.parts.text import Hidden
from tests.parity.harness import Fixture, Reference

M = {"t": "text", "v": "vision", "a": "audio"}
TO = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "out"}
RULES = [
    (r"UniEncKI\.enc_([tva])\.encoder\.adapters\.(\d)\.(up|down)_project\.(\w+)", lambda m: f"unimodal.{M[m[1]]}.adapters.{m[2]}.{m[3]}.{m[4]}"),
    (r"UniEncKI\.enc_([tva])\.encoder\.adapters\.(\d)\.tfencoder\.(.+)", lambda m: f"unimodal.{M[m[1]]}.adapters.{m[2]}.{m[3]}"),
    (r"UniEncKI\.enc_([tva])\.encoder\.layernorm\.(\w+)", lambda m: f"unimodal.{M[m[1]]}.norm.{m[2]}"),
    (r"UniEncKI\.enc_([tva])\.decoder\.MLP\.(.+)", lambda m: f"unimodal.{M[m[1]]}.decoder.{m[2]}"),
    (r"UniEncKI\.enc_([va])\.encoder\.tfencoder\.pos_encoder\.position_embeddings", lambda m: f"sequences.{M[m[1]]}.positions"),
    (r"UniEncKI\.enc_([va])\.encoder\.tfencoder\.pos_encoder\.proj\.(\w+)", lambda m: f"sequences.{M[m[1]]}.project.{m[2]}"),
    (r"UniEncKI\.enc_([va])\.encoder\.tfencoder\.tfencoder\.(.+)", lambda m: f"sequences.{M[m[1]]}.{m[2]}"),
    (r"DyMultiFus\.(len|dim)_([tva])\.(\w+)", lambda m: f"to_{dict(len='length', dim='width')[m[1]]}.{M[m[2]]}.{m[3]}"),
    (r"CLS\.cls_layer\.(.+)", r"head.\1"),
    (
        r"DyMultiFus\.dec_list\.(\d)\.mhatt1\.f_([tva])\.cross_attn\.(to_[qkv]|to_out\.0)\.(\w+)",
        lambda m: f"blocks.{m[1]}.cross.{M[m[2]]}.attention.{TO[m[3]]}.{m[4]}",
    ),
    (r"DyMultiFus\.dec_list\.(\d)\.mhatt1\.f_([tva])\.layernorm1\.(\w+)", lambda m: f"blocks.{m[1]}.cross.{M[m[2]]}.norm.{m[3]}"),
    (r"DyMultiFus\.dec_list\.(\d)\.mhatt1\.f_([tva])\.layernorm2\.(\w+)", lambda m: f"blocks.{m[1]}.cross.{M[m[2]]}.feed_forward.norm.{m[3]}"),
    (r"DyMultiFus\.dec_list\.(\d)\.mhatt1\.f_([tva])\.ffn\.(.+)", lambda m: f"blocks.{m[1]}.cross.{M[m[2]]}.feed_forward.{inner(m[3])}"),
    (r"DyMultiFus\.dec_list\.(\d)\.mhatt1\.layernorm_([tva])\.(\w+)", lambda m: f"blocks.{m[1]}.norm_each.{M[m[2]]}.{m[3]}"),
    (r"DyMultiFus\.dec_list\.(\d)\.mhatt1\.layernorm\.(\w+)", r"blocks.\1.norm_all.\2"),
    (r"DyMultiFus\.dec_list\.(\d)\.mhatt2\.(to_[qkv]|to_out\.0)\.(\w+)", lambda m: f"blocks.{m[1]}.attention.{TO[m[2]]}.{m[3]}"),
    (r"DyMultiFus\.dec_list\.(\d)\.ffn\.(.+)", lambda m: f"blocks.{m[1]}.feed_forward.{inner(m[2])}"),
    (r"DyMultiFus\.dec_list\.(\d)\.norm([123])\.(\w+)", lambda m: f"blocks.{m[1]}.{('norm_cross', 'norm_self', 'feed_forward.norm')[int(m[2]) - 1]}.{m[3]}"),
]


def inner(name: str) -> str:
    return name.replace("net.0", "up").replace("net.3", "down").replace("norm", "inner")


def build(fixture: Fixture) -> kuda.Model:
    c = fixture.config
    params = kuda.Params(
        encoder="none", width=c["d"], heads=c["num_heads"], dropout=0.0, adapter_heads=c["adapter_heads"],
        adapter_dropout=0.0, fusion_heads=c["fusion_heads"], fusion_head_width=c["fusion_dim_head"],
        feed_forward=c["ff"], cross_dropout=0.0, head=(c["cls1"], c["cls2"]), routing="release",
    )
    return kuda.Model(params, fixture.inputs())


def hidden(batch):
    last = batch["text_hidden"]
    known = [batch.get(f"text_hidden_{i}", last) for i in range(13)]
    return Hidden(last, last, batch["text_mask"], None, tuple(known))


def lengths(batch):
    return batch | {f"{m}_lengths": batch[f"{m}_mask"].sum(1).long() for m in ("audio", "vision")}


def observe(model, batch, fixture, training=True):
    model.train(training)
    encoded = model.encode_hidden(hidden(batch), lengths(batch))
    output = model.fuse(encoded.latents)
    task = F.mse_loss(output.prediction, batch["label"])
    found = {f"latent/{k}": v for k, v in (encoded.latents | output.features).items()}
    found |= {f"latent/{k}" if k.startswith("enc") else f"output/{k}": v for k, v in encoded.side.items()}
    found |= {"output/prediction": output.prediction, "loss/task": task}
    nce = model.aux_losses(batch, encoded, output)["nce"]
    if not training:
        return found | {"loss/nce": nce / model.params.lambda_nce, "loss/total": task}
    found |= {f"output/ratio_{m}": encoded.latents["ratio"][:, i] for i, m in enumerate(kuda.MODALITIES)}
    # what the second stage leaves alone
    for group in model.groups():
        for q in group.params:
            q.requires_grad_(group.name != "adapter")
    return found | {"loss/nce": nce / model.params.lambda_nce, "loss/total": task + nce}


def prepared(modality):
    def look(model, batch, fixture):
        u, y = model.unimodals(hidden(batch), lengths(batch))[modality]
        return {
            f"latent/{modality}": u, "output/prediction": y,
            "loss/total": model.prepare(hidden(batch), lengths(batch), (modality,))[modality],
        }

    return look


RUNS = {"eval": lambda m, b, f: observe(m, b, f, False), **{f"pretrain_{m}": prepared(m) for m in kuda.MODALITIES}}
REFERENCES = {"kuda": Reference(build, RULES, observe, RUNS)}
