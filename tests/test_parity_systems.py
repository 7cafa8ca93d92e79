"""Parity of every system in tests/parity/ with its reference: values, latents, losses, gradients, stages, two precisions.

Fixtures lie in the folder BENCH_PARITY_DIR, or shared/parity beside the repository. tests/parity/harness.py describes
their layout and what a new system has to add.
"""

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.on_device import loose
from tests.parity.harness import Fixture, all_references, assert_close, assert_gradients, compare, reference_of

FOLDER = Path(os.environ.get("BENCH_PARITY_DIR") or Path(__file__).parents[1].parent / "shared" / "parity")
KNOWN = all_references()
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@lru_cache(maxsize=None)
def read(path):
    return Fixture(path)


def name_of(path):
    with np.load(path, allow_pickle=False) as file:
        return Fixture(path).name if "meta" in file.files else ""


FILES = [f for f in sorted(FOLDER.glob("*.npz")) if reference_of(name_of(f), KNOWN)]
pytestmark = pytest.mark.skipif(not FILES, reason=f"no parity fixtures in {FOLDER}; set BENCH_PARITY_DIR")


def runs_of(path):
    """Main run and the others, in either precision, where the fixture has numbers."""
    fixture, reference = read(path), reference_of(read(path).name, KNOWN)
    runs = ["", *(r for r in fixture.runs() if r not in reference.checks)]
    return [(path, r, d) for r in runs for d in DTYPES if fixture.expected(r, DTYPES[d])]


@pytest.mark.parametrize(
    ("path", "run", "dtype"), [case for f in FILES for case in runs_of(f)],
    ids=lambda v: v.stem if isinstance(v, Path) else v or "main",
)
def test_parity(path, run, dtype):
    fixture = read(path)
    assert compare(reference_of(fixture.name, KNOWN), fixture, run, DTYPES[dtype]) > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("path", "check"), [
    (f, c) for f in FILES for c in reference_of(read(f).name, KNOWN).checks if c in read(f).runs()
], ids=lambda v: v.stem if isinstance(v, Path) else v)
def test_parity_of_sequences_and_tables(path, check, dtype):
    fixture = read(path)
    reference = reference_of(fixture.name, KNOWN)
    reference.checks[check](reference.loaded(fixture, DTYPES[dtype]), fixture, DTYPES[dtype])


@pytest.mark.parametrize("path", FILES, ids=lambda f: f.stem)
def test_parity_notices_a_changed_parameter(path):
    """The comparison can fail: the parameter with the largest gradient, one per cent larger, fits no longer."""
    fixture = read(path)
    reference = reference_of(fixture.name, KNOWN)
    model = reference.loaded(fixture, torch.float32)  # places may depend on its sizes
    norms = {k: float(v) for k, v in fixture.group("gradnorm/").items() if reference.place(k)}
    own, index = reference.place(max(norms, key=norms.get))
    with torch.no_grad():
        model.state_dict()[own][index].mul_(1.01)
    found = reference.observe(model, fixture.batch(torch.float32), fixture)
    found["loss/total"].backward()
    with pytest.raises(AssertionError):
        assert_close("loss", found["loss/total"], fixture.arrays["loss/total"], loose(1e-5))
        assert_gradients(model, reference, fixture.group("gradnorm/"), loose(1e-4))


def test_every_entry_that_is_left_out_exists():
    """`apart`, `unused`, `runs` and `checks` name what the fixtures have; a slip of the pen would hide a comparison."""
    import re

    for path in FILES:
        fixture, reference = read(path), reference_of(read(path).name, KNOWN)
        same = [f for f in FILES if reference_of(read(f).name, KNOWN) is reference]
        params = {k for f in same for k in read(f).group("param/")}
        entries = {k.removeprefix("f64/") for f in same for k in read(f).arrays}
        runs = {r for f in same for r in read(f).runs()}
        for pattern in reference.unused:
            assert any(re.fullmatch(pattern, k) for k in params), f"{fixture.name}: nothing is called {pattern}"
        for pattern in reference.apart:
            assert any(re.fullmatch(pattern, k) for k in entries), f"{fixture.name}: nothing is called {pattern}"
        assert {*reference.runs, *reference.checks} <= runs, fixture.name
