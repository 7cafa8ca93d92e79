"""Keep freed memory in the process: a training step on CPU frees and asks for the same tensors again and again."""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc, malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc neither to map large blocks one by one nor to return freed ones: without it every large tensor costs
    page faults at each step (measured: benchmarks/cpu_step.json). Changes no number. False where there is no glibc."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        return all(libc.mallopt(k, v) for k, v in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 1 << 28)))
    except (OSError, AttributeError):
        return False
