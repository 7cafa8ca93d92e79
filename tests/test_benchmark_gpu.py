"""The GPU benchmark runs, tiny, on a CPU: every part but the long ones, so that it cannot rot."""

import json

import pytest

from benchmarks import gpu, gpu_parts


@pytest.mark.slow
def test_every_part_runs_on_a_cpu_and_says_what_it_found(tmp_path, capsys, no_fsync):
    pytest.importorskip("transformers")
    out = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--cells", "lmf+msmix", "--out", str(out), "--minutes", "30"]) == 0, capsys.readouterr().out
    found = json.loads(out.read_text())
    assert all("error" not in found[name] and "skipped" not in found[name] for name in gpu_parts.PARTS)
    assert found["agree"]["cells"]["lmf+msmix"]["float64"] == 0.0
    assert found["rates"]["backbones"]["lmf"]["eager"]["steps_per_s"] > 0
    assert found["slice"]["jobs"] == found["slice"]["of"] == 2 and found["projection"]["jobs"] > 1000


def test_a_part_that_fails_is_recorded_and_the_rest_runs(tmp_path, monkeypatch, capsys):
    def broken(run):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(gpu_parts, "PARTS", {"agree": broken, "machine": lambda run: {"copy_gb_s": 1.0}})
    assert gpu.main(["--device", "cpu", "--out", str(tmp_path / "x.json"), "--parts", "agree,machine"]) == 1
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["agree"]["error"] == "RuntimeError: no such kernel" and found["machine"]["copy_gb_s"] == 1.0
    assert "to look at: agree" in capsys.readouterr().out


def test_parts_left_when_the_time_is_over_are_skipped_and_say_so(tmp_path):
    assert gpu.main(["--device", "cpu", "--out", str(tmp_path / "x.json"), "--parts", "machine", "--minutes", "-1"]) == 0
    assert "were over" in json.loads((tmp_path / "x.json").read_text())["machine"]["skipped"]
