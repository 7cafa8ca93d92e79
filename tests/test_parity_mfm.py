"""Parity of MFM with its published implementation, and its memory fusion network's parts."""

import pytest
import torch
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models import mfm
from tests.parity_systems import DTYPES, Case, fixtures

M = {"l": "text", "a": "audio", "v": "vision", "y": "fusion"}
SLOT = {"1": "first", "2": "second"}
INNER = {"att1": "attention", "att2": "candidate", "gamma1": "keep", "gamma2": "write"}
RULES = [
    (r"mfn_encoder\.out_fc.*", lambda m: None),  # the inner network's own output, never used
    (r"(en|de)coder_([lav])\.lstm\.(\w+)", lambda m: f"{m[1]}coders.{M[m[2]]}.{m[3]}_l0"),
    (r"encoder_([lav])\.fc1\.(\w+)", lambda m: f"z_linear.{M[m[1]]}.{m[2]}"),
    (r"decoder_([lav])\.fc1\.(\w+)", lambda m: f"decoded.{M[m[1]]}.{m[2]}"),
    (r"mfn_encoder\.lstm_([lav])\.(\w+)", lambda m: f"memory_fusion.lstm.{M[m[1]]}.{m[2]}_l0"),
    (r"mfn_encoder\.(att1|att2|gamma1|gamma2)_fc(\d)\.(\w+)", lambda m: f"memory_fusion.{INNER[m[1]]}.{SLOT[m[2]]}.{m[3]}"),
    (r"last_to_zy_fc1\.(\w+)", r"z_fusion.\1"),
    (r"z([lavy])_to_f\1_fc(\d)\.(\w+)", lambda m: f"factors.{M[m[1]]}.{SLOT[m[2]]}.{m[3]}"),
    (r"fy_to_y_fc(\d)\.(\w+)", lambda m: f"head.{SLOT[m[1]]}.{m[2]}"),
]


def built(case, **more):
    c = case.config
    sizes = {f"{k}_{M[m]}": c[f"{k}{m}_size"] for k in "zf" for m in M}
    hidden = dict(zip(("text_hidden", "audio_hidden", "vision_hidden"), c["hidden_dims"]))
    inner = zip(("attention", "candidate", "keep", "write"), ("NN1", "NN2", "gamma1", "gamma2"))
    rates = [n for n in mfm.Params.__dataclass_fields__ if n.endswith("dropout")]
    params = mfm.Params(
        **hidden, **sizes, memory=c["memsize"], **{ours: c[f"{k}Config"]["shapes"] for ours, k in inner},
        **dict.fromkeys(rates, 0.0), lambda_mmd=c["lda_mmd"],
        **{f"lambda_{M[m]}": c[f"lda_x{m}"] for m in "lav"}, **more,
    )
    model = mfm.Model(params, case.inputs()).to(case.dtype)
    return model, case.load(model, RULES)


@DTYPES
@fixtures("mfm")
def test_parity_mfm(path, dtype):
    case = Case(path, dtype)
    model, names = built(case)
    batch = case.batch()
    encoded = model.encode(batch)
    output = model.fuse(encoded.latents)
    z, f, decoded = model.generate(encoded.side, output)
    z |= {"fusion": output.features["z_fusion"]}
    terms = model.terms(encoded.side, z, decoded, {m: batch[f"gauss_{m}"] for m in z})
    weighted = model.weighted(terms)
    task = F.l1_loss(output.prediction, batch["label"])
    total = task + sum(weighted.values())
    found = {f"latent/{k}": v for k, v in {**encoded.latents, **output.features}.items()}
    found |= {f"latent/z_{k}": v for k, v in z.items()} | {f"latent/f_{k}": v for k, v in f.items()}
    found |= {f"latent/decoded_{k}": v for k, v in decoded.items()} | {f"loss/{k}": v for k, v in terms.items()}
    found |= {
        "output/prediction": output.prediction, "loss/task": task, "loss/generation": weighted["generation"],
        "loss/total": total,
    }
    case.check(found)
    total.backward()
    case.gradients(names)


def test_discrepancy_of_equal_samples_is_zero_and_the_kernels_differ():
    g = torch.Generator().manual_seed(0)
    z, shifted = torch.randn(8, 6, generator=g), torch.randn(8, 6, generator=g) + 0.5
    assert float(mfm.discrepancy(z, z)) == pytest.approx(0.0, abs=1e-6)
    flat, steep = mfm.discrepancy(z, shifted), mfm.discrepancy(z, shifted, "sum")
    assert 0 < float(flat) < float(steep)
    with pytest.raises(BenchError, match="kernel must be 'mean' or 'sum'"):
        mfm.Params(kernel="rbf")
