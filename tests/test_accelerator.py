"""Nothing of a training step lies on another device than its batch: asked of every backbone, without an accelerator."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden import cells


def steps(*arguments):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-m", "tests.accelerator", *arguments], cwd=Path(__file__).parents[1], env=env,
                          capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return dict(line.split("\t") for line in done.stdout.splitlines())


@pytest.mark.slow
def test_every_step_stays_on_its_device():
    found = steps()
    assert {k.partition("+")[0] for k in found} == {backbone for backbone, _ in cells()}
    assert {k for k in found if k.startswith("lmf+")} == {f"{b}+{m}" for b, m in cells() if b == "lmf"}
    assert not {k: why for k, why in found.items() if why}


def test_a_tensor_made_on_the_host_is_found():
    """A step that adds a tensor of the host to one of the device fails there, though it would pass on a CPU."""
    code = (
        "import torch; from tests import accelerator; from bench.models import lmf; encode = lmf.LMF.encode\n"
        "def wrong(self, batch):\n"
        "    return encode(self, {**batch, 'audio': batch['audio'] + torch.ones(3)[:1]})\n"
        "lmf.LMF.encode = wrong; raise SystemExit(accelerator.main(['lmf']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=300)
    lines = dict(line.split("\t") for line in done.stdout.splitlines())
    assert lines and all("device" in why for why in lines.values()), done.stdout + done.stderr
