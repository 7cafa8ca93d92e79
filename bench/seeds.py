"""Named random streams.

A stream's seed is a hash of (dataset, backbone, seed, purpose), never of the method: two mixers under one seed start
from the same weights and see the same batches, so that comparisons between methods are paired. The purposes in SHARED
leave the backbone out too: two systems under one seed see the same corruption.
"""

import hashlib

import numpy as np

FIELD_SEEDS = (1111, 1112, 1113, 1114, 1115)  # the field's five seeds (M-SENA)
MOST_SEEDS = 1000  # more than anybody trains

PURPOSES = ("split", "init", "order", "dropout", "corruption", "mixing", "mixer-init", "fraction", "tuning")
SHARED = ("corruption",)  # drawn alike for all backbones


def stream_seed(dataset: str, backbone: str, seed: int, purpose: str) -> int:
    """A 63-bit seed for one purpose. Raises ValueError for a purpose that is not declared in PURPOSES."""
    if purpose not in PURPOSES:
        raise ValueError(f"unknown random stream '{purpose}'")
    backbone = "" if purpose in SHARED else backbone
    digest = hashlib.sha256(f"{dataset}|{backbone}|{seed}|{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_stream(dataset: str, backbone: str, seed: int, purpose: str) -> np.random.Generator:
    """A fresh numpy generator for one purpose."""
    return np.random.default_rng(stream_seed(dataset, backbone, seed, purpose))
