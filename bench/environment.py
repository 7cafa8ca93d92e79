"""Where a number came from: code, library versions, device. Nothing here names a host, a user or a path."""

import hashlib
import os
import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench import EXPERIMENTS

_ROOT = Path(__file__).parent.parent
_DRIVERS = ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/dxg", "/dev/nvhost-gpu")  # Linux, WSL, Jetson


@lru_cache
def code() -> dict[str, Any]:
    """{"commit", "dirty", "code_hash"}: the commit is None outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--", "bench", "experiments")
    return {"commit": commit, "dirty": None if status is None else bool(status), "code_hash": code_hash()}


@lru_cache
def code_hash() -> str:
    """16 hex digits over bench/**/*.py, as the files are now; without the experiments, which lie there when installed."""
    digest = hashlib.sha256()
    for path in sorted(p for p in (_ROOT / "bench").rglob("*.py") if EXPERIMENTS not in p.parents):
        digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _git(*arguments: str) -> str | None:
    if not (_ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def gpus() -> list[int]:
    """Numbers of the usable CUDA GPUs. Does not import torch on a machine that has none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or not any(Path(p).exists() for p in _DRIVERS):
        return []
    import torch

    return list(range(torch.cuda.device_count()))


def device(name: str) -> dict[str, Any]:
    """{"torch", "python", "device", "driver", "cpu_threads"} of a torch device name ("cpu", "cuda", "cuda:0")."""
    import torch

    on_gpu = name.startswith("cuda")
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(name) if on_gpu else f"CPU ({platform.machine()})",
        "driver": torch.version.cuda if on_gpu else None,
        "cpu_threads": torch.get_num_threads(),
    }


def peak_memory_mb(name: str) -> float:
    """Peak memory in MiB: allocated on the GPU, or resident on the CPU since the process began."""
    if name.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(name) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
