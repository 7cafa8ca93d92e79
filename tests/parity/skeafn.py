"""SKEAFN: its network and knowledge graph; the words come with the fixture."""

import torch
from torch.nn import functional as F

from bench.models import skeafn
from tests.parity.harness import Fixture, Reference

M = {"text.1": "text", "acoustic": "audio", "visual": "vision", "at": "audio", "vt": "vision"}
ME = r"me_(text\.1|acoustic|visual)\."
TGI = r"tgi_(at|vt)\.encoder\.encoder\.layer_(\d)\.layer\."
RULES = [
    (ME + r"rnn\.(\w+)", lambda m: f"recurrent.{M[m[1]]}.lstm.{m[2]}"),
    (ME + r"layer_norm\.(\w+)", lambda m: f"recurrent.{M[m[1]]}.norm.{m[2]}"),
    (r"me_text\.1\.linear_1\.(\w+)", r"recurrent.text.vector.\1"),
    (ME + r"linear_2\.(\w+)", lambda m: f"recurrent.{M[m[1]]}.out.{m[2]}"),
    (r"eke\.node_eta", "knowledge.eta"),
    (r"eke\.node_hidden\.weight", "knowledge.node"),
    (r"eke\.edge_hidden\.weight", "knowledge.edge"),
    (r"eke\.embedding_layer1\.(\w+)", r"knowledge.out.\1"),
    (r"tgi_(at|vt)\.pos_emb\.emb\.weight", lambda m: f"interaction.{M[m[1]]}.positions"),
    (TGI + r"att\.(.+)", lambda m: f"interaction.{M[m[1]]}.attention.{m[2]}.{m[3]}"),
    (TGI + r"add([12])\.ln\.(\w+)", lambda m: f"interaction.{M[m[1]]}.norms.{m[2]}.{int(m[3]) - 1}.{m[4]}"),
    (TGI + r"feed\.fc([12])\.(\w+)", lambda m: f"interaction.{M[m[1]]}.feed_forward.{m[2]}.{2 * int(m[3]) - 2}.{m[4]}"),
    (r"fafw\.fc([12])\.weight", lambda m: f"{'squeeze' if m[1] == '1' else 'excite'}.weight"),
    (r"classifier\.fc_layer_(\d)\.(\w+)", lambda m: f"head.{int(m[1]) - 1}.{m[2]}"),
]
UNUSED = {r"me_(acoustic|visual)\.linear_1\..*": "vectors that nothing reads"}


def build(fixture: Fixture) -> skeafn.Model:
    c = fixture.config
    params = skeafn.Params(
        encoder="none", d=c["d"], text_hidden=c["text_hidden_size"], audio_hidden=c["audio_hidden_size"],
        vision_hidden=c["vision_hidden_size"], heads=c["heads"], layers=c["layers"], feed_forward=c["inner"], dropout=0.0,
    )
    edges = F.pad(torch.tensor(c["edge_matrix"]), (1, 0, 1, 0))
    inputs = fixture.inputs()
    return skeafn.Model(params, inputs.__class__((c["positions"], inputs.text[1]), inputs.audio, inputs.vision), edges)


def observe(model, batch, fixture):
    encoded = model.encode_hidden(fixture.hidden(batch), batch)
    output = model.fuse(encoded.latents)
    task = F.l1_loss(output.prediction, batch["label"])
    found = {f"latent/{k}": v for k, v in (encoded.latents | encoded.side | output.features).items()}
    return found | {"output/prediction": output.prediction, "loss/task": task, "loss/total": task}


REFERENCES = {"skeafn": Reference(build, RULES, observe, unused=UNUSED)}
