"""MCL: the task's and the correlation's loss, each with its gradients, at the same parameters."""

from torch.nn import functional as F

from bench.models import mcl
from tests.parity.harness import Fixture, Reference
from tests.parity.mib import CONSTANT, RULES


def build(fixture: Fixture) -> mcl.Model:
    c = fixture.config
    params = mcl.Params(
        encoder="none", d=c["d_l"], heads=c["num_heads"], layers=c["layers"], alpha=c["alpha"], gamma=c["gamma"],
        ratio=c["ratio"], attn_dropout=0.0, relu_dropout=0.0, res_dropout=0.0, embed_dropout=0.0,
    )
    return mcl.Model(params, fixture.inputs())


def observe(model, batch, fixture):
    encoded = model.encode_hidden(fixture.hidden(batch), batch)
    output = model.fuse(encoded.latents)
    score, target = model.scores(encoded.latents, batch["label"], {m: batch[f"index_{m}"] for m in mcl.ORDER})
    task = F.l1_loss(output.prediction, batch["label"])
    found = {f"latent/{k}": v for k, v in (encoded.latents | output.features).items()}
    return found | {
        "output/prediction": output.prediction, "output/correlation_score": score,
        "output/correlation_target": target, "loss/task": task, "loss/total": task,
        "loss/correlation": F.l1_loss(score, target),
    }


RULES_MCL = [*RULES, (r"classifier\.(\w+)", r"head.\1"), (r"classifier3\.(\w+)", r"correlation_head.\1")]
REFERENCES = {
    "mcl": Reference(
        build, RULES_MCL, observe, unused={**CONSTANT, r"classifier2\..*": "never used"}, double=1e-6,
    ),
}
