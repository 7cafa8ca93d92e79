"""Mutated files of every format: refused in one line, read, or warned of; benchmarks/fuzz.py does the same at length."""

import pytest

from tests.fuzz import seeds
from tests.fuzz.drive import LIMIT_MIB, read_many


@pytest.mark.parametrize("reader", sorted(seeds.PLACES))
def test_no_file_ends_in_a_traceback_a_hang_or_silence(reader):
    found = read_many(reader, first=0, n=40)
    assert not found["bad"] and found["peak_mib"] < LIMIT_MIB + 500  # of the whole test process
    assert found.get("refused", 0) >= 5 and found.get("read", 0) + found.get("warned", 0) >= 1
