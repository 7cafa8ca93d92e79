"""The GPU benchmark runs, tiny, on a CPU: every part but the long ones, so that it cannot rot."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import gpu, gpu_correct, gpu_parts, gpu_speed
from benchmarks.gpu_shares import shared


@pytest.mark.slow
def test_every_part_runs_on_a_cpu_and_says_what_it_found(tmp_path, capsys, no_fsync):
    pytest.importorskip("transformers")
    out = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--cells", "lmf+msmix", "--backbones", "lmf", "--out", str(out), "--minutes", "30"]) == 0, capsys.readouterr().out
    found = json.loads(out.read_text())
    elsewhere = {"launch", "real"} | (set() if os.environ.get("BENCH_PARITY_DIR") else {"parity"})  # need CUDA, or a user's files
    assert all("error" not in found[name] for name in gpu_parts.PARTS)
    assert {name for name in gpu_parts.PARTS if "skipped" in found[name]} <= elsewhere
    assert found["cells"]["cells"]["lmf+msmix"]["agree"]["float64"] == 0.0 and found["cells"]["cells"]["lmf+msmix"]["graphs"]["same"]
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


def test_a_run_that_is_ended_from_outside_leaves_what_it_has_measured(tmp_path, monkeypatch, capsys):
    """Six measurements of LMF (eager, as a graph, in company; the same without a mixer) and one of TFN, then it ends."""
    asked = []

    def speed(run, jobs, engine, seconds):
        asked.append(jobs[0].config.backbone)
        if asked.count("tfn") > 1:
            raise ending
        return {"steps_per_s": 100.0 * len(jobs), "jobs": len(jobs)}

    monkeypatch.setattr(gpu_speed, "speed", speed)
    line = ["--device", "cpu", "--parts", "rates", "--backbones", "lmf,tfn", "--out", str(tmp_path / "x.json")]
    ending = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        gpu.main(line)
    rates = json.loads((tmp_path / "x.json").read_text())["rates"]
    assert rates["unfinished"] and rates["backbones"]["lmf"]["none"]["company_2"]["steps_per_s"] == 200 and asked.count("lmf") == 6
    assert rates["backbones"]["tfn"] == {"eager": {"steps_per_s": 100.0, "jobs": 1}}
    out = capsys.readouterr().out
    assert "lmf        eager 100/s, graph 100/s, company_2 200/s, none eager 100/s" in out and "tfn" not in out
    asked.clear()
    ending = RuntimeError("device lost")
    assert gpu.main(line) == 1
    rates = json.loads((tmp_path / "x.json").read_text())["rates"]
    assert "unfinished" not in rates and "device lost" in rates["backbones"]["tfn"]["error"] and rates["backbones"]["tfn"]["eager"]


def test_what_a_part_kept_before_it_failed_stays(tmp_path, monkeypatch):
    def broken(run):
        run.keep({"first": 1})
        raise RuntimeError("second")

    monkeypatch.setattr(gpu_parts, "PARTS", {"launch": broken})
    assert gpu.main(["--device", "cpu", "--out", str(tmp_path / "x.json"), "--parts", "launch"]) == 1
    found = json.loads((tmp_path / "x.json").read_text())["launch"]
    assert found["first"] == 1 and found["error"] == "RuntimeError: second"


def test_few_parts_share_the_whole_time(tmp_path, monkeypatch):
    assert gpu_parts.shares(["launch"]) == {"launch": 1.0}
    assert gpu_parts.shares(["machine", "rates", "slice"]) == pytest.approx({"machine": 1.0, "rates": 0.7, "slice": 0.3})
    everything = gpu_parts.shares(list(gpu_parts.PARTS))
    assert everything == {n: gpu_parts.SHARES.get(n, 1.0) for n in gpu_parts.PARTS}
    monkeypatch.setattr(gpu_parts, "PARTS", {"launch": lambda run: {"left": run.left}})
    assert gpu.main(["--device", "cpu", "--out", str(tmp_path / "x.json"), "--parts", "launch", "--minutes", "5"]) == 0
    assert 290 < json.loads((tmp_path / "x.json").read_text())["launch"]["left"] <= 300


def test_every_failed_test_of_parity_is_kept_with_its_reason(tmp_path):
    test = tmp_path / "test_it.py"
    test.write_text("def test_a():\n    raise RuntimeError('cudnn\\n' + 'x' * 400)\ndef test_b():\n    assert 1 == 2, 'of b'\ndef test_c():\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", f"--junitxml={tmp_path / 'r.xml'}", str(test)]
    subprocess.run(command, cwd=tmp_path, capture_output=True)
    found = {k.partition("::")[2]: v for k, v in gpu_correct.failures(tmp_path / "r.xml").items()}
    assert found["test_a"] == "RuntimeError: cudnn " + "x" * 280 and found["test_b"].startswith("AssertionError: of b") and len(found) == 2


def nothing():
    """What a process of `shared` begins with."""


def work(task):
    if task == "dies":
        os._exit(3)
    return "RuntimeError: CUDA error: an illegal memory access" if task == "breaks" else (task, os.getpid())


@pytest.mark.slow
def test_a_process_that_dies_or_breaks_costs_its_own_task_alone():
    found = dict(shared(["a", "dies", "b", "breaks", "c", "d"], work, nothing, 1, lambda: 120.0))
    assert found["dies"] == "its process died (3)" and "illegal memory" in found["breaks"]
    assert [found[t][0] for t in "abcd"] == list("abcd")
    assert found["b"][1] != found["a"][1] and found["c"][1] != found["b"][1] and found["c"][1] == found["d"][1]


def test_tasks_left_when_the_time_is_over_are_said_to_be():
    assert dict(shared(["a", "b"], work, nothing, 1, lambda: -1.0)) == dict.fromkeys("ab", "skipped: out of time")


def test_the_projection_builds_on_raw_files_of_earlier_runs(tmp_path):
    raw = "benchmarks/h200/4-rates.json,benchmarks/h200/2-encoder.json"
    assert gpu.main(["--device", "cpu", "--parts", "projection", "--found", raw, "--out", str(tmp_path / "x.json")]) == 0
    found, stored = (json.loads(p.read_text()) for p in (tmp_path / "x.json", gpu.Path("benchmarks/h200/projection.json")))
    assert found["projection"]["jobs"] == stored["projection"]["jobs"] == 3211
    assert found["projection"]["gpu_hours"] == pytest.approx(stored["projection"]["gpu_hours"])
    assert found["projection"]["sentences_per_s"] == 6346.1


def test_two_sessions_on_a_gpu_gave_the_same_numbers():
    """docs/performance.md: seven trainings of LMF, twice, on two machines, in another company and by other versions of the engine."""
    import csv

    first, second = ({r["job"]: r for r in csv.DictReader(gpu.Path(f"benchmarks/h200/{n}-real-runs.csv").read_text().splitlines())} for n in (2, 4))
    timed = {"train_seconds"}
    assert len(first) == 7 and len(second) == 35
    assert all({k: v for k, v in r.items() if k not in timed} == {k: v for k, v in second[j].items() if k not in timed} for j, r in first.items())


def test_cuda_and_cpu_give_the_same_findings():
    """docs/performance.md: 21 Welch tests for each of TFN and LMF, and the H200's runs of TFN are those of the reference."""
    import csv
    from collections import defaultdict

    from scipy import stats

    root, found = gpu.Path("results/reference/mosi"), {}
    measured = ("mae", "corr", "non0_acc2")
    lines = list(csv.DictReader(gpu.Path("benchmarks/h200/5-tfn-cpu-cuda.csv").read_text().splitlines()))
    on = {d: defaultdict(list) for d in ("cpu", "cuda")}
    for r in lines:
        for m in measured:
            on[r["device"]][r["row"], m].append(float(r[m]))
    found["tfn"] = on
    stored = [json.loads(p.read_text())["test"] for p in root.glob("tfn+*/*-s111?/metrics.json")]
    assert len(lines) == 70 and {tuple(float(r[m]) for m in measured) for r in lines if r["device"] == "cuda"} <= {
        tuple(s[m] for m in measured) for s in stored}
    on = {d: defaultdict(list) for d in ("cpu", "cuda")}
    for r in csv.DictReader(gpu.Path("benchmarks/h200/4-real-runs.csv").read_text().splitlines()):
        on_cpu = json.loads((root / f"lmf+{r['mixer']}" / r["job"] / "metrics.json").read_text())["test"]
        for m in measured:
            on["cuda"][r["job"].partition("-")[0], m].append(float(r[f"test_{m}"]))
            on["cpu"][r["job"].partition("-")[0], m].append(on_cpu[m])
    found["lmf"] = on
    text = gpu.Path("docs/performance.md").read_text()
    for backbone, printed in (("lmf", "the smallest p is 0.04 (0.83 after Holm)"), ("tfn", "the smallest p is 0.11 (1.00 after Holm)")):
        cpu, cuda = found[backbone]["cpu"], found[backbone]["cuda"]
        p = [stats.ttest_ind(cpu[k], cuda[k], equal_var=False).pvalue for k in cpu]
        assert len(p) == 21 and {len(v) for v in (*cpu.values(), *cuda.values())} == {5}
        assert printed == f"the smallest p is {min(p):.2f} ({min(1, 21 * min(p)):.2f} after Holm)" and printed in text


