"""`import bench`: the command line's functions as a script or a notebook calls them."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bench
from bench import api
from bench.errors import BenchError
from bench.interpreter import command


def test_functions_and_modules_of_one_name_are_both_there():
    """bench/plan.py, bench/tune.py, bench/report/ and others are modules too: they can be called, and imported as modules."""
    for name in bench.__all__:
        assert name in dir(bench) and callable(getattr(bench, name))
        if name != "BenchError":
            assert inspect.signature(getattr(bench, name)) == inspect.signature(getattr(api, name))
    code = ("import bench.plan as p, bench.tune, bench.report.build as b, bench.predict, bench.export, bench, sys\n"
            "from bench import plan\n"
            "from bench.plan import Plan\n"
            "assert all(callable(getattr(bench, n)) for n in bench.__all__) and p.Plan is Plan and b.build and plan is p\n"
            "assert bench.plan(['msmix-t4'], results=sys.argv[1]).jobs")
    subprocess.run([sys.executable, "-c", code, "nowhere"], check=True, cwd=Path(__file__).parents[1])
    with pytest.raises(AttributeError, match="has no attribute 'plam'"):
        bench.plam  # noqa: B018


def test_importing_bench_imports_nothing_large():
    code = "import bench, sys; assert not {'torch', 'pandas', 'numpy', 'bench.api'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_no_file_of_a_users_folder_is_taken_for_one_of_ours(tmp_path):
    """Their package `experiments` stays theirs, and modules named like the standard library's are not ours: neither to
    `python -m bench` nor to the workers, a detached run and the programs that it starts."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("MINE = 1\n")
    code = ("import experiments, bench, sys; jobs = bench.plan(['msmix-t4'], results='none').jobs\n"
            "assert experiments.MINE and jobs and 'experiments.common' not in sys.modules")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=env)
    for name in ("json", "queue", "numbers"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken for ours')\n")
    one = ("run", "msmix-t1", "--only", "synthetic-mosi/lmf+none", "--seeds", "1", "--set", "train.max_epochs=1", "--workers", "1")
    done = subprocess.run([sys.executable, "-m", "bench", *one], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "1 done, 0 failed" in done.stdout, done.stdout + done.stderr
    child = subprocess.run(command("import json; print(json.dumps(sys.argv[1:]))", "a", "b"), cwd=tmp_path, capture_output=True, text=True)
    assert child.stdout == '["a", "b"]\n', child.stderr


def test_a_script_plans_runs_reads_and_reports(tmp_path):
    """What a script does, on one job."""
    results = tmp_path / "results"
    plan = bench.plan(["msmix-t1"], only="synthetic-mosi/lmf+none", seeds=1, settings=["train.max_epochs=1"], results=results)
    assert len(plan.jobs) == 1
    found = bench.run(plan, results)
    assert found.ok and len(found.outcomes) == 1
    frame = bench.results(results)
    assert {"backbone", "mixer", "seed", "split", "metric", "value", "train.lr"} <= set(frame.columns)
    assert set(frame["backbone"]) == {"lmf"} and set(frame["split"]) == {"valid", "test"}
    page = bench.report(["msmix-t1"], results, out=tmp_path / "report")
    assert page.name == "index.html" and page.exists()
    with pytest.raises(bench.BenchError) as error:
        bench.plan(["no-such-table"], results=results)
    assert isinstance(error.value, BenchError) and "\n" not in str(error.value)
