"""What is refused before the first worker starts, in `plan`, `list` and `run` alike: one line, exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import validate
from bench.cli import main
from bench.data.tools import write_synthetic
from bench.errors import BenchError
from bench.experiments import select
from bench.matrix import Config
from bench.plan import make_plan
from bench.store import Store
from bench.suites import suite
from bench.terminal.streams import steady_output
from tests.golden import cell_config

LMF = ("--only", "synthetic-mosi/lmf+*")


def call(*arguments, capsys):
    code = main([str(a) for a in arguments])
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.mark.parametrize(("setting", "line"), [
    ("train.max_epochs=abc", "train.max_epochs: takes a whole number, got 'abc'"),
    ("train.lr=fast", "train.lr: takes a number, got 'fast'"),
    ("train.lr=NaN", "numbers must be finite"),
    ("train.lr=1e999", "numbers must be finite"),
    ("train.lr=0", "train.lr: must be above 0, got 0"),
    ("train.lr=true", "train.lr: takes a number"),
    ("train.max_epochs=99999999999", "train.max_epochs: must be at least 1 and at most 10,000,000"),
    ("train.=3", "--set cannot change 'train.'; use train.NAME"),
    ("train.batch_size=0", "train.batch_size: must be at least 1, got 0"),
    ("train.batch_size=1", "lmf normalises over the batch, which needs at least 2 rows"),
    ("train.group_lr={\"text\":-1}", "train.group_lr: must be at least 0"),
    ("train.milestones=3", "train.milestones: takes a list of values"),
    ("train.optimiser=sgd", "unknown train.optimiser 'sgd'; known: adam, adamw"),
    ("trian.lr=0.1", "did you mean 'train.lr'?"),
    ("fraction=2", "fraction takes a number above 0 and up to 1"),
    ("features=alinged", "did you mean 'aligned'?"),
    ("backbone.rnak=3", "did you mean 'rank'?"),
    ("backbone.rank=0", "backbone.rank: must be at least 1"),
    ("backbone.audio_dropout=1.5", "must be at least 0 and at most 0.999"),
    ("mixer.variant=nosuch", "variant must be one of paper, release; got 'nosuch'"),
    ("corruption.kind=nosuch", "unknown corruption kind 'nosuch'"),
])
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_settings_are_checked_before_anything_starts(verb, setting, line, capsys, tmp_path):
    code, _, err = call(verb, "msmix-t1", *LMF, "--set", setting, "--results", tmp_path, capsys=capsys)
    assert code == 2 and line in err and err.count("\n") == 1, err
    assert not list(tmp_path.iterdir())


def test_a_setting_that_only_some_cells_have_changes_those_and_says_so(capsys, tmp_path):
    code, out, _ = call("plan", "msmix-t1", *LMF, "--set", "mixer.p_mix=0.5", "--results", tmp_path, capsys=capsys)
    assert code == 0 and "mixer.p_mix changes the cells of advmixup, manifold, msmix" in " ".join(out.split())
    plain = Config("synthetic-mosi", "unaligned", "lmf")
    assert validate.applicable(plain, ["mixer.p_mix=0.5", "train.lr=1", "backbone.encoder=minilm"]) == ("train.lr=1",)


def test_gradient_modulation_refuses_sums_over_batches():
    c = cell_config("cpsl", "none")
    with pytest.raises(BenchError, match="scales each batch's gradients"):
        validate.check_config(c.with_(train={"accumulate": 2}))
    validate.check_config(c.with_(train={"accumulate": 2}, backbone_params={"gm": False, "ge": False, "cp": False}))


@pytest.mark.parametrize(("arguments", "line"), [
    (("--timeout", "-5"), "--timeout takes seconds above 0"),
    (("--timeout", "nan"), "--timeout takes seconds above 0"),
    (("--timeout", "1e300"), "--timeout takes seconds above 0"),
    (("--gpus=-1",), "--gpus takes numbers from 0"),
    (("--gpus", "0,0"), "names a GPU twice"),
    (("--seeds", "5000"), "--seeds takes 1 to 1000"),
])
def test_wrong_numbers(arguments, line, capsys, tmp_path):
    code, _, err = call("run", "msmix-t1", *LMF, *arguments, "--results", tmp_path / "r", capsys=capsys)
    assert code == 2 and line in err and err.count("\n") == 1 and not (tmp_path / "r").exists()


def test_results_that_cannot_be_a_folder(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    for path in ("file", "file/below"):
        for verb in ("plan", "run"):
            code, out, err = call(verb, "msmix-t1", *LMF, "--seeds", "1", "--results", tmp_path / path, capsys=capsys)
            assert (code == 2 and err.count("\n") == 1) or (verb == "plan" and path == "file/below" and code == 0), (verb, path, err)


def test_a_damaged_data_file_is_opened_by_every_verb_and_its_jobs_run_once_it_is_mended(capsys, tmp_path):
    data, results = tmp_path / "data", tmp_path / "results"
    write_synthetic(data, ["mosi"], False, ["msena"])
    files = {p: p.read_bytes() for p in data.rglob("*.pkl")}
    for p, content in files.items():
        p.write_bytes(content[:5000])
    common = ("msmix-t1", "--suite", "real", "--data", data, "--only", "mosi/lmf+none", "--seeds", "1", "--results", results)
    code, out, _ = call("plan", *common, capsys=capsys)
    assert code == 0 and "cannot run 1 job:" in out and "truncated" in out
    code, _, err = call("run", *common, capsys=capsys)
    assert code == 2 and "truncated" in err and err.count("\n") == 1
    for p, content in files.items():
        p.write_bytes(content)
    code, out, err = call("run", *common, "--set", "train.max_epochs=1", "--workers", "1", capsys=capsys)
    assert code == 0 and "1 done, 0 failed" in out, out + err


def test_jobs_go_on_when_nobody_reads_the_output(capfd):
    read, write = os.pipe()
    os.close(read)
    before, sys.stdout = sys.stdout, os.fdopen(write, "w")
    try:
        with steady_output():
            print("x" * 100_000, flush=True)
            print("still here", flush=True)
    finally:
        sys.stdout.close()
        sys.stdout = before
    assert "nobody reads the output any more" in capfd.readouterr().err


@pytest.mark.parametrize(("how", "code", "line"), [
    ("{} plan msmix-t4 --results none >&-", 0, ""),
    ("{} plan msmix-t4 --results none > /dev/full", 2, "bench: the output cannot be written: no space left where it goes\n"),
    ("{} completion bash > /dev/full", 2, "bench: the output cannot be written: no space left where it goes\n"),
    ("{} list | head -1 > /dev/null; exit ${{PIPESTATUS[0]}}", 0, ""),
    ("PYTHONIOENCODING=ascii {} list --backbones", 0, ""),
])
def test_whatever_standard_output_is_the_exit_code_is_true(how, code, line, tmp_path):
    """Closed, full, read by nobody, of an encoding that lacks a sign."""
    if ">" in how and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(["bash", "-c", how.format(f"{sys.executable} -m bench")], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, line)


def test_ctrl_c_before_the_first_word_is_one_line(tmp_path):
    """While modules are still being imported: what is asked for is stopped as later on."""
    code = "import bench.__main__ as m, sys, os, signal, types; signal.signal(signal.SIGINT, signal.default_int_handler);"
    slow = "sys.meta_path.insert(0, types.SimpleNamespace(find_spec=lambda n, *a: os.kill(os.getpid(), signal.SIGINT) if n == 'bench.cli' else None));"
    done = subprocess.run([sys.executable, "-c", f"{code} {slow} sys.exit(m.start())"], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "\nbench: stopped\n")


def test_what_a_run_does_not_touch_is_not_called_adapted(tmp_path, capsys):
    assert call("plan", "msmix-t1", *LMF, "--results", tmp_path, capsys=capsys)[0] == 0
    plan = make_plan(select(["msmix-t1"]), suite("quick"), Store(tmp_path), seeds=1, only="synthetic-mosi/lmf+none")
    assert [line.partition(":")[0] for line in plan.adapted] == ["lmf on synthetic-mosi"]


def test_a_failure_is_forgotten_with_its_circumstances(tmp_path):
    from bench.matrix import Job

    store, job = Store(tmp_path), Job(Config("mosi", "unaligned", "lmf"), 1111)
    here = {("mosi", "unaligned"): "aa"}
    store.fail(job, "boom", "ValueError", on={"data_sha256": "aa"})
    assert store.status(job, here) == store.status(job) == "failed"
    assert store.status(job, {("mosi", "unaligned"): "bb"}) == "missing", "the data file has changed"
    store.fail(job, "boom", "ValueError", on={"data_sha256": "aa", "code": "0123"})
    assert store.status(job, here) == "missing", "the code has changed"
    store.fail(job, "ran past --timeout 5 s", "JobTimeout", on={"timeout": 5.0})
    assert store.status(job, here) == "failed" and store.time_limit(job) == 5.0


def test_a_job_that_ran_into_a_time_limit_is_tried_again_under_a_longer_one(tmp_path):
    from bench.experiments import select
    from bench.plan import make_plan
    from bench.suites import suite

    store, chosen = Store(tmp_path), select(["msmix-t1"])
    jobs = [j for j in make_plan(chosen, suite("quick"), store, only="synthetic-mosi/lmf+none").jobs]
    store.fail(jobs[0], "ran past --timeout 5 s", "JobTimeout", on={"timeout": 5.0})
    plan = make_plan(chosen, suite("quick"), store, only="synthetic-mosi/lmf+none")
    assert jobs[0] not in plan.todo() and jobs[0] not in plan.todo(timeout=5.0)
    assert jobs[0] in plan.todo(timeout=9.0) and jobs[0] in plan.todo(timeout=None)
