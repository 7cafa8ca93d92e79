"""A small soak (benchmarks/soak.py has the large one): random kills of two launchers lose nothing and leave nothing."""

import random
import time

import pytest

from benchmarks.soak import Soak


@pytest.mark.slow
def test_random_kills_lose_nothing(tmp_path):
    soak = Soak(tmp_path, only="synthetic-mosi/lmf+*mix*", seeds=2)
    soak.undisturbed(None)
    assert len(soak.reference) >= 8
    # jobs may all end before three kills have come, however short the pauses: then another folder is begun
    for folders in soak.rounds_of(4, random.Random(0), (0.0, 1.0), time.monotonic() + 300):
        left = soak.left(*folders)
        assert left == {"processes": [], "temporary_files": [], "failed_jobs": []}, left
    assert sum(soak.kills.values()) >= 3 and soak.looks >= 6
    assert not soak.lost and not soak.changed
