"""Where bf16 autocast is worth having: devices that multiply bf16 matrices themselves."""

from functools import lru_cache
from pathlib import Path

import torch


def native_bf16(device: torch.device) -> bool:
    """Whether `device` has bf16 matrix units: CUDA from Ampere on, x86 CPUs with AMX. Elsewhere bf16 is emulated, which
    costs precision and gains nothing, and `amp` trains in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and _has_amx()


@lru_cache
def _has_amx() -> bool:
    try:
        return " amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False
