"""The self-test that `bench doctor` runs on every GPU: its code, on the CPU."""

from dataclasses import replace

import pytest
import torch

from bench import selftest


def test_a_device_that_repeats_itself_is_well(monkeypatch):
    monkeypatch.setattr(selftest, "CELLS", selftest.CELLS[:1])
    (found,) = selftest.check("cpu", epochs=2)
    assert found.well and found.what == "LMF" and "the same numbers" in found.line and "steps/s" in found.line


def test_one_that_does_not_is_named(monkeypatch):
    monkeypatch.setattr(selftest, "CELLS", selftest.CELLS[:1])
    real = selftest.train

    def other(job, device, engine):
        found = real(job, device, engine)
        if engine == "auto":
            found = replace(found, weights={k: v + 1 for k, v in found.weights.items()})
        return found

    monkeypatch.setattr(selftest, "train", other)
    (found,) = selftest.check("cpu", epochs=1)
    assert not found.well and "OTHER NUMBERS" in found.line


def test_an_undefined_correlation_is_no_difference():
    """A model that predicts a constant after an epoch has none."""
    one, two = (selftest.Trained({"w": torch.ones(1)}, [{"epoch": 1, "valid_corr": float("nan")}], None, 0.0) for _ in range(2))
    assert selftest.same(one, two)
    assert not selftest.same(one, replace(two, history=[{"epoch": 1, "valid_corr": 0.5}]))


def test_what_fails_on_a_device_is_a_line(monkeypatch):
    def broken(job, device, engine):
        raise RuntimeError("CUDA error: no kernel image\nmore")

    monkeypatch.setattr(selftest, "train", broken)
    found = selftest.check("cpu")
    assert [f.line for f in found] == ["RuntimeError: CUDA error: no kernel image"] * 2 and not any(f.well for f in found)


@pytest.mark.parametrize(("device", "name", "graphs"), [("cpu", "auto", False), ("cpu", "eager", False)])
def test_engine_of_a_cpu_is_eager(device, name, graphs):
    from bench.errors import BenchError
    from bench.train.engine import choose

    assert choose(name, device).graphs is graphs
    with pytest.raises(BenchError, match="needs a CUDA GPU"):
        choose("graph", torch.device("cpu"))
    with pytest.raises(BenchError, match="unknown engine"):
        choose("fast", "cpu")
