"""Parity with the reference implementations: same parameters and inputs, same numbers, on stored fixtures.

Fixtures lie in the folder BENCH_PARITY_DIR, or shared/parity beside the repository; every size is read from the
fixture itself, so that another file of the same layout is picked up by being there. tests/parity_maps.py says how a
model lines up with its reference.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.on_device import loose
from tests.parity_maps import REFERENCES, Fixture, load_reference, slots_of

FOLDER = Path(os.environ.get("BENCH_PARITY_DIR") or Path(__file__).parents[1].parent / "shared" / "parity")
FILES = sorted(f for name in REFERENCES for f in FOLDER.glob(f"{name}*.npz"))
DTYPES = {"float32": torch.float32, "float64": torch.float64}

pytestmark = pytest.mark.skipif(not FILES, reason=f"no parity fixtures in {FOLDER}; set BENCH_PARITY_DIR")


@pytest.fixture(params=FILES, ids=lambda f: f.stem)
def fixture(request):
    found = Fixture(request.param)
    if found.model not in REFERENCES:
        pytest.skip(f"tests/parity_maps.py has no entry for {found.model}")
    return found


def loaded(fixture, dtype):
    """The model with the reference's parameters, and the batch."""
    reference = REFERENCES[fixture.model]
    model = reference.build(fixture)
    load_reference(model, fixture.group("param/"))
    return model.to(dtype).eval(), reference.batch(fixture, dtype)


def assert_close(name, ours, theirs, rtol):
    """Relative to the largest entry of the array."""
    ours = ours.detach().double().numpy()
    theirs = np.asarray(theirs, dtype=np.float64).reshape(ours.shape)
    scale = max(np.abs(theirs).max(), 1e-3)
    assert np.abs(ours - theirs).max() <= rtol * scale, f"{name}: {np.abs(ours - theirs).max() / scale:.2e} relative"


def assert_gradients(model, norms, rtol):
    """Gradient norm of every reference parameter; a zero in theory may hold rounding of the largest gradient."""
    slots, parameters = slots_of(model), dict(model.named_parameters())
    rounding = rtol * 1e-1 * max(norms.values())
    for name, theirs in norms.items():
        if name in model.unused_reference_parameters():
            assert theirs == 0.0, f"{name} is declared unused but has gradient {theirs}"
            continue
        own, index = slots[name]
        gradient = parameters[own].grad
        ours = 0.0 if gradient is None else float(gradient[index].norm())
        assert abs(ours - theirs) <= rtol * theirs + rounding, f"gradient of {name}: {ours} against {theirs}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_parity(fixture, dtype):
    """Prediction, latents, intermediate latents, losses and all gradient norms, in evaluation mode."""
    reference = REFERENCES[fixture.model]
    prefix, rtol = ("", loose(1e-5)) if dtype == "float32" else ("f64/", reference.double)
    groups = ("latent/", "output/", "loss/")
    expected = {g + k: v for g in groups for k, v in fixture.group(prefix + g).items()}
    if not expected:
        pytest.skip(f"the fixture has no {dtype} values")
    model, batch = loaded(fixture, DTYPES[dtype])
    found = reference.observe(model, batch, fixture)
    for name in expected.keys() - reference.apart.keys():
        assert_close(name, found[name], expected[name], rtol)
    found["loss/total"].backward()
    assert_gradients(model, {k: float(v) for k, v in fixture.group(f"{prefix}gradnorm/").items()}, rtol)


def test_parity_training_mode(fixture):
    """With dropout 0: batch statistics, loss, gradients, and the buffers after the step."""
    expected = fixture.group("train/")
    if not expected:
        pytest.skip("the fixture has no training-mode values")
    model, batch = loaded(fixture, torch.float32)
    found = REFERENCES[fixture.model].observe(model.train(), batch, fixture)
    assert_close("prediction", found["output/prediction"], expected["prediction"], loose(1e-5))
    assert_close("loss", found["loss/total"], expected["loss"], loose(1e-5))
    found["loss/total"].backward()
    assert_gradients(model, {k: float(v) for k, v in fixture.group("train/gradnorm/").items()}, loose(1e-5))
    state, slots = model.state_dict(), slots_of(model)
    for name, theirs in fixture.group("train/buffer/").items():
        own, index = slots[name]
        assert_close(name, state[own][index], theirs, loose(1e-6))


def test_parity_notices_a_changed_parameter(fixture):
    """The comparison can fail: one trained tensor, one per cent larger, and the loss or a gradient no longer fits."""
    model, batch = loaded(fixture, torch.float32)
    own, index = slots_of(model)[fixture.meta["trainable"][0]]
    with torch.no_grad():
        model.state_dict()[own][index].mul_(1.01)
    found = REFERENCES[fixture.model].observe(model, batch, fixture)
    found["loss/total"].backward()
    with pytest.raises(AssertionError):
        assert_close("prediction", found["output/prediction"], fixture.arrays["output/prediction"], loose(1e-5))
        assert_gradients(model, {k: float(v) for k, v in fixture.group("gradnorm/").items()}, loose(1e-5))
