"""The released MS-Mix function, case by case: given its draws, `variant="release"` gives its numbers.

Case 06 (identical rows) is left out: its numbers hang on rounding noise, as the fixture says.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from bench.mixers import msmix, msmix_release

FIXTURES = Path(os.environ.get("BENCH_PARITY_DIR", Path(__file__).parents[1].parent / "shared" / "parity"))
MODALITIES = ("audio", "text", "vision")
THEIRS = {"qkv": "qkv_proj", "head": "output_proj", "norm": "norm1"}
CASES = [i for i in range(12) if i != 6]

pytestmark = pytest.mark.skipif(not (FIXTURES / "msmix.npz").is_file(), reason="no parity fixtures (BENCH_PARITY_DIR)")


def their_name(ours: str) -> str:
    modality, layer, kind = ours.split(".")
    return f"{modality}.{THEIRS[layer]}.{kind}"


@pytest.fixture(scope="module")
def arrays():
    with np.load(FIXTURES / "msmix.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(params=CASES)
def case(request, arrays):
    """(get, settings, latents, targets, mixer) of one case."""
    def get(key):
        return torch.from_numpy(arrays[f"case{request.param:02d}/{key}"])

    latents = {m: get(f"input/{m}").requires_grad_() for m in MODALITIES}
    dims = {m: tuple(v.shape[1:]) for m, v in latents.items()}
    mixer = msmix.Mix(msmix.Params(variant="release", xi2=1.0), dims, label_bound=3.0)
    parameters = {k: torch.from_numpy(arrays[f"param/{their_name(k)}"]) for k in mixer.predictors.state_dict()}
    mixer.predictors.load_state_dict(parameters)
    settings = json.loads(str(arrays["meta"]))["cases"][request.param]
    return get, settings, latents, get("label").squeeze(1), mixer


def blend(case):
    get, _, latents, targets, mixer = case
    return mixer.blend(latents, targets, get("draw/idx1"), get("draw/idx2"), get("draw/lam_base"))


def test_parity_candidate_pairs(case):
    get, settings, latents, _, _ = case
    similarity = msmix.mean_cosine(v.detach().flatten(1) for v in latents.values())
    scaled = msmix_release.scaled_similarity(similarity)
    assert_close(scaled, get("out/similarity"), rtol=1e-5, atol=1e-5)
    ours = msmix_release.candidates(scaled, settings["threshold"], settings["num_mix"])
    theirs = torch.zeros_like(ours)
    theirs[tuple(get("out/valid_pairs").T)] = True
    if scaled.device.type != "cpu":  # among equals (below the diagonal, where the triangle is too small) topk takes others there
        assert ours.sum() == theirs.sum()
        ours, theirs = ours.triu(1), theirs.triu(1)
    assert torch.equal(ours, theirs)


def test_parity_intensities_ratios_and_mixtures(case):
    get, settings, latents, targets, mixer = case
    mixed, intensities = blend(case), mixer.intensities(latents, targets)
    rtol = 1e-3 if settings["kind"] == "3d" else 1e-5  # signed weights may sum to almost nothing
    for m in MODALITIES:
        assert_close(intensities[m], get(f"out/intensity_{m}"), rtol=1e-5, atol=1e-5)
        assert_close(mixed.ratios[m], get(f"out/lam_{m}"), rtol=rtol, atol=1e-5)
        assert_close(torch.cat([latents[m], mixed.latents[m]]), get(f"out/combined_{m}"), rtol=rtol, atol=1e-5)
    assert_close(mixed.ratios["label"], get("out/lam_label"), rtol=rtol, atol=1e-5)
    assert_close(torch.cat([targets, mixed.targets]), get("out/combined_label").squeeze(1), rtol=rtol, atol=1e-5)
    assert_close(mixed.losses["alignment"], get("out/kl"), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("what", ["kl", "probe"])
def test_parity_gradients(case, what):
    get, settings, latents, targets, mixer = case
    mixed = blend(case)
    if what == "kl":
        scalar = mixed.losses["alignment"]
    else:
        both = [torch.cat([latents[m], mixed.latents[m]]) for m in MODALITIES] + [torch.cat([targets, mixed.targets])]
        scalar = sum(x.square().mean() for x in both)
    scalar.backward()
    found = {f"feature.{m}": v.grad for m, v in latents.items()}
    found |= {their_name(k): v.grad for k, v in mixer.predictors.named_parameters()}
    for name, gradient in found.items():
        norm = torch.zeros(()) if gradient is None else gradient.norm()
        theirs = get(f"gradnorm_{what}/{name}").to(norm.dtype)
        rtol = 1e-3 if settings["kind"] == "3d" else 1e-4
        assert_close(norm, theirs, rtol=rtol, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