def test_what_the_cells_and_fixtures_gave_on_a_gpu():
    """docs/performance.md: graphs against eager, device against CPU, parity."""
    folder, text = gpu.Path("benchmarks/h200"), " ".join(gpu.Path("docs/performance.md").read_text().split())
    cells = json.loads((folder / "5-cells.json").read_text())["cells"]["cells"]
    ran = {c: e for c, e in cells.items() if "vaderSentiment" not in str(e)}
    assert len(cells) == 112 and len(ran) == 110 and {c.split("+")[0] for c in set(cells) - set(ran)} == {"skeafn"}
    assert all(e["graphs"]["same"] and "not_captured" not in e["graphs"] for e in ran.values())
    double = {c: e["agree"] for c, e in ran.items() if isinstance(e["agree"]["float64"], float) and e["agree"]["float64"] <= 1e-6}
    assert len(double) == 85 and max(a["float64"] for a in double.values()) == pytest.approx(6.3e-7, rel=0.02)
    loose = {c: a["float32"] for c, a in double.items() if a["float32"] > 2e-3}
    assert set(loose) == {"bbfn+none", "bbfn+msmix", "lmib+msmix", "misa+advmixup"} and max(loose.values()) < 0.03
    parity = json.loads((folder / "6-parity.json").read_text())["parity"]
    assert parity["failed"] == {} and (parity["passed"], parity["skipped"]) == (323, 4)
    launches = json.loads((folder / "6-launch.json").read_text())["launch"]
    mixed, plain = (launches[f"tfn+{m}"] for m in ("msmix", "none"))
    for found, said in ((mixed, 1510), (plain, 2337)):
        rates = [found[f"16 jobs, {n} threads, per_s"] for n in (1, 2, 4)]
        assert rates[0] == pytest.approx(said, rel=1e-3) and max(rates) < 1.01 * min(rates)
    assert f"{mixed['host_us_a_launch']:.0f} and {plain['host_us_a_launch']:.0f} µs" in text
    assert "all 110 that could run there" in text and "323 tests passed" in text and "1,510 with MS-Mix and 2,337 without" in text
