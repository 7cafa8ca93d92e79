"""CUDA's Multi-Process Service, for as long as a block lasts."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

_ASK = "import torch; print(float((torch.ones(8, device='cuda') * 2).sum()))"


@contextmanager
def mps(wanted: bool = True) -> Iterator[str]:
    """"on" where processes that begin in the block share the GPU through the service, else why they do not. Its daemon
    is this block's own, with folders of its own, and ended with it."""
    if not wanted:
        yield ""
        return
    with tempfile.TemporaryDirectory() as folder:
        names = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        for name in names.values():
            Path(name).mkdir()
        env = {**os.environ, **names}
        try:
            subprocess.run(["nvidia-cuda-mps-control", "-d"], env=env, check=True, timeout=10, capture_output=True)
        except (OSError, subprocess.SubprocessError) as e:
            yield f"its daemon did not start: {type(e).__name__}"
            return
        try:
            state = _asked(env)
            if state == "on":
                os.environ.update(names)
            yield state
        finally:
            for name in names:
                os.environ.pop(name, None)
            with suppress(subprocess.SubprocessError):
                subprocess.run(["nvidia-cuda-mps-control"], input=b"quit\n", env=env, timeout=20, capture_output=True)


def _asked(env: Mapping[str, str]) -> str:
    """"on", or what a client of the service says or does instead of its sum."""
    try:
        asked = subprocess.run([sys.executable, "-c", _ASK], env=env, timeout=40, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        return "a client of it did not answer"
    return "on" if asked.stdout.strip() == "16.0" else asked.stderr.strip()[-200:] or "a client of it said nothing"
