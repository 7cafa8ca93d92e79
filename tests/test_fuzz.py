"""Mutated files of every format: refused in one line, read, or warned of; benchmarks/fuzz.py does the same at length."""

import pytest

from tests.fuzz import seeds
from tests.fuzz.drive import LIMIT_MIB, read_many


@pytest.mark.parametrize("reader", sorted(seeds.PLACES))
def test_no_file_ends_in_a_traceback_a_hang_or_silence(reader):
    found = read_many(reader, first=0, n=40)
    assert not found["bad"] and found["grown_mib"] < LIMIT_MIB
    assert found.get("refused", 0) >= 5 and found.get("read", 0) + found.get("warned", 0) >= 1


@pytest.mark.parametrize(
    ("reader", "change", "silence"),
    [
        ("aligned", lambda m: m.setattr("bench.data.reader.HUGE", float("inf")), "huge"),
        ("unaligned", lambda m: m.setattr("bench.encoders._VOCABULARY_SIZES", {}), "token beyond the vocabulary"),
        ("word", lambda m: m.setattr("bench.data.word.as_id", str), "id "),
    ],
)
def test_the_check_sees_what_a_careless_reader_would_let_through(reader, change, silence, monkeypatch):
    change(monkeypatch)
    assert any(silence in b["detail"] for b in read_many(reader, first=0, n=150)["bad"])
